"""The compact graph network: ModelAngelo's layer with two blocks of our own.

Shared with the official network: sequence attention, spatial attention, transition, heads.
Departing from it:

``FlatDensity`` reads a residue's density cube and its edges' boxes as flat vectors with matrix
products, where the official network convolves. In the residue's own frame a side chain always
lies in the same place, which is what convolutions would have to learn.

``FrameAttention`` weighs neighbours by everything the two frames and the density between them
say, where the official network compares density keys alone.

Layers start from what the C-alpha network predicted, and each has weights of its own.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo_export.networks.blocks import (
    RESIDUAL_SCALE,
    BackboneUpdate,
    Head,
    ScalarHead,
    SequenceAttention,
    SinusoidalEncoding,
    SpatialIPA,
    TorsionHead,
    Transition,
    layer_norm,
    to_global,
    to_local,
)
from angelo_export.networks.gnn import SHARED_TORSIONS, TORSIONS_PER_TYPE, LayerOutput

#: N, CA, C in residue axes, Å: the runtime's ideal backbone (``angelo.frames``).
IDEAL_ATOMS = ((-0.52286, 1.36209, 0.0), (0.0, 0.0, 0.0), (1.525, 0.0, 0.0))
#: Coordinates are divided by this before a linear layer sees them, Å.
COORDINATE_SCALE = 8.0
#: Scale of the smooth error head's output: softplus(0) is about this, Å.
ERROR_SCALE = 1.0


@dataclass(frozen=True, slots=True)
class CompactGraphConfig:
    """Sizes of the compact graph network."""

    layers: int = 4
    hidden: int = 192
    heads: int = 8
    edge: int = 128
    """Channels of an edge."""
    points: int = 4
    """Query points of a spatial head."""
    point_value: int = 16
    """Channels of a spatial value, for each head and point."""
    sequence: int = 128
    """Channels of the sequence embedding."""
    sequence_heads: int = 4
    sequence_head_width: int = 32
    cube_side: int = 13
    cube_spacing: float = 1.0
    cube_hidden: int = 256
    rectangle_length: int = 9
    rectangle_side: int = 3
    rectangle_spacing: float = 1.0
    neighbours: int = 20
    residue_types: int = 20
    start_features: int = 21
    """Amino-acid logits of the C-alpha network and its probability."""
    encoding: int = 20
    """Channels of an encoded distance."""
    depth: int = 2
    """Residual blocks of transitions and heads."""

    @property
    def torsions(self) -> int:
        """Torsions that the network predicts for each residue."""
        return SHARED_TORSIONS + TORSIONS_PER_TYPE * self.residue_types


class FlatDensity(nn.Module):
    """A density box, flattened -> features, by two matrix products."""

    def __init__(self, n_in: int, width: int, n_out: int) -> None:
        super().__init__()
        self.read = nn.Linear(n_in, width)
        self.ln = layer_norm(width)
        self.mix = nn.Linear(width, n_out, bias=False)

    def forward(self, box: Float[Tensor, "*r p"]) -> Float[Tensor, "*r c"]:
        """Row-wise."""
        mixed: Tensor = self.mix(torch.relu(self.ln(self.read(box))))
        return mixed


class EdgeFeatures(nn.Module):
    """What two frames and the density between them say of an edge."""

    def __init__(self, config: CompactGraphConfig) -> None:
        super().__init__()
        edge, hidden = config.edge, config.hidden
        self.distance_encoding = SinusoidalEncoding(config.encoding)
        n_geometry = 9 + 9 + 3 * config.encoding
        n_box = config.rectangle_length * config.rectangle_side**2
        self.geometry = nn.Linear(n_geometry, edge)
        self.density = FlatDensity(n_box, edge, edge)
        self.this = nn.Linear(hidden, edge, bias=False)
        self.other = nn.Linear(hidden, edge, bias=False)
        self.ln = layer_norm(edge)
        self.mix = nn.Linear(edge, edge)
        self.out = layer_norm(edge)
        self.ideal: Tensor
        self.register_buffer("ideal", torch.tensor(IDEAL_ATOMS), persistent=False)

    def forward(
        self,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        rectangles: Float[Tensor, "r k p"],
    ) -> Float[Tensor, "r k e"]:
        """One vector an edge, from the residue's side: it does not change when all turns."""
        r, k = neighbours.shape
        ideal = self.ideal.to(dtype=positions.dtype).expand(r, 3, 3)
        atoms = to_global(rotations, positions, ideal)
        other = atoms[neighbours]  # r k 3 3
        local = to_local(rotations, positions, other.reshape(r, -1, 3)).reshape(r, k, 9)
        turn = (rotations[:, None].transpose(-1, -2) @ rotations[neighbours]).reshape(r, k, 9)
        gaps = torch.stack(
            (
                torch.linalg.vector_norm(other[:, :, 1] - atoms[:, None, 1], dim=-1),
                torch.linalg.vector_norm(other[:, :, 0] - atoms[:, None, 2], dim=-1),
                torch.linalg.vector_norm(other[:, :, 2] - atoms[:, None, 0], dim=-1),
            ),
            dim=-1,
        )
        encoded = self.distance_encoding(gaps).flatten(2)
        geometry = torch.cat((local / COORDINATE_SCALE, turn, encoded), dim=-1)
        x = self.geometry(geometry) + self.density(rectangles)
        x = x + self.this(features)[:, None] + self.other(features)[neighbours]
        x = x + self.mix(torch.relu(self.ln(x)))
        edges: Tensor = self.out(x)
        return edges


