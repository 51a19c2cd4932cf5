"""The runtime with official networks against what the reference computed, layer by layer."""

import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_bundle import CONFIG
from test_networks_gnn import GOLDEN, Recorded

from angelo.assemble import chains_to_model
from angelo.frames import apply_frames, frames_from_places, octant_rotations, random_rotations
from angelo.manifest import GnnNetwork
from angelo.neighbours import Crop, nearest_residues
from angelo.nucleotide_trace import trace_strands
from angelo.refine import GraphStack, refine_piece
from angelo.refine_crops import Tally, refine_crops
from angelo.residues import RESIDUE_TYPES, residue_table
from angelo.sampling import sample_cubes, sample_sheared_rectangles
from angelo.session import Graph, Networks
from angelo.trace import TraceSettings, trace_chains
from angelo.typed_json import read_value
from angelo.types import Assignment, BackboneFrames, Calphas, Density, Refinement
from angelo_export.modelangelo_files import OfficialFiles, read_schedule
from angelo_export.modelangelo_graphs import calpha_piece, graph_pieces
from angelo_export.modelangelo_manifest import gnn_section
from angelo_export.modelangelo_networks import calpha_network, graph_network
from angelo_export.networks.density_samplers import rectangle_points, sample_grid

CASES = ("seq_protein_nucleotide", "noseq_protein")
#: Largest difference accepted, relative to the largest magnitude of the recorded array.
TOLERANCE = 1e-4


def density_of(recorded) -> Density:
    """The recorded grid: voxels of 1 Å, origin 0."""
    return Density(recorded.arrays["grid"].numpy(), np.ones(3, np.float32), np.zeros(3, "f4"))


def frames_of(affine: torch.Tensor) -> BackboneFrames:
    array = affine.numpy()
    return BackboneFrames(array[..., :3].copy(), array[..., 3].copy())


def assert_close(got, expected, tolerance=TOLERANCE):
    expected = np.asarray(expected)
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory):
    """Recorded arrays; graphs of the recorded network; the settings they are run with."""
    folder = tmp_path_factory.mktemp(request.param)
    recorded = Recorded(request.param)
    state = recorded.network.state_dict()
    network = graph_network(folder, state, recorded.config.cube_side)
    assert network.config == recorded.config  # read off the shapes
    for piece in graph_pieces(network):
        piece.write(piece.trace(), folder)
    files = OfficialFiles("tiny", folder, folder, CONFIG, 23, {})
    section = gnn_section(read_schedule(files), network.config)
    gnn = read_value(GnnNetwork, section | {"crop": None, "iterations": 1}, "gnn")
    with Networks(folder, threads=1) as networks:
        sequence = ({},) * recorded.config.layers
        if recorded.config.sequence is not None:
            embedding = recorded.arrays["sequence_embedding"].numpy()
            pairs = networks.open("seq_kv.onnx")(embedding=embedding)
            sequence = tuple(
                {"sequence_keys": keys, "sequence_values": values}
                for keys, values in zip(pairs["keys"], pairs["values"], strict=True)
            )
        stack = GraphStack(density_of(recorded), gnn, networks, sequence)
        yield SimpleNamespace(recorded=recorded, stack=stack)


