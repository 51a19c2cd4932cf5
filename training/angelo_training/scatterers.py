"""Atoms as a microscope sees them: hydrogens, charge, volume, and distance from the backbone.

Deposited models hold heavy atoms with B-factors of very different make. What real maps show
besides (measured at the atoms of the development maps): side chains fade with every bond away
from the backbone, carbonyl oxygens are weak, acids almost vanish (negative charge and radiation
damage), hydroxyls, side-chain nitrogens and sulphur are weaker than free atoms, and atoms that
displace much solvent, methyl groups above all, are weaker than those that displace little.
Hydrogens, which models leave out, scatter electrons too.
"""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from angelo.residues import AMINO_ACIDS

#: Hydrogens of side-chain atoms beyond those that follow from the name; neutral histidine is
#: protonated at either nitrogen, counted at NE2.
HYDROGENS = {
    "ALA": "CB3",
    "ARG": "CB2 CG2 CD2 NE1 NH12 NH22",
    "ASN": "CB2 ND22",
    "ASP": "CB2",
    "CYS": "CB2 SG1",
    "GLN": "CB2 CG2 NE22",
    "GLU": "CB2 CG2",
    "GLY": "",
    "HIS": "CB2 CD21 CE11 NE21",
    "ILE": "CB1 CG12 CG23 CD13",
    "LEU": "CB2 CG1 CD13 CD23",
    "LYS": "CB2 CG2 CD2 CE2 NZ3",
    "MET": "CB2 CG2 CE3",
    "PHE": "CB2 CD11 CD21 CE11 CE21 CZ1",
    "PRO": "CB2 CG2 CD2",
    "SER": "CB2 OG1",
    "THR": "CB1 OG11 CG23",
    "TRP": "CB2 CD11 NE11 CE31 CZ21 CZ31 CH21",
    "TYR": "CB2 CD11 CD21 CE11 CE21 OH1",
    "VAL": "CB1 CG13 CG23",
}
#: Bonds from the C-alpha by the Greek letter of an atom's name; a carbonyl oxygen fades like a
#: side-chain atom two bonds out.
DEPTHS = {"B": 1, "G": 2, "D": 3, "E": 4, "Z": 5, "H": 6}
CARBONYL_DEPTH = 2
#: Rings are rigid and mostly buried: they fade like their first atom, at their far end like the
#: next. Guanidinium is held by its hydrogen bonds and fades no further than CG; the end of
#: lysine is held by nothing.
RINGS = ("HIS", "PHE", "PRO", "TRP", "TYR")
FAR_END = ("E", "Z", "H")
DEEPEST = {"ARG": 2}
LYSINE_END = {"CE": 5, "NZ": 7}
#: Oxygens that are charged at neutral pH, and what else of these side chains they weaken.
CARBOXYLATES = {"ASP": ("OD1", "OD2"), "GLU": ("OE1", "OE2")}
ACID_CARBONS = {"ASP": ("CG",), "GLU": ("CG", "CD")}
HYDROXYLS = {"SER": ("OG",), "THR": ("OG1",), "TYR": ("OH",)}
#: Volume of an atom by element and hydrogens bonded to it, Å³: means over buried and exposed
#: kinds of Tsai et al., J. Mol. Biol. 290 (1999) 253, table 2. CH in a ring is CH_IN_RING.
VOLUMES = {
    **{("C", 0): 9.2, ("C", 1): 13.8, ("C", 2): 23.7, ("C", 3): 36.7},
    **{("N", 0): 8.7, ("N", 1): 14.7, ("N", 2): 22.7, ("N", 3): 21.4},
    **{("O", 0): 15.9, ("O", 1): 18.0, ("S", 0): 29.2, ("S", 1): 36.8},
}
CH_IN_RING = 20.9
#: Volume of an atom that is in no amino acid, with its hydrogens, about.
OTHER_VOLUME = 14.0


class Group(IntEnum):
    """Side-chain atoms that scatter less than free atoms do."""

    NONE = 0
    CARBOXYLATE = 1
    ACID_CARBON = 2
    HYDROXYL = 3
    NITROGEN = 4
    SULPHUR = 5


