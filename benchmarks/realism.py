"""How simulated density differs from real density, atom class by atom class.

The deposited model of each real map is simulated under random training conditions; both maps
are normalised as the runtime does and read at the model's atoms. A simulator is good where the
two are alike: means tell how strongly a kind of atom shows, deviations how much that varies
(with local disorder, noise, and errors of the model). The real maps measure the simulator; no
network learns from them.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import gemmi
import numpy as np
import typer
from cases import REAL_MAPS
from jaxtyping import Float32
from provenance import machine_facts, write_json
from scipy.ndimage import map_coordinates

from angelo.density import read_map, resample
from angelo.residues import AMINO_ACIDS
from angelo.types import Density
from angelo_training.boxes import normalise
from angelo_training.profile import load_spectrum
from angelo_training.scatterers import Scatterers, chemistry_tables
from angelo_training.simulate import draw_conditions, simulate_density

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
#: Shells whose power is compared by direction: name, and resolutions that bound them, Å.
SHELLS = (("5 to 4.2 Å", 4.2, 5.0), ("4 to 3.45 Å", 3.45, 4.0))
#: Fewer atoms of a class in a map say nothing.
FEWEST_ATOMS = 4


@dataclass(frozen=True, slots=True)
class ModelAtoms:
    """Atoms of a deposited model with their classes."""

    scatterers: Scatterers
    """In the frame of the map."""
    names: tuple[tuple[str, str], ...]
    """Residue and atom name of each."""

    def of_class(self, name: str) -> np.ndarray:
        """Rows of a class."""
        residues, atoms = CLASSES[name]
        return np.array(
            [(residues is None or r in residues) and a in atoms for r, a in self.names]
        )


def read_atoms(path: Path, chain: str | None) -> ModelAtoms:
    """Atoms of a model as the simulator wants them; hydrogens and waters left out."""
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    structure.remove_hydrogens()
    structure.remove_waters()
    chosen = [part for part in structure[0] if chain is None or part.name == chain]
    rows = [
        (r, residue.name, atom)
        for r, residue in enumerate(itertools.chain.from_iterable(chosen))
        for atom in residue
        if atom.altloc in ("\0", "A")
    ]
    atom_names = sorted({atom.name for *_, atom in rows})
    tables = chemistry_tables(atom_names)
    kind = [AMINO_ACIDS.index(n) if n in AMINO_ACIDS else len(AMINO_ACIDS) for _, n, _ in rows]
    at = (np.array(kind), np.array([atom_names.index(atom.name) for *_, atom in rows]))
    scatterers = Scatterers(
        positions=np.array([atom.pos.tolist() for *_, atom in rows], np.float32),
        elements=np.array([atom.element.atomic_number for *_, atom in rows], np.uint8),
        b_factors=np.array([atom.b_iso for *_, atom in rows], np.float32),
        hydrogens=tables.hydrogens[at],
        depth=tables.depth[at],
        volume=tables.volume[at],
        group=tables.group[at],
        residue=np.array([r for r, *_ in rows], np.int32),
    )
    return ModelAtoms(scatterers, tuple((name, atom.name) for _, name, atom in rows))


def read_at(
    values_zyx: Float32[np.ndarray, "z y x"], density: Density, positions: np.ndarray
) -> np.ndarray:
    """Density at positions, linearly interpolated."""
    at = ((positions - density.origin) / density.voxel_size)[:, ::-1].T
    return np.asarray(map_coordinates(values_zyx, at, order=1))


def simulated_maps(
    density: Density, atoms: ModelAtoms, resolution: float, n_draws: int
) -> Iterator[Float32[np.ndarray, "z y x"]]:
    """Maps of the atoms under random conditions, on the grid of the real one."""
    inside = atoms.scatterers.at(atoms.scatterers.positions - density.origin)
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        conditions = replace(draw_conditions(rng, resolution, mask="tight"), magnification=1.0)
        yield simulate_density(inside, density.values_zyx.shape, 1.0, conditions, rng)


def mean_anisotropy(maps: Sequence[Float32[np.ndarray, "z y x"]]) -> dict[str, list[float]]:
    """Mean `anisotropy` of several maps."""
    drawn = [anisotropy(values_zyx) for values_zyx in maps]
    return {
        name: np.mean([found[name] for found in drawn], axis=0).round(3).tolist()
        for name, _, _ in SHELLS
    }


def at_atoms(
    density: Density, atoms: ModelAtoms, maps: Sequence[Float32[np.ndarray, "z y x"]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Normalised density at the atoms, real and simulated; the backbone's mean is 1."""
    spectrum = load_spectrum()
    backbone = np.any([atoms.of_class(name) for name in BACKBONE], axis=0)

    def relative(values_zyx: Float32[np.ndarray, "z y x"]) -> np.ndarray:
        found = read_at(normalise(values_zyx, spectrum), density, atoms.scatterers.positions)
        return np.asarray(found / found[backbone].mean())

    return relative(density.values_zyx), [relative(values) for values in maps]


