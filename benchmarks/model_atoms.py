"""Atoms of a deposited model, with all that decides how they appear in a map."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Bool, Float32
from scipy.ndimage import map_coordinates

from angelo.residues import AMINO_ACIDS
from angelo.types import Density
from angelo_training.scatterers import Scatterers, chemistry_tables


@dataclass(frozen=True, slots=True)
class ModelAtoms:
    """Atoms (a of them) of a deposited model."""

    scatterers: Scatterers
    """In the frame of the map; amino acids count from 0 along the file, all else is -1."""
    names: tuple[tuple[str, str], ...]
    """Residue and atom name of each."""

    def are(
        self, residues: tuple[str, ...] | None, atoms: tuple[str, ...]
    ) -> Bool[np.ndarray, " a"]:
        """Which atoms have one of these names, in residues of these names (None: in any)."""
        return np.array(
            [(residues is None or r in residues) and a in atoms for r, a in self.names]
        )

    def in_box(self, density: Density) -> Scatterers:
        """Return the atoms in Å from the centre of a map's voxel (0, 0, 0)."""
        return self.scatterers.at(self.scatterers.positions - density.origin)


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
        residue=np.array([r if n in AMINO_ACIDS else -1 for r, n, _ in rows], np.int32),
    )
    return ModelAtoms(scatterers, tuple((name, atom.name) for _, name, atom in rows))


def read_at(
    values_zyx: Float32[np.ndarray, "z y x"], density: Density, positions: np.ndarray
) -> np.ndarray:
    """Density at positions, linearly interpolated."""
    at = ((positions - density.origin) / density.voxel_size)[:, ::-1].T
    return np.asarray(map_coordinates(values_zyx, at, order=1))
