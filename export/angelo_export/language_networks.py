"""The embedder of sequences from a weight file, whichever kind it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageModel
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig
from angelo_export.weights import load_network

#: Tokens in, one embedding for each token out.
Embedder = LanguageModel | SequenceContext


def load_language(path: Path) -> Embedder:
    """Network of a weight file; its config tells the kind. Raises CheckpointError."""
    return load_network(path, _make)


def embed_letters(model: Embedder, letters: str, device: str = "cpu") -> Float[Tensor, "l e"]:
    """Embedding of every residue of one sequence, without those of begin and end."""
    tokens = [ALPHABET.index(token) for token in ("<cls>", *letters, "<eos>")]
    embedding: Tensor = model(torch.tensor([tokens], device=device))[0, 1:-1]
    return embedding.float()


def _make(sizes: Mapping[str, Any]) -> Embedder:
    if "reach" in sizes:
        return SequenceContext(SequenceContextConfig(**sizes))
    return LanguageModel(LanguageConfig(**sizes))
