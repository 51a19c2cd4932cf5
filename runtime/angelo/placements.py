"""Ways to put a chain on a sequence, scored in bits.

Two searches propose placements. pyhmmer's pipeline, with all filters off, finds those with a
missed or a doubled residue inside the chain; an exact scan over every offset finds those
without, also for fragments that are too short for HMMER's local mode. Both are extended to the
chain's ends, clipped where that pays, and scored alike.

Score. A placement is one path of a generative model of the sequence: the chain starts at any of
the ``n`` offsets, each residue emits its amino acid with the network's probability, goes on
with probability 0.97, skips or repeats a residue with 0.01 each, or leaves the sequence with
0.01. The score is ``log2`` of (path / null) without the ``1/n``. All paths together have
probability 1, so the likelihood ratio has mean 1 under the null, and Markov's inequality bounds
the chance of a score s anywhere: ``E <= n 2^-s``. No fit, no simulation, valid for any length
and however badly the network is calibrated.

Null. Amino acids drawn from HMMER's background, or from the chain's own composition, whichever
explains the matched residues better. The second one takes away what a chain gains by
composition alone: one that says "alanine" everywhere fits a poly-alanine in every register.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from pyhmmer.easel import Alphabet, DigitalSequenceBlock, TextSequence
from pyhmmer.plan7 import Pipeline

from angelo.profiles import (
    DOUBLE,
    DOUBLE_AGAIN,
    MISS,
    MISS_AGAIN,
    amino_probabilities,
    background_frequencies,
    codes_of,
    profile_hmm,
    with_background,
)
from angelo.types import SequenceRecord

if TYPE_CHECKING:
    from pyhmmer.easel import AA

    Block = DigitalSequenceBlock[AA]
else:  # generic in pyhmmer's stubs only
    Block = DigitalSequenceBlock

#: Chance, at each residue, that the chain leaves the sequence there.
LEAVE = 0.01
#: Residues' worth of background in a chain's own composition: a short chain says little of it.
COMPOSITION_PRIOR = 4.0
#: Shorter chains hold no room for a gap, and HMMER's local mode is not made for them.
MIN_GAPPED_LENGTH = 10
#: Bit score below which HMMER need not report; what counts is decided by the score above.
HMMER_MIN_BITS = -20.0
#: Offsets of each record that take part in the comparison of registers.
N_OFFSETS = 8
#: Offsets scanned in one go; bounds memory.
OFFSETS_AT_ONCE = 1000
#: Score of going on to the next residue of both chain and sequence, bits.
GO_ON_BITS = float(np.log2(1 - MISS - DOUBLE - LEAVE))
#: Score of a residue outside the sequence, bits: no placement can afford it.
OUTSIDE_BITS = -100.0


@dataclass(frozen=True, slots=True)
class Profile:
    """A chain's amino-acid probabilities, and what they are compared with."""

    probabilities: Float64[np.ndarray, "c t"]
    log_odds: Float64[np.ndarray, "c t+1"]
    """Bits over the background; the last column is X, which says nothing."""
    own_log_odds: Float64[np.ndarray, "c t+1"]
    """The same over the chain's mean probabilities."""

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True)
class Targets:
    """The records, as the two searches want them."""

    records: Sequence[SequenceRecord]
    codes: tuple[Int64[np.ndarray, "_"], ...]
    """For each record (of any length), the column of each residue in the log-odds."""
    block: Block

    def n_offsets(self, length: int) -> int:
        """Places where a chain of this length can start."""
        return sum(len(record) + length - 1 for record in self.records)

    def placements(
        self,
        aa_logits: Float32[np.ndarray, "c t"],
        residue_types: Sequence[str],
    ) -> tuple["Placement", ...]:
        """Find the most likely placements of a chain on every record, in no order."""
        return find_placements(profile_of(aa_logits, residue_types), self)


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to put a chain on a record."""

    record: int
    positions: Int64[np.ndarray, " c"]
    score: float


def targets_of(records: Sequence[SequenceRecord]) -> Targets:
    """Prepare records for the two searches."""
    alphabet = Alphabet.amino()
    codes = tuple(codes_of(record.residues) for record in records)  # X is -1: the last column
    texts = [
        TextSequence(name=str(index), sequence=record.residues)
        for index, record in enumerate(records)
    ]
    block = DigitalSequenceBlock(alphabet, [text.digitize(alphabet) for text in texts])
    return Targets(records, codes, block)


def profile_of(aa_logits: Float32[np.ndarray, "c t"], residue_types: Sequence[str]) -> Profile:
    """Amino-acid probabilities of a chain, and their log-odds over both nulls."""
    probabilities = with_background(amino_probabilities(aa_logits, residue_types))
    return profile_over(probabilities, background_frequencies())


def profile_over(
    probabilities: Float64[np.ndarray, "c t"], background: Float64[np.ndarray, " t"]
) -> Profile:
    """Probabilities of residue types, none of them 0, and their log-odds over both nulls."""

    def log_odds(null: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, "c t+1"]:
        return np.pad(np.log2(probabilities / null), ((0, 0), (0, 1)))

    composition = probabilities.sum(axis=0) + COMPOSITION_PRIOR * background
    composition /= composition.sum()
    return Profile(probabilities, log_odds(background), log_odds(composition))


def find_placements(profile: Profile, targets: Targets) -> tuple[Placement, ...]:
    """Find the most likely placements of a chain on every record, in no order."""
    gapless = gapless_placements(profile, enumerate(targets.codes))
    return (*gapless, *_gapped(profile, targets))


def gapless_placements(
    profile: Profile, records: Iterable[tuple[int, Int64[np.ndarray, "_"]]]
) -> Iterator[Placement]:
    """Best offsets on each record (number, codes), clipped where that pays."""
    for record, codes in records:
        offsets = np.arange(1 - len(profile), len(codes))
        limits = np.zeros_like(offsets), np.full_like(offsets, len(codes))
        scores = offset_scores(profile, codes, offsets, *limits)
        for best in np.argsort(-scores, kind="stable")[:N_OFFSETS]:
            positions = np.arange(len(profile)) + offsets[best]
            inside = (positions >= 0) & (positions < len(codes))
            yield score_placement(record, positions, inside, profile, codes)


def offset_scores(
    profile: Profile,
    codes: Int64[np.ndarray, "_"],
    offsets: Int64[np.ndarray, " o"],
    low: Int64[np.ndarray, " o"],
    high: Int64[np.ndarray, " o"],
) -> Float64[np.ndarray, " o"]:
    """Score over the background of the chain at each offset, bits, clipped where that pays.

    Residue i of the chain is at position i + offset; it counts from ``low`` to before ``high``.
    """
    rows = np.arange(len(profile))[:, None]
    scores = np.empty(len(offsets))
    for start in range(0, len(offsets), OFFSETS_AT_ONCE):
        part = slice(start, start + OFFSETS_AT_ONCE)
        positions = rows + offsets[part]
        inside = (positions >= low[part]) & (positions < high[part])
        column = codes[np.clip(positions, 0, len(codes) - 1)]
        bits = np.where(inside, profile.log_odds[rows, column] + GO_ON_BITS, OUTSIDE_BITS)
        scores[part], _, _ = _best_interval(bits)
    return scores


def _gapped(profile: Profile, targets: Targets) -> Iterator[Placement]:
    """HMMER's domains, extended without gaps to the ends of the chain."""
    if len(profile) < MIN_GAPPED_LENGTH:
        return
    pipeline = Pipeline(
        Alphabet.amino(),
        bias_filter=False,
        null2=False,
        seed=1,
        Z=len(targets.records),
        domZ=len(targets.records),
        F1=1.0,
        F2=1.0,
        F3=1.0,
        T=HMMER_MIN_BITS,
        domT=HMMER_MIN_BITS,
    )
    hits = pipeline.search_hmm(profile_hmm("chain", profile.probabilities), targets.block)
    for hit in hits:
        codes = targets.codes[int(hit.name)]
        for domain in hit.domains:
            alignment = domain.alignment
            in_chain = np.array([state != "." for state in alignment.hmm_sequence])
            in_record = np.array([letter != "-" for letter in alignment.target_sequence])
            residue = alignment.hmm_from - 2 + np.cumsum(in_chain)
            position = alignment.target_from - 2 + np.cumsum(in_record)
            both = in_chain & in_record
            positions = np.full(len(profile), -1, dtype=np.int64)
            positions[residue[both]] = position[both]
            first, last = residue[both][0], residue[both][-1]
            positions[:first] = positions[first] - np.arange(first, 0, -1)
            positions[last:] = positions[last] + np.arange(len(profile) - last)
            usable = (positions >= 0) & (positions < len(codes))
            yield score_placement(int(hit.name), positions, usable, profile, codes)


