"""Atoms from torsions and back: recorded positions, round trips, refusals."""

import json
from pathlib import Path

import gemmi
import numpy as np
import pytest

from angelo import atoms as at
from angelo import residues as rs
from angelo.frames import random_rotations
from angelo.types import BackboneFrames

GOLDEN = Path(__file__).parent / "golden"
# Bar of the recorded arrays, Å. Worst seen: 3.8e-6, at 62 Å from the origin.
ATOL_GOLDEN = 1e-4
# Worst seen over 200 seeds: 3.1e-5 Å at 50 Å from the origin (float32: 3.8e-6).
ATOL_ROUND_TRIP = 1e-4
# Worst seen over the same seeds: 7.6e-6.
ATOL_SIN_COS = 5e-5


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads((GOLDEN / "atoms_from_torsions.json").read_text())


def golden_frames(golden: dict) -> BackboneFrames:
    affine = np.float32([entry["affine"] for entry in golden["residues"]])
    return BackboneFrames(rotation=affine[..., :3].copy(), ca=affine[..., 3].copy())


def make_residues(n: int, seed: int, n_types: int = 20):
    """Frames, unit torsion pairs and types of ``n`` residues."""
    rng = np.random.default_rng(seed)
    ca = rng.uniform(-50, 50, (n, 3)).astype(np.float32)
    frames = BackboneFrames(rotation=random_rotations(n, rng), ca=ca)
    angle = rng.uniform(-np.pi, np.pi, (n, rs.N_TORSIONS))
    pairs = np.stack([np.sin(angle), np.cos(angle)], -1).astype(np.float32)
    return frames, pairs, np.arange(n) % n_types


def test_recorded_atoms_of_all_types(golden):
    with np.load(GOLDEN / "net_torsions.npz") as recorded:
        torsions = recorded["net"]
    positions, has_atom = at.place_atoms(
        golden_frames(golden), torsions, np.arange(28), rs.RESIDUE_TYPES
    )
    for row, entry in enumerate(golden["residues"]):
        assert entry["name"] == rs.RESIDUE_TYPES[row]
        assert tuple(entry["atoms"]) == rs.residue_table()[entry["name"]].atoms
        assert has_atom[row].sum() == len(entry["atoms"])
        np.testing.assert_allclose(
            positions[row, has_atom[row]], entry["positions"], atol=ATOL_GOLDEN
        )
    assert not positions[~has_atom].any()


def test_recorded_choice_of_torsions():
    with np.load(GOLDEN / "net_torsions.npz") as recorded:
        selected = at.select_torsions(recorded["net"], np.arange(28), 28)
        np.testing.assert_allclose(selected, recorded["selected"], atol=1e-6)


def test_a_type_reads_its_own_columns():
    torsions = np.zeros((1, 3 + 5 * 20, 2), np.float32)
    torsions[..., 1] = 1
    torsions[0, 3 + 2 * 20 + 7] = [-4, 0]  # third own torsion of type 7
    selected = at.select_torsions(torsions, np.array([7]), 20)
    expected = np.float32([[0, 1]] * 8)
    expected[5] = [-1, 0]
    np.testing.assert_array_equal(selected[0], expected)
    assert not (at.select_torsions(torsions, np.array([8]), 20)[0] == expected).all()


def test_length_of_a_pair_does_not_matter():
    frames, pairs, types = make_residues(40, 0)
    one, _ = at.place_selected_atoms(frames, pairs, types)
    other, _ = at.place_selected_atoms(frames, 7 * pairs, types)
    np.testing.assert_allclose(one, other, atol=ATOL_ROUND_TRIP)


def test_a_pair_of_zeros_is_angle_zero():
    frames, pairs, types = make_residues(20, 1)
    pairs[:] = [0, 1]
    one, _ = at.place_selected_atoms(frames, pairs, types)
    other, _ = at.place_selected_atoms(frames, np.zeros_like(pairs), types)
    np.testing.assert_array_equal(one, other)


def test_atoms_move_with_their_frames():
    frames, pairs, types = make_residues(28, 2, 28)
    still = BackboneFrames(
        rotation=np.eye(3, dtype=np.float32)[None].repeat(28, 0),
        ca=np.zeros((28, 3), np.float32),
    )
    local, has_atom = at.place_selected_atoms(still, pairs, types, rs.RESIDUE_TYPES)
    moved, _ = at.place_selected_atoms(frames, pairs, types, rs.RESIDUE_TYPES)
    expected = np.einsum("rij,raj->rai", frames.rotation, local) + frames.ca[:, None]
    np.testing.assert_allclose(moved[has_atom], expected[has_atom], atol=ATOL_ROUND_TRIP)


@pytest.mark.parametrize("seed", range(5))
def test_torsions_measured_on_placed_atoms_place_the_same_atoms(seed):
    frames, pairs, types = make_residues(200, seed)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    alone = np.zeros(200, np.bool_)
    measured, is_measured = at.measure_torsions(positions, has_atom, types, alone)
    again, _ = at.place_selected_atoms(frames, measured, types)
    np.testing.assert_allclose(again, positions, atol=ATOL_ROUND_TRIP)
    np.testing.assert_allclose(measured[is_measured], pairs[is_measured], atol=ATOL_SIN_COS)
    table = rs.residue_table()
    n_measured = [1 + table[rs.AMINO_ACIDS[t]].n_chi for t in types]  # psi and the chis
    np.testing.assert_array_equal(is_measured.sum(1), n_measured)
    np.testing.assert_array_equal(measured[~is_measured], [[0, 1]] * (~is_measured).sum())


