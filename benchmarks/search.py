"""EMD-3488 without sequences, then its chains among many sequences: is the truth found?

The database is the first sequences of a file, the true ones at its end. The same sequences
reversed tell how far E-values can be trusted: what is found among them is found by chance.
"""

import gzip
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import options
import typer
from builds import measure_in_own_process, own_peak_memory_mib
from provenance import ROOT, build_conditions, machine_facts, write_json
from report import markdown_table, replace_blocks
from rich.console import Console
from rich.table import Table

from angelo.coordinates import read_structure
from angelo.database import Database, Target
from angelo.evaluate import match_calphas
from angelo.hits import Hit
from angelo.job import BuildJob
from angelo.residues import AMINO_ACID_CODES
from angelo.search import SearchJob, SearchResult, search_database
from angelo.sequences import read_fasta
from angelo.types import SequenceRecord

#: Width of a table that goes to a file, characters.
LOG_WIDTH = 150
#: What is put before the name of a true sequence.
TRUTH = "truth|"
#: Reversed sequences with at most this E-value are counted; each chain should have one.
BY_CHANCE = 1.0
HEAD = ("chain", "is", "residues", "types right", "rank of the truth", "E-value", "bits")


@dataclass(frozen=True, slots=True)
class TrueChain:
    """What a built chain is in truth."""

    name: str
    """Deposited chain with which it shares most residues; empty if none."""
    record: SequenceRecord | None
    """Sequence of that chain."""
    n_matched: int
    """Built residues within 3 Å of one of that chain."""
    n_right: int
    """Those of them that have the deposited residue's type."""


@dataclass(frozen=True, slots=True)
class MeasuredSearch:
    """What a search gave and what it cost."""

    result: SearchResult
    seconds: float
    cpu_seconds: float
    peak_memory_mib: int | None


def true_chains(
    model: Path, reference: Path, records: Sequence[SequenceRecord]
) -> dict[str, TrueChain]:
    """Deposited chain and sequence of every built chain."""
    built, deposited = read_structure(model), read_structure(reference)
    of_built, of_deposited = match_calphas(built.calphas, deposited.calphas)
    right = built.residue_type[of_built] == deposited.residue_type[of_deposited]
    truth = {}
    for index, name in enumerate(built.chain_names):
        mine = built.chain[of_built] == index
        partners = Counter(deposited.chain[of_deposited[mine]].tolist())
        if not partners:
            truth[name] = TrueChain("", None, 0, 0)
            continue
        partner = partners.most_common(1)[0][0]
        same = mine.copy()
        same[mine] = deposited.chain[of_deposited[mine]] == partner
        types = deposited.residue_type[deposited.chain == partner]
        letters = "".join(AMINO_ACID_CODES[kind] for kind in types if kind >= 0)
        record = max(records, key=lambda r: SequenceMatcher(None, letters, r.residues).ratio())
        truth[name] = TrueChain(
            deposited.chain_names[partner], record, int(same.sum()), int(right[same].sum())
        )
    return truth


def write_database(
    path: Path, sequences: Path, n: int, records: Sequence[SequenceRecord], step: int = 1
) -> None:
    """First ``n`` sequences of a file, then the true ones; a step of -1 reverses them all."""
    known = (target for block in Database(sequences).blocks() for target in block)
    truth = (Target(TRUTH + record.name, "", record.residues) for record in records)
    with gzip.open(path, "wt", compresslevel=1) as out:
        for target in chain(islice(known, n), truth):
            out.write(f">{target.name} {target.description}\n{target.residues[::step]}\n")


def measure_search(job: SearchJob) -> MeasuredSearch:
    """Search in this process."""
    started, cpu_before = time.perf_counter(), time.process_time()
    result = search_database(job)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_before
    plain = replace(result, skipped=dict(result.skipped))
    memory = own_peak_memory_mib()
    return MeasuredSearch(plain, round(seconds, 2), round(cpu_seconds, 2), memory)


