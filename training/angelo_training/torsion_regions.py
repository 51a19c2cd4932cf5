"""Measure where torsions of good structures lie; writes the runtime's ``torsion_regions.json``.

    python -m angelo_training.torsion_regions data/structures.npz data/structures/index.csv

A plane of two torsions is divided by the smoothed density of residues in it: the cells of
highest density that together hold 98 % of them are favoured. Residues come from ``train``
entries by X-ray crystallography better than 2 Å and have low B-factors.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.ndimage import gaussian_filter

from angelo import torsion_regions
from angelo.atoms import measure_torsions
from angelo.coordinates import MAX_ATOMS, ProteinCoordinates
from angelo.residues import AMINO_ACIDS, CHI1, PHI, PSI, pi_periodic_torsions, residues_of
from angelo.torsion_regions import GENERAL, GLYCINE, KINDS, LETTERS, cells_of
from angelo_training.structures import Entry, PackedStructures, StructuresError

#: The file that the runtime reads.
RUNTIME_FILE = Path(torsion_regions.__file__).with_name(torsion_regions.FILE)
#: Entries must be better than this, Å.
RESOLUTION = 2.0
#: Highest B-factor of any atom of a residue that counts (for backbone torsions, of N, CA, C,
#: O), Å².
B_FACTOR = 30.0
#: Entries with a larger share of residues outside ``POOR_CONTOUR`` are poor models: left out.
POOR_SHARE, POOR_CONTOUR = 0.01, 0.998
#: Cells along a full turn, and width (s.d.) of the smoothing, cells.
RAMACHANDRAN_CELLS, RAMACHANDRAN_SMOOTHING = 72, 1.5
ROTAMER_CELLS, ROTAMER_SMOOTHING = 36, 1.0
#: Share of residues within the contour of favoured, and of all allowed cells.
RAMACHANDRAN_CONTOURS = (0.98, 0.9995)
ROTAMER_CONTOURS = (0.98, 0.997)


@dataclass(frozen=True, slots=True)
class TorsionSample:
    """Residues of many entries."""

    torsions: Float32[np.ndarray, "r 8 2"]
    """(sin, cos)."""
    is_measured: Bool[np.ndarray, "r 8"]
    residue_type: Int64[np.ndarray, " r"]
    is_linked: Bool[np.ndarray, " r"]
    """Bonded to the residue before."""
    is_sharp: Bool[np.ndarray, "r 2"]
    """Low B-factors of backbone, and of all atoms."""
    entry: Int64[np.ndarray, " r"]
    """Which entry the residue comes from."""

    def backbone(self, kind: str) -> Bool[np.ndarray, " r"]:
        """Residues of a Ramachandran kind whose phi and psi count."""
        is_inner = self.is_linked & np.append(self.is_linked[1:], False)
        is_inner &= self.is_measured[:, [PHI, PSI]].all(-1) & self.is_sharp[:, 0]
        kinds = torsion_regions.ramachandran_kinds(self.residue_type, self.is_linked)
        return np.asarray(is_inner & (kinds == KINDS.index(kind)))

    def keep(self, chosen: Bool[np.ndarray, " r"]) -> "TorsionSample":
        """Only some residues; links to others stay marked."""
        return TorsionSample(
            self.torsions[chosen],
            self.is_measured[chosen],
            self.residue_type[chosen],
            self.is_linked[chosen],
            self.is_sharp[chosen],
            self.entry[chosen],
        )


def density_plane(
    torsions: Float32[np.ndarray, "r k 2"], shape: tuple[int, int], smoothing: float
) -> Float64[np.ndarray, "p q"]:
    """Residues in each cell, smoothed around the turn by a Gaussian (s.d. in cells)."""
    counts = np.zeros(shape)
    np.add.at(counts, cells_of(torsions, shape), 1)
    widths = (smoothing, smoothing if shape[1] > 1 else 0)
    smoothed: np.ndarray = gaussian_filter(counts, widths, mode="wrap")
    return smoothed


def region_plane(
    torsions: Float32[np.ndarray, "r k 2"],
    shape: tuple[int, int],
    smoothing: float,
    contours: tuple[float, float],
) -> Int64[np.ndarray, "p q"]:
    """Favoured, allowed and outlying cells: the densest that hold a share of the residues."""
    plane = density_plane(torsions, shape, smoothing)
    at_residues = plane[cells_of(torsions, shape)]
    favoured, allowed = np.quantile(at_residues, 1 - np.array(contours), method="lower")
    levels = [torsion_regions.OUTLIER, torsion_regions.ALLOWED, torsion_regions.FAVOURED]
    choice = [plane < allowed, plane < favoured]
    regions: np.ndarray = np.select(choice, levels[:2], levels[2]).astype(np.int64)
    return regions


def backbone_torsions(sample: TorsionSample, kind: str) -> Float32[np.ndarray, "r 2 2"]:
    """Phi and psi of a kind; those of glycine, which has no side chain, also mirrored."""
    torsions: np.ndarray = sample.torsions[sample.backbone(kind)][:, [PHI, PSI]]
    if kind == GLYCINE:
        mirror = np.array([-1, 1], dtype=np.float32)
        torsions = np.concatenate([torsions, torsions * mirror])
    return torsions


def side_chain_torsions(sample: TorsionSample, name: str) -> Float32[np.ndarray, "r k 2"]:
    """chi1 and chi2 of a type; where half a turn is the same side chain, both ways."""
    (residue,) = residues_of([name])
    chis = [CHI1, CHI1 + 1][: residue.n_chi]
    chosen = (sample.residue_type == AMINO_ACIDS.index(name)) & sample.is_sharp[:, 1]
    chosen &= sample.is_measured[:, chis].all(-1)
    torsions: np.ndarray = sample.torsions[chosen][:, chis]
    if pi_periodic_torsions([name])[0, chis].any():  # chi2 of Asp, Phe and Tyr
        turned = torsions * np.array([[1], [-1]], dtype=np.float32)
        torsions = np.concatenate([torsions, turned])
    return torsions


def well_built(sample: TorsionSample) -> Bool[np.ndarray, " r"]:
    """Residues of entries in which few residues are outside the Ramachandran contour."""
    counted = sample.backbone(GENERAL)
    shape = (RAMACHANDRAN_CELLS, RAMACHANDRAN_CELLS)
    torsions = backbone_torsions(sample, GENERAL)
    plane = density_plane(torsions, shape, RAMACHANDRAN_SMOOTHING)
    at_residues = plane[cells_of(torsions, shape)]
    is_far = at_residues < np.quantile(at_residues, 1 - POOR_CONTOUR)
    n_entries = int(sample.entry.max()) + 1
    n_far = np.bincount(sample.entry[counted], is_far, n_entries)
    n_counted = np.bincount(sample.entry[counted], minlength=n_entries)
    is_good = n_far <= POOR_SHARE * n_counted
    return np.asarray(is_good[sample.entry])


def measure_regions(sample: TorsionSample) -> dict[str, dict[str, Int64[np.ndarray, "p q"]]]:
    """All planes of the runtime's file."""
    n, m = RAMACHANDRAN_CELLS, ROTAMER_CELLS
    with_chis = [residue for residue in residues_of(AMINO_ACIDS) if residue.n_chi]
    return {
        "ramachandran": {
            kind: region_plane(
                backbone_torsions(sample, kind),
                (n, n),
                RAMACHANDRAN_SMOOTHING,
                RAMACHANDRAN_CONTOURS,
            )
            for kind in KINDS
        },
        "rotamers": {
            residue.name: region_plane(
                side_chain_torsions(sample, residue.name),
                (m, m if residue.n_chi > 1 else 1),
                ROTAMER_SMOOTHING,
                ROTAMER_CONTOURS,
            )
            for residue in with_chis
        },
    }


