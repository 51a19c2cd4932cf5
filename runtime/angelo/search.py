"""A search: the chains of a run against a database of sequences, and the files it writes."""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gemmi

from angelo import __version__
from angelo.database import Database
from angelo.errors import OutputError
from angelo.hits import Hit, best_hits, find_hits
from angelo.mmcif import describe_chains
from angelo.processors import usable_cpus
from angelo.profiles import ProfileHmm, read_profiles
from angelo.report.hits import hits_csv, hits_fasta
from angelo.run_folder import (
    PROGRAM,
    RUN_RECORD,
    SEARCH,
    lock_folder,
    make_folder,
    write_files,
)

log = logging.getLogger(__name__)

#: Files of a search besides the model.
ALL_HITS, BEST_HITS, BEST_SEQUENCES = "all_hits.csv", "best_hits.csv", "best_hits.fasta"
SEARCH_RECORD = "search.json"
#: What is added to the name of a model whose chains are named after their hits.
NAMED = "_named.cif"


@dataclass(frozen=True, slots=True)
class SearchJob:
    """Which chains to look for, where, and how."""

    run: Path
    """Run folder of a finished build."""
    database: Path
    """FASTA file, plain or gzipped."""
    max_e_value: float = 1e-3
    """Chains are named after hits up to this one."""
    threads: int = 0
    """CPU threads; 0: as many as this process may use."""
    out: Path | None = None
    """Where files go; None: folder ``search`` of the run."""
    overwrite: bool = False
    """Replace an earlier search there."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files in the folder."""
    build_arguments: tuple[str, ...]
    """Map and options with which the chains were built."""
    chains: Mapping[str, int]
    """Length of every chain that was looked for."""
    hits: tuple[Hit, ...]
    """By chain, best first."""
    named: tuple[Hit, ...]
    """Best hits that chains are named after."""
    n_sequences: int
    """Proteins in the database."""
    skipped: Mapping[str, int]
    """Records left out, by the reason."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What a search needs of a finished build."""

    model: Path
    """All chains."""
    profiles: tuple[ProfileHmm, ...]
    numbers: dict[str, list[int]]
    """Residue numbers of each chain in the model."""


def search_database(
    job: SearchJob, progress: Callable[[str, int, int], None] | None = None
) -> SearchResult:
    """Look for the chains of a run in a database; write tables, sequences and a named model.

    Files are written at the end, all or none.

    Raises
    ------
    OutputError
        If the folder is not a finished run with profiles, holds a search already, or cannot be
        written to.
    SequenceError
        If the database cannot be used.
    """
    record = _read_record(job.run)
    folder = job.out or job.run / SEARCH

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress("search", done, total)

    lock = lock_folder(job.run)
    try:
        run = _read_run(job.run, record)
        if not job.overwrite:
            _refuse_to_replace(folder, run)
        tell(0, 1)
        database = Database(job.database)
        hits = find_hits(run.profiles, database, job.threads or usable_cpus(), tell)
        named = best_hits(hits, job.max_e_value)
        files = _write(folder, run, hits, named, _facts(job, database, named))
    finally:
        if lock is not None:
            os.close(lock)
    return SearchResult(
        folder=folder,
        files=files,
        build_arguments=_build_arguments(record),
        chains={profile.name: profile.M for profile in run.profiles},
        hits=hits,
        named=named,
        n_sequences=database.n_sequences,
        skipped=database.skipped,
    )


