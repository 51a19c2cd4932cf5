"""Commands of a batch: parse, check, build or submit, report."""

import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from angelo.guard import EXIT_BUG, EXIT_NOTHING, EXIT_STOPPED, EXIT_USER, Guard, complain

if TYPE_CHECKING:  # load ONNX Runtime, which help and usage errors do without
    from angelo.batch.build import Builder, Worker
    from angelo.batch.columns import Column
    from angelo.batch.folder import BatchFolder, Outcome
    from angelo.batch.row import Row
    from angelo.batch.slurm import SlurmOptions

SLURM = "Slurm"
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder; each row gets one in it.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Build again rows that were changed since.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")]


def batch(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST",
            help="Tab-separated table: a header line, then one map a row. Columns: name, map, "
            "fasta, and options of `angelo build`: mask, half_map, voxel_size, bundle ...",
        ),
    ],
    out: Out,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda (all GPUs), or cuda:0,1: one worker a GPU.")
    ] = "auto",
    workers: Annotated[
        int, typer.Option(min=0, help="Builds at a time on the processor; 0: one a 4 threads.")
    ] = 0,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of all builds together; 0: one per core.")
    ] = 0,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; write nothing.")
    ] = False,
    launcher: Annotated[
        str,
        typer.Option(help='What goes before angelo, as "apptainer exec --nv angelo.sif".'),
    ] = "",
    slurm: Annotated[
        bool,
        typer.Option(
            "--slurm", help="Submit a job array and a summary.", rich_help_panel=SLURM
        ),
    ] = False,
    partition: Annotated[str, typer.Option(rich_help_panel=SLURM)] = "",
    gres: Annotated[str, typer.Option(help="Such as gpu:1.", rich_help_panel=SLURM)] = "",
    time: Annotated[str, typer.Option(help="Limit of a map.", rich_help_panel=SLURM)] = "",
    mem: Annotated[str, typer.Option(help="Memory of a map.", rich_help_panel=SLURM)] = "",
    cpus: Annotated[
        int, typer.Option(min=0, help="Cores of a map.", rich_help_panel=SLURM)
    ] = 0,
    max_running: Annotated[
        int, typer.Option(min=0, help="Maps at a time; 0: any number.", rich_help_panel=SLURM)
    ] = 0,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            help="Any other option, as --sbatch=--account=x; repeatable.", rich_help_panel=SLURM
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Build into many maps: the rows of MANIFEST.

    All rows are checked first. A row that fails does not stop the others. The same command
    again leaves rows that have a result alone and tries the others. A table and a page sum up.
    """
    with Guard(debug):
        from angelo.batch.build import Builder
        from angelo.batch.folder import BatchFolder
        from angelo.batch.launcher import launcher_for_nodes, launcher_here
        from angelo.batch.rows import read_rows
        from angelo.batch.slurm import SlurmOptions
        from angelo.batch.workers import plan_workers
        from angelo.child import angelo_command
        from angelo.cli import map_name

        rows = read_rows(manifest, _columns(), map_name, look_for_bundles=not launcher)
        folder = BatchFolder(out)
        folder.check()
        to_do = folder.to_do(rows, overwrite=overwrite)
        typer.echo(f"{len(rows)} maps, {len(to_do)} to build", err=True)
        if slurm:
            more = tuple(sbatch or ())
            options = SlurmOptions(partition, gres, time, mem, cpus, max_running, more)
            words = launcher_for_nodes(launcher, angelo_command(), gpu=options.wants_gpu)
            builder = Builder(folder, words, overwrite=overwrite)
            _submit_rows(builder, rows, to_do, device, options, dry_run)
        else:
            words = launcher_here(launcher, angelo_command())
            builder = Builder(folder, words, overwrite=overwrite)
            team = plan_workers(device, workers, threads, len(to_do), try_gpus=not launcher)
            _build_here(builder, rows, to_do, team, dry_run)


def batch_task(
    rows_file: Annotated[
        Path, typer.Argument(metavar="ROWS", help="rows.json of a submission.")
    ],
    out: Out,
    number: Annotated[int, typer.Option("--row", min=0, help="Which of them, from 0.")],
    device: Annotated[str, typer.Option()] = "auto",
    threads: Annotated[int, typer.Option(min=0)] = 0,
    overwrite: Overwrite = False,
    debug: Debug = False,
) -> None:
    """Build one row of a submitted batch: what a task of the job array does."""
    with Guard(debug):
        from angelo.batch.build import Builder, Worker, describe
        from angelo.batch.folder import BatchFolder, read_rows_file
        from angelo.child import angelo_command, stop_signals
        from angelo.errors import OutputError

        folder, rows = BatchFolder(out), read_rows_file(rows_file)
        if number >= len(rows):
            raise OutputError(f"{rows_file}: has rows 0 to {len(rows) - 1}, no row {number}")
        row = rows[number]
        if not folder.to_do([row], overwrite=overwrite):
            typer.echo(f"{row.name}: has a result already")
            return
        builder = Builder(folder, angelo_command(), overwrite=overwrite)
        with stop_signals() as stopped:
            outcome = builder.build(row, Worker(device, threads), stopped.is_set)
        typer.echo(f"{row.name}: {describe(outcome, folder.run_record(row))}")
        if outcome.state == "stopped":
            raise typer.Exit(EXIT_STOPPED)
        if outcome.state == "failed":
            raise typer.Exit(max(EXIT_BUG, outcome.exit_code or EXIT_BUG))


def batch_summary(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a batch.")],
    ended: Annotated[
        bool,
        typer.Option("--ended", help="No build runs any more; those that say so were stopped."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the table and the page of a batch anew, as far as it has come."""
    with Guard(debug):
        from angelo.batch.folder import BatchFolder

        folder = BatchFolder(out)
        _sum_up(folder, folder.rows(), has_ended=ended)


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(batch)
    app.command("batch-summary")(batch_summary)
    app.command("batch-task", hidden=True)(batch_task)


