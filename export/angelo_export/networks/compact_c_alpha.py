"""The compact C-alpha network: a residual multilayer perceptron on density patches.

Where ModelAngelo's network (``c_alpha``) says whether a voxel holds a C-alpha, this one says
more: the offset to it, the directions to N and C, the amino acid. Every output depends on one
patch of density alone, so the same weights are trained at sampled voxels with matrix products
and run over a whole map as a large-kernel convolution followed by 1x1x1 ones, and windows are
interchangeable with tiles of any size.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from angelo.residues import AMINO_ACIDS

#: Added to a patch's deviation, so that empty density is not blown up (maps have contrast 1).
DEVIATION_FLOOR = 0.02
#: Scale of the patch mean as a feature.
MEAN_SCALE = 3.0

#: Meaning of the output channels, in order: logit, then vectors in map axes (Å), then logits.
CHANNELS = (
    "calpha",
    *(f"{what}_{axis}" for what in ("offset", "n", "c") for axis in "xyz"),
    *(f"aa_{name}" for name in AMINO_ACIDS),
)


@dataclass(frozen=True, slots=True)
class CompactCalphaConfig:
    """Sizes of the patch network."""

    fine: int = 11
    """Side of the patch, voxels of 1 Å; odd."""
    coarse: int = 7
    """Side of the coarse patch, in steps of ``dilation`` voxels; odd."""
    dilation: int = 3
    """Spacing of the coarse patch, voxels; each sample is the mean of as many voxels cubed."""
    hidden: int = 512
    blocks: int = 3
    channels: int = 30
    """Outputs: C-alpha, offset (3), N (3), C (3), amino acids (20)."""

    @property
    def reach(self) -> int:
        """Voxels that the network sees on each side of the one it speaks of."""
        return max(self.fine // 2, self.coarse // 2 * self.dilation + self.dilation // 2)


class PatchBlock(nn.Module):
    """Pre-normalised residual block of a perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "*v h"]) -> Float[Tensor, "*v h"]:
        """Row-wise."""
        widened: Tensor = self.fc2(torch.relu(self.fc1(self.ln(x))))
        return x + widened


class CompactCalpha(nn.Module):
    """Patches to predictions, in two equal forms: ``forward_patches`` and ``forward``."""

    def __init__(self, config: CompactCalphaConfig) -> None:
        super().__init__()
        self.config = config
        self.fine = nn.Linear(config.fine**3, config.hidden)
        self.coarse = nn.Linear(config.coarse**3, config.hidden, bias=False)
        self.level = nn.Linear(2, config.hidden, bias=False)
        self.blocks = nn.ModuleList(PatchBlock(config.hidden) for _ in range(config.blocks))
        self.ln = nn.LayerNorm(config.hidden)
        self.out = nn.Linear(config.hidden, config.channels)

    def forward_patches(
        self, fine: Float[Tensor, "v f"], coarse: Float[Tensor, "v g"]
    ) -> Float[Tensor, "v k"]:
        """Predictions for patches around single voxels, both flattened from z, y, x."""
        mean = fine.mean(dim=1, keepdim=True)
        deviation = fine.std(dim=1, keepdim=True, unbiased=False) + DEVIATION_FLOOR
        level = torch.cat((mean * MEAN_SCALE, deviation.log()), dim=1)
        x = self.fine((fine - mean) / deviation) + self.coarse((coarse - mean) / deviation)
        return self._head(x + self.level(level))

    def forward(self, density: Float[Tensor, "b 1 z y x"], step: int = 2) -> Tensor:
        """Dense predictions (b, K, ...) at every ``step``-th voxel that has a whole patch.

        Output voxel o sits at input voxel ``reach + step * o`` along each axis.
        """
        c = self.config
        inset = c.reach - c.fine // 2
        size = density.shape[-1]
        inner = density[:, :, inset : size - inset, inset : size - inset, inset : size - inset]
        mean = functional.avg_pool3d(inner, c.fine, stride=step)
        square = functional.avg_pool3d(inner * inner, c.fine, stride=step)
        deviation = (square - mean * mean).clamp(min=0).sqrt() + DEVIATION_FLOOR
        fine = self.fine.weight.reshape(-1, 1, c.fine, c.fine, c.fine)
        coarse = self.coarse.weight.reshape(-1, 1, c.coarse, c.coarse, c.coarse)
        read = functional.conv3d(inner, fine, stride=step)
        smooth = functional.avg_pool3d(density, c.dilation, stride=1)
        inset = c.reach - (c.coarse // 2 * c.dilation + c.dilation // 2)
        end = smooth.shape[-1] - inset
        smooth = smooth[:, :, inset:end, inset:end, inset:end]
        read = read + functional.conv3d(smooth, coarse, stride=step, dilation=c.dilation)
        total = (fine.sum(dim=(1, 2, 3, 4)) + coarse.sum(dim=(1, 2, 3, 4))).reshape(
            1, -1, 1, 1, 1
        )
        x = (read - mean * total) / deviation + self.fine.bias.reshape(1, -1, 1, 1, 1)
        level = torch.cat((mean * MEAN_SCALE, deviation.log()), dim=1)
        rows = x.permute(0, 2, 3, 4, 1) + self.level(level.permute(0, 2, 3, 4, 1))
        # Not movedim: the exporter writes its negative axes, which ONNX does not know.
        return self._head(rows).permute(0, 4, 1, 2, 3)

    def _head(self, x: Float[Tensor, "*v h"]) -> Float[Tensor, "*v k"]:
        for block in self.blocks:
            x = block(x)
        output: Tensor = self.out(self.ln(x))
        return output
