"""How surely the check of a map's hand decides: simulated and real maps, flipped and not."""

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import rows_of
from calpha import chosen_bundle, weight_facts
from calpha_search import density_for, open_graph
from cases import Case, real_maps, simulated_cases
from provenance import bundle_facts, code_sha256, machine_facts, write_json, write_results
from report import markdown_table
from rich.console import Console

from angelo.bundle import load_bundle
from angelo.density import read_map
from angelo.errors import UserError
from angelo.hand import DECISIVE, HandEvidence, choose_windows, judge_hand, mirror
from angelo.manifest import Bundle
from angelo.session import Graph
from angelo.window_plan import fit_windows
from angelo_training.structures import PackedStructures

#: What a map of either hand should be found to be.
RIGHT = {"given": "as given", "flipped": "mirrored"}
OUT = Path("benchmarks/hand.json")
NOTE = (
    "The check of `angelo build --hand`, on maps whose hand is right and on their mirror "
    f"images. A score of {DECISIVE:g} or more says *as given*, of -{DECISIVE:g} or less "
    "*mirrored*, else the hand is undecided. *Turns* are helical turns that speak for the true "
    "hand and against it; *links* are neighbours whose predicted C and N fit together, and "
    "*probability* is the mean over the points, both with the true hand and with the other."
)


def judge_case(case: Case, bundle: Bundle, graph: Graph) -> dict[str, Any]:
    """The check of one map as it is, and flipped."""
    row: dict[str, Any] = {"key": case.key, "group": case.group, "name": case.name}
    row |= case.facts
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, facts = case.make(Path(scratch))
        density = read_map(files.map_path)
    prepared = density_for(density, bundle)
    windows, points = bundle.c_alpha.windows, bundle.c_alpha.points
    part, fitted, wanted = fit_windows(prepared, windows)
    row |= facts | {
        "n_windows": int(wanted.sum()),
        "n_windows_of_rounds": [2 * int(n.sum()) for n in choose_windows(part, fitted, wanted)],
    }

    def run(batch: np.ndarray) -> np.ndarray:
        return graph(windows=batch)["logits"]

    flipped = density_for(mirror(density), bundle)
    for which, image in (("given", prepared), ("flipped", flipped)):
        cpu_before = time.process_time()
        found = judge_hand(image, windows, points, run)
        cost = {"cpu_seconds": round(time.process_time() - cpu_before, 2)}
        row[which] = facts_of(found) | cost
    return row


def facts_of(found: HandEvidence) -> dict[str, Any]:
    """All that was found, as plain data."""
    return {
        "verdict": found.verdict,
        "score": round(found.score, 2),
        "n_points": found.n_points.tolist(),
        "mean_probability": [round(float(p), 4) for p in found.mean_probability],
        "n_links": found.n_links.tolist(),
        "n_right_turns": found.n_right_turns.tolist(),
        "n_left_turns": found.n_left_turns.tolist(),
        "turns": list(found.turns),
    }


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Verdicts over both images of the maps of a group, and the scores for the true hand."""
    judged = [(row[which], right) for row in rows for which, right in RIGHT.items()]
    verdicts = [(found["verdict"], right) for found, right in judged]
    scores = [f["score"] if right == "as given" else -f["score"] for f, right in judged]
    return {
        "n_images": len(judged),
        "n_right": sum(verdict == right for verdict, right in verdicts),
        "n_undecided": sum(verdict == "undecided" for verdict, _ in verdicts),
        "n_wrong": sum(verdict not in (right, "undecided") for verdict, right in verdicts),
        "lowest_score": min(scores),
        "median_score": round(float(np.median(scores)), 2),
    }


def means_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The summary of every group."""
    rows = list(rows)
    groups = sorted({row["group"] for row in rows})
    return {group: summarise([r for r in rows if r["group"] == group]) for group in groups}


