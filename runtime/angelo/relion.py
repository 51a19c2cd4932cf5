"""angelo as a RELION job: takes ModelAngelo's command line, speaks to RELION by marker files.

RELION (5.0) starts the program that its ModelAngelo job names, as

    relion_angelo build -pf proteins.fasta -v map.mrc -o ModelAngelo/job012/ -d 0
        --pipeline-control ModelAngelo/job012/

(``build_no_seq`` without sequences, ``hmm_search`` after that), and adds the last option only
where the command contains "relion_". It takes the job for ended when one of the files
``RELION_JOB_EXIT_*`` appears in its folder, wants the model as ``job012/job012.cif``, and asks
for an end by ``RELION_JOB_ABORT_NOW``. A job of type External is told its map as
``--in_3dref`` and is to name its results in ``RELION_OUTPUT_NODES.star``.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn

import typer

from angelo.child import angelo_command, run_child, stop_signals
from angelo.errors import OutputError, UserError
from angelo.guard import EXIT_NOTHING, EXIT_USER, complain
from angelo.run_folder import RUN_RECORD, make_folder, output_error, write_file, write_files

#: How a job ends; RELION knows these words from the names of its marker files.
Ending = Literal["SUCCESS", "FAILURE", "ABORTED"]
ENDINGS: tuple[Ending, ...] = ("SUCCESS", "FAILURE", "ABORTED")
EXIT_MARKER = "RELION_JOB_EXIT_{}"
ABORT_REQUEST = "RELION_JOB_ABORT_NOW"
NODES = "RELION_OUTPUT_NODES.star"
#: RELION's name for what an External job gives: a file of atomic coordinates.
NODE_TYPE = "AtomCoords.cif"
#: Endings of the files of a run that are also put into the job's folder.
SHOWN = (".cif", ".html", ".csv", ".json", ".hmm")
#: Sensitivity that ModelAngelo's search takes, and HMMER's own values, which angelo uses.
HMMER_DEFAULTS = {"F1": 0.02, "F2": 1e-3, "F3": 1e-5, "E": 10.0, "T": None}
#: Exit code of a job that was asked to end.
EXIT_ABORTED = 1


class UsageError(UserError):
    """The command line is not one that this program understands."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like others: RELION has to hear of them."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see relion_angelo --help")


def run() -> None:
    """Run the program; the entry point of the package."""
    sys.exit(main(sys.argv[1:]))


def main(words: Sequence[str]) -> int:
    """Do what a command line says; returns the exit code.

    Whatever happens, a marker file tells RELION how the job ended, if it asked for that.
    """
    job, is_controlled = _job_of(words)
    try:
        if is_controlled:
            make_folder(job)
            _remove_markers(job)
        ending, code = _do(_parser().parse_known_args(words), job)
    except UserError as error:
        complain(str(error))
        ending, code = "FAILURE", EXIT_USER
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:  # --help
            return 0
        if is_controlled:
            _mark(job, "FAILURE")
        raise
    if is_controlled:
        _mark(job, ending)
    return code


def _job_of(words: Sequence[str]) -> tuple[Path, bool]:
    """Folder of the job, and whether RELION controls it; of a wrong command line too."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    _add_job_options(parser)
    known, _ = parser.parse_known_args(words)
    return Path(known.out), known.pipeline_control is not None


def _add_job_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--o", "--output-dir", dest="out", default="output", metavar="DIR"
    )
    # RELION gives the folder once more; ModelAngelo's own flag has no value.
    parser.add_argument(
        *("--pipeline-control", "--pipeline_control"),
        nargs="?",
        const="",
        help=argparse.SUPPRESS,
    )


def _parser() -> argparse.ArgumentParser:
    """Options of ModelAngelo that mean something here, by the same names."""
    parser = _Parser(
        prog="relion_angelo",
        description="angelo as a job of RELION, with the command line of ModelAngelo.",
        epilog="Other options are passed on to `angelo build`.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for name, about in (
        ("build", "build a model from a map and sequences"),
        ("build_no_seq", "build a model from a map alone"),
    ):
        build = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        _add_job_options(build)
        maps = build.add_mutually_exclusive_group(required=True)
        maps.add_argument("-v", "--v", "--volume-path", dest="map", metavar="MAP")
        maps.add_argument("--in_3dref", metavar="MAP", help="the map, as External jobs name it")
        build.add_argument("-m", "--m", "--mask-path", "--in_mask", dest="mask", metavar="MASK")
        build.add_argument("-d", "--d", "--device", dest="device", nargs="?", default="")
        build.add_argument("--j", dest="threads", type=int, default=0, metavar="THREADS")
        build.add_argument("--model-bundle-path", "--model-bundle-name", dest="bundle")
        if name == "build":
            proteins = ("-pf", "--pf", "-f", "--f", "--protein-fasta", "--fasta-path")
            build.add_argument(*proteins, dest="proteins", metavar="FASTA")
            build.add_argument("-df", "--df", "--dna-fasta", dest="dna", metavar="FASTA")
            build.add_argument("-rf", "--rf", "--rna-fasta", dest="rna", metavar="FASTA")
    about = "find the proteins of a model in a database of sequences"
    search = commands.add_parser(
        "hmm_search", help=about, description=about, allow_abbrev=False
    )
    _add_job_options(search)
    search.add_argument("-i", "--i", "--input-dir", dest="built", required=True, metavar="DIR")
    search.add_argument("-f", "--f", "--fasta-path", dest="database", required=True)
    search.add_argument("-a", "--a", "--alphabet", dest="alphabet", default="amino")
    search.add_argument("--j", dest="threads", type=int, default=0, metavar="THREADS")
    for option, value in HMMER_DEFAULTS.items():
        search.add_argument(f"--{option}", type=float, default=value, help=argparse.SUPPRESS)
    return parser


def _do(parsed: tuple[argparse.Namespace, list[str]], job: Path) -> tuple[Ending, int]:
    """Run the angelo command that a command line stands for."""
    options, others = parsed
    make_folder(job)
    if options.command == "hmm_search":
        words = _search_words(options, others, job)
        good = {0, EXIT_NOTHING}  # a search that finds nothing has its answer
    else:
        words = _build_words(options, others, _run_folder(job))
        good = {0}
    typer.echo(shlex.join(["angelo", *words]))
    code = _run_until_abort(words, job / ABORT_REQUEST)
    if code is None:
        complain("aborted; the job goes on from its last finished stage if it is continued")
        return "ABORTED", EXIT_ABORTED
    if options.command != "hmm_search":
        _show_files(job)
        if options.in_3dref and code in good:
            _write_nodes(job)
    if code in good:
        return "SUCCESS", 0
    return "FAILURE", code if code > 0 else EXIT_USER


def _run_until_abort(words: list[str], request: Path) -> int | None:
    """Exit code of an angelo command; None if RELION, or a signal, ended it."""
    with stop_signals() as stopped:

        def is_stopped() -> bool:
            return stopped.is_set() or request.exists()

        code = None if is_stopped() else run_child([*angelo_command(), *words], is_stopped)
        was_stopped = is_stopped()
    request.unlink(missing_ok=True)
    return None if was_stopped and code != 0 else code


def _run_folder(job: Path) -> Path:
    """Folder of the run, which angelo wants to itself: the job's holds files of RELION."""
    return job / job.resolve().name


