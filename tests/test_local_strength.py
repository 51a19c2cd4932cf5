"""Maps evened out: weak parts come up, the whole stays what it is."""

from dataclasses import replace

import numpy as np
import pytest

from angelo.local_strength import LocalStrength, even_out
from angelo.spectrum import contrast

SETTINGS = LocalStrength(sigma=4.0, reference=0.6, power=0.5, least_gain=0.5, most_gain=3.0)
ONE = np.ones(3, np.float32)


def two_halves(weak: float) -> np.ndarray:
    """Noise in a box of 40 x 30 x 60 voxels, whose far half along x is ``weak`` as strong."""
    values = np.random.default_rng(0).normal(size=(40, 30, 60)).astype(np.float32)
    values[:, :, 30:] *= weak
    return values


def strengths(values: np.ndarray) -> tuple[float, float]:
    """Of the two halves, away from where they meet."""
    return float(values[:, :, :15].std()), float(values[:, :, 45:].std())


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_halves_differ_by_what_the_power_leaves(power):
    values = two_halves(0.4)
    evened = even_out(values, ONE, replace(SETTINGS, power=power))
    strong, weak = strengths(evened)
    assert weak / strong == pytest.approx(0.4 ** (1 - power), rel=0.03)
    assert contrast(evened) == pytest.approx(contrast(values), rel=1e-4)
    assert (np.sign(evened) == np.sign(values)).all()


def test_gain_stays_between_its_bounds():
    values = two_halves(0.01)
    settings = replace(SETTINGS, reference=0.3, least_gain=0.9, most_gain=1.35)
    strong, weak = strengths(even_out(values, ONE, settings))
    strong_before, weak_before = strengths(values)
    gain = weak / weak_before / (strong / strong_before)
    assert gain == pytest.approx(1.35 / 0.9, rel=1e-3)


def test_width_is_in_angstrom_along_each_axis():
    rng = np.random.default_rng(2)
    # A weak slab that is 10 Å thick, sampled by 10 and by 20 voxels.
    results = []
    for axis, x_size in ((1.0, 60), (0.5, 120)):
        values = rng.normal(size=(40, 40, x_size)).astype(np.float32)
        at = (np.arange(x_size) + 0.5) * axis
        values[:, :, (at > 25) & (at < 35)] *= 0.3
        evened = even_out(values, np.float32([axis, 1, 1]), SETTINGS)
        slab = (at > 29) & (at < 31)
        far = at < 10
        results.append(float(evened[:, :, slab].std() / evened[:, :, far].std()))
    assert results[0] == pytest.approx(results[1], rel=0.05)
    assert 0.3 < results[0] < 1


def test_an_empty_map_stays_empty():
    empty = np.zeros((8, 8, 8), np.float32)
    assert (even_out(empty, ONE, SETTINGS) == 0).all()


def test_a_mirror_image_is_evened_out_alike():
    values = two_halves(0.3)
    evened = even_out(values, ONE, SETTINGS)[:, :, ::-1]
    mirrored = even_out(np.ascontiguousarray(values[:, :, ::-1]), ONE, SETTINGS)
    np.testing.assert_allclose(mirrored, evened, rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 0.0},
        {"sigma": 1e9},
        {"sigma": np.nan},
        {"reference": 0.0},
        {"power": -0.1},
        {"power": 1.1},
        {"least_gain": 0.0},
        {"least_gain": 3.1},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=r"must be (in|positive)"):
        replace(SETTINGS, **change)
