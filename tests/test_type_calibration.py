"""Temperature and biases of amino-acid logits, learned from placed residues."""

import numpy as np
import pytest
from test_align import ALPHA, RECORDS, refinement_of, simulate_logits

from angelo.place import place_proteins
from angelo.profiles import HMMER_CODES, amino_columns, amino_probabilities
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE
from angelo.type_calibration import (
    MIN_PLACED,
    USUAL_TEMPERATURE,
    TypeCalibration,
    calibrate_by_placed,
    fit_calibration,
    with_calibration,
)
from angelo.types import Assignment, Chain, SequenceRecord


def line_of(logits):
    """Residues that say this, 3 Å apart along each axis."""
    ca = np.arange(3 * len(logits), dtype=np.float32).reshape(-1, 3)
    return refinement_of(logits.astype(np.float32), ca)


def drawn(n, temperature, bias, seed=0):
    """Logits, and types drawn from what they say once they are divided and shifted."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 20)).astype(np.float32) * 4
    odds = logits / temperature + bias
    return logits, (odds + rng.gumbel(size=odds.shape)).argmax(1)


def test_what_the_logits_were_made_with_is_found():
    bias = np.zeros(20)
    bias[[2, 7]] = 0.8, -0.6
    found = fit_calibration(*drawn(20_000, 1.8, bias))
    assert found.temperature == pytest.approx(1.8, rel=0.12)  # the mixed-in background: flatter
    np.testing.assert_allclose(found.bias, bias, atol=0.2)


def test_calibrated_logits_are_right_as_often_as_they_say():
    logits, types = drawn(4_000, 2.0, np.zeros(20))
    names = [NAME_FROM_CODE[code] for code in HMMER_CODES]
    calibrated = fit_calibration(logits, types).of(logits, names)
    said = [amino_probabilities(by, names).max(axis=1).mean() for by in (logits, calibrated)]
    right = (logits.argmax(axis=1) == types).mean()
    assert said[0] > right + 0.15
    assert said[1] == pytest.approx(right, abs=0.03)


def test_without_residues_the_usual_is_kept():
    found = fit_calibration(np.zeros((0, 20), np.float32), np.zeros(0, np.int64))
    assert found.temperature == pytest.approx(USUAL_TEMPERATURE)
    np.testing.assert_allclose(found.bias, 0, atol=1e-6)


def test_wrongly_placed_residues_hardly_count():
    logits, types = drawn(2_000, 1.0, np.zeros(20))
    types[:100] = np.random.default_rng(1).integers(20, size=100)  # one in twenty
    assert fit_calibration(logits, types).temperature < 1.25


def test_columns_of_nucleotides_stay():
    names = ("DA", *AMINO_ACIDS, "U")
    logits = np.random.default_rng(0).normal(size=(4, 22)).astype(np.float32)
    bias = np.arange(20.0)
    changed = TypeCalibration(2.0, bias).of(logits, names)
    np.testing.assert_array_equal(changed[:, [0, -1]], logits[:, [0, -1]])
    columns = amino_columns(names)
    np.testing.assert_allclose(changed[:, columns], logits[:, columns] / 2 + bias, rtol=1e-6)
    assert changed.dtype == np.float32


def assignment_of(n, sequence=1):
    return Assignment(Chain(np.arange(n)), sequence, np.arange(n), 99.0, 1e-9)


def test_too_few_placed_residues_teach_nothing():
    refinement = line_of(simulate_logits(ALPHA, 0.8, np.random.default_rng(0)))
    few, enough = assignment_of(MIN_PLACED - 1), assignment_of(MIN_PLACED)
    for assignment, is_known in ((few, False), (enough, True)):
        found = calibrate_by_placed(refinement, [assignment], RECORDS, AMINO_ACIDS)
        assert (found is not None) is is_known
    nowhere = Assignment(enough.chain, -1, np.full(MIN_PLACED, -1), 0.0, np.inf)
    assert calibrate_by_placed(refinement, [nowhere], RECORDS, AMINO_ACIDS) is None


def test_an_x_of_the_sequence_teaches_nothing():
    refinement = line_of(simulate_logits(ALPHA, 0.8, np.random.default_rng(0)))
    unknown = (SequenceRecord("x", "X" * len(ALPHA)),)
    placed = [assignment_of(len(ALPHA), 0)]
    assert calibrate_by_placed(refinement, placed, unknown, AMINO_ACIDS) is None


def with_confused_end(seed=3):
    """All of alpha; a network that says alanine too often and is too sure; its last 20
    residues are a chain of their own."""
    truth = simulate_logits(ALPHA, 0.55, np.random.default_rng(seed))
    truth[:, AMINO_ACIDS.index("ALA")] += 2.5
    chains = [Chain(np.arange(len(ALPHA) - 20)), Chain(np.arange(len(ALPHA) - 20, len(ALPHA)))]
    return line_of(1.6 * truth), chains


def test_the_second_pass_goes_by_what_the_first_one_taught():
    refinement, chains = with_confused_end()
    placed, calibrated = place_proteins(chains, refinement, RECORDS, AMINO_ACIDS)
    assert placed[0].sequence == 1
    softened = TypeCalibration(1.3, np.zeros(len(HMMER_CODES)))
    untaught = with_calibration(refinement, softened, AMINO_ACIDS)
    ala = HMMER_CODES.index("A")
    said, learned = (
        amino_probabilities(by.aa_logits, AMINO_ACIDS)[:, ala].mean()
        for by in (untaught, calibrated)
    )
    true_share = ALPHA.count("A") / len(ALPHA)
    assert abs(learned - true_share) < 0.5 * abs(said - true_share)


def test_sequences_that_are_not_there_teach_nothing():
    refinement, chains = with_confused_end()
    wrong = (RECORDS[2],)  # lysozyme
    placed, usual = place_proteins(chains, refinement, wrong, AMINO_ACIDS)
    assert all(assignment.sequence < 0 for assignment in placed)
    np.testing.assert_allclose(usual.aa_logits, refinement.aa_logits / USUAL_TEMPERATURE)
