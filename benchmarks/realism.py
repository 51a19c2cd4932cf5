"""How simulated density differs from real density: whole maps, and atom class by class.

The deposited model of each real map is simulated under random training conditions; both maps
are normalised as the runtime does and read at the model's atoms. A simulator is good where the
two are alike: means tell how strongly a kind of atom shows, deviations how much that varies
(with local disorder, noise, and errors of the model). Figures of whole maps are in
``map_statistics``. The real maps measure the simulator; no network learns from them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from cases import REAL_MAPS
from jaxtyping import Float32
from map_statistics import clean_map, statistics
from model_atoms import ModelAtoms, read_at, read_atoms
from provenance import machine_facts, write_results
from report import markdown_table

from angelo.density import read_map, resample
from angelo.types import Density
from angelo_training.boxes import normalise
from angelo_training.conditions import draw_training_conditions
from angelo_training.profile import load_spectrum
from angelo_training.simulate import simulate_density

#: Resolution of maps whose resolution is not in the table, Å.
USUAL_RESOLUTION = 3.3
#: Classes of atoms: residue names (None: all), and atom names.
CLASSES: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...]]] = {
    "backbone N": (None, ("N",)),
    "backbone CA": (None, ("CA",)),
    "backbone C": (None, ("C",)),
    "backbone O": (None, ("O",)),
    "CB": (None, ("CB",)),
    "branched aliphatic": (("LEU", "VAL", "ILE"), ("CG", "CG1", "CG2", "CD", "CD1", "CD2")),
    "aromatic": (
        ("PHE", "TYR", "TRP"),
        ("CD1", "CD2", "CE1", "CE2", "CE3", "CZ", "CZ2", "CZ3", "CH2"),
    ),
    "hydroxyl": (("SER", "THR"), ("OG", "OG1")),
    "sulphur": (("CYS", "MET"), ("SG", "SD")),
    "amide": (("ASN", "GLN"), ("OD1", "ND2", "OE1", "NE2")),
    "carboxylate": (("ASP", "GLU"), ("OD1", "OD2", "OE1", "OE2")),
    "ammonium": (("LYS",), ("NZ",)),
    "lysine carbons": (("LYS",), ("CG", "CD", "CE")),
    "guanidinium": (("ARG",), ("NE", "NH1", "NH2")),
}
BACKBONE = ("backbone N", "backbone CA", "backbone C")
#: Fewer atoms of a class in a map say nothing.
FEWEST_ATOMS = 4

#: Figures of one map, by kind of comparison.
Comparison = dict[str, Any]


def simulated_maps(
    density: Density,
    atoms: ModelAtoms,
    resolution: float,
    n_draws: int,
    given: Mapping[str, float],
) -> Iterator[Float32[np.ndarray, "z y x"]]:
    """Maps of the atoms under random conditions, on the grid of the real one.

    ``given`` has those conditions, by name, that are the same in all of them.
    """
    inside = atoms.in_box(density)
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        conditions = replace(
            draw_training_conditions(rng, resolution, mask="tight"), magnification=1.0, **given
        )
        yield simulate_density(inside, density.values_zyx.shape, 1.0, conditions, rng)


def compare_whole(
    density: Density, atoms: ModelAtoms, maps: Sequence[Float32[np.ndarray, "z y x"]]
) -> dict[str, dict[str, float]]:
    """Every figure of `statistics`: of the real map; mean, least and most of simulated ones."""
    inside = atoms.in_box(density)
    clean = clean_map(inside, density.values_zyx.shape)
    drawn = [statistics(values_zyx, clean, inside) for values_zyx in maps]
    return {
        name: {
            "real": value,
            "simulated": float(np.mean([figures[name] for figures in drawn])),
            "least": min(figures[name] for figures in drawn),
            "most": max(figures[name] for figures in drawn),
        }
        for name, value in statistics(density.values_zyx, clean, inside).items()
    }


def at_atoms(
    density: Density, atoms: ModelAtoms, maps: Sequence[Float32[np.ndarray, "z y x"]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Normalised density at the atoms, real and simulated; the backbone's mean is 1."""
    spectrum = load_spectrum()
    backbone = np.any([atoms.are(*CLASSES[name]) for name in BACKBONE], axis=0)

    def relative(values_zyx: Float32[np.ndarray, "z y x"]) -> np.ndarray:
        found = read_at(normalise(values_zyx, spectrum), density, atoms.scatterers.positions)
        return np.asarray(found / found[backbone].mean())

    return relative(density.values_zyx), [relative(values) for values in maps]


