"""One measured build, in a process of its own so that its memory is its own."""

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from angelo.errors import NothingBuiltError
from angelo.job import BuildJob
from angelo.pipeline import build_model
from angelo.run_folder import RUN_RECORD
from angelo.run_record import peak_memory_mib


@dataclass(frozen=True, slots=True)
class MeasuredBuild:
    """What a build gave and what it cost."""

    outcome: str
    """'built', 'nothing matched' (no sequence fits what was built) or 'nothing built'."""
    raw: Path | None
    """Everything that was built."""
    pruned: Path | None
    """What the sequences support."""
    seconds: float
    """Wall time of the build; starting Python is left out."""
    cpu_seconds: float
    """Processor time of all threads; not changed much by what else the machine does."""
    peak_memory_mib: int | None
    """Most memory that the process held."""
    stages: dict[str, float]
    """Wall time of each stage, s."""


#: Does a job and says how it went.
Builder = Callable[[BuildJob], MeasuredBuild]


def measure_build(job: BuildJob) -> MeasuredBuild:
    """Build in this process. Errors of the build, a map without a model apart, pass through."""
    started, cpu_before = time.perf_counter(), time.process_time()
    try:
        outcome = "nothing matched" if build_model(job).nothing_matched else "built"
    except NothingBuiltError:
        outcome = "nothing built"
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
    record = json.loads((job.out / RUN_RECORD).read_text(encoding="utf-8"))
    raw, pruned = job.out / f"{job.out.name}_raw.cif", job.out / f"{job.out.name}.cif"
    return MeasuredBuild(
        outcome=outcome,
        raw=raw if raw.is_file() else None,
        pruned=pruned if pruned.is_file() else None,
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        peak_memory_mib=own_peak_memory_mib(),
        stages={name: stage["seconds"] for name, stage in record["stages"].items()},
    )


def measure_in_own_process(job: BuildJob) -> MeasuredBuild:
    """As ``measure_build``, in a fresh process; raises BrokenProcessPool if that dies."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure_build, job).result()


def own_peak_memory_mib() -> int | None:
    """Most memory that this process has held since its program started.

    ``getrusage`` would count the parent's memory at the time of the fork as well.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return peak_memory_mib()
    kib = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return peak_memory_mib() if kib is None else int(kib) // 1024
