"""Probabilities of registers: by hand, by enumeration, and on chains with known mistakes."""

import itertools

import numpy as np
import pytest
from test_align import ALPHA, RECORDS, refinement_of, simulate_logits

from angelo.register import (
    N_STATES,
    REACH,
    _moves,
    forward_backward,
    judge_numbers,
    leave_out_unsure,
    register_probabilities,
)
from angelo.residues import AMINO_ACIDS
from angelo.types import Assignment, Chain, SequenceRecord

STEP = 3.8


def placed(says, positions, breaks=(), accuracy=0.6, seed=0):
    """Chain on a line that says this, and its placement on alpha; steps of 9 Å at breaks."""
    refinement = refinement_of(simulate_logits(says, accuracy, np.random.default_rng(seed)))
    steps = np.full(len(says), STEP)
    steps[list(breaks)] = 9.0
    refinement.frames.ca[:] = np.outer(np.cumsum(steps), [1, 0, 0])
    positions = np.asarray(positions, dtype=np.int64)
    return Assignment(Chain(np.arange(len(says))), 1, positions, 9.0, 1e-9), refinement


def probabilities(*args, **kwargs):
    return register_probabilities(*placed(*args, **kwargs), RECORDS, AMINO_ACIDS)


def test_forward_and_backward_are_what_enumeration_gives():
    rng = np.random.default_rng(0)
    emissions = rng.random((5, 3))
    moves = [rng.random((3, 3)) for _ in range(5)]
    moves = [move / move.sum(1, keepdims=True) for move in moves]
    expected = np.zeros((5, 3))
    for path in itertools.product(range(3), repeat=5):
        weight = moves[0].mean(0)[path[0]] * emissions[0, path[0]]
        for step in range(1, 5):
            weight *= moves[step][path[step - 1], path[step]] * emissions[step, path[step]]
        expected[np.arange(5), path] += weight
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(forward_backward(emissions, moves), expected, rtol=1e-9)


def test_moves_are_chances():
    centres = np.array([10, 11, 12, 12, 14, 30, 31])
    distances = np.array([3.8, 3.8, 3.8, 3.8, 20.0, 3.8], dtype=np.float32)
    for move in _moves(centres, distances):
        assert move.shape == (N_STATES, N_STATES)
        assert (move >= 0).all()
        assert (move.sum(axis=1) <= 1 + 1e-9).all()


def test_a_chain_that_reads_well_is_sure_throughout():
    sure = probabilities(ALPHA[20:80], np.arange(20, 80))
    assert sure[2:-2].min() > 0.97


def test_what_says_nothing_is_not_sure():
    assignment, refinement = placed(ALPHA[20:60], np.arange(20, 60))
    refinement.aa_logits[:] = 0
    sure = register_probabilities(assignment, refinement, RECORDS, AMINO_ACIDS)
    assert sure.max() < 0.5


def test_behind_a_residue_that_tracing_missed_the_numbers_are_doubted():
    # Residue 70 is missing; from there on all numbers are one too low.
    says, positions = ALPHA[20:70] + ALPHA[71:80], np.arange(20, 79)
    sure = probabilities(says, positions, accuracy=0.7)
    assert sure[:45].min() > 0.9
    assert sure[-6:].max() < 0.3
    right = np.r_[20:70, 71:80]
    assert probabilities(says, right, accuracy=0.7)[-6:].min() > 0.8


def test_neighbours_across_a_gap_hold_a_weak_fragment_in_place():
    # Residues 60 to 65 say nothing; between fragments on either side there is room for them.
    says, positions = ALPHA[20:100], np.arange(20, 100)
    assignment, refinement = placed(says, positions, breaks=(40, 46))
    refinement.aa_logits[40:46] = 0
    held = register_probabilities(assignment, refinement, RECORDS, AMINO_ACIDS)[40:46]
    alone, refinement = placed(ALPHA[60:66], np.arange(60, 66))
    refinement.aa_logits[:] = 0
    free = register_probabilities(alone, refinement, RECORDS, AMINO_ACIDS)
    assert held.min() > 3 * free.max()


def test_unmatched_residues_have_no_probability():
    positions = np.r_[-1, -1, 22:60, -1]
    sure = probabilities(ALPHA[20:61], positions)
    np.testing.assert_array_equal(sure[[0, 1, -1]], 0)
    assert sure[5:35].min() > 0.9


def test_a_chain_across_a_long_piece_of_the_sequence_is_a_broken_one():
    says = ALPHA[10:40] + ALPHA[90:120]  # bonded by mistake
    sure = probabilities(says, np.r_[10:40, 90:120])
    assert sure[:26].min() > 0.9
    assert sure[36:].min() > 0.9


def test_unsure_residues_lose_their_match_and_others_stay():
    says, positions = ALPHA[20:70] + ALPHA[71:80], np.arange(20, 79)
    assignment, refinement = placed(says, positions, accuracy=0.7)
    elsewhere = Assignment(assignment.chain, -1, np.full(59, -1), 0.0, np.inf)
    judged = judge_numbers([assignment, elsewhere], refinement, RECORDS, AMINO_ACIDS)
    surer, same = leave_out_unsure(judged)
    assert same is elsewhere
    assert judged[0].number_probability.shape == (59,)
    np.testing.assert_array_equal(surer.positions[:45], positions[:45])
    np.testing.assert_array_equal(surer.positions[-6:], -1)


def test_nucleic_acids_are_left_alone():
    assignment, refinement = placed("ACGT" * 3, np.arange(12))
    records = (RECORDS[0], SequenceRecord("strand", "ACGT" * 3, kind="dna"))
    (same,) = leave_out_unsure(judge_numbers([assignment], refinement, records, AMINO_ACIDS))
    assert same is assignment


@pytest.mark.parametrize("start", [0, len(ALPHA) - 30])
def test_the_ends_of_the_sequence_are_no_trouble(start):
    sure = probabilities(ALPHA[start : start + 30], np.arange(start, start + 30))
    assert REACH > 3
    assert sure[3:-3].min() > 0.9
