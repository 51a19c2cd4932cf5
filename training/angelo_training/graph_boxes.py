"""Training boxes of the graph network: C-alphas as they are found, and the truth."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation
from scipy.special import expit
from torch import Tensor

from angelo.atoms import measure_torsions
from angelo.calpha import PointSettings, find_calphas
from angelo.frames import random_rotations, rotation_from_backbone
from angelo.refine import take_calphas
from angelo.residues import AMINO_ACIDS, residues_of
from angelo.types import Calphas, Density
from angelo.windows import VoxelPredictions
from angelo_export.calpha_networks import load_calpha
from angelo_export.networks.compact_c_alpha import (
    CHANNELS,
    MARGIN,
    STEP,
    CompactCalpha,
)
from angelo_training.box_stream import (
    StreamSettings,
    draw_entry,
    make_entry_box,
    stream_numbered,
)
from angelo_training.boxes import Box, evened_density, place_in_box
from angelo_training.precision import autocast_for
from angelo_training.reading import find_places
from angelo_training.structures import Entry

#: A point farther than this from every C-alpha is false, Å.
MATCH_RADIUS = 3.0
#: How voxels become points; the bundle's own settings are tuned on ``val``.
POINTS = PointSettings("votes", threshold=0.1, radius=1.2, min_separation=1.8, min_support=0.15)
#: Boxes with fewer points teach nothing.
FEWEST_POINTS = 8
#: Largest displacement of those (standard deviation), Å, and tilt of their frames, degrees.
MAX_NOISE, MAX_TILT = 0.9, 50.0
#: Chance that displaced C-alphas start from random frames: where directions are not seen, as
#: in EMD-30342 (benchmarks/calpha.md).
RANDOM_FRAMES_RATE = 0.1


@dataclass(frozen=True, slots=True)
class GraphBox:
    """One training example: r points, of which some are residues. Box coordinates, Å."""

    density: Density
    """Normalised, 1 Å voxels, origin 0."""
    calphas: Calphas
    """Where the graph network starts."""
    is_residue: Bool[np.ndarray, " r"]
    """False for false points; their truth below is meaningless."""
    backbone: Float32[np.ndarray, "r 3 3"]
    """True N, CA, C."""
    residue_type: Int64[np.ndarray, " r"]
    """True type."""
    follows: Int64[np.ndarray, " r"]
    """Point bonded at C, or -1."""
    torsions: Float32[np.ndarray, "r 8 2"]
    """True torsions as (sin, cos)."""
    has_torsion: Bool[np.ndarray, "r 8"]
    """Which of them are known."""
    atoms: Float32[np.ndarray, "r a 3"]
    """True atoms in the order of ``angelo.residues``."""
    has_atom: Bool[np.ndarray, "r a"]
    """Which of them are known."""
    places: Int64[np.ndarray, "r 2"]
    """Sequence (index into ``sequences``) and position in it; -1 where not known."""
    sequences: tuple[str, ...]
    """All protein sequences of the entry."""


@dataclass(frozen=True, slots=True)
class GraphStreamSettings:
    """Which examples are made."""

    boxes: StreamSettings
    """Entries and box side."""
    calpha_weights: Path
    """The C-alpha network whose points are learned from."""
    with_noise: bool = True
    """Make every other example from displaced true C-alphas instead of found ones."""


@lru_cache(maxsize=2)
def _network(weights: Path) -> CompactCalpha:
    return load_calpha(weights)


@torch.no_grad()
def predict_voxels(
    network: CompactCalpha, values_zyx: Float32[np.ndarray, "z y x"]
) -> np.ndarray:
    """All channels on every ``STEP``-th voxel of an evened density: (K, z, y, x), logits."""
    with autocast_for(torch.device("cpu")):
        output: Tensor = network(torch.from_numpy(values_zyx)[None, None])
    return output[0].float().contiguous().numpy()


def voxel_predictions(output: np.ndarray, threshold: float) -> VoxelPredictions:
    """Voxels over the threshold, in box coordinates."""
    probability = expit(output[0])
    z, y, x = np.nonzero(probability > threshold)
    return VoxelPredictions(
        positions=(np.stack([x, y, z], -1) * STEP).astype(np.float32),
        probability=probability[z, y, x].astype(np.float32),
        channels=np.ascontiguousarray(output[1:, z, y, x].T),
        names=CHANNELS[1:],
    )


def start_from_noise(box: Box, output: np.ndarray, rng: np.random.Generator) -> Calphas:
    """Displace the true C-alphas, leave some out, add false ones; the rest as in ``output``."""
    backbone = box.backbone[rng.random(len(box.backbone)) > 0.03]
    rotation = rotation_from_backbone(*np.moveaxis(backbone, 1, 0))
    tilt = (
        rng.normal(size=(len(backbone), 3)) * np.radians(rng.uniform(0, MAX_TILT)) / np.sqrt(3)
    )
    rotation = (rotation @ Rotation.from_rotvec(tilt).as_matrix()).astype(np.float32)
    if rng.random() < RANDOM_FRAMES_RATE:
        rotation = random_rotations(len(backbone), rng)
    at = backbone[:, 1] + rng.normal(size=(len(backbone), 3)) * rng.uniform(0, MAX_NOISE)
    n_false = rng.binomial(len(at), 0.06)
    near = at[rng.integers(len(at), size=n_false)] + rng.normal(size=(n_false, 3)) * 3
    at = np.concatenate([at, near]).astype(np.float32)
    rotation = np.concatenate([rotation, random_rotations(n_false, rng)])
    voxel = np.clip(np.rint(at / STEP).astype(int), 0, output.shape[1] - 1)
    said = output[:, voxel[:, 2], voxel[:, 1], voxel[:, 0]].T
    probability = expit(said[:, 0]).astype(np.float32)
    return Calphas(at, probability, rotation, np.ascontiguousarray(said[:, 10:]))


@lru_cache(maxsize=1)
def _searched_box(
    settings: GraphStreamSettings, number: int, resolution: float | None
) -> tuple[Entry, list[str], Box, np.ndarray]:
    """Simulate a box and search it; remembered, since two examples are made of each."""
    entry, atom_names, rng = draw_entry(settings.boxes, number)
    box = make_entry_box(entry, settings.boxes, rng, resolution)
    output = predict_voxels(_network(settings.calpha_weights), evened_density(box))
    return entry, atom_names, box, output


def make_graph_box(
    settings: GraphStreamSettings, number: int, resolution: float | None = None
) -> GraphBox | None:
    """Make example ``number`` of a stream; None where too few points were found.

    Even numbers start from found points, odd ones from displaced true C-alphas of the same box
    (``settings.with_noise``).
    """
    number, is_noisy = divmod(number, 2) if settings.with_noise else (number, 0)
    entry, atom_names, box, output = _searched_box(settings, number, resolution)
    if is_noisy and len(box.backbone) > FEWEST_POINTS:
        rng = np.random.default_rng([settings.boxes.seed, number, 3])
        calphas = start_from_noise(box, output, rng)
    else:
        voxels = voxel_predictions(output, POINTS.threshold)
        calphas = find_calphas(voxels, POINTS, AMINO_ACIDS)
    side = box.density.values_zyx.shape[0]
    inside = ((calphas.positions > MARGIN) & (calphas.positions < side - 1 - MARGIN)).all(1)
    if inside.sum() < FEWEST_POINTS or not len(box.backbone):
        return None
    kept = take_calphas(calphas, np.flatnonzero(inside))
    return label(box, entry, atom_names, kept)


def label(box: Box, entry: Entry, atom_names: list[str], calphas: Calphas) -> GraphBox:
    """Give every point the truth of the residue it stands for."""
    matched = match_points(calphas.positions, box.backbone[:, 1], MATCH_RADIUS)
    is_residue = matched >= 0
    row = np.maximum(matched, 0)  # of the box
    residue = box.entry_residue[row]  # of the entry
    point_of_residue = np.full(len(entry.backbone) + 1, -1)
    point_of_residue[residue[is_residue]] = np.flatnonzero(is_residue)
    follows = np.where(is_residue, point_of_residue[entry.follows[residue]], -1)
    positions, has_atom = residue_atoms(entry, atom_names)
    follows_previous = np.zeros(len(entry.backbone), bool)
    follows_previous[entry.follows[entry.follows >= 0]] = True
    kinds = entry.residue_type.astype(np.int64)
    torsions, has_torsion = measure_torsions(positions, has_atom, kinds, follows_previous)
    places = find_places(entry.residue_type, entry.follows, entry.chain, entry.sequences)
    side = box.density.values_zyx.shape[0]
    chosen = positions[residue]
    placed = place_in_box(
        chosen.reshape(-1, 3), box.rotation, box.centre, box.scale, (side - 1) / 2
    )
    return GraphBox(
        density=box.density,
        calphas=calphas,
        is_residue=is_residue,
        backbone=box.backbone[row],
        residue_type=box.residue_type[row],
        follows=follows.astype(np.int64),
        torsions=torsions[residue],
        has_torsion=has_torsion[residue] & is_residue[:, None],
        atoms=placed.reshape(chosen.shape),
        has_atom=has_atom[residue] & is_residue[:, None],
        places=np.where(is_residue[:, None], places[residue], -1),
        sequences=entry.sequences,
    )


def take_points(box: GraphBox, chosen: Int64[np.ndarray, " s"]) -> GraphBox:
    """Only these points (s of r); bonds to points that are gone are gone."""
    new_index = np.full(len(box.is_residue) + 1, -1)  # the last: no bond
    new_index[chosen] = np.arange(len(chosen))
    return replace(
        box,
        calphas=take_calphas(box.calphas, chosen),
        is_residue=box.is_residue[chosen],
        backbone=box.backbone[chosen],
        residue_type=box.residue_type[chosen],
        follows=new_index[box.follows[chosen]],
        torsions=box.torsions[chosen],
        has_torsion=box.has_torsion[chosen],
        atoms=box.atoms[chosen],
        has_atom=box.has_atom[chosen],
        places=box.places[chosen],
    )


def match_points(
    points: np.ndarray, truth: np.ndarray, radius: float
) -> Int64[np.ndarray, " r"]:
    """One-to-one, closest pairs first: index of each point's true C-alpha, or -1."""
    matched = np.full(len(points), -1, np.int64)
    if not len(points) or not len(truth):
        return matched
    near = cKDTree(points).sparse_distance_matrix(
        cKDTree(truth), radius, output_type="coo_matrix"
    )
    taken = np.zeros(len(truth), bool)
    for pair in np.argsort(near.data, kind="stable"):
        i, j = near.row[pair], near.col[pair]
        if matched[i] < 0 and not taken[j]:
            matched[i], taken[j] = j, True
    return matched


