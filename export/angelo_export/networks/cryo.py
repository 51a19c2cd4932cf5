"""Attention to the density: boxes along edges, and a cube around every residue."""

import math
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo_export.networks.blocks import (
    RESIDUAL_SCALE,
    Head,
    ResidualBlock,
    gather_values,
    layer_norm,
    to_local,
    weight_of,
)
from angelo_export.networks.bottleneck import EXPANSION, Bottleneck
from angelo_export.networks.distances import NeighbourDistances

#: Strided blocks of the cube network: 23 voxels become 12, 6, 3, 2.
CUBE_BLOCKS = 4
#: Side of a rectangle across its edge, samples.
RECTANGLE_SIDE = 3


class CryoOutput(NamedTuple):
    """What the density says."""

    features: Float[Tensor, "r h"]
    """Features that know the density."""
    edge_logits: Float[Tensor, "r k"]
    """That a neighbour is bonded to the residue."""
    aa_logits: Float[Tensor, "r t"]
    """Residue types, from the cubes alone."""


class SpatialMean(nn.Module):
    """Mean over the grid."""

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b c"]:
        """One number a channel."""
        return x.mean(dim=(-3, -2, -1))


class CubeNetwork(nn.Sequential):
    """Density cubes -> one vector a residue, by strided convolutions."""

    def __init__(self, side: int, channels: int, n_out: int, dropout: float = 0.0) -> None:
        inner = channels // EXPANSION
        super().__init__(
            *(
                Bottleneck(channels if i else 1, inner, stride=2, affine=True)
                for i in range(CUBE_BLOCKS)
            ),
            SpatialMean(),
            nn.Linear(channels, n_out, bias=False),
            nn.Dropout(dropout),
        )
        self.side = side

    def forward(self, cubes: Float[Tensor, "r p"]) -> Float[Tensor, "r g"]:
        """``cubes`` row-major over the residue axes (e1, e2, e3)."""
        grid = cubes.reshape(-1, 1, self.side, self.side, self.side)
        # Official weights have e3 (z) as the first axis of the grid and e1 (x) as the last.
        grid = grid.permute(0, 1, 4, 3, 2)
        vectors: Tensor = super().forward(grid)  # type: ignore[no-untyped-call]
        return vectors


class RectangleKeys(nn.Sequential):
    """Density along an edge -> the key of that edge."""

    def __init__(self, length: int, channels: int, n_out: int) -> None:
        n_features = channels * length
        super().__init__(
            nn.Conv3d(1, channels, (1, RECTANGLE_SIDE, RECTANGLE_SIDE), bias=False),
            nn.Identity(),  # keeps the numbering of the parameters
            layer_norm(n_features),
            nn.ReLU(),
            nn.Linear(n_features, n_out, bias=False),
        )
        self.length, self.channels = length, channels

    def forward(  # type: ignore[override]
        self, rectangles: Float[Tensor, "r k p"], queries: Float[Tensor, "r a c"]
    ) -> Float[Tensor, "r k a"]:
        """Take dot products of queries and keys; rectangles are row-major (length, 3, 3).

        The last projection is applied to the query instead of to every key: the product is
        the same, at a twentieth of the work for 20 neighbours.
        """
        r, k = rectangles.shape[:2]
        across = weight_of(self[0]).reshape(self.channels, RECTANGLE_SIDE**2)
        slices = rectangles.reshape(r, k, self.length, RECTANGLE_SIDE**2) @ across.T
        keys = self[3](self[2](slices.transpose(-1, -2).flatten(-2)))  # r k f
        heads = queries.shape[1]
        per_head = weight_of(self[4]).reshape(heads, -1, self.channels * self.length)
        folded = (queries.transpose(0, 1) @ per_head).transpose(0, 1)  # r a f
        scores: Tensor = keys @ folded.transpose(1, 2)
        return scores


