"""A batch as a Slurm job array: scripts, submission, and what is queued already."""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from angelo.batch.build import Builder
from angelo.batch.folder import BatchFolder, write_rows
from angelo.batch.row import Row
from angelo.errors import UserError
from angelo.run_folder import output_error, write_files

#: Folder of the submissions, in the books of a batch, and names in that of one.
SUBMISSIONS = "slurm"
ARRAY, SUMMARY, SUBMIT, JOBS, ROWS = "array.sh", "summary.sh", "submit.sh", "jobs", "rows.json"
#: What the summary needs: it only reads small files.
SUMMARY_LIMITS = {"time": "00:15:00", "mem": "1G", "cpus-per-task": "1"}
#: Seconds before the time limit at which a build is told to stop, so that it says so.
WARNING_SECONDS = 60


class SlurmError(UserError):
    """The batch cannot be submitted."""


@dataclass(frozen=True, slots=True)
class SlurmOptions:
    """What the site wants to know; empty: the site's default."""

    partition: str = ""
    gres: str = ""
    """Generic resources of a task, ``gpu:1`` say."""
    time: str = ""
    """Time limit of a task."""
    mem: str = ""
    """Memory of a task."""
    cpus: int = 0
    """Cores of a task."""
    max_running: int = 0
    """Tasks that may run at a time; 0: as many as the site allows."""
    more: tuple[str, ...] = ()
    """Other options of sbatch, for both jobs, as ``--account=x``."""

    @property
    def wants_gpu(self) -> bool:
        """Whether tasks get a GPU."""
        return "gpu" in self.gres or any("gpu" in option for option in self.more)