def search_in_own_process(job: SearchJob) -> MeasuredSearch:
    """As ``measure_search``, in a fresh process, whose memory is its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure_search, job).result()


def row_of(name: str, length: int, hits: Sequence[Hit], truth: TrueChain) -> dict[str, Any]:
    """Where the true sequence stands among the hits of a chain."""
    row: dict[str, Any] = {
        "chain": name,
        "residues": length,
        "deposited_chain": truth.name,
        "matched": truth.n_matched,
        "right_type": truth.n_right,
        "hits": len(hits),
        "best_hit": hits[0].target.name if hits else None,
        "best_e_value": hits[0].e_value if hits else None,
        "rank": None,
    }
    wanted = TRUTH + truth.record.name if truth.record else None
    found = next((hit for hit in hits if hit.target.name == wanted), None)
    if found is None:
        return row
    better = sum(hit.score > found.score for hit in hits)
    equal = sum(hit.score == found.score for hit in hits) - 1
    return row | {
        "rank": 1 + better,
        "as_good": equal,
        "e_value": found.e_value,
        "score": round(found.score, 1),
        "identity": round(found.identity, 3),
        "aligned": found.n_aligned,
    }


def cells_of(row: Mapping[str, Any]) -> list[str]:
    """One row of the table, as text."""
    right = f"{row['right_type']} of {row['matched']}" if row["matched"] else "–"
    cells = [row["chain"], row["deposited_chain"] or "–", str(row["residues"]), right]
    if row["rank"] is None:
        return [*cells, "not found", "–", "–"]
    rank = f"{row['rank']}, tied" if row["as_good"] else str(row["rank"])
    return [*cells, rank, f"{row['e_value']:.1e}", f"{row['score']:.0f}"]


def summary_text(content: Mapping[str, Any]) -> str:
    """What was searched, what it took, and the table."""
    search, machine = content["search"], content["machine"]
    bundle = content["conditions"]["bundle"]
    return (
        f"{content['map']} built without sequences (bundle {bundle['name']} "
        f"{bundle['version']}, checksum {bundle['sha256'][:12]}) and searched among "
        f"{search['sequences']:,} sequences, the true ones included: {search['seconds']:g} s "
        f"({search['cpu_seconds']:g} CPU s, {machine['processor']}, {machine['cores']} cores), "
        f"{search['peak_memory_mib']} MiB. With the sequences reversed, "
        f"{content['by_chance']} hits of all chains have an E-value of up to {BY_CHANCE:g}; "
        f"{len(content['rows'])} are expected.\n\n"
        + markdown_table(HEAD, [cells_of(row) for row in content["rows"]])
    )


def main(
    sequences: Annotated[Path, typer.Option(help="FASTA file, plain or .gz.")],
    bundle: options.Bundle = options.BUNDLE,
    map_path: Annotated[Path, typer.Option("--map", help="Map to build.")] = ROOT
    / "examples/emd_3488.map.gz",
    fasta: Annotated[Path, typer.Option(help="Its true sequences.")] = ROOT
    / "examples/5ni1.fasta",
    reference: Annotated[Path, typer.Option(help="Its deposited model.")] = ROOT
    / "examples/5ni1.cif.gz",
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/search.json"
    ),
    readme: Annotated[
        Path | None, typer.Option(help="File with a block SEARCH to write the table to.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Sequences besides the true ones.")] = 100_000,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Measure how well, and how fast, chains built without sequences are found."""
    records, _ = read_fasta(fasta)
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        folder = Path(scratch)
        run = folder / "model"
        built = measure_in_own_process(
            BuildJob(map_path, None, run, bundle, device, threads=threads, keep_stages=False)
        )
        truth = true_chains(run / f"{run.name}.cif", reference, records)
        found = {}
        for name, step in (("search", 1), ("reversed", -1)):
            database = folder / f"{name}.fasta.gz"
            write_database(database, sequences, n, records, step)
            job = SearchJob(run, database, threads=threads, out=folder / name)
            found[name] = search_in_own_process(job)
    searched = found["search"]
    hits = {name: [] for name in searched.result.chains}
    for hit in searched.result.hits:
        hits[hit.chain].append(hit)
    content = {
        "conditions": build_conditions(bundle, device, threads),
        "machine": machine_facts(machine),
        "map": map_path.name.split(".")[0],
        "build": {"seconds": built.seconds, "cpu_seconds": built.cpu_seconds},
        "search": {
            "sequences": searched.result.n_sequences,
            "seconds": searched.seconds,
            "cpu_seconds": searched.cpu_seconds,
            "peak_memory_mib": searched.peak_memory_mib,
        },
        "by_chance": sum(h.e_value <= BY_CHANCE for h in found["reversed"].result.hits),
        "rows": [
            row_of(name, length, hits[name], truth[name])
            for name, length in searched.result.chains.items()
        ],
    }
    write_json(out, content)
    if readme is not None:
        replace_blocks(readme, {"SEARCH": summary_text(content)})
    table = Table(*HEAD, "best hit", "its E-value")
    for row in content["rows"]:
        best = row["best_e_value"]
        table.add_row(
            *cells_of(row), row["best_hit"] or "–", "–" if best is None else f"{best:.1e}"
        )
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print(table)
    console.print(summary_text(content).partition("\n")[0])


if __name__ == "__main__":
    typer.run(main)
