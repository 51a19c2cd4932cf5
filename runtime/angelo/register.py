"""How likely each residue of a placed molecule has the number that it was given.

A placement is the best path of a chain along its sequence; near missed and doubled residues,
in loops and at ends, paths beside it may be nearly as good. All of them together, weighted by
their likelihood, tell where the register is sure: a hidden Markov model over the residues,
whose states are the positions near those of the placement (`forward_backward`). Its moves are
those of `angelo.placements`; where the chain is broken, the distance says how far to go on.

References
----------
Posterior decoding: Durbin, Eddy, Krogh & Mitchison 1998, Biological sequence analysis,
section 4.4.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from angelo.gaps import span_weights
from angelo.placements import LEAVE, profile_of
from angelo.profiles import DOUBLE, DOUBLE_AGAIN, MISS, MISS_AGAIN, codes_of
from angelo.trace import MAX_CALPHA_STEP
from angelo.types import Assignment, Refinement, SequenceRecord

#: Residues whose number is less likely than this are not supported by the sequence.
LEAST_PROBABILITY = 0.7
#: Registers on either side of the placement's that take part.
REACH = 12
#: Most residues missed at one place.
MOST_MISSED = 3
#: States: matched at each position, doubled after each position, then these two.
N_POSITIONS = 2 * REACH + 1
LEFT, NOT_ENTERED = 2 * N_POSITIONS, 2 * N_POSITIONS + 1
N_STATES = 2 * N_POSITIONS + 2


def judge_numbers(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> tuple[Assignment, ...]:
    """Give placed proteins their `register_probabilities`.

    Parameters
    ----------
    assignments
        Molecules, their fragments joined; what is not placed, or nucleic acid, stays as it is.
    refinement, records, residue_types
        As in `register_probabilities`.
    """
    return tuple(
        replace(
            assignment,
            number_probability=register_probabilities(
                assignment, refinement, records, residue_types
            ),
        )
        if assignment.sequence >= 0 and records[assignment.sequence].kind == "protein"
        else assignment
        for assignment in assignments
    )


def leave_out_unsure(
    assignments: Sequence[Assignment], least: float = LEAST_PROBABILITY
) -> tuple[Assignment, ...]:
    """Unmatch residues whose position is less likely than ``least``; not judged ones stay."""
    return tuple(
        assignment
        if assignment.number_probability is None
        else replace(
            assignment,
            positions=np.where(
                assignment.number_probability >= least, assignment.positions, -1
            ),
        )
        for assignment in assignments
    )


def register_probabilities(
    assignment: Assignment,
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> Float64[np.ndarray, " c"]:
    """Probability of each residue's position; 0 for residues that are not matched.

    Parameters
    ----------
    assignment
        A molecule of protein, its fragments joined, placed on one of ``records``.
    refinement, residue_types
        Calibrated logits and C-alphas, and what the columns are.
    """
    residues = assignment.chain.residues
    codes = codes_of(records[assignment.sequence].residues)
    profile = profile_of(refinement.aa_logits[residues], residue_types)
    matched = np.flatnonzero(assignment.positions >= 0)
    at = (matched, codes[assignment.positions[matched]])
    # The null that explains the matched residues better, as in placing.
    background_is_worse = profile.log_odds[at].sum() > profile.own_log_odds[at].sum()
    log_odds = profile.own_log_odds if background_is_worse else profile.log_odds
    centres = _centres(assignment.positions)
    position = centres[:, None] + np.arange(-REACH, REACH + 1)
    inside = (position >= 0) & (position < len(codes))
    column = codes[np.clip(position, 0, len(codes) - 1)]
    odds = np.where(inside, 2.0 ** np.take_along_axis(log_odds, column, axis=1), 0.0)
    emissions = np.ones((len(residues), N_STATES))
    emissions[:, :N_POSITIONS] = odds
    ca = refinement.frames.ca[residues]
    distances = np.linalg.norm(np.diff(ca, axis=0), axis=1)
    probabilities = forward_backward(emissions, _moves(centres, distances))
    found: np.ndarray = probabilities[:, REACH] * (assignment.positions >= 0)
    return found


def forward_backward(
    emissions: Float64[np.ndarray, "c n"], moves: Sequence[Float64[np.ndarray, "n n"]]
) -> Float64[np.ndarray, "c n"]:
    """Probability of each state at each step, given all emissions.

    Parameters
    ----------
    emissions
        Likelihood of what is seen at each step, by state.
    moves
        The start (every row alike), then the moves to each further step: rows sum to at most 1.
    """
    forward, backward = np.empty_like(emissions), np.ones_like(emissions)
    state = np.full(emissions.shape[1], 1 / emissions.shape[1])
    for step, (emission, move) in enumerate(zip(emissions, moves, strict=True)):
        state = (state @ move) * emission
        state /= state.sum()
        forward[step] = state
    for step in range(len(emissions) - 1, 0, -1):
        state = moves[step] @ (emissions[step] * backward[step])
        backward[step - 1] = state / state.sum()
    both = forward * backward
    probabilities: np.ndarray = both / both.sum(axis=1, keepdims=True)
    return probabilities


def _centres(positions: Int64[np.ndarray, " c"]) -> Int64[np.ndarray, " c"]:
    """Positions, and for unmatched residues those after the last matched one."""
    rows = np.arange(len(positions))
    matched = positions >= 0
    last = np.maximum.accumulate(np.where(matched, rows, -1))
    last[last < 0] = np.flatnonzero(matched)[0]
    return positions[last] + rows - last


def _moves(
    centres: Int64[np.ndarray, " c"], distances: Float32[np.ndarray, " d"]
) -> list[Float64[np.ndarray, "n n"]]:
    """Return the moves to every residue from the one before it.

    A chain is also broken where it was placed across a longer piece of the sequence than
    tracing leaves out: there it had been cut.
    """
    start = np.zeros((N_STATES, N_STATES))
    start[:, :N_POSITIONS] = (1 - LEAVE) / N_POSITIONS
    start[:, NOT_ENTERED] = LEAVE
    steps = np.diff(centres)
    bonded = {step: _bonded_moves(step) for step in np.unique(steps).tolist()}
    return [start] + [
        bonded[step]
        if distance <= MAX_CALPHA_STEP and step <= 1 + MOST_MISSED
        else _broken_moves(step, distance)
        for step, distance in zip(steps.tolist(), distances.tolist(), strict=True)
    ]


def _advances(step: int) -> Int64[np.ndarray, "p p"]:
    """By how many positions the chain goes on, from each state to each."""
    register = np.arange(-REACH, REACH + 1)
    return step + register - register[:, None]


def _bonded_moves(step: int) -> Float64[np.ndarray, "n n"]:
    """Along a bond: the next position, one further on, the same again, or out."""
    advance = _advances(step)
    moves = np.zeros((N_STATES, N_STATES))
    matched, doubled = slice(0, N_POSITIONS), slice(N_POSITIONS, 2 * N_POSITIONS)
    moves[matched, matched] = (advance == 1) * (1 - MISS - DOUBLE - LEAVE)
    for n_missed in range(1, MOST_MISSED + 1):
        chance = MISS * MISS_AGAIN ** (n_missed - 1) * (1 - MISS_AGAIN)
        moves[matched, matched] += (advance == 1 + n_missed) * chance
    moves[matched, doubled] = (advance == 0) * DOUBLE
    moves[doubled, doubled] = (advance == 0) * DOUBLE_AGAIN
    moves[doubled, matched] = (advance == 1) * (1 - DOUBLE_AGAIN)
    moves[matched, LEFT] = LEAVE
    moves[LEFT, LEFT] = 1.0
    moves[NOT_ENTERED, matched] = LEAVE / N_POSITIONS
    moves[NOT_ENTERED, NOT_ENTERED] = 1 - LEAVE
    return moves


def _broken_moves(step: int, distance: float) -> Float64[np.ndarray, "n n"]:
    """Over a gap: on by as much as the distance makes likely; from nowhere to anywhere."""
    advance = _advances(step)
    weights = np.where(advance >= 1, span_weights(advance, distance), 0.0)
    whole = span_weights(np.arange(1, step + 2 * REACH + 1), distance).sum()
    moves = np.zeros((N_STATES, N_STATES))
    enters = (1 - LEAVE) / N_POSITIONS
    onward = (1 - LEAVE) * weights / whole if whole > 0 else np.full_like(weights, enters)
    moves[:N_POSITIONS, :N_POSITIONS] = onward
    moves[N_POSITIONS : 2 * N_POSITIONS, :N_POSITIONS] = onward
    moves[[LEFT, NOT_ENTERED], :N_POSITIONS] = enters
    moves[:, NOT_ENTERED] = LEAVE
    return moves