@pytest.mark.parametrize("iteration", [0, 1])
@pytest.mark.parametrize("layer", [0, 1])
def test_layers_with_recorded_inputs(made, iteration, layer):
    recorded, stack = made.recorded, made.stack
    step = recorded.step(iteration, layer)
    frames, neighbours = frames_of(step["affines_in"]), step["neighbours"].numpy()
    assert_close(nearest_residues(frames.ca, neighbours.shape[1]), neighbours, 0)
    box = stack.gnn.rectangle
    output = stack.networks.open(stack.gnn.layers[layer])(
        features=step["x_in"].numpy(),
        rotations=frames.rotation,
        positions=frames.ca - frames.ca.mean(axis=0),
        neighbours=neighbours,
        cubes=sample_cubes(stack.density, frames, stack.gnn.cube.side, 1.0),
        rectangles=sample_sheared_rectangles(
            stack.density, frames, neighbours, box.length, box.side, 1.0
        ),
        is_protein=recorded.is_protein.numpy(),
        **stack.sequence[layer],
    )
    assert_close(output["features_out"], step["x_out"])
    assert_close(apply_frames(frames, output["shifts"]), step["ncac"])
    after = frames_from_places(frames, output["shifts"])
    assert_close(after.ca, step["affines_out"][..., 3])
    # Axes turn by what the atoms, which are compared above, move over a bond's length.
    assert_close(after.rotation, step["affines_out"][..., :3], 5e-4)
    if layer < recorded.config.layers - 1:
        assert set(output) == {"features_out", "shifts"}
        return
    assert_close(output["predicted_error"], step["confidence"][:, 0])
    assert_close(output["existence"], step["existence"][:, 0])
    assert not output["next_logits"].any()
    if recorded.config.sequence is not None:
        n_predictions = 1 + recorded.is_protein[:, None].float()
        both = (step["aa_logits_cryo"] + step["aa_logits_seq"]) / n_predictions
        assert_close(output["aa_logits"], both)
    if iteration == 1:
        torsions = stack.networks.open("heads.onnx")(features=output["features_out"])
        assert_close(torsions["torsions"], recorded.arrays["out/final/pred_torsions"])


def test_a_free_iteration_ends_where_the_reference_does(made):
    """A difference of 1e-6 Å at the start grows to 7e-4 Å in an iteration of such networks."""
    recorded, stack = made.recorded, made.stack
    start = frames_of(recorded.step(0, 0)["affines_in"])
    n = len(start)
    kinds = recorded.is_protein.numpy()
    calphas = Calphas(start.ca, np.ones(n, np.float32), is_protein=kinds)
    found = refine_piece(stack, calphas, start)
    last = recorded.step(0, recorded.config.layers - 1)["affines_out"]
    moved = np.linalg.norm(found.frames.ca - start.ca, axis=1)
    assert np.median(moved) > 0.1
    off = np.linalg.norm(found.frames.ca - last[..., 3].numpy(), axis=1)
    assert off.max() < 0.01


def test_recorded_nucleotides_go_on_to_strands_and_atoms(made):
    recorded, stack = made.recorded, made.stack
    start = frames_of(recorded.step(1, 0)["affines_in"])
    is_protein = recorded.is_protein.numpy()
    calphas = Calphas(start.ca, np.ones(len(start), np.float32), is_protein=is_protein)
    found = replace(refine_piece(stack, calphas, start), is_protein=is_protein)
    settings = TraceSettings(min_next_probability=0.5, max_bond=2.6, min_existence=0.0)
    strands = trace_strands(found, RESIDUE_TYPES, settings)
    chains = trace_chains(found, settings)
    for traced, wanted in ((strands, ~is_protein), (chains, is_protein)):
        rows = np.concatenate([np.zeros(0, np.int64), *(chain.residues for chain in traced)])
        np.testing.assert_array_equal(np.sort(rows), np.flatnonzero(wanted))
    unplaced = [Assignment(c, -1, np.full(len(c), -1), 0.0, np.inf) for c in strands]
    model = chains_to_model(unplaced, found, (), RESIDUE_TYPES, pruned=False)
    for chain, strand in zip(model.chains, strands, strict=True):
        assert chain.kind in ("dna", "rna")
        p = residue_table()[chain.residue_types[0]].index("P")
        np.testing.assert_array_equal(
            chain.atom_positions[:, p], found.frames.ca[strand.residues]
        )


