"""Accuracy of a bundle: simulated maps of ``val`` entries, and real maps.

Each map is built by the runtime's own pipeline in a process of its own, and the unpruned and
the pruned model are compared with the reference. Rows go to disk as they come; a run that was
stopped goes on with the maps that are missing, as long as bundle and code are the same.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from builds import Builder, measure_in_own_process
from cases import Case, MapFiles, real_cases, simulated_cases
from judgement import FIGURES, judge, mean_of
from provenance import build_conditions, machine_facts, write_json
from rich.console import Console
from rich.table import Table

from angelo.density import read_map
from angelo.errors import UserError
from angelo.evaluate import ProteinCoordinates, read_structure
from angelo.job import BuildJob
from angelo.run_folder import sha256_of_file
from angelo_training.structures import PackedStructures

#: Width of tables that go to a file, characters.
LOG_WIDTH = 150
#: Models that are judged, by the name that the row gives them.
KINDS = ("raw", "pruned")


class Part(StrEnum):
    """A part of the benchmark."""

    simulated = "simulated"
    real = "real"


def run_case(case: Case, job: Mapping[str, Any], build: Builder) -> dict[str, Any]:
    """Build and judge one map; whatever goes wrong becomes the row's outcome."""
    row: dict[str, Any] = {"key": case.key, "group": case.group, "name": case.name}
    row |= case.facts
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        folder = Path(scratch)
        try:
            files, facts = case.make(folder)
            row |= facts
            if case.comparison is None:
                return row | judged_build(files, folder, job, build)
            reference = read_reference(files)
            judged = judge(case.comparison, reference)
            return row | {"outcome": "given", "n_deposited": len(reference), "pruned": judged}
        except UserError as error:
            return row | {"outcome": "failed", "error": str(error)}
        except BrokenProcessPool:
            return row | {"outcome": "failed", "error": "the build died, short of memory?"}
        except Exception as error:  # one broken map must not cost the others
            traceback.print_exc()
            return row | {"outcome": "failed", "error": f"{type(error).__name__}: {error}"}


def judged_build(
    files: MapFiles, folder: Path, job: Mapping[str, Any], build: Builder
) -> dict[str, Any]:
    """Build a model and compare it with the reference."""
    reference = read_reference(files)
    load = os.getloadavg()[0]
    built = build(
        BuildJob(files.map_path, files.fasta_path, folder / "model", keep_stages=False, **job)
    )
    return {
        "outcome": built.outcome,
        "n_deposited": len(reference),
        "shape_zyx": list(read_map(files.map_path).values_zyx.shape),
        "map_sha256": sha256_of_file(files.map_path),
        "seconds": built.seconds,
        "cpu_seconds": built.cpu_seconds,
        "load_before": round(load, 2),
        "peak_memory_mib": built.peak_memory_mib,
        "stages": built.stages,
        "raw": judge(built.raw, reference),
        "pruned": judge(built.pruned, reference),
    }


def read_reference(files: MapFiles) -> ProteinCoordinates:
    """The deposited residues that the map should give."""
    reference = read_structure(files.reference)
    return reference if files.chain is None else chain_of(reference, files.chain)


def chain_of(structure: ProteinCoordinates, name: str) -> ProteinCoordinates:
    """One chain of a structure."""
    rows = structure.chain == structure.chain_names.index(name)
    return replace(
        structure,
        residue_type=structure.residue_type[rows],
        positions=structure.positions[rows],
        has_atom=structure.has_atom[rows],
        chain=np.zeros(int(rows.sum()), np.int64),
        chain_names=(name,),
        sequence_number=structure.sequence_number[rows],
    )


