"""The language model: fair-esm's names and arithmetic, padding, positions."""

import pytest
import torch

from angelo_export.networks.language import (
    ALPHABET,
    ESM1B,
    LanguageConfig,
    LanguageModel,
    RotaryPositions,
)

BEGIN, PADDING, END, MASK = (
    ALPHABET.index(f"<{name}>") for name in ("cls", "pad", "eos", "mask")
)
ROTARY = LanguageConfig(layers=2, width=16, heads=2)
LEARNED = LanguageConfig(layers=2, width=16, heads=2, positions="learned")
ATOL = 1e-5


@pytest.fixture(params=[ROTARY, LEARNED], ids=["rotary", "learned"])
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LanguageModel(request.param).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return network


def sequence(length: int, seed: int = 0) -> torch.Tensor:
    """One row: begin, residues, end."""
    residues = torch.randint(4, 24, (length,), generator=torch.Generator().manual_seed(seed))
    return torch.cat((torch.tensor([BEGIN]), residues, torch.tensor([END])))[None]


def test_alphabet_is_that_of_fair_esm():
    assert len(ALPHABET) == 33
    known = {"<cls>": 0, "<pad>": 1, "<eos>": 2, "<unk>": 3, "L": 4, "A": 5, "C": 23, "X": 24}
    assert {token: ALPHABET.index(token) for token in known} == known
    assert MASK == 32


@torch.no_grad()
def test_padding_does_not_change_embeddings(model):
    short, long = sequence(5), sequence(9, seed=1)
    padded = torch.full_like(long, PADDING)
    padded[:, : short.shape[1]] = short
    together = model(torch.cat((padded, long)))
    assert torch.allclose(together[:1, : short.shape[1]], model(short), atol=ATOL)
    assert torch.allclose(together[1:], model(long), atol=ATOL)


@torch.no_grad()
def test_order_of_residues_matters(model):
    forward = sequence(6)
    turned = forward.clone()
    turned[:, 1:-1] = forward[:, 1:-1].flip(1)
    difference = model(forward)[:, 1:-1] - model(turned)[:, 1:-1].flip(1)
    assert difference.abs().max() > 1e-3


@torch.no_grad()
def test_masked_residue_is_hidden(model):
    """Two sequences that differ in one residue are equal once it is masked."""
    one, other = sequence(6), sequence(6)
    other[0, 3] = (one[0, 3] - 4 + 1) % 20 + 4
    assert (model(one) - model(other)).abs().max() > 1e-3
    one[0, 3] = other[0, 3] = MASK
    assert torch.equal(model(one), model(other))


@torch.no_grad()
def test_unmasked_tokens_are_scaled_as_in_training(model):
    """0.88 without masks; (1 - 0.12) / (1 - 1/4) with one of four tokens masked."""
    config = LanguageConfig(layers=0, width=16, heads=2)
    network = LanguageModel(config)
    network.emb_layer_norm_after = torch.nn.Identity()
    tokens = sequence(2)
    table = network.embed_tokens.weight
    assert torch.allclose(network(tokens), 0.88 * table[tokens], atol=1e-6)
    tokens[0, 1] = MASK
    expected = 0.88 / 0.75 * table[tokens]
    expected[0, 1] = 0
    assert torch.allclose(network(tokens), expected, atol=1e-6)


def test_rotary_scores_depend_on_the_distance_alone():
    rotary = RotaryPositions(8)
    pair = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    q, k = (rotary(vector.expand(1, 1, 20, 8))[0, 0] for vector in pair)
    scores = q @ k.T
    for offset in (-3, 0, 5):
        diagonal = scores.diagonal(offset)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=ATOL)
    assert (scores[0, 1] - scores[0, 2]).abs() > 1e-3


def test_rotary_turns_pairs_by_position():
    first = torch.zeros(1, 1, 3, 4)
    first[..., 0] = 1.0  # pairs are (0, 2) and (1, 3); the first turns by 1 radian a place
    turned = RotaryPositions(4)(first)[0, 0]
    place = torch.arange(3.0)
    expected = torch.stack((place.cos(), 0 * place, place.sin(), 0 * place), dim=1)
    assert torch.allclose(turned, expected, atol=ATOL)


@torch.no_grad()
def test_logits_use_the_embedding_table(model):
    assert model.lm_head.weight is model.embed_tokens.weight
    tokens = sequence(4)
    assert model.logits(tokens).shape == (1, 6, len(ALPHABET))


def test_esm1b_names_and_shapes():
    with torch.device("meta"):
        network = LanguageModel(ESM1B)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["embed_positions.weight"] == (1026, 1280)
    assert shapes["layers.32.self_attn.out_proj.bias"] == (1280,)
    assert shapes["layers.0.fc1.weight"] == (5120, 1280)
    assert shapes["lm_head.dense.weight"] == (1280, 1280)
    assert len(shapes) == 33 * 16 + 12
    # 33 layers, two embedding tables, two layer norms, the head (its weight is the table).
    expected = 33 * 19_677_440 + (33 + 1026) * 1280 + 4 * 1280 + 1_642_273
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(
    ("width", "heads", "message"), [(10, 3, "3 heads"), (6, 2, "odd width 3")]
)
def test_heads_must_divide_the_width(width, heads, message):
    with pytest.raises(ValueError, match=message):
        LanguageConfig(layers=1, width=width, heads=heads)
