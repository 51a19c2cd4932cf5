"""C-alphas from voxels: known points come back, in any order of voxels and any orientation."""

import time

import numpy as np
import pytest
from scipy.spatial import cKDTree

from angelo.calpha import (
    PointSettings,
    find_calphas,
    has_neighbour,
    merge_voxels,
    rotation_from_directions,
    select_peaks,
)
from angelo.frames import rotation_from_backbone
from angelo.windows import VoxelPredictions

VOTES = PointSettings("votes", 0.3, 1.5, 2.6, 0.5)
MERGE = PointSettings("merge", 0.05, 1.65, 0.0, 0.0)
RESIDUE_TYPES = ("ALA", "GLY", "TRP")
#: Not the order that the code might take for granted.
NAMES = tuple("aa_TRP n_x n_y n_z aa_ALA offset_x offset_y offset_z c_x c_y c_z aa_GLY".split())


def walk(n, seed=0, step=3.8) -> np.ndarray:
    """A self-avoiding chain of points 3.8 Å apart."""
    rng = np.random.default_rng(seed)
    points = [np.zeros(3)]
    while len(points) < n:
        new = rng.normal(size=3)
        new = points[-1] + step * new / np.linalg.norm(new)
        if np.linalg.norm(np.array(points) - new, axis=1).min() > 3.7:
            points.append(new)
    return np.array(points)


def voxels_around(points, spacing=1.0, reach=1.9, noise=0.0, seed=0, rotation=None):
    """What a good network says of the grid around points: votes, directions, amino acids."""
    rng = np.random.default_rng(seed)
    n = len(points)
    rotation = np.eye(3)[None].repeat(n, 0) if rotation is None else rotation
    ticks = np.arange(-3, 4)
    cube = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), -1).reshape(-1, 3)
    base = np.round(points / spacing).astype(int)
    voxels = np.unique((base[:, None] + cube).reshape(-1, 3), axis=0) * spacing
    distance, owner = cKDTree(points).query(voxels)
    near = distance < reach
    voxels, owner = voxels[near], owner[near]
    offset = points[owner] - voxels
    probability = 1 - 0.25 * np.linalg.norm(offset, axis=1)
    ideal_n, ideal_c = np.array([-0.52, 1.36, 0]), np.array([1.525, 0, 0])
    amino = np.eye(3)[owner % 3] * 5  # ALA, GLY, TRP in turn
    by_name = dict(zip(("aa_ALA", "aa_GLY", "aa_TRP"), amino.T, strict=True))
    vectors = {
        "offset": offset + noise * rng.normal(size=offset.shape),
        "n": (rotation @ ideal_n)[owner],
        "c": (rotation @ ideal_c)[owner],
    }
    for name, vector in vectors.items():
        by_name |= {
            f"{name}_{axis}": column for axis, column in zip("xyz", vector.T, strict=True)
        }
    channels = np.stack([by_name[name] for name in NAMES], axis=-1)
    return VoxelPredictions(
        voxels.astype(np.float32),
        probability.astype(np.float32),
        channels.astype(np.float32),
        NAMES,
    )


def matched(found, wanted):
    """Index into ``found`` of the nearest to each wanted point, and the distances."""
    distance = np.linalg.norm(wanted[:, None] - found, axis=-1)
    return distance.argmin(1), distance.min(1)


def random_rotations(n, seed=0):
    q = np.random.default_rng(seed).normal(size=(2, n, 3)).astype(np.float32)
    return rotation_from_backbone(q[0], np.zeros_like(q[0]), q[1])


def test_votes_find_every_point_and_nothing_else():
    points = walk(200)
    rotation = random_rotations(200)
    found = find_calphas(voxels_around(points, rotation=rotation), VOTES, RESIDUE_TYPES)
    assert len(found) == 200
    index, distance = matched(found.positions, points)
    assert distance.max() < 1e-3
    assert len(set(index)) == 200
    np.testing.assert_allclose(found.rotation[index], rotation, atol=1e-5)
    np.testing.assert_array_equal(found.aa_logits[index].argmax(1), np.arange(200) % 3)
    assert (found.probability > 0.5).all()
    assert (found.probability <= 1).all()


@pytest.mark.parametrize("spacing", [1.0, 1.5])
@pytest.mark.parametrize("seed", range(3))
def test_noisy_votes(spacing, seed):
    points = walk(150, seed)
    found = find_calphas(voxels_around(points, spacing, noise=0.35, seed=seed), VOTES)
    _, distance = matched(found.positions, points)
    assert len(found) == 150
    # Worst over 60 seeds: 0.30 Å; 0.56 Å with 1.5 Å voxels, fewer of which vote for a point.
    assert distance.max() < 0.7
    assert found.aa_logits is None