@dataclass(frozen=True, slots=True)
class Scatterers:
    """Atoms (a of them) with all that decides how they appear in a map."""

    positions: Float32[np.ndarray, "a 3"]
    """Å."""
    elements: UInt8[np.ndarray, " a"]
    """Atomic numbers."""
    b_factors: Float32[np.ndarray, " a"]
    """As deposited, Å²."""
    hydrogens: UInt8[np.ndarray, " a"]
    """Hydrogens bonded to it."""
    depth: UInt8[np.ndarray, " a"]
    """Bonds between it and the C-alpha, 0 for N, CA, C and for what is not protein."""
    volume: Float32[np.ndarray, " a"]
    """Of the solvent that it displaces, with its hydrogens, Å³."""
    group: UInt8[np.ndarray, " a"]
    """`Group` of it."""
    residue: Int32[np.ndarray, " a"]
    """Amino-acid residue it belongs to, or -1."""

    def __len__(self) -> int:
        return len(self.positions)

    def at(self, positions: Float32[np.ndarray, "a 3"]) -> "Scatterers":
        """Return the same atoms elsewhere."""
        return replace(self, positions=positions)

    def only(self, chosen: Bool[np.ndarray, " a"]) -> "Scatterers":
        """Return some of the atoms."""
        return Scatterers(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})


@dataclass(frozen=True, slots=True)
class ChemistryTables:
    """Properties by residue type (row 20: not an amino acid) and by index of the atom name."""

    hydrogens: UInt8[np.ndarray, "21 256"]
    depth: UInt8[np.ndarray, "21 256"]
    volume: Float32[np.ndarray, "21 256"]
    group: UInt8[np.ndarray, "21 256"]


def chemistry_tables(atom_names: list[str]) -> ChemistryTables:
    """Tables for an order of atom names; names that are not listed have no properties."""
    shape = (len(AMINO_ACIDS) + 1, 256)
    tables = ChemistryTables(
        hydrogens=np.zeros(shape, np.uint8),
        depth=np.zeros(shape, np.uint8),
        volume=np.full(shape, OTHER_VOLUME, np.float32),
        group=np.zeros(shape, np.uint8),
    )
    for row, residue in enumerate(AMINO_ACIDS):
        bonded = {"N": int(residue != "PRO"), "CA": 1 + (residue == "GLY")}
        bonded |= {entry[:-1]: int(entry[-1]) for entry in HYDROGENS[residue].split()}
        for column, name in enumerate(atom_names):
            tables.hydrogens[row, column] = bonded.get(name, 0)
            tables.depth[row, column] = _depth(residue, name)
            tables.volume[row, column] = _volume(residue, name, bonded.get(name, 0))
            tables.group[row, column] = _group(residue, name)
    return tables


def _volume(residue: str, name: str, hydrogens: int) -> float:
    if residue in RINGS and hydrogens == 1 and name[0] == "C" and name != "CA":
        return CH_IN_RING
    return VOLUMES.get((name[0], hydrogens), OTHER_VOLUME)


def _group(residue: str, name: str) -> Group:
    if name in CARBOXYLATES.get(residue, ()):
        return Group.CARBOXYLATE
    if name in ACID_CARBONS.get(residue, ()):
        return Group.ACID_CARBON
    if name in HYDROXYLS.get(residue, ()):
        return Group.HYDROXYL
    if name[0] == "N" and name != "N":
        return Group.NITROGEN
    return Group.SULPHUR if name[0] == "S" else Group.NONE


def _depth(residue: str, name: str) -> int:
    if name in ("O", "OXT"):
        return CARBONYL_DEPTH
    depth = DEPTHS.get(name[1], 0) if len(name) > 1 and name != "CA" else 0
    if residue in RINGS and name[0] != "O":
        return min(depth, 2 if name[1:2] in FAR_END else 1)
    if residue == "LYS":
        return LYSINE_END.get(name, depth)
    return min(depth, DEEPEST.get(residue, depth))
