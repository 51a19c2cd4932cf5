"""Reusable parts of the graph network.

Axes: r residues, k neighbours, l sequence, h hidden channels, a heads, p points; lengths in
angstrom; r and l may be dynamic in exports. Parameter names are ModelAngelo's.

References
----------
Jamali et al. 2024, doi:10.1038/s41586-024-07215-4 (ModelAngelo);
Jumper et al. 2021, doi:10.1038/s41586-021-03819-2 (AlphaFold2).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

#: Residual branches are divided by this before they are added.
RESIDUAL_SCALE = math.sqrt(2.0)
#: Residual blocks in front of the last linear layer of every head.
HEAD_DEPTH = 3


def layer_norm(width: int) -> nn.LayerNorm:
    """Layer norm without bias, as everywhere in the graph network."""
    return nn.LayerNorm(width, bias=False)


def weight_of(layer: nn.Module) -> Tensor:
    """Weight of a linear layer or convolution that is used without calling the layer."""
    return cast(Tensor, layer.weight)


class ResidualBlock(nn.Module):
    """Linear, added to the input where widths agree, ReLU, layer norm."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(n_in, n_out, bias=False))
        self.activation = nn.Sequential(nn.ReLU(), layer_norm(n_out))
        self.is_residual = n_in == n_out

    def forward(self, x: Float[Tensor, "*r c"]) -> Float[Tensor, "*r d"]:
        """Row-wise."""
        y: Tensor = self.net(x)
        activated: Tensor = self.activation(x + y / RESIDUAL_SCALE if self.is_residual else y)
        return activated


class Transition(nn.Sequential):
    """Residual blocks between attention and the heads."""

    def __init__(self, hidden: int, depth: int = HEAD_DEPTH) -> None:
        super().__init__(*(ResidualBlock(hidden, hidden) for _ in range(depth)))


class Head(nn.Sequential):
    """Residual blocks, then a linear layer: features -> ``n_out`` numbers a row."""

    def __init__(self, n_in: int, hidden: int, n_out: int, depth: int = HEAD_DEPTH) -> None:
        blocks = [ResidualBlock(hidden if i else n_in, hidden) for i in range(depth)]
        super().__init__(*blocks, nn.Linear(hidden, n_out))


class ScalarHead(Head):
    """One number a residue: predicted error in angstrom, or the logit of existence."""

    def __init__(self, hidden: int, depth: int = HEAD_DEPTH) -> None:
        super().__init__(hidden, hidden, 1, depth)

    def forward(self, x: Float[Tensor, "*r h"]) -> Float[Tensor, "*r"]:
        """Row-wise."""
        number: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return number[..., 0]


class TorsionHead(Head):
    """(sin, cos) of every torsion, not normalised; layout in ``angelo.atoms``."""

    def __init__(self, hidden: int, n_torsions: int, depth: int = HEAD_DEPTH) -> None:
        super().__init__(hidden, hidden, 2 * n_torsions, depth)

    def forward(self, x: Float[Tensor, "r h"]) -> Float[Tensor, "r s 2"]:
        """Row-wise."""
        pairs: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return pairs.reshape(pairs.shape[0], -1, 2)


class BackboneUpdate(nn.Module):
    """Features -> where N, CA and C go, in the residue's present axes, angstrom.

    Official weights give positions (``start`` is theirs); zeros suit displacements.
    """

    def __init__(
        self,
        hidden: int,
        start: Sequence[Sequence[float]] = ((0, 1, 0), (0, 0, 0), (1, 0, 0)),
        start_deviation: float = 0.02,
        depth: int = HEAD_DEPTH,
    ) -> None:
        super().__init__()
        self.embed_fc = Transition(hidden, depth)
        self.backbone_fc = nn.Linear(hidden, 9)
        nn.init.normal_(self.backbone_fc.weight, std=start_deviation)
        with torch.no_grad():
            self.backbone_fc.bias.copy_(torch.tensor(start, dtype=torch.float32).reshape(9))

    def forward(self, x: Float[Tensor, "r h"]) -> Float[Tensor, "r 3 3"]:
        """Rows N, CA, C; columns x, y, z."""
        nine: Tensor = self.backbone_fc(self.embed_fc(x))
        return nine.reshape(-1, 3, 3)


