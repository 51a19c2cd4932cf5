"""One radial amplitude profile and one scale for every map.

Sharpening, B-factors and detectors change how a map's Fourier amplitudes fall with resolution;
the atoms do not. Bringing every map to the profile that the network was trained with removes
most of that difference before the network sees it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.fft
from jaxtyping import Float32

#: Amplitude below which a shell counts as empty, relative to the reference shells.
EMPTY_SHELL = 1e-6


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A target profile of radial Fourier amplitudes."""

    shell_width: float
    """Width of a shell, 1/Å; shell 0 starts at the origin."""
    amplitudes: Float32[np.ndarray, " s"]
    """Target root-mean-square amplitude of each shell; nothing is kept beyond the last."""
    reference_shells: tuple[int, int]
    """Half-open range of shells over which measured and target profiles are made equal."""
    max_gain: float
    """A shell is never amplified more than this, so that noise stays small."""


def shell_amplitudes(
    transform: np.ndarray, shells: np.ndarray, n_shells: int
) -> Float32[np.ndarray, " s"]:
    """Root-mean-square amplitude of each shell of a (half) Fourier transform."""
    inside = shells < n_shells
    index = shells[inside]
    power = np.bincount(index, np.abs(transform[inside]) ** 2, minlength=n_shells)
    count = np.bincount(index, minlength=n_shells)
    rms: np.ndarray = np.sqrt(power / np.maximum(count, 1))
    return rms.astype(np.float32)


def spatial_frequencies(
    shape_zyx: tuple[int, int, int], voxel_size: Float32[np.ndarray, "3"]
) -> Float32[np.ndarray, "z y f"]:
    """|s| in 1/Å of every coefficient of ``rfftn``; voxel size in x, y, z order."""
    edge_x, edge_y, edge_z = (float(edge) for edge in voxel_size)
    f_z = np.fft.fftfreq(shape_zyx[0], edge_z)
    f_y = np.fft.fftfreq(shape_zyx[1], edge_y)
    f_x = np.fft.rfftfreq(shape_zyx[2], edge_x)
    squared = f_z[:, None, None] ** 2 + f_y[:, None] ** 2 + f_x**2
    root: np.ndarray = np.sqrt(squared)
    return root.astype(np.float32)


def shell_gains(
    measured: Float32[np.ndarray, " s"], spectrum: Spectrum
) -> Float32[np.ndarray, " s"]:
    """Factor for each shell that brings measured amplitudes to the target profile."""
    first, last = spectrum.reference_shells
    measured = measured / max(float(measured[first:last].mean()), np.finfo(np.float32).tiny)
    target = spectrum.amplitudes / spectrum.amplitudes[first:last].mean()
    gains = target / np.maximum(measured, EMPTY_SHELL)
    # Below the reference shells lies the box and its mask rather than the protein.
    gains[:first] = np.minimum(gains[:first], 1)
    clipped: np.ndarray = np.clip(gains, 0, spectrum.max_gain)
    return clipped.astype(np.float32)


def match_spectrum(
    values_zyx: Float32[np.ndarray, "z y x"],
    voxel_size: Float32[np.ndarray, "3"],
    spectrum: Spectrum,
) -> Float32[np.ndarray, "z y x"]:
    """Scale a map's radial amplitudes to the target profile; phases are untouched.

    Beside the map and the result there is one transform in memory; frequencies are made plane
    by plane.
    """
    shape = values_zyx.shape
    n_shells = len(spectrum.amplitudes)
    transform = scipy.fft.rfftn(values_zyx.astype(np.float32, copy=False))
    power, count = np.zeros(n_shells), np.zeros(n_shells)
    for plane, position in _planes(transform, shape, voxel_size, spectrum.shell_width):
        inside = position < n_shells
        index = position[inside].astype(np.int64)
        power += np.bincount(index, np.abs(plane[inside]) ** 2, minlength=n_shells)
        count += np.bincount(index, minlength=n_shells)
    measured = np.sqrt(power / np.maximum(count, 1)).astype(np.float32)
    gains = shell_gains(measured, spectrum)
    centres = np.arange(n_shells) + 0.5
    for plane, position in _planes(transform, shape, voxel_size, spectrum.shell_width):
        plane *= np.interp(position, centres, gains, right=0.0).astype(np.float32)
    matched: np.ndarray = scipy.fft.irfftn(transform, shape, overwrite_x=True)
    return matched


def _planes(
    transform: np.ndarray,
    shape_zyx: tuple[int, ...],
    voxel_size: Float32[np.ndarray, "3"],
    shell_width: float,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Planes of constant f_z, as views, and the |s| of their coefficients in shell widths."""
    edge_x, edge_y, edge_z = (float(edge) for edge in voxel_size)
    in_plane = (
        scipy.fft.fftfreq(shape_zyx[1], edge_y)[:, None] ** 2
        + scipy.fft.rfftfreq(shape_zyx[2], edge_x) ** 2
    )
    for plane, f_z in zip(transform, scipy.fft.fftfreq(shape_zyx[0], edge_z), strict=True):
        yield plane, np.sqrt(in_plane + f_z**2) / shell_width


def contrast(values_zyx: Float32[np.ndarray, "z y x"]) -> float:
    """Typical density of what is not solvent: sqrt(sum v^4 / sum v^2) about the mean.

    Unlike the standard deviation it hardly depends on how much of the box is empty.
    """
    mean = values_zyx.mean(dtype=np.float64)
    second = fourth = 0.0
    for plane in values_zyx:  # a plane at a time in float64, for sums over 10^8 voxels
        squared = (plane - mean) ** 2
        second += float(squared.sum())
        fourth += float((squared**2).sum())
    return float(np.sqrt(fourth / second)) if second > 0 else 0.0
