"""What maps are like: figures that must rise or fall with what they are named after."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.fft
from tiny_bundle import write_tiny_bundle
from tiny_structures import pack_tiny

from angelo.bundle import load_bundle
from angelo.coordinates import read_structure
from angelo.spectrum import spatial_frequencies
from angelo.types import Density
from angelo.window_plan import WindowSettings, plan_axis
from angelo_training.conditions import draw_conditions
from angelo_training.simulate import distance_to_atoms, simulate_density
from angelo_training.structures import PackedStructures

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import error_by_quality
import realism
import simulated_maps
import solvent
from calpha_search import open_graph
from map_statistics import (
    amplitude_fall,
    anisotropy,
    clean_conditions,
    clean_map,
    empty_share,
    residue_correlations,
    statistics,
)

SHAPE = (48, 48, 48)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return PackedStructures(pack_tiny(tmp_path_factory.mktemp("structures")))


@pytest.fixture(scope="module")
def atoms(packed):
    """The atoms of the piece in the middle of a box of 48 Å that lie in it."""
    entry = packed[0]
    at = entry.positions - entry.positions.mean(axis=0) + np.float32(24)
    return entry.atoms.at(at).only(((at > 2) & (at < 45)).all(axis=1))


def simulate(atoms, **changes):
    conditions = replace(clean_conditions(), **changes)
    return simulate_density(atoms, SHAPE, 1.0, conditions, np.random.default_rng(1))


@pytest.fixture(scope="module")
def clean(atoms):
    return simulate(atoms)


def blurred(values_zyx, b_factor, axis=None):
    """Amplitudes lowered by a B-factor, along one axis of frequencies or all."""
    s = spatial_frequencies(values_zyx.shape, np.ones(3, np.float32))
    if axis is not None:
        s = np.fft.fftfreq(values_zyx.shape[axis])
        s = s.reshape([-1 if i == axis else 1 for i in range(3)])
    spread = scipy.fft.rfftn(values_zyx) * np.exp(-b_factor * s**2 / 4)
    return scipy.fft.irfftn(spread, values_zyx.shape).astype(np.float32)


def test_blurring_shows_as_its_b_factor(clean):
    fall = amplitude_fall(clean)
    assert amplitude_fall(blurred(clean, 60)) - fall == pytest.approx(60, abs=1)
    assert amplitude_fall(blurred(clean, -60)) - fall == pytest.approx(-60, abs=1)


def test_power_lost_along_an_axis_shows_as_anisotropy():
    noise = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    assert np.allclose(list(anisotropy(noise).values()), 1, atol=0.12)
    less = anisotropy(blurred(noise, 100, axis=0))
    assert less["power from 4 to 3.45 Å, weakest direction"] < 0.6
    assert less["power from 4 to 3.45 Å, strongest direction"] > 1.1


def test_faultless_residues_correlate_and_noise_lowers_it(atoms, clean):
    figures = [
        np.nanmedian(residue_correlations(values, clean_map(atoms, SHAPE), atoms))
        for values in (clean, simulate(atoms, noise=1.0), simulate(atoms, noise=4.0))
    ]
    # Polar atoms differ by chance, and the clean map is normalised, which this one is not.
    assert figures[0] > 0.97
    assert figures[0] > figures[1] > figures[2]


def test_residues_without_atoms_have_no_correlation(atoms, clean):
    gone = atoms.only(atoms.residue != 3)
    found = residue_correlations(clean, clean_map(gone, SHAPE), gone)
    assert np.isnan(found[3])
    assert np.isfinite(found[4])


def test_masked_voxels_are_empty(atoms):
    away = distance_to_atoms(atoms.positions, SHAPE)
    tight = simulate(atoms, mask="tight", mask_radius=3.0, mask_edge=0.5)
    assert empty_share(tight, away) > 0.95
    assert empty_share(simulate(atoms, mask="none", noise=1.0), away) < 0.5
    assert np.isnan(empty_share(tight, np.zeros(SHAPE)))


def test_every_figure_of_a_whole_map_is_finite_and_tabulated(atoms, clean):
    density = Density(clean, np.ones(3, np.float32), np.zeros(3, np.float32))
    model = SimpleNamespace(in_box=lambda _: atoms)
    whole = realism.compare_whole(density, model, [clean, simulate(atoms, noise=1.0)])
    assert whole.keys() == statistics(clean, clean_map(atoms, SHAPE), atoms).keys()
    assert all(np.isfinite(list(f.values())).all() for f in whole.values())
    assert all(f["least"] <= f["simulated"] <= f["most"] for f in whole.values())
    table = realism.whole_table({"EMD-0": {"whole": whole}})
    assert all(f"| {name} |" in table for name in whole)


def test_bins_hold_residues_of_every_kind():
    residues = [
        {"group": "real", "correlation": 0.62, "found": True, "right": True},
        {"group": "real", "correlation": 0.68, "found": True, "right": False},
        {"group": "real", "correlation": 0.65, "found": False, "right": False},
        {"group": "simulated", "correlation": -0.4, "found": True, "right": True},
        {"group": "as in training", "correlation": 0.69, "found": True, "right": False},
    ]
    rows = {row["low"]: row for row in error_by_quality.rows_of_bins(residues)}
    assert rows[0.6]["real"] == {"residues": 3, "found": 66.7, "right": 50.0}
    assert rows[-1.0]["simulated"] == {"residues": 1, "found": 100.0, "right": 100.0}
    assert rows[0.6]["as in training"] == {"residues": 1, "found": 100.0, "right": 0.0}
    assert rows[0.6]["simulated"] == {"residues": 0, "found": None, "right": None}


def test_c_alphas_beside_the_windows_that_are_run_are_counted():
    settings = WindowSettings(
        inputs=("density",),
        channels=("calpha",),
        window=24,
        step=2,
        start=0.0,
        margin=4,
        stride=16,
        batch=1,
    )
    density = Density(np.zeros((16, 16, 32), np.float32), np.ones(3, "f4"), np.zeros(3, "f4"))
    shape = [len(plan_axis(n, settings).corners) for n in density.values_zyx.shape]
    wanted = np.zeros(shape, bool)
    wanted[:, :, 0] = True  # to x = 16 or so
    at = np.array([[3, 8, 8], [12, 8, 8], [20, 8, 8], [30, 8, 8]], np.float32)
    inside = solvent.covered(at, density, settings, wanted)
    np.testing.assert_array_equal(inside, [True, True, False, False])
    assert solvent.covered(at, density, settings, ~wanted)[2:].all()


def test_a_protein_in_a_large_box_is_covered_where_it_is(packed, tmp_path):
    write_tiny_bundle(tmp_path / "tiny")
    bundle = load_bundle(tmp_path / "tiny")
    graph = open_graph(bundle, "cpu", 1)
    row = solvent.judge_entry(packed[0], bundle, graph, "tight", 3.0)
    assert row["calphas"] == len(packed[0].backbone)
    assert row["not_covered"] == 0
    assert row["build"]["windows"] < row["everywhere"]["windows"]


@pytest.mark.parametrize(("noise", "low", "high"), [(1.0, 0.6, 1.0), (100.0, 0.2, 0.6)])
def test_residues_correlate_in_the_frame_of_the_map(packed, tmp_path, noise, low, high):
    def draw(*arguments, **given):
        return replace(draw_conditions(*arguments, **given), noise=noise)

    case = simulated_maps.write_case(packed, 0, 2.5, tmp_path, draw)
    reference = read_structure(case.reference)
    found = error_by_quality.correlations_of(case.map_path, case.reference, None, reference)
    assert np.isfinite(found).all()
    assert low < np.median(found) < high