def _columns() -> "dict[str, Column]":
    """Columns that a manifest may have: arguments and options of ``angelo build``."""
    from angelo.batch.columns import columns_of
    from angelo.cli import app, build

    commands: Any = typer.main.get_command(app)
    return columns_of(commands.commands["build"], build)


def _build_here(
    builder: "Builder",
    rows: "Sequence[Row]",
    to_do: "Sequence[Row]",
    workers: "Sequence[Worker]",
    dry_run: bool,
) -> None:
    """Build on this machine, then sum up and end with the batch's exit code."""
    from angelo.batch.build import describe
    from angelo.batch.workers import build_rows
    from angelo.child import stop_signals

    folder = builder.folder
    if dry_run:
        for row in to_do:
            typer.echo(shlex.join(builder.command_of(row, workers[0])))
        return
    numbers = itertools.count(1)

    def tell(row: "Row", outcome: "Outcome") -> None:
        said = describe(outcome, folder.run_record(row))
        typer.echo(f"[{next(numbers)}/{len(to_do)}] {row.name}: {said}", err=True)

    lock = folder.claim(rows)
    try:
        with stop_signals() as stopped:
            build_rows(builder, to_do, workers, stopped, tell)
        counts = _sum_up(folder, rows, has_ended=True)
    finally:
        if lock is not None:
            os.close(lock)
    if stopped.is_set():
        complain("stopped; the same command goes on where it was")
        raise typer.Exit(EXIT_STOPPED)
    if failed := sum(counts.get(state, 0) for state in ("failed", "stopped")):
        complain(f"{failed} of {len(rows)} maps failed; the same command tries them again")
        raise typer.Exit(EXIT_USER)
    if "no model" in counts:
        raise typer.Exit(EXIT_NOTHING)


def _submit_rows(
    builder: "Builder",
    rows: "Sequence[Row]",
    to_do: "Sequence[Row]",
    device: str,
    options: "SlurmOptions",
    dry_run: bool,
) -> None:
    """Submit an array of what is to do, and a summary."""
    from angelo.batch import slurm
    from angelo.batch.launcher import image_of_this_process

    folder = builder.folder
    if array := slurm.queued_array(folder):
        raise slurm.SlurmError(
            f"{folder.path}: array {array} of this batch is still in Slurm's queue. Wait for "
            f"it, or take it out: scancel {array}"
        )
    if not to_do:
        if not dry_run:
            _sum_up(folder, rows, has_ended=True)
        return
    if device == "auto" and options.wants_gpu:
        device = "cuda"  # a task that finds no GPU is to say so, not to crawl
    submission = slurm.plan_submission(builder, to_do, device, options)
    if dry_run:
        for name, text in submission.scripts.items():
            typer.echo(f"# ---- {name}\n{text}")
        return
    lock = folder.claim(rows)
    try:
        submission.write()
        if image_of_this_process() and not slurm.can_submit():
            typer.echo(
                f"not submitted: no sbatch in this image. On a submit host, run:\n"
                f"{shlex.join(submission.submit_command)}"
            )
            return
        array, summary = slurm.submit(submission)
    finally:
        if lock is not None:
            os.close(lock)
    typer.echo(
        f"array {array} builds {len(to_do)} maps, job {summary} sums up in "
        f"{folder.path / 'summary.html'}; squeue --me shows them"
    )


def _sum_up(folder: "BatchFolder", rows: "Sequence[Row]", *, has_ended: bool) -> dict[str, int]:
    """Write table and page, say how many rows there are of each state, and return that."""
    from angelo.batch.summary import count_states, summarise_batch, write_summary

    records = summarise_batch(folder, rows, has_ended=has_ended)
    paths = write_summary(folder, records)
    counts = count_states(records)
    typer.echo(", ".join(f"{n} {state}" for state, n in counts.items()))
    typer.echo("\n".join(map(str, paths)))
    return counts
