"""Letters around every residue."""

import pytest
import torch

from angelo_export.networks.language import ALPHABET
from angelo_export.networks.sequence_context import (
    LETTERS,
    SequenceContext,
    SequenceContextConfig,
)


def embed(text, reach=1):
    network = SequenceContext(SequenceContextConfig(reach))
    letters = [ALPHABET.index(letter) for letter in text]
    tokens = [ALPHABET.index("<cls>"), *letters, ALPHABET.index("<eos>")]
    return network(torch.tensor([tokens]))[0, 1:-1].reshape(len(text), 2 * reach + 1, -1)


def test_letters_stand_at_their_offsets():
    embedded = embed("MKV")
    assert embedded.shape == (3, 3, 21)
    assert (embedded.sum(2) == 1).all()
    found = embedded.argmax(2).tolist()
    m, k, v, end = LETTERS.index("M"), LETTERS.index("K"), LETTERS.index("V"), 20
    assert found == [[end, m, k], [m, k, v], [k, v, end]]


def test_unknown_letters_and_what_lies_beyond_the_ends_are_nothing():
    embedded = embed("AXA", reach=3)
    assert embedded[1, 3].sum() == 0  # the X itself
    assert embedded[0, :2].sum() == 0  # before the end mark
    assert embedded[0, 2, 20] == 1
    assert embedded[0, 4].sum() == 0


@pytest.mark.parametrize("reach", [1, 4])
def test_a_long_chain_is_embedded_as_its_parts_are(reach):
    text = "ACDEFGHIKLMNPQRSTVWY" * 2
    whole = embed(text, reach)
    part = embed(text[10:30], reach)
    inner = slice(reach, 20 - reach)
    assert torch.equal(whole[10:30][inner], part[inner])
