"""ModelAngelo's graph network: eight layers that refine backbone frames in the density.

The module tree has the official parameter names and loads official checkpoints as they are.

References
----------
Jamali et al. 2024, doi:10.1038/s41586-024-07215-4;
Jamali, Kimanius & Scheres 2023, arXiv:2210.00006, section 3.2.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from angelo_export.networks.blocks import (
    BackboneUpdate,
    Head,
    ScalarHead,
    SequenceAttention,
    SpatialIPA,
    TorsionHead,
    Transition,
)
from angelo_export.networks.cryo import CryoAttention, CryoOutput
from angelo_export.networks.distances import NeighbourDistances, backbone_of_frames

#: Torsions that do not depend on the residue type (omega, phi, psi).
SHARED_TORSIONS = 3
#: Torsions of each residue type.
TORSIONS_PER_TYPE = 5


@dataclass(frozen=True, slots=True)
class GraphConfig:
    """Sizes of the graph network; the defaults are the official full-size ones."""

    sequence: int | None = 1280
    """Channels of sequence embeddings; None: a network without sequences."""
    hidden: int = 256
    """Channels of residue features, h, and of every attention head."""
    layers: int = 8
    """Layers, each with its own attentions; transition and heads are shared."""
    heads: int = 8
    """Attention heads of every kind of attention."""
    points: int = 8
    """Query points of a spatial head."""
    neighbours: int = 20
    """Neighbours of a residue, k."""
    distances: int = 64
    """Channels of the distance embedding."""
    rectangle_length: int = 7
    """Samples along a rectangle; 3 x 3 across."""
    cube_side: int = 23
    """Samples along a cube."""
    density: int = 256
    """Channels of the density networks."""
    residue_types: int = 28
    """20 amino acids, then DA DC DG DT A C G U."""

    @property
    def torsions(self) -> int:
        """Torsions that the network predicts for each residue."""
        return SHARED_TORSIONS + TORSIONS_PER_TYPE * self.residue_types


class LayerOutput(NamedTuple):
    """What one layer gives; the fields of docs/bundle.md, ``places`` apart."""

    features: Float[Tensor, "r h"]
    """Residue features."""
    places: Float[Tensor, "r 3 3"]
    """N, CA, C in the residue's present axes, angstrom (not displacements)."""
    aa_logits: Float[Tensor, "r t"]
    """Residue types."""
    predicted_error: Float[Tensor, " r"]
    """Backbone error, angstrom."""
    existence: Float[Tensor, " r"]
    """Logit that the residue is real."""
    next_logits: Float[Tensor, "r k"]
    """Logit of the bond to each neighbour."""


class OfficialSequenceAttention(SequenceAttention):
    """Sequence attention with a head that reads residue types off what was found."""

    def __init__(self, config: GraphConfig, sequence: int) -> None:
        super().__init__(config.hidden, sequence, config.heads, config.hidden)
        self.seq_aa_head = Head(config.hidden, config.hidden, config.residue_types)


class OfficialSpatialIPA(SpatialIPA):
    """Spatial attention whose queries and values also see neighbour distances."""

    def __init__(self, config: GraphConfig) -> None:
        n_in = config.hidden + config.distances
        super().__init__(config.hidden, n_in, config.heads, config.points, config.hidden)
        self.backbone_distance_emb = NeighbourDistances(config.neighbours, config.distances)


