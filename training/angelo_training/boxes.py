"""Training boxes: part of a structure, turned at random, as normalised density and labels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from angelo.frames import random_rotations
from angelo.local_strength import even_out
from angelo.spectrum import Spectrum, contrast, match_spectrum
from angelo.types import Density
from angelo_export.calpha_networks import LOCAL_STRENGTH
from angelo_training.conditions import Conditions, draw_conditions
from angelo_training.simulate import simulate_density
from angelo_training.structures import Entry

#: Density nearer than this to the box's faces lacks atoms outside and is cut off, Å.
MARGIN = 6.0
#: Chance that a residue's stretch is missing, and the longest such stretch.
MISSING_RATE, LONGEST_MISSING = 0.01, 8


@dataclass(frozen=True, slots=True)
class Box:
    """Normalised density and the residues in it. Positions in Å from voxel (0, 0, 0)."""

    density: Density
    """Already matched to the target spectrum and scaled; origin 0, voxel 1 Å."""
    backbone: Float32[np.ndarray, "r 3 3"]
    """N, CA, C of labelled residues."""
    residue_type: Int64[np.ndarray, " r"]
    """Index into the 20 amino acids."""
    entry_residue: Int64[np.ndarray, " r"]
    """Index of each residue in its entry."""
    rotation: Float32[np.ndarray, "3 3"]
    """How it was turned: ``x_box = scale * rotation @ (x_entry - centre) + box centre``."""
    centre: Float32[np.ndarray, "3"]
    """Entry coordinates that became the box centre."""
    scale: float
    """Magnification."""
    resolution: float
    """Å."""


def place_in_box(
    positions: np.ndarray, rotation: np.ndarray, centre: np.ndarray, scale: float, middle: float
) -> np.ndarray:
    """Entry coordinates to box coordinates (see ``Box.rotation``)."""
    turned: np.ndarray = scale * (positions - centre) @ rotation.T + middle
    return turned.astype(np.float32)


def make_box(
    entry: Entry,
    side: int,
    spectrum: Spectrum | None,
    rng: np.random.Generator,
    conditions: Conditions | None = None,
) -> Box:
    """Simulate ``side``³ voxels of 1 Å around a random residue.

    Simulated with a margin that is then cut off, so that density at the faces is complete.
    """
    conditions = conditions or draw_conditions(rng)
    padded = side + 2 * int(MARGIN)
    rotation = random_rotations(1, rng)[0]
    about = entry.backbone[:, 1] if len(entry.backbone) else entry.positions
    focus = int(rng.integers(len(about)))
    centre = about[focus] + rng.normal(size=3).astype(np.float32) * side / 10
    scale = conditions.magnification
    at = place_in_box(entry.positions, rotation, centre, scale, (padded - 1) / 2)
    keep = _present(entry, rng)
    in_box = ((at > 1) & (at < padded - 2)).all(1)
    inside = in_box & np.append(keep, True)[entry.atom_residue]  # -1, no residue: the last
    if not inside.any():  # a short peptide, all removed: an empty map teaches nothing
        keep[:] = True
        inside = in_box
    atoms = entry.atoms.at(at).only(inside)
    mask_atoms = None
    if conditions.mask == "zone" and len(entry.chain):
        chain_of_focus = entry.chain[focus]
        mask_atoms = np.append(entry.chain == chain_of_focus, False)[atoms.residue]
        keep &= entry.chain == chain_of_focus
    shape = (padded, padded, padded)
    values = simulate_density(atoms, shape, 1.0, conditions, rng, mask_atoms)
    values = normalise(values, spectrum)
    cut = int(MARGIN)
    values = values[cut:-cut, cut:-cut, cut:-cut]
    backbone = place_in_box(
        entry.backbone.reshape(-1, 3), rotation, centre, scale, (side - 1) / 2
    ).reshape(-1, 3, 3)
    labelled = keep & ((backbone[:, 1] > 0) & (backbone[:, 1] < side - 1)).all(1)
    rows = np.flatnonzero(labelled)
    return Box(
        density=Density(
            np.ascontiguousarray(values), np.ones(3, np.float32), np.zeros(3, np.float32)
        ),
        backbone=backbone[rows],
        residue_type=entry.residue_type[rows].astype(np.int64),
        entry_residue=rows,
        rotation=rotation,
        centre=centre,
        scale=scale,
        resolution=conditions.resolution,
    )


def normalise(
    values: Float32[np.ndarray, "z y x"], spectrum: Spectrum | None
) -> Float32[np.ndarray, "z y x"]:
    """Prepare a map already on the network's 1 Å grid as the runtime does."""
    if spectrum is not None:
        values = match_spectrum(values, np.ones(3, np.float32), spectrum)
    scale = max(contrast(values), 1e-6)
    normalised: np.ndarray = (values - values.mean()) / np.float32(scale)
    return normalised.astype(np.float32)


def evened_density(box: Box) -> Float32[np.ndarray, "z y x"]:
    """Density of a box as the C-alpha network sees it, in training as in a build."""
    return even_out(box.density.values_zyx, box.density.voxel_size, LOCAL_STRENGTH)


def _present(entry: Entry, rng: np.random.Generator) -> np.ndarray:
    """Residues that stay, after random stretches were removed from density and labels."""
    present = np.ones(len(entry.backbone), bool)
    starts = np.flatnonzero(rng.random(len(present)) < MISSING_RATE)
    for start in starts:
        present[start : start + int(rng.integers(1, LONGEST_MISSING))] = False
    return present
