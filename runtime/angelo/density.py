"""Maps: from file to the density that the networks see, and back."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mrcfile
import numpy as np
import scipy.fft
from jaxtyping import Float32

from angelo.errors import MapError, OutputError
from angelo.mrc import read_volume
from angelo.spectrum import Spectrum, contrast, match_spectrum
from angelo.types import Density

#: A voxel size this close to the nominal one is left alone, as a fraction of it.
VOXEL_TOLERANCE = 0.005
#: Fewest voxels of ramp between the last and the first sample of a box while it is resampled.
SHORTEST_RAMP = 8
#: Rows transformed at once while resampling, values.
CHUNK_VALUES = 1 << 22
#: Largest difference between two grids that count as one, voxels.
GRID_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How the networks want their density (bundle.json, section ``map``)."""

    voxel_size: float
    """Nominal voxel edge, Å."""
    spectrum: Spectrum | None
    """Target profile of radial amplitudes; None leaves them alone."""
    scale: Literal["contrast", "standard_deviation"]
    """What the density is divided by, after its mean is subtracted."""


def read_map(path: Path, voxel_size: float | None = None) -> Density:
    """Read an MRC2014/CCP4 map, plain, gzip or bzip2.

    The place of the map is the one that ChimeraX gives an MRC file: ORIGIN (always x, y, z,
    Å) unless it is zero, not finite or absurd, else NXSTART, NYSTART, NZSTART (in the axis
    order of the file, MAPC, MAPR, MAPS) times the voxel size. Coot reads the start fields
    only, so the two programs agree wherever just one of them is set or both say the same;
    if they differ, the log says so.

    Parameters
    ----------
    voxel_size
        Overrides the header's voxel size on every axis, Å; for files that lack it.

    Raises
    ------
    MapError
        If the file is not a map, is damaged, constant, not finite, a stack, complex, in an
        oblique cell, or has no voxel size.
    """
    density = read_volume(path, voxel_size)
    if float(density.values_zyx.min()) == float(density.values_zyx.max()):
        raise MapError(f"{path}: every voxel is the same; check how the map was written")
    return density


def write_map(path: Path, density: Density) -> None:
    """Write a plain MRC2014 file, mode 2.

    ORIGIN holds the exact origin; NXSTART and its like are set as well where the origin lies
    on the grid, for programs that read nothing else. Raises OutputError.
    """
    unfinished = path.with_name(f".{path.name}.part")
    start = density.origin / density.voxel_size
    on_grid = bool((np.abs(start - np.round(start)) < 1e-3).all())
    try:
        with mrcfile.new(unfinished, overwrite=True) as mrc:
            mrc.set_data(np.ascontiguousarray(density.values_zyx, np.float32))
            mrc.voxel_size = tuple(float(edge) for edge in density.voxel_size)
            mrc.header.origin = tuple(float(x) for x in density.origin)
            if on_grid:
                mrc.nstart = tuple(int(i) for i in np.round(start))
            mrc.header.label[:] = b""
            mrc.header.label[0] = b"angelo"  # mrcfile writes the date here
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def read_mask(path: Path, voxel_size: float | None = None) -> Density:
    """Read a solvent mask: 0 in solvent, 1 in the molecule. Raises MapError."""
    mask = read_volume(path, voxel_size)
    low, high = float(mask.values_zyx.min()), float(mask.values_zyx.max())
    if low < -1e-3 or high > 1 + 1e-3:
        raise MapError(
            f"{path}: a mask runs from 0 to 1, but this runs from {low:.3g} to {high:.3g}; "
            "make a mask from it first"
        )
    if high <= 0:
        raise MapError(f"{path}: the mask is 0 everywhere")
    return mask


def apply_mask(density: Density, mask: Density, name: str = "the mask") -> Density:
    """Density times mask; ``name`` is the mask's, for errors.

    Raises MapError if they are not on the same grid.
    """
    _check_same_grid(density, mask, name)
    return replace(density, values_zyx=density.values_zyx * mask.values_zyx)


def average_half_maps(
    half_1: Density, half_2: Density, name: str = "the second half-map"
) -> Density:
    """Mean of two half-maps; ``name`` is the second one's, for errors.

    Raises MapError if they are not on the same grid.
    """
    _check_same_grid(half_1, half_2, name)
    mean = half_1.values_zyx + half_2.values_zyx
    mean *= np.float32(0.5)
    return replace(half_1, values_zyx=mean)


def prepare_density(density: Density, settings: MapSettings) -> Density:
    """Resample, match the spectrum, subtract the mean and divide by the scale.

    Raises MapError if nothing is left of the map at the wanted voxel size.
    """
    resampled = resample(density, settings.voxel_size)
    values = resampled.values_zyx
    if settings.spectrum is not None:
        values = match_spectrum(values, resampled.voxel_size, settings.spectrum)
    values = values - np.float32(values.mean(dtype=np.float64))
    if settings.scale == "contrast":
        scale = contrast(values)
    else:
        scale = float(values.std(dtype=np.float64))
    if not scale > np.finfo(np.float32).tiny:
        raise MapError(f"the map has no contrast at a voxel size of {settings.voxel_size:g} Å")
    values /= np.float32(scale)
    return replace(resampled, values_zyx=values)


