"""Stereochemistry: known values, one fault at a time."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_peptides import STRAND, joined, make_peptide, moved
from tiny_structures import pack_tiny

from angelo.coordinates import CA, C, N
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


def test_one_long_bond():
    peptide = make_peptide("AAAAA")
    peptide.positions[2, 3] += 0.2 * (peptide.positions[2, 3] - peptide.positions[2, 2]) / 1.23
    check = validate(peptide)
    assert check.n_bond_outliers == 1
    assert check.names(2) == ("bond",) and not check.problems[[0, 1, 3, 4]].any()
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
    assert ("peptide" in check.names(2)) == is_problem


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
    assert check.problems[:, PROBLEMS.index("clash")].all()


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
    assert check.ramachandran_favoured is None and check.problems.shape == (0, len(PROBLEMS))
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
