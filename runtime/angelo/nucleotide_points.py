"""Phosphorus points from voxel predictions: where nucleotides start."""

import numpy as np
from jaxtyping import Float32

from angelo.calpha import has_neighbour, merge_voxels
from angelo.types import Calphas
from angelo.windows import VoxelPredictions

#: Voxels this close belong to one phosphorus, Å; P are at least 5 Å apart (ModelAngelo).
MERGE_RADIUS = 3.2
#: Points without another one this near are dropped, Å (ModelAngelo).
ISOLATION_DISTANCE = 10.0


def find_phosphorus(predictions: VoxelPredictions, threshold: float) -> Calphas:
    """Phosphorus candidates, best supported first.

    Voxels over the threshold are merged as C-alphas are (`angelo.calpha.merge_voxels`), over a
    larger radius; points with no other within 10 Å are dropped.
    """
    chosen = predictions.probability > threshold
    weights = predictions.probability[chosen].astype(np.float64)
    positions = predictions.positions[chosen]
    owner = merge_voxels(positions, predictions.probability[chosen], MERGE_RADIUS)
    n_points = int(owner.max(initial=-1)) + 1

    def mean(values: Float32[np.ndarray, " v"]) -> Float32[np.ndarray, " p"]:
        sums = np.bincount(owner, weights * values, n_points)
        means: np.ndarray = (sums / support).astype(np.float32)
        return means

    support = np.bincount(owner, weights, n_points)
    points = np.stack([mean(axis) for axis in positions.T], axis=-1)
    probability = np.clip(mean(predictions.probability[chosen]), 0, 1)
    kept = np.flatnonzero(has_neighbour(points, ISOLATION_DISTANCE))
    kept = kept[np.argsort(-support[kept], kind="stable")]
    return Calphas(points[kept], probability[kept], is_protein=np.zeros(len(kept), np.bool_))


def with_nucleotides(calphas: Calphas, phosphorus: Calphas) -> Calphas:
    """C-alphas, then phosphorus points; without the directions and types of C-alphas.

    Networks that know nucleotides start without these.
    """
    return Calphas(
        positions=np.concatenate([calphas.positions, phosphorus.positions]),
        probability=np.concatenate([calphas.probability, phosphorus.probability]),
        is_protein=np.arange(len(calphas) + len(phosphorus)) < len(calphas),
    )
