"""Chemistry of atoms by residue and name."""

import numpy as np
import pytest
from tiny_structures import pack_tiny, tiny_entry

from angelo.residues import AMINO_ACIDS, residues_of
from angelo_training.scatterers import Group, chemistry_tables

NAMES = sorted({name for kind in residues_of(AMINO_ACIDS) for name in kind.atoms})


def rows(residue, *names):
    return AMINO_ACIDS.index(residue), [NAMES.index(name) for name in names]


def test_hydrogens_make_up_the_amino_acids():
    tables = chemistry_tables(NAMES)
    # Of a residue within a chain, neutral but for Lys and Arg; acids deprotonated.
    expected = {"GLY": 3, "ALA": 5, "LYS": 13, "ARG": 13, "ASP": 4, "TRP": 10, "PRO": 7}
    expected |= {"PHE": 9, "LEU": 11, "ILE": 11, "VAL": 9, "MET": 9, "SER": 5, "HIS": 7}
    for row, kind in enumerate(residues_of(AMINO_ACIDS)):
        columns = [NAMES.index(name) for name in kind.atoms]
        total = int(tables.hydrogens[row, columns].sum())
        assert total == expected.get(kind.name, total), kind.name
        assert 3 <= total <= 13
    assert not tables.hydrogens[len(AMINO_ACIDS)].any()  # what is not an amino acid


def test_depth_counts_bonds_and_rings_are_rigid():
    tables = chemistry_tables(NAMES)
    at = rows("LYS", "N", "CA", "C", "O", "CB", "CG", "CD", "CE", "NZ")
    np.testing.assert_array_equal(tables.depth[at], [0, 0, 0, 2, 1, 2, 3, 5, 7])
    np.testing.assert_array_equal(
        tables.depth[rows("TYR", "CB", "CG", "CD1", "CZ", "OH")], [1, 1, 1, 2, 6]
    )
    np.testing.assert_array_equal(tables.depth[rows("ASP", "OD1")], [3])
    guanidinium = tables.depth[rows("ARG", "CD", "NE", "CZ", "NH2")]
    np.testing.assert_array_equal(guanidinium, [2, 2, 2, 2])


def test_groups_are_those_of_the_side_chains():
    tables = chemistry_tables(NAMES)

    def members(group):
        found = np.argwhere(tables.group == group)
        return {f"{AMINO_ACIDS[row]} {NAMES[column]}" for row, column in found}

    of_real_atoms = {
        f"{kind.name} {name}" for kind in residues_of(AMINO_ACIDS) for name in kind.atoms
    }
    assert members(Group.CARBOXYLATE) == {"ASP OD1", "ASP OD2", "GLU OE1", "GLU OE2"}
    assert members(Group.ACID_CARBON) == {"ASP CG", "GLU CG", "GLU CD"}
    assert members(Group.HYDROXYL) == {"SER OG", "THR OG1", "TYR OH"}
    assert members(Group.SULPHUR) & of_real_atoms == {"CYS SG", "MET SD"}
    nitrogens = {"LYS NZ", "ARG NE", "ARG NH1", "ARG NH2", "ASN ND2", "GLN NE2", "TRP NE1"}
    assert members(Group.NITROGEN) & of_real_atoms == nitrogens | {"HIS ND1", "HIS NE2"}


def test_atoms_fill_the_volume_of_their_residues():
    tables = chemistry_tables(NAMES)
    # Mean volumes of buried residues, Å³: Chothia, Nature 254 (1975) 304.
    buried = {"GLY": 66, "ALA": 92, "LEU": 168, "PHE": 203, "LYS": 171, "ASP": 125, "SER": 99}
    for kind in residues_of(AMINO_ACIDS):
        columns = [NAMES.index(name) for name in kind.atoms if name != "OXT"]
        volume = tables.volume[AMINO_ACIDS.index(kind.name), columns].sum()
        assert volume == pytest.approx(buried.get(kind.name, volume), rel=0.1), kind.name


def test_entries_know_their_chemistry_and_parts_keep_it(tmp_path):
    entry, names = tiny_entry(pack_tiny(tmp_path))
    atoms = entry.atoms
    lysine = AMINO_ACIDS.index("LYS")
    kinds = np.append(entry.residue_type, 99)[atoms.residue]
    ammonium = (entry.atom_name == names.index("NZ")) & (kinds == lysine)
    assert ammonium.any()
    assert (atoms.hydrogens[ammonium] == 3).all()
    assert (atoms.depth[ammonium] == 7).all()
    part = atoms.only(ammonium)
    assert len(part) == ammonium.sum()
    np.testing.assert_array_equal(part.residue, atoms.residue[ammonium])
    moved = part.at(part.positions + 1)
    np.testing.assert_allclose(moved.positions - part.positions, 1, atol=1e-4)
    np.testing.assert_array_equal(moved.hydrogens, part.hydrogens)