def test_nucleotides_make_the_round_trip_but_for_nu0():
    frames, pairs, types = make_residues(280, 9, 28)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types, rs.RESIDUE_TYPES)
    measured, is_measured = at.measure_torsions(
        positions, has_atom, types, np.zeros(280, np.bool_), rs.RESIDUE_TYPES
    )
    is_measured[:, 6] &= types < 20  # nu0 places O2' about a pseudo-bond
    np.testing.assert_allclose(measured[is_measured], pairs[is_measured], atol=ATOL_SIN_COS)
    assert is_measured[types >= 20].sum(1).tolist() == [7] * (types >= 20).sum()


def test_half_a_turn_of_a_pi_periodic_torsion_swaps_the_names():
    frames, pairs, types = make_residues(20, 3)
    flip = rs.pi_periodic_torsions(rs.AMINO_ACIDS)[types]
    one, _ = at.place_selected_atoms(frames, pairs, types)
    other, _ = at.place_selected_atoms(frames, np.where(flip[..., None], -pairs, pairs), types)
    for row in np.flatnonzero(flip.any(1)):
        residue = rs.residue_table()[rs.AMINO_ACIDS[row]]
        for first, second in residue.swaps:
            # The table's two sides differ by up to 0.015 Å (carboxylates more than rings).
            np.testing.assert_allclose(
                one[row, residue.index(first)], other[row, residue.index(second)], atol=0.03
            )


def test_dihedral_signs_agree_with_gemmi():
    frames, pairs, types = make_residues(60, 4)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    linked = np.ones(60, np.bool_)
    measured, is_measured = at.measure_torsions(positions, has_atom, types, linked)
    angle = np.arctan2(measured[..., 0], measured[..., 1])

    def gemmi_dihedral(*atoms):
        return gemmi.calculate_dihedral(*(gemmi.Position(*map(float, atom)) for atom in atoms))

    for row in range(1, 60):
        before, here = positions[row - 1], positions[row]
        omega = gemmi_dihedral(before[1], before[2], here[0], here[1])
        phi = gemmi_dihedral(before[2], here[0], here[1], here[2])
        psi = gemmi_dihedral(here[0], here[1], here[2], here[3]) + np.pi  # O is opposite
        np.testing.assert_allclose(
            np.cos(angle[row, :3] - [omega, phi, psi]), 1, atol=1e-6, err_msg=str(row)
        )
    assert is_measured[1:, :3].all()
    assert not is_measured[0, :2].any()


def test_missing_atoms_and_broken_chains_leave_torsions_unmeasured():
    frames, pairs, types = make_residues(20, 5)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    lys = rs.AMINO_ACIDS.index("LYS")
    has_atom[lys, 6] = False  # CD: chi2, chi3, chi4 need it
    has_atom[4, 2] = False  # C of residue 4: its phi and psi, omega and phi of residue 5
    linked = np.ones(20, np.bool_)
    linked[8] = False
    _, is_measured = at.measure_torsions(positions, has_atom, types, linked)
    assert is_measured[lys].tolist() == [True] * 4 + [False] * 4
    assert is_measured[4, :3].tolist() == [True, False, False]
    assert is_measured[5, :3].tolist() == [False, False, True]
    assert is_measured[8, :3].tolist() == [False, False, True]


def test_a_type_without_a_table_is_not_measured():
    frames, pairs, types = make_residues(3, 6)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    types = np.array([0, -1, 2])
    _, is_measured = at.measure_torsions(positions, has_atom, types, np.ones(3, np.bool_))
    assert not is_measured[1].any()
    assert not is_measured[2, :2].any()
    assert is_measured[2, 2]


def test_coinciding_atoms_leave_a_torsion_unmeasured():
    frames, pairs, types = make_residues(20, 7)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    positions[:, 3] = positions[:, 2]  # O on C
    alone = np.zeros(20, np.bool_)
    measured, is_measured = at.measure_torsions(positions, has_atom, types, alone)
    assert not is_measured[:, rs.PSI].any()
    assert np.isfinite(measured).all()


def test_no_residues_give_no_atoms():
    frames, pairs, types = make_residues(0, 8)
    positions, has_atom = at.place_selected_atoms(frames, pairs, types)
    assert positions.shape == (0, 14, 3)
    alone = np.zeros(0, np.bool_)
    measured, _ = at.measure_torsions(positions, has_atom, types, alone)
    assert measured.shape == (0, 8, 2)


def test_wrong_sizes_are_refused():
    torsions = np.ones((2, 103, 2), np.float32)
    with pytest.raises(ValueError, match="103 torsions, but 28 residue types have 143"):
        at.select_torsions(torsions, np.array([0, 1]), 28)
    with pytest.raises(ValueError, match="residue 1 has type 20"):
        at.select_torsions(torsions, np.array([0, 20]), 20)
