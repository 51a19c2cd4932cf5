"""Atoms as a microscope sees them: hydrogens, charge, and how far from the backbone they sit.

Deposited models hold heavy atoms with B-factors of very different make. What real maps show
besides (measured at the atoms of the development maps): side chains fade with every bond away
from the backbone, carbonyl oxygens are weak, carboxylates almost vanish (negative charge and
radiation damage), and hydrogens, which models leave out, scatter electrons too.
"""

from dataclasses import dataclass, fields, replace

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
#: Rings are rigid and mostly buried: they fade like their first atom.
RINGS = ("HIS", "PHE", "TRP", "TYR")
#: Oxygens that are charged at neutral pH.
CARBOXYLATES = {"ASP": ("OD1", "OD2"), "GLU": ("OE1", "OE2")}


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
    is_carboxylate: Bool[np.ndarray, " a"]
    """A charged oxygen."""
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
    is_carboxylate: Bool[np.ndarray, "21 256"]


def chemistry_tables(atom_names: list[str]) -> ChemistryTables:
    """Tables for an order of atom names; names that are not listed have no properties."""
    shape = (len(AMINO_ACIDS) + 1, 256)
    tables = ChemistryTables(
        np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), np.zeros(shape, bool)
    )
    for row, residue in enumerate(AMINO_ACIDS):
        bonded = {"N": int(residue != "PRO"), "CA": 1 + (residue == "GLY")}
        bonded |= {entry[:-1]: int(entry[-1]) for entry in HYDROGENS[residue].split()}
        for column, name in enumerate(atom_names):
            tables.hydrogens[row, column] = bonded.get(name, 0)
            tables.depth[row, column] = _depth(residue, name)
            tables.is_carboxylate[row, column] = name in CARBOXYLATES.get(residue, ())
    return tables


def _depth(residue: str, name: str) -> int:
    if name in ("O", "OXT"):
        return CARBONYL_DEPTH
    depth = DEPTHS.get(name[1], 0) if len(name) > 1 and name != "CA" else 0
    return min(depth, 1) if residue in RINGS and name[0] != "O" else depth
