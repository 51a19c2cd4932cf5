"""The compact C-alpha network: a residual U-Net over windows of density.

Where ModelAngelo's network (``c_alpha``) says whether a voxel holds a C-alpha, this one says
more, for cells of 2 Å: the offset to it, the directions to N and C, the amino acid. Nothing is
normalised over a window (only over channels and over 9 Å of density), so an output well inside
a window hardly depends on where the window was cut, and windows may be of any size.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from angelo.residues import AMINO_ACIDS

#: Meaning of the output channels, in order: logit, then vectors in map axes (Å), then logits.
CHANNELS = (
    "calpha",
    *(f"{what}_{axis}" for what in ("offset", "n", "c") for axis in "xyz"),
    *(f"aa_{name}" for name in AMINO_ACIDS),
)
#: Side of the cube whose mean and deviation scale the density in its middle, voxels.
LOCAL_SIDE = 9
#: Added to that deviation, so that empty density is not blown up (maps have contrast 1).
DEVIATION_FLOOR = 0.05
#: Keeps empty features finite when they are normalised.
EPSILON = 1e-4
#: Input voxels to an output cell along each axis.
STEP = 2
#: Outputs nearer than this to a window's faces see too little of their surroundings, voxels.
MARGIN = 8


@dataclass(frozen=True, slots=True)
class CompactCalphaConfig:
    """Sizes of the U-Net."""

    widths: tuple[int, ...] = (64, 112, 176)
    """Channels at 2, 4, 8, ... Å."""
    down_blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each level on the way down."""
    up_blocks: tuple[int, ...] = (2, 1)
    """On the way up; the last level has none."""
    head: int = 128
    """Hidden width of the output layer."""
    channels: int = 30
    """Outputs: C-alpha, offset (3), N (3), C (3), amino acids (20)."""

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if len(self.down_blocks) != levels or len(self.up_blocks) != levels - 1:
            raise ValueError(f"{levels} widths want as many down_blocks and one up_block less")


class ChannelNorm(nn.Module):
    """Scale each voxel's channels to a root mean square of one, then by learned factors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "b w z y x"]) -> Float[Tensor, "b w z y x"]:
        """Voxel by voxel."""
        wide = x.float()
        square = (wide * wide).mean(dim=1, keepdim=True)
        scaled: Tensor = x * torch.rsqrt(square + EPSILON).to(x.dtype)
        return scaled * self.gain.to(x.dtype).reshape(1, -1, 1, 1, 1)


class ConvBlock(nn.Module):
    """Pre-normalised residual block of two convolutions; the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b w z y x"]) -> Float[Tensor, "b w z y x"]:
        """Change features by what surrounds them."""
        change: Tensor = self.conv2(torch.relu(self.conv1(self.norm(x))))
        return x + change


class CompactCalpha(nn.Module):
    """Windows of density to predictions for cells of 2 Å."""

    def __init__(self, config: CompactCalphaConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.stem = nn.Conv3d(2, widths[0], 7, stride=STEP, padding=3)
        self.down = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width) for _ in range(blocks)))
            for width, blocks in zip(widths, config.down_blocks, strict=True)
        )
        self.shrink = nn.ModuleList(
            nn.Conv3d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose3d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(*(ConvBlock(width) for _ in range(blocks)))
            for width, blocks in zip(widths, config.up_blocks, strict=False)
        )
        self.norm = ChannelNorm(widths[0])
        self.hidden = nn.Conv3d(widths[0], config.head, 1)
        self.out = nn.Conv3d(config.head, config.channels, 1)

    @property
    def multiple(self) -> int:
        """Windows measure a multiple of this, voxels."""
        return STEP << (len(self.config.widths) - 1)

    def forward(self, density: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b k z2 y2 x2"]:
        """Predictions; output cell o sits at input voxel 2 o along each axis."""
        x = self.stem(self._localised(density))
        levels = []
        for number, blocks in enumerate(self.down):
            if number:
                x = self.shrink[number - 1](x)
            x = blocks(x)
            levels.append(x)
        for number in reversed(range(len(self.up))):
            x = self.up[number](levels[number] + self.grow[number](x))
        output: Tensor = self.out(torch.relu(self.hidden(self.norm(x))))
        return output

    def _localised(self, density: Tensor) -> Tensor:
        """Density relative to its surroundings, and how strong those are."""
        mean, square = local_mean(density), local_mean(density * density)
        deviation = (square - mean * mean).clamp(min=0).sqrt() + DEVIATION_FLOOR
        return torch.cat(((density - mean) / deviation, deviation.log()), dim=1)


def local_mean(values: Float[Tensor, "b 1 z y x"]) -> Float[Tensor, "b 1 z y x"]:
    """Mean over the cube of ``LOCAL_SIDE`` around each voxel, zeros beyond the box.

    Axis by axis: torch takes ten times as long for all three at once.
    """
    for axis in range(3):
        side, margin = [1, 1, 1], [0, 0, 0]
        side[axis], margin[axis] = LOCAL_SIDE, LOCAL_SIDE // 2
        values = functional.avg_pool3d(values, side, stride=1, padding=margin)
    return values