def _build_words(options: argparse.Namespace, others: list[str], run: Path) -> list[str]:
    """Command line of ``angelo`` for a build."""
    words = ["build", options.map or options.in_3dref]
    if options.command == "build":
        given = {"--dna": options.dna, "--rna": options.rna}
        nucleic = [word for option, path in given.items() if path for word in (option, path)]
        if not options.proteins and not nucleic:
            raise UsageError(
                "no sequences (-pf, -df, -rf); a build without sequences is build_no_seq"
            )
        words += [options.proteins] if options.proteins else []
        words += nucleic
    words += ["--out", str(run), "--device", device_of(options.device or "")]
    if options.mask:
        words += ["--mask", options.mask]
    if options.bundle:
        words += ["--bundle", options.bundle]
    if options.threads:
        words += ["--threads", str(options.threads)]
    return [*words, *others]


def _search_words(options: argparse.Namespace, others: list[str], job: Path) -> list[str]:
    """Command line of ``angelo`` for a search."""
    if options.alphabet != "amino":
        raise UsageError(f"--alphabet {options.alphabet}: angelo searches among proteins only")
    unused = [
        f"--{name}" for name, value in HMMER_DEFAULTS.items() if getattr(options, name) != value
    ]
    if unused + others:
        typer.echo(f"note: not used: {' '.join(unused + others)}")
    built = Path(options.built)
    run = built if (built / RUN_RECORD).is_file() else _run_folder(built)
    words = ["search", str(run), options.database, "--out", str(job / "search"), "--overwrite"]
    return [*words, "--threads", str(options.threads)] if options.threads else words


def device_of(text: str) -> str:
    """Device as ``angelo`` names it, for ModelAngelo's: empty, ``cpu``, or ``0,1``."""
    word = text.strip()
    if not word:
        return "auto"
    is_number = word.replace(",", "").replace(" ", "").isdigit()
    return f"cuda:{word}" if is_number else word


def _show_files(job: Path) -> None:
    """Put what a run wrote where RELION and its users look for it: into the job's folder."""
    run = _run_folder(job)
    try:
        names = json.loads((run / RUN_RECORD).read_text()).get("files", [])
    except (OSError, ValueError):
        return
    shown = [name for name in names if "/" not in name and name.endswith(SHOWN)]
    try:
        write_files({job / name: (run / name).read_bytes() for name in shown})
    except OSError as error:
        raise output_error(job, error) from error


def _write_nodes(job: Path) -> None:
    """Tell RELION which file of an External job is a result."""
    name = job.resolve().name
    heads = "_rlnPipeLineNodeName #1\n_rlnPipeLineNodeTypeLabel #2\n"
    row = f"{job / name}.cif {NODE_TYPE}\n"
    write_file(job / NODES, f"data_output_nodes\n\nloop_\n{heads}{row}\n")


def _remove_markers(job: Path) -> None:
    """Forget how an earlier run of the job ended."""
    for ending in ENDINGS:
        (job / EXIT_MARKER.format(ending)).unlink(missing_ok=True)


def _mark(job: Path, ending: Ending) -> None:
    """Tell RELION how the job ended."""
    path = job / EXIT_MARKER.format(ending)
    try:
        path.touch()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror})") from error
