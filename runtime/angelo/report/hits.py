"""Hits of a search as tables and as sequences."""

import textwrap
from collections.abc import Mapping, Sequence

from angelo.hits import Hit
from angelo.report.tables import csv_text

#: Letters of a line in a FASTA file.
FASTA_WIDTH = 60


def hits_csv(hits: Sequence[Hit], numbers: Mapping[str, Sequence[int]]) -> str:
    """One row a hit, in the order given.

    Parameters
    ----------
    hits
        Sorted by chain; the rank counts the hits of each.
    numbers
        Residue numbers of every chain: chain ranges are written in the model's numbering.
    """
    rows = []
    rank: dict[str, int] = {}
    for hit in hits:
        rank[hit.chain] = rank.get(hit.chain, 0) + 1
        first, last = (numbers[hit.chain][i - 1] for i in hit.chain_range)
        rows.append(
            [
                *(hit.chain, hit.chain_length, rank[hit.chain], hit.target.name),
                *(hit.target.description, len(hit.target.residues), f"{hit.e_value:.3g}"),
                *(f"{hit.score:.1f}", hit.n_aligned, f"{hit.identity:.3f}"),
                *(first, last, *hit.target_range),
            ]
        )
    columns = ["chain", "residues", "rank", "target", "description", "target_length"]
    columns += ["e_value", "score", "aligned", "identity"]
    columns += ["chain_first", "chain_last", "target_first", "target_last"]
    return csv_text(columns, rows)


def hits_fasta(hits: Sequence[Hit]) -> str:
    """Sequences of the hits, each once, to build a model with."""
    targets = dict.fromkeys(hit.target for hit in hits)
    return "".join(
        f">{target.name} {target.description}".rstrip()
        + "".join(f"\n{line}" for line in textwrap.wrap(target.residues, FASTA_WIDTH))
        + "\n"
        for target in targets
    )
