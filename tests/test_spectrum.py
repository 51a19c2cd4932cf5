"""Radial amplitudes: brought to the target, phases kept, gains within their limits."""

import numpy as np
import pytest

from angelo.spectrum import (
    Spectrum,
    contrast,
    match_spectrum,
    shell_amplitudes,
    shell_gains,
    spatial_frequencies,
)

VOXEL = np.float32([1.0, 1.2, 0.9])
SHAPE_ZYX = (40, 36, 38)
#: 0.02 / Å to 0.4 / Å, falling; shells 2 to 7 are the reference.
TARGET = Spectrum(0.02, np.exp(-np.arange(20) / 6).astype(np.float32), (2, 8), 8.0)


def noise(seed=0, shape=SHAPE_ZYX) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def profile(values) -> np.ndarray:
    """Measured amplitudes in the shells of TARGET."""
    frequency = spatial_frequencies(values.shape, VOXEL)
    shells = (frequency / TARGET.shell_width).astype(np.int64)
    return shell_amplitudes(np.fft.rfftn(values), shells, len(TARGET.amplitudes))


def test_frequencies_of_plane_waves():
    frequency = spatial_frequencies(SHAPE_ZYX, VOXEL)
    assert frequency.shape == (40, 36, 20)
    assert frequency[0, 0, 0] == 0
    assert frequency[0, 0, 1] == pytest.approx(1 / (38 * 1.0))
    assert frequency[0, 1, 0] == pytest.approx(1 / (36 * 1.2))
    assert frequency[1, 0, 0] == pytest.approx(1 / (40 * 0.9))
    assert frequency[-1, 0, 0] == frequency[1, 0, 0]
    expected = np.sqrt((3 / 38) ** 2 + (2 / 43.2) ** 2 + (5 / 36) ** 2)
    assert frequency[5, 2, 3] == pytest.approx(expected)


def test_shell_amplitudes_are_root_mean_squares():
    transform = np.array([3 + 4j, 1, 1j, 7, 100])
    shells = np.array([0, 1, 1, 1, 4])
    np.testing.assert_allclose(
        shell_amplitudes(transform, shells, 3), [5, np.sqrt((1 + 1 + 49) / 3), 0], rtol=1e-6
    )


def test_gains_bring_the_profile_to_the_target():
    measured = np.linspace(2, 1, 20, dtype=np.float32)
    gains = shell_gains(measured, TARGET)
    result = gains * measured
    assert (gains <= TARGET.max_gain).all()
    # Inside the reference shells nothing is clipped here: proportional to the target.
    ratio = result[2:] / TARGET.amplitudes[2:]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert result[2:8].mean() == pytest.approx(measured[2:8].mean(), rel=1e-5)
    np.testing.assert_allclose(shell_gains(measured * 1000, TARGET), gains, rtol=1e-5)


def test_gains_are_limited():
    measured = np.ones(20, np.float32)
    measured[0] = 1e-3  # would need a large gain below the reference shells
    measured[10] = 0
    measured[11] = 1e-3
    gains = shell_gains(measured, TARGET)
    assert gains[0] == 1
    assert gains[10] == gains[11] == TARGET.max_gain


def test_matched_map_has_the_target_profile():
    matched = match_spectrum(noise(), VOXEL, TARGET)
    assert matched.dtype == np.float32
    measured = profile(matched)[3:19]  # below and beyond, gains are limited or fade out
    ratio = measured / TARGET.amplitudes[3:19]
    # Gains are linear between shell centres, and shells hold few terms: worst 2.5 %.
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.05)
    unmatched = profile(noise())[3:19] / TARGET.amplitudes[3:19]
    assert unmatched.max() / unmatched.min() > 5


def test_nothing_is_left_beyond_the_profile():
    matched = match_spectrum(noise(), VOXEL, TARGET)
    transform = np.abs(np.fft.rfftn(matched))
    frequency = spatial_frequencies(SHAPE_ZYX, VOXEL)
    assert transform[frequency > 0.4].max() < 1e-5 * transform.max()
    assert transform[frequency < 0.38].min() > 0


@pytest.mark.parametrize("shape", [(40, 36, 38), (41, 37, 35)])
def test_phases_are_kept(shape):
    values = noise(shape=shape)
    before = np.fft.rfftn(values)
    after = np.fft.rfftn(match_spectrum(values, VOXEL, TARGET))
    inside = spatial_frequencies(shape, VOXEL) < 0.38
    gain = after[inside] / before[inside]
    assert np.abs(gain.imag).max() < 1e-3 * np.abs(gain.real).max()
    assert gain.real.min() > -1e-4


def test_matching_again_changes_nothing():
    once = match_spectrum(noise(), VOXEL, TARGET)
    twice = match_spectrum(once, VOXEL, TARGET)
    # 0.9996, for the reason given above; the map before and after: 0.40.
    assert np.corrcoef(twice.ravel(), once.ravel())[0, 1] > 0.999


def test_gain_of_the_map_does_not_matter_up_to_scale():
    a, b = (match_spectrum(noise() * g, VOXEL, TARGET) for g in (1, 1000))
    np.testing.assert_allclose(b, a * 1000, atol=2e-3 * float(np.abs(a).max()))


def test_sharpening_is_undone():
    """A map and the same map blurred come out alike: what matching is for."""
    frequency = spatial_frequencies(SHAPE_ZYX, VOXEL)
    sharp = noise()
    blurred = np.fft.irfftn(np.fft.rfftn(sharp) * np.exp(-10 * frequency**2))
    a = match_spectrum(sharp, VOXEL, TARGET)
    b = match_spectrum(blurred.astype(np.float32), VOXEL, TARGET)
    correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert correlation > 0.995
    assert np.corrcoef(sharp.ravel(), blurred.ravel())[0, 1] < 0.9


def test_empty_map_stays_empty():
    matched = match_spectrum(np.zeros(SHAPE_ZYX, np.float32), VOXEL, TARGET)
    np.testing.assert_array_equal(matched, 0)


def test_contrast_of_known_maps():
    assert contrast(np.full((3, 4, 5), 7, np.float32)) == 0
    two_levels = np.repeat(np.float32([-2, 2]), 32).reshape(4, 4, 4)
    assert contrast(two_levels) == pytest.approx(2)
    # Gaussian: sqrt(3) deviations.
    assert contrast(3 * noise() + 11) == pytest.approx(3 * np.sqrt(3), rel=0.02)


def test_contrast_hardly_depends_on_the_box():
    small = noise(shape=(20, 20, 20))
    large = np.zeros((60, 60, 60), np.float32)
    large[20:40, 20:40, 20:40] = small
    assert contrast(large) == pytest.approx(contrast(small), rel=0.01)
    assert large.std() < 0.3 * small.std()
