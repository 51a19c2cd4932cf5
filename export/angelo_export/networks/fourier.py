"""Convolutions with large kernels as products in the Fourier space of overlapping tiles.

A kernel of 7 x 7 x 7 voxels costs 343 multiplications for each voxel and pair of channels; here
it is 4, and what the transforms cost, which does not grow with the pairs. All of it is products
of matrices, which run well everywhere, and it rounds less than the direct sum.

Along each axis a tile of ``TILE`` outputs reads n = ``TILE + kernel - 1`` inputs. They are
transformed at the n / 2 frequencies pi (2 k + 1) / n, those of sequences that change their sign
when they repeat: none of these is real, so cosines and sines are n numbers and all axes alike.

References
----------
Overlap-save tiles: Oppenheim & Schafer, Discrete-Time Signal Processing, section 8.7.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn
from torch.nn import functional

#: Outputs of a tile along an axis; even. With 8 to 16 the full-size network takes the same time
#: within a tenth; larger tiles need less memory for values and more for kernels.
TILE = 16


@dataclass(frozen=True, slots=True)
class AxisTransforms:
    """Transforms along an axis; the parts (p) of each are the cosines and the sines."""

    values: Float64[np.ndarray, "p bins tiles side"]
    """Voxels to frequencies of tiles, zeros around the grid."""
    kernels: Float64[np.ndarray, "p bins kernel"]
    """Kernel to frequencies."""
    sums: Float64[np.ndarray, "side p bins tiles"]
    """Frequencies of tiles to voxels, but for a factor of 2 that all three axes share."""


def axis_transforms(side: int, kernel: int) -> AxisTransforms:
    """Make those for ``side`` voxels and an odd ``kernel``, its middle on the output."""
    length = TILE + kernel - 1
    angles = np.pi * (2 * np.arange(length // 2)[:, None, None] + 1) / length
    starts = TILE * np.arange(-(-side // TILE))[:, None]
    read = np.arange(side) - (starts - kernel // 2)  # place of a voxel in what a tile reads
    written = np.arange(side) - starts
    values = _waves(angles * read) * ((read >= 0) & (read < length))
    sums = _waves(angles * written) * ((written >= 0) & (written < TILE)) / length
    kernels = _waves(angles[:, 0] * np.arange(kernel))
    return AxisTransforms(values, kernels, np.moveaxis(sums, -1, 0))


def _waves(phases: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(phases), np.sin(phases)])


def product_matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multiply transforms: ``sums @ ((values @ v) * (kernels @ k))``, (8, 12) and two (12, 8).

    The eight numbers at three frequencies are products of a cosine or sine along z, y and x.
    They stand for four complex numbers, one for each sign of the frequencies along z and y, and
    a complex product takes three real ones.
    """
    values, kernels, sums = np.zeros((3, 4, 8)), np.zeros((3, 4, 8)), np.zeros((8, 3, 4))
    for i, (sign_z, sign_y) in enumerate(itertools.product((1, -1), repeat=2)):
        for j, (sine_z, sine_y, sine_x) in enumerate(itertools.product((0, 1), repeat=3)):
            factor = (1j * sign_z) ** sine_z * (1j * sign_y) ** sine_y * 1j**sine_x
            real, imaginary = factor.real, factor.imag
            values[:, i, j] = real, -imaginary, real - imaginary  # conjugate: correlation
            kernels[:, i, j] = real, imaginary, real + imaginary
            # Of products a, b, c: the real part is a - b, the imaginary part c - a - b. Twice,
            # as the other half of the frequencies is the complex conjugate.
            sums[j, :, i] = 2 * np.array([real + imaginary, imaginary - real, -imaginary])
    return values.reshape(12, 8), kernels.reshape(12, 8), sums.reshape(8, 12)


