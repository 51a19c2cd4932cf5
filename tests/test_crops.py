"""Crops: turned with their atoms, every cell labelled with the nearest C-alpha."""

import numpy as np
import pytest
from tiny_structures import clean_conditions, cube_turns, pack_tiny, tiny_entry

from angelo.local_strength import even_out
from angelo_export.calpha_networks import LOCAL_STRENGTH
from angelo_export.networks.compact_c_alpha import STEP
from angelo_training.box_stream import StreamSettings, make_numbered_box
from angelo_training.boxes import make_box
from angelo_training.crops import (
    LABEL_RADIUS,
    NOTHING_NEAR,
    cube_rotation,
    make_crop,
    make_numbered_crops,
    stream_crops,
    turn_box,
)

SIDE = 26


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_tiny(tmp_path_factory.mktemp("packed"))


def values(seed=0, side=27):
    return np.random.default_rng(seed).normal(size=(side,) * 3).astype(np.float32)


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


def test_every_cell_knows_the_nearest_calpha(packed):
    entry = tiny_entry(packed)[0]
    rng = np.random.default_rng(3)
    box = make_box(entry, SIDE, None, rng, clean_conditions(resolution=2.5))
    crop = make_crop(box, box.density.values_zyx, np.random.default_rng(7))
    # The same turn again, as the function makes it.
    turn = cube_rotation(np.random.default_rng(7))
    density, backbone = turn_box(box.density.values_zyx, box.backbone, turn)
    np.testing.assert_array_equal(crop.density, density.astype(np.float16))
    assert crop.distance.shape == (SIDE // STEP,) * 3
    z, y, x = np.indices(crop.distance.shape).reshape(3, -1) * STEP
    cells = np.stack([x, y, z], axis=1)
    gap = np.linalg.norm(cells[:, None] - backbone[None, :, 1], axis=-1)
    nearest, close = gap.argmin(1), gap.min(1) < LABEL_RADIUS
    assert 0 < close.sum() < len(close)
    np.testing.assert_array_equal(crop.near, np.flatnonzero(close))
    distance = crop.distance.ravel()
    np.testing.assert_allclose(distance[close], gap.min(1)[close], atol=1e-4)
    assert (distance[~close] == NOTHING_NEAR).all()
    n, ca, c = backbone[nearest[close]].swapaxes(0, 1)
    expected = np.concatenate([ca - cells[close], n - ca, c - ca], axis=1)
    np.testing.assert_allclose(crop.vectors, expected, atol=1e-4)
    np.testing.assert_array_equal(crop.amino_acid, box.residue_type[nearest[close]])


def test_boxes_without_residues_have_no_labels(packed):
    entry = tiny_entry(packed)[0]
    box = make_box(entry, SIDE, None, np.random.default_rng(3), clean_conditions())
    from dataclasses import replace

    empty = replace(box, backbone=box.backbone[:0], residue_type=box.residue_type[:0])
    crop = make_crop(empty, empty.density.values_zyx, np.random.default_rng(0))
    assert len(crop.near) == len(crop.vectors) == len(crop.amino_acid) == 0
    assert (crop.distance == NOTHING_NEAR).all()


def test_crops_show_the_map_evened_out(packed):
    settings = StreamSettings(packed, SIDE, seed=2)
    box = make_numbered_box(settings, 1, 3.0)
    evened = even_out(box.density.values_zyx, box.density.voxel_size, LOCAL_STRENGTH)
    assert not np.allclose(evened, box.density.values_zyx, rtol=0.01)
    crops = make_numbered_crops(settings, 1, 2, 3.0)
    assert len(crops) == 2
    for crop in crops:
        turned = [turn_box(evened, box.backbone, turn)[0] for turn in cube_turns()]
        assert any(np.array_equal(crop.density, one.astype(np.float16)) for one in turned)


def test_turns_repeat_and_differ(packed):
    settings = StreamSettings(packed, SIDE, seed=2)
    turns = make_numbered_crops(settings, 1, 2)
    again = make_numbered_crops(settings, 1, 2)
    for one, same in zip(turns, again, strict=True):
        np.testing.assert_array_equal(one.density, same.density)
        np.testing.assert_array_equal(one.vectors, same.vectors)
    assert not np.array_equal(turns[0].density, turns[1].density)
    stream = stream_crops(settings, 0, turns=2, workers=0)
    second = [next(stream) for _ in range(2)][1]
    np.testing.assert_array_equal(second[0].density, turns[0].density)