@dataclass(frozen=True, slots=True)
class Submission:
    """One array and its summary, ready to be written and submitted."""

    folder: Path
    rows: tuple[Row, ...]
    """Task N builds row N of these."""
    scripts: dict[str, str]
    """By file name."""

    @property
    def submit_command(self) -> tuple[str, str]:
        """Command that submits both jobs."""
        return ("sh", str(self.folder / SUBMIT))

    def write(self) -> None:
        """Write the scripts and the list of rows. Raises OutputError."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(self.folder, error) from error
        write_rows(self.folder / ROWS, self.rows)
        write_files({self.folder / name: text for name, text in self.scripts.items()})


def plan_submission(
    builder: Builder, rows: Sequence[Row], device: str, options: SlurmOptions
) -> Submission:
    """Scripts of the next submission; nothing is written.

    Parameters
    ----------
    builder
        How to build on a node, and the folder: each submission has a numbered one in that.
    rows
        Rows to build, one task each.
    device
        For ``--device`` of a build.
    options
        Of sbatch.

    Raises
    ------
    SlurmError
        If an option or path cannot stand in a script.
    """
    batch, launcher = builder.folder, builder.command
    parent = batch.books / SUBMISSIONS
    folder = parent / f"{1 + max(map(_number, _folders(parent)), default=0):03d}"
    at_a_time = f"%{options.max_running}" if options.max_running else ""
    limits = {
        "array": f"0-{len(rows) - 1}{at_a_time}",
        "output": f"{_pattern(folder)}/task-%a.out",
        "gres": options.gres,
        "time": options.time,
        "mem": options.mem,
        "cpus-per-task": str(options.cpus or ""),
        "signal": f"B:TERM@{WARNING_SECONDS}",
    }
    common = {"job-name": f"angelo-{batch.path.name}", "partition": options.partition}
    task = [*launcher, "batch-task", str(folder / ROWS), "--out", str(batch.path)]
    task += ["--device", device, *(["--overwrite"] if builder.overwrite else [])]
    # The shell gives way to the command, which then gets Slurm's signals itself.
    work = (
        f"exec {shlex.join(task)} "
        '--threads "${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-0}}" '
        '--row "$SLURM_ARRAY_TASK_ID"'
    )
    sum_up = f"exec {shlex.join([*launcher, 'batch-summary', str(batch.path), '--ended'])}"
    last = {**SUMMARY_LIMITS, "output": f"{_pattern(folder)}/summary.out"}
    flags = ["--open-mode=append", *options.more]
    scripts = {
        ARRAY: _script({**common, **limits}, ["--requeue", *flags], work),
        SUMMARY: _script({**common, **last}, flags, sum_up),
        SUBMIT: _submit_script(folder),
    }
    return Submission(folder, tuple(rows), scripts)


def _script(directives: dict[str, str], flags: Sequence[str], work: str) -> str:
    lines = [f"--{key}={_quoted(value)}" for key, value in directives.items() if value]
    lines += flags
    if any("\n" in line for line in lines):
        raise SlurmError("an option for Slurm has a line break in it; write it on one line")
    head = ["#!/bin/bash", *(f"#SBATCH {line}" for line in lines)]
    return "\n".join([*head, "export ORT_DISABLE_TELEMETRY=1", work, ""])


def _submit_script(folder: Path) -> str:
    """Submit both jobs, and note their numbers."""
    array, summary, jobs = (shlex.quote(str(folder / n)) for n in (ARRAY, SUMMARY, JOBS))
    return (
        "#!/bin/sh\n"
        "# Submits the array, and the summary that starts when all its tasks have ended.\n"
        "set -e\n"
        f"array=$(sbatch --parsable {array})\n"
        f'echo "${{array%%;*}}" > {jobs}\n'
        f'summary=$(sbatch --parsable --dependency="afterany:${{array%%;*}}" {summary})\n'
        f'echo "${{summary%%;*}}" >> {jobs}\n'
        'echo "array ${array%%;*}, summary ${summary%%;*}"\n'
    )


def _quoted(value: str) -> str:
    """Value of a directive, which sbatch splits at blanks."""
    return f'"{value}"' if any(letter in value for letter in " \t'#") else value


def _pattern(path: Path) -> str:
    """Path in which sbatch is to replace nothing."""
    return str(path).replace("%", "%%")


def can_submit() -> bool:
    """Whether sbatch is here."""
    return shutil.which("sbatch") is not None


def submit(submission: Submission) -> tuple[str, ...]:
    """Submit a written submission; returns the numbers of the array and the summary.

    Raises
    ------
    SlurmError
        If there is no sbatch, or it refuses.
    """
    command = submission.submit_command
    if not can_submit():
        raise SlurmError(
            f"sbatch is not on the PATH; on a submit host, run: {shlex.join(command)}"
        )
    answer = subprocess.run(command, capture_output=True, text=True)
    jobs = _jobs(submission.folder)
    if answer.returncode:
        reason = " ".join(answer.stderr.split()) or f"exit code {answer.returncode}"
        begun = f"; the array is queued as {jobs[0]}, without a summary" if jobs else ""
        raise SlurmError(
            f"sbatch refused: {reason}{begun}. The scripts are in {submission.folder}"
        )
    return jobs


def queued_array(batch: BatchFolder) -> str:
    """Find this batch's last array in Slurm's queue; empty if it is not there, or not known."""
    numbered = sorted(_folders(batch.books / SUBMISSIONS), key=_number)
    submitted = [jobs[0] for folder in numbered if (jobs := _jobs(folder))]
    if not submitted or shutil.which("squeue") is None:
        return ""
    answer = subprocess.run(
        ["squeue", "--noheader", f"--jobs={submitted[-1]}"], capture_output=True, text=True
    )
    # Of a job that it has forgotten squeue says that there is none such, and fails.
    is_queued = answer.returncode == 0 and answer.stdout.strip()
    return submitted[-1] if is_queued else ""


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.glob("[0-9]*") if path.is_dir()]


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isascii() and folder.name.isdigit() else 0


def _jobs(folder: Path) -> tuple[str, ...]:
    """Numbers of the submitted jobs, the array first."""
    try:
        return tuple((folder / JOBS).read_text().split())
    except OSError:
        return ()