def residue_atoms(
    entry: Entry, atom_names: list[str]
) -> tuple[Float32[np.ndarray, "r a 3"], Bool[np.ndarray, "r a"]]:
    """Atoms of every amino acid in the order of ``angelo.residues``, entry coordinates."""
    table = _slot_table(tuple(atom_names))
    of_residue = entry.atom_residue >= 0
    residue = entry.atom_residue[of_residue]
    slot = table[entry.residue_type[residue], entry.atom_name[of_residue]]
    known = slot >= 0
    width = max(len(kind.atoms) for kind in residues_of(AMINO_ACIDS))
    positions = np.zeros((len(entry.backbone), width, 3), np.float32)
    has_atom = np.zeros(positions.shape[:2], bool)
    positions[residue[known], slot[known]] = entry.positions[of_residue][known]
    has_atom[residue[known], slot[known]] = True
    return positions, has_atom


@lru_cache(maxsize=2)
def _slot_table(atom_names: tuple[str, ...]) -> np.ndarray:
    """Slot of each atom name in each residue type; -1 where it has none."""
    table = np.full((len(AMINO_ACIDS), 256), -1)
    for kind, residue in enumerate(residues_of(AMINO_ACIDS)):
        for slot, name in enumerate(residue.atoms):
            if name in atom_names:
                table[kind, atom_names.index(name)] = slot
    # Selenomethionine counts as methionine.
    met = AMINO_ACIDS.index("MET")
    if "SE" in atom_names:
        table[met, atom_names.index("SE")] = residues_of(AMINO_ACIDS)[met].atoms.index("SD")
    return table


def _start_worker() -> None:
    torch.set_num_threads(1)


def _make_pair(settings: GraphStreamSettings, number: int) -> list[GraphBox | None]:
    """Examples 2 n and 2 n + 1, which share a box, made in one process."""
    return [make_graph_box(settings, 2 * number + k) for k in range(2)]


def stream_graph_boxes(
    settings: GraphStreamSettings, first: int, *, workers: int = 1, ahead: int = 12
) -> Iterator[GraphBox | None]:
    """Examples ``first``, ``first + 1``, ... without end; None where points are too few."""
    pairs = stream_numbered(
        partial(_make_pair, settings),
        first // 2,
        workers=workers,
        ahead=ahead // 2,
        start_worker=_start_worker,
    )
    return islice(chain.from_iterable(pairs), first % 2, None)