def test_places_are_displaced_ideal_places(made):
    step = made.recorded.step(0, 0)
    frames = frames_of(step["affines_in"])
    places = np.float32([[[-0.5, 1.4, 0.0], [0, 0, 0], [1.5, 0, 0]]]).repeat(len(frames), 0)
    kept = frames_from_places(frames, places)
    np.testing.assert_allclose(kept.rotation, frames.rotation, atol=2e-6)
    np.testing.assert_array_equal(kept.ca, frames.ca)


def test_axes_by_gram_schmidt_from_the_other_side():
    """On (C, CA, N), with e1 and e3 mirrored: the reference's way to the same axes."""
    rng = np.random.default_rng(2)
    places = rng.normal(size=(20, 3, 3)).astype(np.float32)
    frames = BackboneFrames(random_rotations(20, rng), np.zeros((20, 3), np.float32))
    n, ca, c = np.moveaxis(apply_frames(frames, places), 1, 0).astype(np.float64)
    e1 = (ca - c) / np.linalg.norm(ca - c, axis=1, keepdims=True)
    e2 = n - ca - ((n - ca) * e1).sum(1, keepdims=True) * e1
    e2 /= np.linalg.norm(e2, axis=1, keepdims=True)
    mirrored = np.stack([-e1, e2, -np.cross(e1, e2)], axis=-1)
    np.testing.assert_allclose(frames_from_places(frames, places).rotation, mirrored, atol=1e-5)


def test_random_frames_lie_in_the_positive_octant():
    rotation = octant_rotations(500, np.random.default_rng(0))
    assert (rotation[:, :, 0] >= 0).all()
    assert (rotation[:, :, 1] < 0).any()
    np.testing.assert_allclose(
        rotation.swapaxes(1, 2) @ rotation, np.eye(3)[None].repeat(500, 0), atol=2e-6
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=2e-6)


class ParallelFirst:
    """Draws two parallel vectors for the first residue, once."""

    def __init__(self) -> None:
        self.drawn, self.rng = [], np.random.default_rng(1)

    def random(self, shape):
        pairs = self.rng.random(shape)
        if not self.drawn:
            pairs[:, 0] = [[0.2, 0.4, 0.6], [0.1, 0.2, 0.3]]
        self.drawn.append(shape)
        return pairs


def test_parallel_vectors_are_drawn_again():
    # Not through jaxtyping's check of the generator's type.
    draw, rng = octant_rotations.__wrapped__, ParallelFirst()
    assert np.isfinite(draw(4, rng)).all()
    assert rng.drawn == [(2, 4, 3), (2, 1, 3)]


def test_recorded_rectangles():
    recorded = Recorded("seq_protein")
    positions = recorded.step(0, 0)["affines_in"][:5, :, 3].numpy()
    ends = positions + recorded.arrays["rect_vectors"].numpy()
    upright = np.eye(3, dtype=np.float32)[None].repeat(10, 0)
    frames = BackboneFrames(upright, np.concatenate([positions, ends]))
    neighbours = (np.arange(10)[:, None] + 5) % 10
    boxes = sample_sheared_rectangles(density_of(recorded), frames, neighbours, 7, 3, 1.0)
    assert_close(boxes[:5].reshape(5, 1, 7, 3, 3), recorded.arrays["rect_5nodes"])


def test_recorded_cubes():
    recorded = Recorded("seq_protein")
    frames = frames_of(recorded.step(0, 0)["affines_in"][:4])
    cubes = sample_cubes(density_of(recorded), frames, 23, 1.0).reshape(4, 1, 23, 23, 23)
    # Recorded with e3 as the first axis.
    assert_close(cubes.transpose(0, 1, 4, 3, 2), recorded.arrays["cube_4nodes"])


