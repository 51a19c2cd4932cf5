"""Losses of the graph network on one training box, layer by layer as the runtime runs them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from angelo.frames import IDEAL_BACKBONE, update_frames
from angelo.neighbours import nearest_residues
from angelo.residues import AMINO_ACIDS, pi_periodic_torsions
from angelo.types import BackboneFrames
from angelo_export.networks.blocks import rotations_from_backbone
from angelo_export.networks.compact_gnn import CompactGraph
from angelo_export.networks.gnn import LayerOutput
from angelo_training.all_atom import atom_error, pick_torsions, place_atoms
from angelo_training.device_sampling import sample_cubes, sample_edge_rectangles
from angelo_training.graph_boxes import GraphBox
from angelo_training.precision import autocast_for
from angelo_training.reading import (
    SequenceView,
    attention_on,
    reading_loss,
    right_places,
    watch_reading,
)

#: Weights of the loss terms.
WEIGHTS = {
    "calpha": 1.0,
    "backbone": 1.0,
    "amino_acid": 0.6,
    "error": 0.2,
    "existence": 0.5,
    "next": 4.0,
    "torsion": 0.4,
    "atoms": 0.4,
    "reading": 0.4,
}
#: Weight of how far predicted (sin, cos) pairs are from length 1, within the torsion term.
STRAY_WEIGHT = 0.02
#: Errors beyond this pull no harder, Å.
FAR = 3.0
#: Predicted error that false points should get, Å.
FALSE_ERROR = 3.0


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels of a box as tensors; see ``GraphBox``."""

    is_residue: Tensor
    backbone: Tensor
    kinds: Tensor
    follows: Tensor
    torsions: Tensor
    has_torsion: Tensor
    atoms: Tensor
    has_atom: Tensor


