"""What layers and rounds of the graph network gain, and what they cost.

Every layer has heads of its own, so that the bundle's first layers alone are a smaller network
(trained as part of the whole one). Each map is searched for C-alphas once.

    python benchmarks/layers.py --maps data/maps
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import read_reference
from cases import Case, real_maps, simulated_cases
from provenance import run_facts, write_results
from report import markdown_table, measured_text
from staged import (
    Prepared,
    is_traced,
    named,
    prepare,
    refined,
    types_of_model,
    types_of_network,
)

from angelo.coordinates import ProteinCoordinates
from angelo.evaluate import match_calphas
from angelo_training.structures import PackedStructures

#: Layers of a round and rounds that are compared.
VARIANTS = ((1, 2), (2, 2), (3, 2), (4, 1), (4, 2), (4, 3), (4, 4))
HEAD = """# What layers and rounds of the graph network gain

Written by `make bench-layers`; no figure is typed by hand. The first layers of the bundle's
graph network, run in so many rounds, on the same C-alphas. *CPU s* is what the graph network
takes, all maps together. *C-alphas* are deposited residues that the refined residues match
within 3 Å, with their *RMSD*; *types* is the share of them whose best type by the network's own
logits is right. *Pruned* counts residues of the pruned models: of the right type, of another
one, and near no deposited residue.
"""
COLUMNS = ("layers", "rounds", "CPU s", "C-alphas", "RMSD Å", "types %", "pruned")


def with_layers(prepared: Prepared, n_layers: int, n_rounds: int) -> Prepared:
    """The same map, refined by the first layers only, so many times.

    Raises
    ------
    ValueError
        If the bundle has fewer layers.
    """
    bundle = prepared.inputs.bundle
    if n_layers > len(bundle.gnn.layers):
        raise ValueError(f"{n_layers} layers wanted, the bundle has {len(bundle.gnn.layers)}")
    gnn = replace(bundle.gnn, layers=bundle.gnn.layers[:n_layers], rounds=n_rounds)
    return replace(prepared, inputs=replace(prepared.inputs, bundle=replace(bundle, gnn=gnn)))


def judge(prepared: Prepared, reference: ProteinCoordinates) -> dict[str, float | int]:
    """Counts, squared error and CPU seconds of one map."""
    began = time.process_time()
    refinement = refined(prepared)
    seconds = time.process_time() - began
    ca = refinement.frames.ca[is_traced(prepared, refinement)]
    of_built, of_deposited = match_calphas(ca, reference.calphas)
    errors = ca[of_built] - reference.calphas[of_deposited]
    own = types_of_network(prepared, refinement, reference)
    pruned = types_of_model(named(prepared, refinement).pruned, reference)
    return {
        "cpu_seconds": round(seconds, 2),
        "n_deposited": len(reference),
        "n_matched": own.n_matched,
        "n_type_right": own.n_right,
        "squared_error": round(float((errors**2).sum()), 2),
        "pruned_right": pruned.n_right,
        "pruned_wrong": pruned.n_matched - pruned.n_right,
        "pruned_stray": pruned.n_built - pruned.n_matched,
    }


def run_case(case: Case, bundle: Path, device: str, threads: int) -> list[dict[str, Any]]:
    """Rows of one map, one for each variant."""
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, _ = case.make(Path(scratch))
        reference = read_reference(files)
        prepared = prepare(files, bundle, device, threads)
        refined(prepared)  # the first run pays for reading the networks
        return [
            {"name": case.name, "group": case.group, "layers": n_layers, "rounds": n_rounds}
            | judge(with_layers(prepared, n_layers, n_rounds), reference)
            for n_layers, n_rounds in VARIANTS
        ]


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Sums over the maps of a group, one line for each variant."""
    lines = []
    for n_layers, n_rounds in VARIANTS:
        chosen = [r for r in rows if (r["layers"], r["rounds"]) == (n_layers, n_rounds)]
        total = {
            name: sum(row[name] for row in chosen)
            for name, value in chosen[0].items()
            if isinstance(value, int | float)
        }
        matched = max(total["n_matched"], 1)
        lines.append(
            [
                str(n_layers),
                str(n_rounds),
                f"{total['cpu_seconds']:.1f}",
                f"{total['n_matched']} of {total['n_deposited']}",
                f"{np.sqrt(total['squared_error'] / matched):.2f}",
                f"{100 * total['n_type_right'] / matched:.1f}",
                f"{total['pruned_right']} / {total['pruned_wrong']} / {total['pruned_stray']}",
            ]
        )
    return markdown_table(COLUMNS, lines)


def page_of(content: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD.rstrip(), measured_text(content)]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in content["rows"]:
        groups.setdefault(row["group"], []).append(row)
    for group, rows in groups.items():
        n_maps = len({row["name"] for row in rows})
        parts += [f"{n_maps} maps, {group.replace('_', ', ')}:", table_of(rows)]
    return "\n\n".join(parts) + "\n"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    maps: options.Maps = options.MAPS,
    out: Annotated[Path, typer.Option(help="JSON file to write; the page lies beside.")] = Path(
        "benchmarks/layers.json"
    ),
    entries: options.Entries = options.N_ENTRIES,
    resolution: Annotated[float, typer.Option(help="Of simulated maps, Å.")] = 3.5,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
) -> None:
    """Build with fewer layers, and with fewer and more rounds."""
    cases = real_maps(maps)
    cases += simulated_cases(PackedStructures(structures), entries, [resolution])
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += run_case(case, bundle, device, threads)
        typer.echo(json.dumps(rows[-len(VARIANTS) :]))
    content = {**run_facts(bundle, device, threads=threads), "rows": rows}
    write_results(out, content, page_of(content))


if __name__ == "__main__":
    typer.run(main)
