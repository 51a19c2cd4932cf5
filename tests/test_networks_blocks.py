"""Parts of the graph network: known values, invariances, empty sequences."""

import pytest
import torch

from angelo_export.networks.blocks import (
    BackboneUpdate,
    Head,
    ResidualBlock,
    ScalarHead,
    SequenceAttention,
    SinusoidalEncoding,
    SpatialIPA,
    TorsionHead,
    Transition,
    gather_values,
    rotations_from_backbone,
    to_global,
    to_local,
)

HIDDEN, HEADS, POINTS, VALUES, R, K, L = 12, 3, 4, 5, 9, 6, 7
# Worst seen over 1000 seeds: 9e-6, of coordinates that went to the map's frame and back.
ATOL = 3e-5


@pytest.fixture(params=range(3), autouse=True)
def seed(request):
    with torch.random.fork_rng():
        torch.manual_seed(request.param)
        yield


def random_rotations(n: int) -> torch.Tensor:
    return rotations_from_backbone(torch.randn(n, 3, 3))


def attention(**options) -> SequenceAttention:
    return SequenceAttention(HIDDEN, 11, HEADS, 8, **options).eval()


def test_encoding_of_a_distance_by_hand():
    encoding = SinusoidalEncoding(channels=4, longest=100.0)
    encoded = encoding(torch.tensor([3.0]))
    expected = torch.tensor([3.0, 0.3])  # frequencies 1 and 1/10
    assert torch.allclose(encoded, torch.cat((expected.sin(), expected.cos()))[None])


def test_encoding_needs_pairs():
    with pytest.raises(ValueError, match="5 channels"):
        SinusoidalEncoding(channels=5)


def test_residual_block_adds_its_input_only_where_widths_agree():
    equal, wider = ResidualBlock(3, 3), ResidualBlock(3, 4)
    for block in (equal, wider):
        torch.nn.init.zeros_(block.net[0].weight)
    x = torch.tensor([[4.0, -1.0, 2.0]])
    relu = torch.tensor([[4.0, 0.0, 2.0]])
    expected = (relu - 2) / (8 / 3 + 1e-5) ** 0.5
    assert torch.allclose(equal(x), expected)
    assert torch.equal(wider(x), torch.zeros(1, 4))


def test_rows_do_not_see_each_other():
    x = torch.randn(R, HIDDEN)
    for part in (
        Transition(HIDDEN),
        Head(HIDDEN, 8, 5),
        ScalarHead(HIDDEN),
        TorsionHead(HIDDEN, 6),
    ):
        assert torch.allclose(part(x)[3:4], part(x[3:4]), atol=ATOL)


def test_shapes_of_heads():
    x = torch.randn(R, HIDDEN)
    assert ScalarHead(HIDDEN)(x).shape == (R,)
    assert TorsionHead(HIDDEN, 6)(x).shape == (R, 6, 2)


def test_backbone_starts_where_it_is_told():
    start = ((-0.5, 1.4, 0), (0, 0, 0), (1.5, 0, 0))
    update = BackboneUpdate(HIDDEN, start, start_deviation=0.0)
    places = update(torch.randn(R, HIDDEN))
    assert torch.equal(places, torch.tensor(start).expand(R, 3, 3))


def test_sequence_attention_is_a_softmax_over_residues():
    part = attention()
    features, embedding = torch.randn(R, HIDDEN), torch.randn(L, 11)
    keys, values = part.project_sequence(embedding)
    got = part.attend(features, keys, values)
    gathered = torch.empty(R, HEADS, 8)
    for head in range(HEADS):
        queries = part.q(features)[:, 8 * head : 8 * head + 8]
        weights = torch.softmax(queries @ keys[:, head].T / 8**0.5, dim=1)
        gathered[:, head] = weights @ values[:, head]
    assert torch.allclose(got, part.ag(gathered.flatten(1)), atol=ATOL)
    assert torch.allclose(part(features, keys, values), part.combine(features, got))


def test_order_of_a_sequence_does_not_matter():
    part, order = attention(null_key=True), torch.randperm(L)
    features, embedding = torch.randn(R, HIDDEN), torch.randn(L, 11)
    straight = part(features, *part.project_sequence(embedding))
    shuffled = part(features, *part.project_sequence(embedding[order]))
    assert torch.allclose(straight, shuffled, atol=ATOL)


def test_empty_sequence_gives_the_null_place():
    part = attention(null_key=True)
    torch.nn.init.normal_(part.null_value)
    features = torch.randn(R, HIDDEN)
    told = part.attend(features, *part.project_sequence(torch.empty(0, 11)))
    assert torch.allclose(
        told, part.ag(part.null_value.reshape(1, -1)).expand(R, -1), atol=ATOL
    )


