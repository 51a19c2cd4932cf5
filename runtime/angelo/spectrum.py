"""One radial amplitude profile and one scale for every map.

Sharpening, B-factors and detectors change how a map's Fourier amplitudes fall with resolution;
the atoms do not. Bringing every map to the profile that the network was trained with removes
most of that difference before the network sees it.
"""

from dataclasses import dataclass

import numpy as np
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
    f_z, f_y = (
        np.fft.fftfreq(n, float(v)) for n, v in zip(shape_zyx[:2], voxel_size[:0:-1], strict=True)
    )
    f_x = np.fft.rfftfreq(shape_zyx[2], float(voxel_size[0]))
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
    """Scale a map's radial amplitudes to the target profile; phases are untouched."""
    shape = values_zyx.shape
    transform = np.fft.rfftn(values_zyx.astype(np.float32))
    position = spatial_frequencies(shape, voxel_size) / np.float32(spectrum.shell_width)
    n_shells = len(spectrum.amplitudes)
    measured = shell_amplitudes(transform, position.astype(np.int64), n_shells)
    gains = shell_gains(measured, spectrum)
    centres = np.arange(n_shells) + 0.5
    smooth = np.interp(position, centres, gains, right=0.0).astype(np.float32)
    matched: np.ndarray = np.fft.irfftn(transform * smooth, s=shape, axes=(0, 1, 2))
    return matched.astype(np.float32)


def contrast(values_zyx: Float32[np.ndarray, "z y x"]) -> float:
    """Typical density of what is not solvent: sqrt(sum v^4 / sum v^2) about the mean.

    Unlike the standard deviation it hardly depends on how much of the box is empty.
    """
    centred = values_zyx.astype(np.float64) - values_zyx.mean(dtype=np.float64)
    squared = centred**2
    total = float(squared.sum())
    return float(np.sqrt((squared**2).sum() / total)) if total > 0 else 0.0
