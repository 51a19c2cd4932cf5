"""Patches: what the network is trained on is what its dense form sees, rightly labelled."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from tiny_structures import clean_conditions, cube_turns, pack_tiny, tiny_entry

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_training.box_stream import StreamSettings
from angelo_training.boxes import make_box
from angelo_training.patches import (
    NEAR_RADIUS,
    NOTHING_NEAR,
    cube_rotation,
    cut_patches,
    draw_voxels,
    make_numbered_patches,
    make_patches,
    stream_patches,
    turn_box,
)

SIZES = [CompactCalphaConfig(5, 3, 3, 8, 1), CompactCalphaConfig(11, 5, 3, 8, 2)]
SMALL = SIZES[0]
SIDE = 26


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_tiny(tmp_path_factory.mktemp("packed"))


def values(seed=0, side=27):
    return np.random.default_rng(seed).normal(size=(side,) * 3).astype(np.float32)


def naive_patches(values_zyx, voxels, config):
    """Single precision, one voxel at a time."""
    smooth = uniform_filter(values_zyx, config.dilation)
    half, wide, step = config.fine // 2, config.coarse // 2 * config.dilation, config.dilation
    fine, coarse = [], []
    for x, y, z in voxels:
        near = [slice(at - half, at + half + 1) for at in (z, y, x)]
        far = [slice(at - wide, at + wide + 1, step) for at in (z, y, x)]
        fine.append(values_zyx[tuple(near)].ravel())
        coarse.append(smooth[tuple(far)].ravel())
    return np.array(fine), np.array(coarse)


def test_all_rotations_of_the_cube_are_drawn():
    rng = np.random.default_rng(0)
    drawn = {tuple(cube_rotation(rng).ravel()) for _ in range(400)}
    assert drawn == {tuple(turn.ravel()) for turn in cube_turns()}
    assert len(drawn) == 24


@pytest.mark.parametrize("turn", cube_turns())
def test_atoms_stay_on_their_density(turn):
    before = values(side=9)
    atoms = np.random.default_rng(1).integers(0, 9, (4, 3, 3)).astype(np.float32)
    after, turned = turn_box(before, atoms, turn)

    def at(array, positions):
        x, y, z = np.rint(positions).astype(int).reshape(-1, 3).T
        return array[z, y, x]

    np.testing.assert_array_equal(at(after, turned), at(before, atoms))
    np.testing.assert_allclose(turned - 4, (atoms - 4) @ turn.T, atol=1e-6)


@pytest.mark.parametrize("config", SIZES)
def test_patches_are_slices(config):
    density = values()
    reach = config.reach
    voxels = np.random.default_rng(2).integers(reach, 27 - reach, (12, 3))
    fine, coarse = cut_patches(density, voxels, config)
    by_hand = naive_patches(density, voxels, config)
    np.testing.assert_array_equal(fine, by_hand[0].astype(np.float16))
    np.testing.assert_allclose(coarse, by_hand[1], atol=1e-3)  # half precision


@pytest.mark.parametrize("config", SIZES)
def test_the_dense_form_equals_the_patch_form(config):
    torch.manual_seed(0)
    network, density, step = CompactCalpha(config).eval(), values(side=27) + 0.5, 2
    with torch.no_grad():
        dense = network(torch.from_numpy(density)[None, None], step)[0].numpy()
        ticks = np.arange(config.reach, 27 - config.reach, step)
        assert dense.shape == (config.channels, *(len(ticks),) * 3)
        z, y, x = np.meshgrid(ticks, ticks, ticks, indexing="ij")
        voxels = np.stack([x, y, z], -1).reshape(-1, 3)
        patches = map(torch.from_numpy, naive_patches(density, voxels, config))
        rows = network.forward_patches(*patches).numpy()
        np.testing.assert_allclose(dense.reshape(config.channels, -1).T, rows, atol=1e-4)
        halves = (
            torch.from_numpy(part).float() for part in cut_patches(density, voxels, config)
        )
        rounded = network.forward_patches(*halves).numpy()
    np.testing.assert_allclose(rounded, rows, atol=5e-3)
    assert rows.std(0).min() > 0.01  # or the comparison says nothing


def test_voxels_have_whole_patches_and_prefer_calphas():
    density, rng = values(side=30), np.random.default_rng(0)
    calphas = rng.uniform(8, 22, (3, 3)).astype(np.float32)
    voxels = draw_voxels(density, calphas, 1000, 6, rng)
    assert len(voxels) == 1000
    assert voxels.min() >= 6
    assert voxels.max() < 24
    gap = np.linalg.norm(voxels[:, None] - calphas, axis=-1).min(1)
    assert (gap[:600] < NEAR_RADIUS + np.sqrt(3) / 2).all()
    assert (gap[600:] < NEAR_RADIUS).mean() < 0.1
    x, y, z = voxels[600:900].T
    assert (density[z, y, x] > 0).all()


def test_voxels_of_a_box_without_calphas_lie_in_density():
    density, nothing = values(), np.zeros((0, 3), np.float32)
    voxels = draw_voxels(density, nothing, 100, 5, np.random.default_rng(0))
    assert len(voxels) == 100
    x, y, z = voxels[:90].T
    assert (density[z, y, x] > 0).all()


def test_labels_point_to_the_nearest_calpha(packed):
    entry = tiny_entry(packed)[0]
    rng = np.random.default_rng(3)
    box = make_box(entry, SIDE, None, rng, clean_conditions(resolution=2.5))
    patches = make_patches(box, 300, SMALL, np.random.default_rng(7))
    # The same draw again, as the function makes it.
    again = np.random.default_rng(7)
    density, backbone = turn_box(box.density.values_zyx, box.backbone, cube_rotation(again))
    voxels = draw_voxels(density, backbone[:, 1], 300, SMALL.reach, again)
    gap = np.linalg.norm(voxels[:, None] - backbone[None, :, 1], axis=-1)
    nearest, close = gap.argmin(1), gap.min(1) < 4
    assert 0 < close.sum() < len(close)
    np.testing.assert_allclose(patches.distance[close], gap.min(1)[close], atol=1e-4)
    assert (patches.distance[~close] == NOTHING_NEAR).all()
    n, ca, c = backbone[nearest[close]].swapaxes(0, 1)
    expected = np.concatenate([ca - voxels[close], n - ca, c - ca], axis=1)
    np.testing.assert_allclose(patches.vectors[close], expected, atol=1e-4)
    np.testing.assert_array_equal(patches.amino_acid[close], box.residue_type[nearest[close]])
    assert (patches.vectors[~close] == 0).all()


def test_draws_repeat_and_differ(packed):
    settings = StreamSettings(packed, SIDE, seed=2)
    draws = make_numbered_patches(settings, 1, 60, SMALL, 2)
    again = make_numbered_patches(settings, 1, 60, SMALL, 2)
    for one, same in zip(draws, again, strict=True):
        np.testing.assert_array_equal(one.fine, same.fine)
        np.testing.assert_array_equal(one.vectors, same.vectors)
    assert not np.array_equal(draws[0].fine[:20], draws[1].fine[:20])
    stream = stream_patches(settings, 0, 60, SMALL, turns=2, workers=0)
    third = [next(stream) for _ in range(3)][2]
    np.testing.assert_array_equal(third.fine, draws[0].fine)
