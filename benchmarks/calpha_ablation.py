"""What each output of the C-alpha network is worth to the built model, and windows' margins.

Outputs are taken away one at a time before points are made or the graph network starts:
offsets (voxels vote for themselves), directions (random frames), amino acids (logits of 0). The
networks were trained with all of them. Margins: windows of the bundle's largest size that
overlap, against ones that only touch.

    python benchmarks/calpha_ablation.py --maps data/maps
"""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import read_reference
from calpha_judge import judge_calphas
from calpha_search import open_graph, predict_voxels, predict_windows
from cases import Case, real_maps, simulated_cases
from provenance import run_facts, write_results
from report import markdown_table
from staged import Prepared, named, prepare, refined, types_of_model

from angelo.calpha import find_calphas
from angelo.coordinates import ProteinCoordinates
from angelo.frames import random_rotations
from angelo.session import Graph
from angelo.types import Calphas
from angelo.window_plan import touching
from angelo.windows import VoxelPredictions
from angelo_training.structures import PackedStructures

#: Outputs that are taken away; "nothing" comes first.
OUTPUTS = ("nothing", "offset", "direction", "amino acids", "all three")
#: Windows that are compared: those of a build, which fit the map, or large ones with such a
#: margin, voxels; their stride is what it leaves.
WINDOWS = ("of a build", 0, 4, 8, 16)
SEED = 0


def search(
    prepared: Prepared, graph: Graph, windows_are: str | int = WINDOWS[0]
) -> tuple[VoxelPredictions, float]:
    """Voxels over the threshold, and the CPU seconds that they took."""
    bundle = prepared.inputs.bundle
    windows, threshold = bundle.c_alpha.windows, bundle.c_alpha.points.threshold
    began = time.process_time()
    if isinstance(windows_are, str):
        voxels = predict_voxels(prepared.density, bundle, graph, threshold)
    else:
        settings = touching(windows, windows.window, windows_are)
        voxels = predict_windows(prepared.density, settings, graph, threshold)
    return voxels, time.process_time() - began


def points_without(
    output: str, voxels: VoxelPredictions, prepared: Prepared, rng: np.random.Generator
) -> Calphas:
    """C-alphas, made and described without one of the outputs."""
    bundle = prepared.inputs.bundle
    if output in ("offset", "all three"):
        is_offset = [name.startswith("offset") for name in voxels.names]
        channels = np.where(is_offset, np.float32(0), voxels.channels)
        voxels = replace(voxels, channels=channels)
    calphas = find_calphas(voxels, bundle.c_alpha.points, bundle.residue_types)
    if output in ("direction", "all three"):
        calphas = replace(calphas, rotation=random_rotations(len(calphas), rng))
    if output in ("amino acids", "all three") and calphas.aa_logits is not None:
        calphas = replace(calphas, aa_logits=np.zeros_like(calphas.aa_logits))
    return calphas


def judge_build(prepared: Prepared, reference: ProteinCoordinates) -> dict[str, float]:
    """Figures of the models, %; of the pruned one where there is one."""
    models = named(prepared, refined(prepared))
    figures = {}
    for kind, model in (("unpruned", models.raw), ("pruned", models.pruned)):
        types = types_of_model(model, reference) if model is not None else None
        right, matched = (types.n_right, types.n_matched) if types else (0, 0)
        figures[f"{kind}_recall"] = 100 * matched / len(reference)
        figures[f"{kind}_precision"] = 100 * matched / max(types.n_built, 1) if types else 0.0
        figures[f"{kind}_sequence_recall"] = 100 * right / len(reference)
    return figures


def run_case(case: Case, bundle: Path, device: str) -> list[dict[str, Any]]:
    """Rows of one map: every output taken away, all kinds of windows."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, _ = case.make(Path(scratch))
        reference = read_reference(files)
        prepared = prepare(files, bundle, device)
        graph = open_graph(prepared.inputs.bundle, device, 0)
        voxels, _ = search(prepared, graph)
        for output in OUTPUTS:
            calphas = points_without(output, voxels, prepared, np.random.default_rng(SEED))
            figures = judge_build(replace(prepared, calphas=calphas), reference)
            rows.append({"map": case.name, "group": case.group, "without": output, **figures})
        for kind in WINDOWS:
            found, seconds = search(prepared, graph, kind)
            types = prepared.inputs.bundle.residue_types
            points = find_calphas(found, prepared.inputs.bundle.c_alpha.points, types)
            rows.append(
                {"map": case.name, "group": case.group, "windows": kind}
                | {"cpu_seconds": round(seconds, 1)}
                | judge_calphas(points, reference, types)
            )
    return rows


def report_text(content: Mapping[str, Any]) -> str:
    """Both tables as markdown: means over the real maps, and over the simulated ones."""
    rows = content["rows"]
    parts = ["# What the C-alpha network's outputs and its windows' margins are worth"]
    bundle = content["conditions"]["bundle"]
    parts.append(
        f"`python benchmarks/calpha_ablation.py`: bundle {bundle['name']} {bundle['version']}, "
        f"{content['machine']['date']}, {content['machine']['processor']}. Means over the real "
        f"maps and {content['entries']} simulated ones at 3.0 Å, %: C-alphas of the unpruned "
        "models, residues of the right type in the unpruned and the pruned ones, before "
        "geometry is regularised; then points of the network alone, with the windows of a "
        "build, which fit the map, and with large windows, with such margins, voxels, on the "
        "map evened out before solvent is cut away, "
        "not after (for maps with much solvent see [solvent.md](solvent.md)). The networks "
        "were trained with all outputs."
    )
    built = (
        "unpruned_recall",
        "unpruned_precision",
        "unpruned_sequence_recall",
        "pruned_sequence_recall",
    )
    points = ("recall", "precision", "cpu_seconds")
    for key, values, names in (
        ("without", OUTPUTS, built),
        ("windows", WINDOWS, points),
    ):
        body = []
        for value in values:
            cells = [str(value)]
            for is_real in (True, False):
                chosen = [
                    row
                    for row in rows
                    if row.get(key) == value and (row["group"] == "real") is is_real
                ]
                cells += [
                    f"{np.mean([row[name] for row in chosen]):.1f}" if chosen else "–"
                    for name in names
                ]
            body.append(cells)
        head = [key] + [
            f"{kind}: {name.replace('_', ' ')}" for kind in ("real", "val") for name in names
        ]
        parts.append(markdown_table(head, body))
    return "\n\n".join(parts) + "\n"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    maps: options.Maps = options.MAPS,
    entries: options.Entries = options.N_ENTRIES,
    out: Annotated[Path, typer.Option(help="Figures; tables go beside them.")] = Path(
        "benchmarks/calpha_ablation.json"
    ),
    device: options.Device = "cpu",
) -> None:
    """Measure what outputs and margins are worth."""
    cases = real_maps(maps)
    cases += simulated_cases(PackedStructures(structures), entries, [3.0])
    rows: list[dict[str, Any]] = []
    for case in cases:
        rows += run_case(case, bundle, device)
        typer.echo(json.dumps(rows[-len(OUTPUTS) - len(WINDOWS) :]))
    facts = run_facts(bundle, device)
    content = {**facts, "entries": entries, "rows": rows}
    write_results(out, content, report_text(content))


if __name__ == "__main__":
    typer.run(main)