def compare(
    atoms: ModelAtoms, real: np.ndarray, simulated: Sequence[np.ndarray]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Means and deviations of every class in what `at_atoms` read."""
    for name in CLASSES:
        rows = atoms.are(*CLASSES[name])
        if rows.sum() >= FEWEST_ATOMS:
            yield (
                name,
                {
                    "real": float(real[rows].mean()),
                    "simulated": float(np.mean([values[rows].mean() for values in simulated])),
                    "real_deviation": float(real[rows].std()),
                    "simulated_deviation": float(np.mean([v[rows].std() for v in simulated])),
                },
            )


def correlations(real: np.ndarray, simulated: Sequence[np.ndarray]) -> dict[str, float]:
    """Mean correlation of the real map with simulated ones, and of those with each other."""
    found = np.corrcoef([real, *simulated])
    pairs = np.triu_indices(len(simulated), 1)
    return {
        "real": float(found[0, 1:].mean().round(3)),
        "each_other": float(found[1:, 1:][pairs].mean().round(3)),
    }


def class_table(maps: dict[str, Comparison]) -> str:
    """Markdown: density of every class, real / simulated, a column for each map."""
    body = []
    for name in CLASSES:
        found = [figures["classes"].get(name) for figures in maps.values()]
        cells = [
            f"{f['real']:.2f} ± {f['real_deviation']:.2f} / "
            f"{f['simulated']:.2f} ± {f['simulated_deviation']:.2f}"
            if f
            else "–"
            for f in found
        ]
        body.append([name, *cells])
    return markdown_table(["atoms", *maps], body)


def whole_table(maps: dict[str, Comparison]) -> str:
    """Markdown: figures of whole maps, real / mean of simulated ones (least to most)."""
    columns = [figures["whole"] for figures in maps.values()]
    body = [
        [name]
        + [
            "{real} / {simulated} ({least} to {most})".format_map(_short(column[name]))
            for column in columns
        ]
        for name in columns[0]
    ]
    return markdown_table(["map", *maps], body)


def _short(figures: Mapping[str, float]) -> dict[str, str]:
    """Every figure as text, all with as many decimals as the largest asks for."""
    decimals = 0 if max(map(abs, figures.values())) >= 10 else 2
    return {
        name: "–" if np.isnan(value) else f"{value:.{decimals}f}"
        for name, value in figures.items()
    }


def report_text(maps: dict[str, Comparison], draws: int, given: Mapping[str, float]) -> str:
    """All tables as markdown."""
    pairs = ", ".join(
        f"{name} {f['correlation']['real']:.2f} and {f['correlation']['each_other']:.2f}"
        for name, f in maps.items()
    )
    kept = "".join(f"; {name} {value} in all of them" for name, value in given.items())
    return "\n\n".join(
        (
            "# How real maps differ from simulated ones",
            f"Written by `make bench-realism`: {draws} random conditions for each map{kept}.",
            "Density at atoms, real / simulated; the backbone's mean is 1.",
            class_table(maps),
            "Correlation over all atoms, of the real map with simulated ones, and of those "
            f"with each other (other conditions), means: {pairs}.",
            "Whole maps, real / simulated: the mean of the draws, and the least to the most of "
            "them (`benchmarks/map_statistics.py`). All simulated ones have a tight mask.",
            whole_table(maps) + "\n",
        )
    )


def main(
    maps: Annotated[Path, typer.Option(help="Folder of the real maps.")],
    draws: Annotated[int, typer.Option(min=2, help="Random conditions for each map.")] = 6,
    unmodelled: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Density that no model explains, relative to that at the atoms; left out: as "
            "in training.",
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(min=0, help="Noise relative to what the FSC implies; left out: likewise."),
    ] = None,
    weakness: Annotated[
        float | None,
        typer.Option(
            min=0, help="How fast density falls where B-factors are high; left out: likewise."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Figures; a table goes beside them.")] = Path(
        "benchmarks/realism.json"
    ),
) -> None:
    """Compare maps of deposited models, real and simulated."""
    chosen = {"unmodelled": unmodelled, "noise": noise, "weakness": weakness}
    given = {name: value for name, value in chosen.items() if value is not None}
    found: dict[str, Comparison] = {}
    for entry in json.loads(REAL_MAPS.read_text(encoding="utf-8")):
        density = resample(read_map(maps / entry["map"]), 1.0)
        atoms = read_atoms(maps / entry["model"], entry["chain"])
        resolution = entry["resolution"] or USUAL_RESOLUTION
        simulated = list(simulated_maps(density, atoms, resolution, draws, given))
        real, drawn = at_atoms(density, atoms, simulated)
        found[entry["name"]] = {
            "classes": dict(compare(atoms, real, drawn)),
            "correlation": correlations(real, drawn),
            "whole": compare_whole(density, atoms, simulated),
        }
    content = {"draws": draws, "given": given, "machine": machine_facts(), "maps": found}
    write_results(out, content, report_text(found, draws, given))


if __name__ == "__main__":
    typer.run(main)