def truth_of(box: GraphBox, device: str) -> Truth:
    """Labels to the device."""
    arrays = (
        box.is_residue,
        box.backbone,
        box.residue_type,
        box.follows,
        box.torsions,
        box.has_torsion,
        box.atoms,
        box.has_atom,
    )
    return Truth(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


#: Called after each layer: its output, the frames it started from, its neighbours.
AfterLayer = Callable[[LayerOutput, BackboneFrames, np.ndarray], None]


def run_layers(
    network: CompactGraph, box: GraphBox, embedding: Tensor, device: str, after: AfterLayer
) -> tuple[Tensor, BackboneFrames]:
    """All layers as the runtime runs them; final torsions and frames."""
    config = network.config
    calphas = box.calphas
    assert calphas.rotation is not None
    assert calphas.aa_logits is not None
    frames = BackboneFrames(calphas.rotation, calphas.positions)
    start = np.concatenate([calphas.aa_logits, calphas.probability[:, None]], axis=1)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    values_zyx = tensor(box.density.values_zyx)
    with autocast_for(torch.device(device)):
        features = network.start(tensor(start))
        keys, values = network.project_sequence(embedding)
    for index, layer in enumerate(network.layers):
        neighbours = nearest_residues(frames.ca, config.neighbours)
        rotations, positions = tensor(frames.rotation), tensor(frames.ca)
        near = tensor(neighbours)
        cubes = sample_cubes(
            values_zyx, rotations, positions, config.cube_side, config.cube_spacing
        )
        boxes = sample_edge_rectangles(
            values_zyx,
            rotations,
            positions,
            near,
            config.rectangle_length,
            config.rectangle_side,
            config.rectangle_spacing,
        )
        with autocast_for(torch.device(device)):
            output = layer(
                features,
                rotations,
                positions - positions.mean(0),
                near,
                cubes,
                boxes,
                keys[index],
                values[index],
            )
        output = LayerOutput(*(part.float() for part in output))
        after(output, frames, neighbours)
        features = output.features
        frames = update_frames(frames, output.places.detach().cpu().numpy())
    with autocast_for(torch.device(device)):
        torsions = network.torsions(features)
    return torsions.float(), frames


def layer_losses(
    output: LayerOutput, frames: BackboneFrames, neighbours: np.ndarray, truth: Truth
) -> dict[str, Tensor]:
    """Loss terms of one layer."""
    device = output.places.device
    rotation = torch.from_numpy(frames.rotation).to(device)
    ca = torch.from_numpy(frames.ca).to(device)
    ideal = torch.tensor(IDEAL_BACKBONE, dtype=torch.float32, device=device)
    moved = (ideal + output.places) @ rotation.transpose(-1, -2) + ca[:, None]
    distance = (moved - truth.backbone).square().sum(-1).add(1e-4).sqrt()  # r 3
    real = truth.is_residue
    count = real.sum().clamp(min=1)
    pull = distance.clamp(max=FAR) * real[:, None]
    target = torch.where(real, distance.detach().mean(1), distance.new_tensor(FALSE_ERROR))
    follows = torch.from_numpy(neighbours).to(device) == truth.follows[:, None]
    # Whether a false point has a successor is nobody's business but existence's.
    edges = functional.binary_cross_entropy_with_logits(
        output.next_logits, follows.float(), reduction="none"
    )
    return {
        "calpha": pull[:, 1].sum() / count,
        "backbone": pull[:, [0, 2]].sum() / (2 * count),
        "amino_acid": (
            functional.cross_entropy(output.aa_logits, truth.kinds, reduction="none") * real
        ).sum()
        / count,
        "error": functional.smooth_l1_loss(output.predicted_error, target.clamp(max=FAR)),
        "existence": functional.binary_cross_entropy_with_logits(
            output.existence, real.float()
        ),
        "next": edges.mean(),
    }


def unit_torsions(torsions: Tensor, truth: Truth) -> tuple[Tensor, Tensor]:
    """Torsions of the true type, as unit pairs (r, 8, 2), and the lengths they had."""
    selected = pick_torsions(torsions, truth.kinds, len(AMINO_ACIDS))
    length = selected.square().sum(-1).add(1e-6).sqrt()
    return selected / length[..., None], length


def torsion_loss(torsions: Tensor, truth: Truth) -> Tensor:
    """Torsions of the true type against the truth; symmetric ones may be off by half a turn."""
    unit, length = unit_torsions(torsions, truth)
    periodic = torch.from_numpy(pi_periodic_torsions(AMINO_ACIDS)).to(unit.device)[truth.kinds]
    straight = (unit - truth.torsions).square().sum(-1)
    flipped = (unit + truth.torsions).square().sum(-1)
    error = torch.where(periodic, torch.minimum(straight, flipped), straight)
    known = truth.has_torsion
    count = known.sum().clamp(min=1)
    stray = ((length - 1).abs() * known).sum() / count
    return (error * known).sum() / count + STRAY_WEIGHT * stray


def atom_loss(
    torsions: Tensor, last: LayerOutput, frames: BackboneFrames, truth: Truth
) -> Tensor:
    """Distance of all atoms, Å, as the last layer's places and torsions put them."""
    device = torsions.device
    unit, _ = unit_torsions(torsions, truth)
    # Through the last layer's places, so that side chains pull on their frames as well.
    rotation = torch.from_numpy(frames.rotation).to(device)
    ca = torch.from_numpy(frames.ca).to(device)
    ideal = torch.tensor(IDEAL_BACKBONE, dtype=torch.float32, device=device)
    local = ideal + last.places
    axes = rotation @ rotations_from_backbone(local)
    origin = (rotation @ local[:, 1, :, None])[..., 0] + ca
    predicted = place_atoms(axes, origin, unit, truth.kinds)
    return atom_error(predicted, truth.atoms, truth.has_atom, truth.kinds)


def box_losses(
    network: CompactGraph,
    box: GraphBox,
    view: SequenceView,
    device: str,
    and_after: AfterLayer | None = None,
) -> tuple[Tensor, dict[str, float], LayerOutput, BackboneFrames]:
    """Weighted loss over all layers, the last layer's terms, its output, the final frames.

    ``and_after`` is called after each layer.
    """
    truth = truth_of(box, device)
    right = right_places(box.places, view)
    outputs: list[tuple[LayerOutput, BackboneFrames, dict[str, Tensor]]] = []

    def after(output: LayerOutput, frames: BackboneFrames, neighbours: np.ndarray) -> None:
        terms = layer_losses(output, frames, neighbours, truth)
        with autocast_for(torch.device(device)):
            torsions = network.torsions(output.features)
            shares = attention_on(noted[-1], right)
        terms["torsion"] = torsion_loss(torsions.float(), truth)
        terms["reading"] = reading_loss(shares)
        outputs.append((output, frames, terms))
        if and_after is not None:
            and_after(output, frames, neighbours)

    with watch_reading(network) as noted:
        torsions, frames = run_layers(network, box, view.embedding, device, after)
    last, before_last, terms = outputs[-1]
    terms["atoms"] = atom_loss(torsions, last, before_last, truth)
    weights = np.linspace(0.5, 1.0, len(outputs))
    total = torch.zeros((), device=device)
    for weight, (_, _, layer_terms) in zip(weights, outputs, strict=True):
        for name, term in layer_terms.items():
            total = total + float(weight) * WEIGHTS[name] * term
    return total, {name: term.detach().item() for name, term in terms.items()}, last, frames
