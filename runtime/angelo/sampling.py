"""Density at points off the grid: trilinear, zero outside the map."""

import numpy as np
from jaxtyping import Float32, Int64

from angelo.types import BackboneFrames, Density

#: Edges shorter than this have no direction, Å.
SHORTEST_EDGE = 1e-3
#: Smallest 1 + cosine of the angle between an edge and +x; see ``_turns_from_x``.
SMALLEST_TURN = 1e-7


def sample_density(
    density: Density, points: Float32[np.ndarray, "*p 3"]
) -> Float32[np.ndarray, "*p"]:
    """Trilinear density at points given in Å, map coordinates; zero outside the grid.

    The grid counts as surrounded by zeros: within one voxel of its faces density fades out.
    """
    grid = np.asarray(density.values_zyx, np.float32)
    n_z, n_y, n_x = grid.shape
    flat = grid.reshape(-1)
    at: np.ndarray = (points.reshape(-1, 3) - density.origin) / density.voxel_size
    (x0, x1), (wx0, wx1) = _corners(at[:, 0], n_x, 1)
    (y0, y1), (wy0, wy1) = _corners(at[:, 1], n_y, n_x)
    (z0, z1), (wz0, wz1) = _corners(at[:, 2], n_z, n_x * n_y)

    def along_x(row: np.ndarray) -> np.ndarray:
        line: np.ndarray = flat.take(row + x0) * wx0 + flat.take(row + x1) * wx1
        return line

    near = along_x(z0 + y0) * wy0 + along_x(z0 + y1) * wy1
    far = along_x(z1 + y0) * wy0 + along_x(z1 + y1) * wy1
    values = near * wz0 + far * wz1
    sampled: np.ndarray = values.reshape(points.shape[:-1])
    return sampled


def _corners(
    at: Float32[np.ndarray, " p"], n: int, stride: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Flat offsets of the voxels on either side of a point on one axis, and their weights.

    A voxel outside the grid has weight zero, and some voxel's offset.
    """
    # Only that a point is outside matters, not how far: keeps the whole numbers small.
    at = np.clip(at, -2, n + 1)
    low = np.floor(at)
    above = at - low
    left = low.astype(np.int64)
    right = left + 1
    below = (1 - above) * ((left >= 0) & (left < n))
    above = above * ((right >= 0) & (right < n))
    offsets = (np.clip(side, 0, n - 1) * stride for side in (left, right))
    return tuple(offsets), (below, above)


def cube_offsets(side: int, spacing: float) -> Float32[np.ndarray, "p 3"]:
    """Offsets of a centred cube of side³ points, Å, row-major over the residue axes."""
    ticks = ((np.arange(side) - (side - 1) / 2) * spacing).astype(np.float32)
    grid = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1)
    return grid.reshape(-1, 3)


def sample_cubes(
    density: Density, frames: BackboneFrames, side: int, spacing: float
) -> Float32[np.ndarray, "r p"]:
    """Density cubes in every residue's own frame, ``side**3`` values each."""
    offsets = cube_offsets(side, spacing)
    points = frames.ca[:, None] + offsets @ frames.rotation.swapaxes(-1, -2)
    return sample_density(density, points.astype(np.float32))


def sample_edge_rectangles(
    density: Density,
    frames: BackboneFrames,
    neighbours: Int64[np.ndarray, "r k"],
    length: int,
    side: int,
    spacing: float,
) -> Float32[np.ndarray, "r k p"]:
    """Density boxes along every edge, ``length * side**2`` values each.

    The long axis runs from the residue's C-alpha to its neighbour's: the first sample sits on
    the former, the last on the latter, so the spacing along it follows the distance. Across it
    samples are ``spacing`` apart; the first cross axis is the residue's e1 made normal to the
    edge, so the box turns with the residue (a rigid box, unlike ``sample_sheared_rectangles``).
    """
    start = frames.ca[:, None]
    edge = frames.ca[neighbours] - start
    distance = np.linalg.norm(edge, axis=-1, keepdims=True)
    along = edge / np.maximum(distance, SHORTEST_EDGE)
    across = _normal_to(along, frames.rotation)
    up = np.cross(along, across)
    ticks = ((np.arange(side) - (side - 1) / 2) * spacing).astype(np.float32)
    steps = np.linspace(0, 1, length, dtype=np.float32)
    centres = start[:, :, None] + steps[:, None] * edge[:, :, None]
    cross = (
        ticks[:, None, None] * across[:, :, None, None] + ticks[:, None] * up[:, :, None, None]
    )
    points = centres[:, :, :, None, None] + cross[:, :, None]
    values = sample_density(density, points.astype(np.float32))
    return values.reshape(*neighbours.shape, length * side * side)


def sample_sheared_rectangles(
    density: Density,
    frames: BackboneFrames,
    neighbours: Int64[np.ndarray, "r k"],
    length: int,
    side: int,
    spacing: float,
) -> Float32[np.ndarray, "r k p"]:
    """Density boxes along every edge as official ModelAngelo weights have seen them.

    Values as in ``sample_edge_rectangles``. Parity: three oddities that the weights were
    trained with. The direction of an edge in the residue's axes is used as a direction in the
    map; the half-lengths scale the axes of the map and not of the box, which shears it
    (z is stretched, whatever the direction); and the box is centred off the residue, by
    (1, 0, 2) spacings for 7 x 3 x 3. The reference counts in voxels of its grid, which are
    within 0.5 % of the 1 Å that this spacing is.
    """
    edge = (frames.ca[neighbours] - frames.ca[:, None]) @ frames.rotation
    half = np.array([side - 1, side - 1, length - 1], np.float32) / 2
    off_centre = half - np.array([0, side // 2, side // 2], np.float32)
    along, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in (length, side))
    z, y, x = np.meshgrid(along, across, across, indexing="ij")
    unit = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    offsets = off_centre + half * (unit @ _turns_from_x(edge).swapaxes(-1, -2))
    points = frames.ca[:, None, None] + np.float32(spacing) * offsets
    return sample_density(density, points.astype(np.float32))


def _turns_from_x(vectors: Float32[np.ndarray, "r k 3"]) -> Float32[np.ndarray, "r k 3 3"]:
    """Turn +x onto each vector by the smallest rotation; zero vectors turn nothing.

    ``I + [v] + [v]² / (1 + cos)``, v being x cross the vector. There is no limit for vectors
    along -x, where the reference divides by zero; here the divisor is kept off zero.
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    x, y, z = np.moveaxis(unit, -1, 0)
    scale = 1 / np.maximum(1 + x, np.float32(SMALLEST_TURN))
    rows = [
        [1 - (y * y + z * z) * scale, -y, -z],
        [y, 1 - y * y * scale, -y * z * scale],
        [z, -y * z * scale, 1 - z * z * scale],
    ]
    turns: np.ndarray = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    return turns.astype(np.float32)


def _normal_to(
    along: Float32[np.ndarray, "r k 3"], rotation: Float32[np.ndarray, "r 3 3"]
) -> Float32[np.ndarray, "r k 3"]:
    """Return unit vectors normal to ``along``: from e1 or, if that is parallel, from e2."""
    e1 = np.broadcast_to(rotation[:, None, :, 0], along.shape)
    e2 = np.broadcast_to(rotation[:, None, :, 1], along.shape)
    parallel = np.abs((e1 * along).sum(-1, keepdims=True)) > 0.95
    seed = np.where(parallel, e2, e1)
    across = seed - (seed * along).sum(-1, keepdims=True) * along
    unit: np.ndarray = across / np.linalg.norm(across, axis=-1, keepdims=True)
    return unit.astype(np.float32)
