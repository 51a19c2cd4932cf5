"""Amino-acid probabilities of a chain against the sequences: which residue is which.

Where a chain may go, and the score of each place, is the business of `angelo.placements`. Here
the best place is believed only if chance hardly ever gives one as good, and if no other
register or sequence comes close.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from angelo.placements import Placement, targets_of
from angelo.types import Assignment, Chain, Doubt, Refinement, SequenceRecord

_log = logging.getLogger(__name__)

#: Two placements share a register when this fraction of their common residues agree.
SAME_REGISTER = 0.5


@dataclass(frozen=True, slots=True)
class AlignSettings:
    """When a placement is believed."""

    max_e_value: float = 0.1
    """Expected number of chance matches; a bound that is 30 to 100 times too high in tests."""
    min_margin: float = 5.0
    """Bits by which the best register must beat every other one; 5 are odds of 32 to 1."""
    min_identity: float = 0.9
    """Placements on two records within the margin are no conflict if this fraction of residues
    is the same."""
    min_matched: int = 4
    """Fewest residues that a placement must match."""


DEFAULTS = AlignSettings()


@runtime_checkable
class Candidates(Protocol):
    """Sequences, and where on them chains fit: proteins, or nucleic acids."""

    @property
    def records(self) -> Sequence[SequenceRecord]:
        """All records that placements count from."""

    def n_offsets(self, length: int) -> int:
        """Places where a chain of this length can start."""

    def placements(
        self,
        aa_logits: Float32[np.ndarray, "c t"],
        residue_types: Sequence[str],
    ) -> tuple[Placement, ...]:
        """Find the most likely placements of a chain on every record, in no order."""


def align_chains(
    chains: Sequence[Chain],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
    settings: AlignSettings = DEFAULTS,
) -> tuple[Assignment, ...]:
    """Place every chain; see `align_chain`.

    A chain whose unmatched end fits elsewhere was traced across two molecules, or across a
    loop: it is cut there, and each piece is an assignment of its own. The order is kept.
    """
    return place_chains(chains, refinement, targets_of(records), residue_types, settings)


def place_chains(
    chains: Sequence[Chain],
    refinement: Refinement,
    targets: Candidates,
    residue_types: Sequence[str],
    settings: AlignSettings = DEFAULTS,
) -> tuple[Assignment, ...]:
    """Place chains on what they may be placed on, proteins or nucleic acids."""
    return tuple(
        assignment
        for chain in chains
        for assignment in _place_pieces(chain, refinement, targets, residue_types, settings)
    )


def align_chain(
    chain: Chain,
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
    settings: AlignSettings = DEFAULTS,
) -> Assignment:
    """Place a chain where its amino-acid probabilities fit a sequence best.

    Parameters
    ----------
    chain
        Residues in N-to-C order.
    refinement
        Where the amino-acid logits are.
    records
        Candidate sequences; X fits anything and supports nothing.
    residue_types
        Three-letter codes of the columns of the logits; all 20 amino acids must be there.
    settings
        When a placement is believed.

    Returns
    -------
    Assignment
        The best placement if it is significant and no other register comes close, else one
        without match (sequence -1).
    """
    return _place(chain, refinement, targets_of(records), residue_types, settings)


def _place_pieces(
    chain: Chain,
    refinement: Refinement,
    targets: Candidates,
    residue_types: Sequence[str],
    settings: AlignSettings,
) -> list[Assignment]:
    """Place a chain, cut where an unmatched end fits elsewhere."""
    whole = _place(chain, refinement, targets, residue_types, settings)
    if whole.sequence < 0:
        return [whole]
    matched = np.flatnonzero(whole.positions >= 0)
    first, last = int(matched[0]), int(matched[-1]) + 1
    ends = []
    for part in (slice(0, first), slice(last, len(chain))):
        pieces = _place_pieces(
            Chain(chain.residues[part]), refinement, targets, residue_types, settings
        )
        ends.append(pieces if any(piece.sequence >= 0 for piece in pieces) else [])
    start, stop = (first if ends[0] else 0), (last if ends[1] else len(chain))
    if ends[0] or ends[1]:
        _log.info(
            "a chain of %d residues matches in more than one place and is cut", len(chain)
        )
    middle = replace(
        whole,
        chain=Chain(chain.residues[start:stop]),
        positions=whole.positions[start:stop],
    )
    return [*ends[0], middle, *ends[1]]


def _place(
    chain: Chain,
    refinement: Refinement,
    targets: Candidates,
    residue_types: Sequence[str],
    settings: AlignSettings,
) -> Assignment:
    """Best placement, or none."""
    nowhere = Assignment(chain, -1, np.full(len(chain), -1, dtype=np.int64), 0.0, np.inf)
    if len(chain) < settings.min_matched or not targets.records:
        return nowhere
    logits = refinement.aa_logits[chain.residues]
    placements = [
        placement
        for placement in targets.placements(logits, residue_types)
        if np.count_nonzero(placement.positions >= 0) >= settings.min_matched
    ]
    if not placements:
        return nowhere
    best = min(placements, key=lambda p: (-p.score, p.record, *p.positions.tolist()))
    n_offsets = targets.n_offsets(len(chain))
    # Below 2^-1000 a float is 0, and a chain of 300 residues gets there.
    e_value = float(n_offsets * 2.0 ** -min(best.score, 1000.0))
    numbers = best.positions[best.positions >= 0] + 1
    doubt = Doubt(best.record, int(numbers[0]), int(numbers[-1]), best.score, e_value)
    if e_value > settings.max_e_value:
        return replace(nowhere, doubt=doubt)
    for other in placements:
        if best.score - other.score < settings.min_margin and is_conflict(
            best, other, targets.records, settings.min_identity
        ):
            first = int(other.positions[other.positions >= 0][0]) + 1
            rival = (other.record, first, other.score)
            return replace(nowhere, doubt=replace(doubt, rival=rival))
    return Assignment(chain, best.record, best.positions, best.score, e_value)


def is_conflict(
    best: Placement,
    other: Placement,
    records: Sequence[SequenceRecord],
    min_identity: float,
) -> bool:
    """Whether two placements give most of the same residues other numbers, or other types.

    Numbers count within a record. Of records that read alike the first may well be taken.
    """
    common = np.flatnonzero((best.positions >= 0) & (other.positions >= 0))
    shorter = min(np.count_nonzero(p.positions >= 0) for p in (best, other))
    if len(common) < 0.5 * shorter:  # different parts of the chain: no contradiction
        return False
    mine, theirs = best.positions[common], other.positions[common]
    if best.record == other.record:  # alike or not: the numbers differ
        return bool((mine == theirs).mean() < SAME_REGISTER)
    letters = np.array(list(records[best.record].residues))[mine]
    other_letters = np.array(list(records[other.record].residues))[theirs]
    return bool((letters == other_letters).mean() < min_identity)
