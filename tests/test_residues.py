"""Residue tables: chemistry that must hold, and damage that must be refused."""

import copy
import json
from importlib.resources import files

import gemmi
import numpy as np
import pytest

from angelo import residues as rs

TABLE = rs.residue_table()


@pytest.fixture
def entries() -> dict:
    text = files("angelo").joinpath("residue_geometry.json").read_text(encoding="utf-8")
    return copy.deepcopy(json.loads(text)["residues"])


def test_order_and_codes():
    assert tuple(TABLE) == rs.RESIDUE_TYPES
    assert len(rs.AMINO_ACIDS) == 20
    assert len(rs.RESIDUE_TYPES) == 28
    assert rs.NAME_FROM_CODE["W"] == "TRP"
    assert rs.CODE_FROM_NAME["LYS"] == "K"


@pytest.mark.parametrize("name", rs.RESIDUE_TYPES)
def test_codes_and_kinds_agree_with_gemmi(name):
    known = gemmi.find_tabulated_residue(name)
    assert TABLE[name].code == known.one_letter_code
    kinds = {"protein": known.is_amino_acid(), "dna": known.is_nucleic_acid()}
    assert kinds.get(TABLE[name].kind, known.is_nucleic_acid())


def test_known_tables():
    assert TABLE["ILE"].atoms == ("N", "CA", "C", "O", "CB", "CG1", "CG2", "CD1")
    assert TABLE["LYS"].elements == ("N", "C", "C", "O", "C", "C", "C", "C", "N")
    assert TABLE["MET"].chi_atoms[2] == ("CB", "CG", "SD", "CE")
    assert max(len(TABLE[name].atoms) for name in rs.AMINO_ACIDS) == 14
    assert TABLE["ASP"].swaps == (("OD1", "OD2"),)
    assert TABLE["PHE"].swaps == (("CD1", "CD2"), ("CE1", "CE2"))
    assert TABLE["LEU"].swaps == ()


def test_number_of_chi_torsions():
    counts = [TABLE[name].n_chi for name in rs.AMINO_ACIDS]
    assert counts == [0, 4, 2, 2, 1, 3, 3, 0, 2, 2, 2, 4, 3, 2, 2, 1, 1, 2, 2, 1]


@pytest.mark.parametrize("name", rs.AMINO_ACIDS)
def test_amino_acids_begin_with_the_backbone_and_are_l(name):
    residue = TABLE[name]
    assert residue.atoms[:4] == ("N", "CA", "C", "O")
    if name != "GLY":  # looking from H to CA, CO-R-N runs clockwise: CB lies at negative z
        assert residue.atom_local[residue.index("CB"), 2] < -1
    n, ca, c = residue.atom_local[:3]
    np.testing.assert_array_equal(ca, 0)
    assert np.linalg.norm(n) == pytest.approx(1.46, abs=0.02)
    assert np.linalg.norm(c) == pytest.approx(1.525, abs=0.02)


@pytest.mark.parametrize("name", rs.RESIDUE_TYPES)
def test_group_axes_are_rotations_and_parents_come_first(name):
    for number, group in enumerate(TABLE[name].groups):
        assert -1 <= group.parent < number
        np.testing.assert_allclose(group.rotation.T @ group.rotation, np.eye(3), atol=1e-12)
        assert np.linalg.det(group.rotation) == pytest.approx(1)


@pytest.mark.parametrize("name", rs.AMINO_ACIDS)
def test_fourth_atom_is_cis_at_torsion_zero_and_o_is_trans(name):
    for group in TABLE[name].groups:
        expected = np.pi if group.name == "psi" else 0
        assert np.cos(group.phase_rad - expected) == pytest.approx(1, abs=1e-5)


def test_pi_periodic_torsions():
    periodic = rs.pi_periodic_torsions(rs.AMINO_ACIDS)
    found = {(rs.AMINO_ACIDS[t], s - rs.CHI1 + 1) for t, s in np.argwhere(periodic)}
    assert found == {("ASP", 2), ("GLU", 3), ("PHE", 2), ("TYR", 2)}


def test_unknown_residue_is_named():
    with pytest.raises(ValueError, match="HOH"):
        rs.residues_of(["ALA", "HOH"])


def damage(entry: dict, how: str) -> None:
    if how == "listed twice":
        entry["atoms"].append(entry["atoms"][0])
    elif how == "not within":
        entry["atoms"][3][2][1] = 99.0
    elif how == "not defined":
        entry["atoms"][3][1] = "chi9"
    elif how == "out of order":
        entry["groups"].reverse()
    elif how == "collinear":
        entry["atoms"][0][2] = [-1.4, 0.0, 0.0]


@pytest.mark.parametrize(
    "how", ["listed twice", "not within", "not defined", "out of order", "collinear"]
)
def test_damaged_tables_are_refused(entries, how):
    damage(entries["ARG"], how)
    with pytest.raises(ValueError, match=f"ARG.*{how}"):
        rs.residue_from_entry("ARG", entries["ARG"])
