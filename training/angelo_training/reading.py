"""Where residues stand in the sequences, and how well the graph network finds it.

Sequence attention learns slowly from what it gains later on; told which places are right, it
learns within hours. The official network learned without.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64, UInt8
from torch import Tensor

from angelo.residues import AMINO_ACID_CODES
from angelo_export.networks.blocks import SequenceAttention
from angelo_export.networks.compact_gnn import CompactGraph, CompactLayer

#: Shorter pieces of a chain are found in too many places.
SHORTEST_PIECE = 4
#: Attention is never taken to be less than this, so that its logarithm stays small.
LEAST_ATTENTION = 1e-6


@dataclass(frozen=True, slots=True)
class SequenceView:
    """The sequences that one step sees: l residues in some order."""

    embedding: Float[Tensor, "l e"]
    """Of every residue."""
    starts: tuple[int, ...]
    """Row of the first residue of each of the entry's sequences; -1: it is not there."""

    def nothing(self) -> "SequenceView":
        """Return the view of a step that sees no sequence."""
        return SequenceView(self.embedding[:0], (-1,) * len(self.starts))


@dataclass(frozen=True, slots=True)
class Attention:
    """What the sequence attention of one layer is given."""

    block: SequenceAttention
    features: Float[Tensor, "r h"]
    keys: Float[Tensor, "l a c"]


def find_places(
    residue_type: UInt8[np.ndarray, " r"],
    follows: Int32[np.ndarray, " r"],
    chain: Int32[np.ndarray, " r"],
    sequences: Sequence[str],
) -> Int64[np.ndarray, "r 2"]:
    """Sequence and position of every residue of an entry; -1 where the letters do not say.

    Unbroken pieces of a chain are looked for in order, each behind the one before it; the
    sequence that takes in most of the chain is the chain's.
    """
    letters = "".join(AMINO_ACID_CODES[kind] for kind in residue_type)
    places = np.full((len(letters), 2), -1, np.int64)
    for number in np.unique(chain):
        rows = np.flatnonzero(chain == number)
        cuts = np.flatnonzero(follows[rows[:-1]] != rows[1:]) + 1
        pieces = [piece for piece in np.split(rows, cuts) if len(piece) >= SHORTEST_PIECE]
        best: list[tuple[np.ndarray, int]] = []
        chosen = -1
        for index, sequence in enumerate(sequences):
            found = _pieces_in(sequence, pieces, letters)
            if sum(len(p) for p, _ in found) > sum(len(p) for p, _ in best):
                best, chosen = found, index
        for piece, start in best:
            places[piece, 0] = chosen
            places[piece, 1] = start + np.arange(len(piece))
    return places


def _pieces_in(
    sequence: str, pieces: list[np.ndarray], letters: str
) -> list[tuple[np.ndarray, int]]:
    """Those pieces that are found in order, each with its first position."""
    found, behind = [], 0
    for piece in pieces:
        start = sequence.find("".join(letters[i] for i in piece), behind)
        if start >= 0:
            found.append((piece, start))
            behind = start + len(piece)
    return found


def right_places(places: Int64[np.ndarray, "r 2"], view: SequenceView) -> Bool[Tensor, "r l+1"]:
    """Where each point should look: column 0 is no place at all, row i of the view i + 1.

    Places that the embedding cannot tell apart (copies of a chain, repeats) are right together.
    """
    embedding, n_points = view.embedding, len(places)
    starts = np.array((*view.starts, -1))
    row = np.where(starts[places[:, 0]] >= 0, starts[places[:, 0]] + places[:, 1], -1)
    row = np.where(row < len(embedding), row, -1)  # long sequences are cut
    at = torch.from_numpy(row).to(embedding.device)
    right = torch.zeros(n_points, len(embedding) + 1, dtype=torch.bool, device=embedding.device)
    right[:, 0] = at < 0
    if len(embedding):
        code = embedding.double() @ _code_weights(embedding)
        right[:, 1:] = (code[at.clamp(min=0), None] == code) & (at >= 0)[:, None]
    return right


def _code_weights(embedding: Tensor) -> Tensor:
    """Weights whose sum over an embedding tells different ones apart."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(embedding.shape[1], generator=generator, dtype=torch.float64)
    return weights.to(embedding.device)


@contextmanager
def watch_reading(network: CompactGraph) -> Iterator[list[Attention]]:
    """Note what the sequence attention of each layer is given, as long as this is open."""
    noted: list[Attention] = []

    def note(block: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        noted.append(Attention(cast(SequenceAttention, block), inputs[0], inputs[1]))

    layers = cast(list[CompactLayer], list(network.layers))
    hooks = [layer.sequence.register_forward_pre_hook(note) for layer in layers]
    try:
        yield noted
    finally:
        for hook in hooks:
            hook.remove()


def attention_on(attention: Attention, right: Bool[Tensor, "r l+1"]) -> Float[Tensor, " r"]:
    """Share of each point's attention, mean over heads, that lies on right places."""
    weights = attention.block.weights(attention.features, attention.keys).float()
    shares: Tensor = (weights * right).sum(dim=-1).mean(dim=0)
    return shares


def reading_loss(shares: Float[Tensor, " r"]) -> Float[Tensor, ""]:
    """Cross-entropy of the attention; one head that reads is enough for most of it."""
    return -shares.clamp(min=LEAST_ATTENTION).log().mean()
