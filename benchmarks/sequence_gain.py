"""What the sequences do for a build: the right ones, wrong ones, distractors, none.

Each map is searched for C-alphas once; the graph network and the alignment then see one set of
sequences after another.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import read_reference
from cases import Case, real_maps, simulated_cases
from provenance import run_facts, write_results
from report import markdown_table, measured_text
from staged import Prepared, named, prepare, refined, types_of_model, types_of_network

from angelo.coordinates import ProteinCoordinates
from angelo.types import SequenceRecord
from angelo_training.structures import PackedStructures

#: Sequences of other entries beside the right ones, and the seed that draws them.
N_DISTRACTORS, SEED = 10, 7
#: Sequences that share a run of this many residues with a right one may be its relatives.
SHARED_RUN = 6
#: Simulated entries, and the resolution of their maps, Å.
ENTRIES, RESOLUTION = 4, 3.0
#: What was given, by the name that the rows have.
GIVEN = {
    "right": "the right sequences",
    "distractors": f"the right ones and {N_DISTRACTORS} others",
    "wrong": "as many others of similar length",
    "none": "none; the right ones to the alignment",
    "none, wrong": "none; others to the alignment",
}
HEAD = """# What the sequences are worth

Written by `make bench-sequence`; no figure is typed by hand. The bundle's weights are
exported so that they read the sequences. The same map and C-alphas,
with other sequences given to the graph network and to the alignment. *Network* is the share of
matched residues whose best type by the network's own logits is right, before any alignment.
*Pruned* is the model that the sequences support: its residues, how much of the deposited
sequence it has right (*recall*), and how many of its residues are wrong, in type or in place.
With the wrong sequences the pruned model should be empty. The bundle as it is shipped does not
read: its rows are the last two, and those before count for one that does. Sums count residues,
where the means of other pages count maps; geometry is not regularised, which moves a few.
"""
COLUMNS = ("matched", "network %", "pruned", "recall %", "wrong residues")


def others(
    records: Sequence[SequenceRecord], pool: Iterable[str]
) -> tuple[SequenceRecord, ...]:
    """Sequences of the pool that share no run of residues with any record, each once."""
    runs = {run for record in records for run in _runs(record.residues)}
    unrelated = sorted({text for text in pool if runs.isdisjoint(_runs(text))})
    return tuple(SequenceRecord(f"other_{i}", text) for i, text in enumerate(unrelated, 1))


def _runs(residues: str) -> set[str]:
    return {residues[i : i + SHARED_RUN] for i in range(len(residues) - SHARED_RUN + 1)}


def of_similar_length(
    records: Sequence[SequenceRecord], candidates: Sequence[SequenceRecord]
) -> tuple[SequenceRecord, ...]:
    """For each record the candidate nearest in length, none twice.

    Raises
    ------
    ValueError
        If there are fewer candidates than records.
    """
    if len(candidates) < len(records):
        raise ValueError(f"{len(candidates)} other sequences, wants {len(records)}")
    left, chosen = list(candidates), []
    for record in records:
        best = min(left, key=lambda other: (abs(len(other) - len(record)), other.name))
        left.remove(best)
        chosen.append(best)
    return tuple(chosen)


def measure(
    prepared: Prepared, reference: ProteinCoordinates, pool: Iterable[str]
) -> dict[str, Any]:
    """Figures of one map with every set of sequences."""
    right = prepared.inputs.records
    candidates = others(right, pool)
    drawn = np.random.default_rng(SEED).permutation(len(candidates))[:N_DISTRACTORS]
    wrong = of_similar_length(right, candidates)
    more = (*right, *(candidates[i] for i in drawn))
    unread = refined(prepared.with_records(()))
    given = {
        "right": (right, refined(prepared)),
        "distractors": (more, refined(prepared.with_records(more))),
        "wrong": (wrong, refined(prepared.with_records(wrong))),
        "none": (right, unread),
        "none, wrong": (wrong, unread),
    }
    figures = {}
    for name, (aligned, refinement) in given.items():
        models = named(prepared.with_records(aligned), refinement)
        raw = types_of_network(prepared, refinement, reference)
        pruned = types_of_model(models.pruned, reference)
        figures[name] = {"network": asdict(raw), "pruned": asdict(pruned)}
    return figures


def run_case(
    case: Case, pool: Iterable[str], bundle: Path, device: str, threads: int
) -> dict[str, Any]:
    """One row."""
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, _ = case.make(Path(scratch))
        prepared = prepare(files, bundle, device, threads)
        figures = measure(prepared, read_reference(files), pool)
    return {"group": case.group, "name": case.name, "given": figures}


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every map, and the sums over all simulated and all real ones."""
    lines = []
    for row in rows:
        lines += _lines(row["name"], row["given"])
    for group in dict.fromkeys(row["group"] for row in rows):
        members = [row["given"] for row in rows if row["group"] == group]
        sums = {
            given: {
                kind: {key: sum(m[given][kind][key] for m in members) for key in figures}
                for kind, figures in kinds.items()
            }
            for given, kinds in members[0].items()
        }
        called = f"**all {len(members)}: {group.replace('_', ', ')}**"
        lines += _lines(called, sums)
    return markdown_table(["map", "sequences given", *COLUMNS], lines)


def _lines(name: str, given: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for rank, (key, figures) in enumerate(given.items()):
        network, pruned = figures["network"], figures["pruned"]
        numbers = [
            str(network["n_matched"]),
            _percent(network["n_right"], network["n_matched"]),
            str(pruned["n_built"]),
            _percent(pruned["n_right"], pruned["n_deposited"]),
            str(pruned["n_built"] - pruned["n_right"]),
        ]
        lines.append([name if rank == 0 else "", GIVEN[key], *numbers])
    return lines


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"


def page_of(content: Mapping[str, Any]) -> str:
    """The whole page."""
    return f"{HEAD}\n{measured_text(content)}\n\n{table_of(content['rows'])}\n"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    maps: options.Maps = options.MAPS,
    out: Annotated[Path, typer.Option(help="JSON file to write; the page lies beside.")] = Path(
        "benchmarks/sequence_gain.json"
    ),
    entries: options.Entries = ENTRIES,
    resolution: Annotated[float, typer.Option(help="Of simulated maps, Å.")] = RESOLUTION,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Build with the right sequences, with wrong ones, and with none."""
    packed = PackedStructures(structures)
    pool = [text for i in packed.select("val") for text in packed.entries[i]["sequences"]]
    cases = [*simulated_cases(packed, entries, [resolution]), *real_maps(maps)]
    rows = []
    for case in cases:
        rows.append(run_case(case, pool, bundle, device, threads))
        typer.echo(json.dumps(rows[-1]))
    content = {**run_facts(bundle, device, threads=threads, machine=machine), "rows": rows}
    write_results(out, content, page_of(content))


if __name__ == "__main__":
    typer.run(main)
