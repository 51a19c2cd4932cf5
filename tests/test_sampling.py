"""Density at points: exact where linear, nothing outside, boxes that turn with frames."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from angelo.frames import rotation_from_backbone
from angelo.sampling import cube_offsets, sample_cubes, sample_density, sample_edge_rectangles
from angelo.types import BackboneFrames, Density

VOXEL = np.float32([1.1, 0.9, 1.3])
ORIGIN = np.float32([-20, 3, 40])
#: A linear density is what trilinear sampling gets exactly right: value = GRADIENT . x + 5.
GRADIENT = np.float32([0.7, -1.3, 0.4])


def linear_map(shape=(40, 60, 50)) -> Density:
    z, y, x = (np.arange(n) for n in shape)
    values = 5.0 + GRADIENT @ ORIGIN
    for gradient, edge, ticks in zip(
        GRADIENT, VOXEL, (x, y[:, None], z[:, None, None]), strict=True
    ):
        values = values + gradient * edge * ticks
    return Density(values.astype(np.float32), VOXEL, ORIGIN)


def random_map(shape=(9, 11, 10), seed=0) -> Density:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Density(values, VOXEL, ORIGIN)


def random_frames(n, seed=0, low=(0, 20, 55), high=(15, 40, 75)) -> BackboneFrames:
    """Residues in the middle of ``linear_map``."""
    rng = np.random.default_rng(seed)
    to_n, to_c = rng.normal(size=(2, n, 3)).astype(np.float32)
    rotation = rotation_from_backbone(to_n, np.zeros_like(to_n), to_c)
    return BackboneFrames(rotation, rng.uniform(low, high, (n, 3)).astype(np.float32))


def test_voxel_centres_give_the_voxels():
    density = random_map()
    z, y, x = np.meshgrid(*(np.arange(n) for n in density.values_zyx.shape), indexing="ij")
    points = ORIGIN + VOXEL * np.stack([x, y, z], axis=-1).astype(np.float32)
    np.testing.assert_allclose(sample_density(density, points), density.values_zyx, atol=1e-4)


def test_linear_density_is_exact():
    points = np.random.default_rng(0).uniform((-15, 10, 45), (25, 50, 80), (500, 3))
    sampled = sample_density(linear_map(), points.astype(np.float32))
    np.testing.assert_allclose(sampled, points @ GRADIENT + 5, atol=1e-4)


def test_same_as_scipy_up_to_the_faces():
    density = random_map()
    size = VOXEL * density.values_zyx.shape[::-1]
    points = np.random.default_rng(1).uniform(ORIGIN - 3, ORIGIN + size + 3, (2000, 3))
    points = points.astype(np.float32)
    at_zyx = ((points - ORIGIN) / VOXEL)[:, ::-1].T
    # "grid-constant": the map goes on as zeros, and is interpolated with them.
    expected = map_coordinates(density.values_zyx, at_zyx, order=1, mode="grid-constant")
    np.testing.assert_allclose(sample_density(density, points), expected, atol=1e-5)


@pytest.mark.parametrize("distance", [1.01, 2, 50, 1e8, 3e38])
@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("side", [-1, 1])
def test_outside_there_is_nothing(distance, axis, side):
    density = Density(np.ones((4, 5, 6), np.float32), np.ones(3, np.float32), np.zeros(3, "f4"))
    point = np.float32([[2, 2, 2]])
    point[0, axis] = -distance if side < 0 else (6, 5, 4)[axis] - 1 + distance
    assert sample_density(density, point) == 0


def test_shape_of_the_points_is_kept():
    points = np.zeros((2, 3, 4, 3), np.float32)
    sampled = sample_density(random_map(), points)
    assert sampled.shape == (2, 3, 4)
    assert sampled.dtype == np.float32
    assert sample_density(random_map(), points[:0]).shape == (0, 3, 4)


def test_cube_offsets_are_centred_and_row_major():
    offsets = cube_offsets(3, 0.5)
    np.testing.assert_array_equal(offsets[:4], 0.5 * np.array(
        [[-1, -1, -1], [-1, -1, 0], [-1, -1, 1], [-1, 0, -1]]
    ))  # fmt: skip
    np.testing.assert_allclose(cube_offsets(4, 1.3).mean(0), 0, atol=1e-6)
    assert cube_offsets(4, 1.3).max() == pytest.approx(1.95)


def test_cubes_lie_along_the_residue_axes():
    frames = random_frames(20)
    cubes = sample_cubes(linear_map(), frames, 5, 0.8)
    offsets = cube_offsets(5, 0.8)
    expected = np.empty((20, 125))
    for r in range(20):
        for p in range(125):
            place = frames.ca[r] + frames.rotation[r] @ offsets[p]
            expected[r, p] = GRADIENT @ place + 5
    np.testing.assert_allclose(cubes, expected, atol=1e-4)


def test_rectangles_run_from_residue_to_neighbour():
    frames = random_frames(12)
    neighbours = np.array([[(r + 1) % 12, (r + 5) % 12] for r in range(12)])
    boxes = sample_edge_rectangles(linear_map(), frames, neighbours, 5, 3, 0.9)
    assert boxes.shape == (12, 2, 45)
    boxes = boxes.reshape(12, 2, 5, 3, 3)
    at_ca = frames.ca @ GRADIENT + 5
    np.testing.assert_allclose(boxes[:, :, 0, 1, 1], at_ca[:, None].repeat(2, 1), atol=1e-4)
    np.testing.assert_allclose(boxes[:, :, 4, 1, 1], at_ca[neighbours], atol=1e-4)
    # Each step along, across and up changes a linear density by the same amount everywhere;
    # the three directions are orthogonal, so the changes add up to the gradient's length.
    along, across, up = (np.diff(boxes, axis=axis) for axis in (2, 3, 4))
    for change in (along, across, up):
        np.testing.assert_allclose(change, change[:, :, :1, :1, :1] + 0 * change, atol=2e-4)
    distance = np.linalg.norm(frames.ca[neighbours] - frames.ca[:, None], axis=-1) / 4
    first = [change[:, :, 0, 0, 0] for change in (along, across, up)]
    length = (first[0] / distance) ** 2 + (first[1] / 0.9) ** 2 + (first[2] / 0.9) ** 2
    np.testing.assert_allclose(length, GRADIENT @ GRADIENT, rtol=1e-3)


def test_first_cross_axis_leans_towards_e1():
    ca = np.float32([[0, 20, 60], [0, 20, 64]])
    frames = BackboneFrames(np.eye(3, dtype=np.float32)[None].repeat(2, 0), ca)  # edge along z
    box = sample_edge_rectangles(linear_map(), frames, np.array([[1], [0]]), 3, 3, 1.0)
    box = box.reshape(2, 1, 3, 3, 3)
    np.testing.assert_allclose(np.diff(box, axis=3), GRADIENT[0], atol=1e-4)
    # Right-handed: along x across. Towards +z that is +y, back again -y.
    np.testing.assert_allclose(np.diff(box[0], axis=3), GRADIENT[1], atol=1e-4)
    np.testing.assert_allclose(np.diff(box[1], axis=3), -GRADIENT[1], atol=1e-4)


def test_edge_along_e1_and_edge_to_itself_are_finite():
    ca = np.float32([[0, 20, 60], [3.8, 20, 60]])  # edge along e1
    frames = BackboneFrames(np.eye(3, dtype=np.float32)[None].repeat(2, 0), ca)
    box = sample_edge_rectangles(linear_map(), frames, np.array([[1, 0], [0, 1]]), 3, 3, 1.0)
    assert np.isfinite(box).all()
    box = box.reshape(2, 2, 3, 3, 3)
    np.testing.assert_allclose(np.diff(box[0, 0], axis=1), GRADIENT[1], atol=1e-4)
    centre = ca @ GRADIENT + 5
    np.testing.assert_allclose(box[:, 1, :, 1, 1], centre[:, None].repeat(3, 1), atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_boxes_turn_with_the_molecule(seed):
    """A quarter turn of map and molecule together changes no sample."""
    density, frames = random_map((30, 30, 30), seed), random_frames(6, seed, 10, 20)
    density = Density(density.values_zyx, np.ones(3, np.float32), np.zeros(3, np.float32))
    turn = np.float32([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x -> y, y -> -x
    turned_map = Density(
        np.ascontiguousarray(density.values_zyx.transpose(0, 2, 1)[:, :, ::-1]),
        density.voxel_size,
        np.float32([-29, 0, 0]),
    )
    turned = BackboneFrames(turn @ frames.rotation, frames.ca @ turn.T)
    neighbours = (np.arange(6)[:, None] + [1, 2]) % 6
    np.testing.assert_allclose(
        sample_cubes(turned_map, turned, 5, 1.1),
        sample_cubes(density, frames, 5, 1.1),
        atol=1e-4,
    )
    np.testing.assert_allclose(
        sample_edge_rectangles(turned_map, turned, neighbours, 5, 3, 1.1),
        sample_edge_rectangles(density, frames, neighbours, 5, 3, 1.1),
        atol=1e-4,
    )
