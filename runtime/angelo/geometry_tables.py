"""What ideal amino acids look like: bonds, angles, planes and chirality, one table a type.

The backbone has the values of ``peptide_geometry.json`` (Engh & Huber 2001); side chains have
those of the residue tables, which are ideal already. Lengths in Å, float64 throughout: these
numbers feed a minimiser.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from angelo.atoms import place_selected_atoms
from angelo.residues import AMINO_ACIDS, N_TORSIONS, ResidueType, residue_table
from angelo.types import BackboneFrames

#: Longest bond between heavy atoms of an amino acid (C-S is 1.81 Å), and shorter than any
#: distance across two bonds, Å.
LONGEST_BOND = 1.95
#: Standard deviations of side-chain bonds, Å, and angles, degrees: typical of Engh & Huber's.
SIDE_CHAIN_BOND_SIGMA = 0.02
SIDE_CHAIN_ANGLE_SIGMA = 2.0
#: Standard deviation of the volume of a chiral centre, Å³ (an ideal one has 2.5 Å³).
CHIRAL_SIGMA = 0.2
#: Standard deviation of an atom's distance from its plane, Å.
PLANE_SIGMA = 0.02
#: Residue table coordinates of a planar group are this flat, Å.
FLAT = 0.02


@dataclass(frozen=True, slots=True)
class ResidueGeometry:
    """Ideal geometry within one residue; atoms are slots of the residue's atom arrays."""

    bonds: Int64[np.ndarray, "b 2"]
    lengths: Float64[np.ndarray, "b 2"]
    """Ideal length and standard deviation, Å."""
    angles: Int64[np.ndarray, "n 3"]
    angle_degrees: Float64[np.ndarray, "n 2"]
    """Ideal angle and standard deviation, degrees."""
    volumes: Int64[np.ndarray, "v 4"]
    """Planes and chiral centres, see ``signed_volume``."""
    volume_values: Float64[np.ndarray, "v 2"]
    """Ideal volume (0: a plane) and standard deviation, Å³."""
    chis: Int64[np.ndarray, "x 4"]
    """Side-chain torsions, chi1 first."""
    is_staggered: Bool[np.ndarray, " x"]
    """Which of them turn a bond between tetrahedral atoms, staggered when relaxed."""


@dataclass(frozen=True, slots=True)
class JointGeometry:
    """What a peptide bond adds; atom (0, s) is slot s of the residue before, (1, s) behind."""

    bonds: Int64[np.ndarray, "b 2 2"]
    lengths: Float64[np.ndarray, "b 2"]
    """Ideal length and standard deviation, Å."""
    angles: Int64[np.ndarray, "n 3 2"]
    angle_degrees: Float64[np.ndarray, "n 2"]
    """Ideal angle and standard deviation, degrees."""
    volumes: Int64[np.ndarray, "v 4 2"]
    volume_values: Float64[np.ndarray, "v 2"]
    """Ideal volume (0: a plane) and standard deviation, Å³."""


def signed_volume(corners: Float64[np.ndarray, "v 4 3"]) -> Float64[np.ndarray, " v"]:
    """Volume spanned by the edges from the first corner, Å³: ``a · (b × c)``."""
    a, b, c = np.moveaxis(corners[:, 1:] - corners[:, :1], 1, 0)
    return np.asarray(np.einsum("vx,vx->v", a, np.cross(b, c)))


@cache
def residue_geometry(name: str) -> ResidueGeometry:
    """Ideal geometry of an amino acid. Raises KeyError for any other name."""
    residue = residue_table()[name]
    own = _peptide_table()["own"]
    given = own.get(name, own["other"])
    ideal = _ideal_atoms(name)
    lengths = {
        pair: (float(np.linalg.norm(ideal[pair[0]] - ideal[pair[1]])), SIDE_CHAIN_BOND_SIGMA)
        for pair in combinations(range(len(residue.atoms)), 2)
        if np.linalg.norm(ideal[pair[0]] - ideal[pair[1]]) < LONGEST_BOND
    }
    for first, second, *value in given["bonds"]:
        pair = (residue.index(first), residue.index(second))
        lengths[min(pair), max(pair)] = (value[0], value[1])
    degrees = {}
    for one, other in combinations(lengths, 2):
        if len(shared := {*one} & {*other}) == 1:
            (middle,) = shared
            first, last = sorted({*one, *other} - shared)
            value = _angle_degrees(ideal[[first, middle, last]])
            degrees[first, middle, last] = (value, SIDE_CHAIN_ANGLE_SIGMA)
    for *atoms, value, sigma in given["angles"]:
        first, middle, last = map(residue.index, atoms)
        degrees[min(first, last), middle, max(first, last)] = (value, sigma)
    volumes = _planes(residue, ideal) | _centres(residue, ideal, lengths)
    return ResidueGeometry(
        bonds=_index_array(lengths, (2,)),
        lengths=_value_array(lengths),
        angles=_index_array(degrees, (3,)),
        angle_degrees=_value_array(degrees),
        volumes=_index_array(volumes, (4,)),
        volume_values=_value_array(volumes),
        chis=_index_array(
            [[residue.index(a) for a in quad] for quad in residue.chi_atoms], (4,)
        ),
        is_staggered=np.array(
            [
                name != "PRO" and len(_flat_atoms(residue, number)) < 2
                for number, group in enumerate(residue.groups)
                if group.name.startswith("chi")
            ],
            dtype=np.bool_,
        ),
    )