class EdgeHead(Head):
    """Logit of every edge, from what the neighbour offers and how it lies."""

    def forward(  # type: ignore[override]
        self,
        values: Float[Tensor, "r g"],
        geometry: Float[Tensor, "r k j"],
        neighbours: Int[Tensor, "r k"],
    ) -> Float[Tensor, "r k"]:
        """Apply the first layer to residues before gathering them: k times less work."""
        first = cast(ResidualBlock, self[0])
        weight, split = weight_of(first.net[0]), values.shape[1]
        offered = (values @ weight[:, :split].T)[neighbours]
        x = first.activation(offered + geometry @ weight[:, split:].T)
        for block in list(self)[1:]:
            x = block(x)
        logits: Tensor = x[..., 0]
        return logits


class CryoAttention(nn.Module):
    """Attention to neighbours by the density between, joined with the density around.

    Parameters
    ----------
    hidden, heads
        Channels of residue features (and of each head), and heads.
    neighbours
        Neighbours of a residue.
    distances
        Channels of the distance embedding.
    rectangle_length, cube_side
        Samples along a rectangle and along a cube.
    channels
        Channels of the density networks, a multiple of 4.
    residue_types
        Residue types to tell apart.
    dropout
        On the joined branch, in training.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        neighbours: int,
        distances: int,
        *,
        rectangle_length: int,
        cube_side: int,
        channels: int,
        residue_types: int,
        encoding: int = 20,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if channels % EXPANSION:
            raise ValueError(f"density channels must be a multiple of 4, got {channels}")
        n_in, width = hidden + distances, heads * hidden
        self.heads = heads
        self.backbone_distance_emb = NeighbourDistances(neighbours, distances, encoding)
        self.ag = nn.Sequential(nn.Linear(2 * width, hidden, bias=False), nn.Dropout(dropout))
        self.en = layer_norm(hidden)
        self.cryo_point_v = CubeNetwork(cube_side, channels, width, dropout)
        self.cryo_vectors_k = RectangleKeys(rectangle_length, channels, width)
        self.cryo_q = nn.Sequential(nn.Linear(n_in, width, bias=False))
        self.cryo_v = nn.Sequential(nn.Linear(n_in, width, bias=False))
        n_edge = width + 3 + encoding + heads
        self.cryo_edge_prediction_head = EdgeHead(n_edge, hidden, 1)
        self.cryo_point_aa_head = Head(width, hidden, residue_types)

    def forward(
        self,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        atoms: Float[Tensor, "r 3 3"],
        neighbours: Int[Tensor, "r k"],
        cubes: Float[Tensor, "r p"],
        rectangles: Float[Tensor, "r k q"],
    ) -> CryoOutput:
        """Density in the order that docs/bundle.md gives; ``atoms`` are N, CA, C."""
        inputs = self.backbone_distance_emb(features, atoms, neighbours)
        queries = self.cryo_q(inputs).reshape(inputs.shape[0], self.heads, -1)
        scores = self.cryo_vectors_k(rectangles, queries / math.sqrt(queries.shape[-1]))
        weights = torch.softmax(scores, dim=1)
        along_edges = gather_values(weights, inputs, neighbours, weight_of(self.cryo_v[0]))
        around = self.cryo_point_v(cubes)
        joined = self.ag(torch.cat((along_edges, around), dim=1))

        seen = to_local(rotations, positions, positions[neighbours])
        distance = torch.linalg.vector_norm(seen, dim=-1)
        encoded = self.backbone_distance_emb.distance_encoding(distance)
        # The reference lets no gradient of the edges reach the attention.
        geometry = torch.cat((seen, encoded, weights.detach()), dim=-1)
        return CryoOutput(
            features=self.en(features + joined / RESIDUAL_SCALE),
            edge_logits=self.cryo_edge_prediction_head(
                self.cryo_v(inputs), geometry, neighbours
            ),
            aa_logits=self.cryo_point_aa_head(around),
        )