def compare(
    atoms: ModelAtoms, real: np.ndarray, simulated: Sequence[np.ndarray]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Means and deviations of every class in what `at_atoms` read."""
    for name in CLASSES:
        rows = atoms.of_class(name)
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


def anisotropy(values_zyx: Float32[np.ndarray, "z y x"]) -> dict[str, list[float]]:
    """Power along the three principal directions of a shell, relative to its mean.

    Second moments of the power over the directions of spatial frequencies, times 3: all 1 where
    no direction is preferred. Voxels of 1 Å.
    """
    power = np.abs(np.fft.fftn(values_zyx)) ** 2
    axes = [np.fft.fftfreq(n) for n in values_zyx.shape]
    frequency = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    length = np.linalg.norm(frequency, axis=-1)
    found = {}
    for name, low, high in SHELLS:
        shell = (length > 1 / high) & (length < 1 / low)
        direction = frequency[shell] / length[shell][:, None]
        weight = power[shell] / power[shell].sum()
        moments = 3 * np.einsum("i,ij,ik->jk", weight, direction, direction)
        found[name] = np.linalg.eigvalsh(moments).round(3).tolist()
    return found


def anisotropy_table(rows: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Markdown: least and most power of each shell and map, real and simulated."""
    lines = ["| shell | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for name, _, _ in SHELLS:
        cells = [
            " / ".join(
                f"{figures[kind][name][0]:.2f} to {figures[kind][name][2]:.2f}"
                for kind in ("real", "simulated")
            )
            for figures in rows.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: real / simulated of every class and map."""
    lines = ["| atoms | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
    for name in CLASSES:
        cells = []
        for figures in rows.values():
            f = figures.get(name)
            cells.append(
                f"{f['real']:.2f} ± {f['real_deviation']:.2f} / "
                f"{f['simulated']:.2f} ± {f['simulated_deviation']:.2f}"
                if f
                else "-"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(
    maps: Annotated[Path, typer.Option(help="Folder of the real maps.")],
    draws: Annotated[int, typer.Option(min=2, help="Random conditions for each map.")] = 6,
    out: Annotated[Path, typer.Option(help="Figures; a table goes beside them.")] = Path(
        "benchmarks/realism.json"
    ),
) -> None:
    """Compare density at the atoms of deposited models, real and simulated."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    directions: dict[str, dict[str, dict[str, list[float]]]] = {}
    correlation: dict[str, dict[str, float]] = {}
    for entry in json.loads(REAL_MAPS.read_text(encoding="utf-8")):
        density = resample(read_map(maps / entry["map"]), 1.0)
        atoms = read_atoms(maps / entry["model"], entry["chain"])
        resolution = entry["resolution"] or USUAL_RESOLUTION
        simulated = list(simulated_maps(density, atoms, resolution, draws))
        real, drawn = at_atoms(density, atoms, simulated)
        rows[entry["name"]] = dict(compare(atoms, real, drawn))
        correlation[entry["name"]] = correlations(real, drawn)
        directions[entry["name"]] = {
            "real": anisotropy(density.values_zyx),
            "simulated": mean_anisotropy(simulated),
        }
    facts = {"draws": draws, "machine": machine_facts()}
    figures = {"maps": rows, "correlation": correlation, "anisotropy": directions}
    write_json(out, {**facts, **figures})
    text = "Density at atoms, real / simulated; the backbone's mean is 1.\n\n" + table(rows)
    text += "\nCorrelation over all atoms, of the real map with simulated ones, and of those "
    text += "with each other (other conditions), means: "
    text += ", ".join(
        f"{name} {found['real']:.2f} and {found['each_other']:.2f}"
        for name, found in correlation.items()
    )
    text += ".\n"
    text += "\nPower along the weakest and the strongest direction, relative to the mean, "
    text += "real / simulated (mean of the draws).\n\n" + anisotropy_table(directions)
    out.with_suffix(".md").write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
