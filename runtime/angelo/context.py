"""Fragments whose sequence alone says too little, placed by what is around them.

A fragment that fits a sequence well, but not so well that chance is ruled out among all places
of all sequences, is tried where the built molecules leave room for it: in a gap of the same
sequence that is long enough and whose ends are near enough, and, in a copy of a molecule, where
the residues of another copy lie once the two are superposed. These places are few, so chance is
ruled out sooner; the bound of `angelo.placements` holds for any weights of the places that are
given before the score is seen and add up to 1. A fragment that then still fits elsewhere nearly
as well stays unassigned.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from angelo.align import DEFAULTS, AlignSettings, is_conflict
from angelo.gaps import Copy, Gap, Places, copies_of, gaps_of, molecules_of, possible_places
from angelo.placements import (
    Placement,
    Profile,
    Targets,
    find_placements,
    offset_scores,
    profile_of,
    score_placement,
    targets_of,
)
from angelo.types import Assignment, Refinement, SequenceRecord

_log = logging.getLogger(__name__)

#: Places of the highest scores that take part in the comparison.
N_BEST = 4
#: Newly placed fragments make room for others; so often is looked again.
MAX_PASSES = 4


def place_by_context(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
    settings: AlignSettings = DEFAULTS,
) -> tuple[Assignment, ...]:
    """Place further fragments in gaps of the molecules that placed ones form.

    Parameters
    ----------
    assignments
        What `angelo.align.align_chains` returned.
    refinement, records, residue_types, settings
        As there; ``max_e_value`` and ``min_margin`` mean the same.

    Returns
    -------
    tuple of Assignment
        The same chains in the same order.
    """
    found = list(assignments)
    if not any(assignment.sequence >= 0 for assignment in found):
        return tuple(found)  # no molecule, no context
    targets = targets_of(records)
    open_ones = {
        index: _Fragment.of(assignment, refinement, targets, residue_types)
        for index, assignment in enumerate(found)
        if assignment.sequence < 0 and len(assignment.chain) >= settings.min_matched
    }
    for _ in range(MAX_PASSES):
        molecules = molecules_of(found, refinement, records)
        gaps, copies = gaps_of(molecules, records), copies_of(molecules)
        better: list[tuple[int, Gap, Assignment]] = []
        for index, fragment in open_ones.items():
            if placed := _place(fragment, gaps, copies, targets, settings):
                better.append((index, *placed))
        taken: set[tuple[int, int]] = set()
        for index, gap, placed_one in sorted(better, key=lambda b: (b[2].e_value, b[0])):
            if (gap.molecule, gap.first) not in taken:
                taken.add((gap.molecule, gap.first))
                found[index] = placed_one
                del open_ones[index]
        if not taken:
            break
        _log.info("%d fragments are placed by what is around them", len(taken))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Fragment:
    """A chain without place, and what does not change from pass to pass."""

    assignment: Assignment
    profile: Profile
    ca: Float32[np.ndarray, "c 3"]
    everywhere: tuple[Placement, ...]
    """Where it fits best, context or not."""

    @classmethod
    def of(
        cls,
        assignment: Assignment,
        refinement: Refinement,
        targets: Targets,
        residue_types: Sequence[str],
    ) -> "_Fragment":
        residues = assignment.chain.residues
        profile = profile_of(refinement.aa_logits[residues], residue_types)
        everywhere = find_placements(profile, targets)
        return cls(assignment, profile, refinement.frames.ca[residues], everywhere)


def _place(
    fragment: _Fragment,
    gaps: Sequence[Gap],
    copies: Sequence[Copy],
    targets: Targets,
    settings: AlignSettings,
) -> tuple[Gap, Assignment] | None:
    """Best place in a gap, if chance is ruled out and nothing else comes close."""
    places = possible_places(fragment.ca, gaps, copies)
    candidates = list(_candidates(fragment, places, gaps, targets, settings))
    if not candidates:
        return None
    # Bits over chance: what a place's weight takes away is what it must gain by its score.
    bits, _, gap, best = max(candidates, key=lambda c: (c[0], -c[1]))
    e_value = float(2.0 ** -min(bits, 1000.0))
    if e_value > settings.max_e_value:
        return None
    everywhere = np.log2(targets.n_offsets(len(fragment.ca)))
    rivals = [(other_bits, other) for other_bits, _, _, other in candidates]
    rivals += [(other.score - everywhere, other) for other in fragment.everywhere]
    for other_bits, other in rivals:
        if bits - other_bits < settings.min_margin and is_conflict(
            best, other, targets.records, settings.min_identity
        ):
            return None
    assignment = fragment.assignment
    return gap, replace(
        assignment,
        sequence=best.record,
        positions=best.positions,
        score=best.score,
        e_value=e_value,
        doubt=None,
    )


def _candidates(
    fragment: _Fragment,
    places: Places,
    gaps: Sequence[Gap],
    targets: Targets,
    settings: AlignSettings,
) -> Iterator[tuple[float, int, Gap, Placement]]:
    """Yield the best places: bits over chance, rank, gap, placement within the gap."""
    length = len(fragment.ca)
    scores = np.full(len(places.offset), -np.inf)
    for index in np.unique(places.gap).tolist():
        rows, gap = np.flatnonzero(places.gap == index), gaps[index]
        offsets = places.offset[rows]
        limits = np.full_like(offsets, gap.first), np.full_like(offsets, gap.end)
        codes = targets.codes[gap.record]
        scores[rows] = offset_scores(fragment.profile, codes, offsets, *limits)
    bits = scores + np.log2(places.weight)
    ways = [
        (row, np.arange(length) + places.offset[row])
        for row in np.argsort(-bits, kind="stable")[:N_BEST].tolist()
    ]
    for other in fragment.everywhere:  # those with a missed or a doubled residue
        matched = np.flatnonzero(other.positions >= 0)
        start = other.positions[matched[0]] - matched[0]
        records = np.array([gaps[g].record for g in places.gap.tolist()], dtype=np.int64)
        rows = np.flatnonzero((places.offset == start) & (records == other.record))
        if (np.diff(other.positions[matched]) != 1).any() or (np.diff(matched) != 1).any():
            ways += [(row, other.positions) for row in rows.tolist()]
    for rank, (row, positions) in enumerate(ways):
        gap = gaps[places.gap[row]]
        codes = targets.codes[gap.record]
        usable = (positions >= gap.first) & (positions < gap.end)
        if np.count_nonzero(usable) < settings.min_matched:
            continue
        placement = score_placement(gap.record, positions, usable, fragment.profile, codes)
        matched = np.flatnonzero(placement.positions >= 0)
        ends = placement.positions[matched[[0]]], placement.positions[matched[[-1]]]
        start, stop = fragment.ca[matched[0]], fragment.ca[matched[-1]]
        if len(matched) >= settings.min_matched and gap.weights(*ends, start, stop)[0]:
            yield placement.score + float(np.log2(places.weight[row])), rank, gap, placement
