"""Graph refinement: C-alphas and density in, frames and what the network says of them out.

The loop over layers, iterations and rounds, and the only state that they share.

References
----------
Jamali, Kimanius & Scheres 2023 (ICLR), section 3.2.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
from jaxtyping import Bool, Float32, Int64

from angelo.confidence import calibrated
from angelo.errors import NothingBuiltError
from angelo.frames import (
    frames_from_places,
    octant_rotations,
    random_rotations,
    update_frames,
)
from angelo.manifest import Bundle, GnnNetwork
from angelo.neighbours import close_pairs, nearest_residues, plan_crops
from angelo.refine_crops import Tally, refine_crops, share_of
from angelo.sampling import sample_cubes, sample_edge_rectangles, sample_sheared_rectangles
from angelo.session import Networks
from angelo.types import BackboneFrames, Calphas, Density, Refinement
from angelo.windows import Progress

log = logging.getLogger(__name__)

#: Residues less likely to exist than this are dropped after a round (none, if the bundle's own
#: threshold is lower still).
DROP_EXISTENCE = 0.1
#: C-alphas closer than this are one residue, Å; in proteins they are at least 2.8 Å apart.
COLLAPSED = 1.5
#: Density samples taken in one go; bounds the memory for their coordinates to about 300 MB.
POINTS_AT_ONCE = 4_000_000
#: What the manifest names: rectangle methods, frame conventions, random starting frames.
RECTANGLES = {"axis": sample_edge_rectangles, "modelangelo": sample_sheared_rectangles}
MOVES = {"alphafold": update_frames, "modelangelo": frames_from_places}
RANDOM_FRAMES = {"random": random_rotations, "modelangelo": octant_rotations}


@dataclass(frozen=True, slots=True)
class GraphStack:
    """Everything that stays the same through all rounds."""

    density: Density
    """Density as the network wants it."""
    gnn: GnnNetwork
    """Settings."""
    networks: Networks
    """Where the graphs come from."""
    sequence: tuple[dict[str, Float32[np.ndarray, "l a c"]], ...]
    """For each layer its sequence inputs (none for a network without)."""


def refine(
    density: Density,
    calphas: Calphas,
    bundle: Bundle,
    networks: Networks,
    sequence_embedding: Float32[np.ndarray, "l e"] | None,
    rng: np.random.Generator,
    progress: Progress | None = None,
    helpers: Sequence[Networks] = (),
) -> Refinement:
    """Backbone frames, residue types, torsions and links of the residues at C-alphas.

    Parameters
    ----------
    density
        Prepared for the graph network (see ``angelo.density``).
    calphas
        Where to start; its rotations are used if the bundle starts from predicted frames.
    bundle, networks
        Settings and graphs.
    sequence_embedding
        Of all residues of all sequences, or None to build without.
    rng
        For random starting frames.
    progress
        Told the number of layer runs done and in all.
    helpers
        The same graphs on further devices, which share the crops; results stay the same.

    Returns
    -------
    Refinement
        Of the residues left: unlikely ones, and all but one of those that ran together, are
        dropped after every round. Predicted errors are calibrated where the bundle says how.

    Raises
    ------
    NothingBuiltError
        If there is no C-alpha, or none is left.
    """
    if len(calphas) == 0:
        raise NothingBuiltError("no C-alpha was found in the map: nothing to refine")
    gnn = bundle.gnn
    stack = GraphStack(
        density, gnn, networks, _sequence_inputs(gnn, networks, sequence_embedding)
    )
    stacks = (stack, *(replace(stack, networks=helper) for helper in helpers))
    for i in range(gnn.rounds):
        refinement = _refine_round(stacks, calphas, rng, share_of(progress, i, gnn.rounds))
        limit = min(DROP_EXISTENCE, gnn.min_existence)
        chosen = surviving_residues(refinement.frames.ca, refinement.existence, limit)
        log.info("round %d: %d of %d residues survive", i + 1, len(chosen), len(calphas))
        if len(chosen) == 0:
            raise NothingBuiltError(
                f"refinement round {i + 1} rejected all {len(calphas)} C-alpha candidates"
            )
        refinement = take_residues(refinement, chosen)
        calphas = replace(
            take_calphas(calphas, chosen),
            positions=refinement.frames.ca,
            rotation=refinement.frames.rotation,
            probability=refinement.existence,
            aa_logits=refinement.aa_logits,
        )
    return replace(calibrated(refinement, gnn.error_calibration), is_protein=calphas.is_protein)


def surviving_residues(
    ca: Float32[np.ndarray, "r 3"],
    existence: Float32[np.ndarray, " r"],
    min_existence: float = DROP_EXISTENCE,
) -> Int64[np.ndarray, " s"]:
    """Return the indices of residues that likely exist, one only of those that ran together.

    Of C-alphas less than 1.5 Å apart the one of higher existence stays (of equals, the first).
    """
    exists = existence >= min_existence
    rank = np.empty(len(existence), np.int64)
    rank[np.argsort(-existence, kind="stable")] = np.arange(len(existence))
    pairs = close_pairs(ca, COLLAPSED)
    better = np.where(rank[pairs[:, 0]] < rank[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    worse = pairs.sum(axis=1) - better
    # Best first, so that a residue which has already lost removes no other.
    for i in np.argsort(rank[better], kind="stable"):
        if exists[better[i]]:
            exists[worse[i]] = False
    return np.flatnonzero(exists)


def take_residues(refinement: Refinement, chosen: Int64[np.ndarray, " s"]) -> Refinement:
    """Only these residues; neighbours renumbered, sorted by present distance and padded."""
    frames = _take_frames(refinement.frames, chosen)
    new_index = np.full(len(refinement), -1)
    new_index[chosen] = own = np.arange(len(chosen))
    neighbours = new_index[refinement.neighbours[chosen]]
    is_real = (neighbours >= 0) & (neighbours != own[:, None])
    neighbours = np.where(is_real, neighbours, own[:, None])
    away = np.linalg.norm(frames.ca[neighbours] - frames.ca[:, None], axis=-1)
    order = np.argsort(np.where(is_real, away, np.inf), axis=1, kind="stable")
    probability = np.where(is_real, refinement.next_probability[chosen], np.float32(0))
    return Refinement(
        frames=frames,
        aa_logits=refinement.aa_logits[chosen],
        torsions=refinement.torsions[chosen],
        predicted_error=refinement.predicted_error[chosen],
        existence=refinement.existence[chosen],
        neighbours=np.take_along_axis(neighbours, order, axis=1),
        next_probability=np.take_along_axis(probability, order, axis=1),
        is_protein=None if refinement.is_protein is None else refinement.is_protein[chosen],
    )


def _refine_round(
    stacks: Sequence[GraphStack],
    calphas: Calphas,
    rng: np.random.Generator,
    progress: Progress | None,
) -> Refinement:
    """Run one round, in one piece or in crops that the stacks share."""
    gnn = stacks[0].gnn
    frames = _start_frames(gnn, calphas, rng)
    crop = gnn.crop
    if crop is None or len(calphas) <= crop.size:
        return refine_piece(stacks[0], calphas, frames, progress)
    plan = plan_crops(calphas.positions, crop.size, crop.keep, crop.repeats)
    log.info("%d residues in %d crops of %d", len(calphas), len(plan), crop.size)
    tally = None if progress is None else Tally(progress, len(plan))
    idle: SimpleQueue[GraphStack] = SimpleQueue()
    for stack in stacks:
        idle.put(stack)

    def run(residues: Int64[np.ndarray, " s"], i: int) -> Refinement:
        stack = idle.get()
        try:
            part = (take_calphas(calphas, residues), _take_frames(frames, residues))
            return refine_piece(stack, *part, tally)
        finally:
            idle.put(stack)

    return refine_crops(plan, len(calphas), run, at_once=len(stacks))


def refine_piece(
    stack: GraphStack,
    calphas: Calphas,
    frames: BackboneFrames,
    progress: Progress | None = None,
) -> Refinement:
    """All layers, as often as the bundle iterates, over residues taken together."""
    gnn, networks = stack.gnn, stack.networks
    n_steps = gnn.iterations * len(gnn.layers)
    for step in range(n_steps):
        layer = step % len(gnn.layers)
        if layer == 0:
            features = _start_features(stack, calphas)
        neighbours = nearest_residues(frames.ca, gnn.neighbours)
        output = networks.open(gnn.layers[layer])(
            features=features,
            rotations=frames.rotation,
            positions=_centred(frames.ca),
            neighbours=neighbours,
            cubes=_cubes(stack, frames),
            rectangles=_rectangles(stack, frames, neighbours),
            **stack.sequence[layer],
            **_kinds(networks.open(gnn.layers[layer]).inputs, calphas),
        )
        features = output["features_out"]
        frames = MOVES[gnn.frames](frames, output["shifts"])
        if progress is not None:
            progress(step + 1, n_steps)
    return Refinement(
        frames=frames,
        aa_logits=output["aa_logits"],
        torsions=networks.open(gnn.heads)(features=features)["torsions"],
        predicted_error=output["predicted_error"],
        existence=sigmoid(output["existence"]),
        neighbours=neighbours,
        next_probability=np.where(
            neighbours == np.arange(len(frames))[:, None],  # padding: nobody follows itself
            np.float32(0),
            sigmoid(output["next_logits"]),
        ),
    )


def sigmoid(logits: Float32[np.ndarray, "*n"]) -> Float32[np.ndarray, "*n"]:
    """Probability of a logit; no overflow at either end."""
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * logits))


def _sequence_inputs(
    gnn: GnnNetwork, networks: Networks, embedding: Float32[np.ndarray, "l e"] | None
) -> tuple[dict[str, Float32[np.ndarray, "l a c"]], ...]:
    """Keys and values of every layer: they depend on the sequences alone."""
    ports = networks.open(gnn.layers[0]).inputs
    if "sequence_keys" not in ports:
        if embedding is not None:
            raise ValueError("a sequence was given, but this network takes none")
        return ({},) * len(gnn.layers)
    if embedding is None or gnn.sequence is None:
        nothing = np.zeros((0, *map(int, ports["sequence_keys"][1:])), np.float32)
        return ({"sequence_keys": nothing, "sequence_values": nothing},) * len(gnn.layers)
    projected = networks.open(gnn.sequence)(embedding=embedding)
    networks.close(gnn.sequence)
    return tuple(
        {"sequence_keys": keys, "sequence_values": values}
        for keys, values in zip(projected["keys"], projected["values"], strict=True)
    )


def _start_frames(
    gnn: GnnNetwork, calphas: Calphas, rng: np.random.Generator
) -> BackboneFrames:
    """Predicted frames (after the first round: refined ones), or new random ones."""
    if gnn.start_frames in RANDOM_FRAMES:
        rotations = RANDOM_FRAMES[gnn.start_frames](len(calphas), rng)
        return BackboneFrames(rotations, calphas.positions)
    if calphas.rotation is None:
        raise ValueError("the bundle starts from predicted frames, but none were predicted")
    return BackboneFrames(calphas.rotation, calphas.positions)


def _start_features(stack: GraphStack, calphas: Calphas) -> Float32[np.ndarray, "r h"]:
    gnn, n = stack.gnn, len(calphas)
    if gnn.start is None:
        return np.zeros((n, gnn.hidden), np.float32)
    columns = [np.zeros((n, 0), np.float32)]
    for name in gnn.start_features:
        column = _is_protein(calphas) if name == "is_protein" else getattr(calphas, name)
        if column is None:
            raise ValueError(f"the bundle starts from {name}, but none were predicted")
        columns.append(column.reshape(n, -1).astype(np.float32, copy=False))
    features = stack.networks.open(gnn.start)(start_features=np.concatenate(columns, axis=1))
    return features["features"]


def _is_protein(calphas: Calphas) -> Bool[np.ndarray, " r"]:
    return np.ones(len(calphas), bool) if calphas.is_protein is None else calphas.is_protein


def _kinds(ports: Collection[str], calphas: Calphas) -> dict[str, Bool[np.ndarray, " r"]]:
    """Input of layers that tell amino acids from nucleotides."""
    return {"is_protein": _is_protein(calphas)} if "is_protein" in ports else {}


def _centred(positions: Float32[np.ndarray, "r 3"]) -> Float32[np.ndarray, "r 3"]:
    centre = positions.mean(axis=0, dtype=np.float64)  # float32 sums of 500 Å lose 1e-3 Å
    centred: np.ndarray = (positions - centre).astype(np.float32)
    return centred


def _cubes(stack: GraphStack, frames: BackboneFrames) -> Float32[np.ndarray, "r p"]:
    """Density cubes, a bounded number of residues at a time."""
    cube = stack.gnn.cube
    n_points = cube.side**3
    cubes = np.empty((len(frames), n_points), np.float32)
    at_once = max(1, POINTS_AT_ONCE // n_points)
    for start in range(0, len(frames), at_once):
        rows = np.arange(start, min(start + at_once, len(frames)))
        part = _take_frames(frames, rows)
        cubes[rows] = sample_cubes(stack.density, part, cube.side, cube.spacing)
    return cubes


def _rectangles(
    stack: GraphStack, frames: BackboneFrames, neighbours: Int64[np.ndarray, "r k"]
) -> Float32[np.ndarray, "r k p"]:
    """Density along the edges, a bounded number of neighbour columns at a time."""
    box = stack.gnn.rectangle
    n_points = box.length * box.side**2
    rectangles = np.empty((*neighbours.shape, n_points), np.float32)
    at_once = max(1, POINTS_AT_ONCE // (n_points * len(frames)))
    for start in range(0, neighbours.shape[1], at_once):
        columns = slice(start, start + at_once)
        rectangles[:, columns] = RECTANGLES[box.method](
            stack.density, frames, neighbours[:, columns], box.length, box.side, box.spacing
        )
    return rectangles


def _take_frames(frames: BackboneFrames, rows: Int64[np.ndarray, " s"]) -> BackboneFrames:
    return BackboneFrames(frames.rotation[rows], frames.ca[rows])


def take_calphas(calphas: Calphas, rows: Int64[np.ndarray, " s"]) -> Calphas:
    """Only these candidates (s of r), in this order."""
    return Calphas(
        positions=calphas.positions[rows],
        probability=calphas.probability[rows],
        rotation=None if calphas.rotation is None else calphas.rotation[rows],
        aa_logits=None if calphas.aa_logits is None else calphas.aa_logits[rows],
        is_protein=None if calphas.is_protein is None else calphas.is_protein[rows],
    )
