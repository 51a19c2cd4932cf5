"""Simulated density: gemmi's scattering, the stated FSC, noise, filters and masks."""

from dataclasses import fields, replace

import gemmi
import numpy as np
import pytest
import scipy.fft
from tiny_structures import clean_conditions, write_piece

from angelo.spectrum import spatial_frequencies
from angelo_training.conditions import (
    FLAWED_RATE,
    MOST_ANISOTROPY,
    MOST_UNMODELLED,
    TRAINING_NOISE,
    WEAK_RATE,
    WEAKNESS,
    draw_conditions,
    draw_training_conditions,
)
from angelo_training.scatterers import Group, Scatterers
from angelo_training.simulate import (
    SHELL_WIDTH,
    SOLVENT_SCATTERING,
    UNMODELLED_FROM,
    anisotropic_exponent,
    distance_to_atoms,
    exposure,
    fourier_shell_correlation,
    local_scattering,
    process,
    simulate_density,
    smooth_field,
    soft_mask,
    spread_atoms,
    structure_factors,
    unmodelled_density,
)

SIDE = 48
SHAPE = (SIDE, SIDE, SIDE)
#: |s| of the coefficients of a box of 1 Å voxels, 1/Å.
S = spatial_frequencies(SHAPE, np.ones(3, np.float32))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """30 residues in the middle of a periodic box."""
    path = tmp_path_factory.mktemp("piece") / "piece.cif.gz"
    write_piece(path, n=30)
    model = gemmi.read_structure(str(path))[0]
    middle = model.calculate_center_of_mass()
    for cra in model.all():
        cra.atom.pos += gemmi.Position(SIDE / 2, SIDE / 2, SIDE / 2) - middle
        cra.atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    return model


@pytest.fixture(scope="module")
def atoms(model):
    return bare_atoms(
        [cra.atom.pos.tolist() for cra in model.all()],
        [cra.atom.element.atomic_number for cra in model.all()],
    )


def bare_atoms(positions, elements, **changes):
    """Atoms of one residue with nothing special about them."""
    n = len(elements)
    plain = Scatterers(
        positions=np.array(positions, np.float32),
        elements=np.array(elements, np.uint8),
        b_factors=np.full(n, 40, np.float32),
        hydrogens=np.zeros(n, np.uint8),
        depth=np.zeros(n, np.uint8),
        volume=np.full(n, 14, np.float32),
        group=np.zeros(n, np.uint8),
        residue=np.zeros(n, np.int32),
    )
    return replace(plain, **changes)


def factors_of(atoms, b):
    every = np.ones(len(atoms))
    return structure_factors(atoms, b * every, every, SHAPE, 1.0)


