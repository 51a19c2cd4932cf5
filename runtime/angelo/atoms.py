"""Backbone frames and torsions to atoms, and back.

A network of T residue types gives ``3 + 5 T`` torsions, each as (sin, cos): the first three
serve every type, and column ``3 + f T + t`` is torsion ``3 + f`` of type ``t``. Picking a
residue's own type leaves its ``N_TORSIONS`` *selected* torsions, named in
``angelo.residues``: for an amino acid omega, phi, psi, chi1 to chi4 and one that is unused.

Signs and zeros are those of Jumper et al. 2021, Suppl. Algorithm 24 and section 1.9.1: omega
turns the bond before the residue (CA and C of the previous one, then N, CA); phi is C of the
previous one, N, CA, C; psi is read from the residue's own carbonyl oxygen, O lying opposite
the next N, so it does not need the next residue.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from angelo.residues import (
    AMINO_ACIDS,
    N_SHARED_TORSIONS,
    N_TORSIONS,
    OMEGA,
    PHI,
    ResidueType,
    residues_of,
)
from angelo.types import BackboneFrames

#: Torsions across a peptide bond: where their atoms are in N, CA, C of the residue before,
#: then N, CA, C of the residue itself.
JOINT_TORSIONS = {OMEGA: [1, 2, 3, 4], PHI: [2, 3, 4, 5]}
#: Length of a (sin, cos) pair below which it names no angle; the angle is then zero.
SHORTEST_PAIR = 1e-6
#: Distance of an outer atom from a torsion's axis below which the torsion is undefined, Å.
SHORTEST_ARM = 1e-2


def select_torsions(
    torsions: Float32[np.ndarray, "r s 2"], residue_type: Int64[np.ndarray, " r"], n_types: int
) -> Float32[np.ndarray, "r 8 2"]:
    """Pick the torsions of each residue's own type, as unit (sin, cos) pairs.

    Parameters
    ----------
    torsions
        A network's output, (sin, cos) of any length, in the layout of this module.
    residue_type
        Column of the type in the network's order.
    n_types
        How many residue types the network knows.

    Raises
    ------
    ValueError
        If the number of torsions does not fit ``n_types``, or a type is out of range.
    """
    n_own = N_TORSIONS - N_SHARED_TORSIONS
    if torsions.shape[1] != N_SHARED_TORSIONS + n_own * n_types:
        raise ValueError(
            f"{torsions.shape[1]} torsions, but {n_types} residue types have "
            f"{N_SHARED_TORSIONS + n_own * n_types}"
        )
    _check_types(residue_type, n_types)
    own = torsions[:, N_SHARED_TORSIONS:].reshape(-1, n_own, n_types, 2)
    own = np.take_along_axis(own, residue_type[:, None, None, None], axis=2)[:, :, 0]
    return _unit_pairs(np.concatenate([torsions[:, :N_SHARED_TORSIONS], own], axis=1))


def place_atoms(
    frames: BackboneFrames,
    torsions: Float32[np.ndarray, "r s 2"],
    residue_type: Int64[np.ndarray, " r"],
    residue_types: Sequence[str] = AMINO_ACIDS,
) -> tuple[Float32[np.ndarray, "r a 3"], Bool[np.ndarray, "r a"]]:
    """Place all heavy atoms of ideal geometry from a network's torsions.

    Parameters
    ----------
    frames
        Where the residues are.
    torsions
        A network's output, in the layout of this module.
    residue_type
        Index of each residue's type in ``residue_types``.
    residue_types
        Names, in the network's order.

    Returns
    -------
    positions, has_atom
        Map coordinates, Å, in the atom order of ``angelo.residues``, and which slots are in
        use. ``a`` is the largest number of atoms among ``residue_types``; unused slots are 0.
    """
    selected = select_torsions(torsions, residue_type, len(residue_types))
    return place_selected_atoms(frames, selected, residue_type, residue_types)


def place_selected_atoms(
    frames: BackboneFrames,
    selected: Float32[np.ndarray, "r 8 2"],
    residue_type: Int64[np.ndarray, " r"],
    residue_types: Sequence[str] = AMINO_ACIDS,
) -> tuple[Float32[np.ndarray, "r a 3"], Bool[np.ndarray, "r a"]]:
    """Place all heavy atoms from the torsions of each residue's own type.

    As ``place_atoms``; takes what ``select_torsions`` and ``measure_torsions`` give.

    References
    ----------
    Jumper et al. 2021, Suppl. Algorithm 24, doi:10.1038/s41586-021-03819-2.
    """
    residues = residues_of(residue_types)
    _check_types(residue_type, len(residues))
    width = max(len(residue.atoms) for residue in residues)
    local = np.zeros((len(frames), width, 3), dtype=np.float32)
    has_atom = np.zeros((len(frames), width), dtype=np.bool_)
    selected = _unit_pairs(selected)
    for number in np.unique(residue_type):
        rows, residue = np.flatnonzero(residue_type == number), residues[number]
        local[rows, : len(residue.atoms)] = _local_atoms(residue, selected[rows])
        has_atom[rows, : len(residue.atoms)] = True
    positions = local @ np.swapaxes(frames.rotation, -1, -2) + frames.ca[:, None]
    return np.where(has_atom[..., None], positions, np.float32(0)), has_atom


def measure_torsions(
    positions: Float32[np.ndarray, "r a 3"],
    has_atom: Bool[np.ndarray, "r a"],
    residue_type: Int64[np.ndarray, " r"],
    follows_previous: Bool[np.ndarray, " r"],
    residue_types: Sequence[str] = AMINO_ACIDS,
) -> tuple[Float32[np.ndarray, "r 8 2"], Bool[np.ndarray, "r 8"]]:
    """Torsions of residues whose atoms are known: the inverse of ``place_selected_atoms``.

    Parameters
    ----------
    positions, has_atom
        Å, in the atom order of ``angelo.residues``.
    residue_type
        Index of each residue's type in ``residue_types``; -1 for a type without a table, of
        which nothing is measured.
    follows_previous
        Whether the residue is bonded to the one in the row before.
    residue_types
        Names.

    Returns
    -------
    torsions, is_measured
        (sin, cos), and whether all four atoms were there and the angle defined. What is not
        measured is (0, 1), angle zero. Where ``angelo.residues.pi_periodic_torsions`` says
        so, the opposite pair (-sin, -cos) is just as right.
    """
    residues = residues_of(residue_types)
    _check_types(np.maximum(residue_type, 0), len(residues))
    selected = np.zeros((len(positions), N_TORSIONS, 2), dtype=np.float32)
    selected[..., 1] = 1
    is_measured = np.zeros((len(positions), N_TORSIONS), dtype=np.bool_)
    for number in np.unique(residue_type[residue_type >= 0]):
        rows, residue = np.flatnonzero(residue_type == number), residues[number]
        for group in residue.groups:
            quad = [residue.index(atom) for atom in group.atoms]
            angle, is_defined = _dihedrals(positions[rows][:, quad])
            is_defined &= has_atom[rows][:, quad].all(-1)
            selected[rows, group.torsion] = _pairs(angle - group.phase_rad, is_defined)
            is_measured[rows, group.torsion] = is_defined
    is_protein = np.array([residue.kind == "protein" for residue in residues])[residue_type]
    is_protein &= residue_type >= 0
    is_joined = follows_previous & is_protein & np.roll(is_protein, 1)
    rows = np.flatnonzero(is_joined[1:]) + 1  # the first residue follows nothing
    backbone, is_there = positions[:, :3], has_atom[:, :3]
    joints = np.concatenate([backbone[rows - 1], backbone[rows]], axis=1)
    is_there = np.concatenate([is_there[rows - 1], is_there[rows]], axis=1)
    for torsion, quad in JOINT_TORSIONS.items():
        angle, is_defined = _dihedrals(joints[:, quad])
        is_defined &= is_there[:, quad].all(-1)
        selected[rows, torsion] = _pairs(angle, is_defined)
        is_measured[rows, torsion] = is_defined
    return selected, is_measured


def _local_atoms(
    residue: ResidueType, selected: Float32[np.ndarray, "r 8 2"]
) -> Float32[np.ndarray, "r a 3"]:
    """Atoms of residues of one type, in their own axes."""
    n = len(selected)
    identity = np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3))
    placed = [(identity, np.zeros((n, 3), dtype=np.float32))]  # entry g + 1 is group g
    for group in residue.groups:
        sin, cos = selected[:, group.torsion].T
        turn = np.zeros((n, 3, 3), dtype=np.float32)
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = cos
        turn[:, 2, 1], turn[:, 1, 2] = sin, -sin
        rotation, origin = placed[group.parent + 1]
        placed.append(
            (
                rotation @ (group.rotation.astype(np.float32) @ turn),
                rotation @ group.origin.astype(np.float32) + origin,
            )
        )
    local = residue.atom_local.astype(np.float32)
    columns = [
        placed[group + 1][0] @ position + placed[group + 1][1]
        for group, position in zip(residue.atom_group, local, strict=True)
    ]
    return np.stack(columns, axis=1)


def _unit_pairs(pairs: Float32[np.ndarray, "r s 2"]) -> Float32[np.ndarray, "r s 2"]:
    """Scale (sin, cos) to length 1; a pair too short to name an angle becomes angle zero."""
    length = np.linalg.norm(pairs, axis=-1, keepdims=True)
    is_angle = length >= SHORTEST_PAIR
    zero = np.array([0, 1], dtype=np.float32)
    return np.where(is_angle, pairs / np.where(is_angle, length, np.float32(1)), zero)


def _pairs(
    angle_rad: Float64[np.ndarray, " r"], is_defined: Bool[np.ndarray, " r"]
) -> Float32[np.ndarray, "r 2"]:
    """(sin, cos) of the defined angles, (0, 1) of the others."""
    angle_rad = np.where(is_defined, angle_rad, 0.0)
    return np.stack([np.sin(angle_rad), np.cos(angle_rad)], axis=-1).astype(np.float32)


def _dihedrals(
    atoms: Float32[np.ndarray, "r 4 3"],
) -> tuple[Float64[np.ndarray, " r"], Bool[np.ndarray, " r"]]:
    """Dihedral angles in radians, and whether they are defined."""
    first, second, third, fourth = np.moveaxis(atoms.astype(np.float64), 1, 0)
    axis = third - second
    length = np.linalg.norm(axis, axis=-1, keepdims=True)
    axis = axis / np.where(length > SHORTEST_ARM, length, 1.0)
    near, far = first - second, fourth - third
    near = near - (near * axis).sum(-1, keepdims=True) * axis
    far = far - (far * axis).sum(-1, keepdims=True) * axis
    angle = np.arctan2((np.cross(axis, near) * far).sum(-1), (near * far).sum(-1))
    arms = np.minimum(np.linalg.norm(near, axis=-1), np.linalg.norm(far, axis=-1))
    return angle, np.minimum(arms, length[:, 0]) > SHORTEST_ARM


def _check_types(residue_type: Int64[np.ndarray, " r"], n_types: int) -> None:
    """Raise ValueError for a type that is not among ``n_types``."""
    if (bad := np.flatnonzero((residue_type < 0) | (residue_type >= n_types))).size:
        raise ValueError(
            f"residue {bad[0]} has type {residue_type[bad[0]]}, but there are {n_types} types"
        )
