"""Rigid frames: known values, invariants, refusals."""

import numpy as np
import pytest

from angelo import frames as fr
from angelo.types import BackboneFrames

# Worst seen over 1000 seeds: 5e-7; float32 has 1.2e-7 between 1 and its neighbour.
ATOL = 2e-6
# Positions lie within 100 Å, where neighbouring float32 numbers are 7.6e-6 Å apart.
ATOL_POSITION = 5e-5


def make_frames(n: int, seed: int) -> BackboneFrames:
    rng = np.random.default_rng(seed)
    ca = rng.uniform(-50, 50, (n, 3)).astype(np.float32)
    return BackboneFrames(rotation=fr.random_rotations(n, rng), ca=ca)


@pytest.fixture(params=range(5))
def backbone(request: pytest.FixtureRequest) -> np.ndarray:
    """(3 atoms, 50 residues, xyz): ideal N, CA, C in Å, each atom moved by 0.1 Å (s.d.)."""
    rng = np.random.default_rng(request.param)
    ideal = fr.IDEAL_BACKBONE[:, None]
    return (ideal + rng.normal(scale=0.1, size=(3, 50, 3))).astype(np.float32)


def test_axes_of_a_residue_in_the_xy_plane():
    n, ca, c = np.float32([[[0, 1, 0]], [[0, 0, 0]], [[1, 0, 0]]])
    np.testing.assert_array_equal(fr.rotation_from_backbone(n, ca, c)[0], np.eye(3))


def test_frames_are_proper_rotations(backbone):
    R = fr.rotation_from_backbone(*backbone)
    np.testing.assert_allclose(
        np.swapaxes(R, 1, 2) @ R, np.eye(3)[None].repeat(50, 0), atol=ATOL
    )
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=ATOL)


def test_frames_turn_with_the_molecule(backbone):
    Q = fr.random_rotations(1, np.random.default_rng(7))[0]
    turned = fr.rotation_from_backbone(*(backbone @ Q.T))
    np.testing.assert_allclose(turned, Q @ fr.rotation_from_backbone(*backbone), atol=ATOL)