class FrameAttention(nn.Module):
    """Residues gather from neighbours what the edges let through."""

    def __init__(self, config: CompactGraphConfig) -> None:
        super().__init__()
        self.heads, self.hidden = config.heads, config.hidden
        self.score = nn.Linear(config.edge, config.heads)
        self.value = nn.Linear(config.hidden, config.hidden, bias=False)
        self.edge_value = nn.Linear(config.edge, config.hidden, bias=False)

    def forward(
        self,
        features: Float[Tensor, "r h"],
        edges: Float[Tensor, "r k e"],
        neighbours: Int[Tensor, "r k"],
    ) -> Float[Tensor, "r h"]:
        """Weighted sums, head by head."""
        r, k = neighbours.shape
        weights = torch.softmax(self.score(edges), dim=1)  # r k a
        values = self.value(features)[neighbours] + self.edge_value(edges)
        values = values.reshape(r, k, self.heads, -1)
        gathered: Tensor = (weights[..., None] * values).sum(dim=1)
        return gathered.reshape(r, self.hidden)


class CompactLayer(nn.Module):
    """One layer; inputs and outputs are those of docs/bundle.md."""

    def __init__(self, config: CompactGraphConfig) -> None:
        super().__init__()
        hidden, depth = config.hidden, config.depth
        self.cube = FlatDensity(config.cube_side**3, config.cube_hidden, hidden)
        self.edges = EdgeFeatures(config)
        self.attention = FrameAttention(config)
        self.join = nn.Linear(2 * hidden, hidden, bias=False)
        self.en = layer_norm(hidden)
        self.sequence = SequenceAttention(
            hidden,
            config.sequence,
            config.sequence_heads,
            config.sequence_head_width,
            null_key=True,
        )
        self.spatial = SpatialIPA(
            hidden, hidden, config.heads, config.points, config.point_value
        )
        self.transition = Transition(hidden, depth)
        self.backbone = BackboneUpdate(
            hidden, start=((0, 0, 0),) * 3, start_deviation=0.02, depth=depth
        )
        self.amino_acid = Head(hidden, hidden, config.residue_types, depth)
        self.error = ScalarHead(hidden, depth)
        self.existence = ScalarHead(hidden, depth)
        self.next = nn.Sequential(
            nn.Linear(config.edge, config.edge), nn.ReLU(), nn.Linear(config.edge, 1)
        )

    def forward(
        self,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        cubes: Float[Tensor, "r p"],
        rectangles: Float[Tensor, "r k q"],
        sequence_keys: Float[Tensor, "l a c"],
        sequence_values: Float[Tensor, "l a c"],
    ) -> LayerOutput:
        """See docs/bundle.md; ``places`` of the output are displacements here."""
        edges = self.edges(features, rotations, positions, neighbours, rectangles)
        gathered = self.attention(features, edges, neighbours)
        joined = self.join(torch.cat((gathered, self.cube(cubes)), dim=1))
        features = self.en(features + joined / RESIDUAL_SCALE)
        features = self.sequence(features, sequence_keys, sequence_values)
        features = self.spatial(features, features, rotations, positions, neighbours)
        features = self.transition(features)
        error = nn.functional.softplus(self.error(features)) * ERROR_SCALE
        return LayerOutput(
            features=features,
            places=self.backbone(features),
            aa_logits=self.amino_acid(features),
            predicted_error=error,
            existence=self.existence(features),
            next_logits=self.next(edges)[..., 0],
        )


class CompactGraph(nn.Module):
    """All layers, with the start of the features and the torsions at the end."""

    def __init__(self, config: CompactGraphConfig) -> None:
        super().__init__()
        self.config = config
        self.start = nn.Sequential(
            nn.Linear(config.start_features, config.hidden), layer_norm(config.hidden)
        )
        self.layers = nn.ModuleList(CompactLayer(config) for _ in range(config.layers))
        self.torsions = TorsionHead(config.hidden, config.torsions, config.depth)

    def project_sequence(
        self, embedding: Float[Tensor, "l e"]
    ) -> tuple[Float[Tensor, "n l a c"], Float[Tensor, "n l a c"]]:
        """Keys and values of every layer, needed once for a set of sequences."""
        layers = cast(list[CompactLayer], list(self.layers))
        pairs = [layer.sequence.project_sequence(embedding) for layer in layers]
        keys, values = zip(*pairs, strict=True)
        return torch.stack(keys), torch.stack(values)
