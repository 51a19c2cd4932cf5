"""Residue tables: names, atoms, torsions and ideal geometry, checked on load.

The numbers and their sources are in ``residue_geometry.json``. A residue is a tree of rigid
groups: the backbone group sits in the residue's frame, and every other group turns about one
bond of its parent.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64

#: The amino acids, alphabetical by three-letter code.
AMINO_ACIDS = tuple(
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL".split()
)
#: DNA, then RNA nucleotides, by their Chemical Component Dictionary codes.
NUCLEOTIDES = tuple("DA DC DG DT A C G U".split())
#: Every residue type that has a table.
RESIDUE_TYPES = AMINO_ACIDS + NUCLEOTIDES
#: One-letter codes of the amino acids, in the same order.
AMINO_ACID_CODES = "ARNDCQEGHILKMFPSTWYV"
#: One-letter to three-letter codes of the amino acids, and back.
NAME_FROM_CODE = MappingProxyType(dict(zip(AMINO_ACID_CODES, AMINO_ACIDS, strict=True)))
CODE_FROM_NAME = MappingProxyType(dict(zip(AMINO_ACIDS, AMINO_ACID_CODES, strict=True)))

#: Residue names by one-letter code, for each kind of polymer.
NAMES_BY_KIND = MappingProxyType(
    {
        "protein": NAME_FROM_CODE,
        "dna": MappingProxyType(dict(zip("ACGT", NUCLEOTIDES[:4], strict=True))),
        "rna": MappingProxyType(dict(zip("ACGU", NUCLEOTIDES[4:], strict=True))),
    }
)
#: Letter of a residue that is not known, and its name (Chemical Component Dictionary).
UNKNOWN_BY_KIND = MappingProxyType(
    {"protein": ("X", "UNK"), "dna": ("N", "DN"), "rna": ("N", "N")}
)

#: Torsions of one residue. Amino acids: omega, phi, psi, chi1 to chi4, unused.
#: Nucleotides: alpha, beta, gamma, delta, nu2, nu1, nu0, chi.
N_TORSIONS = 8
#: The first torsions, which all residue types share in the layout of a network's output.
N_SHARED_TORSIONS = 3
#: Torsion slots of an amino acid that involve the residue before it, and psi.
OMEGA, PHI, PSI = 0, 1, 2
#: Torsion slot of chi1.
CHI1 = 3

#: A local coordinate is a bond or two away from the origin of its group, Å.
MAX_LOCAL_COORDINATE = 6.0
#: Cross product under which three atoms cannot define a group's axes, Å².
COLLINEAR_LIMIT = 1e-3

Kind = Literal["protein", "dna", "rna"]


@dataclass(frozen=True, slots=True)
class RigidGroup:
    """Atoms that turn together about one bond."""

    name: str
    """``psi``, ``chi1``, ..."""
    torsion: int
    """Slot of the torsion that turns the group, 0 to ``N_TORSIONS - 1``."""
    parent: int
    """Index of the group that carries the axis, in ``ResidueType.groups``; -1: the backbone."""
    atoms: tuple[str, str, str, str]
    """The four atoms of the torsion; the axis runs from the second to the third."""
    rotation: Float64[np.ndarray, "3 3"]
    """Axes of the group (columns) at torsion zero, in the parent's coordinates."""
    origin: Float64[np.ndarray, "3"]
    """Origin of the group in the parent's coordinates, Å."""
    phase_rad: float
    """Dihedral angle of ``atoms`` in ideal geometry when the torsion is zero, radians."""
    is_pi_periodic: bool
    """Whether half a turn gives the same residue with atom names swapped."""


@dataclass(frozen=True, slots=True)
class ResidueType:
    """One amino acid or nucleotide."""

    name: str
    """Chemical Component Dictionary code, such as ``ALA`` or ``DA``."""
    code: str
    """One-letter code; unique only within a kind."""
    kind: Kind
    """Amino acid, DNA or RNA."""
    atoms: tuple[str, ...]
    """Heavy-atom names in the order of every atom array."""
    groups: tuple[RigidGroup, ...]
    """Parents come before their children."""
    atom_group: tuple[int, ...]
    """For each atom its index in ``groups``; -1: the backbone."""
    atom_local: Float64[np.ndarray, "a 3"]
    """Coordinates of the atoms in their groups, Å."""
    swaps: tuple[tuple[str, str], ...]
    """Pairs of names that chemistry cannot tell apart; a flip exchanges all pairs at once."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols of ``atoms`` (C, N, O, P and S only: the first letter)."""
        return tuple(atom[0] for atom in self.atoms)

    @property
    def chi_atoms(self) -> tuple[tuple[str, str, str, str], ...]:
        """Atoms that define chi1, chi2, ... (for a nucleotide, the base torsion)."""
        return tuple(group.atoms for group in self.groups if group.name.startswith("chi"))

    @property
    def n_chi(self) -> int:
        """How many chi torsions the side chain has."""
        return len(self.chi_atoms)

    def index(self, atom: str) -> int:
        """Place of an atom in every atom array. Raises ValueError if there is none."""
        return self.atoms.index(atom)


@cache
def residue_table() -> Mapping[str, ResidueType]:
    """All residue types by name, read once.

    Raises
    ------
    ValueError
        If the table is inconsistent (a damaged installation).
    """
    text = files("angelo").joinpath("residue_geometry.json").read_text(encoding="utf-8")
    entries = json.loads(text)["residues"]
    if tuple(entries) != RESIDUE_TYPES:
        raise ValueError(f"residue_geometry.json holds {tuple(entries)}, wants {RESIDUE_TYPES}")
    return MappingProxyType({n: residue_from_entry(n, entry) for n, entry in entries.items()})