class SinusoidalEncoding(nn.Module):
    """Distances -> sines, then cosines, of falling frequency.

    Frequencies fall geometrically from 1 to nearly ``1 / longest`` per angstrom (radians).
    """

    inv_freq: Tensor

    def __init__(self, channels: int = 20, longest: float = 50.0) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"{channels} channels cannot be split into sines and cosines")
        exponent = torch.arange(0, channels, 2, dtype=torch.float32) / channels
        self.register_buffer("inv_freq", longest**-exponent)

    def forward(self, distances: Float[Tensor, "*d"]) -> Float[Tensor, "*d c"]:
        """Encode every distance on its own."""
        phase = distances[..., None] * self.inv_freq
        return torch.cat((phase.sin(), phase.cos()), dim=-1)


class SequenceAttention(nn.Module):
    """Every residue attends to every residue of all sequences.

    Keys and values depend on the sequences alone: ``project_sequence`` makes them once.

    Parameters
    ----------
    hidden, sequence
        Channels of residue features and of sequence embeddings.
    heads, head_width
        Attention heads and channels of each; official weights have head_width = hidden.
    null_key
        Add a learned place without a residue: it lets a residue match nothing, and l be 0.
    dropout
        On the branch, in training.
    """

    def __init__(
        self,
        hidden: int,
        sequence: int,
        heads: int,
        head_width: int,
        *,
        null_key: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.q = nn.Sequential(nn.Linear(hidden, heads * head_width, bias=False))
        self.k = nn.Sequential(nn.Linear(sequence, heads * head_width, bias=False))
        self.v = nn.Sequential(nn.Linear(sequence, heads * head_width, bias=False))
        self.ag = AttentionOutput(heads * head_width, hidden, dropout)
        self.en = layer_norm(hidden)
        self.null_key = self.null_value = None
        if null_key:
            null = torch.zeros(1, heads, head_width)
            self.null_key, self.null_value = nn.Parameter(null), nn.Parameter(null.clone())

    def project_sequence(
        self, embedding: Float[Tensor, "l e"]
    ) -> tuple[Float[Tensor, "l a c"], Float[Tensor, "l a c"]]:
        """Keys and values of the sequences; needed once, whatever the residues do."""
        shape = (embedding.shape[0], self.heads, self.head_width)
        return self.k(embedding).reshape(shape), self.v(embedding).reshape(shape)

    def scores(
        self, features: Float[Tensor, "r h"], keys: Float[Tensor, "l a c"]
    ) -> Float[Tensor, "a r l"]:
        """Attention logits: what residues look for against what sequences hold."""
        queries = self.q(features).reshape(features.shape[0], self.heads, self.head_width)
        scaled: Tensor = queries / math.sqrt(self.head_width)
        return scaled.transpose(0, 1) @ keys.permute(1, 2, 0)

    def weights(
        self, features: Float[Tensor, "r h"], keys: Float[Tensor, "l a c"]
    ) -> Float[Tensor, "a r m"]:
        """Attention of every residue; with a null key, m = l + 1 and it comes first."""
        if self.null_key is not None:
            keys = torch.cat((self.null_key, keys))
        return torch.softmax(self.scores(features, keys), dim=-1)

    def attend(
        self,
        features: Float[Tensor, "r h"],
        keys: Float[Tensor, "l a c"],
        values: Float[Tensor, "l a c"],
    ) -> Float[Tensor, "r h"]:
        """Gather what the sequences tell each residue; not added to its features yet."""
        if self.null_value is not None:
            values = torch.cat((self.null_value, values))
        mixed = (self.weights(features, keys) @ values.transpose(0, 1)).transpose(0, 1)
        told: Tensor = self.ag(mixed.reshape(features.shape[0], -1))
        return told

    def combine(
        self, features: Float[Tensor, "r h"], told: Float[Tensor, "r h"]
    ) -> Float[Tensor, "r h"]:
        """Add the branch, normalise."""
        combined: Tensor = self.en(features + told / RESIDUAL_SCALE)
        return combined

    def forward(
        self,
        features: Float[Tensor, "r h"],
        keys: Float[Tensor, "l a c"],
        values: Float[Tensor, "l a c"],
    ) -> Float[Tensor, "r h"]:
        """Features that know the sequences."""
        return self.combine(features, self.attend(features, keys, values))


class AttentionOutput(nn.Module):
    """What all heads gathered, normalised and projected back to the hidden width."""

    def __init__(self, n_in: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.ln = layer_norm(n_in)
        self.linear = nn.Linear(n_in, hidden, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, gathered: Float[Tensor, "r g"]) -> Float[Tensor, "r h"]:
        """Row-wise."""
        projected: Tensor = self.dropout(self.linear(self.ln(gathered)))
        return projected


class SpatialIPA(nn.Module):
    """Residues attend to neighbours that lie where they look for them.

    Every head has query points in the residue's own frame; a neighbour's score is minus the
    sum of the distances from the points to its C-alpha. Scores depend on relative geometry
    alone, so features do not change when the whole structure is turned or moved.

    Parameters
    ----------
    hidden, n_in
        Channels of features, and of what makes queries and values (say, with distances).
    heads, points, value_width
        Attention heads, query points of each, and channels of a point's value.
    dropout
        On the branch, in training.
    """

    def __init__(
        self,
        hidden: int,
        n_in: int,
        heads: int,
        points: int,
        value_width: int,
        *,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.points, self.value_width = heads, points, value_width
        self.loc_q = nn.Sequential(nn.Linear(n_in, heads * points * 3, bias=False))
        self.loc_v = nn.Sequential(nn.Linear(n_in, heads * points * value_width, bias=False))
        self.ag = AttentionOutput(heads * points * value_width, hidden, dropout)
        self.en = layer_norm(hidden)

    def weights(
        self,
        inputs: Float[Tensor, "r i"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
    ) -> Float[Tensor, "r k a"]:
        """Attention of every residue over its neighbours."""
        local = to_local(rotations, positions, positions[neighbours])  # r k 3
        queries = self.loc_q(inputs).reshape(-1, 1, self.heads, self.points, 3)
        # The distance is the same in every frame; local coordinates are small, so exact.
        distances = torch.linalg.vector_norm(queries - local[:, :, None, None], dim=-1)
        return torch.softmax(-distances.sum(dim=-1), dim=1)

    def forward(
        self,
        features: Float[Tensor, "r h"],
        inputs: Float[Tensor, "r i"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
    ) -> Float[Tensor, "r h"]:
        """Features that know their surroundings; ``inputs`` make queries and values."""
        weights = self.weights(inputs, rotations, positions, neighbours)
        gathered = gather_values(weights, inputs, neighbours, weight_of(self.loc_v[0]))
        combined: Tensor = self.en(features + self.ag(gathered) / RESIDUAL_SCALE)
        return combined


def gather_values(
    weights: Float[Tensor, "r k a"],
    inputs: Float[Tensor, "r i"],
    neighbours: Int[Tensor, "r k"],
    projection: Float[Tensor, "g i"],
) -> Float[Tensor, "r g"]:
    """Attention-weighted sum of ``projection @ inputs`` over neighbours, head by head.

    Summing before projecting gives the same numbers, and needs no (r, k, g) array.
    """
    heads = weights.shape[-1]
    mixed = weights.transpose(1, 2) @ inputs[neighbours]  # r a i
    per_head = projection.reshape(heads, -1, projection.shape[-1])
    projected = mixed.transpose(0, 1) @ per_head.transpose(1, 2)  # a r g/a
    return projected.transpose(0, 1).reshape(inputs.shape[0], -1)


def to_local(
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    points: Float[Tensor, "r p 3"],
) -> Float[Tensor, "r p 3"]:
    """Points seen from each residue's frame: ``rotation^T @ (point - position)``."""
    return (points - positions[:, None]) @ rotations


def to_global(
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    points: Float[Tensor, "r p 3"],
) -> Float[Tensor, "r p 3"]:
    """Points of each residue's frame in the map: ``rotation @ point + position``."""
    return points @ rotations.transpose(-1, -2) + positions[:, None]


def rotations_from_backbone(ncac: Float[Tensor, "r 3 3"]) -> Float[Tensor, "r 3 3"]:
    """Residue axes as columns: e1 along CA->C, e2 the part of CA->N normal to it, e3 = e1 x e2.

    Parity: ModelAngelo reaches the same axes by Gram-Schmidt on (C, CA, N) and mirroring x
    and z afterwards.
    """
    n, ca, c = ncac.unbind(dim=1)
    e1 = functional.normalize(c - ca, dim=-1)
    to_n = n - ca
    e2 = functional.normalize(to_n - (to_n * e1).sum(dim=-1, keepdim=True) * e1, dim=-1)
    return torch.stack((e1, e2, torch.linalg.cross(e1, e2)), dim=-1)