def test_points_keep_their_distance():
    points = walk(100)
    found = find_calphas(voxels_around(points, noise=0.9), VOTES)
    between = np.linalg.norm(found.positions[:, None] - found.positions, axis=-1)
    assert between[~np.eye(len(found), dtype=bool)].min() >= VOTES.min_separation


def test_support_and_threshold_are_needed():
    points = np.array([[0, 0, 0], [10, 0, 0], [20, 0, 0]], np.float32)
    zeros = np.zeros((3, 12), np.float32)
    one_each = VoxelPredictions(points, np.float32([0.9, 0.45, 0.2]), zeros, NAMES)
    found = find_calphas(one_each, VOTES)
    np.testing.assert_array_equal(found.positions, points[:1])
    np.testing.assert_allclose(found.probability, [0.9])
    low = PointSettings("votes", 0.1, 1.5, 2.6, 0.1)
    np.testing.assert_array_equal(find_calphas(one_each, low).positions, points)


def test_channels_are_weighted_means():
    channels = np.zeros((2, 12), np.float32)
    channels[:, NAMES.index("aa_GLY")] = [1, 5]
    pair = VoxelPredictions(
        np.float32([[0, 0, 0], [1, 0, 0]]), np.float32([0.9, 0.3]), channels, NAMES
    )
    found = find_calphas(pair, PointSettings("votes", 0.1, 1.5, 2.6, 0.5), RESIDUE_TYPES)
    np.testing.assert_allclose(found.positions, [[0.25, 0, 0]])
    np.testing.assert_allclose(found.aa_logits, [[0, 2, 0]])
    np.testing.assert_allclose(found.probability, [(0.81 + 0.09) / 1.2], rtol=1e-6)


def on_a_line(x, probability) -> VoxelPredictions:
    """Votes for places on the x axis."""
    positions = np.zeros((len(x), 3), np.float32)
    positions[:, 0] = x
    channels = np.zeros((len(x), 12), np.float32)
    return VoxelPredictions(positions, np.float32(probability), channels, NAMES)


def test_weight_counts_not_number():
    found = find_calphas(on_a_line([0, 2, 2.01], [0.9, 0.35, 0.35]), VOTES)
    np.testing.assert_array_equal(found.positions, [[0, 0, 0]])


def test_a_suppressed_peak_takes_no_votes():
    found = find_calphas(on_a_line([0, 1.4, 2.3], [0.98, 0.32, 0.8]), VOTES)
    np.testing.assert_allclose(found.positions, [[1.4 * 0.32 / 1.3, 0, 0]], rtol=1e-5)


@pytest.mark.parametrize("settings", [VOTES, MERGE])
def test_order_and_place_of_voxels_do_not_matter(settings):
    predictions = voxels_around(walk(60), noise=0.2)
    shift = np.float32([-500, 3, 70])
    order = np.random.default_rng(0).permutation(len(predictions))
    shuffled = VoxelPredictions(
        predictions.positions[order] + shift,
        predictions.probability[order],
        predictions.channels[order],
        NAMES,
    )
    a, b = find_calphas(predictions, settings), find_calphas(shuffled, settings)
    assert len(a) == len(b)
    _, distance = matched(b.positions - shift, a.positions)
    # A tie may fall either way in a rare case; votes are all different here.
    assert np.median(distance) < 1e-3
    if settings is VOTES:
        assert distance.max() < 1e-3


@pytest.mark.parametrize("settings", [VOTES, MERGE])
def test_no_voxels_no_points(settings):
    none = VoxelPredictions(
        np.zeros((0, 3), np.float32),
        np.zeros(0, np.float32),
        np.zeros((0, 12), np.float32),
        NAMES,
    )
    found = find_calphas(none, settings, RESIDUE_TYPES)
    assert len(found) == 0
    assert found.rotation.shape == (0, 3, 3)
    assert found.aa_logits.shape == (0, 3)


def test_merge_takes_channels_or_none():
    bare = voxels_around(walk(50))
    bare = VoxelPredictions(
        bare.positions, bare.probability, bare.channels[:, :1], ("backbone",)
    )
    found = find_calphas(bare, MERGE, RESIDUE_TYPES)
    assert found.rotation is None
    assert found.aa_logits is None
    _, distance = matched(found.positions, walk(50))
    assert distance.max() < 1.5


def test_votes_without_offsets_are_refused():
    bare = VoxelPredictions(
        np.zeros((1, 3), np.float32),
        np.ones(1, np.float32),
        np.zeros((1, 1), np.float32),
        ("x",),
    )
    with pytest.raises(ValueError, match="no channel 'offset_x'"):
        find_calphas(bare, VOTES)


