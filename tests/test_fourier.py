"""Convolutions in Fourier space against direct ones."""

import numpy as np
import pytest
import torch
from torch import nn

from angelo_export.networks.fourier import (
    TILE,
    FourierConvolutions,
    axis_transforms,
    product_matrices,
)


def convolutions(n_in: int, n_out: int, kernels: tuple[int, ...]) -> list[nn.Conv3d]:
    torch.manual_seed(0)
    return [nn.Conv3d(n_in, n_out, kernel, padding=kernel // 2) for kernel in kernels]


@torch.no_grad()
@pytest.mark.parametrize(
    ("side", "kernels", "batch"),
    [(32, (3, 5, 7), 1), (16, (7,), 2), (20, (3, 5), 1), (8, (3,), 3)],
)
def test_as_direct_convolutions(side, kernels, batch):
    parts = convolutions(3, 2, kernels)
    x = torch.randn(batch, 3, side, side, side)
    got = FourierConvolutions(parts, side)(x)
    exact = torch.cat([part.double()(x.double()) for part in parts], dim=1)
    # Worst seen over 20 seeds: 5e-7 of the largest value.
    assert (got - exact).abs().max() <= 2e-6 * exact.abs().max()


@torch.no_grad()
def test_a_kernel_of_one_voxel_shifts():
    (part,) = convolutions(1, 1, (7,))
    nn.init.zeros_(part.weight)
    nn.init.constant_(part.bias, 0.5)
    part.weight[0, 0, 0, 3, 6] = 2  # three voxels before along z, three behind along x
    x = torch.randn(1, 1, 20, 20, 20)
    got = FourierConvolutions([part], 20)(x)[0, 0]
    expected = torch.full_like(got, 0.5)
    expected[3:, :, :-3] += 2 * x[0, 0, :-3, :, 3:]
    torch.testing.assert_close(got, expected, rtol=0, atol=5e-6)


def test_along_one_axis():
    rng = np.random.default_rng(0)
    side, kernel = 3 * TILE - 5, 5
    values, weights = rng.normal(size=side), rng.normal(size=kernel)
    axis = axis_transforms(side, kernel)
    cosines, sines = axis.values @ values
    kernel_cosines, kernel_sines = axis.kernels @ weights
    product = (cosines - 1j * sines) * (kernel_cosines + 1j * kernel_sines)[:, None]
    sums = 2 * np.einsum("spkt,pkt->s", axis.sums, [product.real, -product.imag])
    np.testing.assert_allclose(sums, np.correlate(values, weights, "same"), atol=1e-12)


def test_products_of_waves():
    """Of waves with any phases, as one complex product for each pair of signs gives them."""
    rng = np.random.default_rng(0)
    values, kernels, sums = product_matrices()
    shifts, phases, places = rng.uniform(0, 2 * np.pi, (3, 3))

    def eight(angles: np.ndarray) -> np.ndarray:
        z, y, x = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
        return np.einsum("i,j,k->ijk", z, y, x).reshape(8)

    got = eight(places) @ sums @ ((values @ eight(phases)) * (kernels @ eight(shifts)))
    # A cosine's and a sine's share of exp(i (place - phase + shift)), both signs, all axes.
    assert got == pytest.approx(8 * np.cos(places - phases + shifts).prod())