def report_text(content: Mapping[str, Any]) -> str:
    """Both tables as markdown."""
    bundle, machine = content["conditions"]["bundle"], content["machine"]
    weights = content["conditions"]["weights"]
    where = f"Bundle {bundle['name']} {bundle['version']} (checksum {bundle['sha256'][:12]})"
    if weights is not None:
        where += f", C-alpha network of {weights['file']} ({weights['sha256'][:12]})"
    where += f", angelo {machine['versions']['angelo']}, {machine['date']}; `make bench-hand`."
    parts = ["# The hand of a map", where, NOTE, group_table(content["means"])]
    return "\n\n".join([*parts, map_table(content["rows"])]) + "\n"


def group_table(means: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each group: how often the check is right, undecided and wrong."""
    rows = []
    for group, found in means.items():
        label = "real" if group == "real" else f"val, {group.removeprefix('simulated_')} Å"
        counts = [str(found[f"n_{name}"]) for name in ("right", "undecided", "wrong")]
        scores = [f"{found[name]:.1f}" for name in ("lowest_score", "median_score")]
        rows.append([label, str(found["n_images"]), *counts, *scores])
    head = ["maps", "images", "right", "undecided", "wrong", "lowest score", "median score"]
    return markdown_table(head, rows)


def map_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """A row for each map, real ones first."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["group"] != "real", row["group"])):
        given = row["given"]
        what = "" if row["group"] == "real" else f", {row['resolution']:.1f} Å"
        lines.append(
            [
                f"{row['name']}{what}",
                f"{given['verdict']} / {row['flipped']['verdict']}",
                *(f"{row[which]['score']:.1f}" for which in RIGHT),
                " : ".join(map(str, given["turns"])),
                " : ".join(map(str, given["n_links"])),
                " : ".join(f"{p:.3f}" for p in given["mean_probability"]),
                f"{' + '.join(map(str, row['n_windows_of_rounds']))} of {row['n_windows']}",
                f"{given['cpu_seconds']:.1f}",
            ]
        )
    head = ["map", "verdict / of its mirror image", "score", "score, flipped", "turns", "links"]
    return markdown_table([*head, "probability", "windows", "CPU s"], lines)


def main(
    bundle: options.Bundle = options.BUNDLE,
    weights: options.Weights = None,
    structures: options.Structures = options.STRUCTURES,
    maps: options.MaybeMaps = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write or go on with; the tables go beside it. If none is given, "
            "benchmarks/hand.json, or with --weights hand.json beside the weight file."
        ),
    ] = None,
    entries: Annotated[int, typer.Option(min=0, help="Simulated entries.")] = options.N_ENTRIES,
    resolutions: options.Resolutions = "2.5,3.0,3.5,4.0",
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Measure the check of the hand."""
    console = Console(stderr=True)
    target = out or (OUT if weights is None else weights.with_name(OUT.name))
    cases = [] if maps is None else real_maps(maps)
    chosen = [float(text) for text in resolutions.split(",")]
    try:
        if entries:
            cases += simulated_cases(PackedStructures(structures), entries, chosen)
        with chosen_bundle(bundle, weights) as folder:
            loaded = load_bundle(folder)
            conditions = {
                "bundle": bundle_facts(folder),
                "weights": weight_facts(weights),
                "code_sha256": code_sha256(),
            }
            graph = open_graph(loaded, device, threads)
            rows = {row["key"]: row for row in rows_of(target, conditions)}
            facts = {"conditions": conditions, "machine": machine_facts(machine)}
            content: dict[str, Any] = {**facts, "means": {}, "rows": []}
            for case in cases:
                if case.key not in rows:
                    rows[case.key] = judge_case(case, loaded, graph)
                    console.print(
                        f"{case.key}: {rows[case.key]['given']['score']}", markup=False
                    )
                content |= {"means": means_of(rows.values()), "rows": list(rows.values())}
                write_json(target, content)
    except UserError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    write_results(target, content, report_text(content))


if __name__ == "__main__":
    typer.run(main)