def merge_one_by_one(points, weights, radius):
    """The three passes, as said in words: from the heaviest down, take what is around."""
    owner = np.arange(len(points))
    points, weights = points.astype(float), weights.astype(float)
    for _ in range(3):
        taken = np.full(len(points), -1)
        for i in np.argsort(-weights, kind="stable"):
            if taken[i] < 0:
                near = np.linalg.norm(points - points[i], axis=1) <= radius
                taken[near & (taken < 0)] = i
        heads, index = np.unique(taken, return_inverse=True)
        new_weights = np.array([weights[taken == h].sum() for h in heads])
        points = np.array([weights[taken == h] @ points[taken == h] for h in heads])
        points /= new_weights[:, None]
        weights, owner = new_weights, index[owner]
    return owner


@pytest.mark.parametrize("seed", range(10))
def test_merging_in_rounds_is_merging_one_by_one(seed):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(7)] * 3, indexing="ij"), -1).reshape(-1, 3)
    voxels = (grid[rng.random(343) < 0.6] * 1.5).astype(np.float32)
    weights = rng.random(len(voxels)).astype(np.float32)
    np.testing.assert_array_equal(
        merge_voxels(voxels, weights, 1.65), merge_one_by_one(voxels, weights, 1.65)
    )


def test_merge_drops_the_lonely():
    points = np.float32([[0, 0, 0], [5.9, 0, 0], [12.1, 0, 0]])
    np.testing.assert_array_equal(has_neighbour(points, 6.0), [True, True, False])
    np.testing.assert_array_equal(has_neighbour(points[:1], 6.0), [False])
    predictions = VoxelPredictions(
        points, np.ones(3, np.float32), np.zeros((3, 12), np.float32), NAMES
    )
    found = find_calphas(predictions, MERGE)
    np.testing.assert_array_equal(found.positions, points[:2])


@pytest.mark.parametrize("seed", range(5))
def test_peaks_are_those_of_the_greedy_pass(seed):
    rng = np.random.default_rng(seed)
    points, heights = rng.uniform(0, 12, (300, 3)), rng.integers(0, 9, 300)  # many ties
    kept = np.zeros(300, bool)
    for i in np.argsort(-heights, kind="stable"):
        kept[i] = (np.linalg.norm(points[kept] - points[i], axis=1) > 2.6).all()
    np.testing.assert_array_equal(select_peaks(points, heights, 2.6), kept)


def test_rotation_is_that_of_the_backbone():
    rng = np.random.default_rng(0)
    to_n, to_c = rng.normal(size=(2, 100, 3)).astype(np.float32)
    expected = rotation_from_backbone(to_n, np.zeros_like(to_n), to_c)
    np.testing.assert_allclose(rotation_from_directions(to_n, to_c), expected, atol=1e-5)
    # Their lengths say nothing.
    np.testing.assert_allclose(
        rotation_from_directions(to_n * 0.01, to_c * 70), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("to_n", "to_c"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 2, 3), (0, 0, 0)),
        ((1, 0, 0), (0, 0, 0)),
        ((0, 0, 0), (0, 2, 0)),
        ((0, 0, 3), (0, 0, -2)),
        ((1, 1, 1), (2, 2, 2.001)),
        ((np.nan, 0, 0), (1, 0, 0)),
        ((1, 0, 0), (np.nan, 0, 0)),
    ],
)
def test_degenerate_directions_give_some_frame(to_n, to_c):
    R = rotation_from_directions(np.float32([to_n]), np.float32([to_c]))[0]
    np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-5)
    assert np.linalg.det(R) == pytest.approx(1, abs=1e-5)
    if np.linalg.norm(to_c) > 0:
        np.testing.assert_allclose(R[:, 0], to_c / np.linalg.norm(to_c), atol=1e-5)


def test_time_grows_with_the_voxels_not_their_pairs():
    one = voxels_around(walk(200), noise=0.2)
    copies = 10
    side = np.float32([150, 0, 0]) * np.arange(copies, dtype=np.float32)[:, None, None]
    many = VoxelPredictions(
        (one.positions + side).reshape(-1, 3),
        np.tile(one.probability, copies),
        np.tile(one.channels, (copies, 1)),
        NAMES,
    )
    start = time.process_time()
    found = find_calphas(many, VOTES, RESIDUE_TYPES)
    assert len(found) == 200 * copies
    assert time.process_time() - start < 3  # 0.3 s for 57,000 voxels; 10 s for 2 million
