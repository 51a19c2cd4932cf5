"""Command line: parse, call the pipeline, report. No science here."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from angelo import __version__
from angelo.batch import command as batch_commands
from angelo.console import StageProgress, hits_table, summary_panel
from angelo.errors import NoProteinError, NothingBuiltError
from angelo.guard import EXIT_USER, Guard

#: Endings that a map's name loses when the run folder is named after it.
MAP_ENDINGS = (".gz", ".bz2", ".mrc", ".map", ".ccp4")


class BuildByDefault(typer.core.TyperGroup):
    """A group in which ``angelo MAP FASTA`` stands for ``angelo build MAP FASTA``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``build`` first where the first argument looks like a file."""
        if args and args[0] not in self.commands and _looks_like_a_file(args[0]):
            args = ["build", *args]
        return super().parse_args(ctx, args)


def _looks_like_a_file(argument: str) -> bool:
    if argument.startswith("-"):
        return False
    return "/" in argument or "." in argument or Path(argument).exists()


app = typer.Typer(
    cls=BuildByDefault,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> None:
    """Run the command line; the entry point of the package."""
    app()


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"angelo {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Atomic protein models from cryo-EM maps. `angelo MAP FASTA` is all it takes."""


@app.command()
def build(
    map_path: Annotated[
        Path, typer.Argument(metavar="MAP", help="MRC or CCP4 map, plain, .gz or .bz2.")
    ],
    fasta_path: Annotated[
        Path | None,
        typer.Argument(metavar="[FASTA]", help="Sequences to look for, if known."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Run folder; if none is given, ./<map name>_angelo."),
    ] = None,
    bundle: Annotated[
        str, typer.Option(help="Networks: a bundle's name or folder; see `angelo bundles`.")
    ] = "compact",
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:N, or cuda:0,1 to share the search.")
    ] = "auto",
    mask: Annotated[
        Path | None, typer.Option(help="Mask of the molecule, 0 to 1, on the grid of MAP.")
    ] = None,
    dna: Annotated[
        Path | None,
        typer.Option(help="Sequences of DNA, for bundles that know nucleotides."),
    ] = None,
    rna: Annotated[
        Path | None,
        typer.Option(help="Sequences of RNA, for bundles that know nucleotides."),
    ] = None,
    half_map: Annotated[
        Path | None,
        typer.Option(help="The other half-map, where MAP is one: their mean is used."),
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option(help="Å; replaces the voxel size of the map's header.")
    ] = None,
    hand: Annotated[
        Literal["check", "auto", "keep"],
        typer.Option(
            help="Say if MAP looks mirrored; build into its mirror image then; do not look."
        ),
    ] = "check",
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same model.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")
    ] = False,
    keep_stages: Annotated[
        bool, typer.Option(help="Keep the data from which a stopped run continues.")
    ] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")] = False,
) -> None:
    """Build an atomic model from MAP and FASTA, or without FASTA from MAP alone.

    A stopped run goes on where it was when the same command is given again.
    """
    with Guard(debug) as guard:
        # Not at the top: help and usage errors need not wait for the libraries to load.
        from angelo.job import BuildJob
        from angelo.pipeline import build_model

        job = BuildJob(
            map_path=map_path,
            fasta_path=fasta_path,
            out=out or Path(f"{map_name(map_path)}_angelo"),
            bundle=bundle,
            device=device,
            mask_path=mask,
            half_map_path=half_map,
            voxel_size=voxel_size,
            hand=hand,
            seed=seed,
            threads=threads,
            overwrite=overwrite,
            keep_stages=keep_stages,
            dna_path=dna,
            rna_path=rna,
        )
        with StageProgress(guard.console) as progress:
            result = build_model(job, progress.update)
        Console().print(summary_panel(result))
        if result.nothing_matched:
            files = ", ".join(map(str, job.sequence_files.values()))
            raise NothingBuiltError(
                f"no built chain matches a sequence of {files}; what was built without "
                f"one is in {result.folder}. Likely reasons: {result.why_nothing_matched}"
            )


def map_name(path: Path) -> str:
    """Name of a map file without the endings of maps and compression."""
    name = path.name
    while (stem := Path(name).stem) != name and Path(name).suffix.lower() in MAP_ENDINGS:
        name = stem
    return name


