"""Amino-acid probabilities by column name, and the HMM they make."""

import numpy as np
import pytest
from pyhmmer.easel import Alphabet, DigitalSequenceBlock, TextSequence
from pyhmmer.plan7 import Pipeline

from angelo.profiles import (
    HMMER_CODES,
    amino_probabilities,
    background_frequencies,
    profile_hmm,
    with_background,
)
from angelo.residues import AMINO_ACIDS

#: The first 50 residues of human haemoglobin alpha.
ALPHA = "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH"


def test_columns_are_found_by_name_and_other_types_take_no_part():
    types = ("DA", *AMINO_ACIDS[::-1], "U")
    logits = np.zeros((1, 22), dtype=np.float32)
    logits[0, types.index("TRP")] = np.log(19)
    logits[0, [0, -1]] = 50
    probabilities = amino_probabilities(logits, types)[0]
    assert probabilities[HMMER_CODES.index("W")] == pytest.approx(0.5)
    assert probabilities.sum() == pytest.approx(1)


def test_a_missing_amino_acid_is_named():
    with pytest.raises(ValueError, match="no column for TRP"):
        amino_probabilities(
            np.zeros((1, 19), dtype=np.float32), [t for t in AMINO_ACIDS if t != "TRP"]
        )


def test_no_amino_acid_is_impossible_and_rows_sum_to_one():
    certain = np.eye(20)
    mixed = with_background(certain)
    np.testing.assert_allclose(mixed.sum(1), 1)
    assert mixed.min() == pytest.approx(0.05 * background_frequencies().min())
    assert mixed[0, 0] == pytest.approx(0.95 + 0.05 * background_frequencies()[0])


@pytest.fixture
def probabilities():
    """A network that gives the right amino acid of ALPHA 60 %, the others the rest."""
    rows = [HMMER_CODES.index(code) for code in ALPHA]
    return with_background(0.4 / 19 + (0.6 - 0.4 / 19) * np.eye(20)[rows])


def test_the_hmm_holds_the_probabilities(probabilities):
    hmm = profile_hmm("chain A", probabilities)
    assert (hmm.M, hmm.name) == (50, "chain A")
    np.testing.assert_allclose(np.asarray(hmm.match_emissions)[1:], probabilities, atol=1e-6)
    moves = np.asarray(hmm.transition_probabilities)
    for state in (slice(0, 3), slice(3, 5), slice(5, 7)):  # out of match, insert, delete
        np.testing.assert_allclose(moves[:, state].sum(1), 1, atol=1e-6)
    assert hmm.consensus.upper() == ALPHA


def test_the_hmm_finds_its_sequence_and_no_other(probabilities):
    alphabet = Alphabet.amino()
    targets = DigitalSequenceBlock(
        alphabet,
        [
            TextSequence(name=name, sequence=residues).digitize(alphabet)
            for name, residues in (("alpha", "GSHM" + ALPHA), ("reversed", ALPHA[::-1]))
        ],
    )
    hits = Pipeline(alphabet, seed=1).search_hmm(profile_hmm("chain A", probabilities), targets)
    assert [hit.name for hit in hits.included] == ["alpha"]
