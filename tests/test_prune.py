"""Fragments to molecules: gaps, copies, overlaps; pruning; the report."""

import numpy as np
import pytest

from angelo.prune import (
    MAX_JOIN_DISTANCE,
    MAX_OVERLAP,
    SPAN_PER_RESIDUE,
    SPAN_SLACK,
    join_fragments,
    prune_chains,
    report_assignment,
)
from angelo.types import Assignment, BackboneFrames, Chain, Refinement, SequenceRecord

RECORDS = (SequenceRecord("a", "A" * 40), SequenceRecord("b", "G" * 30))


class Build:
    """Residues on straight lines 3.8 Å apart along x, and assignments of them."""

    def __init__(self):
        self.ca, self.assignments = [], []

    def add(self, sequence, positions, start=(0, 0, 0), score=10.0, e_value=1e-5):
        n, first = len(positions), len(self.ca)
        self.ca += [np.add(start, [3.8 * i, 0, 0]) for i in range(n)]
        self.assignments.append(
            Assignment(
                Chain(np.arange(first, first + n)),
                sequence,
                np.array(positions, dtype=np.int64),
                score,
                e_value,
            )
        )
        return self

    @property
    def refinement(self):
        n = len(self.ca)
        return Refinement(
            frames=BackboneFrames(
                np.eye(3, dtype=np.float32)[None].repeat(n, 0),
                np.array(self.ca, dtype=np.float32).reshape(n, 3),
            ),
            aa_logits=np.zeros((n, 20), dtype=np.float32),
            torsions=np.zeros((n, 7, 2), dtype=np.float32),
            predicted_error=np.zeros(n, dtype=np.float32),
            existence=np.ones(n, dtype=np.float32),
            neighbours=np.zeros((n, 1), dtype=np.int64),
            next_probability=np.zeros((n, 1), dtype=np.float32),
        )

    def joined(self):
        return join_fragments(self.assignments, self.refinement, RECORDS)

    def pruned(self, *args):
        return prune_chains(self.assignments, self.refinement, *args)


def positions(assignments):
    return [a.positions.tolist() for a in assignments]


# -------------------------------------------------------------------------------- joining


def test_two_fragments_with_a_short_gap_become_one_chain():
    # 0 to 9 end at x = 34.2; 12 starts 3 residues and 10 Å further.
    build = Build().add(0, range(12, 20), (44.2, 0, 0), 7.0, 1e-3).add(0, range(10))
    (chain,) = build.joined()
    assert chain.positions.tolist() == [*range(10), *range(12, 20)]
    assert chain.chain.residues.tolist() == [*range(8, 18), *range(8)]
    assert (chain.sequence, chain.score, chain.e_value) == (0, 17.0, 1e-5)


@pytest.mark.parametrize(
    ("gap", "distance", "n_chains"),
    [
        (3, 3 * SPAN_PER_RESIDUE + SPAN_SLACK - 0.1, 1),
        (3, 3 * SPAN_PER_RESIDUE + SPAN_SLACK + 0.1, 2),
        (25, MAX_JOIN_DISTANCE - 0.1, 1),
        (25, MAX_JOIN_DISTANCE + 0.1, 2),
        (0, SPAN_PER_RESIDUE + SPAN_SLACK - 0.1, 1),  # both claim one residue
        (0, SPAN_PER_RESIDUE + SPAN_SLACK + 0.1, 2),
        (1 - MAX_OVERLAP, 3.8, 1),
        (-MAX_OVERLAP, 3.8, 2),
    ],
)
def test_a_gap_must_span_the_distance(gap, distance, n_chains):
    build = Build().add(0, range(5))
    build.add(0, range(4 + gap, 9 + gap), (3.8 * 4 + distance, 0, 0))
    assert len(build.joined()) == n_chains


def test_residues_that_two_fragments_claim_are_the_earlier_ones():
    build = Build().add(0, range(10)).add(0, [8, 9, -1, 10, 11, 12], (34, 3, 0))
    (chain,) = build.joined()
    assert chain.positions.tolist() == [*range(10), -1, 10, 11, 12]
    assert chain.chain.residues.tolist() == [*range(10), 12, 13, 14, 15]


def test_as_few_molecules_as_can_be_even_if_more_would_be_tighter():
    # To the next fragment it is nearly as far as can be, to the one after it only half of that.
    build = Build()
    for number in range(10):
        first = 12 * number
        build.add(0, range(first, first + 10), (34.2 * number, 16.9 * (number % 2), 0))
    assert len(build.joined()) == 1


