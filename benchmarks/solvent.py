"""What leaving solvent out costs and saves: maps of small proteins in large boxes.

Windows of a build, which leave solvent out, against as large ones everywhere. Maps are
simulated, without a mask (noise fills the box) and with a tight one, at a good and at a poor
resolution; the box is 40 Å wider than the protein on every side.

    python benchmarks/solvent.py
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from calpha_search import density_for, open_graph, predict_windows
from jaxtyping import Bool, Float32
from provenance import run_facts, write_results
from report import markdown_table
from simulated_maps import choose_entries, simulate_entry

from angelo.bundle import Bundle, load_bundle
from angelo.calpha import find_calphas
from angelo.evaluate import match_calphas
from angelo.session import Graph
from angelo.types import Density
from angelo.window_plan import (
    WindowSettings,
    fit_windows,
    plan_axis,
)
from angelo_training.structures import Entry, PackedStructures

#: Space around the atoms, Å.
PADDING = 40.0
MASKS = ("none", "tight")
RESOLUTIONS = (3.0, 4.0)


def covered(
    positions: Float32[np.ndarray, "a 3"],
    density: Density,
    settings: WindowSettings,
    wanted: Bool[np.ndarray, "wz wy wx"],
) -> Bool[np.ndarray, " a"]:
    """Whether positions, Å in the frame of the map, lie in what the wanted windows predict."""
    voxels = (positions - density.origin) / density.voxel_size
    inside = []
    for axis, n in enumerate(density.values_zyx.shape):
        plan = plan_axis(n, settings)
        low = plan.output_0 + (plan.first_outputs - 0.5) * settings.step
        high = low + settings.n_kept * settings.step
        at = voxels[:, 2 - axis, None]
        inside.append((at >= low) & (at <= high))
    z, y, x = inside
    return np.asarray(np.einsum("az,ay,ax,zyx->a", z, y, x, wanted.astype(int)) > 0)


def judge_map(
    density: Density, calphas: Float32[np.ndarray, "a 3"], bundle: Bundle, graph: Graph
) -> dict[str, Any]:
    """Figures of one map that is prepared for the network, with and without its solvent."""
    part, settings, wanted = fit_windows(density, bundle.c_alpha.windows)
    plans = [plan_axis(n, settings) for n in density.values_zyx.shape]
    everything = np.ones([len(plan.corners) for plan in plans], bool)
    row: dict[str, Any] = {
        "calphas": len(calphas),
        "not_covered": int((~covered(calphas, part, settings, wanted)).sum()),
    }
    for name, volume, windows in (
        ("build", part, wanted),
        ("everywhere", density, everything),
    ):
        began = time.process_time()
        threshold = bundle.c_alpha.points.threshold
        voxels = predict_windows(volume, settings, graph, threshold, windows)
        seconds = time.process_time() - began
        points = find_calphas(voxels, bundle.c_alpha.points, bundle.residue_types)
        found, _ = match_calphas(points.positions, calphas)
        row[name] = {
            "windows": int(windows.sum()),
            "found": len(found),
            "false": len(points) - len(found),
            "cpu_seconds": round(seconds, 1),
        }
    return row


def judge_entry(
    entry: Entry, bundle: Bundle, graph: Graph, mask: str, resolution: float
) -> dict[str, Any]:
    """Simulate an entry in a large box and judge the map."""
    in_box = entry.positions - entry.positions.min(axis=0) + np.float32(PADDING)
    density = simulate_entry(entry, in_box, resolution, mask=mask, padding=PADDING)
    shift = in_box[0] - entry.positions[0] + density.origin
    facts = {"name": entry.pdb_id, "mask": mask, "resolution": resolution}
    calphas = entry.backbone[:, 1] + shift
    return facts | judge_map(density_for(density, bundle), calphas, bundle, graph)


def report_text(content: Mapping[str, Any]) -> str:
    """Sums over the maps of a kind as a markdown table."""
    rows = content["rows"]
    body = []
    for mask in MASKS:
        for resolution in RESOLUTIONS:
            chosen = [r for r in rows if r["mask"] == mask and r["resolution"] == resolution]
            cells = [f"{mask}, {resolution:.1f} Å"]
            cells += [str(sum(r[name] for r in chosen)) for name in ("calphas", "not_covered")]
            for name in ("found", "false", "windows", "cpu_seconds"):
                cells.append(
                    " / ".join(_sum_of(chosen, kind, name) for kind in ("build", "everywhere"))
                )
            body.append(cells)
    bundle = content["conditions"]["bundle"]
    head = ["mask, resolution", "C-alphas", "outside the windows that are run"]
    head += ["found", "false points", "windows", "CPU s"]
    return (
        "# What leaving solvent out costs and saves\n\n"
        f"`python benchmarks/solvent.py`: bundle {bundle['name']} {bundle['version']}, "
        f"{content['machine']['date']}, {content['machine']['processor']}. Sums over "
        f"{content['entries']} simulated `val` entries in boxes {PADDING:.0f} Å wider than the "
        "protein on every side: windows of a build / windows of that size everywhere, which "
        "see the map evened out before solvent is cut away, not after.\n\n"
        + markdown_table(head, body)
        + "\n"
    )


def _sum_of(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> str:
    return f"{sum(row[kind][name] for row in rows):.0f}"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    entries: options.Entries = options.N_ENTRIES,
    out: Annotated[Path, typer.Option(help="Figures; a table goes beside them.")] = Path(
        "benchmarks/solvent.json"
    ),
    device: options.Device = "cpu",
) -> None:
    """Count the C-alphas that are lost where solvent is left out."""
    loaded = load_bundle(bundle)
    graph = open_graph(loaded, device, 0)
    packed = PackedStructures(structures)
    rows = [
        judge_entry(packed[index], loaded, graph, mask, resolution)
        for index in choose_entries(packed, entries)
        for mask in MASKS
        for resolution in RESOLUTIONS
    ]
    facts = run_facts(bundle, device)
    content = {**facts, "entries": entries, "rows": rows}
    write_results(out, content, report_text(content))


if __name__ == "__main__":
    typer.run(main)
