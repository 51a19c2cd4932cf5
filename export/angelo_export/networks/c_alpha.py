"""ModelAngelo's C-alpha network: a feature pyramid whose depth sits at coarse scales.

Official parameter names; loads official checkpoints as they are.

References
----------
Jamali et al. 2024, doi:10.1038/s41586-024-07215-4, Methods.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from angelo_export.networks.bottleneck import (
    EXPANSION,
    Bottleneck,
    WindowNorm,
    window_mean,
)

#: Kernel sides of the last convolutions.
HEAD_KERNELS = (3, 5, 7)
#: Kept off a division by zero for a constant window.
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class CalphaConfig:
    """Sizes of the C-alpha network; the defaults are the official full-size ones."""

    features: int = 64
    """Channels at full resolution."""
    blocks: tuple[int, int, int, int] = (10, 50, 20, 2)
    """Bottlenecks at full, half, quarter and eighth resolution."""
    n_in: int = 2
    """Input channels: density, local standard deviation."""
    n_out: int = 3
    """Output channels: C-alpha, phosphorus, backbone."""


class ConvolutionLayer(nn.Module):
    """Convolution, affine instance norm, ReLU."""

    def __init__(
        self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, *, bias: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv3d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=bias)
        self.bn = WindowNorm(n_out, affine=True)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d Z Y X"]:
        """Keep the grid, or halve it for a stride of 2."""
        return functional.relu(self.bn(self.conv(x)))


class MultiScaleHead(nn.Module):
    """Convolutions of several kernel sizes side by side, then one number a channel."""

    def __init__(self, n_in: int, inner: int, n_out: int) -> None:
        super().__init__()
        self.convs = nn.ModuleDict(
            {
                f"conv_{i}_{kernel}": nn.Conv3d(n_in, inner, kernel, padding=kernel // 2)
                for i, kernel in enumerate(HEAD_KERNELS)
            }
        )
        self.bn = WindowNorm(inner * len(HEAD_KERNELS))
        self.final_conv = nn.Conv3d(inner * len(HEAD_KERNELS), n_out, 1)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """Logits."""
        return self.logits(torch.cat([conv(x) for conv in self.convs.values()], dim=1))

    def logits(self, scales: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """From the outputs of all convolutions."""
        logits: Tensor = self.final_conv(self.bn(functional.relu(scales)))
        return logits


class InvertedPyramid(nn.Module):
    """Down to a sixteenth in single steps, then up through bottlenecks at every scale."""

    def __init__(self, config: CalphaConfig) -> None:
        super().__init__()
        f = config.features
        down = (f, f, 2 * f, 4 * f, 8 * f)  # channels on the way down, from full resolution
        inner = (f, f, 2 * f, 4 * f)  # inner channels of the bottlenecks, full resolution first
        # Channels that the bottlenecks of each scale receive and give. Parity: they are built
        # from fine to coarse, so each takes the width that the finer one gives.
        takes = (f, *(EXPANSION * c for c in inner[:-1]))
        gives = tuple(EXPANSION * c for c in inner)
        above = (*gives[1:], down[-1])  # what comes up from the coarser scale

        modules: dict[str, nn.Module] = {"conv1": ConvolutionLayer(config.n_in, f, kernel=5)}
        for i in range(4):
            modules[f"downsample{i + 1}"] = ConvolutionLayer(down[i], down[i + 1], stride=2)
        for i in range(4):
            modules[f"layer{i + 1}"] = nn.Sequential(
                *(
                    Bottleneck(gives[i] if j else takes[i], inner[i], norm=WindowNorm)
                    for j in range(config.blocks[i])
                )
            )
            modules[f"translator_layer{i + 1}"] = ConvolutionLayer(
                above[i], takes[i], bias=True
            )
            modules[f"latlayer{i + 1}"] = ConvolutionLayer(down[i], takes[i], bias=True)
        modules["predictor"] = MultiScaleHead(gives[0], f, config.n_out)
        self.modules_dict = nn.ModuleDict(modules)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """Logits on the input's grid."""
        logits: Tensor = self.modules_dict["predictor"](self.features(x))
        return logits

    def features(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """Make what the predictor sees."""
        part = self.modules_dict
        scales = [part["conv1"](normalise_first_channel(x))]
        for i in range(1, 5):
            scales.append(part[f"downsample{i}"](scales[-1]))
        up: Tensor = scales.pop()
        for i in range(4, 0, -1):
            beside = part[f"latlayer{i}"](scales.pop())
            coarse = part[f"translator_layer{i}"](up)
            raised = functional.interpolate(coarse, size=beside.shape[2:], mode="trilinear")
            up = part[f"layer{i}"](raised + beside)
        return up


class CalphaNetwork(nn.Module):
    """Windows -> logits per voxel.

    Parity: instance norms and the first channel's normalisation use statistics of the whole
    window, so a voxel's logits depend on where windows are cut and how large they are.
    """

    def __init__(self, config: CalphaConfig) -> None:
        super().__init__()
        self.config = config
        self.net = InvertedPyramid(config)

    def forward(self, windows: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """Sides should be multiples of 16; official windows are 64."""
        logits: Tensor = self.net(windows)
        return logits


def normalise_first_channel(x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
    """Bring the first channel of every window to mean 0 and (unbiased) deviation 1."""
    first = x[:, :1]
    centred = first - window_mean(first)
    n_voxels = first.shape[2] * first.shape[3] * first.shape[4]
    variance = window_mean(centred * centred) * (n_voxels / (n_voxels - 1))
    return torch.cat((centred / (torch.sqrt(variance) + EPSILON), x[:, 1:]), dim=1)