def test_fragments_of_different_sequences_stay_apart():
    build = Build().add(0, range(5)).add(1, range(6, 12), (20, 0, 0))
    assert len(build.joined()) == 2


def test_copies_are_sorted_out_by_distance():
    build = Build()
    for copy in range(3):
        build.add(0, range(10), (0, 12.0 * copy, 0))
    for copy in (2, 0, 1):
        build.add(0, range(15, 25), (50.0, 12.0 * copy, 0))
    ca = build.refinement.frames.ca
    joined = build.joined()
    assert [len(a.chain) for a in joined] == [20, 20, 20]
    for copy, assignment in enumerate(joined):
        assert np.unique(ca[assignment.chain.residues, 1]).tolist() == [12.0 * copy]


def test_the_nearest_pair_is_given_up_for_the_best_total():
    # b is nearest to the end of a2, but only b can follow a1; c can follow a2 as well.
    build = Build()
    build.add(0, range(5), (-3.8 * 4, 0, 0))  # a1 ends at 0
    build.add(0, range(5), (-3.8 * 4, 14, 0))  # a2 ends at y = 14
    build.add(0, range(8, 13), (4, 10, 0))  # b
    build.add(0, range(8, 13), (4, 25, 0))  # c: out of reach of a1
    joined = build.joined()
    assert [len(a.chain) for a in joined] == [10, 10]
    assert {a.chain.residues[0]: a.chain.residues[5] for a in joined} == {0: 10, 5: 15}


def test_three_fragments_make_one_chain_and_use_no_position_twice():
    build = Build()
    build.add(0, range(20, 26), (80, 0, 0)).add(0, range(6)).add(0, range(10, 16), (40, 0, 0))
    build.add(0, range(8, 14), (40, 20, 0))  # a rival for the middle
    for chain in (joined := build.joined()):
        assert (np.diff(chain.positions) > 0).all()
    assert sorted(len(a.chain) for a in joined) == [6, 18]
    built = np.concatenate([a.chain.residues for a in joined])
    assert sorted(built) == list(range(24))


def test_unmatched_chains_are_kept_and_the_longest_comes_first():
    build = Build().add(-1, [-1] * 3, (5, 0, 0)).add(-1, [-1] * 3).add(0, range(5), (9, 9, 9))
    joined = build.joined()
    assert [a.chain.residues[0] for a in joined] == [6, 3, 0]
    assert Build().joined() == ()


# -------------------------------------------------------------------------------- pruning


def test_pruning_keeps_matched_residues_only():
    build = Build().add(0, [-1, 3, 4, 5, 6, -1]).add(-1, [-1] * 9, (0, 20, 0))
    (kept,) = build.pruned()
    assert kept.positions.tolist() == [3, 4, 5, 6]
    assert kept.chain.residues.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("length", "is_kept"), [(3, False), (4, True)])
def test_four_matched_residues_are_the_least(length, is_kept):
    assert bool(Build().add(0, range(length)).pruned()) is is_kept
    assert bool(Build().add(0, range(length)).pruned(length)) is True


def test_a_short_fragment_of_a_joined_chain_is_dropped():
    build = Build().add(0, range(3)).add(0, range(6, 16), (20, 0, 0))
    joined = build.joined()
    assert positions(joined) == [[0, 1, 2, *range(6, 16)]]
    assert positions(prune_chains(joined, build.refinement)) == [list(range(6, 16))]


def test_a_missed_residue_does_not_end_a_fragment():
    assert positions(Build().add(0, [0, 1, 3, 4]).pruned()) == [[0, 1, 3, 4]]


def test_pruning_twice_changes_nothing():
    build = Build().add(0, [-1, 3, 4, 5, 6, -1, 9, 10]).add(1, range(7), (0, 30, 0))
    once = build.pruned()
    assert positions(prune_chains(once, build.refinement)) == positions(once)


# --------------------------------------------------------------------------------- report


def test_the_report_counts_copies_once_for_coverage():
    build = Build().add(0, range(20)).add(0, range(10, 30), (0, 20, 0)).add(-1, [-1] * 5)
    report = report_assignment(build.pruned(), len(build.ca), RECORDS)
    assert (report.n_built, report.n_assigned, report.n_left_over) == (45, 40, 5)
    first, second = report.sequences
    assert (first.name, first.length, first.n_chains, first.n_residues) == ("a", 40, 2, 40)
    assert first.fraction == 0.75
    assert (second.n_chains, second.fraction) == (0, 0.0)
    assert report.not_found == ("b",)
