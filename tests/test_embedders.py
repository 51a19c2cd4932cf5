"""The comparison of embedders: a reader finds what the embedding lets it find."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from angelo.residues import AMINO_ACID_CODES
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import embedders

HIDDEN, LENGTH = 48, 40


def make_examples(n, seed):
    """Residues that know, but for noise, the letters of their neighbours."""
    rng = np.random.default_rng(seed)
    table = np.random.default_rng(0).normal(size=(3, 20, HIDDEN))
    made = []
    for _ in range(n):
        kinds = rng.integers(20, size=LENGTH + 2)
        features = sum(table[i][kinds[i : i + LENGTH]] for i in range(3)) / np.sqrt(3)
        features = features + rng.normal(size=features.shape) * 0.2
        right = torch.cat(
            (torch.zeros(LENGTH, 2), torch.eye(LENGTH), torch.zeros(LENGTH, 1)), 1
        )
        made.append(
            embedders.Example(
                torch.from_numpy(features).float(),
                right.bool(),
                kinds[1:-1],
                np.arange(LENGTH) > 0,
                ("".join(AMINO_ACID_CODES[kind] for kind in kinds),),
            )
        )
    return made


@pytest.fixture(scope="module")
def found():
    training, judging = make_examples(16, 1), make_examples(4, 2)
    result = {}
    for reach in (0, 1):
        model = SequenceContext(SequenceContextConfig(reach))
        width = embedders.embedded(model, ("A",)).shape[1]
        reader = embedders.trained_reader(model, training, width, 250)
        result[reach] = embedders.judged(reader, model, judging)
        result[f"{reach} unread"] = embedders.judged(reader, None, judging)
    return result


def test_neighbours_tell_places_apart_and_a_letter_does_not(found):
    # The mean over heads: some look elsewhere.
    assert found[1]["attention"] > 0.2
    assert found[0]["attention"] < 0.6 * found[1]["attention"]


def test_without_sequences_there_is_no_place_to_look(found):
    assert "attention" not in found["1 unread"]
    assert found["1 unread"]["types"] < found[1]["types"]
