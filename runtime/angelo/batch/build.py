"""One row: ``angelo build`` as a process of its own, and what became of it."""

import os
import platform
import shlex
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from angelo.batch.folder import BatchFolder, Outcome, State
from angelo.batch.row import Row
from angelo.child import run_child
from angelo.run_folder import output_error

#: States for exit codes of ``angelo build``; any other code is a failure.
STATES: dict[int, State] = {0: "built", 3: "no model", 130: "stopped"}
#: What tells numerical libraries how many threads to use.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: What is said of a row whose build was stopped.
STOPPED = "stopped by Ctrl-C, or by the queue; the same command goes on from its last stage"
#: What begins the line in which a command says what went wrong.
COMPLAINT = "error: "


@dataclass(frozen=True, slots=True)
class Worker:
    """Where builds run, one at a time."""

    device: str
    """For ``--device``."""
    threads: int
    """CPU threads; 0: as many as the process may use."""
    gpu: str | None = None
    """The one GPU that the process sees; None: those that this process sees."""

    def __str__(self) -> str:
        return self.device if self.gpu is None else f"GPU {self.gpu}"


@dataclass(frozen=True, slots=True)
class Builder:
    """How rows are built."""

    folder: BatchFolder
    command: tuple[str, ...]
    """Words that start ``angelo``."""
    overwrite: bool = False
    """Replace earlier runs that were of other inputs, or failed."""

    def command_of(self, row: Row, worker: Worker) -> list[str]:
        """Command line that builds a row."""
        options = ["--out", str(self.folder.run(row)), "--device", worker.device]
        options += ["--threads", str(worker.threads)]
        before = self.folder.outcome(row)
        is_other = before.state == "failed" or before.fingerprint != row.fingerprint()
        if self.overwrite and before.attempts and is_other:
            options.append("--overwrite")  # not when it was stopped: it goes on
        return [*self.command, "build", *row.arguments, *options]

    def build(self, row: Row, worker: Worker, is_stopped: Callable[[], bool]) -> Outcome:
        """Build a row; whatever happens to that process ends up in the outcome.

        Parameters
        ----------
        row
            What to build.
        worker
            Where.
        is_stopped
            Asked again and again whether to stop.

        Raises
        ------
        OutputError
            If the bookkeeping cannot be written.
        """
        command = self.command_of(row, worker)
        begun = Outcome(
            state="running",
            attempts=self.folder.outcome(row).attempts + 1,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            host=platform.node(),
            device=str(worker),
            job=_slurm_job(),
            fingerprint=row.fingerprint(),
        )
        self.folder.write_outcome(row, begun)
        clock = time.monotonic()
        environment = {} if worker.gpu is None else {"CUDA_VISIBLE_DEVICES": worker.gpu}
        if worker.threads:
            environment |= dict.fromkeys(THREAD_VARIABLES, str(worker.threads))
        where = (
            f"== attempt {begun.attempts}, {begun.started}, {begun.host}, {worker} {begun.job}"
        )
        code, complaint = _run_logged(
            self.folder.log(row),
            f"{where}\n{shlex.join(command)}\n",
            command,
            environment,
            is_stopped,
        )
        state = STATES.get(code, "failed")
        if is_stopped() and state in ("failed", "stopped"):
            state, complaint = "stopped", STOPPED
        ended = replace(
            begun,
            state=state,
            message="" if state == "built" else complaint or _why(code),
            exit_code=code,
            seconds=round(time.monotonic() - clock, 1),
        )
        self.folder.write_outcome(row, ended)
        return ended


def _run_logged(
    path: Path,
    heading: str,
    command: list[str],
    environment: Mapping[str, str],
    is_stopped: Callable[[], bool],
) -> tuple[int, str]:
    """Exit code of a command and its complaint; its output is added to the log."""
    try:
        with path.open("ab+") as log:
            log.write(heading.encode())
            log.flush()
            begin = log.tell()
            code = run_child(command, is_stopped, log=log, environment=environment)
            return code, _complaint(log, begin)
    except OSError as error:
        raise output_error(path, error) from error


def _complaint(log: IO[bytes], begin: int) -> str:
    """Last line in which the command complained."""
    log.seek(begin)
    lines = log.read().decode(errors="replace").splitlines()
    complaints = [line for line in lines if line.startswith(COMPLAINT)]
    return complaints[-1].removeprefix(COMPLAINT) if complaints else ""


def _why(code: int) -> str:
    """Say how a process ended that could not say it."""
    if code >= 0:
        return f"exit code {code}; see its log"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = "; was there enough memory?" if -code == signal.SIGKILL else ""
    return f"ended by {name}{hint}"


def _slurm_job() -> str:
    """Job and task as squeue shows them; empty outside Slurm."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{part}_ID", "") for part in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def describe(outcome: Outcome, record: Mapping[str, Any]) -> str:
    """Say in one line what became of a row; ``record`` is what its run says of itself."""
    said = f"{outcome.state}, {outcome.seconds:.0f} s on {outcome.device}"
    if outcome.message:
        return f"{said}: {outcome.message}"
    found = record.get("summary", {})
    named = f", {found['matched_residues']} matched" if "matched_residues" in found else ""
    return f"{said}: {found.get('residues_built', 0)} residues{named}"
