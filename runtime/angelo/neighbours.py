"""Who is near whom: nearest residues, and crops that cover every residue."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64
from scipy.spatial import cKDTree

#: Extra neighbours asked of the tree, so that it does not decide between equal distances.
TIE_SLACK = 8


@dataclass(frozen=True, slots=True)
class Crop:
    """Residues that are refined together."""

    residues: Int64[np.ndarray, " s"]
    """Indices, nearest to the centre first; the centre itself is the first."""
    n_kept: int
    """The results of this many, from the first on, are kept."""


def nearest_residues(
    positions: Float32[np.ndarray, "r 3"], k: int
) -> Int64[np.ndarray, "r {k}"]:
    """Nearest other residues of every residue, nearest first.

    At equal distance the lower index comes first. Where there are fewer than ``k`` others, the
    residue's own index fills the row.
    """
    n = len(positions)
    table = np.repeat(np.arange(n)[:, None], k, axis=1)
    n_near = min(k, n - 1)
    if n_near < 1:
        return table
    asked = min(n, n_near + 1 + TIE_SLACK)
    distance, index = cKDTree(positions).query(positions, k=asked)
    distance[index == np.arange(n)[:, None]] = np.inf  # itself last, and thus never chosen
    order = np.lexsort((index, distance), axis=1)[:, :n_near]
    table[:, :n_near] = np.take_along_axis(index, order, axis=1)
    return table


def plan_crops(
    positions: Float32[np.ndarray, "r 3"], size: int, keep: int, repeats: int
) -> tuple[Crop, ...]:
    """Crops of nearest residues in which every residue is kept at least ``repeats`` times.

    Each crop is centred on the residue kept the fewest times so far (of several, that of lowest
    index). If all residues fit into one crop, that one is the plan: repeating it would give
    the same results again.
    """
    n = len(positions)
    if n <= size:
        return (Crop(np.arange(n), n),)
    tree = cKDTree(positions)
    times_kept = np.zeros(n, np.int64)
    crops = []
    while times_kept.min() < repeats:
        centre = int(times_kept.argmin())
        residues = _nearest_to(tree, centre, size)
        times_kept[residues[:keep]] += 1
        crops.append(Crop(residues, keep))
    return tuple(crops)


def close_pairs(
    positions: Float32[np.ndarray, "r 3"], distance: float
) -> Int64[np.ndarray, "p 2"]:
    """Pairs of residues closer than ``distance`` (Å), lower index first, sorted."""
    pairs = cKDTree(positions).query_pairs(distance, output_type="ndarray")
    pairs = pairs.astype(np.int64).reshape(-1, 2)
    ordered: np.ndarray = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered


def _nearest_to(tree: cKDTree, centre: int, size: int) -> Int64[np.ndarray, " s"]:
    """Residue ``centre`` and its ``size - 1`` nearest, nearest first."""
    asked = min(tree.n, size + TIE_SLACK)
    distance, index = tree.query(tree.data[centre], k=np.arange(1, asked + 1))
    if centre not in index:  # more residues than asked for lie in the very same place
        index[-1], distance[-1] = centre, 0
    distance[index == centre] = -1
    nearest: np.ndarray = index[np.lexsort((index, distance))[:size]]
    return nearest
