"""C-alpha points from voxel predictions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from angelo.frames import COLLINEAR_LIMIT, rotation_from_backbone
from angelo.types import Calphas
from angelo.windows import VoxelPredictions

#: Points without another one this near are dropped by "merge", Å (ModelAngelo).
ISOLATION_DISTANCE = 6.0
#: Passes of merging (ModelAngelo).
MERGE_PASSES = 3
#: Points whose neighbours are looked up at once; bounds memory.
CHUNK_POINTS = 100_000


@dataclass(frozen=True, slots=True)
class PointSettings:
    """How voxels become C-alphas (bundle.json, section ``c_alpha.points``)."""

    method: Literal["votes", "merge"]
    """"votes" where the network predicts offsets, "merge" where it does not."""
    threshold: float
    """A voxel takes part above this probability."""
    radius: float
    """Votes (or voxels) this close belong together, Å."""
    min_separation: float
    """Smallest distance between two C-alphas, Å; "merge" does without."""
    min_support: float
    """Sum of probabilities that a point needs."""


def find_calphas(
    predictions: VoxelPredictions, settings: PointSettings, residue_types: Sequence[str] = ()
) -> Calphas:
    """C-alpha candidates, best supported first; none if nothing passes the thresholds.

    "votes": every voxel votes for the place its offset channels point at, with its probability
    as weight. Votes are summed under a Gaussian (standard deviation ``radius`` / 2); from the
    highest sum down, a vote that is the highest within ``radius`` becomes a point unless one
    lies within ``min_separation``. Each vote within ``radius`` of a point belongs to the
    nearest, and the point moves to the weighted mean of its votes.

    "merge": see ``merge_voxels``; points with no other within 6 Å are dropped.

    Of its voxels a point gets the weighted means of the channels and, as its probability, the
    weighted mean of theirs. Directions (``n_*``, ``c_*``: CA->N and CA->C, Å) become frames as
    in ``angelo.frames.rotation_from_backbone``.

    Parameters
    ----------
    residue_types
        Order of the amino-acid logits; channel ``aa_ALA`` holds those of "ALA".

    Raises
    ------
    ValueError
        If the method needs a channel that the predictions lack.
    """
    chosen = predictions.probability > settings.threshold
    weights = predictions.probability[chosen]
    channels = predictions.channels[chosen]
    positions = predictions.positions[chosen]
    if settings.method == "votes":
        votes = positions + channels[:, _columns(predictions, "offset")]
        owner = assign_votes(votes, weights, settings.radius, settings.min_separation)
    else:
        votes = positions
        owner = merge_voxels(votes, weights, settings.radius)
    n_points = int(owner.max(initial=-1)) + 1
    support = _sums(owner, weights[:, None], n_points)[:, 0]
    mean = _sums(owner, weights[:, None] * votes, n_points) / support[:, None]
    if settings.method == "votes":  # means lie closer together than the peaks did
        kept = select_peaks(mean, support, settings.min_separation)
    else:
        kept = has_neighbour(mean, ISOLATION_DISTANCE)
    points = np.flatnonzero(kept & (support >= settings.min_support))
    points = points[np.argsort(-support[points], kind="stable")]

    def mean_channels(columns: list[int]) -> Float32[np.ndarray, "r c"]:
        sums = _sums(owner, weights[:, None] * channels[:, columns], n_points)
        means: np.ndarray = (sums[points] / support[points, None]).astype(np.float32)
        return means

    probability = _sums(owner, weights[:, None] ** 2, n_points)[:, 0] / support
    rotation = aa_logits = None
    if "n_x" in predictions.names and "c_x" in predictions.names:
        rotation = rotation_from_directions(
            mean_channels(_columns(predictions, "n")), mean_channels(_columns(predictions, "c"))
        )
    if residue_types and f"aa_{residue_types[0]}" in predictions.names:
        aa_logits = mean_channels([_column(predictions, f"aa_{t}") for t in residue_types])
    return Calphas(
        positions=mean[points].astype(np.float32),
        probability=np.clip(probability[points], 0, 1).astype(np.float32),
        rotation=rotation,
        aa_logits=aa_logits,
    )


def assign_votes(
    votes: Float32[np.ndarray, "v 3"],
    weights: Float32[np.ndarray, " v"],
    radius: float,
    min_separation: float,
) -> Int64[np.ndarray, " v"]:
    """Index of the point that each vote belongs to, -1 for none; points by falling density."""
    if not len(votes):
        return np.zeros(0, np.int64)
    tree = cKDTree(votes)
    density = np.zeros(len(votes), np.float64)
    for i, j, distance in _pairs(tree, tree, radius):
        kernel = weights[j] * np.exp(-2 * (distance / radius) ** 2)
        density += np.bincount(i, kernel, len(votes))
    rank = _rank(density)
    is_peak = np.ones(len(votes), bool)
    for i, j, _ in _pairs(tree, tree, radius):
        is_peak[i[rank[j] < rank[i]]] = False
    peaks = np.flatnonzero(is_peak)
    peaks = peaks[select_peaks(votes[peaks], density[peaks], min_separation)]
    peaks = peaks[np.argsort(rank[peaks])]
    distance, owner = cKDTree(votes[peaks]).query(votes, distance_upper_bound=radius)
    owned: np.ndarray = np.where(np.isfinite(distance), owner, -1).astype(np.int64)
    return owned


def merge_voxels(
    voxels: Float32[np.ndarray, "v 3"], weights: Float32[np.ndarray, " v"], radius: float
) -> Int64[np.ndarray, " v"]:
    """Index of the point that each voxel ends up in, after three passes of merging.

    In each pass the point of the highest weight takes in all points within ``radius`` that are
    not yet taken and moves to the weighted mean; then the next highest, and so on. ModelAngelo
    goes through the points in grid order instead, which gives much the same points but makes
    them depend on the map's orientation.
    """
    owner = np.arange(len(voxels))
    points, support = voxels.astype(np.float64), weights.astype(np.float64)
    for _ in range(MERGE_PASSES):
        taken_by = _greedy_owners(points, support, radius)
        _, index = np.unique(taken_by, return_inverse=True)
        n_points = int(index.max(initial=-1)) + 1
        sums = _sums(index, support[:, None] * points, n_points)
        support = _sums(index, support[:, None], n_points)[:, 0]
        points = sums / support[:, None]
        owner = index[owner]
    return owner.astype(np.int64)


def select_peaks(
    points: np.ndarray, heights: np.ndarray, min_separation: float
) -> Bool[np.ndarray, " p"]:
    """Which points remain if, from the highest down, each removes those around it."""
    owner = _greedy_owners(points, heights, min_separation)
    kept: np.ndarray = owner == np.arange(len(points))
    return kept


def has_neighbour(points: np.ndarray, distance: float) -> Bool[np.ndarray, " p"]:
    """Whether another point lies within ``distance``."""
    if len(points) < 2:
        return np.zeros(len(points), bool)
    nearest: np.ndarray = cKDTree(points).query(points, 2)[0][:, 1] <= distance
    return nearest


def rotation_from_directions(
    to_n: Float32[np.ndarray, "r 3"], to_c: Float32[np.ndarray, "r 3"]
) -> Float32[np.ndarray, "r 3 3"]:
    """Frames from vectors CA->N and CA->C that a network predicted.

    As ``rotation_from_backbone``. Where CA->C has no length e1 is x; where CA->N is parallel
    to e1, or too short, the axis of the map most nearly normal to e1 takes its place: some
    right-handed frame, for the graph network to turn.
    """
    to_c = to_c.copy()
    to_c[~(np.linalg.norm(to_c, axis=-1) > COLLINEAR_LIMIT)] = (1, 0, 0)
    unit_c = to_c / np.linalg.norm(to_c, axis=-1, keepdims=True)
    length = np.linalg.norm(to_n, axis=-1, keepdims=True)
    unit_n = to_n / np.maximum(length, COLLINEAR_LIMIT)
    # Well above the limit of the area below it: both vectors are of unit length now.
    is_flat = ~(np.linalg.norm(np.cross(unit_c, unit_n), axis=-1) > 10 * COLLINEAR_LIMIT)
    unit_n[is_flat] = np.eye(3, dtype=np.float32)[np.abs(unit_c[is_flat]).argmin(-1)]
    return rotation_from_backbone(unit_n, np.zeros_like(unit_c), unit_c)


def _greedy_owners(
    points: np.ndarray, heights: np.ndarray, radius: float
) -> Int64[np.ndarray, " p"]:
    """For each point the one that takes it, going from the highest down; its own if it stays.

    The same as one pass over sorted points, in rounds: a point stays once no undecided one
    within ``radius`` is higher, and then those around it go.
    """
    rank = _rank(heights)
    if not len(points):
        return rank
    pairs = cKDTree(points).query_pairs(radius, output_type="ndarray")
    flip = rank[pairs[:, 0]] > rank[pairs[:, 1]]
    pairs[flip] = pairs[flip, ::-1]  # the higher point comes first
    high, low = pairs.T
    is_open = np.ones(len(points), bool)
    stays = np.zeros(len(points), bool)
    while is_open.any():
        is_top = is_open.copy()
        is_top[low] = False
        stays |= is_top
        is_open[is_top] = False
        is_open[low[is_top[high]]] = False
        undecided = is_open[high] & is_open[low]
        high, low = high[undecided], low[undecided]
    high, low = pairs[stays[pairs[:, 0]]].T
    taken_at = np.where(stays, rank, len(points))
    np.minimum.at(taken_at, low, rank[high])
    owner: np.ndarray = np.argsort(rank)[taken_at]
    return owner


def _rank(heights: np.ndarray) -> Int64[np.ndarray, " p"]:
    """Place of each value, 0 for the highest; equal values in their order."""
    rank = np.empty(len(heights), np.int64)
    rank[np.argsort(-heights, kind="stable")] = np.arange(len(heights))
    return rank


def _pairs(
    tree: cKDTree, other: cKDTree, radius: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Index of either point and the distance, for all pairs within ``radius``, in chunks."""
    for start in range(0, tree.n, CHUNK_POINTS):
        part = cKDTree(tree.data[start : start + CHUNK_POINTS])
        found = part.sparse_distance_matrix(other, radius, output_type="ndarray")
        yield found["i"] + start, found["j"], found["v"]


def _sums(owner: np.ndarray, values: np.ndarray, n_points: int) -> np.ndarray:
    """Sum ``values`` over the rows of each point; rows of owner -1 count for none."""
    row = np.flatnonzero(owner >= 0)
    matrix = coo_array((np.ones(len(row)), (owner[row], row)), (n_points, len(owner))).tocsr()
    sums: np.ndarray = matrix @ values.astype(np.float64)
    return sums


def _columns(predictions: VoxelPredictions, prefix: str) -> list[int]:
    return [_column(predictions, f"{prefix}_{axis}") for axis in "xyz"]


def _column(predictions: VoxelPredictions, name: str) -> int:
    if name not in predictions.names:
        raise ValueError(f"the network has no channel {name!r}")
    return predictions.names.index(name)
