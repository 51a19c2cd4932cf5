"""Embeddings: tokens, windows, overlaps, offsets."""

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle

from angelo.bundle import load_bundle
from angelo.language import (
    embed_sequence,
    embed_sequences,
    tokens_from_sequence,
    window_starts,
)
from angelo.manifest import LanguageNetwork
from angelo.session import Networks
from angelo.types import SequenceRecord


def settings(**changes):
    values = {
        "graph": "e.onnx",
        "tokens": {"A": 5, "C": 6},
        "begin": 0,
        "end": 2,
        "unknown": 3,
        "max_length": 10,
        "overlap": 4,
    }
    return LanguageNetwork(**(values | changes))


def echo(tokens):
    """Embed every token as (token, position in the window, length of the window)."""
    n = tokens.shape[1]
    rows = np.stack([tokens[0], np.arange(n), np.full(n, n)], axis=-1)
    return {"embedding": rows[None].astype(np.float32)}


def test_tokens_with_special_ones_and_unknown_letters():
    np.testing.assert_array_equal(tokens_from_sequence("CAX", settings()), [[0, 6, 5, 3, 2]])
    bare = settings(begin=None, end=None)
    np.testing.assert_array_equal(tokens_from_sequence("CA", bare), [[6, 5]])


@pytest.mark.parametrize("begin", [None, 0])
@pytest.mark.parametrize("end", [None, 2])
def test_special_tokens_are_embedded_with_the_chain_and_left_out(begin, end):
    rows = embed_sequence("CA", settings(begin=begin, end=end), echo)
    first = int(begin is not None)
    n = 2 + first + int(end is not None)
    np.testing.assert_array_equal(rows, [[6, first, n], [5, first + 1, n]])


@pytest.mark.parametrize("length", [1, 9, 10, 11, 16, 17, 100, 2345])
def test_windows_cover_and_overlap(length):
    starts = window_starts(length, 10, 4)
    assert starts[0] == 0
    if length <= 10:
        assert starts == (0,)
        return
    assert starts[-1] == length - 10
    steps = np.diff(starts)
    assert steps.max() <= 6 and steps.min() >= 1
    # One window fewer could not share as much.
    assert (len(starts) - 2) * 6 + 10 < length or len(starts) == 2


def test_overlaps_are_averaged():
    calls = []

    def count(tokens):
        calls.append(tokens)
        return {"embedding": np.full((1, tokens.shape[1], 1), len(calls), np.float32)}

    rows = embed_sequence("A" * 16, settings(), count)
    # Windows 0-9 (value 1) and 6-15 (value 2).
    np.testing.assert_array_equal(rows[:, 0], [1] * 6 + [1.5] * 4 + [2] * 6)


@pytest.fixture
def tiny(tmp_path):
    bundle = load_bundle(write_tiny_bundle(tmp_path / "tiny"))
    return bundle.language, Networks(bundle.folder).open(bundle.language.graph)


def test_windows_of_a_network_without_context_equal_one_pass(tiny):
    language, graph = tiny
    residues = "ACDEFGHIKLMNPQRSTVWYX" * 7
    in_windows = embed_sequence(residues, language, graph)
    tokens = tokens_from_sequence(residues, language)
    at_once = graph(tokens=tokens)["embedding"][0, 1:-1]
    # The mean of two or three equal float32 numbers rounds by one unit.
    np.testing.assert_allclose(in_windows, at_once, rtol=3e-7)


def test_records_follow_each_other(tiny):
    told = []
    records = [SequenceRecord("a", "ACD"), SequenceRecord("b", "WW" * 30)]
    embedding = embed_sequences(records, *tiny, progress=lambda *step: told.append(step))
    np.testing.assert_array_equal(embedding.offsets, [0, 3, 63])
    assert embedding.values.shape == (63, 6) and embedding.values.dtype == np.float32
    np.testing.assert_array_equal(embedding.values[:3], embed_sequence("ACD", *tiny))
    assert told == [(1, 2), (2, 2)]


def test_no_record_is_refused(tiny):
    with pytest.raises(ValueError, match="no sequence"):
        embed_sequences([], *tiny)
