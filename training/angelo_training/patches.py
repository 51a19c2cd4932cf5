"""Training examples of the patch network: voxels, what is around them, what they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float16, Float32, Int64
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from angelo_export.networks.compact_c_alpha import CompactCalphaConfig
from angelo_training.box_stream import StreamSettings, make_numbered_box, stream_numbered
from angelo_training.boxes import Box

#: Share of voxels near C-alphas, in protein-like density, and anywhere.
SHARES = (0.6, 0.3, 0.1)
#: Voxels near a C-alpha are drawn from a ball of this radius, Å.
NEAR_RADIUS = 2.4
#: Distance given to voxels with no C-alpha within 4 Å, Å.
NOTHING_NEAR = 9.0


@dataclass(frozen=True, slots=True)
class Patches:
    """Voxels with their surroundings (v of them) and labels."""

    fine: Float16[np.ndarray, "v f"]
    """Density around each voxel, flattened from z, y, x."""
    coarse: Float16[np.ndarray, "v g"]
    """Smoothed density farther around."""
    distance: Float32[np.ndarray, " v"]
    """To the nearest C-alpha, Å."""
    vectors: Float32[np.ndarray, "v 9"]
    """Offset to it, then its N and its C relative to it; x, y, z; Å."""
    amino_acid: Int64[np.ndarray, " v"]
    """Index of its type."""


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


def draw_voxels(
    values_zyx: Float32[np.ndarray, "z y x"],
    calphas: Float32[np.ndarray, "r 3"],
    n: int,
    reach: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "v 3"]:
    """Voxels (x, y, z) with whole patches: near C-alphas, in density, anywhere."""
    side = values_zyx.shape[0]
    n_near = int(n * SHARES[0]) if len(calphas) else 0
    n_any = int(n * SHARES[2])
    n_dense = n - n_near - n_any
    ball = rng.normal(size=(n_near, 3))
    ball *= (NEAR_RADIUS * np.cbrt(rng.random(n_near)) / np.linalg.norm(ball, axis=1))[:, None]
    near = calphas[rng.integers(max(len(calphas), 1), size=n_near)] + ball
    inner = values_zyx[reach:-reach, reach:-reach, reach:-reach]
    weight = np.maximum(inner, 0).ravel().cumsum(dtype=np.float64)
    picked = np.searchsorted(weight, rng.random(n_dense) * weight[-1])
    z, y, x = np.unravel_index(np.minimum(picked, inner.size - 1), inner.shape)
    dense = np.stack([x, y, z], 1) + reach
    anywhere = rng.integers(reach, side - reach, size=(n_any, 3))
    voxels = np.concatenate([np.rint(near).astype(np.int64), dense, anywhere])
    whole: np.ndarray = voxels[((voxels >= reach) & (voxels < side - reach)).all(1)]
    return whole


def cut_patches(
    values_zyx: Float32[np.ndarray, "z y x"],
    voxels: Int64[np.ndarray, "v 3"],
    config: CompactCalphaConfig,
) -> tuple[Float16[np.ndarray, "v f"], Float16[np.ndarray, "v g"]]:
    """Cut out what surrounds voxels (x, y, z), fine and coarse, as the dense form sees it."""
    x, y, z = voxels.T
    half = config.fine // 2
    fine = sliding_window_view(values_zyx.astype(np.float16), (config.fine,) * 3)
    smooth = uniform_filter(values_zyx, config.dilation).astype(np.float16)
    wide = config.coarse // 2 * config.dilation
    coarse = sliding_window_view(smooth, (2 * wide + 1,) * 3)[..., :: config.dilation, :, :]
    coarse = coarse[..., :: config.dilation, :: config.dilation]
    return (
        fine[z - half, y - half, x - half].reshape(len(voxels), -1),
        coarse[z - wide, y - wide, x - wide].reshape(len(voxels), -1),
    )


def make_patches(
    box: Box, n: int, config: CompactCalphaConfig, rng: np.random.Generator
) -> Patches:
    """Draw about ``n`` voxels of a box, turned at random, with surroundings and labels."""
    values, backbone = turn_box(box.density.values_zyx, box.backbone, cube_rotation(rng))
    voxels = draw_voxels(values, backbone[:, 1], n, config.reach, rng)
    fine, coarse = cut_patches(values, voxels, config)
    distance = np.full(len(voxels), NOTHING_NEAR, np.float32)
    vectors = np.zeros((len(voxels), 9), np.float32)
    kinds = np.zeros(len(voxels), np.int64)
    if len(backbone):
        to_nearest, index = cKDTree(backbone[:, 1]).query(voxels, distance_upper_bound=4.0)
        hit = np.isfinite(to_nearest)
        of = backbone[index[hit]]
        distance[hit] = to_nearest[hit]
        vectors[hit, :3] = of[:, 1] - voxels[hit]
        vectors[hit, 3:6] = of[:, 0] - of[:, 1]
        vectors[hit, 6:] = of[:, 2] - of[:, 1]
        kinds[hit] = box.residue_type[index[hit]]
    return Patches(fine, coarse, distance, vectors, kinds)


def make_numbered_patches(
    settings: StreamSettings,
    number: int,
    n: int,
    config: CompactCalphaConfig,
    turns: int,
    resolution: float | None = None,
) -> list[Patches]:
    """Draw ``n`` voxels from box ``number`` of a stream, ``turns`` times."""
    box = make_numbered_box(settings, number, resolution)
    rng = np.random.default_rng([settings.seed, number, 1])
    return [make_patches(box, n, config, rng) for _ in range(turns)]


def stream_patches(
    settings: StreamSettings,
    first: int,
    n: int,
    config: CompactCalphaConfig,
    *,
    turns: int = 2,
    workers: int = 1,
    ahead: int = 6,
) -> Iterator[Patches]:
    """Patches of boxes ``first``, ``first + 1``, ... without end, ``turns`` draws of each."""
    make = partial(make_numbered_patches, settings, n=n, config=config, turns=turns)
    for draws in stream_numbered(make, first, workers=workers, ahead=ahead):
        yield from draws
