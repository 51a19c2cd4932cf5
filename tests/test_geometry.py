"""The geometry step: what it mends, what it leaves, and where it stops."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_peptides import HELIX, STRAND, joined, make_peptide, moved, sure

from angelo import geometry
from angelo.atoms import measure_torsions
from angelo.coordinates import CA, C, N
from angelo.geometry import (
    calpha_shift,
    expected_errors,
    find_joints,
    is_poor_side_chain,
    regularise,
)
from angelo.geometry_models import protein_from_model
from angelo.residues import CHI1
from angelo.types import Model
from angelo.validate import validate

LETTERS = "MKTAYIAKQRGPEHWDSNFVLC"


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    """Peptides of a few residues come to rest sooner than models."""
    monkeypatch.setattr(geometry, "STEPS", 80)


def distorted(protein, seed=0, scale=0.2):
    """Every residue moved as a body, as the networks would."""
    shift = np.random.default_rng(seed).normal(scale=scale, size=(len(protein), 3))
    return moved(protein, shift)


def rms(one, other):
    """Over N, CA and C, Å."""
    return calpha_shift(*(which.positions[:, :3].reshape(-1, 3) for which in (one, other)))


@pytest.mark.parametrize("phi_psi", [HELIX, STRAND])
def test_what_is_ideal_stays(phi_psi):
    ideal = make_peptide("SAGKVAELDA", phi_psi)
    assert rms(regularise(ideal, sure(ideal)), ideal) < 0.1
    once = regularise(ideal, sure(ideal))
    assert rms(regularise(once, sure(once)), once) < 0.02


@pytest.mark.parametrize(("phi_psi", "seed"), [(HELIX, 0), (STRAND, 1)])
def test_what_is_distorted_recovers(phi_psi, seed):
    ideal = make_peptide("MKTAYIAKQRGEHWDSNFVLC", phi_psi)
    before = distorted(ideal, seed)
    assert validate(before).bond_rmsd > 0.05 and validate(before).angle_rmsd > 3
    after = regularise(before, sure(before))
    check = validate(after)
    assert check.bond_rmsd < 0.01 and check.angle_rmsd < 1
    assert check.clashscore == 0 and check.ramachandran_outliers == 0
    assert not {"bond", "angle", "chirality", "peptide"} & {p.what for p in check.problems}
    # Worst seen over 40 seeds: 0.80 of the distance before; the mean is 0.68.
    assert rms(after, ideal) < 0.85 * rms(before, ideal)


def test_side_chains_become_staggered():
    # 25 degrees from eclipsed; doubtful enough that the tethers let side chains turn.
    eclipsed = make_peptide("SKEVMTQI", STRAND, chi1=-25.0)
    after = regularise(eclipsed, sure(eclipsed, 50))
    torsions, is_measured = measure_torsions(
        after.positions, after.has_atom, after.residue_type, after.follows_previous
    )
    chi1 = np.rad2deg(np.arctan2(torsions[:, CHI1, 0], torsions[:, CHI1, 1]))
    assert is_measured[:, CHI1].all()
    assert np.abs(chi1 + 60).max() < 20  # 35 before; tethers leave up to 15.5


def test_poor_side_chains_are_held_less(monkeypatch):
    eclipsed = make_peptide("SKEVMTQI", STRAND, chi1=-5.0)
    is_poor = is_poor_side_chain(eclipsed)
    assert is_poor.sum() == eclipsed.has_atom[:, 5:].sum()  # all beyond C-beta
    assert not is_poor_side_chain(make_peptide("SKEVMTQI", STRAND)).any()
    let_go = validate(regularise(eclipsed, sure(eclipsed)))
    monkeypatch.setattr(geometry, "LOOSER_SIDE_CHAIN", 1.0)
    held = validate(regularise(eclipsed, sure(eclipsed)))
    assert let_go.rotamer_outliers < held.rotamer_outliers


def test_errors_are_those_of_the_table():
    pair = make_peptide("GS")
    errors = expected_errors(pair, np.array([100, 0], np.float32))
    np.testing.assert_allclose(errors[:4], [0.20, 0.18, 0.17, 0.31])
    np.testing.assert_allclose(errors[4:], [0.90, 0.35, 0.80, 1.30, 1.00, 1.40])
    between = expected_errors(pair, np.array([50, 50], np.float32))
    np.testing.assert_allclose(between[0], 0.55)


def test_same_input_same_output(monkeypatch):
    monkeypatch.setattr(geometry, "STEPS", 20)
    before = distorted(make_peptide(LETTERS))
    one, other = (regularise(before, sure(before)).positions for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_result_moves_with_the_model():
    before = distorted(make_peptide("GAVLK"))
    far = moved(before, [128.0, -64.0, 32.0])
    there, here = regularise(far, sure(far)), regularise(before, sure(before))
    # float32 resolves 8e-6 Å at 128 Å; where the minimiser stops turns that into more.
    np.testing.assert_allclose(
        moved(there, [-128.0, 64.0, -32.0]).positions, here.positions, atol=1e-2
    )


def test_doubtful_residues_give_way():
    # One residue far off: it comes back, if it is the doubtful one.
    ideal = make_peptide("AAAAAAAAA", STRAND)
    shift = np.zeros((9, 3))
    shift[4] = 0, 0, 1.0
    confidence = sure(ideal)
    confidence[4] = 0
    doubtful = regularise(moved(ideal, shift), confidence)
    certain = regularise(moved(ideal, shift), sure(ideal))
    assert rms(doubtful, ideal) < 0.7 * rms(certain, ideal)


def test_breaks_stay_breaks():
    halves = make_peptide("AGAVKLAA", STRAND)
    away = halves.positions[3, C] - halves.positions[3, CA]
    shift = np.zeros((8, 3))
    shift[4:] = 4 * away / np.linalg.norm(away)
    broken = moved(halves, shift)
    gap = np.linalg.norm(broken.positions[4, N] - broken.positions[3, C])
    after = regularise(broken, sure(broken))
    assert np.linalg.norm(after.positions[4, N] - after.positions[3, C]) > gap - 0.3
    assert (
        find_joints(broken, sure(broken)).is_linked.tolist()
        == [False, *[True] * 3, False] + [True] * 3
    )
    assert calpha_shift(broken.calphas, after.calphas) < 0.15


def test_long_links_of_near_calphas_are_closed():
    # The plane is turned away, so C and N are far apart, but the C-alphas are neighbours.
    strand = make_peptide("AAAAAA", STRAND)
    positions = strand.positions.copy()
    positions[3] = 2 * positions[3, CA] - positions[3]
    turned = replace(
        strand, positions=np.where(strand.has_atom[..., None], positions, 0).astype(np.float32)
    )
    confidence = sure(turned)
    confidence[3] = 0
    assert validate(turned).n_bond_outliers or not turned.follows_previous.all()
    after = regularise(turned, confidence)
    assert after.follows_previous[1:].all()
    assert validate(after).n_bond_outliers == 0


def test_numbers_that_jump_are_no_bond_unless_built_so():
    strand = make_peptide("AAAA", STRAND)
    jump = replace(strand, sequence_number=np.array([1, 2, 5, 6]))
    assert find_joints(jump, sure(jump)).is_linked.tolist() == [False, True, True, True]
    shift = np.zeros((4, 3))
    shift[2:] = 0.8 * (strand.positions[2, N] - strand.positions[1, C])
    apart = moved(jump, shift)
    assert find_joints(apart, sure(apart)).is_linked.tolist() == [False, True, False, True]
    whole = replace(apart, sequence_number=strand.sequence_number)
    assert find_joints(whole, sure(whole)).is_linked.tolist() == [False, True, True, True]


@pytest.mark.parametrize(("omega", "n_cis"), [(0.0, 1), (180.0, 0)])
def test_cis_proline_stays_what_it_is(omega, n_cis):
    omegas = np.full(9, 180.0)
    omegas[4] = omega
    before = distorted(make_peptide("AVSTPLKAA", STRAND, omegas), scale=0.1)
    check = validate(regularise(before, sure(before)))
    assert check.n_cis_prolines == n_cis
    assert check.n_twisted_peptides == 0 and check.n_bond_outliers == 0


def test_other_cis_bonds_stay_only_if_confident():
    omegas = np.full(7, 180.0)
    omegas[3] = 0.0
    built = make_peptide("AVSTLKA", STRAND, omegas)
    assert find_joints(built, sure(built)).is_cis.tolist() == [k == 3 for k in range(7)]
    assert validate(regularise(built, sure(built))).n_cis_others == 1
    assert not find_joints(built, sure(built, 60)).is_cis.any()
    assert validate(regularise(built, sure(built, 60))).n_cis_others == 0


def test_clashes_are_relieved():
    strand = make_peptide("VKLIFTW", STRAND)
    pair = joined(strand, moved(strand, [0.0, 2.0, 2.0]))
    assert validate(pair).clashscore > 50
    after = regularise(pair, sure(pair, 50))
    assert validate(after).clashscore < 5
    assert validate(after).bond_rmsd < 0.01


def test_hand_of_a_calpha_is_put_right():
    mirrored = make_peptide("AAAAAAA", STRAND)
    n, ca, c, cb = (mirrored.positions[3, slot] for slot in (0, 1, 2, 4))
    normal = np.cross(n - ca, c - ca)
    normal /= np.linalg.norm(normal)
    mirrored.positions[3, 4] = cb - 2 * normal * ((cb - ca) @ normal)
    assert validate(mirrored).n_chirality_errors == 1
    assert validate(regularise(mirrored, sure(mirrored))).n_chirality_errors == 0


def test_nothing_and_single_residues():
    nothing = protein_from_model(Model(()))
    assert len(regularise(nothing, sure(nothing))) == 0
    for letter in "GPW":
        alone = make_peptide(letter)
        assert rms(regularise(alone, sure(alone)), alone) < 0.1


def test_atoms_in_one_place_do_not_break_it():
    heap = make_peptide("AVL")
    heap.positions[heap.has_atom] = 0
    assert np.isfinite(regularise(heap, sure(heap)).positions).all()
