"""Places of residues in sequences, and attention on them."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from angelo.residues import AMINO_ACID_CODES
from angelo_export.networks.blocks import SequenceAttention
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig
from angelo_export.weights import save_weights
from angelo_training.gnn import Embedder, embed_entry
from angelo_training.reading import (
    Attention,
    SequenceView,
    attention_on,
    find_places,
    reading_loss,
    right_places,
    watch_reading,
)


def entry(*chains):
    """Residue types, bonds and chains of an entry; pieces of a chain are words."""
    letters, follows, number = [], [], []
    for index, chain in enumerate(chains):
        for piece in chain.split():
            first = len(letters)
            letters += piece
            follows += [*range(first + 1, first + len(piece)), -1]
            number += [index] * len(piece)
    kinds = np.array([AMINO_ACID_CODES.index(c) for c in letters], np.uint8)
    return kinds, np.array(follows, np.int32), np.array(number, np.int32)


def test_pieces_of_chains_are_found_in_order():
    sequences = ("MKVLWAQEMKVLYYPQ", "GGSGGSACDEFGHIKL")
    places = find_places(*entry("MKVL WAQE MKVL", "ACDEFG KL"), sequences)
    np.testing.assert_array_equal(places[:12, 0], 0)
    np.testing.assert_array_equal(places[:12, 1], np.arange(12))
    np.testing.assert_array_equal(places[12:18], [[1, 6 + i] for i in range(6)])
    np.testing.assert_array_equal(places[18:], -1)  # two letters say nothing


def test_chains_of_other_sequences_have_no_place():
    places = find_places(*entry("WWWWW", "ACDEF"), ("ACDEFG",))
    np.testing.assert_array_equal(places[:5], -1)
    np.testing.assert_array_equal(places[5:, 0], 0)


def embedder_in(folder):
    config = SequenceContextConfig(2)
    save_weights(folder / "language.pt", SequenceContext(config), asdict(config))
    return Embedder(folder / "language.pt", "cpu")


def test_right_places_follow_the_order_of_the_view(tmp_path):
    embedder = embedder_in(tmp_path)
    sequences = ("ACDEFGHIKL", "MNPQRSTVWY")
    places = np.array([[0, 3], [1, 0], [-1, -1], [1, 9]])
    orders = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        view = embed_entry(embedder, sequences, rng, ("W" * 12,), unread_rate=0.15)
        right = right_places(places, view)
        orders.add(view.starts)
        for row, (index, position) in enumerate(places):
            start = view.starts[index] if index >= 0 else -1
            expected = [start + position + 1] if start >= 0 else [0]
            assert torch.nonzero(right[row]).flatten().tolist() == expected
    assert (-1, -1) in orders  # now and then no sequence
    assert len(orders) > 3


def test_places_that_look_the_same_are_right_together(tmp_path):
    embedder = embedder_in(tmp_path)
    view = embed_entry(embedder, ("ACDEFACDEFACDEF",), None)
    right = right_places(np.array([[0, 7]]), view)
    assert torch.nonzero(right[0, 1:]).flatten().tolist() == [2, 7, 12]
    nothing = right_places(np.array([[0, 7]]), view.nothing())
    assert nothing.tolist() == [[True]]


def test_long_sequences_are_cut():
    view = SequenceView(torch.eye(4), (0,))
    assert right_places(np.array([[0, 9]]), view)[0].tolist() == [True] + [False] * 4


def test_attention_on_right_places_is_what_the_network_uses():
    torch.manual_seed(0)
    block = SequenceAttention(12, 6, 2, 4, null_key=True)
    features, embedding = torch.randn(5, 12), torch.randn(7, 6)
    keys, _ = block.project_sequence(embedding)
    attention = Attention(block, features, keys)
    everything = attention_on(attention, torch.ones(5, 8, dtype=torch.bool)).detach()
    torch.testing.assert_close(everything, torch.ones(5))
    assert float(reading_loss(everything)) == pytest.approx(0, abs=1e-5)
    each = [attention_on(attention, torch.eye(8)[i].bool().expand(5, 8)) for i in range(8)]
    torch.testing.assert_close(torch.stack(each).sum(0), torch.ones(5))
    # A place that a head looks at alone gets that head's share.
    with torch.no_grad():
        block.q[0].weight.zero_()
    uniform = attention_on(attention, torch.eye(8)[3].bool().expand(5, 8))
    torch.testing.assert_close(uniform, torch.full((5,), 1 / 8))


def test_watching_notes_every_layer_once_and_ends():
    config = CompactGraphConfig(
        layers=2, hidden=16, heads=2, edge=8, points=2, point_value=2, sequence=6,
        sequence_heads=2, sequence_head_width=4, cube_side=3, cube_hidden=8,
        rectangle_length=3, neighbours=4, encoding=4, depth=1,
    )  # fmt: skip
    network = CompactGraph(config)
    r, k = 5, 4
    keys, values = network.project_sequence(torch.randn(3, 6))
    inputs = (
        torch.randn(r, 16),
        torch.eye(3).expand(r, 3, 3),
        torch.randn(r, 3),
        torch.stack([torch.arange(r)[torch.arange(r) != i] for i in range(r)]),
        torch.randn(r, 27),
        torch.randn(r, k, 27),
    )
    with watch_reading(network) as noted:
        for index, layer in enumerate(network.layers):
            layer(*inputs, keys[index], values[index])
    assert [a.block for a in noted] == [layer.sequence for layer in network.layers]
    assert noted[0].keys is not None and noted[0].keys.shape == (3, 2, 4)
    network.layers[0](*inputs, keys[0], values[0])
    assert len(noted) == 2
    assert replace(noted[0], keys=keys[0]).features.shape == (r, 16)
