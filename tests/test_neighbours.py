"""Nearest residues and crops: known values, ties, too few residues, full coverage."""

import numpy as np
import pytest

from angelo.neighbours import close_pairs, nearest_residues, plan_crops


def on_a_line(*x):
    return np.array([[value, 0, 0] for value in x], np.float32)


def random_positions(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 40, (n, 3)).astype(np.float32)


def test_neighbours_on_a_line_nearest_first():
    table = nearest_residues(on_a_line(0, 1, 3, 7), 2)
    np.testing.assert_array_equal(table, [[1, 2], [0, 2], [1, 0], [2, 1]])


def test_own_index_fills_rows_of_few_residues():
    np.testing.assert_array_equal(nearest_residues(on_a_line(0, 1, 3), 4)[0], [1, 2, 0, 0])
    np.testing.assert_array_equal(nearest_residues(on_a_line(5), 3), [[0, 0, 0]])


def test_no_residues_no_neighbours():
    assert nearest_residues(np.zeros((0, 3), np.float32), 4).shape == (0, 4)


def test_equal_distances_are_ordered_by_index():
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3), axis=-1).reshape(-1, 3)
    table = nearest_residues(grid.astype(np.float32), 6)
    away = np.linalg.norm(grid[table] - grid[:, None], axis=-1)
    for row, distances in zip(table, away, strict=True):
        assert list(zip(distances, row, strict=True)) == sorted(
            zip(distances, row, strict=True)
        )


def test_one_place_for_many_residues():
    table = nearest_residues(np.zeros((30, 3), np.float32), 5)
    for i, row in enumerate(table):
        assert i not in row and len(set(row)) == 5


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_all_distances(seed):
    positions = random_positions(60, seed)
    away = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(away, np.inf)
    np.testing.assert_array_equal(
        nearest_residues(positions, 7), np.argsort(away, axis=1)[:, :7]
    )


def test_close_pairs_once_each():
    np.testing.assert_array_equal(close_pairs(on_a_line(0, 5, 1, 5.5), 1.2), [[0, 2], [1, 3]])
    assert close_pairs(on_a_line(0, 9), 1.2).shape == (0, 2)


@pytest.mark.parametrize("repeats", [1, 3])
def test_crops_keep_every_residue_often_enough(repeats):
    positions = random_positions(150)
    times_kept = np.zeros(150, int)
    for crop in plan_crops(positions, 40, 10, repeats):
        assert len(set(crop.residues)) == 40 and crop.n_kept == 10
        away = np.linalg.norm(positions[crop.residues] - positions[crop.residues[0]], axis=-1)
        assert (np.diff(away) >= -1e-5).all()
        times_kept[crop.residues[:10]] += 1
    assert times_kept.min() >= repeats


def test_one_crop_if_all_fit():
    (crop,) = plan_crops(random_positions(40), 40, 10, 3)
    assert crop.n_kept == 40
    np.testing.assert_array_equal(np.sort(crop.residues), np.arange(40))


def test_crops_end_although_residues_coincide():
    plan = plan_crops(np.zeros((60, 3), np.float32), 10, 4, 2)
    kept = np.concatenate([crop.residues[:4] for crop in plan])
    assert np.bincount(kept, minlength=60).min() >= 2
