"""The MRC2014/CCP4 file format: header, byte order, axis order, place.

Files are decoded here rather than by mrcfile's reader because that takes sizes from a damaged
header at their word and tells a stack from a map by its space group alone.
"""

import bz2
import gzip
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from mrcfile.dtypes import HEADER_DTYPE
from mrcfile.utils import byte_order_from_machine_stamp

from angelo.errors import MapError
from angelo.types import Density

log = logging.getLogger(__name__)

#: Values of MODE that hold real densities (MRC2014, doi:10.1016/j.jsb.2015.04.002).
VALUE_TYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
#: Values of MODE that an MRC file may have and a map may not.
OTHER_MODES = {3: "complex integers", 4: "complex numbers", 101: "4-bit integers"}
#: Voxels along the longest axis that a map may have.
LONGEST_AXIS = 4096
#: Voxel edges outside this range are mistakes, Å. Larger ones hold nothing finer than 6 Å, in
#: which no C-alpha stands out from its neighbours 3.8 Å away, and finer grids made of them
#: would take the memory of a far larger map.
VOXEL_RANGE = (0.2, 3.0)
_USUAL_VOXELS = "maps to build into have voxels of {:g} to {:g} Å".format(*VOXEL_RANGE)
#: Departure from 90° at which a cell is called oblique.
ANGLE_TOLERANCE = 0.1
#: IMOD's mark in the header; with it, bit 0 of the next word says that bytes are signed.
IMOD_STAMP = 1146047817


def read_volume(path: Path, voxel_size: float | None = None) -> Density:
    """Read a map or mask; see ``angelo.density.read_map``. Constant volumes pass.

    Raises MapError.
    """
    content = _read_bytes(path)
    header = _header(path, content)
    axes = _spatial_axes(path, header)
    edges = _voxel_size(path, header, voxel_size)
    values = _values(path, header, content)
    # File axes run section, row, column; spatial axis 3 is z.
    values = values.transpose([2 - axes.index(a) for a in (3, 2, 1)])
    values = np.ascontiguousarray(values, np.float32)
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        n_bad = values.size - int(np.isfinite(values).sum())
        raise MapError(f"{path}: {n_bad} voxels are NaN or infinite; repair the map first")
    return Density(values, edges, _origin(path, header, axes, edges, values.shape))


def check_map_file(path: Path) -> None:
    """Check that a file begins as a map does; of its values nothing is read.

    Raises MapError.
    """
    _header(path, _read_bytes(path, HEADER_DTYPE.itemsize))


def _read_bytes(path: Path, size: int = -1) -> bytes:
    """Content, unpacked; of the first ``size`` bytes only unless that is negative."""
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open}
    try:
        with path.open("rb") as plain:
            opener = openers.get(plain.read(2), Path.open)
        with opener(path, "rb") as source:
            content: bytes = source.read(size)
            return content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MapError(f"{path}: damaged or cut short ({error}); copy it again") from None
    except OSError as error:
        raise MapError(f"{path}: cannot be read ({error.strerror or error})") from None


def _header(path: Path, content: bytes) -> Any:
    """Header in the byte order that makes sense of it."""
    if len(content) < HEADER_DTYPE.itemsize:
        raise MapError(f"{path}: not an MRC or CCP4 map: shorter than the 1024-byte header")
    raw = np.frombuffer(content, HEADER_DTYPE, 1).reshape(()).view(np.recarray)
    try:
        stamped = byte_order_from_machine_stamp(raw.machst)
    except ValueError:
        stamped = "<"
    for order in (stamped, "<" if stamped == ">" else ">"):
        header = raw.view(raw.dtype.newbyteorder(order))
        sizes = (int(header.nx), int(header.ny), int(header.nz))
        mode = int(header.mode)
        known = mode in VALUE_TYPES or mode in OTHER_MODES
        if known and all(0 < n <= LONGEST_AXIS for n in sizes):
            break
    else:
        raise MapError(f"{path}: not an MRC or CCP4 map: the header makes no sense")
    if mode not in VALUE_TYPES:
        raise MapError(f"{path}: MODE {mode} holds {OTHER_MODES[mode]}, not a density map")
    ispg, mz = int(header.ispg), int(header.mz)
    if 401 <= ispg <= 630 or (ispg == 0 and mz == 1 < sizes[2]):
        raise MapError(f"{path}: a stack of {sizes[2]} sections (ISPG {ispg}), not one map")
    if min(sizes) == 1:
        raise MapError(f"{path}: an image of {sizes[0]} x {sizes[1]} x {sizes[2]}, not a map")
    angles = np.array([float(header.cellb[name]) for name in ("alpha", "beta", "gamma")])
    if angles.any() and not (np.abs(angles - 90) <= ANGLE_TOLERANCE).all():
        text = ", ".join(f"{angle:g}" for angle in angles)
        raise MapError(f"{path}: the cell angles (CELLB) are {text}, but must be 90")
    return header


