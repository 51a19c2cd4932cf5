"""How many processors this process may use."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def usable_cpus() -> int:
    """Processors this process may use: affinity, cgroup quota and OMP_NUM_THREADS heeded."""
    limits = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        limits.append(len(os.sched_getaffinity(0)))
    limits.extend(_cgroup_limits(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if wanted.isascii() and wanted.isdigit():
        limits.append(int(wanted))
    return max(1, min(limits))


def _cgroup_limits(root: Path, membership: Path) -> Iterator[int]:
    """Whole processors that the CPU quotas of this process's control groups grant."""
    with contextlib.suppress(OSError, ValueError):
        for line in membership.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            base = root / "cpu" if controllers else root
            inner = base / group.lstrip("/")
            for folder in (inner, *inner.parents):
                quota = _quota(folder)
                if quota is not None:
                    yield quota
                if folder == base:
                    break


def _quota(folder: Path) -> int | None:
    """Quota over period of one control group (version 2, then 1); None: unlimited."""
    with contextlib.suppress(OSError, ValueError):
        if (v2 := folder / "cpu.max").is_file():
            quota, period = v2.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if quota not in {"max", "-1"}:
            return max(1, round(int(quota) / int(period)))
    return None