def test_collinear_atoms_are_named(backbone):
    backbone[:, 7] = [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
    with pytest.raises(ValueError, match="collinear in residue 7"):
        fr.rotation_from_backbone(*backbone)


def test_nan_atoms_are_named(backbone):
    backbone[0, 3] = np.nan
    with pytest.raises(ValueError, match="collinear in residue 3"):
        fr.rotation_from_backbone(*backbone)


def test_ideal_backbone_has_the_stated_geometry():
    n, ca, c = fr.IDEAL_BACKBONE.astype(np.float64)
    assert np.linalg.norm(n - ca) == pytest.approx(1.459, abs=1e-6)
    assert np.linalg.norm(c - ca) == pytest.approx(1.525, abs=1e-6)
    cosine = (n - ca) @ (c - ca) / (1.459 * 1.525)
    assert np.rad2deg(np.arccos(cosine)) == pytest.approx(111.0, abs=1e-4)


def test_applying_a_quarter_turn_and_a_shift():
    frames = BackboneFrames(
        rotation=np.float32([[[0, -1, 0], [1, 0, 0], [0, 0, 1]]]), ca=np.float32([[1, 2, 3]])
    )
    points = np.float32([[[1, 0, 0], [0, 1, 0]]])
    np.testing.assert_array_equal(
        fr.apply_frames(frames, points), np.float32([[[1, 3, 3], [0, 2, 3]]])
    )


def test_inverse_undoes_a_frame():
    frames = make_frames(30, 0)
    unit = fr.compose_frames(frames, fr.invert_frames(frames))
    np.testing.assert_allclose(unit.rotation, np.eye(3)[None].repeat(30, 0), atol=ATOL)
    np.testing.assert_allclose(unit.ca, 0, atol=ATOL_POSITION)


def test_composition_is_application_in_turn():
    outer, inner = make_frames(10, 1), make_frames(10, 2)
    points = np.random.default_rng(3).normal(size=(10, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(
        fr.apply_frames(fr.compose_frames(outer, inner), points),
        fr.apply_frames(outer, fr.apply_frames(inner, points)),
        atol=ATOL_POSITION,
    )


def test_random_rotations_are_proper_repeatable_and_uniform():
    R = fr.random_rotations(4000, np.random.default_rng(4))
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=ATOL)
    np.testing.assert_array_equal(R, fr.random_rotations(4000, np.random.default_rng(4)))
    # Each entry has mean 0 and mean square 1/3; the bounds are five standard errors.
    assert abs(R.mean(0)).max() < 5 * np.sqrt(1 / 3 / 4000)
    assert abs((R**2).mean(0) - 1 / 3).max() < 5 * np.sqrt(4 / 45 / 4000)


def test_backbone_atoms_return_their_frames():
    frames = make_frames(40, 5)
    atoms = fr.backbone_atoms(frames)
    np.testing.assert_array_equal(atoms[:, 1], frames.ca)
    again = fr.rotation_from_backbone(*np.moveaxis(atoms, 1, 0))
    np.testing.assert_allclose(again, frames.rotation, atol=1e-5)


def test_no_shift_changes_nothing():
    frames = make_frames(20, 6)
    updated = fr.update_frames(frames, np.zeros((20, 3, 3), np.float32))
    np.testing.assert_allclose(updated.rotation, frames.rotation, atol=ATOL)
    np.testing.assert_array_equal(updated.ca, frames.ca)


def test_a_common_shift_moves_the_ca_along_the_residue_axes():
    frames = make_frames(20, 7)
    shifts = np.zeros((20, 3, 3), np.float32)
    shifts[..., 1] = 2  # all three atoms, 2 Å along e2
    updated = fr.update_frames(frames, shifts)
    np.testing.assert_allclose(updated.rotation, frames.rotation, atol=ATOL)
    np.testing.assert_allclose(
        updated.ca, frames.ca + 2 * frames.rotation[..., 1], atol=ATOL_POSITION
    )


def test_updated_frames_are_those_of_the_moved_atoms():
    frames = make_frames(50, 8)
    shifts = np.random.default_rng(9).normal(scale=0.3, size=(50, 3, 3)).astype(np.float32)
    moved = fr.apply_frames(frames, fr.IDEAL_BACKBONE + shifts)
    updated = fr.update_frames(frames, shifts)
    np.testing.assert_array_equal(updated.ca, moved[:, 1])
    expected = fr.rotation_from_backbone(*np.moveaxis(moved, 1, 0))
    np.testing.assert_allclose(updated.rotation, expected, atol=1e-4)


def test_a_collapsed_residue_keeps_its_axes():
    frames = make_frames(5, 10)
    shifts = np.zeros((5, 3, 3), np.float32)
    shifts[2] = 1 - fr.IDEAL_BACKBONE  # all three atoms at (1, 1, 1)
    updated = fr.update_frames(frames, shifts)
    np.testing.assert_array_equal(updated.rotation[2], frames.rotation[2])
    np.testing.assert_allclose(
        updated.ca[2], frames.ca[2] + frames.rotation[2].sum(-1), atol=ATOL_POSITION
    )


def test_many_updates_stay_orthonormal():
    frames, rng = make_frames(30, 11), np.random.default_rng(12)
    for _ in range(200):
        shifts = rng.normal(scale=0.2, size=(30, 3, 3)).astype(np.float32)
        frames = fr.update_frames(frames, shifts)
    gram = np.swapaxes(frames.rotation, 1, 2) @ frames.rotation
    np.testing.assert_allclose(gram, np.eye(3)[None].repeat(30, 0), atol=ATOL)


def test_shifts_that_are_not_finite_are_refused():
    shifts = np.zeros((5, 3, 3), np.float32)
    shifts[4, 0, 0] = np.nan
    with pytest.raises(ValueError, match="residue 4"):
        fr.update_frames(make_frames(5, 13), shifts)
