"""Fit the bundle's calibration of predicted errors, and show what it is worth.

Residues come from builds of simulated ``val`` maps. The figures shown are of entries that the
curve which they are judged by was not fitted to (two halves, each by the curve of the other);
the curve in the bundle is fitted to all. Real maps are shown, and never fitted to.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import read_reference
from cases import Case, real_maps, simulated_cases
from provenance import bundle_facts, code_sha256, machine_facts, write_json
from reliability import (
    GOOD,
    Residues,
    calibrated,
    cross_calibrated,
    figures_of,
    fit_calibration,
    residues_of,
    together,
)
from report import machine_text, markdown_table, replace_blocks
from staged import Prepared, prepare, refined

from angelo.confidence import CONFIDENCE_RANGE, NO_CONFIDENCE_ERROR, ErrorCalibration
from angelo.evaluate import MATCH_RADIUS
from angelo_training.structures import PackedStructures

#: Size of the picture's axes and the space around them, pixels; largest error on them, Å.
SIDE, SPACE, LARGEST = 260, 48, 2.5
COLOURS = ("#999", "#1f5fa8", "#c2570c")


def collect(
    cases: Iterable[Case], bundle: Path, device: str, threads: int
) -> dict[str, list[Residues]]:
    """Residues of every map, by the name of the entry; errors as the network gave them."""
    found: dict[str, list[Residues]] = {}
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
            files, _ = case.make(Path(scratch))
            prepared = _uncalibrated(prepare(files, bundle, device, threads))
            reference = read_reference(files)
        least = prepared.inputs.bundle.gnn.min_existence
        residues = residues_of(refined(prepared), least, reference)
        found.setdefault(case.name, []).append(residues)
        typer.echo(f"{case.key}: {len(residues)} residues", err=True)
    return found


def _uncalibrated(prepared: Prepared) -> Prepared:
    bundle = prepared.inputs.bundle
    plain = replace(bundle, gnn=replace(bundle.gnn, error_calibration=None))
    return replace(prepared, inputs=replace(prepared.inputs, bundle=plain))


def curve_svg(curves: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """True against expected error, one line for each set of residues."""
    size = SIDE + 2 * SPACE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size + 140}" height="{size}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<rect x="{SPACE}" y="{SPACE}" width="{SIDE}" height="{SIDE}" fill="none" '
        'stroke="#bbb"/>',
        f'<line x1="{SPACE}" y1="{SPACE + SIDE}" x2="{SPACE + SIDE}" y2="{SPACE}" '
        'stroke="#ccc" stroke-dasharray="4"/>',
        f'<text x="{SPACE}" y="{SPACE - 10}">true error, Å (0 to {LARGEST:g})</text>',
        f'<text x="{SPACE + SIDE}" y="{SPACE + SIDE + 18}" text-anchor="end">'
        f"expected error, Å (0 to {LARGEST:g})</text>",
    ]
    for rank, (name, points) in enumerate(curves.items()):
        parts_of_axes = np.clip(np.array(points) / LARGEST, 0, 1)
        places = " ".join(
            f"{SPACE + SIDE * x:.1f},{SPACE + SIDE * (1 - y):.1f}" for x, y in parts_of_axes
        )
        at = f'x="{SPACE + SIDE + 8}" y="{SPACE + 12 + 16 * rank}" fill="{COLOURS[rank]}"'
        parts += [
            f'<polyline points="{places}" fill="none" stroke="{COLOURS[rank]}" '
            'stroke-width="1.5"/>',
            f"<text {at}>{name}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def error_at(confidence: float) -> float:
    """Expected error, Å, that a confidence stands for."""
    return NO_CONFIDENCE_ERROR - CONFIDENCE_RANGE * confidence / 100


def card_text(content: Mapping[str, Any], picture: str) -> str:
    """The block of the model card."""
    before, after = content["predicted"], content["calibrated"]
    machine = content["machine"]
    n = content["conditions"]["entries"]
    maps = ", ".join(f"{r:.1f}" for r in content["conditions"]["resolutions"])
    parts = [
        f"Confidence 80 stands for an expected error of {error_at(80):.2f} Å: the mean "
        "distance of N, CA and C from their true places, a residue that is none counting as "
        f"{MATCH_RADIUS:g} Å. Measured on simulated maps of {n} `val` entries at {maps} Å "
        f"({after['residues']:,} residues; angelo {machine['versions']['angelo']}, "
        f"{machine['date']}, {machine_text(machine)}), each entry by a curve that other "
        "entries gave. Expected and true error differ by "
        f"{after['departure']:.3f} Å on average over "
        "groups of residues of like expectation (without calibration by "
        f"{before['departure']:.3f} Å); "
        f"their rank correlation is {after['rank_correlation']:.2f}.",
        _table(after["rows"]),
    ]
    if "real" in content:
        real = content["real"]
        parts += [
            f"Real maps, by the same curve ({real['residues']:,} residues; difference "
            f"{real['departure']:.3f} Å, rank correlation {real['rank_correlation']:.2f}):",
            _table(real["rows"]),
        ]
    return "\n\n".join([*parts, f"![Expected and true errors]({picture})"])


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    head = ("confidence", "expected error Å", "residues", "true error Å", "Cα error Å")
    lines = []
    for row in rows:
        low, high = row["confidence"]
        lines.append(
            [
                f"{low}" if high == low + 1 else f"{low} to {high}",
                f"{row['expected']:.2f}",
                f"{row['residues']:,}",
                *(f"{row[name]:.2f}" for name in ("backbone", "calpha")),
                *(f"{row[name]:.0f}" for name in ("good", "false")),
            ]
        )
    return markdown_table((*head, f"within {GOOD:g} Å %", "false %"), lines)


def write_calibration(bundle: Path, calibration: ErrorCalibration) -> None:
    """Put the curve into bundle.json."""
    path = bundle / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["gnn"]["error_calibration"] = {
        name: list(values) for name, values in asdict(calibration).items()
    }
    write_json(path, manifest)


def main(
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle; is changed.")] = Path(
        "models/compact"
    ),
    structures: options.Structures = options.STRUCTURES,
    maps: Annotated[
        Path | None, typer.Option(help="Folder of real_maps.json's files; for show.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/confidence.json"
    ),
    entries: Annotated[int, typer.Option(min=2, help="Simulated entries.")] = options.N_ENTRIES,
    resolutions: options.Resolutions = "2.5,3.0,3.5",
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Fit the calibration of predicted errors into a bundle, and say what it is worth."""
    chosen = [float(text) for text in resolutions.split(",")]
    cases = simulated_cases(PackedStructures(structures), entries, chosen)
    by_entry = [together(p) for p in collect(cases, bundle, device, threads).values()]
    calibration = fit_calibration(together(by_entry))
    write_calibration(bundle, calibration)
    content = {
        "conditions": {
            "bundle": bundle_facts(bundle),
            "code_sha256": code_sha256(),
            "device": device,
            "entries": entries,
            "resolutions": chosen,
        },
        "machine": machine_facts(machine),
        "calibration": asdict(calibration),
        "predicted": figures_of(together(by_entry)),
        "calibrated": figures_of(cross_calibrated(by_entry)),
    }
    curves = {
        "as predicted": content["predicted"]["curve"],
        "calibrated": content["calibrated"]["curve"],
    }
    if maps is not None:
        built = real_maps(maps)
        found = collect(built, bundle, device, threads).values()
        content["real"] = figures_of(
            calibrated(together([part for parts in found for part in parts]), calibration)
        )
        curves["real maps, calibrated"] = content["real"]["curve"]
    write_json(out, content)
    picture = bundle / "reliability.svg"
    picture.write_text(curve_svg(curves), encoding="utf-8")
    replace_blocks(bundle / "README.md", {"CONFIDENCE": card_text(content, picture.name)})
    typer.echo(card_text(content, picture.name))


if __name__ == "__main__":
    typer.run(main)
