"""The graph network against recorded arrays of the reference, layer by layer."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from angelo_export.networks.blocks import rotations_from_backbone, to_global, to_local
from angelo_export.networks.density_samplers import cube_points, rectangle_points, sample_grid
from angelo_export.networks.gnn import GraphConfig, GraphNetwork

GOLDEN = Path(__file__).parent / "golden"
CASES = ("seq_protein", "seq_protein_nucleotide", "noseq_protein")
#: Largest difference accepted, relative to the largest magnitude of the recorded array. Worst
#: seen: 4.3e-5, in residue-type logits of the density, whose sampling points round differently.
TOLERANCE = 1e-4


class Recorded:
    """One golden file: its network with the recorded parameters, and its arrays."""

    def __init__(self, case: str) -> None:
        with np.load(GOLDEN / f"gnn_tiny_{case}.npz") as file:
            self.arrays = {
                name: torch.from_numpy(file[name]) for name in file if name != "config"
            }
            sizes = json.loads(str(file["config"]))
        self.config = GraphConfig(
            sequence=sizes["in_features"] if case != "noseq_protein" else None,
            hidden=sizes["hidden_features"],
            layers=sizes["num_layers"],
            heads=sizes["attention_heads"],
            points=sizes["query_points"],
            neighbours=sizes["num_neighbours"],
            rectangle_length=sizes["q_length"],
            cube_side=sizes["p_context"],
            density=sizes["cryo_emb_dim"],
        )
        self.network = GraphNetwork(self.config).eval()
        prefix = "param/"
        state = {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }
        self.network.load_state_dict(state, strict=True)
        self.is_protein = self.arrays["prot_mask"]

    def step(self, iteration: int, layer: int) -> dict[str, torch.Tensor]:
        """What was recorded of one layer."""
        prefix = f"out/iter{iteration}/layer{layer}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def geometry(self, step: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Rotations, positions, neighbours; voxels are 1 Å and the origin is 0."""
        return step["affines_in"][..., :3], step["affines_in"][..., 3], step["neighbours"]

    def density(self, step: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cubes and rectangles of a layer."""
        rotations, positions, neighbours = self.geometry(step)
        edges = to_local(rotations, positions, positions[neighbours])
        cubes = cube_points(rotations, positions, self.config.cube_side)
        rectangles = rectangle_points(edges, positions, self.config.rectangle_length)
        grid = self.arrays["grid"]
        return sample_grid(grid, cubes), sample_grid(grid, rectangles)


@pytest.fixture(scope="module", params=CASES)
def recorded(request):
    return Recorded(request.param)


@pytest.fixture(scope="module")
def with_sequence():
    return Recorded("seq_protein")


def assert_close(got, expected):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("iteration", [0, 1])
@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_parts_of_a_layer(recorded, iteration, layer):
    step, ipa = recorded.step(iteration, layer), recorded.network.ipa
    is_protein = recorded.is_protein
    place = recorded.geometry(step)

    seen = ipa.cryo(layer, step["x_in"], *place, *recorded.density(step), is_protein)
    assert_close(seen.features, step["x_after_cryo"])
    assert_close(seen.edge_logits, step["edge_logits"])
    assert_close(seen.aa_logits, step["aa_logits_cryo"])

    before_ipa = step["x_after_cryo"]
    if recorded.config.sequence is not None:
        keys, values = recorded.network.project_sequence(recorded.arrays["sequence_embedding"])
        scores = ipa.seq_attentions[layer].scores(before_ipa, keys[layer]).permute(1, 2, 0)
        assert_close(scores[is_protein], step["sequence_scores"][is_protein])
        x, aa_logits = ipa.attend_sequence(
            layer, before_ipa, keys[layer], values[layer], is_protein
        )
        assert_close(x, step["x_after_seq"])
        assert_close(aa_logits, step["aa_logits_seq"])
        before_ipa = step["x_after_seq"]

    assert_close(ipa.look_around(layer, before_ipa, *place, is_protein), step["x_after_ipa"])
    assert_close(ipa.transition_layer(step["x_after_ipa"]), step["x_out"])


@pytest.mark.parametrize("layer", [0, 1])
@torch.no_grad()
def test_whole_layer(recorded, layer):
    step, network = recorded.step(0, layer), recorded.network
    rotations, positions, neighbours = recorded.geometry(step)
    pair = ()
    if recorded.config.sequence is not None:
        pair = [
            of_layers[layer]
            for of_layers in network.project_sequence(recorded.arrays["sequence_embedding"])
        ]
    # Moved as the runtime moves it: centred. Features depend on relative places alone.
    output = network.layer(
        layer,
        step["x_in"],
        rotations,
        positions - positions.mean(dim=0),
        neighbours,
        *recorded.density(step),
        *pair,
        is_protein=recorded.is_protein,
    )
    assert_close(output.features, step["x_out"])
    assert_close(output.predicted_error, step["confidence"][:, 0])
    assert_close(output.existence, step["existence"][:, 0])
    assert_close(output.next_logits, step["edge_logits"])
    if pair:
        n_predictions = 1 + recorded.is_protein[:, None].float()
        expected = (step["aa_logits_cryo"] + step["aa_logits_seq"]) / n_predictions
        assert_close(output.aa_logits, expected)
    ncac = to_global(rotations, positions, output.places)
    assert_close(ncac, step["ncac"])
    # From recorded atoms: those above differ by 1e-4 Å, and axes by as much.
    assert_close(rotations_from_backbone(step["ncac"]), step["affines_out"][..., :3])
    assert_close(ncac[:, 1], step["affines_out"][..., 3])


@torch.no_grad()
def test_torsions_and_start(recorded):
    last = recorded.step(1, recorded.config.layers - 1)
    expected = recorded.arrays["out/final/pred_torsions"]
    assert_close(recorded.network.torsions(last["x_out"]), expected)
    for iteration in (0, 1):
        start = recorded.network.start(recorded.is_protein)
        assert torch.equal(start, recorded.step(iteration, 0)["x_in"])


def test_cube_sampler(with_sequence):
    step = with_sequence.step(0, 0)
    rotations, positions, _ = with_sequence.geometry(step)
    points = cube_points(rotations[:4], positions[:4], 23)
    got = sample_grid(with_sequence.arrays["grid"], points).reshape(4, 1, 23, 23, 23)
    # Recorded with e3 as the first axis.
    assert_close(got.permute(0, 1, 4, 3, 2), with_sequence.arrays["cube_4nodes"])


def test_rectangle_sampler(with_sequence):
    positions = with_sequence.geometry(with_sequence.step(0, 0))[1][:5]
    points = rectangle_points(with_sequence.arrays["rect_vectors"][:, None], positions, 7)
    got = sample_grid(with_sequence.arrays["grid"], points).reshape(5, 1, 7, 3, 3)
    assert_close(got, with_sequence.arrays["rect_5nodes"])


def test_rectangle_of_an_edge_along_x_by_hand():
    """No rotation: an axis-aligned 3 x 3 x 7 box (x, y, z), z slowest, off by (1, 0, 2)."""
    points = rectangle_points(torch.tensor([[[5.0, 0, 0]]]), torch.tensor([[10.0, 20, 30]]), 7)
    box = points.reshape(7, 3, 3, 3)
    assert box[0, 0, 0].tolist() == [10, 19, 29]
    assert box[0, 0, 1].tolist() == [11, 19, 29]
    assert box[6, 2, 2].tolist() == [12, 21, 35]


def test_rectangle_against_x_is_finite():
    points = rectangle_points(torch.tensor([[[-5.0, 0, 0], [0, 0, 0]]]), torch.zeros(1, 3), 7)
    assert points.isfinite().all()


@pytest.mark.parametrize("case", ["gnn", "gnn_no_seq"])
def test_full_size_names_and_shapes(case):
    shapes = json.loads((GOLDEN / "modelangelo_state_dict_shapes.json").read_text())[case]
    with torch.device("meta"):
        network = GraphNetwork(GraphConfig(sequence=None if case == "gnn_no_seq" else 1280))
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    network.load_state_dict(state, strict=True, assign=True)


def test_networks_and_sequences_must_fit(with_sequence):
    step = with_sequence.step(0, 0)
    inputs = (step["x_in"], *with_sequence.geometry(step), *with_sequence.density(step))
    with pytest.raises(ValueError, match="sequence keys and values"):
        with_sequence.network.layer(0, *inputs)


def test_torsions_are_three_and_five_of_each_type():
    assert replace(GraphConfig(), residue_types=20).torsions == 103
    assert GraphConfig().torsions == 143