def score_placement(
    record: int,
    positions: Int64[np.ndarray, " c"],
    usable: Bool[np.ndarray, " c"],
    profile: Profile,
    codes: Int64[np.ndarray, " l"],
) -> Placement:
    """Clip a placement where that pays, and score it against both nulls."""
    at = np.flatnonzero(usable)
    column = codes[positions[at]]
    steps = np.full(len(positions), OUTSIDE_BITS)
    steps[np.arange(at[0], at[-1] + 1)] = 0.0
    steps[at] = GO_ON_BITS
    n_missed, n_doubled = np.diff(positions[at]) - 1, np.diff(at) - 1
    steps[at[1:]] += _gap_bits(n_missed, MISS, MISS_AGAIN)
    steps[at[1:]] += _gap_bits(n_doubled, DOUBLE, DOUBLE_AGAIN)
    bits, own_bits = steps.copy(), steps.copy()
    bits[at] += profile.log_odds[at, column]
    own_bits[at] += profile.own_log_odds[at, column]
    score, first, last = (value[0] for value in _best_interval(bits[:, None]))
    own_score = own_bits[first : last + 1].sum() + score - bits[first : last + 1].sum()
    kept = at[(at >= first) & (at <= last)]
    matched = np.full(len(positions), -1, dtype=np.int64)
    matched[kept] = positions[kept]
    return Placement(record, matched, float(min(score, own_score)))


def _gap_bits(
    lengths: Int64[np.ndarray, " g"], opens: float, extends: float
) -> Float64[np.ndarray, " g"]:
    """Score of gaps; 0 where there is none."""
    return np.where(lengths > 0, np.log2(opens) + (lengths - 1) * np.log2(extends), 0.0)


def _best_interval(
    bits: Float64[np.ndarray, "c m"],
) -> tuple[Float64[np.ndarray, " m"], Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Best run of residues in each column: its score, first and last residue.

    A run that does not reach an end of the chain pays for leaving the sequence there.
    """
    total = np.cumsum(bits, axis=0)
    length, columns = len(bits), np.arange(bits.shape[1])
    before = bits - total  # minus the sum of all earlier residues
    before[1:] += np.log2(LEAVE)
    best_before = np.maximum.accumulate(before, axis=0)
    scores = total + best_before
    scores[: length - 1] += np.log2(LEAVE)
    last = scores.argmax(axis=0)
    reached = best_before[last, columns]
    first = (before == reached).argmax(axis=0)
    return scores[last, columns], first, last
