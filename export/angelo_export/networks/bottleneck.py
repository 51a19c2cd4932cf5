"""The residual convolution block shared by the C-alpha network and the density cubes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

#: Output channels of a block are this many times its inner channels.
EXPANSION = 4


class WindowNorm(nn.InstanceNorm3d):
    """Instance norm with statistics exact enough for a window's hundred thousands of voxels.

    ONNX Runtime adds them up one by one: 25 times the rounding error of torch, which a deep
    network amplifies. Here layers are added up first, then their means. No running statistics.
    """

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c z y x"]:
        """As ``nn.InstanceNorm3d``."""
        centred = x - window_mean(x)
        normed = centred / torch.sqrt(window_mean(centred * centred) + self.eps)
        if not self.affine:
            return normed
        shape = (-1, 1, 1, 1)
        return normed * self.weight.reshape(shape) + self.bias.reshape(shape)


def window_mean(x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c 1 1 1"]:
    """Mean over a grid, in two steps."""
    return x.mean(dim=(3, 4), keepdim=True).mean(dim=2, keepdim=True)


class Bottleneck(nn.Module):
    """Squeeze, 3 x 3 x 3 convolution, expand; instance norm after each; added to the input.

    References
    ----------
    He et al. 2016, doi:10.1109/CVPR.2016.90, with instance for batch norm.
    """

    def __init__(
        self,
        n_in: int,
        inner: int,
        stride: int = 1,
        *,
        affine: bool = False,
        norm: type[nn.InstanceNorm3d] = nn.InstanceNorm3d,
    ) -> None:
        super().__init__()
        n_out = EXPANSION * inner
        self.conv1 = nn.Conv3d(n_in, inner, 1, bias=False)
        self.bn1 = norm(inner, affine=affine)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = norm(inner, affine=affine)
        self.conv3 = nn.Conv3d(inner, n_out, 1, bias=False)
        self.bn3 = norm(n_out, affine=affine)
        self.shortcut_conv: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut_conv = nn.Conv3d(n_in, n_out, 1, stride=stride, bias=False)

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d Z Y X"]:
        """One block; a stride divides the grid."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        return functional.relu(self.bn3(self.conv3(y)) + self.shortcut_conv(x))
