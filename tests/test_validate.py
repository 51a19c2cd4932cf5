"""Stereochemistry: known values, one fault at a time."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_peptides import HELIX, STRAND, joined, make_peptide, model_of, moved
from tiny_structures import pack_tiny

from angelo.coordinates import CA, C, N
from angelo.report.tables import problems_csv, summarise_geometry
from angelo.residues import AMINO_ACIDS, residue_table
from angelo.torsion_regions import (
    ALLOWED,
    FAVOURED,
    KINDS,
    NOT_JUDGED,
    OUTLIER,
    cells_of,
    ramachandran_kinds,
    torsion_regions,
)
from angelo.validate import PROBLEMS, validate
from angelo_training import torsion_regions as measuring
from angelo_training.structures import PackedStructures, StructuresError

COUNTS = [
    "n_bond_outliers",
    "n_angle_outliers",
    "n_chirality_errors",
    "n_cis_prolines",
    "n_cis_others",
    "n_twisted_peptides",
]


def pairs_of(*degrees):
    radians = np.deg2rad(np.array(degrees, float))
    return np.stack([np.sin(radians), np.cos(radians)], axis=-1).astype(np.float32)


def kinds(check, residue):
    """What is wrong with a residue."""
    return {problem.what for problem in check.problems if problem.residue == residue}


@pytest.mark.parametrize("phi_psi", [HELIX, STRAND])
def test_ideal_peptides_have_no_fault(phi_psi):
    # Without Asn, Phe, Tyr and Trp, whose chi2 of 180 degrees would bring them up against the
    # backbone. Beside a helix, branched side chains have chi1 at 180, in a strand at -60.
    letters = "MKTAIAKQRGEHLDSVLC"
    chi1 = [180.0 if letter in "VT" and phi_psi == HELIX else -60.0 for letter in letters]
    check = validate(make_peptide(letters, phi_psi, chi1=np.array(chi1)))
    assert check.problems == ()
    assert check.bond_rmsd < 0.01 and check.angle_rmsd < 0.5
    assert check.bond_rmsz < 0.3 and check.angle_rmsz < 0.3
    assert all(getattr(check, name) == 0 for name in COUNTS)
    assert check.ramachandran_favoured == 100 and check.ramachandran_outliers == 0
    assert check.rotamer_outliers == 0 and check.clashscore == 0


def test_one_long_bond():
    peptide = make_peptide("AAAAA")
    peptide.positions[2, 3] += 0.2 * (peptide.positions[2, 3] - peptide.positions[2, 2]) / 1.23
    check = validate(peptide)
    assert check.n_bond_outliers == 1
    (problem,) = check.problems
    assert (problem.residue, problem.what, problem.atoms) == (2, "bond", "C O")
    assert problem.values == (pytest.approx(1.43, abs=0.01),)
    n_bonds = 5 * 4 + 4
    excess = check.bond_rmsd**2 - validate(make_peptide("AAAAA")).bond_rmsd ** 2
    assert excess == pytest.approx(0.2**2 / n_bonds, rel=0.05)


@pytest.mark.parametrize(
    ("letter", "omega", "field", "is_problem"),
    [
        ("P", 0.0, "n_cis_prolines", False),
        ("A", 0.0, "n_cis_others", True),
        ("A", 140.0, "n_twisted_peptides", True),
        ("A", -150.0001, None, False),
    ],
)
def test_peptides(letter, omega, field, is_problem):
    omegas = np.array([180, 180, omega, 180, 180])
    check = validate(make_peptide(f"AA{letter}AA", STRAND, omegas))
    for name in COUNTS[3:]:
        assert getattr(check, name) == (name == field)
    assert ("peptide" in kinds(check, 2)) == is_problem
    if is_problem:
        (problem,) = (p for p in check.problems if p.what == "peptide")
        assert problem.atoms == "omega"
        assert np.cos(np.deg2rad(problem.values[0] - omega)) == pytest.approx(1, abs=1e-4)


def test_one_bent_angle():
    # O turned by 20 degrees about C within its plane: two angles are off, no bond.
    peptide = make_peptide("AAA", STRAND)
    ca, c, o = peptide.positions[1, [1, 2, 3]].astype(float)
    axis = np.cross(ca - c, o - c)
    axis /= np.linalg.norm(axis)
    turn, arm = np.deg2rad(20), o - c
    peptide.positions[1, 3] = c + arm * np.cos(turn) + np.cross(axis, arm) * np.sin(turn)
    check = validate(peptide)
    assert (check.n_bond_outliers, check.n_angle_outliers) == (0, 2)
    found = {p.atoms: p.values[0] for p in check.problems if p.what == "angle"}
    assert found == {
        "CA C O": pytest.approx(140, abs=1),
        "O C A/3/N": pytest.approx(103, abs=1),
    }
    assert check.angle_rmsz > 1 > check.bond_rmsz


def test_ramachandran_outlier_of_a_residue_but_not_of_glycine():
    torsions = np.tile(STRAND, (7, 1))
    torsions[3] = -175, -45  # no clash there, but no alanine either
    check = validate(make_peptide("AAAAAAA", torsions))
    (problem,) = check.problems
    assert (problem.residue, problem.what, problem.atoms) == (3, "ramachandran", "phi psi")
    np.testing.assert_allclose(problem.values, [-175, -45], atol=3)
    assert check.ramachandran_outliers == pytest.approx(100 / 5)
    torsions[3] = 85, -170
    assert validate(make_peptide("AAAAAAA", torsions)).ramachandran_outliers == 20
    assert validate(make_peptide("AAAGAAA", torsions)).ramachandran_outliers == 0


def test_rotamer_outlier():
    check = validate(make_peptide("AVA", STRAND, chi1=-120.0))  # eclipsed
    assert check.rotamer_outliers == 100
    (problem,) = (p for p in check.problems if p.what == "rotamer")
    assert (problem.residue, problem.atoms) == (1, "chi1")
    assert problem.values == (pytest.approx(-120, abs=0.1),)
    lysine = validate(make_peptide("AKA", STRAND, chi1=0.0))
    (problem,) = (p for p in lysine.problems if p.what == "rotamer")
    assert problem.atoms == "chi1 chi2"
    assert validate(make_peptide("AVA", STRAND, chi1=-60.0)).rotamer_outliers == 0


def test_centre_of_the_wrong_hand():
    peptide = make_peptide("AAA", STRAND)
    n, ca, c, cb = (peptide.positions[1, slot] for slot in (0, 1, 2, 4))
    normal = np.cross(n - ca, c - ca)
    normal /= np.linalg.norm(normal)
    peptide.positions[1, 4] = cb - 2 * normal * ((cb - ca) @ normal)
    (problem,) = (p for p in validate(peptide).problems if p.what == "chirality")
    assert (problem.residue, problem.atoms) == (1, "CA")
    assert abs(problem.values[0]) == pytest.approx(2.5, abs=0.1)


def test_problems_of_a_model_are_tabled():
    torsions = np.tile(STRAND, (7, 1))
    torsions[3] = -175, -45
    protein = make_peptide("AAAAAAA", torsions)
    model, checks = model_of(protein), {"built": validate(protein)}
    (row,) = csv.DictReader(io.StringIO(problems_csv({"built": model}, checks)))
    phi, psi = map(float, row.pop("value").split())
    assert (phi, psi) == (pytest.approx(-175, abs=3), pytest.approx(-45, abs=3))
    assert row == {
        "model": "built",
        "chain": "A",
        "number": "4",
        "type": "ALA",
        "problem": "ramachandran",
        "atoms": "phi psi",
        "unit": "degrees",
    }


def test_geometry_in_the_summary():
    protein = make_peptide("AAAAAAA", STRAND)
    built, check = model_of(protein), validate(protein)
    placed = model_of(moved(protein, [0.3, 0.0, 0.4]))
    (found,) = summarise_geometry({"raw": placed}, {"raw": built}, {"raw": check}).values()
    assert found["calpha_shift"] == pytest.approx(0.5, abs=1e-4)
    assert found["ramachandran_favoured"] == 100
    assert set(found) == {"calpha_shift", *check.as_dict()}
    assert json.loads(json.dumps(found)) == found


def test_clashes_for_each_thousand_atoms():
    pair = joined(make_peptide("G"), moved(make_peptide("G"), [0.0, 0.0, 40.0]))
    assert validate(pair).clashscore == 0
    # Oxygen of one, 2 Å from the nitrogen of the other; all other atoms farther.
    away = make_peptide("G").positions[0, 3] - make_peptide("G").positions[0, 2]
    target = make_peptide("G").positions[0, 3] + 2 * away / np.linalg.norm(away)
    other = make_peptide("G")
    near = joined(make_peptide("G"), moved(other, target - other.positions[0, 0]))
    check = validate(near)
    assert check.clashscore >= 1000 / 8
    assert {p.what for p in check.problems} == {"clash"} <= {*PROBLEMS}
    first = check.problems[0]
    assert first.residue == 0 and "B/1/" in first.atoms
    shortest = min(p.values[0] for p in check.problems)
    assert shortest == pytest.approx(2, abs=1e-3)


def test_nothing_to_measure():
    nothing = joined(*[replace(make_peptide("A"))])
    empty = replace(
        nothing,
        residue_type=nothing.residue_type[:0],
        positions=nothing.positions[:0],
        has_atom=nothing.has_atom[:0],
        chain=nothing.chain[:0],
        sequence_number=nothing.sequence_number[:0],
    )
    check = validate(empty)
    assert check.bond_rmsd is None and check.clashscore is None
    assert check.ramachandran_favoured is None and check.problems == ()
    only_ca = make_peptide("AAA")
    only_ca.has_atom[:] = False
    only_ca.has_atom[:, CA] = True
    assert validate(only_ca).bond_rmsd is None and validate(only_ca).clashscore == 0
    unknown = replace(make_peptide("AAAA"), residue_type=np.full(4, -1))
    assert validate(unknown).ramachandran_favoured is None
    assert validate(unknown).n_bond_outliers == 0


def test_breaks_are_no_bonds():
    peptide = make_peptide("AAAA", STRAND)
    shift = np.zeros((4, 3))
    shift[2:] = 3 * (peptide.positions[2, N] - peptide.positions[1, C])
    check = validate(moved(peptide, shift))
    assert check.n_bond_outliers == 0
    assert check.ramachandran_favoured is None  # every residue is at an end


def test_regions_cover_every_plane():
    regions = torsion_regions()
    assert tuple(regions.ramachandran) == KINDS
    with_chis = {name for name in AMINO_ACIDS if residue_table()[name].n_chi}
    assert {*regions.rotamers} == with_chis
    for plane in (*regions.ramachandran.values(), *regions.rotamers.values()):
        assert {*np.unique(plane)} == {OUTLIER, ALLOWED, FAVOURED}
        assert (plane == FAVOURED).mean() < 0.45


@pytest.mark.parametrize(
    ("kind", "phi", "psi", "region"),
    [
        ("general", -62, -42, FAVOURED),
        ("general", -120, 130, FAVOURED),
        ("general", 55, 45, FAVOURED),  # the left-handed helix
        ("general", 0, 0, OUTLIER),
        ("general", 90, -90, OUTLIER),
        ("glycine", 90, 0, FAVOURED),
        ("glycine", -90, 0, FAVOURED),
        ("glycine", 0, 90, OUTLIER),
        ("proline", -65, 145, FAVOURED),
        ("proline", -120, 130, OUTLIER),
        ("pre-proline", -70, 140, FAVOURED),
        ("general", -90, 0, FAVOURED),
        ("pre-proline", -90, 0, OUTLIER),
    ],
)
def test_known_places_of_the_ramachandran_plane(kind, phi, psi, region):
    plane = torsion_regions().ramachandran[kind]
    assert plane[cells_of(pairs_of([phi, psi]), plane.shape)] == region


def test_glycine_has_no_hand():
    plane = torsion_regions().ramachandran["glycine"]
    np.testing.assert_array_equal(plane, plane[::-1, ::-1])


def test_kinds_of_residues():
    types = np.array([AMINO_ACIDS.index(name) for name in ("ALA", "PRO", "PRO", "GLY", "ALA")])
    linked = np.array([False, True, True, True, True])
    found = [KINDS[kind] for kind in ramachandran_kinds(types, linked)]
    assert found == ["pre-proline", "proline", "proline", "glycine", "general"]
    linked[1] = False
    assert KINDS[ramachandran_kinds(types, linked)[0]] == "general"


def test_cells_go_round():
    rows, columns = cells_of(pairs_of([-180, -175], [180, 179.9], [0, -0.1]), (72, 36))
    assert rows.tolist() == [0, 0, 36] and columns.tolist() == [0, 35, 17]
    rows, columns = cells_of(pairs_of([-90], [89.9]), (4, 1))
    assert rows.tolist() == [1, 2] and columns.tolist() == [0, 0]


def test_contours_hold_their_share():
    rng = np.random.default_rng(0)
    torsions = pairs_of(*rng.normal([-60, -40], 15, (4000, 2)))
    plane = measuring.region_plane(torsions, (36, 36), 1.0, (0.98, 0.9995))
    at = plane[cells_of(torsions, plane.shape)]
    assert 0.98 <= (at == FAVOURED).mean() < 0.99
    assert (at == OUTLIER).mean() <= 0.0005
    assert plane[cells_of(pairs_of([120, 100]), plane.shape)] == OUTLIER
    assert NOT_JUDGED not in plane


def test_regions_are_measured_on_packed_structures(tmp_path):
    packed = PackedStructures(pack_tiny(tmp_path))
    sample = measuring.gather_sample(packed, {"pie1"}, "train")
    assert len(sample.residue_type) == 48
    assert measuring.backbone_torsions(sample, "general").shape[1:] == (2, 2)
    glycines = sample.backbone("glycine").sum()
    assert len(measuring.backbone_torsions(sample, "glycine")) == 2 * glycines
    rings = ((sample.residue_type == AMINO_ACIDS.index("PHE")) & sample.is_sharp[:, 1]).sum()
    assert len(measuring.side_chain_torsions(sample, "PHE")) == 2 * rings
    assert measuring.well_built(sample).all() or not measuring.well_built(sample).any()
    with pytest.raises(StructuresError, match="no train entry"):
        measuring.gather_sample(packed, set(), "train")
    index = tmp_path / "index.csv"
    index.write_text("pdb_id,method,resolution\na,X-RAY DIFFRACTION,1.5\nb,SOLUTION NMR,1.0\n")
    assert measuring._good_entries(index) == {"a"}
    index.write_text("pdb_id\na\n")
    with pytest.raises(StructuresError, match="method"):
        measuring._good_entries(index)