class FourierConvolutions(nn.Module):
    """Convolutions of one input on a cubic grid with zeros around, their outputs concatenated.

    Works on one frequency along z at a time: all of them would take many times the memory.
    """

    def __init__(self, convolutions: Sequence[nn.Conv3d], side: int) -> None:
        """For convolutions with a bias and cubic, odd kernels that keep the ``side`` voxels."""
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.side = side
        self.kernel = max(part.kernel_size[0] for part in convolutions)
        self.n_in = convolutions[0].in_channels
        self.n_out = sum(part.out_channels for part in convolutions)
        axis = axis_transforms(side, self.kernel)
        self.n_bins, self.n_tiles = axis.values.shape[1:3]
        matrices = zip(("values", "kernels", "sums"), product_matrices(), strict=True)
        for name, array in (
            ("analysis", axis.values),
            ("kernel_analysis", axis.kernels),
            ("synthesis", axis.sums),
            *((f"product_{name}", matrix) for name, matrix in matrices),
        ):
            self.register_buffer(name, torch.from_numpy(array).float(), persistent=False)
        self.analysis: Tensor
        self.kernel_analysis: Tensor
        self.synthesis: Tensor
        self.product_values: Tensor
        self.product_kernels: Tensor
        self.product_sums: Tensor

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d z y x"]:
        """As the convolutions, concatenated."""
        sums, values, kernels = self.start(x)
        for number in range(self.n_bins):
            sums = self.step(sums, torch.tensor([number]), values, kernels)
        return self.finish(sums)

    def start(self, x: Float[Tensor, "b c z y x"]) -> tuple[Tensor, Tensor, Tensor]:
        """Arrange the bias (z, y x b d), the values (z, y x b c), the kernels (z, y x c d)."""
        side, batch = self.side, x.shape[0]
        parts = cast(list[nn.Conv3d], list(self.convolutions))
        bias = torch.cat([cast(Tensor, part.bias) for part in parts])
        sums = bias.expand(side, side**2, batch, self.n_out).reshape(side, -1)
        margins = [[(self.kernel - part.kernel_size[0]) // 2] * 6 for part in parts]
        kernels = torch.cat(
            [functional.pad(part.weight, n) for part, n in zip(parts, margins, strict=True)]
        )
        return (
            sums,
            x.permute(2, 3, 4, 0, 1).reshape(side, -1),
            kernels.permute(2, 3, 4, 1, 0).reshape(self.kernel, -1),
        )

    def step(
        self,
        sums: Float[Tensor, "z yxbd"],
        number: Int[Tensor, "1"],
        values: Float[Tensor, "z yxbc"],
        kernels: Float[Tensor, "k kkcd"],
    ) -> Float[Tensor, "z yxbd"]:
        """Add what frequency ``number`` along z contributes."""
        bins = self.n_bins
        v = self._transform_values(number, values)
        k = self._transform_kernels(number, kernels)
        v = (self.product_values @ v).reshape(12 * bins * bins, -1, self.n_in)
        k = (self.product_kernels @ k).reshape(12 * bins * bins, self.n_in, self.n_out)
        products = (v @ k).reshape(12, -1)
        return sums + self._transform_back(number, self.product_sums @ products)

    def finish(self, sums: Float[Tensor, "z yxbd"]) -> Float[Tensor, "b d z y x"]:
        """Channels first again."""
        side = self.side
        return sums.reshape(side, side, side, -1, self.n_out).permute(3, 4, 0, 1, 2)

    # In the shapes below p is parts, k bins, t tiles, each with its axis. Transposed in steps:
    # ONNX Runtime transposes no more than eight axes on a GPU.

    def _transform_values(self, number: Tensor, values: Tensor) -> Tensor:
        """To (pz py px, ky kx, tz ty tx b c)."""
        side, bins, tiles = self.side, self.n_bins, self.n_tiles
        along_z = self.analysis.index_select(1, number).reshape(2 * tiles, side)
        analysis = self.analysis.reshape(2 * bins * tiles, side)
        v = (along_z @ values).reshape(2 * tiles, side, -1)
        v = (analysis @ v).reshape(2, tiles, 2, bins, tiles, -1)
        v = v.permute(0, 2, 3, 1, 4, 5).reshape(4 * bins * tiles**2, side, -1)
        v = (analysis @ v).reshape(4, bins, tiles**2, 2, bins, tiles, -1)
        return v.permute(0, 3, 1, 4, 2, 5, 6).reshape(8, -1)

    def _transform_kernels(self, number: Tensor, kernels: Tensor) -> Tensor:
        """To (pz py px, ky kx, c d)."""
        bins = self.n_bins
        along_z = self.kernel_analysis.index_select(1, number).reshape(2, self.kernel)
        analysis = self.kernel_analysis.reshape(2 * bins, self.kernel)
        k = (along_z @ kernels).reshape(2, self.kernel, -1)
        k = (analysis @ k).reshape(4 * bins, self.kernel, -1)
        k = (analysis @ k).reshape(4, bins, 2, bins, -1)
        return k.permute(0, 2, 1, 3, 4).reshape(8, -1)

    def _transform_back(self, number: Tensor, products: Tensor) -> Tensor:
        """From (pz py px, ky kx tz ty tx b d)."""
        side, bins, tiles = self.side, self.n_bins, self.n_tiles
        synthesis = self.synthesis.reshape(side, 2 * bins * tiles)
        along_z = self.synthesis.index_select(2, number).reshape(side, 2 * tiles)
        s = products.reshape(4, 2, bins, bins, tiles**2, tiles, -1)
        s = s.permute(0, 2, 4, 1, 3, 5, 6)
        s = s.reshape(4 * bins * tiles**2, 2 * bins * tiles, -1)
        s = (synthesis @ s).reshape(2, 2, bins, tiles, tiles, -1)
        s = s.permute(0, 3, 1, 2, 4, 5).reshape(2 * tiles, 2 * bins * tiles, -1)
        s = (synthesis @ s).reshape(2 * tiles, -1)
        return along_z @ s
