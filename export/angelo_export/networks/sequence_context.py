"""Sequences as the letters around every residue: an embedder with nothing to train.

To find its place in a sequence a residue has to compare its neighbours' types with those of
the sequence. Here the letters of a window stand side by side, so that a graph network can read
them off with one matrix product.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from angelo_export.networks.language import ALPHABET

#: Letters that are told apart; tokens before and after a chain share the last column, any
#: other token (X, for one) is nothing.
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
ENDS = ("<cls>", "<eos>")


@dataclass(frozen=True, slots=True)
class SequenceContextConfig:
    """How much is seen."""

    reach: int = 5
    """Residues on each side."""

    @property
    def width(self) -> int:
        """Channels of an embedding."""
        return (2 * self.reach + 1) * (len(LETTERS) + 1)


class SequenceContext(nn.Module):
    """One-hot letters at every offset from ``-reach`` to ``reach``, concatenated."""

    letters: Tensor

    def __init__(self, config: SequenceContextConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.zeros(len(ALPHABET), len(LETTERS) + 1)
        for column, letter in enumerate(LETTERS):
            table[ALPHABET.index(letter), column] = 1
        for end in ENDS:
            table[ALPHABET.index(end), -1] = 1
        self.register_buffer("letters", table, persistent=False)

    def forward(self, tokens: Int[Tensor, "1 l"]) -> Float[Tensor, "1 l e"]:
        """Tokens of one chain, with those that mark its ends; zeros lie beyond."""
        reach, length = self.config.reach, tokens.shape[1]
        seen = functional.pad(self.letters[tokens], (0, 0, reach, reach))
        return torch.cat([seen[:, i : i + length] for i in range(2 * reach + 1)], dim=2)
