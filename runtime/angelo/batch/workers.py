"""The queue on one machine: which workers there are, and rows shared among them."""

import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from angelo.batch.build import Builder, Worker
from angelo.batch.folder import Outcome
from angelo.batch.row import Row
from angelo.errors import DeviceError
from angelo.processors import usable_cpus
from angelo.session import parse_devices

log = logging.getLogger(__name__)

#: Threads that a worker on the processor has where there are enough: more gain little.
CPU_THREADS = 4
#: Seconds that a driver may take to say which GPUs there are, or to start one.
PATIENCE = 120.0


def plan_workers(
    device: str, n_workers: int, threads: int, n_rows: int, *, try_gpus: bool = True
) -> list[Worker]:
    """One worker a GPU, or workers on the processor that share its threads.

    Parameters
    ----------
    device
        ``auto`` (the GPUs, if there are any that work), ``cpu``, ``cuda`` (all GPUs) or
        ``cuda:N,M``.
    n_workers
        Workers on the processor; 0: one for every four threads.
    threads
        Threads of all workers together; 0: as many as this process may use.
    n_rows
        Rows to build; more workers are not made.
    try_gpus
        Whether GPUs are tried first; they cannot be where builds run in an image.

    Raises
    ------
    DeviceError
        If a GPU is asked for that is not there or does not work, or workers on GPUs.
    """
    threads = threads or usable_cpus()
    gpus = _gpus(device, try_gpus)
    if not gpus:
        count = n_workers or max(1, threads // CPU_THREADS)
        count = max(1, min(count, n_rows))
        return [Worker("cpu", max(1, threads // count))] * count
    if n_workers not in (0, len(gpus)):
        raise DeviceError(
            f"--workers is for the processor: there is one worker on each of the {len(gpus)} "
            "GPUs. Leave it out, or give --device cpu"
        )
    gpus = gpus[: max(1, n_rows)]
    return [Worker("cuda", max(1, threads // len(gpus)), gpu) for gpu in gpus]


def _gpus(device: str, try_gpus: bool) -> list[str]:
    """GPUs to use, as CUDA_VISIBLE_DEVICES names them; none: the processor."""
    word = device.strip().lower()
    if word == "cpu":
        return []
    visible = visible_gpus()
    if word not in ("auto", "cuda"):
        wanted = [found.index for found in parse_devices(device)]
        if missing := [index for index in wanted if index >= len(visible)]:
            raise DeviceError(f"--device {device}: there is no GPU {missing[0]} (nvidia-smi)")
        visible = [visible[index] for index in wanted]
    if not visible:
        if word == "auto":
            return []
        raise DeviceError(f"--device {device}: no GPU is visible; see nvidia-smi")
    trouble = trouble_with(visible[0]) if try_gpus else ""
    if trouble and word != "auto":
        raise DeviceError(trouble)
    if trouble:
        log.warning("building on the processor, although a GPU is visible: %s", trouble)
        return []
    return visible


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    if (program := shutil.which("nvidia-smi")) is None:
        return []
    try:
        answer = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", answer.stdout, re.MULTILINE)


def trouble_with(gpu: str) -> str:
    """Say why a GPU does not work; empty if it does.

    It is tried by another process: this one is to hold no memory of a GPU.
    """
    question = "from angelo.session import find_devices; find_devices('cuda')"
    try:
        answer = subprocess.run(
            [sys.executable, "-P", "-c", question],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"GPU {gpu} did not answer within {PATIENCE:.0f} s"
    if answer.returncode == 0:
        return ""
    last = (answer.stderr.strip().splitlines() or ["no reason was given"])[-1]
    return last.removeprefix("angelo.errors.DeviceError: ")


def build_rows(
    builder: Builder,
    rows: Sequence[Row],
    workers: Sequence[Worker],
    stopped: threading.Event,
    tell: Callable[[Row, Outcome], None],
) -> None:
    """Build rows, each worker taking the next one when it is free; ``tell`` hears of each.

    Rows that ``stopped`` leaves over stay as they were.

    Raises
    ------
    OutputError
        If the bookkeeping cannot be written; builds that run are stopped then.
    """
    waiting: SimpleQueue[Row] = SimpleQueue()
    for row in rows:
        waiting.put(row)

    def work(worker: Worker) -> None:
        try:
            while not stopped.is_set():
                row = waiting.get_nowait()
                tell(row, builder.build(row, worker, stopped.is_set))
        except Empty:
            return
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(len(workers)) as pool:
        for future in [pool.submit(work, worker) for worker in workers]:
            future.result()