def _read_record(path: Path) -> dict[str, Any]:
    """Read the record of a finished run."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise OutputError(f"{path}: {what}; give the folder that angelo build wrote")
    try:
        record = json.loads((path / RUN_RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        record = None
    if not isinstance(record, dict) or record.get("program") != PROGRAM:
        raise OutputError(
            f"{path}: is not a run of angelo (no readable {RUN_RECORD}); give the folder that "
            "angelo build wrote"
        )
    if record.get("status") != "finished":
        raise OutputError(
            f"{path}: the run there is not finished; give its build command again first"
        )
    return record


def _read_run(path: Path, record: Mapping[str, Any]) -> _Run:
    """Read model and profiles."""
    names = [name for name in record.get("files", []) if Path(name).name == name]
    # Of pruned and raw model the raw one, whose chains have the profiles, has the longer name.
    models = sorted((name for name in names if name.endswith(".cif")), key=len)
    profiles = [name for name in names if name.endswith(".hmm")]
    if not models or not profiles:
        raise OutputError(
            f"{path}: the run has no profiles, as no chain of it is long enough or an older "
            "angelo made it. Build it again with --overwrite, or give another run"
        )
    found = read_profiles(path / profiles[0])
    numbers = _residue_numbers(path / models[-1])
    for profile in found:
        if len(numbers.get(profile.name, ())) != profile.M:
            raise OutputError(
                f"{path}: {profiles[0]} does not fit {models[-1]} (chain {profile.name}). "
                "Build it again with --overwrite"
            )
    return _Run(path / models[-1], found, numbers)


def _build_arguments(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Arguments of angelo build that say what map it was, as far as the record tells."""
    settings = {**record, **record.get("inputs", {})}
    arguments = [str(settings.get("map", "MAP"))]
    for name in ("half_map", "mask", "voxel_size", "hand", "dna", "rna"):
        if (value := settings.get(name)) not in (None, "check"):
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return tuple(arguments)


def _residue_numbers(model: Path) -> dict[str, list[int]]:
    try:
        structure = gemmi.read_structure(str(model))
    except (OSError, ValueError, RuntimeError) as error:
        raise OutputError(
            f"{model}: cannot be read ({error}). Build it again with --overwrite"
        ) from None
    return {
        chain.name: [number for residue in chain if (number := residue.seqid.num) is not None]
        for chain in structure[0]
    }


def _refuse_to_replace(folder: Path, run: _Run) -> None:
    names = (ALL_HITS, BEST_HITS, BEST_SEQUENCES, SEARCH_RECORD, _named_model(run))
    if present := [name for name in names if (folder / name).exists()]:
        raise OutputError(
            f"{folder}: holds {present[0]} already. Give --overwrite to replace that search, "
            "or another folder with -o"
        )


def _named_model(run: _Run) -> str:
    return f"{run.model.stem}{NAMED}"


def _facts(job: SearchJob, database: Database, named: Sequence[Hit]) -> dict[str, Any]:
    """Say what was searched and found, for the record."""
    return {
        "program": PROGRAM,
        "version": __version__,
        "database": str(job.database.resolve()),
        "database_bytes": database.n_bytes,
        "sequences": database.n_sequences,
        "residues": database.n_residues,
        "left_out": dict(database.skipped),
        "max_e_value": job.max_e_value,
        "chains": {hit.chain: hit.target.name for hit in named},
    }


def _write(
    folder: Path, run: _Run, hits: Sequence[Hit], named: Sequence[Hit], facts: dict[str, Any]
) -> tuple[str, ...]:
    descriptions = {hit.chain: (_name_of(hit), _evidence(hit)) for hit in named}
    texts = {
        ALL_HITS: hits_csv(hits, run.numbers),
        BEST_HITS: hits_csv(best_hits(hits), run.numbers),
        BEST_SEQUENCES: hits_fasta(named),
        _named_model(run): describe_chains(run.model.read_text(encoding="utf-8"), descriptions),
        SEARCH_RECORD: json.dumps(facts, indent=2) + "\n",
    }
    make_folder(folder)
    write_files({folder / name: text for name, text in texts.items()})
    return tuple(texts)


def _name_of(hit: Hit) -> str:
    return f"{hit.target.name} {hit.target.description}".rstrip()


def _evidence(hit: Hit) -> str:
    """Why the chain is named after the hit."""
    return (
        f"named by angelo search: E-value {hit.e_value:.2g}, {hit.n_identical} of "
        f"{hit.n_aligned} aligned residues built as the type of the sequence"
    )