def transform_by_gemmi(model, b):
    """Coefficients of gemmi's density on a fine grid, cut to the coarse box's."""
    for cra in model.all():
        cra.atom.b_iso = b
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min, calculator.rate = 1.5, 1.5
    calculator.grid.set_unit_cell(gemmi.UnitCell(SIDE, SIDE, SIDE, 90, 90, 90))
    calculator.put_model_density_on_grid(model)
    fine = np.array(calculator.grid, copy=True).transpose(2, 1, 0)
    n = fine.shape[0]
    assert n > 2 * SIDE - 1
    whole = scipy.fft.rfftn(fine) * (SIDE / n) ** 3
    keep = np.r_[0 : SIDE // 2, n - SIDE // 2 : n]
    return whole[np.ix_(keep, keep, np.arange(SIDE // 2 + 1))]


def correlation(first, second):
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


# 40 and 110 Å² are bins, where only the table of frequencies is coarse; the worst residuals
# seen are 0.3 %. Between bins a sum of two decays stands for one: 8 % at 2.2 Å.
@pytest.mark.parametrize(("b", "most"), [(40.0, 0.01), (110.0, 0.01), (75.0, 0.1)])
@pytest.mark.parametrize("resolution", [3.0, 2.2])
def test_density_is_that_of_gemmi(model, atoms, b, most, resolution):
    ours = factors_of(atoms, b)
    inside = S <= 1 / resolution
    theirs = np.where(inside, transform_by_gemmi(model, b), 0)
    ours = np.where(inside, ours, 0)
    assert np.linalg.norm(ours - theirs) < most * np.linalg.norm(theirs)
    density = scipy.fft.irfftn(ours, s=SHAPE), scipy.fft.irfftn(theirs, s=SHAPE)
    assert correlation(*density) > 0.995


def test_transform_at_zero_is_the_sum_of_scattering_factors(atoms):
    transform = factors_of(atoms, 0.0)
    expected = sum(gemmi.Element(int(z)).c4322.calculate_sf(0.0) for z in atoms.elements)
    assert transform[0, 0, 0].real == pytest.approx(expected, rel=1e-4)


def test_atoms_move_with_the_grid():
    at = np.array([[3.3, 4.6, 2.2], [7.9, 0.4, 5.0]])
    weights = np.array([1.0, 2.5])
    grid = spread_atoms(at, weights, (8, 9, 10))
    assert grid.sum() == pytest.approx(3.5, rel=1e-5)
    moved = spread_atoms(at + np.array([1, 2, 3]), weights, (8, 9, 10))
    np.testing.assert_allclose(moved, np.roll(grid, (3, 2, 1), (0, 1, 2)), atol=1e-6)


def test_a_point_on_a_voxel_has_the_splines_weights():
    grid = spread_atoms(np.array([[4.0, 4.0, 4.0]]), np.ones(1), (9, 9, 9))
    line = grid[4, 4] / grid[4, 4].sum()
    quintic = np.array([0, 1, 26, 66, 26, 1, 0]) / 120  # M_6 at the integers
    np.testing.assert_allclose(line[1:8], quintic, atol=1e-6)


def test_conditions_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    drawn = [draw_conditions(rng) for _ in range(400)]
    ranges = {
        "resolution": (2.3, 5.2),
        "fsc_width": (0.012, 0.03),
        "fsc_end": (0.98, 1.06),
        "noise": (0.6, 1.3),
        "b_overall": (-30, 120),
        "b_scale": (0.2, 1.2),
        "local_b": (0, 60),
        "side_b": (5, 30),
        "exposed_b": (0, 25),
        "carboxylate": (0.2, 0.9),
        "polar": (0.6, 1.0),
        "sulphur": (0.5, 1.0),
        "hydrogen": (0.3, 1.0),
        "solvent": (0.3, 1.3),
        "pixel": (0.7, 1.4),
        "magnification": (0.98, 1.02),
        "mask_edge": (0.5, 5),
        "anisotropic_noise": (0, 1),
    }
    for name, (low, high) in ranges.items():
        column = np.array([getattr(conditions, name) for conditions in drawn])
        assert low <= column.min() < low + 0.2 * (high - low), name
        assert high - 0.2 * (high - low) < column.max() <= high, name
    falls = np.array([conditions.anisotropic_b for conditions in drawn])
    assert 10 < np.median(falls) < 20
    assert 0.05 < (falls > 64).mean() < 0.2
    assert falls.max() == MOST_ANISOTROPY
    assert {conditions.mask for conditions in drawn} == {"none", "loose", "tight", "zone"}
    for conditions in drawn:
        low, high = {"none": (0, 0), "loose": (5, 12), "tight": (2.5, 4.5), "zone": (4, 4)}[
            conditions.mask
        ]
        assert low <= conditions.mask_radius <= high
        if conditions.low_pass:
            assert 0.8 <= conditions.low_pass / conditions.resolution <= 1.05


def test_maps_to_train_on_are_noisier_some_flawed_or_weak_but_else_alike():
    seeds = range(400)
    plain = [draw_conditions(np.random.default_rng(seed)) for seed in seeds]
    drawn = [draw_training_conditions(np.random.default_rng(seed)) for seed in seeds]
    shares = np.array([conditions.unmodelled for conditions in drawn])
    assert (shares > 0).mean() == pytest.approx(FLAWED_RATE, abs=0.08)
    assert 0.1 < np.median(shares[shares > 0]) < 0.2
    assert shares.max() == MOST_UNMODELLED
    weakness = np.array([conditions.weakness for conditions in drawn])
    assert (weakness > 0).mean() == pytest.approx(WEAK_RATE, abs=0.08)
    assert WEAKNESS[0] <= weakness[weakness > 0].min() < weakness.max() <= WEAKNESS[1]
    noise = np.array([conditions.noise for conditions in drawn])
    low, high = TRAINING_NOISE
    assert low <= noise.min() < 1.1 * low
    assert 0.9 * high < noise.max() <= high
    assert np.median(noise) == pytest.approx(np.sqrt(low * high), rel=0.1)
    assert [
        replace(conditions, unmodelled=0.0, weakness=0.0, noise=before.noise)
        for conditions, before in zip(drawn, plain, strict=True)
    ] == plain


def test_weak_parts_lose_density_where_b_factors_are_high_and_nowhere_else():
    n = 5
    group = np.array([0, 0, 0, 0, Group.SULPHUR], np.uint8)
    atoms = bare_atoms(np.arange(3 * n).reshape(n, 3) * 9.0, [6, 6, 6, 6, 16], group=group)
    field = np.array([-2.0, 0.0, 1.0, 2.0, 2.0])
    conditions = clean_conditions(weakness=0.5, local_b=20.0, sulphur=0.7)
    b, occupancy = local_scattering(atoms, field, conditions, np.random.default_rng(0))
    expected = [1, 1, np.exp(-0.5), np.exp(-1), 0.7 * np.exp(-1)]
    np.testing.assert_allclose(occupancy, expected, rtol=1e-6)
    assert (np.diff(b)[:3] > 0).all()


def test_given_conditions_are_kept_and_seeds_repeat():
    drawn = draw_conditions(np.random.default_rng(3), 2.9, mask="tight")
    assert (drawn.resolution, drawn.mask) == (2.9, "tight")
    again = draw_conditions(np.random.default_rng(3), 2.9, mask="tight")
    assert [getattr(drawn, f.name) for f in fields(drawn)] == [
        getattr(again, f.name) for f in fields(again)
    ]


@pytest.mark.parametrize("resolution", [2.2, 3.0, 4.1])
def test_fsc_passes_the_threshold_at_the_stated_resolution(resolution):
    conditions = clean_conditions(resolution=resolution, fsc_width=0.03)
    s = np.linspace(0, 0.6, 100)
    assert fourier_shell_correlation(np.array([1 / resolution]), conditions)[
        0
    ] == pytest.approx(0.143)
    assert (np.diff(fourier_shell_correlation(s, conditions)) < 0).all()


def some_signal(atoms):
    return factors_of(atoms, 40.0)


def test_nothing_happens_to_a_perfect_map(atoms):
    signal = some_signal(atoms)
    density = process(signal, SHAPE, 1.0, clean_conditions(), np.random.default_rng(0))
    expected = scipy.fft.irfftn(signal, s=SHAPE)
    np.testing.assert_allclose(density, expected, atol=1e-4 * np.abs(expected).max())


def test_noise_leaves_half_the_correlation_at_the_stated_resolution(atoms):
    # C_ref = sqrt(2 FSC / (1 + FSC)) = 0.5 where FSC = 0.143 (Rosenthal & Henderson 2003).
    # A wide fall, so that a shell is alike; weighting and filters do not touch correlations.
    resolution = 3.0
    conditions = clean_conditions(resolution=resolution, fsc_width=0.05, noise=1.0)
    signal = some_signal(atoms)
    density = process(signal, SHAPE, 1.0, conditions, np.random.default_rng(0))
    noisy = scipy.fft.rfftn(density)
    shell = np.abs(S - 1 / resolution) < SHELL_WIDTH
    product = (noisy[shell] * signal[shell].conj()).real.sum()
    size = np.linalg.norm(noisy[shell]) * np.linalg.norm(signal[shell])
    assert product / size == pytest.approx(0.5, abs=0.05)


def test_amplitudes_fall_along_random_directions_at_right_angles():
    both = anisotropic_exponent(SHAPE, 1.0, (40.0, 40.0), np.random.default_rng(0))
    shell = np.abs(S - 0.3) < 0.01
    whole = 40 * S[shell] ** 2 / 4  # across the third direction, all of it is lost
    assert (both[shell] <= whole * (1 + 1e-5)).all()
    assert (both[shell] / whole).max() > 0.98
    assert (both[shell] / whole).min() < 0.1  # along it, hardly anything
    assert (both[shell] / whole).mean() == pytest.approx(2 / 3, abs=0.03)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (1.0, 1.0)])
def test_regularised_reconstructions_damp_noise_as_well(atoms, share, expected):
    conditions = clean_conditions(resolution=3.0, fsc_width=0.05, noise=1.0)
    damped = replace(conditions, anisotropic_b=(80.0, 0.0), anisotropic_noise=share)

    def noise_of(chosen):
        seen = process(some_signal(atoms), SHAPE, 1.0, chosen, np.random.default_rng(0))
        clean = process(
            some_signal(atoms), SHAPE, 1.0, replace(chosen, noise=0.0), np.random.default_rng(0)
        )
        return scipy.fft.rfftn(seen - clean)

    shell = np.abs(S - 0.3) < 0.02
    lost = -np.log(np.abs(noise_of(damped)[shell]) / np.abs(noise_of(conditions)[shell]))
    # Of 80 (s·a)² / 4 the mean over a shell is a third of the most.
    assert lost.mean() == pytest.approx(expected * 80 * 0.3**2 / 12, abs=0.05)


def test_filters_and_pixels_leave_nothing_beyond_them(atoms):
    signal = some_signal(atoms)
    power = np.abs(signal) ** 2

    def left(where, **changes):
        density = process(
            signal, SHAPE, 1.0, clean_conditions(**changes), np.random.default_rng(0)
        )
        return (np.abs(scipy.fft.rfftn(density)) ** 2)[where].sum() / power[where].sum()

    assert left(S > 1 / 3, low_pass=4.0) < 1e-3
    assert left(S < 1 / 6, low_pass=4.0) > 0.99
    coarse = np.abs(np.fft.fftfreq(SIDE)) > 0.5 / 1.4
    assert left(np.broadcast_to(coarse[:, None, None], S.shape), pixel=1.4) < 1e-9
    assert left(S < 0.3, pixel=1.4) > 0.99
    assert left((S > 0.24) & (S < 0.26), b_overall=80.0) == pytest.approx(
        np.exp(-2 * 80 * 0.25**2 / 4), rel=0.05
    )


def test_smooth_fields_are_normalised_and_smooth():
    field = smooth_field((40, 48, 60), np.random.default_rng(0))
    assert field.shape == (40, 48, 60)
    assert field.mean() == pytest.approx(0, abs=1e-5)
    assert field.std() == pytest.approx(1, abs=1e-4)
    assert np.abs(np.diff(field, axis=2)).max() < 1


def test_masks_end_where_they_should():
    at = np.array([[10.0, 12.0, 14.0]])
    mask = soft_mask(at, (25, 25, 25), 1.0, 4.0, 2.0)
    z, y, x = np.indices(mask.shape)
    distance = np.sqrt((x - 10) ** 2 + (y - 12) ** 2 + (z - 14) ** 2)
    assert (mask[distance <= 4] == 1).all()
    assert (mask[distance >= 6] == 0).all()
    np.testing.assert_allclose(mask[distance == 5], 0.5, atol=1e-6)


def test_masks_close_around_the_chosen_atoms(atoms):
    positions = atoms.positions
    chosen = np.arange(len(positions)) < 20
    conditions = clean_conditions(mask="zone", mask_radius=4.0, mask_edge=0.5)
    rng = np.random.default_rng(0)
    density = simulate_density(atoms, SHAPE, 1.0, conditions, rng, chosen)
    at = np.rint(positions).astype(int)
    values = density[at[:, 2], at[:, 1], at[:, 0]]
    gap = np.linalg.norm(positions[:, None] - positions[None, chosen], axis=-1).min(1)
    assert (values[gap > 7] == 0).all()
    assert (gap > 7).sum() > 50
    assert (values[chosen] > 0).mean() > 0.9


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_unmodelled_density_is_as_strong_as_asked_between_atoms(atoms, share):
    signal = some_signal(atoms)
    index = np.rint(atoms.positions).astype(int)
    added = unmodelled_density(signal, index, SHAPE, 1.0, share, np.random.default_rng(0))
    values, explained = (scipy.fft.irfftn(t, s=SHAPE) for t in (added, signal))
    at = tuple(index.T[::-1])
    away = distance_to_atoms(index, SHAPE)
    far, near = values[away >= UNMODELLED_FROM], values[(away > 0) & (away < 2)]
    assert np.abs(values[at]).max() < 1e-6
    assert far.std() == pytest.approx(share * explained[at].std(), rel=0.1)
    assert 0.2 < near.std() / far.std() < 0.7
    assert abs(correlation(far, explained[away >= UNMODELLED_FROM])) < 0.3
    # It falls faster with the spatial frequency than the signal does.
    bands = [(S > low) & (S < low + 0.05) for low in (0.1, 0.15, 0.2)]
    ratio = [np.abs(added[band]).mean() / np.abs(signal[band]).mean() for band in bands]
    assert ratio[0] > 1.3 * ratio[1] > 1.3**2 * ratio[2]


def test_unmodelled_density_leaves_atoms_and_hides_what_is_between(atoms):
    flawed, clean = (
        simulate_density(atoms, SHAPE, 1.0, conditions, np.random.default_rng(1))
        for conditions in (clean_conditions(unmodelled=0.5), clean_conditions())
    )
    away = distance_to_atoms(atoms.positions, SHAPE)
    at, around = away == 0, (away > 2) & (away < 4)
    assert correlation(flawed[at], clean[at]) > 0.99
    assert correlation(flawed[around], clean[around]) < 0.7


def test_the_same_seed_gives_the_same_density(atoms):
    atoms = replace(atoms, b_factors=np.linspace(20, 90, len(atoms)).astype(np.float32))
    conditions = draw_conditions(np.random.default_rng(0), 3.0, mask="none")
    first, again, other = (
        simulate_density(atoms, SHAPE, 1.0, conditions, np.random.default_rng(seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert correlation(first, other) < 0.999


def test_hydrogens_add_their_scattering_around_the_atom():
    at = [[24.0, 24, 24]]
    bare, with_three = (
        factors_of(bare_atoms(at, [6], hydrogens=np.array([n], np.uint8)), 40.0) for n in (0, 3)
    )
    added = with_three - bare
    hydrogen = gemmi.Element("H").c4322.calculate_sf(0.0)
    assert added[0, 0, 0].real == pytest.approx(3 * hydrogen, rel=1e-4)
    # sin(x) / x of a bond of 1.09 Å falls to half at 0.28 1/Å, beside the atom's own fall.
    row = np.abs(added[0, 0]) / np.abs(added[0, 0, 0])
    own = [
        gemmi.Element("H").c4322.calculate_sf(s**2 / 4) * np.exp(-40 * s**2 / 4) / hydrogen
        for s in (0.125, 0.25)
    ]
    bond = np.sinc(2 * np.array([0.125, 0.25]) * 1.09)
    np.testing.assert_allclose(row[[6, 12]], own * bond, rtol=0.01)


def test_displaced_solvent_is_taken_away():
    at = [[24.0, 24, 24]]
    every = np.ones(1)
    for volume, element in ((36.7, 6), (9.2, 8)):
        atoms = bare_atoms(at, [element], volume=np.array([volume], np.float32))
        plain = structure_factors(atoms, 40 * every, every, SHAPE, 1.0)
        wet = structure_factors(atoms, 40 * every, every, SHAPE, 1.0, solvent=0.8)
        taken = (plain - wet)[0, 0].real
        assert taken[0] == pytest.approx(0.8 * SOLVENT_SCATTERING * volume, rel=1e-4)
        # A Gaussian of 20 Å³ and the atom's own B-factor.
        fall = np.exp(-np.pi * 0.125**2 * 20 ** (2 / 3) - 40 * 0.125**2 / 4)
        assert abs(taken[6] / taken[0]) == pytest.approx(fall, rel=0.01)
    # What solvent an atom displaces does not depend on how much of it is left.
    gone = structure_factors(atoms, 40 * every, 0 * every, SHAPE, 1.0, solvent=0.8)
    np.testing.assert_allclose(gone, wet - plain, atol=1e-4)


def test_hydrogens_may_keep_part_of_their_scattering():
    at = [[24.0, 24, 24]]
    atoms = bare_atoms(at, [6], hydrogens=np.array([3], np.uint8))
    none, half, full = (
        structure_factors(atoms, np.ones(1), np.ones(1), SHAPE, 1.0, hydrogen=kept)
        for kept in (0.0, 0.5, 1.0)
    )
    np.testing.assert_allclose(half, (none + full) / 2, atol=1e-4)
    assert np.abs(full - none).max() > 1


def test_atoms_with_few_neighbours_are_exposed():
    grid = np.stack(np.meshgrid(*[np.arange(0, 24, 3.0)] * 3, indexing="ij"), axis=-1)
    positions = grid.reshape(-1, 3).astype(np.float32)
    found = exposure(positions).reshape(8, 8, 8)
    assert found[0, 0, 0] == found.max() == 2
    assert found[3, 3, 3] == found.min()
    assert found[0, 3, 3] > found[2, 3, 3]
    np.testing.assert_array_equal(exposure(np.zeros((5, 3), np.float32)), 0)
    conditions = clean_conditions(exposed_b=10.0)
    atoms = bare_atoms(positions, np.full(len(positions), 6))
    b, _ = local_scattering(atoms, np.zeros(len(atoms)), conditions, np.random.default_rng(0))
    assert b.reshape(8, 8, 8)[0, 0, 0] == pytest.approx(10 * (2 - found.min()), abs=1)


def test_side_chains_fade_and_charged_or_damaged_atoms_weaken():
    kinds = ("NONE", "ACID_CARBON", "NITROGEN", "CARBOXYLATE", "SULPHUR", "HYDROXYL")
    atoms = bare_atoms(
        np.zeros((6, 3)),
        [6, 6, 7, 8, 16, 8],
        depth=np.array([0, 1, 3, 4, 3, 0], np.uint8),
        group=np.array([Group[kind] for kind in kinds], np.uint8),
        residue=np.array([0, 0, 0, 0, 0, 1], np.int32),
    )
    conditions = clean_conditions(side_b=10.0, carboxylate=0.2, sulphur=0.7, polar=0.8)
    nothing = np.zeros(6)
    b, occupancy = local_scattering(atoms, nothing, conditions, np.random.default_rng(0))
    assert b[0] == b[5] == 0
    np.testing.assert_allclose(b[1:5] / b[1], [1, 3, 4, 3], rtol=1e-6)
    assert b[1] > 4  # at least 0.4 of side_b
    np.testing.assert_allclose(occupancy[[0, 1, 4]], [1, 0.6, 0.7])
    assert 0.1 <= occupancy[3] <= 0.3
    assert 0.64 <= occupancy[2] <= 0.96
    assert 0.48 <= occupancy[5] <= 0.88