def _spatial_axes(path: Path, header: Any) -> list[int]:
    """MAPC, MAPR, MAPS: the spatial axis (1 is x) of columns, rows and sections."""
    axes = [int(header.mapc), int(header.mapr), int(header.maps)]
    if axes == [0, 0, 0]:  # written by programs that know of no other order
        return [1, 2, 3]
    if sorted(axes) != [1, 2, 3]:
        raise MapError(f"{path}: MAPC, MAPR, MAPS are {axes}, but must be 1, 2, 3 in any order")
    return axes


def _voxel_size(path: Path, header: Any, given: float | None) -> Float32[np.ndarray, "3"]:
    if given is not None:
        if not VOXEL_RANGE[0] <= given <= VOXEL_RANGE[1]:
            raise MapError(f"--voxel-size {given:g}: {_USUAL_VOXELS}")
        return np.full(3, given, np.float32)
    cell = [float(header.cella[axis]) for axis in "xyz"]
    counts = [int(header.mx), int(header.my), int(header.mz)]
    for axis, length, count in zip("xyz", cell, counts, strict=True):
        if not (length > 0 and count > 0 and np.isfinite(length)):
            raise MapError(
                f"{path}: no voxel size in the header (CELLA {axis} is {length:g}, m{axis} is "
                f"{count}); give it with --voxel-size"
            )
    edges = np.array(cell, np.float32) / np.array(counts, np.float32)
    if edges.min() < VOXEL_RANGE[0] or edges.max() > VOXEL_RANGE[1]:
        text = " x ".join(f"{edge:.4g}" for edge in edges)
        raise MapError(
            f"{path}: voxels of {text} Å cannot be right (CELLA / mx, my, mz in the header): "
            f"{_USUAL_VOXELS}; give the size with --voxel-size"
        )
    return edges


def _values(path: Path, header: Any, content: bytes) -> np.ndarray:
    """Voxels as stored: sections, rows, columns."""
    kind = VALUE_TYPES[int(header.mode)]
    stamp, flags = np.frombuffer(content, header.nx.dtype, 2, offset=152)
    if kind == "i1" and stamp == IMOD_STAMP and not flags & 1:
        kind = "u1"
    value_type = np.dtype(kind).newbyteorder(header.nx.dtype.byteorder)
    shape = (int(header.nz), int(header.ny), int(header.nx))
    n_values = int(np.prod(shape))
    start = HEADER_DTYPE.itemsize + max(0, int(header.nsymbt))
    expected = n_values * value_type.itemsize
    if len(content) == HEADER_DTYPE.itemsize + expected:
        start = HEADER_DTYPE.itemsize  # NSYMBT without symmetry records: early EMDB entries
    if len(content) < start + expected:
        raise MapError(
            f"{path}: cut short: {len(content) - start} bytes of density, but "
            f"{' x '.join(map(str, shape[::-1]))} voxels need {expected}; copy it again"
        )
    return np.frombuffer(content, value_type, n_values, offset=start).reshape(shape)


def _origin(
    path: Path,
    header: Any,
    axes: list[int],
    edges: Float32[np.ndarray, "3"],
    shape: tuple[int, ...],
) -> Float32[np.ndarray, "3"]:
    origin: np.ndarray = np.array([header.origin[axis] for axis in "xyz"], np.float32)
    in_file_order = [int(header.nxstart), int(header.nystart), int(header.nzstart)]
    start = np.array([in_file_order[axes.index(a)] for a in (1, 2, 3)], np.float64)
    if np.abs(start).max() > 10 * max(*shape, int(header.mx), int(header.my), int(header.mz)):
        start[:] = 0  # never set
    from_start: np.ndarray = (start * edges).astype(np.float32)
    # An origin so large that voxels cannot be told apart was never set either.
    usable = np.isfinite(origin).all() and (origin + edges != origin).all()
    if not (usable and origin.any()):
        return from_start
    if start.any() and (np.abs(origin - from_start) > edges / 2).any():
        log.warning(
            "%s: ORIGIN %s and the start fields (%s) differ; ORIGIN is used, as in ChimeraX",
            path, origin, from_start,
        )  # fmt: skip
    return origin
