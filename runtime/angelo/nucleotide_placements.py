"""Ways to put a strand of nucleotides on a sequence, scored in bits.

The score, its nulls, and the bound on chance are those of `angelo.placements`, over the four
bases. Density tells a purine (A, G) from a pyrimidine (C, T, U) far better than bases of one
kind from each other, so part of what the network gives a base goes to the other of its kind: a
confusion within a kind earns no bits, where the right base earns 1.5, and one between kinds
costs 4.

Placements without gaps come from the same scan of every offset. The best one with skipped or
repeated nucleotides is found exactly, by dynamic programming.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from angelo.nucleotides import BASE_CODES, base_probabilities, dna_probability
from angelo.placements import (
    GO_ON_BITS,
    LEAVE,
    Placement,
    Profile,
    gapless_placements,
    profile_over,
    score_placement,
)
from angelo.profiles import DOUBLE, DOUBLE_AGAIN, MISS, MISS_AGAIN
from angelo.types import SequenceRecord

#: Part of each base's probability that goes to both bases of its kind, and to all four.
#: Networks too sure of themselves need the first (0.3 of it places fewer strands); others lose
#: next to nothing by it.
KIND_WEIGHT, BACKGROUND_WEIGHT = 0.5, 0.05
#: Kind of each base, in the order of `angelo.nucleotides`: 0 purine, 1 pyrimidine.
RING = np.array([0, 1, 0, 1])
#: Frequencies of the bases under the null.
BACKGROUND = np.full(4, 0.25)
#: Worst odds that logits of DNA or RNA count for or against records of that kind.
WORST_KIND_ODDS = 0.02
#: Score of what cannot be, bits; finite, so that sums stay numbers.
IMPOSSIBLE = -1e9


@dataclass(frozen=True, slots=True)
class StrandTargets:
    """The nucleic acids among all records."""

    records: Sequence[SequenceRecord]
    """All records; placements count from the first."""
    codes: tuple[tuple[int, Int64[np.ndarray, "_"]], ...]
    """Number of each record of nucleic acid, and the column of each of its bases; -1: N."""

    def n_offsets(self, length: int) -> int:
        """Places where a strand of this length can start."""
        return sum(len(codes) + length - 1 for _, codes in self.codes)

    def placements(
        self,
        aa_logits: Float32[np.ndarray, "c t"],
        residue_types: Sequence[str],
    ) -> tuple[Placement, ...]:
        """Find the most likely placements of a strand on every record, in no order.

        Where there are both DNA and RNA, the strand's own logits count for one of them.
        """
        profile = profile_over(
            with_confusions(base_probabilities(aa_logits, residue_types)), BACKGROUND
        )
        is_dna = dna_probability(aa_logits, residue_types)
        both = len({self.records[number].kind for number, _ in self.codes}) == 2
        found = []
        for placement in (*gapless_placements(profile, self.codes), *self._gapped(profile)):
            kind = self.records[placement.record].kind
            odds = 2 * (is_dna if kind == "dna" else 1 - is_dna) if both else 1.0
            bits = float(np.log2(max(odds, WORST_KIND_ODDS)))
            found.append(replace(placement, score=placement.score + bits))
        return tuple(found)

    def _gapped(self, profile: Profile) -> Iterator[Placement]:
        for number, codes in self.codes:
            positions = best_path(profile.log_odds, codes)
            yield score_placement(number, positions, positions >= 0, profile, codes)


def strand_targets_of(records: Sequence[SequenceRecord]) -> StrandTargets:
    """Pick out and prepare the nucleic acids among records."""
    codes = tuple(
        (
            number,
            np.array([BASE_CODES[record.kind].find(letter) for letter in record.residues]),
        )
        for number, record in enumerate(records)
        if record.kind != "protein"
    )
    return StrandTargets(records, codes)


def with_confusions(probabilities: Float64[np.ndarray, "c 4"]) -> Float64[np.ndarray, "c 4"]:
    """Give part of each base's probability to its kind, and a little to all bases."""
    of_kind = np.stack([probabilities[:, RING == ring].sum(axis=1) for ring in (0, 1)], axis=1)
    own = (1 - KIND_WEIGHT - BACKGROUND_WEIGHT) * probabilities
    return own + KIND_WEIGHT * of_kind[:, RING] / 2 + BACKGROUND_WEIGHT * BACKGROUND


def best_path(
    log_odds: Float64[np.ndarray, "c 5"], codes: Int64[np.ndarray, " l"]
) -> Int64[np.ndarray, " c"]:
    """Position of each nucleotide of a strand in the best alignment with gaps; -1: none.

    Between two matched nucleotides either positions of the sequence are missed or nucleotides
    are doubled, at the cost `angelo.placements` gives them. A path may begin and end anywhere.

    References
    ----------
    Gotoh 1982, doi:10.1016/0022-2836(82)90398-9 (affine gaps).
    """
    n, length = len(log_odds), len(codes)
    at = np.arange(length)
    leave, miss, double = np.log2([LEAVE, MISS, DOUBLE])
    miss_again, double_again = np.log2([MISS_AGAIN, DOUBLE_AGAIN])
    best = np.full((n, length), IMPOSSIBLE)
    # Where the path to each cell comes from; -1: it starts there.
    row_before = np.full((n, length), -1, np.int32)
    column_before = np.full((n, length), -1, np.int32)
    # The best cell of each column two or more rows up, doubled nucleotides since then paid.
    doubled, doubled_row = np.full(length, IMPOSSIBLE), np.full(length, -1)
    for i in range(n):
        score = np.full(length, leave if i else 0.0)
        if i:
            last = best[i - 1]
            # The best cell of the row above, up to each column, as if missing cost no length.
            free = last - at * miss_again
            reach = np.maximum.accumulate(free)
            reach_column = np.maximum.accumulate(np.where(free == reach, at, 0))
            missed = miss + (at - 2) * miss_again + _shift(reach, 2, IMPOSSIBLE)
            ways = [
                (_shift(last, 1, IMPOSSIBLE), np.full(length, i - 1), at - 1),
                (missed, np.full(length, i - 1), _shift(reach_column, 2, -1)),
                (_shift(doubled, 1, IMPOSSIBLE), _shift(doubled_row, 1, -1), at - 1),
            ]
            for value, row, column in ways:
                better = value > score
                score[better] = value[better]
                row_before[i, better], column_before[i, better] = row[better], column[better]
            opened = last + double
            is_new = opened > doubled + double_again
            doubled = np.where(is_new, opened, doubled + double_again)
            doubled_row = np.where(is_new, i - 1, doubled_row)
        best[i] = score + log_odds[i, codes] + GO_ON_BITS
    best[: n - 1] += leave
    i, j = (int(k) for k in np.unravel_index(best.argmax(), best.shape))
    positions = np.full(n, -1)
    while i >= 0:
        positions[i] = j
        i, j = int(row_before[i, j]), int(column_before[i, j])
    return positions


def _shift(values: np.ndarray, by: int, fill: int | float) -> np.ndarray:
    """Move values to higher columns."""
    moved = np.full_like(values, fill)
    moved[by:] = values[: len(values) - by] if by < len(values) else values[:0]
    return moved
