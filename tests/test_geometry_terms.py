"""Energies: known values, gradients against finite differences, nothing singular."""

import numpy as np
import pytest
from tiny_peptides import make_peptide, moved, sure

from angelo import geometry
from angelo.geometry_terms import (
    Contacts,
    Distances,
    Energy,
    Tethers,
    Torsions,
    Volumes,
    torsions_with_slopes,
)
from angelo.geometry_topology import build_topology

#: Corners of a right-angled step: the torsion of the four is +90 degrees.
STEP = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 1]])
QUADS, PAIRS = np.array([[0, 1, 2, 3], [5, 4, 2, 0]]), np.array([[0, 1], [2, 5]])


def terms():
    half = np.array([0.5, 2.0])
    return {
        "distances": Distances(PAIRS, np.array([1.5, 1.2]), half),
        "volumes": Volumes(QUADS, np.array([2.5, 0.0]), half),
        "torsions": Torsions(QUADS, np.array([np.pi, 1.0]), half, np.array([1, 3])),
        "contacts": Contacts(PAIRS, np.array([9.0, 3.0]), sigma=0.3, yield_length=0.5),
    }


def differences(energy, positions, step=1e-5):
    """Central finite differences of an energy."""
    slopes = np.zeros_like(positions)
    for at in np.ndindex(positions.shape):
        shift = np.zeros_like(positions)
        shift[at] = step
        slopes[at] = energy(positions + shift)[0] - energy(positions - shift)[0]
    return slopes / (2 * step)


@pytest.mark.parametrize("name", terms())
@pytest.mark.parametrize("seed", range(3))
def test_slopes_are_those_of_the_energy(name, seed):
    positions = np.random.default_rng(seed).normal(size=(6, 3)) * 1.5
    energy = Energy(Tethers(positions + 0.1, np.full(6, 0.7)), [terms()[name]])
    _, slopes = energy(positions)
    # Worst seen over 200 seeds: 2e-7 of the largest slope.
    np.testing.assert_allclose(
        slopes, differences(energy, positions), atol=5e-6 * np.abs(slopes).max()
    )


def test_slopes_of_a_whole_peptide():
    protein = make_peptide("GPWDHV")
    rng = np.random.default_rng(0)
    protein = moved(protein, rng.normal(scale=0.3, size=protein.positions.shape))
    joints = geometry.find_joints(protein, sure(protein))
    topology = build_topology(protein, joints.is_linked, joints.is_cis)
    positions = protein.positions[protein.has_atom].astype(np.float64)
    tethers = Tethers(positions + 0.1, geometry.expected_errors(protein, sure(protein, 50)))
    contacts = geometry.contact_term(topology, positions)
    energy = Energy(tethers, [*geometry.bonded_terms(topology), contacts])
    _, slopes = energy(positions)
    np.testing.assert_allclose(
        slopes, differences(energy, positions), atol=1e-6 * np.abs(slopes).max()
    )


def test_torsion_has_the_sign_of_iupac():
    angle, _ = torsions_with_slopes(STEP[None])
    np.testing.assert_allclose(np.rad2deg(angle), [90], atol=1e-5)


@pytest.mark.parametrize("name", terms())
def test_no_force_is_infinite(name):
    """Atoms in line, or in one place: a minimiser must get away from there."""
    in_line = np.arange(6.0)[:, None] * [1.0, 0, 0]
    nearly = in_line + np.array([0, 1e-7, 0])
    for positions in (in_line, np.zeros((6, 3)), nearly):
        value, slopes = terms()[name].evaluate(positions[terms()[name].atoms])
        assert np.isfinite(value) and np.abs(slopes).max() < 1e4


def test_no_terms_leave_the_tethers():
    energy, slopes = Energy(Tethers(np.zeros((2, 3)), np.array([1.0, 2.0])), [])(
        np.ones((2, 3))
    )
    assert energy == 0.5 * (3 + 3 / 4)
    np.testing.assert_allclose(slopes, [[1] * 3, [0.25] * 3])


def test_energies_of_known_shapes():
    one = np.ones(1)
    cases = [  # term, atoms, half the squared deviation, in standard deviations
        (Distances(PAIRS[:1], 3 * one, 0.5 * one), STEP[None, :2], 0.5 * 4**2),
        (Volumes(QUADS[:1], 0 * one, 0.5 * one), STEP[None], 0.5 * 2**2),
        (Tethers(np.zeros((1, 3)), 2 * one), np.array([[3.0, 0, 4]]), 0.5 * 2.5**2),
    ]
    for term, corners, energy in cases:
        assert term.evaluate(corners)[0] == pytest.approx(energy, rel=1e-6)
    _, pull = cases[0][0].evaluate(STEP[None, :2])
    np.testing.assert_allclose(pull, [[[-8.0, 0, 0], [8, 0, 0]]], rtol=1e-6)


def test_energy_of_torsions():
    # The torsion of STEP is 90 degrees, and well defined: its squared areas are 1 Å⁴.
    weight = (1 / 1.3) ** 2

    def energy(ideal_degrees, period, sigma=0.1):
        ideal = np.deg2rad([ideal_degrees])
        term = Torsions(QUADS[:1], ideal, np.array([sigma]), np.array([period]))
        return term.evaluate(STEP[None])[0]

    assert energy(90, 1) == pytest.approx(0, abs=1e-9)
    assert energy(-90, 1) == pytest.approx(weight * 2 / 0.1**2, rel=1e-6)  # worst
    assert energy(-30, 3) == pytest.approx(0, abs=1e-9)  # 90 is one of three ideals
    near = 0.5 * np.deg2rad(3) ** 2 / 0.1**2  # harmonic near an ideal, whatever the period
    assert energy(87, 1) == pytest.approx(weight * near, rel=1e-3)
    assert energy(87, 3) == pytest.approx(weight * near, rel=3e-3)


def test_energy_of_contacts():
    term = Contacts(PAIRS[:1], np.array([3.0]), sigma=0.1, yield_length=0.5)

    def energy(distance):
        return term.evaluate(np.array([[[0.0, 0, 0], [0, 0, distance]]]))[0]

    assert energy(3.0) == energy(4.0) == 0
    assert energy(2.8) == pytest.approx(0.5 * 2**2)
    # Beyond the yield length the force stays what it was there.
    assert energy(1.0) - energy(1.5) == pytest.approx(0.5 * 0.5 / 0.1**2)
