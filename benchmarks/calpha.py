"""What the C-alpha network alone finds, before the graph network: accuracy, time, memory.

Simulated maps of ``val`` entries and real maps; every found C-alpha is matched with at most
one deposited one within 3 Å, as ``angelo evaluate`` does. Rows go to disk as they come, and a
run that was stopped goes on, as long as bundle and code are the same.
"""

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import options
import typer
from accuracy import read_reference, rows_of
from calpha_judge import judge_calphas, summarise
from calpha_search import (
    bundle_with_network,
    density_for,
    measure_search_in_own_process,
    open_graph,
    predict_voxels,
    tiled,
)
from calpha_tables import report_text, tuning_table
from calpha_tune import Choice, PredictedMap, Scores, choose_settings, lowest_threshold
from cases import Case, real_maps, simulated_cases
from provenance import ROOT, build_conditions, machine_facts, write_json, write_results
from rich.console import Console
from speed import padded

from angelo.bundle import load_bundle
from angelo.calpha import find_calphas
from angelo.density import read_map, write_map
from angelo.errors import UserError
from angelo.manifest import Bundle
from angelo.run_folder import sha256_of_file
from angelo.session import Graph
from angelo_training.structures import PackedStructures

#: Map of which the timed ones are made: it fills its box of 100³ voxels.
TIMED_MAP = ROOT / "examples/emd_3488.map.gz"
#: Name of the results, and where those of a bundle go.
OUT = Path("benchmarks/calpha.json")


def run_case(case: Case, bundle: Bundle, graph: Graph) -> dict[str, Any]:
    """Search one map and judge what is found."""
    row = {"key": case.key, "group": case.group, "name": case.name, **case.facts}
    points = bundle.c_alpha.points
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, facts = case.make(Path(scratch))
        density = density_for(read_map(files.map_path), bundle)
        voxels = predict_voxels(density, bundle, graph, points.threshold)
        calphas = find_calphas(voxels, points, bundle.residue_types)
        judged = judge_calphas(calphas, read_reference(files), bundle.residue_types)
        return {**row, **facts, "map_sha256": sha256_of_file(files.map_path), **judged}


def run_cases(
    cases: Iterable[Case],
    bundle: Bundle,
    graph: Graph,
    facts: Mapping[str, Any],
    out: Path,
) -> dict[str, Any]:
    """Do the cases that ``out`` lacks; every row is on disk before the next begins.

    Rows and costs that were measured under other conditions are set aside.
    """
    rows = {row["key"]: row for row in rows_of(out, facts["conditions"])}
    costs = json.loads(out.read_text("utf-8"))["costs"] if out.is_file() else []
    console = Console(stderr=True)
    content: dict[str, Any] = {**facts, "means": {}, "costs": costs, "rows": []}
    for case in cases:
        if case.key not in rows:
            console.print(case.key, markup=False)
            rows[case.key] = run_case(case, bundle, graph)
        content |= {"means": summarise(rows.values()), "rows": list(rows.values())}
        write_json(out, content)
    return content


def timed_maps(folder: Path) -> Iterator[tuple[str, Path]]:
    """Maps of 100³ to 600³ voxels: in boxes of empty space, and two that are full."""
    density = read_map(TIMED_MAP)
    name, path = "EMD-3488", folder / "timed.mrc"
    for text, larger in (
        (name, density),
        (f"{name} in a box of 200³", padded(density, 200)),
        (f"{name} in a box of 400³", padded(density, 400)),
        (f"{name} in a box of 600³", padded(density, 600)),
        (f"8 copies of {name}", tiled(density, 2)),
        (f"64 copies of {name}", tiled(density, 4)),
    ):
        write_map(path, larger)
        yield text, path


def measure_costs(bundle: Path, device: str, threads: int) -> list[dict[str, Any]]:
    """Time and memory of the search in maps of several sizes, each in its own process."""
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        return [
            {"name": name, **measure_search_in_own_process(bundle, path, device, threads)}
            for name, path in timed_maps(Path(scratch))
        ]


def tune(cases: Iterable[Case], bundle: Bundle, graph: Graph) -> dict[str, Choice]:
    """Best point settings for each group of simulated maps, and for all of them together."""
    start = bundle.c_alpha.points
    maps = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
            files, _ = case.make(Path(scratch))
            density = density_for(read_map(files.map_path), bundle)
            voxels = predict_voxels(density, bundle, graph, lowest_threshold(start))
            maps.append(PredictedMap(case.group, voxels, read_reference(files).calphas))
    scores = Scores(maps)
    choices = {"all": choose_settings(scores, start)}
    for group in dict.fromkeys(predicted.group for predicted in maps):
        choices[group] = choose_settings(scores, start, group)
    return choices


@contextmanager
def chosen_bundle(bundle: Path, weights: Path | None) -> Iterator[Path]:
    """The bundle, or a copy of it with the network of the weight file."""
    if weights is None:
        yield bundle
        return
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        yield bundle_with_network(bundle, weights, Path(scratch) / "bundle")


def weight_facts(weights: Path | None) -> dict[str, str] | None:
    """Name and checksum of a weight file."""
    if weights is None:
        return None
    return {"file": weights.name, "sha256": sha256_of_file(weights)}


def main(
    bundle: options.Bundle = options.BUNDLE,
    weights: options.Weights = None,
    structures: options.Structures = options.STRUCTURES,
    maps: options.MaybeMaps = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write or go on with; the tables go beside it. If none is given, "
            "benchmarks/calpha.json, or with --weights calpha.json beside the weight file."
        ),
    ] = None,
    entries: options.Entries = options.N_ENTRIES,
    resolutions: options.Resolutions = "2.0,2.5,3.0,3.5,4.0",
    costs: Annotated[bool, typer.Option(help="Measure time and memory too.")] = True,
    tuning: Annotated[
        bool,
        typer.Option("--tune", help="Only find the best point settings, on simulated maps."),
    ] = False,
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Measure the C-alpha network of a bundle, or of a weight file."""
    chosen = [float(text) for text in resolutions.split(",")]
    target = out or (OUT if weights is None else weights.with_name(OUT.name))
    try:
        cases = list(simulated_cases(PackedStructures(structures), entries, chosen))
        with chosen_bundle(bundle, weights) as folder:
            loaded = load_bundle(folder)
            graph = open_graph(loaded, device, threads)
            if tuning:
                typer.echo(tuning_table(tune(cases, loaded, graph), loaded.c_alpha.points))
                return
            if maps is not None:
                cases += real_maps(maps)
            facts = {
                "command": f"{Path(sys.argv[0]).name} --entries {entries} "
                f"--resolutions {resolutions} --device {device} --threads {threads}",
                "conditions": build_conditions(folder, device, threads)
                | {"weights": weight_facts(weights)},
                "machine": machine_facts(machine),
            }
            content = run_cases(cases, loaded, graph, facts, target)
            if costs:
                content["costs"] = measure_costs(folder, device, threads)
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    write_results(target, content, report_text(content))


if __name__ == "__main__":
    typer.run(main)