@cache
def joint_geometry(before: str, behind: str, is_cis: bool) -> JointGeometry:
    """Ideal geometry of the peptide bond between two amino acids."""
    table = _peptide_table()["joint"]
    kinds = ["other", f"after {before}", f"before {behind}"]
    if is_cis:
        kinds.append(f"before cis {behind}")
    parts = [table[kind] for kind in kinds if kind in table]

    def merged(what: str, n: int) -> dict[tuple[tuple[int, int], ...], tuple[float, ...]]:
        rows = [row for part in parts for row in part.get(what, [])]
        return {tuple(place(atom) for atom in row[:n]): tuple(row[n:]) for row in rows}

    def place(atom: str) -> tuple[int, int]:
        if atom.startswith("-"):
            return 0, residue_table()[before].index(atom[1:])
        return 1, residue_table()[behind].index(atom)

    bonds, angles, volumes = merged("bonds", 2), merged("angles", 3), merged("planes", 4)
    return JointGeometry(
        bonds=_index_array(bonds, (2, 2)),
        lengths=_value_array(bonds),
        angles=_index_array(angles, (3, 2)),
        angle_degrees=_value_array(angles),
        volumes=_index_array(volumes, (4, 2)),
        volume_values=_value_array({key: (0.0, value[0]) for key, value in volumes.items()}),
    )


@cache
def _peptide_table() -> Mapping[str, Any]:
    text = files("angelo").joinpath("peptide_geometry.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


@cache
def _ideal_atoms(name: str) -> Float64[np.ndarray, "a 3"]:
    """Atoms of one residue with every torsion at 180 degrees, so that none meet by chance."""
    selected = np.zeros((1, N_TORSIONS, 2), dtype=np.float32)
    selected[..., 1] = -1
    frame = BackboneFrames(np.eye(3, dtype=np.float32)[None], np.zeros((1, 3), np.float32))
    kind = np.array([AMINO_ACIDS.index(name)], dtype=np.int64)
    positions, has_atom = place_selected_atoms(frame, selected, kind, AMINO_ACIDS)
    return np.asarray(positions[0, has_atom[0]].astype(np.float64))


def _flat_atoms(residue: ResidueType, number: int) -> list[int]:
    """Slots of the atoms of a rigid group that lie in a plane with its axis."""
    slots = [slot for slot, group in enumerate(residue.atom_group) if group == number]
    flat = [slot for slot in slots if abs(residue.atom_local[slot, 2]) < FLAT]
    return flat if len(flat) == len(slots) else []


def _planes(
    residue: ResidueType, ideal: Float64[np.ndarray, "a 3"]
) -> dict[tuple[int, int, int, int], tuple[float, float]]:
    """Flat groups: the three atoms that span the largest triangle, and each other atom."""
    planes = {}
    for number, group in enumerate(residue.groups):
        if len(flat := _flat_atoms(residue, number)) < 2:
            continue
        flat = [*(residue.index(atom) for atom in group.atoms[1:3]), *flat]
        area, corners = max(
            (
                float(np.linalg.norm(np.cross(ideal[b] - ideal[a], ideal[c] - ideal[a]))),
                (a, b, c),
            )
            for a, b, c in combinations(sorted(set(flat)), 3)
        )
        for slot in sorted({*flat} - {*corners}):
            planes[*corners, slot] = (0.0, PLANE_SIGMA * area)
    return planes


def _centres(
    residue: ResidueType,
    ideal: Float64[np.ndarray, "a 3"],
    bonds: Mapping[tuple[int, int], Any],
) -> dict[tuple[int, int, int, int], tuple[float, float]]:
    """Tetrahedral atoms with three heavy neighbours."""
    centres = {}
    for slot in range(len(residue.atoms)):
        near = sorted({a for bond in bonds if slot in bond for a in bond} - {slot})
        if len(near) == 3:
            a, b, c = near
            volume = float(signed_volume(ideal[None, [slot, a, b, c]])[0])
            if abs(volume) > 1:  # trigonal atoms, which planes take care of, have about 0
                centres[slot, a, b, c] = (volume, CHIRAL_SIGMA)
    return centres


def _angle_degrees(atoms: Float64[np.ndarray, "3 3"]) -> float:
    one, other = atoms[0] - atoms[1], atoms[2] - atoms[1]
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    return float(np.rad2deg(np.arccos(cosine)))


def _index_array(keys: Any, shape: Sequence[int]) -> Int64[np.ndarray, "..."]:
    return np.array(list(keys), dtype=np.int64).reshape(-1, *shape)


def _value_array(values: Mapping[Any, tuple[float, ...]]) -> Float64[np.ndarray, "n 2"]:
    return np.array(list(values.values()), dtype=np.float64).reshape(-1, 2)