def gather_sample(packed: PackedStructures, good: set[str], split: str) -> TorsionSample:
    """Torsions of the entries of a split that are named in ``good``."""
    parts = list(_samples(packed, good, split))
    if not parts:
        raise StructuresError(f"no {split} entry by X-ray is better than {RESOLUTION} Å")
    return TorsionSample(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def protein_of_entry(
    entry: Entry, atom_names: list[str]
) -> tuple[ProteinCoordinates, Float32[np.ndarray, "r 14"]]:
    """Residues of an entry with their atoms in order, and B-factors (0 where none), Å²."""
    slots = np.full((len(AMINO_ACIDS), 256), -1)
    known = {name: code for code, name in enumerate(atom_names[:255])}
    for row, residue in zip(slots, residues_of(AMINO_ACIDS), strict=True):
        for slot, atom in enumerate(residue.atoms):
            if atom in known:
                row[known[atom]] = slot
    atoms = np.flatnonzero(entry.atom_residue >= 0)
    rows = entry.atom_residue[atoms]
    slot = slots[entry.residue_type[rows], entry.atom_name[atoms]]
    atoms, rows, slot = atoms[slot >= 0], rows[slot >= 0], slot[slot >= 0]
    n = len(entry.residue_type)
    positions = np.zeros((n, MAX_ATOMS, 3), dtype=np.float32)
    has_atom = np.zeros((n, MAX_ATOMS), dtype=np.bool_)
    b_factors = np.zeros((n, MAX_ATOMS), dtype=np.float32)
    positions[rows, slot] = entry.positions[atoms]
    has_atom[rows, slot] = True
    b_factors[rows, slot] = entry.atoms.b_factors[atoms]
    names, chain = np.unique(entry.chain, return_inverse=True)
    protein = ProteinCoordinates(
        residue_type=entry.residue_type.astype(np.int64),
        positions=positions,
        has_atom=has_atom,
        chain=chain.astype(np.int64),
        chain_names=tuple(str(name) for name in names),
        sequence_number=np.arange(n),
    )
    return protein, b_factors


def _samples(
    packed: PackedStructures, good: set[str], split: str
) -> Iterator[tuple[np.ndarray, ...]]:
    for index in packed.select(split):
        if packed.entries[index]["pdb_id"] not in good:
            continue
        entry = packed[index]
        if not len(entry.residue_type):
            continue
        protein, b_factors = protein_of_entry(entry, packed.atom_names)
        is_linked = np.zeros(len(protein), dtype=np.bool_)
        is_linked[entry.follows[entry.follows >= 0]] = True
        torsions, is_measured = measure_torsions(
            protein.positions, protein.has_atom, protein.residue_type, is_linked
        )
        highest = np.stack([b_factors[:, :4].max(1), b_factors.max(1)], axis=-1)
        number = np.full(len(protein), index)
        kinds = protein.residue_type
        yield torsions, is_measured, kinds, is_linked, highest <= B_FACTOR, number


def _good_entries(index: Path) -> set[str]:
    """Entries of the index that are crystal structures of high resolution."""
    try:
        rows = list(csv.DictReader(index.read_text(encoding="utf-8").splitlines()))
        return {
            row["pdb_id"]
            for row in rows
            if row["method"].startswith("X-RAY") and 0 < float(row["resolution"]) < RESOLUTION
        }
    except (OSError, KeyError, ValueError) as error:
        raise StructuresError(
            f"{index}: not an index with columns pdb_id, method and resolution "
            f"({type(error).__name__}: {error})"
        ) from None


def _text(facts: Mapping[str, Any], regions: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Write each plane as a list of rows, a letter a cell."""
    planes = {
        section: {
            name: ["".join(LETTERS[cell] for cell in row) for row in plane]
            for name, plane in named.items()
        }
        for section, named in regions.items()
    }
    return json.dumps({**facts, **planes}, indent=0) + "\n"


def main(
    structures: Annotated[Path, typer.Argument(help="Packed structures.")],
    index: Annotated[Path, typer.Argument(help="index.csv of the structures.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = RUNTIME_FILE,
) -> None:
    """Measure the regions on train entries, write them."""
    try:
        packed, good = PackedStructures(structures), _good_entries(index)
        sample = gather_sample(packed, good, "train")
    except StructuresError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    chosen = well_built(sample)
    kept = sample.keep(chosen)
    facts = {
        "source": f"{len(np.unique(kept.entry))} crystal structures better than {RESOLUTION} "
        f"Å, residues with B-factors up to {B_FACTOR} Å²; cells from -180 degrees on, '.' "
        "outlier, 'a' allowed, 'F' favoured; rows phi or chi1, columns psi or chi2",
        "residues": {kind: int(kept.backbone(kind).sum()) for kind in KINDS},
        "contours": {"ramachandran": RAMACHANDRAN_CONTOURS, "rotamers": ROTAMER_CONTOURS},
    }
    out.write_text(_text(facts, measure_regions(kept)), encoding="utf-8")
    typer.echo(f"{out}: {json.dumps(facts, ensure_ascii=False)}")


if __name__ == "__main__":
    typer.run(main)
