"""Errors of the C-alpha network by how well the map shows a residue, real against simulated.

Residues of deposited models are sorted by the correlation of the density around them with a
clean map of the model (``map_statistics.residue_correlations``). Where the network does as well
on real maps as on simulated ones of the same correlation, simulated maps show what matters
there; bins with few simulated residues tell of what the simulator does not make. "As in
training" are simulated maps under the conditions of those that networks are trained on: with
more noise, some of them with density that no model explains, some with weak parts.

    python benchmarks/error_by_quality.py --maps data/maps
"""

import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from accuracy import read_reference
from cases import Case, real_maps, simulated_cases
from jaxtyping import Float64
from map_statistics import clean_map, residue_correlations
from model_atoms import read_atoms
from provenance import run_facts, write_results
from report import markdown_table
from scipy.spatial import cKDTree
from staged import prepare

from angelo.coordinates import ProteinCoordinates
from angelo.density import read_map, resample
from angelo.evaluate import match_calphas
from angelo.residues import AMINO_ACIDS
from angelo_training.boxes import normalise
from angelo_training.conditions import draw_training_conditions
from angelo_training.profile import load_spectrum
from angelo_training.structures import PackedStructures

#: Bounds of the bins of correlations.
BOUNDS = (-1.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
RESOLUTIONS = (3.0, 3.5, 4.0)
#: Kinds of maps.
GROUPS = ("real", "simulated", "as in training")
#: A residue of the reference is that of the atoms whose C-alpha lies this close, Å.
SAME = 0.1


def judge_case(group: str, case: Case, bundle: Path, device: str) -> list[dict[str, Any]]:
    """Every deposited residue of a map: its correlation, whether it was found, its type."""
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        files, _ = case.make(Path(scratch))
        reference = read_reference(files)
        correlation = correlations_of(files.map_path, files.reference, files.chain, reference)
        prepared = prepare(files, bundle, device)
    points, types = prepared.calphas, prepared.inputs.bundle.residue_types
    if points.aa_logits is None:
        raise typer.BadParameter("its C-alpha network tells no types", param_hint="--bundle")
    named = np.array([AMINO_ACIDS.index(name) for name in types])[points.aa_logits.argmax(1)]
    found, of = match_calphas(points.positions, reference.calphas)
    kind = np.full(len(reference), -1)
    kind[of] = named[found]
    is_found = kind >= 0
    return [
        {
            "group": group,
            "map": case.name,
            "correlation": round(float(correlation[r]), 3),
            "found": bool(is_found[r]),
            "right": bool(is_found[r] and kind[r] == reference.residue_type[r]),
        }
        for r in np.flatnonzero(np.isfinite(correlation))
    ]


def correlations_of(
    map_path: Path, model: Path, chain: str | None, reference: ProteinCoordinates
) -> Float64[np.ndarray, " r"]:
    """`residue_correlations` of the residues of the reference; NaN where it has no atoms."""
    density = resample(read_map(map_path), 1.0)
    atoms = read_atoms(model, chain)
    inside = atoms.in_box(density)
    found = residue_correlations(
        normalise(density.values_zyx, load_spectrum()),
        clean_map(inside, density.values_zyx.shape),
        inside,
    )
    is_ca = atoms.are(AMINO_ACIDS, ("CA",))
    away, row = cKDTree(atoms.scatterers.positions[is_ca]).query(reference.calphas)
    return np.where(away < SAME, found[atoms.scatterers.residue[is_ca][row]], np.nan)


def rows_of_bins(residues: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Residues, share found, and share of those with the right type, for each bin and group."""
    rows = []
    for low, high in pairwise(BOUNDS):
        row: dict[str, Any] = {"low": low, "high": high}
        for group in GROUPS:
            chosen = [
                r for r in residues if r["group"] == group and low <= r["correlation"] < high
            ]
            n_found = sum(r["found"] for r in chosen)
            row[group] = {
                "residues": len(chosen),
                "found": round(100 * n_found / len(chosen), 1) if chosen else None,
                "right": round(100 * sum(r["right"] for r in chosen) / n_found, 1)
                if n_found
                else None,
            }
        rows.append(row)
    return rows


def report_text(content: Mapping[str, Any]) -> str:
    """The table as markdown."""
    bundle = content["conditions"]["bundle"]
    body = []
    for row in content["bins"]:
        low, high = row["low"], row["high"]
        cells = [f"{low:.2f} to {high:.2f}" if low > BOUNDS[0] else f"below {high:.2f}"]
        for group in GROUPS:
            f = row[group]
            cells += [str(f["residues"]), *(_cell(f[name]) for name in ("found", "right"))]
        body.append(cells)
    head = ["correlation"] + [
        f"{group}: {name}"
        for group in GROUPS
        for name in ("residues", "found, %", "of these right, %")
    ]
    return (
        "# Errors of the C-alpha network by how well the map shows a residue\n\n"
        f"`python benchmarks/error_by_quality.py`: bundle {bundle['name']} "
        f"{bundle['version']}, {content['machine']['date']}. Correlation: of the density "
        "around a residue with a clean map of the deposited model, simulated at 3.0 Å with all "
        "atoms equally well ordered. Residues of the real maps, and of "
        f"{content['entries']} `val` entries simulated at 3.0, 3.5 and 4.0 Å, as they are "
        "and as in training: with more noise, some with density that no model explains, some "
        "with weak parts. Of them those that have a point; points with the right amino "
        "acid.\n\n" + markdown_table(head, body) + "\n"
    )


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def main(
    bundle: options.Bundle = options.BUNDLE,
    structures: options.Structures = options.STRUCTURES,
    maps: options.Maps = options.MAPS,
    entries: options.Entries = options.N_ENTRIES,
    out: Annotated[Path, typer.Option(help="Figures; a table goes beside them.")] = Path(
        "benchmarks/error_by_quality.json"
    ),
    device: options.Device = "cpu",
) -> None:
    """Sort the network's errors by how well the map shows the residue."""
    packed, resolutions = PackedStructures(structures), list(RESOLUTIONS)
    cases = {
        "real": real_maps(maps),
        "simulated": simulated_cases(packed, entries, resolutions),
        "as in training": simulated_cases(
            packed, entries, resolutions, draw_training_conditions
        ),
    }
    residues = [
        row
        for group in GROUPS
        for case in cases[group]
        for row in judge_case(group, case, bundle, device)
    ]
    facts = run_facts(bundle, device)
    content = {**facts, "entries": entries, "bins": rows_of_bins(residues)}
    write_results(out, content, report_text(content))


if __name__ == "__main__":
    typer.run(main)