def mean_of_rows(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the maps of a group: each map counts the same, failed ones are left out.

    Empty models count with their zeros; distances are averaged where there is one.
    """
    done = [row for row in rows if row["outcome"] != "failed"]
    means: dict[str, Any] = {
        "n_maps": len(done),
        "n_failed": len(rows) - len(done),
        "n_nothing_built": sum(row["outcome"] == "nothing built" for row in done),
        "n_nothing_matched": sum(row["outcome"] == "nothing matched" for row in done),
    }
    for kind in KINDS:
        models = [row[kind] for row in done if kind in row]
        means[kind] = {name: mean_of(model[name] for model in models) for name in FIGURES}
    for name in ("seconds", "cpu_seconds", "peak_memory_mib"):
        means[name] = mean_of(row.get(name) for row in done)
    return means


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of every group but the comparison."""
    groups = sorted({row["group"] for row in rows} - {"comparison"})
    return {group: mean_of_rows([r for r in rows if r["group"] == group]) for group in groups}


def run_cases(
    cases: list[Case],
    out: Path,
    conditions: Mapping[str, Any],
    machine: Mapping[str, Any],
    job: Mapping[str, Any],
    build: Builder = measure_in_own_process,
    tell: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """Do the cases that ``out`` lacks; every row is on disk before the next begins.

    Rows that were measured under other ``conditions`` are set aside, in a file whose name
    ends in ``.stale``; failed ones are done again.
    """
    rows = {row["key"]: row for row in rows_of(out, conditions)}
    content: dict[str, Any] = {}
    for case in cases:
        if rows.get(case.key, {"outcome": "failed"})["outcome"] == "failed":
            rows[case.key] = run_case(case, job, build)
            tell(rows[case.key])
        content = {
            "conditions": dict(conditions),
            "machine": dict(machine),
            "means": summarise(list(rows.values())),
            "rows": list(rows.values()),
        }
        write_json(out, content)
    return content


def rows_of(out: Path, conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows that an earlier run left and that still hold."""
    if not out.is_file():
        return []
    content = json.loads(out.read_text(encoding="utf-8"))
    if content.get("conditions") != conditions:
        out.replace(out.with_name(f"{out.name}.stale"))
        return []
    return list(content["rows"])


def table_of(content: Mapping[str, Any]) -> Table:
    """All rows for a terminal, two lines for each build."""
    table = Table("group", "map", "model", "Cα rec %", "prec %", "seq rec %", "bb Å")
    for name in ("all-atom Å", "lDDT", "breaks", "s", "MiB"):
        table.add_column(name, justify="right")
    for row in content["rows"]:
        if row["outcome"] == "failed":
            table.add_row(row["group"], row["name"], "failed", row["error"])
        for kind in (kind for kind in KINDS if kind in row):
            figures = row[kind]
            what = row["outcome"] if not figures["n_built"] else kind
            names = ("calpha_recall", "calpha_precision", "sequence_recall", "backbone_rmsd")
            more = ("all_atom_rmsd", "all_atom_lddt", "chain_breaks_per_100")
            cells = [_cell(figures[name]) for name in names + more]
            cost = [_cell(row.get(name)) for name in ("seconds", "peak_memory_mib")]
            table.add_row(row["group"], row["name"], what, *cells, *cost)
    return table


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    maps: options.Maps = options.MAPS,
    out: Annotated[Path, typer.Option(help="JSON file to write or go on with.")] = Path(
        "benchmarks/accuracy.json"
    ),
    entries: options.Entries = options.N_ENTRIES,
    resolutions: options.Resolutions = "2.5,3.0,3.5",
    only: Annotated[Part | None, typer.Option(help="One part of the benchmark.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two entries at 3.0 Å, and EMD-3488.")
    ] = False,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Measure a bundle on simulated and real maps."""
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    cases: list[Case] = []
    if only != Part.simulated:
        if not maps.is_dir():
            raise typer.BadParameter(f"{maps}: no such folder; give --maps or --only simulated")
        cases += real_cases(maps, {"EMD-3488"} if quick else None)
    if only != Part.real:
        chosen = [3.0] if quick else [float(text) for text in resolutions.split(",")]
        cases += simulated_cases(PackedStructures(structures), 2 if quick else entries, chosen)
    job = {"bundle": bundle, "device": device, "threads": threads}
    conditions = build_conditions(bundle, device, threads)

    def tell(row: dict[str, Any]) -> None:
        console.print(f"{row['key']}: {row['outcome']} {row.get('error', '')}", markup=False)

    content = run_cases(cases, out, conditions, machine_facts(machine), job, tell=tell)
    console.print(table_of(content))
    failed = sum(row["outcome"] == "failed" for row in content["rows"])
    if failed:
        console.print(f"{failed} maps failed; the same command tries them again")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