@pytest.mark.parametrize("seed", range(3))
def test_rectangles_are_those_of_torch(seed):
    rng = np.random.default_rng(seed)
    frames = BackboneFrames(
        random_rotations(9, rng), rng.uniform(10, 20, (9, 3)).astype(np.float32)
    )
    values = rng.normal(size=(30, 31, 32)).astype(np.float32)
    origin = np.float32([3, -2, 5])
    density = Density(values, np.full(3, 0.8, np.float32), origin)
    neighbours = nearest_residues(frames.ca, 10)  # the last two columns are padding
    got = sample_sheared_rectangles(density, frames, neighbours, 7, 3, 0.8)
    positions, rotations = torch.from_numpy(frames.ca), torch.from_numpy(frames.rotation)
    edges = (positions[torch.from_numpy(neighbours)] - positions[:, None]) @ rotations
    points = rectangle_points(edges, (positions - torch.from_numpy(origin)) / 0.8, 7)
    assert_close(got, sample_grid(torch.from_numpy(values), points))


def test_rectangles_of_edges_without_direction_and_against_x_are_finite():
    upright = np.eye(3, dtype=np.float32)[None].repeat(2, 0)
    frames = BackboneFrames(upright, np.float32([[9, 9, 9], [4, 9, 9]]))
    density = Density(np.ones((20, 20, 20), "f4"), np.ones(3, "f4"), np.zeros(3, "f4"))
    boxes = sample_sheared_rectangles(density, frames, np.array([[1, 0], [0, 1]]), 7, 3, 1.0)
    assert np.isfinite(boxes).all()


def test_calpha_graph_gives_recorded_logits(tmp_path):
    with np.load(GOLDEN / "c_alpha_tiny.npz") as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config"}
    state = {k.removeprefix("param/"): v for k, v in arrays.items() if k.startswith("param/")}
    piece = calpha_piece(calpha_network(tmp_path, state), 32)
    path = piece.write(piece.trace(), tmp_path)
    logits = Graph(path, threads=1)(windows=arrays["x"].numpy())["logits"]
    assert_close(logits, arrays["y"])


def refined(residues, i) -> Refinement:
    """Made-up results that tell crops and residues apart."""
    n, rng = len(residues), np.random.default_rng(i)
    ca = np.float32([[r, i, 0] for r in residues])
    return Refinement(
        frames=BackboneFrames(random_rotations(n, rng), ca),
        aa_logits=rng.normal(size=(n, 20)).astype(np.float32),
        torsions=rng.normal(size=(n, 103, 2)).astype(np.float32),
        predicted_error=rng.random(n).astype(np.float32),
        existence=rng.random(n).astype(np.float32),
        neighbours=np.zeros((n, 1), np.int64),
        next_probability=rng.random((n, 1)).astype(np.float32),
    )


PLAN = tuple(Crop((np.arange(4) + shift) % 6, 3) for shift in range(6))


def test_crops_at_the_same_time_give_what_crops_in_turn_give():
    both = threading.Barrier(2, timeout=60)  # breaks unless two run at the same time

    def run(residues, i):
        both.wait()
        return refined(residues, i)

    in_turn, at_once = refine_crops(PLAN, 6, refined), refine_crops(PLAN, 6, run, at_once=2)
    for name in ("aa_logits", "torsions", "predicted_error", "existence", "next_probability"):
        np.testing.assert_array_equal(getattr(in_turn, name), getattr(at_once, name))
    np.testing.assert_array_equal(in_turn.frames.ca, at_once.frames.ca)
    np.testing.assert_array_equal(in_turn.frames.rotation, at_once.frames.rotation)


def test_an_error_in_a_crop_ends_the_others():
    begun = []

    def run(residues, i):
        begun.append(i)
        if i:
            time.sleep(0.05)
            return refined(residues, i)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        refine_crops(PLAN * 100, 6, run, at_once=2)
    assert len(begun) < len(PLAN * 100)


def test_steps_of_crops_are_counted_together():
    told = []
    tally = Tally(lambda *what: told.append(what), 2)
    for done in (1, 1, 2, 2, 3, 3):  # two crops of three steps, side by side
        tally(done, 3)
    assert told == [(step, 6) for step in range(1, 7)]