def residues_of(names: Sequence[str]) -> tuple[ResidueType, ...]:
    """Look up residue types, in order. Raises ValueError naming any that has no table."""
    table = residue_table()
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"no residue table for {missing}; known are {', '.join(table)}")
    return tuple(table[name] for name in names)


def pi_periodic_torsions(names: Sequence[str]) -> Bool[np.ndarray, "t s"]:
    """Which of the ``N_TORSIONS`` torsions of each type may be off by half a turn."""
    periodic = np.zeros((len(names), N_TORSIONS), dtype=np.bool_)
    for row, residue in zip(periodic, residues_of(names), strict=True):
        row[[group.torsion for group in residue.groups if group.is_pi_periodic]] = True
    return periodic


def residue_from_entry(name: str, entry: Mapping[str, Any]) -> ResidueType:
    """Build one residue type from its JSON entry.

    Raises
    ------
    ValueError
        If atoms repeat, a group is undefined or out of order, a coordinate is not within
        ``MAX_LOCAL_COORDINATE``, or three atoms of a torsion are collinear.
    """
    atoms = tuple(atom for atom, _, _ in entry["atoms"])
    local = np.array([position for _, _, position in entry["atoms"]], dtype=np.float64)
    group_names = ["backbone", *(group["name"] for group in entry["groups"])]
    if len(set(atoms)) < len(atoms) or len(set(group_names)) < len(group_names):
        raise ValueError(f"{name}: an atom or a group is listed twice")
    if not (abs(local) < MAX_LOCAL_COORDINATE).all():
        raise ValueError(f"{name}: a coordinate is not within {MAX_LOCAL_COORDINATE} Å")
    wanted = {group for _, group, _ in entry["atoms"]} | {g["parent"] for g in entry["groups"]}
    swaps = tuple((first, second) for first, second in entry["swaps"])
    named = {atom for group in entry["groups"] for atom in group["atoms"]}
    if unknown := sorted((wanted - {*group_names}) | (({*sum(swaps, ())} | named) - {*atoms})):
        raise ValueError(f"{name}: {unknown} are used but not defined")
    atom_group = tuple(group_names.index(group) - 1 for _, group, _ in entry["atoms"])
    return ResidueType(
        name=name,
        code=entry["code"],
        kind=entry["kind"],
        atoms=atoms,
        groups=_groups(name, entry["groups"], atoms, atom_group, local),
        atom_group=atom_group,
        atom_local=local,
        swaps=swaps,
    )


def _groups(
    name: str,
    entries: Sequence[Mapping[str, Any]],
    atoms: tuple[str, ...],
    atom_group: tuple[int, ...],
    local: Float64[np.ndarray, "a 3"],
) -> tuple[RigidGroup, ...]:
    """Place the groups one after another with all torsions at zero; keep relative axes."""
    names = [entry["name"] for entry in entries]
    placed = {-1: (np.eye(3), np.zeros(3))}
    groups: list[RigidGroup] = []

    def position(atom: str) -> Float64[np.ndarray, "3"]:
        i = atoms.index(atom)
        if atom_group[i] not in placed:
            raise ValueError(f"{name}: {atom} is needed before its group is placed")
        rotation, origin = placed[atom_group[i]]
        return np.asarray(rotation @ local[i] + origin)

    for number, entry in enumerate(entries):
        parent = -1 if entry["parent"] == "backbone" else names.index(entry["parent"])
        if parent >= number or not 0 <= entry["torsion"] < N_TORSIONS:
            raise ValueError(f"{name}: group {entry['name']} is out of order")
        parent_rotation, parent_origin = placed[parent]
        before, start, end = (position(atom) for atom in entry["atoms"][:3])
        if "axis_end" in entry:  # Parity: the reference turns nu0 about a point near C1'
            end = parent_rotation @ np.array(entry["axis_end"]) + parent_origin
        side = before - start
        axes = _axes(end - start, -side if entry.get("opposite") else side, name)
        placed[number] = (axes, end)
        groups.append(
            RigidGroup(
                name=entry["name"],
                torsion=entry["torsion"],
                parent=parent,
                atoms=tuple(entry["atoms"]),
                rotation=parent_rotation.T @ axes,
                origin=parent_rotation.T @ (end - parent_origin),
                phase_rad=_dihedral_rad(*(position(atom) for atom in entry["atoms"])),
                is_pi_periodic=entry.get("pi_periodic", False),
            )
        )
    return tuple(groups)


def _axes(
    x: Float64[np.ndarray, "3"], xy: Float64[np.ndarray, "3"], name: str
) -> Float64[np.ndarray, "3 3"]:
    """Right-handed axes as columns: first along ``x``, second towards ``xy``."""
    if np.linalg.norm(np.cross(x, xy)) < COLLINEAR_LIMIT:
        raise ValueError(f"{name}: the atoms of a torsion are collinear")
    e1 = x / np.linalg.norm(x)
    e2 = xy - (xy @ e1) * e1
    e2 /= np.linalg.norm(e2)
    return np.stack([e1, e2, np.cross(e1, e2)], axis=-1)


def _dihedral_rad(*atoms: Float64[np.ndarray, "3"]) -> float:
    """Dihedral angle of four atoms, radians, of the sign that IUPAC-IUB 1970 gives it."""
    first, second, third, fourth = atoms
    axes = _axes(third - second, first - second, "torsion")
    _, y, z = axes.T @ (fourth - third)
    return float(np.arctan2(z, y))
