"""Sequences to embeddings, chains of any length."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from angelo.manifest import LanguageNetwork
from angelo.types import SequenceRecord
from angelo.windows import Progress

#: A graph: named arrays in, named arrays out (see ``angelo.session.Graph``).
Embedder = Callable[..., dict[str, np.ndarray]]


@dataclass(frozen=True, slots=True)
class SequenceEmbedding:
    """Embeddings of all records, one after another."""

    values: Float32[np.ndarray, "l e"]
    """One row for each residue of each record."""
    offsets: Int64[np.ndarray, " n_and_1"]
    """Record ``i`` has rows ``offsets[i]`` to ``offsets[i + 1]``."""


def tokens_from_sequence(residues: str, language: LanguageNetwork) -> Int64[np.ndarray, "1 l"]:
    """Tokens of one stretch of sequence, with begin and end tokens where there are such.

    A letter that the alphabet lacks (X, for one) becomes the unknown token.
    """
    tokens = [language.tokens.get(letter, language.unknown) for letter in residues]
    if language.begin is not None:
        tokens.insert(0, language.begin)
    if language.end is not None:
        tokens.append(language.end)
    return np.array([tokens], np.int64)


def window_starts(length: int, max_length: int, overlap: int) -> tuple[int, ...]:
    """First residues of windows that cover a chain, evenly spread.

    One window if the chain fits; otherwise as few of ``max_length`` residues as let neighbours
    share at least ``overlap``, the last ending with the chain.
    """
    if length <= max_length:
        return (0,)
    n = -(-(length - overlap) // (max_length - overlap))
    last = length - max_length
    return tuple(i * last // (n - 1) for i in range(n))


def embed_sequence(
    residues: str, language: LanguageNetwork, graph: Embedder
) -> Float32[np.ndarray, "l e"]:
    """Embedding of every residue of one chain; the mean where windows overlap."""
    length = len(residues)
    starts = window_starts(length, language.max_length, language.overlap)
    first = 0 if language.begin is None else 1
    rows = []
    for start in starts:
        part = residues[start : start + language.max_length]
        embedding = graph(tokens=tokens_from_sequence(part, language))["embedding"]
        rows.append(embedding[0, first : first + len(part)].astype(np.float32))
    if len(rows) == 1:
        return rows[0]
    total = np.zeros((length, rows[0].shape[1]), np.float32)
    n_windows = np.zeros((length, 1), np.float32)
    for start, part_rows in zip(starts, rows, strict=True):
        total[start : start + len(part_rows)] += part_rows
        n_windows[start : start + len(part_rows)] += 1
    return total / n_windows


def embed_sequences(
    records: Sequence[SequenceRecord],
    language: LanguageNetwork,
    graph: Embedder,
    progress: Progress | None = None,
) -> SequenceEmbedding:
    """Embeddings of all records, in their order; copies of a record are embedded once.

    Raises
    ------
    ValueError
        If there is no record.
    """
    if not records:
        raise ValueError("no sequence to embed")
    parts = []
    for i, record in enumerate(records):
        parts.append(embed_sequence(record.residues, language, graph))
        if progress is not None:
            progress(i + 1, len(records))
    offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
    return SequenceEmbedding(np.concatenate(parts), offsets)
