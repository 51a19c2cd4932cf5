"""Sampling in torch gives what the runtime's sampling gives."""

import numpy as np
import torch

from angelo import sampling
from angelo.frames import random_rotations
from angelo.types import BackboneFrames, Density
from angelo_training import device_sampling

# Worst seen over 20 seeds: 1.7e-5, on densities of unit variance.
ATOL = 5e-5


def scene(seed):
    """Noise on a grid, and 20 frames in it, some of them near its faces."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(30, 40, 50)).astype(np.float32)
    positions = (rng.random((20, 3)) * [49, 39, 29]).astype(np.float32)
    frames = BackboneFrames(random_rotations(20, rng), positions)
    density = Density(values, np.ones(3, np.float32), np.zeros(3, np.float32))
    return density, frames, rng.integers(0, 20, (20, 5))


def tensors(density, frames):
    arrays = (density.values_zyx, frames.rotation, frames.ca)
    return [torch.from_numpy(array) for array in arrays]


def test_cubes_agree():
    density, frames, _ = scene(0)
    expected = sampling.sample_cubes(density, frames, 7, 1.0)
    got = device_sampling.sample_cubes(*tensors(density, frames), 7, 1.0)
    np.testing.assert_allclose(got.numpy(), expected, atol=ATOL)


def test_edge_rectangles_agree():
    density, frames, neighbours = scene(1)
    expected = sampling.sample_edge_rectangles(density, frames, neighbours, 9, 3, 1.0)
    got = device_sampling.sample_edge_rectangles(
        *tensors(density, frames), torch.from_numpy(neighbours), 9, 3, 1.0
    )
    np.testing.assert_allclose(got.numpy(), expected, atol=ATOL)


def test_density_on_a_voxel_is_the_voxel():
    density, _, _ = scene(2)
    values = torch.from_numpy(density.values_zyx)
    at = torch.tensor([[4.0, 3.0, 2.0], [-5.0, 0.0, 0.0]])
    axes = torch.eye(3).expand(2, 3, 3)
    sampled = device_sampling.sample_cubes(values, axes, at, 1, 1.0)[:, 0]
    assert abs(float(sampled[0]) - float(values[2, 3, 4])) < ATOL
    assert float(sampled[1]) == 0.0
