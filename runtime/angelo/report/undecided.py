"""Chains that fit a sequence, but not so well that they were placed: ties and weak matches."""

from collections.abc import Sequence
from dataclasses import dataclass

from angelo.report.tables import csv_text
from angelo.types import Assignment, Doubt, Model, SequenceRecord

#: Matches that chance gives more often than this are none, and not worth a look.
MAX_E_VALUE = 10.0


@dataclass(frozen=True, slots=True)
class UndecidedChain:
    """A chain that is in the unpruned model only, and where it might belong."""

    name: str
    """Of the chain in that model."""
    n_residues: int
    """Its length."""
    doubt: Doubt
    """Its best match, and why that was not believed."""


def undecided_chains(
    model: Model, assignments: Sequence[Assignment]
) -> tuple[UndecidedChain, ...]:
    """Find the chains of a model that might belong to a sequence, in its order.

    Parameters
    ----------
    model
        The unpruned model.
    assignments
        The same chains, in the same order.
    """
    return tuple(
        UndecidedChain(chain.name, len(chain), assignment.doubt)
        for chain, assignment in zip(model.chains, assignments, strict=True)
        if assignment.doubt is not None and assignment.doubt.e_value <= MAX_E_VALUE
    )


def undecided_csv(chains: Sequence[UndecidedChain], records: Sequence[SequenceRecord]) -> str:
    """One row a chain: its best place and, in a tie, the one that fits nearly as well."""
    rows = []
    for chain in chains:
        doubt = chain.doubt
        row = [
            *(chain.name, chain.n_residues, "weak" if doubt.rival is None else "tie"),
            *(records[doubt.sequence].name, doubt.first, doubt.last),
            *(f"{doubt.score:.1f}", f"{doubt.e_value:.2g}"),
        ]
        if doubt.rival is None:
            rows.append([*row, "", "", ""])
        else:
            record, first, score = doubt.rival
            rows.append([*row, records[record].name, first, f"{score:.1f}"])
    columns = ["chain", "residues", "reason", "sequence", "first", "last", "bits", "e_value"]
    return csv_text([*columns, "rival", "rival_first", "rival_bits"], rows)