def test_null_place_competes_with_residues():
    part = attention(null_key=True)
    features, pair = torch.randn(R, HIDDEN), part.project_sequence(torch.randn(L, 11))
    before = part(features, *pair)
    torch.nn.init.normal_(part.null_value)
    assert (part(features, *pair) - before).abs().max() > 1e-3


def spatial_inputs() -> tuple[torch.Tensor, ...]:
    positions = 2 * torch.randn(R, 3)
    neighbours = torch.cdist(positions, positions).argsort(dim=1)[:, 1 : K + 1]
    return (
        torch.randn(R, HIDDEN),
        torch.randn(R, 15),
        random_rotations(R),
        positions,
        neighbours,
    )


def spatial_ipa() -> SpatialIPA:
    return SpatialIPA(HIDDEN, 15, HEADS, POINTS, VALUES).eval()


def test_spatial_attention_does_not_see_how_the_molecule_lies():
    """In float64, for in float32 a move of 30 Å costs up to 1.4e-4 (over 1000 seeds)."""
    part = spatial_ipa().double()
    *floats, neighbours = spatial_inputs()
    features, inputs, _, positions = (array.double() for array in floats)
    turn, move = rotations_from_backbone(torch.randn(1, 3, 3).double())[0], 30 * torch.randn(3)
    rotations = rotations_from_backbone(torch.randn(R, 3, 3).double())
    here = part(features, inputs, rotations, positions, neighbours)
    there = part(features, inputs, turn @ rotations, positions @ turn.T + move, neighbours)
    assert torch.allclose(here, there, atol=1e-10)


def test_spatial_attention_sees_a_residue_turn():
    part = spatial_ipa()
    features, inputs, rotations, positions, neighbours = spatial_inputs()
    here = part(features, inputs, rotations, positions, neighbours)
    turned = rotations.clone()
    turned[0] = turned[0] @ random_rotations(1)[0]
    there = part(features, inputs, turned, positions, neighbours)
    assert (here - there)[0].abs().max() > 1e-3
    assert torch.allclose(here[1:], there[1:])


def test_spatial_attention_by_its_definition():
    """Weights from global query points, as the method states it."""
    part = spatial_ipa()
    _, inputs, rotations, positions, neighbours = spatial_inputs()
    queries = part.loc_q(inputs).reshape(R, HEADS * POINTS, 3)
    points = to_global(rotations, positions, queries).reshape(R, 1, HEADS, POINTS, 3)
    offsets = points - positions[neighbours][:, :, None, None]
    expected = torch.softmax(-offsets.norm(dim=-1).sum(dim=-1), dim=1)
    assert torch.allclose(
        part.weights(inputs, rotations, positions, neighbours), expected, atol=ATOL
    )


def test_neighbour_order_does_not_matter_to_spatial_attention():
    part, order = spatial_ipa(), torch.randperm(K)
    *inputs, neighbours = spatial_inputs()
    assert torch.allclose(
        part(*inputs, neighbours), part(*inputs, neighbours[:, order]), atol=ATOL
    )


def test_values_summed_before_projecting_are_the_same():
    weights = torch.softmax(torch.randn(R, K, HEADS), dim=1)
    inputs, projection = torch.randn(R, 15), torch.randn(HEADS * 4, 15)
    neighbours = torch.randint(R, (R, K))
    values = (inputs @ projection.T).reshape(R, HEADS, 4)[neighbours]
    expected = (weights[..., None] * values).sum(dim=1).flatten(1)
    assert torch.allclose(
        gather_values(weights, inputs, neighbours, projection), expected, atol=ATOL
    )


def test_local_and_global_undo_each_other():
    rotations, positions, points = random_rotations(R), torch.randn(R, 3), torch.randn(R, 4, 3)
    there = to_global(rotations, positions, points)
    assert torch.allclose(there[2, 1], rotations[2] @ points[2, 1] + positions[2], atol=ATOL)
    assert torch.allclose(to_local(rotations, positions, there), points, atol=ATOL)


def test_axes_of_a_residue_in_the_xy_plane():
    ncac = torch.tensor([[[1.0, 1, 0], [1, 0, 0], [3, 0, 0]]])
    assert torch.equal(rotations_from_backbone(ncac)[0], torch.eye(3))


def test_axes_are_proper_rotations():
    rotations = random_rotations(R)
    assert torch.allclose(rotations.mT @ rotations, torch.eye(3).expand(R, 3, 3), atol=ATOL)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(R), atol=ATOL)
