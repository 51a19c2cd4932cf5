"""Windows: every voxel is predicted once averaged, at its place, whatever the map's size."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit, logit

from angelo.local_strength import LocalStrength, even_out
from angelo.solvent import BLOCK, block_deviations, find_solvent_blocks
from angelo.types import Density
from angelo.window_plan import WindowSettings, find_solvent_windows, fit_windows, plan_axis
from angelo.windows import local_deviation, predict_points, run_windows

#: (window, step, start, margin, stride): one voxel to an output, 2 and 3, overlaps.
GEOMETRIES = [
    (16, 1, 0.0, 2, 12),
    (16, 1, 0.0, 3, 4),
    (16, 2, 0.5, 2, 12),
    (16, 2, 0.0, 3, 4),
    (18, 2, 1.5, 3, 6),
    (16, 3, 1.0, 2, 9),
    (8, 1, 0.0, 0, 8),
]


STRENGTH = LocalStrength(4.0, 0.6, 0.5, 0.5, 3.0)


def settings_for(geometry, **changes) -> WindowSettings:
    window, step, start, margin, stride = geometry
    values = {
        "inputs": ("density",),
        "channels": ("calpha", "one", "two"),
        "window": window,
        "step": step,
        "start": start,
        "margin": margin,
        "stride": stride,
        "batch": 3,
    }
    return WindowSettings(**(values | changes))


def random_map(shape, seed=0) -> Density:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype(np.float32)
    return Density(values, np.float32([1.1, 0.9, 1.3]), np.float32([-20, 3, 400]))


class Pointwise:
    """A network without receptive field: outputs are functions of the nearest input voxel."""

    def __init__(self, settings: WindowSettings) -> None:
        self.settings = settings
        self.n_windows = 0
        self.batches = []

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        s = self.settings
        assert windows.shape[1:] == (len(s.inputs), *[s.window] * 3)
        assert windows.dtype == np.float32
        self.n_windows += len(windows)
        self.batches.append(len(windows))
        at = np.arange(int(np.floor(s.start)), s.window, s.step)
        x = windows[:, 0][:, at][:, :, at][:, :, :, at]
        return np.stack([2 * x - 1, x, x**2 - 3], axis=1)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("n", [1, 5, 11, 12, 13, 16, 29, 60, 61, 62, 63])
def test_plan_reaches_every_voxel_without_gaps(geometry, n):
    settings = settings_for(geometry)
    plan = plan_axis(n, settings)
    outputs = plan.output_0 + settings.step * np.arange(plan.n_outputs)
    distance = np.abs(np.arange(n)[:, None] - outputs).min(1)
    assert distance.max() <= settings.step / 2
    assert plan.n_outputs <= n // settings.step + 2
    predicted = {i for f in plan.first_outputs for i in range(f, f + settings.n_kept)}
    assert predicted >= set(range(plan.n_outputs))
    # The place of an output is the same in its window and in the map.
    in_window = settings.start + settings.step * settings.first_kept
    np.testing.assert_allclose(
        plan.corners + in_window, plan.output_0 + settings.step * plan.first_outputs
    )
    assert in_window >= settings.margin
    last = in_window + settings.step * (settings.n_kept - 1)
    assert last <= settings.window - 1 - settings.margin
    if len(plan.first_outputs) > 1:
        assert np.diff(plan.first_outputs).max() * settings.step <= settings.stride
        assert plan.first_outputs[0] == 0
        assert plan.first_outputs[-1] + settings.n_kept == plan.n_outputs


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("shape", [(5, 40, 17), (33, 12, 26), (16, 16, 16)])
def test_stitched_outputs_are_those_of_the_whole_map(geometry, shape):
    settings = settings_for(geometry)
    density = random_map(shape)
    found = run_windows(density, settings, Pointwise(settings), threshold=0.4)
    # The same, done voxel by voxel.
    expected = {}
    grids = [plan_axis(n, settings) for n in shape]
    axes = [g.output_0 + settings.step * np.arange(g.n_outputs) for g in grids]
    for z, y, x in itertools.product(*axes):
        index = tuple(int(np.floor(c)) for c in (z, y, x))
        inside = all(0 <= i < n for i, n in zip(index, shape, strict=True))
        value = density.values_zyx[index] if inside else np.float32(0)
        if (p := expit(2 * value - 1)) > 0.4:
            place = density.origin + density.voxel_size * np.float32([x, y, z])
            expected[tuple(np.round(place, 2))] = (p, value, value**2 - 3)
    assert len(found) == len(expected) > 0
    places = [tuple(place) for place in np.round(found.positions, 2)]
    np.testing.assert_allclose(
        np.column_stack([found.probability, found.channels]),
        [expected[place] for place in places],
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    assert found.names == ("one", "two")


@pytest.mark.parametrize("axis_zyx", range(3))
def test_overlaps_average_probabilities_and_weigh_channels(axis_zyx):
    settings = settings_for((8, 1, 0.0, 2, 2), channels=("one", "calpha"), batch=1)
    shape = [4, 4, 4]
    shape[axis_zyx] = 6
    density = random_map(tuple(shape))
    chances = iter([0.9, 0.3])

    def run(windows):
        p = next(chances)
        return np.stack([np.full_like(windows[:, 0], x) for x in (10 * p, logit(p))], axis=1)

    found = run_windows(density, settings, run, threshold=0.5)
    place = ((found.positions - density.origin) / density.voxel_size)[:, 2 - axis_zyx]
    plane = np.round(place).astype(int)
    assert len(found) == 4 * 4 * 4  # planes 4 and 5 are seen by the second window alone
    both = plane >= 2
    assert set(plane[both]) == {2, 3}
    np.testing.assert_allclose(found.probability, np.where(both, 0.6, 0.9), rtol=1e-5)
    mean = (9 * 0.9 + 3 * 0.3) / 1.2
    np.testing.assert_allclose(found.channels[:, 0], np.where(both, mean, 9), rtol=1e-5)


def test_batches_do_not_matter_and_progress_is_told():
    density = random_map((30, 20, 25))
    results, told = [], []
    for batch in (1, 4, 100):
        settings = settings_for(GEOMETRIES[1], batch=batch)
        network = Pointwise(settings)
        results.append(run_windows(density, settings, network, 0.5, lambda *n: told.append(n)))
        assert max(network.batches) <= batch
        assert told[-1] == (network.n_windows, network.n_windows)
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].positions, other.positions)
        np.testing.assert_array_equal(results[0].channels, other.channels)


def test_nothing_over_the_threshold_is_an_empty_result():
    settings = settings_for(GEOMETRIES[0])
    found = run_windows(random_map((20, 20, 20)), settings, Pointwise(settings), 0.99999)
    assert found.positions.shape == (0, 3)
    assert found.channels.shape == (0, 2)


def test_inputs_come_in_the_order_of_the_manifest():
    settings = settings_for((8, 1, 0.0, 0, 8), inputs=("local_deviation", "density"))
    density = random_map((8, 8, 8))
    seen = []
    run_windows(density, settings, lambda w: seen.append(w) or np.repeat(w[:, :1], 3, 1), 0.5)
    np.testing.assert_array_equal(seen[0][0, 1], density.values_zyx)
    np.testing.assert_array_equal(seen[0][0, 0], local_deviation(density.values_zyx))


def test_density_is_evened_out_with_the_settings_of_the_network():
    settings = settings_for(
        (8, 1, 0.0, 0, 8), inputs=("even_density",), local_strength=STRENGTH
    )
    density = random_map((8, 8, 8))
    seen = []
    run_windows(density, settings, lambda w: seen.append(w) or np.repeat(w, 3, 1), 0.5)
    evened = even_out(density.values_zyx, density.voxel_size, STRENGTH)
    np.testing.assert_array_equal(seen[0][0, 0], evened)
    assert not np.allclose(evened, density.values_zyx, atol=1e-3)


def test_local_deviation_is_the_weighted_deviation():
    values = np.random.default_rng(0).normal(2, 1, (30, 25, 24)).astype(np.float32)
    t = np.linspace(-1.5, 1.5, 21)
    w = np.exp(-(t**2))
    weights = w[:, None, None] * w[:, None] * w / w.sum() ** 3
    padded = np.pad(values, 10)
    expected = []
    for z, y, x in [(0, 0, 0), (29, 3, 23), (14, 12, 11), (15, 12, 11)]:
        around = padded[z : z + 21, y : y + 21, x : x + 21].astype(np.float64)
        mean = (weights * around).sum()
        expected.append(np.sqrt((weights * around**2).sum() - mean**2))
    deviation = local_deviation(values)
    assert deviation.max() == pytest.approx(1, abs=1e-5)
    got = deviation[[0, 29, 14, 15], [0, 3, 12, 12], [0, 23, 11, 11]]
    np.testing.assert_allclose(got / got[0], np.array(expected) / expected[0], rtol=1e-4)


def protein_like(shape, centres, noise, seed=0) -> np.ndarray:
    """Blobs of height 1 and 2 Å width in noise."""
    rng = np.random.default_rng(seed)
    values = noise * rng.normal(size=shape)
    for centre in centres:
        z, y, x = (np.exp(-((np.arange(n) - c) ** 2) / 8)
                   for n, c in zip(shape, centre, strict=True))  # fmt: skip
        values += z[:, None, None] * y[:, None] * x
    return values.astype(np.float32)


def scattered(low, high, n, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (n, 3))


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_solvent_windows_hold_no_protein(noise, seed):
    shape = (72, 80, 76)
    centres = scattered(4, 36, 60, seed)
    values = protein_like(shape, centres, noise, seed)
    settings = settings_for((16, 1, 0.0, 2, 12))
    plans = [plan_axis(n, settings) for n in shape]
    is_solvent = find_solvent_windows(values, plans, settings)
    for index in np.argwhere(is_solvent):
        low = np.array([p.first_outputs[i] for p, i in zip(plans, index, strict=True)])
        inside = ((centres >= low) & (centres <= low + settings.n_kept)).all(1)
        assert not inside.any()
    if noise < 0.1:  # else the blobs hardly stand out
        assert is_solvent.mean() > 0.3


def test_weak_protein_beside_strong_is_not_solvent():
    shape = (96, 64, 64)
    strong, weak = scattered(4, 28, 60), scattered((68, 4, 4), (92, 28, 28), 30)
    values = protein_like(shape, strong, 0.02)
    values += np.float32(0.2) * protein_like(shape, weak, 0)
    is_solvent = find_solvent_blocks(values)
    blocks = tuple((weak // BLOCK).astype(int).T)
    assert not is_solvent[blocks].any()
    assert is_solvent.mean() > 0.3


def test_protein_everywhere_leaves_no_solvent_window():
    shape = (48, 48, 48)
    values = protein_like(shape, scattered(0, 48, 250), 0.02)
    settings = settings_for((16, 1, 0.0, 2, 12))
    plans = [plan_axis(n, settings) for n in shape]
    assert not find_solvent_windows(values, plans, settings).any()


def test_a_bright_artefact_does_not_hide_the_protein():
    values = protein_like((64, 64, 64), scattered(4, 30, 60), 0.01)
    values[60:63, 60:63, 60:63] += 1000
    is_solvent = find_solvent_blocks(values)
    assert not is_solvent[1:3, 1:3, 1:3].any()


def test_solvent_is_not_run_and_costs_no_prediction():
    shape = (70, 70, 70)
    values = protein_like(shape, scattered(4, 30, 60), 0)
    density = Density(values, np.ones(3, np.float32), np.zeros(3, np.float32))
    settings = settings_for((16, 1, 0.0, 2, 12))
    network = Pointwise(settings)
    found = run_windows(density, settings, network, 0.4)
    assert network.n_windows < 0.6 * 6**3
    assert len(found) == (expit(2 * values - 1) > 0.4).sum()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_constant_maps_are_not_run(value):
    values = np.full((20, 20, 20), value, np.float32)
    density = Density(values, np.ones(3, np.float32), np.zeros(3, np.float32))
    settings = settings_for(GEOMETRIES[0])
    network = Pointwise(settings)
    assert len(run_windows(density, settings, network, 0.01)) == 0
    assert network.n_windows == 0


def test_block_deviation_is_the_standard_deviation():
    values = random_map((20, 17, 8)).values_zyx
    deviation = block_deviations(values)
    assert deviation.shape == (3, 3, 1)
    np.testing.assert_allclose(deviation[1, 1, 0], values[8:16, 8:16].std(), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ("ca",)}, "hold calpha"),
        ({"channels": ("calpha", "x", "x")}, "unique"),
        ({"inputs": ("density", "phase")}, "unknown inputs"),
        ({"inputs": ("even_density",)}, "local_strength must come"),
        ({"local_strength": STRENGTH}, "local_strength must come"),
        ({"stride": 14}, "leave no gap"),
        ({"step": 2, "stride": 5}, "multiple of step"),
        ({"batch": 0}, "must be positive"),
        ({"margin": 9}, "leave no gap"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings_for((16, 1, 0.0, 2, 12), **changes)


def test_points_of_several_kinds_come_from_one_pass():
    """Each as if its channel were the only one of points."""
    rng = np.random.default_rng(4)
    density = Density(
        rng.normal(size=(20, 22, 24)).astype(np.float32), np.ones(3, "f4"), np.zeros(3, "f4")
    )
    settings = WindowSettings(
        inputs=("density",),
        channels=("calpha", "phosphorus", "backbone"),
        window=12,
        step=1,
        start=0.0,
        margin=2,
        stride=6,
        batch=2,
    )
    calls = []

    def network(windows):
        calls.append(len(windows))
        return np.concatenate([windows, -windows, 2 * windows], axis=1)

    wanted = np.ones([len(plan_axis(n, settings).corners) for n in (20, 22, 24)], bool)
    both = predict_points(
        ("calpha", "phosphorus"), density, settings, network, 0.6, wanted=wanted
    )
    n_windows = sum(calls)
    alone = run_windows(density, settings, network, 0.6, wanted=wanted)
    assert sum(calls) == 2 * n_windows
    for name in ("positions", "probability", "channels"):
        np.testing.assert_array_equal(getattr(both[0], name), getattr(alone, name))
    assert both[0].names == ("phosphorus", "backbone")
    assert both[1].names == ("calpha", "backbone")
    assert len(both[0]) and len(both[1])
    at = np.round(both[1].positions).astype(int)
    logits = -density.values_zyx[at[:, 2], at[:, 1], at[:, 0]]
    np.testing.assert_allclose(both[1].probability, 1 / (1 + np.exp(-logits)), rtol=1e-5)


def blob(shape, corner, side=30):
    """Noise in a cube of an otherwise empty map."""
    density = random_map(shape)
    inside = tuple(slice(c, c + side) for c in corner)
    values = np.zeros_like(density.values_zyx)
    values[inside] = density.values_zyx[inside]
    return Density(values, density.voxel_size, density.origin)


FITTED = settings_for((96, 2, 0.0, 4, 88), multiple=8, batch=1)


def test_solvent_is_cut_away_and_windows_fit_the_rest():
    density = blob((200, 120, 160), (90, 40, 100))
    part, settings, wanted = fit_windows(density, FITTED)
    assert max(part.values_zyx.shape) <= 30 + 4 * BLOCK
    assert settings.window == 72 and settings.stride == 64  # one window for 48 to 56 voxels
    assert wanted.tolist() == [[[True]]]
    network = Pointwise(settings)
    found = run_windows(part, settings, network, 0.4, wanted=wanted)
    whole = run_windows(density, replace(FITTED, multiple=None), Pointwise(FITTED), 0.4)
    assert network.n_windows == 1
    np.testing.assert_allclose(found.positions, whole.positions, atol=1e-3)
    np.testing.assert_allclose(found.probability, whole.probability, rtol=1e-5)


@pytest.mark.parametrize("shape", [(61, 100, 130), (300, 70, 50)])
def test_windows_that_fit_cost_no_more_than_the_largest(shape):
    density = random_map(shape)
    part, settings, wanted = fit_windows(density, FITTED)
    assert part.values_zyx.shape == shape
    assert settings.window % 8 == 0 and 48 <= settings.window <= 96
    plans = [plan_axis(n, FITTED) for n in shape]
    largest = (~find_solvent_windows(density.values_zyx, plans, FITTED)).sum() * 96**3
    assert wanted.sum() * settings.window**3 <= largest


@pytest.mark.parametrize("settings", [replace(FITTED, multiple=None), FITTED])
def test_windows_stay_where_nothing_can_be_fitted(settings):
    empty = Density(
        np.zeros((50, 50, 50), np.float32), np.ones(3, np.float32), np.zeros(3, np.float32)
    )
    density = empty if settings.multiple else random_map((100, 60, 60))
    part, fitted, wanted = fit_windows(density, settings)
    assert (part, fitted) == (density, settings)
    plans = [plan_axis(n, settings) for n in density.values_zyx.shape]
    np.testing.assert_array_equal(
        wanted, ~find_solvent_windows(density.values_zyx, plans, settings)
    )
    assert wanted.any() == (density is not empty)


def test_a_window_must_be_of_its_multiple():
    with pytest.raises(ValueError, match="window 96 is no multiple of 7"):
        replace(FITTED, multiple=7)
