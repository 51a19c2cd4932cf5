"""The embedder of sequences from a weight file, whichever kind it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from angelo_export.networks.language import LanguageConfig, LanguageModel
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig
from angelo_export.weights import load_network

#: Tokens in, one embedding for each token out.
Embedder = LanguageModel | SequenceContext


def load_language(path: Path) -> Embedder:
    """Network of a weight file; its config tells the kind. Raises CheckpointError."""
    return load_network(path, _make)


def _make(sizes: Mapping[str, Any]) -> Embedder:
    if "reach" in sizes:
        return SequenceContext(SequenceContextConfig(**sizes))
    return LanguageModel(LanguageConfig(**sizes))