class Gate(nn.Module):
    """A learned mixture of two predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Float[Tensor, "r t"], y: Float[Tensor, "r t"]) -> Float[Tensor, "r t"]:
        """Half of each, until trained."""
        share = torch.sigmoid(self.gate)
        return share * x + (1.0 - share) * y


class GraphLayers(nn.Module):
    """All layers and heads; ``GraphNetwork`` holds it as ``ipa``."""

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.config = config
        hidden, layers = config.hidden, range(config.layers)
        self.spatial_ipas = nn.ModuleList(OfficialSpatialIPA(config) for _ in layers)
        self.cryo_attentions = nn.ModuleList(_cryo_attention(config) for _ in layers)
        if config.sequence is None:
            self.main_aa_predictor = Head(hidden, hidden, config.residue_types)
            self.aa_gate = Gate()
        else:
            width = config.sequence
            self.seq_attentions = nn.ModuleList(
                OfficialSequenceAttention(config, width) for _ in layers
            )
        self.transition_layer = Transition(hidden)
        self.backbone_update_fc = BackboneUpdate(hidden)
        self.torsion_angle_fc = TorsionHead(hidden, config.torsions)
        self.local_confidence_predictor = ScalarHead(hidden)
        self.existence_mask_predictor = ScalarHead(hidden)

    def cryo(
        self,
        layer: int,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        cubes: Float[Tensor, "r p"],
        rectangles: Float[Tensor, "r k q"],
        is_protein: Bool[Tensor, " r"],
    ) -> CryoOutput:
        """First part of a layer: attention to the density."""
        atoms = backbone_of_frames(rotations, positions, is_protein)
        output: CryoOutput = self.cryo_attentions[layer](
            features, rotations, positions, atoms, neighbours, cubes, rectangles
        )
        return output

    def attend_sequence(
        self,
        layer: int,
        features: Float[Tensor, "r h"],
        keys: Float[Tensor, "l a c"],
        values: Float[Tensor, "l a c"],
        is_protein: Bool[Tensor, " r"],
    ) -> tuple[Float[Tensor, "r h"], Float[Tensor, "r t"]]:
        """Second part: features, and the sequence's residue-type logits (0 for nucleotides)."""
        attention = cast(OfficialSequenceAttention, self.seq_attentions[layer])
        amino = is_protein[:, None].to(features.dtype)
        told = attention.attend(features, keys, values) * amino
        return attention.combine(features, told), attention.seq_aa_head(told) * amino

    def look_around(
        self,
        layer: int,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        is_protein: Bool[Tensor, " r"],
    ) -> Float[Tensor, "r h"]:
        """Third part: attention to neighbours in space."""
        attention = cast(OfficialSpatialIPA, self.spatial_ipas[layer])
        atoms = backbone_of_frames(rotations, positions, is_protein)
        inputs = attention.backbone_distance_emb(features, atoms, neighbours)
        seen: Tensor = attention(features, inputs, rotations, positions, neighbours)
        return seen

    def mix_aa_logits(
        self,
        features: Float[Tensor, "r h"],
        from_density: Float[Tensor, "r t"],
        from_sequence: Float[Tensor, "r t"] | None,
        is_protein: Bool[Tensor, " r"],
    ) -> Float[Tensor, "r t"]:
        """One prediction of the residue type.

        With sequences the mean of both for amino acids, the density's alone for nucleotides;
        without them a learned mixture of the density's and the features'.
        """
        if from_sequence is None:
            mixed: Tensor = self.aa_gate(from_density, self.main_aa_predictor(features))
            return mixed
        return (from_density + from_sequence) / (1.0 + is_protein[:, None].to(features.dtype))


def _cryo_attention(config: GraphConfig) -> CryoAttention:
    return CryoAttention(
        config.hidden,
        config.heads,
        config.neighbours,
        config.distances,
        rectangle_length=config.rectangle_length,
        cube_side=config.cube_side,
        channels=config.density,
        residue_types=config.residue_types,
    )


class GraphNetwork(nn.Module):
    """The graph network; ``layer`` is one step of the refinement that the runtime drives."""

    def __init__(self, config: GraphConfig) -> None:
        super().__init__()
        self.config = config
        self.ipa = GraphLayers(config)

    def start(self, is_protein: Bool[Tensor, " r"]) -> Float[Tensor, "r h"]:
        """Features before the first layer: zeros, and in the last channel 1 for proteins."""
        marks = is_protein[:, None].to(torch.float32)
        zeros = marks.new_zeros(1, self.config.hidden - 1) * marks
        return torch.cat((zeros, marks), dim=1)

    def project_sequence(
        self, embedding: Float[Tensor, "l e"]
    ) -> tuple[Float[Tensor, "n l a c"], Float[Tensor, "n l a c"]]:
        """Keys and values of every layer (n); needed once for a set of sequences."""
        parts = cast(list[OfficialSequenceAttention], list(self.ipa.seq_attentions))
        pairs = [part.project_sequence(embedding) for part in parts]
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys), torch.stack(values)

    def layer(
        self,
        layer: int,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        cubes: Float[Tensor, "r p"],
        rectangles: Float[Tensor, "r k q"],
        sequence_keys: Float[Tensor, "l a c"] | None = None,
        sequence_values: Float[Tensor, "l a c"] | None = None,
        is_protein: Bool[Tensor, " r"] | None = None,
    ) -> LayerOutput:
        """One layer, inputs as in docs/bundle.md; all residues are protein by default.

        Raises
        ------
        ValueError
            If sequences are given to a network without, or the other way round.
        """
        has_sequence = sequence_keys is not None and sequence_values is not None
        if has_sequence != (self.config.sequence is not None):
            raise ValueError("sequence keys and values: all or none, as the network has")
        if is_protein is None:
            is_protein = torch.ones_like(positions[:, 0], dtype=torch.bool)
        place = (rotations, positions, neighbours)
        seen = self.ipa.cryo(layer, features, *place, cubes, rectangles, is_protein)
        x, from_sequence = seen.features, None
        if sequence_keys is not None and sequence_values is not None:
            x, from_sequence = self.ipa.attend_sequence(
                layer, x, sequence_keys, sequence_values, is_protein
            )
        x = self.ipa.transition_layer(self.ipa.look_around(layer, x, *place, is_protein))
        return LayerOutput(
            features=x,
            places=self.ipa.backbone_update_fc(x),
            aa_logits=self.ipa.mix_aa_logits(x, seen.aa_logits, from_sequence, is_protein),
            predicted_error=self.ipa.local_confidence_predictor(x),
            existence=self.ipa.existence_mask_predictor(x),
            next_logits=seen.edge_logits,
        )

    def torsions(self, features: Float[Tensor, "r h"]) -> Float[Tensor, "r s 2"]:
        """(sin, cos) of every torsion, from the features of the last layer."""
        pairs: Tensor = self.ipa.torsion_angle_fc(features)
        return pairs