@app.command()
def search(
    run_folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="Run folder that angelo build wrote.")
    ],
    database: Annotated[
        Path, typer.Argument(metavar="DATABASE", help="Protein sequences, FASTA, plain or .gz.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to write; if none is given, OUT/search."),
    ] = None,
    max_e_value: Annotated[
        float, typer.Option(min=0, help="Chains are named after hits up to this E-value.")
    ] = 1e-3,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier search in the folder.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")] = False,
) -> None:
    """Find out which proteins the chains of a run are, among the sequences of a database."""
    with Guard(debug) as guard:
        from angelo.search import BEST_SEQUENCES, SearchJob, search_database

        job = SearchJob(run_folder, database, max_e_value, threads, out, overwrite)
        with StageProgress(guard.console) as progress:
            result = search_database(job, progress.update)
        Console().print(hits_table(result))
        typer.echo(f"written to {result.folder}: {', '.join(result.files)}")
        if not result.named:
            raise NothingBuiltError(
                f"no chain resembles a sequence of {database} (none has an E-value of at most "
                f"{max_e_value:g}). Likely reasons: the database lacks these proteins, or the "
                "resolution is too low to tell residue types"
            )
        map_path, *options = result.build_arguments
        again = [map_path, str(result.folder / BEST_SEQUENCES), *options]
        again += ["-o", f"{run_folder}_hits"]
        typer.echo(f"to build with the proteins found: angelo {shlex.join(again)}")


@app.command()
def evaluate(
    built: Annotated[Path, typer.Argument(metavar="BUILT", help="mmCIF or PDB file to judge.")],
    deposited: Annotated[
        Path, typer.Argument(metavar="DEPOSITED", help="mmCIF or PDB file to judge it by.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")] = False,
) -> None:
    """Compare a built model with a deposited one; nothing is superposed.

    The stereochemistry of the built model, for which nothing else is needed, is shown as well.
    Nucleic acids are compared by their P atoms, where there are any.
    """
    with Guard(debug):
        from angelo.evaluate import evaluate as compare
        from angelo.evaluate import read_structure
        from angelo.nucleotide_evaluate import evaluate_nucleotide_files
        from angelo.validate import validate

        found = evaluate_nucleotide_files(built, deposited)
        nucleotides: dict[str, Any] = {} if found is None else found.as_dict()
        measures: dict[str, Any] = {}
        geometry: dict[str, Any] = {}
        try:
            model = read_structure(built)
            measures |= compare(model, read_structure(deposited)).as_dict()
            geometry |= validate(model).as_dict()
        except NoProteinError:
            if not nucleotides:
                raise
        measures |= nucleotides
        if as_json:
            measures |= {"geometry": geometry} if geometry else {}
            typer.echo(json.dumps(measures, indent=2))
            return
        table = Table("measure", "value")
        for name, value in (measures | geometry).items():
            shown = "-" if value is None else f"{value:.4g}"
            table.add_row(name.replace("_", " "), shown)
        Console().print(table)


@app.command()
def doctor(
    debug: Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")] = False,
) -> None:
    """Say what this machine can run; exit code 2 if something has to be fixed first."""
    with Guard(debug):
        from angelo.doctor import examine

        checks = examine(Path.cwd())
        table = Table("", "found", "to do")
        for check in checks:
            state = "fix" if check.fix and check.is_fatal else "note" if check.fix else "ok"
            row = (f"{check.name} [{state}]", check.found, check.fix)
            table.add_row(*map(escape, row))
        Console().print(table)
        if any(check.fix and check.is_fatal for check in checks):
            raise typer.Exit(EXIT_USER)


@app.command()
def bundles(
    debug: Annotated[bool, typer.Option("--debug", help="Full log and tracebacks.")] = False,
) -> None:
    """List the bundles (sets of networks) that are here, and where each lies.

    Folders of bundles: those in ANGELO_MODELS, separated by colons, then angelo's own.
    """
    with Guard(debug):
        from angelo.bundle import list_bundles, missing_folders

        for place in missing_folders():
            typer.secho(f"warning: ANGELO_MODELS names {place}: no such folder", err=True)
        table = Table("name", "version", "licence", "MB", "measured accuracy")
        table.add_column("folder", overflow="fold")
        for found in list_bundles():
            table.add_row(*map(escape, found.row))
        Console().print(table)


batch_commands.register(app)
