"""Training examples of the C-alpha network: whole boxes with a label for every output cell."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float16, Float32, Int64
from scipy.spatial import cKDTree

from angelo_export.networks.compact_c_alpha import STEP
from angelo_training.box_stream import StreamSettings, make_numbered_box, stream_numbered
from angelo_training.boxes import Box, evened_density

#: Labels reach this far from a C-alpha, Å.
LABEL_RADIUS = 4.0
#: Distance given to cells that no label reaches, Å.
NOTHING_NEAR = 9.0


@dataclass(frozen=True, slots=True)
class Crop:
    """A box of density and, at every cell of the network's output (z, y, x), what is there."""

    density: Float16[np.ndarray, "z y x"]
    """As the network is to see it."""
    distance: Float32[np.ndarray, "z2 y2 x2"]
    """To the nearest C-alpha, Å."""
    near: Int64[np.ndarray, " n"]
    """Flat indices of the cells within ``LABEL_RADIUS`` of a C-alpha."""
    vectors: Float32[np.ndarray, "n 9"]
    """There: offset to it, then its N and its C relative to it; x, y, z; Å."""
    amino_acid: Int64[np.ndarray, " n"]
    """There: index of its type."""


def cube_rotation(rng: np.random.Generator) -> Int64[np.ndarray, "3 3"]:
    """One of the 24 proper rotations that map a cube onto itself."""
    turn = np.zeros((3, 3), np.int64)
    turn[np.arange(3), rng.permutation(3)] = rng.choice([-1, 1], size=3)
    if np.linalg.det(turn) < 0:
        turn[0] = -turn[0]
    return turn


def turn_box(
    values_zyx: Float32[np.ndarray, "z y x"],
    backbone: Float32[np.ndarray, "r 3 3"],
    turn: Int64[np.ndarray, "3 3"],
) -> tuple[Float32[np.ndarray, "z y x"], Float32[np.ndarray, "r 3 3"]]:
    """Turn a cubic box and its atoms by a rotation of the cube."""
    middle = (values_zyx.shape[0] - 1) / 2
    turned = (backbone - middle) @ turn.T + middle
    axes, signs = np.abs(turn).argmax(1), turn.sum(1)
    xyz = values_zyx.transpose(2, 1, 0).transpose(axes)
    xyz = xyz[tuple(slice(None, None, int(sign)) for sign in signs)]
    return np.ascontiguousarray(xyz.transpose(2, 1, 0)), turned.astype(np.float32)


def make_crop(
    box: Box, values_zyx: Float32[np.ndarray, "z y x"], rng: np.random.Generator
) -> Crop:
    """Turn a box, whose density to search is ``values_zyx``, at random and label it."""
    values, backbone = turn_box(values_zyx, box.backbone, cube_rotation(rng))
    axis = np.arange(0, values.shape[0], STEP)
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    cells = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(np.float32)
    distance = np.full(len(cells), NOTHING_NEAR, np.float32)
    near, index = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if len(backbone):
        tree = cKDTree(backbone[:, 1])
        to_nearest, nearest = tree.query(cells, distance_upper_bound=LABEL_RADIUS)
        near = np.flatnonzero(np.isfinite(to_nearest))
        distance[near], index = to_nearest[near], nearest[near]
    of = backbone[index]
    parts = (of[:, 1] - cells[near], of[:, 0] - of[:, 1], of[:, 2] - of[:, 1])
    return Crop(
        density=values.astype(np.float16),
        distance=distance.reshape(z.shape),
        near=near,
        vectors=np.concatenate(parts, axis=1).astype(np.float32),
        amino_acid=box.residue_type[index],
    )


def make_numbered_crops(
    settings: StreamSettings, number: int, turns: int, resolution: float | None = None
) -> list[Crop]:
    """Turn box ``number`` of a stream ``turns`` times."""
    box = make_numbered_box(settings, number, resolution)
    rng = np.random.default_rng([settings.seed, number, 1])
    values = evened_density(box)
    return [make_crop(box, values, rng) for _ in range(turns)]


def stream_crops(
    settings: StreamSettings, first: int, *, turns: int, workers: int = 1, ahead: int = 12
) -> Iterator[list[Crop]]:
    """Yield turns of boxes ``first``, ``first + 1``, ... without end."""
    make = partial(make_numbered_crops, settings, turns=turns)
    return stream_numbered(make, first, workers=workers, ahead=ahead)
