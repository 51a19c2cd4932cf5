"""What this machine can run, and what to fix where it cannot."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from angelo.bundle import list_bundles, load_bundle, missing_folders
from angelo.errors import BundleError, DeviceError
from angelo.processors import usable_cpus
from angelo.session import GPU_INSTALL, find_devices, library_version

#: Oldest Python that the program runs on.
OLDEST_PYTHON = (3, 11)
#: Memory below which a run with the default bundle may not finish, GiB.
LEAST_MEMORY_GIB = 4.0
#: Free disk below which the files of a run may not fit, GiB.
LEAST_DISK_GIB = 1.0
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    """What was looked at."""
    found: str
    """What was found, with units."""
    fix: str = ""
    """What to do about it; empty when nothing needs to be done."""
    is_fatal: bool = True
    """Whether, unless fixed, runs fail (and not only are slow)."""


def examine(folder: Path) -> list[Check]:
    """Look at Python, ONNX Runtime, processor, memory, disk (of ``folder``) and bundles."""
    return [
        _python(),
        _onnxruntime(),
        _devices(),
        _processor(),
        _memory(),
        _disk(folder),
        *_bundles(),
    ]


def _python() -> Check:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    good = sys.version_info >= OLDEST_PYTHON
    return Check(
        "Python", platform.python_version(), "" if good else f"install Python {wanted} or newer"
    )


def _onnxruntime() -> Check:
    return Check("ONNX Runtime", library_version())


def _devices() -> Check:
    try:
        device = find_devices("auto")[0]
    except DeviceError as error:
        return Check("GPU", "out of reach", str(error))
    if device.kind == "cuda":
        return Check("GPU", f"{device} works")
    fix = f"for a GPU: an NVIDIA driver, and {GPU_INSTALL} or the GPU image"
    return Check("GPU", "none that works; runs go to the processor", fix, is_fatal=False)


def _processor() -> Check:
    cores = f"{usable_cpus()} of {os.cpu_count() or 1} cores, {platform.machine()}"
    flags = _cpu_flags()
    if not flags:  # not Linux on x86
        return Check("Processor", cores)
    widest = next((name for name in ("avx512f", "avx2", "avx") if name in flags), "")
    fix = "" if widest in ("avx512f", "avx2") else "no AVX2: runs are several times slower"
    return Check("Processor", f"{cores}, {widest or 'no AVX'}", fix, is_fatal=False)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return set()
    return next(
        (set(line.split()) for line in text.splitlines() if line.startswith("flags")), set()
    )


def _memory() -> Check:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (ValueError, OSError, AttributeError):
        return Check("Memory", "not known on this system")
    fix = "" if total >= LEAST_MEMORY_GIB else f"{LEAST_MEMORY_GIB:.0f} GiB or more is advised"
    return Check("Memory", f"{total:.1f} GiB, {free:.1f} free", fix, is_fatal=False)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free / GIB
    fix = "" if free >= LEAST_DISK_GIB else "free some space, or write elsewhere with -o"
    return Check("Disk", f"{free:.1f} GiB free in {folder}", fix)


def _bundles() -> list[Check]:
    """One check a bundle, all files compared with their checksums; folders that are missing."""
    fix = "correct ANGELO_MODELS, or bind the folder into the container"
    checks = [
        Check("Bundles", f"{place}: no such folder", fix, is_fatal=False)
        for place in missing_folders()
    ]
    listings = list_bundles()
    if not listings:
        fix = "install angelo again, or set ANGELO_MODELS to the folder that bundles lie in"
        return [*checks, Check("Bundles", "none found", fix)]
    for listing in listings:
        try:
            load_bundle(listing.folder)
        except BundleError as error:
            checks.append(Check(f"Bundle {listing.name}", "damaged", str(error)))
        else:
            checks.append(Check(f"Bundle {listing.name}", f"{listing}; checksums agree"))
    return checks
