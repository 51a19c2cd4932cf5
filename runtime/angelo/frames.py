"""Rigid-frame algebra on NumPy arrays, and the backbone that a frame carries."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32

from angelo.types import BackboneFrames

#: Cross-product length below which N, CA, C count as collinear, Å².
COLLINEAR_LIMIT = 1e-3

#: Bond lengths, Å, and the angle N-CA-C: Engh & Huber 2001, International Tables for
#: Crystallography F, chapter 18.3 (mean over residues other than Gly and Pro).
BOND_N_CA = 1.459
BOND_CA_C = 1.525
ANGLE_N_CA_C_RAD = float(np.deg2rad(111.0))

#: Ideal N, CA, C in the residue's axes, Å: CA at the origin, C on +e1, N in the e1-e2 plane.
IDEAL_BACKBONE = np.array(
    [
        [BOND_N_CA * np.cos(ANGLE_N_CA_C_RAD), BOND_N_CA * np.sin(ANGLE_N_CA_C_RAD), 0],
        [0, 0, 0],
        [BOND_CA_C, 0, 0],
    ],
    dtype=np.float32,
)
IDEAL_BACKBONE.setflags(write=False)


def rotation_from_backbone(
    n: Float32[np.ndarray, "r 3"],
    ca: Float32[np.ndarray, "r 3"],
    c: Float32[np.ndarray, "r 3"],
) -> Float32[np.ndarray, "r 3 3"]:
    """Orthonormal residue axes from backbone atoms, as columns.

    Gram-Schmidt: ``e1`` along CA→C, ``e2`` the part of CA→N normal to ``e1``,
    ``e3 = e1 x e2``.

    Parameters
    ----------
    n, ca, c
        Atom positions, Å, one row per residue.

    Raises
    ------
    ValueError
        If the three atoms of a residue are collinear; names the first such residue.

    References
    ----------
    Jumper et al. 2021, Suppl. Algorithm 21, doi:10.1038/s41586-021-03819-2.
    """
    to_c, to_n = c - ca, n - ca
    area = np.linalg.norm(np.cross(to_c, to_n), axis=-1)
    if (bad := np.flatnonzero(~(area >= COLLINEAR_LIMIT))).size:  # not (a < b): NaN is bad too
        raise ValueError(f"N, CA, C are collinear in residue {bad[0]} (of {bad.size} such)")
    e1 = to_c / np.linalg.norm(to_c, axis=-1, keepdims=True)
    e2 = to_n - (to_n * e1).sum(-1, keepdims=True) * e1
    e2 /= np.linalg.norm(e2, axis=-1, keepdims=True)
    # Once more: float32 leaves e2 slightly off when CA→N is nearly along CA→C.
    e2 -= (e2 * e1).sum(-1, keepdims=True) * e1
    e2 /= np.linalg.norm(e2, axis=-1, keepdims=True)
    return np.stack([e1, e2, np.cross(e1, e2)], axis=-1)


def apply_frames(
    frames: BackboneFrames, points: Float32[np.ndarray, "r p 3"]
) -> Float32[np.ndarray, "r p 3"]:
    """Residue coordinates to map coordinates, Å: ``rotation @ x + ca``."""
    return np.asarray(points @ np.swapaxes(frames.rotation, -1, -2) + frames.ca[:, None])


def compose_frames(outer: BackboneFrames, inner: BackboneFrames) -> BackboneFrames:
    """Apply ``inner`` first, then ``outer``."""
    return BackboneFrames(
        rotation=outer.rotation @ inner.rotation,
        ca=apply_frames(outer, inner.ca[:, None])[:, 0],
    )


def invert_frames(frames: BackboneFrames) -> BackboneFrames:
    """Map coordinates to residue coordinates: the inverse of every frame."""
    inverse = np.ascontiguousarray(np.swapaxes(frames.rotation, -1, -2))
    return BackboneFrames(rotation=inverse, ca=-(inverse @ frames.ca[..., None])[..., 0])


def random_rotations(n: int, rng: np.random.Generator) -> Float32[np.ndarray, "{n} 3 3"]:
    """Rotations drawn uniformly from SO(3).

    A normalised Gaussian 4-vector is a uniform unit quaternion (Marsaglia 1972,
    doi:10.1214/aoms/1177692644).
    """
    quaternions = rng.normal(size=(n, 4))
    w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.ascontiguousarray(np.moveaxis(np.array(rows, dtype=np.float32), -1, 0))


def backbone_atoms(frames: BackboneFrames) -> Float32[np.ndarray, "r 3 3"]:
    """N, CA, C of ideal geometry in map coordinates, Å."""
    ideal = np.broadcast_to(IDEAL_BACKBONE, (len(frames), 3, 3))
    return apply_frames(frames, ideal)


def octant_rotations(n: int, rng: np.random.Generator) -> Float32[np.ndarray, "{n} 3 3"]:
    """Rotations by Gram-Schmidt on two vectors drawn from the unit cube (all parts positive).

    Parity: what official ModelAngelo weights start from; far from uniform on purpose.
    """
    pairs = rng.random((2, n, 3))
    while (flat := _area(*pairs) < COLLINEAR_LIMIT).any():
        pairs[:, flat] = rng.random((2, int(flat.sum()), 3))
    first, second = pairs.astype(np.float32)
    return rotation_from_backbone(second, np.zeros_like(first), first)


def _area(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    area: np.ndarray = np.linalg.norm(np.cross(first, second), axis=-1)
    return area


def update_frames(
    frames: BackboneFrames, shifts: Float32[np.ndarray, "r 3 3"]
) -> BackboneFrames:
    """Move N, CA and C from their ideal places, and take the frames of where they land.

    Parameters
    ----------
    frames
        Where the residues are.
    shifts
        Displacement of N, CA, C in residue axes, Å.

    Returns
    -------
    BackboneFrames
        New C-alphas and axes. A residue whose moved atoms are collinear keeps its axes.

    Raises
    ------
    ValueError
        If a shift is not finite; names the first such residue.
    """
    return frames_from_places(frames, IDEAL_BACKBONE + shifts)


def frames_from_places(
    frames: BackboneFrames, places: Float32[np.ndarray, "r 3 3"]
) -> BackboneFrames:
    """Frames of N, CA, C at ``places`` in the axes of ``frames``, Å; see ``update_frames``.

    Parity: what official ModelAngelo networks give. They reach the same axes by Gram-Schmidt
    on (C, CA, N), with e1 and e3 mirrored afterwards.
    """
    if (bad := np.flatnonzero(~np.isfinite(places).all((1, 2)))).size:
        raise ValueError(f"shifts of residue {bad[0]} are not finite (of {bad.size} such)")
    moved = apply_frames(frames, places)
    # Axes from local coordinates: at 500 Å from the origin float32 resolves only 3e-5 Å.
    n, ca, c = np.moveaxis(places, 1, 0)
    area = np.linalg.norm(np.cross(c - ca, n - ca), axis=-1)
    is_turned = area >= COLLINEAR_LIMIT
    rotation = frames.rotation.copy()
    turn = rotation_from_backbone(n[is_turned], ca[is_turned], c[is_turned])
    rotation[is_turned] = _orthonormal(frames.rotation[is_turned] @ turn)
    return replace(frames, rotation=rotation, ca=moved[:, 1])


def _orthonormal(rotation: Float32[np.ndarray, "r 3 3"]) -> Float32[np.ndarray, "r 3 3"]:
    """Remove the rounding error that a product of rotations gathers."""
    zero = np.zeros_like(rotation[:, 0])
    return rotation_from_backbone(rotation[..., 1].copy(), zero, rotation[..., 0].copy())