def resample(density: Density, voxel_size: float) -> Density:
    """Density on a grid of about ``voxel_size`` Å, by Fourier cropping or padding.

    The box is lengthened to one that holds, to 0.5 %, a whole number of the wanted voxels;
    the voxel size returned is the exact one. The centre of voxel (0, 0, 0) stays where it is,
    and the new grid spans the old one's voxel centres. Each axis is treated on its own, which
    is the same as a three-dimensional transform and needs little memory.
    """
    values = density.values_zyx
    edges = density.voxel_size.astype(np.float64)
    # Axes that shrink most come first, so that later ones have less to do.
    for axis in sorted(range(3), key=lambda a: (-voxel_size / edges[2 - a], a)):
        edge = edges[2 - axis]
        if abs(edge / voxel_size - 1) <= VOXEL_TOLERANCE:
            continue
        n = values.shape[axis]
        n_box, n_new = box_lengths(n, edge, voxel_size)
        edges[2 - axis] = n_box * edge / n_new
        n_kept = min(n_new, int(np.ceil((n - 1) * edge / edges[2 - axis] - 1e-6)) + 1)
        values = _resample_axis(values, axis, n_box, n_new, n_kept)
    return Density(values, edges.astype(np.float32), density.origin)


def box_lengths(n: int, edge: float, voxel_size: float) -> tuple[int, int]:
    """Old and new number of voxels of a box that holds ``n`` voxels of ``edge`` Å.

    The box is the shortest whose new voxels come within VOXEL_TOLERANCE of ``voxel_size`` Å.
    Its length suits the fast Fourier transform, and so does the new one unless that would
    lengthen the box by more than a quarter.
    """
    fallback = None
    n_box = n + SHORTEST_RAMP
    while fallback is None or n_box <= 1.25 * n:
        n_box = scipy.fft.next_fast_len(n_box)
        exact = n_box * edge / voxel_size
        shortest = int(np.ceil(exact / (1 + VOXEL_TOLERANCE)))
        longest = int(exact / (1 - VOXEL_TOLERANCE))
        if (n_new := scipy.fft.next_fast_len(shortest)) <= longest:
            return n_box, n_new
        if fallback is None and shortest <= longest:
            fallback = n_box, shortest
        n_box += 1
    return fallback


def _resample_axis(
    values: Float32[np.ndarray, "z y x"], axis: int, n_box: int, n_new: int, n_kept: int
) -> Float32[np.ndarray, "..."]:
    """Resample one axis of ``n`` samples, in chunks of the others.

    Between its last sample and its first the (periodic) box gets a straight ramp: a step
    there would ring into the map.
    """
    n = values.shape[axis]
    shape = list(values.shape)
    shape[axis] = n_kept
    result = np.empty(shape, np.float32)
    source, target = np.moveaxis(values, axis, -1), np.moveaxis(result, axis, -1)
    ramp = np.arange(1, n_box - n + 1, dtype=np.float32) / (n_box - n + 1)
    shortest = min(n_box, n_new)
    # The Nyquist term of an even length has no defined phase: left out.
    n_terms = (shortest + 1) // 2
    for rows in _chunks(source.shape[0], source.shape[1] * n_box):
        box = np.empty((*source[rows].shape[:2], n_box), np.float32)
        box[..., :n] = source[rows]
        first, last = box[..., :1], box[..., n - 1 : n]
        box[..., n:] = last + (first - last) * ramp
        terms = scipy.fft.rfft(box, axis=-1)[..., :n_terms] * np.float32(n_new / n_box)
        target[rows] = scipy.fft.irfft(terms, n_new, axis=-1)[..., :n_kept]
    return result


def _chunks(n_rows: int, row_values: int) -> Iterator[slice]:
    """Slices over ``n_rows`` of about CHUNK_VALUES values each."""
    step = max(1, CHUNK_VALUES // row_values)
    for start in range(0, n_rows, step):
        yield slice(start, start + step)


def _check_same_grid(reference: Density, other: Density, what: str) -> None:
    remedy = "resample it on the grid of the map"
    if reference.values_zyx.shape != other.values_zyx.shape:
        sizes = (" x ".join(map(str, d.values_zyx.shape[::-1])) for d in (other, reference))
        raise MapError("{} has {} voxels, the map {}; {}".format(what, *sizes, remedy))
    n_xyz = np.array(reference.values_zyx.shape[::-1])
    stretch = np.abs(other.voxel_size - reference.voxel_size) * n_xyz
    shift = np.abs(other.origin - reference.origin)
    for name, unit, off, pair in (
        ("voxels of", "Å", stretch, (other.voxel_size, reference.voxel_size)),
        ("its origin at", "Å", shift, (other.origin, reference.origin)),
    ):
        if (off > GRID_TOLERANCE * reference.voxel_size).any():
            theirs, ours = (", ".join(f"{x:.4g}" for x in vector) for vector in pair)
            raise MapError(
                f"{what} has {name} ({theirs}) {unit}, the map ({ours}) {unit}; {remedy}"
            )
