"""Refinement with networks whose behaviour is known: see tiny_bundle."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_bundle import write_tiny_bundle

import angelo.refine as refine_module
from angelo.bundle import load_bundle
from angelo.errors import NothingBuiltError
from angelo.frames import random_rotations
from angelo.neighbours import Crop, nearest_residues
from angelo.refine import refine, sigmoid, surviving_residues, take_residues
from angelo.refine_crops import refine_crops, unit_torsions
from angelo.session import Networks
from angelo.types import BackboneFrames, Calphas, Density, Refinement


def chain_positions(n, start=(8, 8, 8)):
    """C-alphas about 3.8 Å apart along x, in rows of 8 that are 6 Å apart."""
    i = np.arange(n)
    regular = np.stack([i % 8 * 3.8, i // 8 * 6.0, 0 * i], axis=1) + start
    # No two distances equal: rounding would decide who is nearer.
    return (regular + np.random.default_rng(n).normal(scale=0.05, size=(n, 3))).astype(
        np.float32
    )


def blobs(positions, shape_zyx=(20, 48, 44), origin=(0, 0, 0)):
    """Gaussian blobs of height 1 and width 1 Å on a 1 Å grid."""
    z, y, x = np.indices(shape_zyx, np.float32)
    values = np.zeros(shape_zyx, np.float32)
    for p in positions - np.float32(origin):
        values += np.exp(-((x - p[0]) ** 2 + (y - p[1]) ** 2 + (z - p[2]) ** 2) / 2)
    return Density(values, np.ones(3, np.float32), np.float32(origin))


def calphas_at(positions, seed=0):
    rng = np.random.default_rng(seed)
    n = len(positions)
    return Calphas(
        positions,
        rng.uniform(0.5, 1, n).astype(np.float32),
        np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3)).copy(),
        rng.normal(size=(n, 20)).astype(np.float32),
    )


def run(folder, density, calphas, embedding=None, seed=0, progress=None):
    bundle = load_bundle(folder)
    with Networks(bundle.folder, threads=1) as networks:
        rng = np.random.default_rng(seed)
        return refine(density, calphas, bundle, networks, embedding, rng, progress)


def assert_same(one, other, atol=0.0, skip=()):
    for name in ("aa_logits", "torsions", "predicted_error", "existence", "next_probability"):
        if name not in skip:
            np.testing.assert_allclose(
                getattr(one, name), getattr(other, name), atol=atol, rtol=0, err_msg=name
            )
    np.testing.assert_array_equal(one.neighbours, other.neighbours)
    np.testing.assert_allclose(one.frames.rotation, other.frames.rotation, atol=1e-6 + atol)
    np.testing.assert_allclose(one.frames.ca, other.frames.ca, atol=atol)


@pytest.fixture
def positions():
    return chain_positions(24)


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_bundle(tmp_path / "tiny")


@pytest.mark.parametrize("changes", [{}, {"rounds": 3}, {"iterations": 2, "rounds": 2}])
def test_no_shift_no_movement(tmp_path, positions, changes):
    folder = write_tiny_bundle(tmp_path, gnn=changes)
    rotation = random_rotations(24, np.random.default_rng(1))
    start = Calphas(positions, np.ones(24, np.float32), rotation, np.ones((24, 20), np.float32))
    end = run(folder, blobs(positions), start)
    np.testing.assert_array_equal(end.frames.ca, positions)
    np.testing.assert_allclose(end.frames.rotation, rotation, atol=2e-6)


def test_known_outputs_of_the_tiny_networks(tiny, positions):
    calphas = calphas_at(positions)
    end = run(tiny, blobs(positions), calphas)
    # Without sequence the amino-acid logits are those that came in.
    np.testing.assert_allclose(end.aa_logits, calphas.aa_logits, atol=1e-5)
    # Density is about 1 at every blob (grid and neighbours move it a little): 4 * 1 - 2 = 2.
    np.testing.assert_allclose(end.existence, 24 * [1 / (1 + np.e**-2)], atol=0.12)
    # The next residue of all but the last of a row is the one at +3.8 Å along x.
    for i in range(24):
        best = end.neighbours[i, end.next_probability[i].argmax()]
        if i % 8 != 7:
            assert best == i + 1 and end.next_probability[i].max() > 0.99
        else:
            assert end.next_probability[i].max() < 0.5
    assert end.torsions.shape == (24, 103, 2)


@pytest.mark.parametrize("start_frames", ["predicted", "random"])
def test_two_runs_are_identical(tmp_path, positions, start_frames):
    folder = write_tiny_bundle(tmp_path, gnn={"start_frames": start_frames, "rounds": 2})
    embedding = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    args = (folder, blobs(positions), calphas_at(positions), embedding)
    assert_same(run(*args), run(*args))
    if start_frames == "random":
        assert not np.allclose(run(*args).frames.rotation, run(*args, seed=1).frames.rotation)


def test_a_round_goes_on_from_what_the_one_before_said(tmp_path, positions):
    once, twice = (
        write_tiny_bundle(tmp_path / str(rounds), gnn={"rounds": rounds}) for rounds in (1, 2)
    )
    embedding = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    density, start = blobs(positions), calphas_at(positions)
    first = run(once, density, start, embedding)
    assert len(first) == len(start)
    said = Calphas(first.frames.ca, first.existence, first.frames.rotation, first.aa_logits)
    assert np.abs(first.aa_logits - start.aa_logits).max() > 0.01
    assert_same(run(once, density, said, embedding), run(twice, density, start, embedding))


def test_map_and_residues_moved_together(tiny, positions):
    shift = np.float32([100, -40, 12])
    here = run(tiny, blobs(positions), calphas_at(positions))
    there = run(tiny, blobs(positions + shift, origin=shift), calphas_at(positions + shift))
    np.testing.assert_allclose(there.frames.ca, here.frames.ca + shift, atol=2e-5)
    back = BackboneFrames(there.frames.rotation, here.frames.ca)
    moved_back = Refinement(back, *(getattr(there, n) for n in list(FIELDS)))
    # 2e-5 Å of rounding at 100 Å, times slopes of up to 8 a Å.
    assert_same(moved_back, here, atol=2e-4)


FIELDS = (
    "aa_logits",
    "torsions",
    "predicted_error",
    "existence",
    "neighbours",
    "next_probability",
)


def test_predicted_errors_are_calibrated_at_the_end_and_change_nothing_else(
    tmp_path, positions
):
    curve = {"predicted": [0.0, 100.0], "expected": [1.0, 2.0]}
    changes = {"rounds": 2}
    plain = write_tiny_bundle(tmp_path / "plain", gnn=changes)
    with_curve = write_tiny_bundle(
        tmp_path / "with", gnn=changes | {"error_calibration": curve}
    )
    inputs = blobs(positions), calphas_at(positions)
    one, other = run(plain, *inputs), run(with_curve, *inputs)
    assert_same(one, other, skip=("predicted_error",))
    expected = 1 + np.clip(one.predicted_error, 0, 100) / 100
    np.testing.assert_allclose(other.predicted_error, expected, rtol=1e-6)
    assert np.ptp(one.predicted_error) > 0 or one.predicted_error[0] != expected[0]


def test_sequence_changes_amino_acids_and_nothing_else(tiny, positions):
    embedding = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    args = (tiny, blobs(positions), calphas_at(positions))
    without, with_sequence = run(*args), run(*args, embedding)
    assert np.abs(with_sequence.aa_logits - without.aa_logits).max() > 0.01
    assert_same(with_sequence, without, skip=("aa_logits",))


def test_sequence_reaches_its_layer(tmp_path, positions):
    """Keys and values of layer 1, the last, decide; those of layer 0 are overwritten."""
    folder = write_tiny_bundle(tmp_path)
    embedding = np.random.default_rng(3).normal(size=(9, 6)).astype(np.float32)
    calphas = calphas_at(positions)
    end = run(folder, blobs(positions), calphas, embedding)

    def constants(name):
        model = onnx.load(folder / name)
        return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}

    kv, layer = constants("seq_kv.onnx"), constants("layer_01.onnx")
    keys = (embedding @ kv["w_keys"][1]).reshape(9, 2, 4)
    values = (embedding @ kv["w_values"][1]).reshape(9, 2, 4)
    features = np.pad(
        np.concatenate([calphas.aa_logits, calphas.probability[:, None]], axis=1),
        ((0, 0), (0, 3)),
    )
    score = np.einsum("rf,hfc,lhc->rhl", features, layer["w_query"], keys)
    weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    read = np.einsum("rhl,lhc->rhc", weight, values).reshape(24, 8)
    expected = calphas.aa_logits + read @ layer["w_seq"]
    np.testing.assert_allclose(end.aa_logits, expected, atol=1e-5)


def test_network_without_sequence(tmp_path, positions):
    folder = write_tiny_bundle(tmp_path, language=None)
    calphas = calphas_at(positions)
    end = run(folder, blobs(positions), calphas)
    np.testing.assert_allclose(end.aa_logits, calphas.aa_logits, atol=1e-5)
    with pytest.raises(ValueError, match="takes none"):
        run(folder, blobs(positions), calphas, np.ones((3, 6), np.float32))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_residues_than_neighbours(tiny, n):
    positions = chain_positions(n)
    end = run(tiny, blobs(positions), calphas_at(positions))
    assert len(end) == n and end.neighbours.shape == (n, 6)
    own = np.arange(n)[:, None]
    assert ((end.neighbours == own).sum(axis=1) == 7 - n).all()
    assert (end.next_probability[end.neighbours == own] == 0).all()


def test_nothing_to_refine(tiny, positions):
    with pytest.raises(NothingBuiltError, match="no C-alpha"):
        run(tiny, blobs(positions), calphas_at(positions[:0]))


def test_all_rejected(tiny, positions):
    empty = blobs(positions)
    below = Density(empty.values_zyx * 0 - 5, empty.voxel_size, empty.origin)
    with pytest.raises(NothingBuiltError, match="round 1 rejected all 24"):
        run(tiny, below, calphas_at(positions))


def test_unlikely_and_collapsed_residues_go(tiny, positions):
    density = blobs(positions)
    deep = density.values_zyx.copy()
    x, y, z = np.round(positions[10]).astype(int)
    deep[z - 2 : z + 3, y - 2 : y + 3, x - 1 : x + 2] = -3
    density = Density(deep, density.voxel_size, density.origin)
    twin = positions[3] + np.float32([0.0, 0.9, 0.0])  # off the blob: less likely than its twin
    calphas = calphas_at(np.concatenate([positions, twin[None]]))
    end = run(tiny, density, calphas)
    kept = np.delete(np.arange(25), [10, 24])
    np.testing.assert_array_equal(end.frames.ca, calphas.positions[kept])
    np.testing.assert_allclose(end.aa_logits, calphas.aa_logits[kept], atol=1e-5)
    assert end.neighbours.max() < 23
    own = np.arange(23)[:, None]
    assert (end.next_probability[end.neighbours == own] == 0).all()


def made_up(ca, existence):
    n = len(ca)
    rng = np.random.default_rng(0)
    ca = np.asarray(ca, np.float32)
    return Refinement(
        frames=BackboneFrames(random_rotations(n, rng), ca),
        aa_logits=rng.normal(size=(n, 20)).astype(np.float32),
        torsions=rng.normal(size=(n, 103, 2)).astype(np.float32),
        predicted_error=rng.uniform(size=n).astype(np.float32),
        existence=np.asarray(existence, np.float32),
        neighbours=nearest_residues(ca, 3),
        next_probability=rng.uniform(size=(n, 3)).astype(np.float32),
    )


@pytest.mark.parametrize(
    ("x", "existence", "kept"),
    [
        ([0, 1, 9], [0.5, 0.9, 0.05], [1]),
        ([0, 1, 9], [0.7, 0.7, 0.3], [0, 2]),
        # 1 beats 2, so 2 must not beat 3.
        ([0, 9, 10, 11], [0.2, 0.9, 0.8, 0.7], [0, 1, 3]),
        # A residue that does not exist beats nobody.
        ([0, 1], [0.05, 0.04], []),
    ],
)
def test_survivors(x, existence, kept):
    refinement = made_up([[v, 0, 0] for v in x], existence)
    np.testing.assert_array_equal(
        surviving_residues(refinement.frames.ca, refinement.existence), kept
    )


def test_taken_residues_keep_their_links():
    refinement = made_up([[v, 0, 0] for v in (0, 4, 8, 13, 19)], [1] * 5)
    part = take_residues(refinement, np.array([0, 2, 4]))
    # Before: 0 -> 1 2 3; 2 -> 1 3 0; 4 -> 3 2 1.
    np.testing.assert_array_equal(part.neighbours, [[1, 0, 0], [0, 1, 1], [1, 2, 2]])
    old = refinement.next_probability
    np.testing.assert_array_equal(
        part.next_probability, [[old[0, 1], 0, 0], [old[2, 2], 0, 0], [old[4, 1], 0, 0]]
    )
    everything = take_residues(refinement, np.arange(5))
    assert_same(everything, refinement)


def test_crops_agree_with_the_whole_for_local_networks(tmp_path):
    positions = chain_positions(40)
    density, calphas = blobs(positions), calphas_at(positions)
    whole = run(write_tiny_bundle(tmp_path / "w"), density, calphas)
    crop = {"size": 28, "keep": 8, "repeats": 2}
    cropped = run(write_tiny_bundle(tmp_path / "c", gnn={"crop": crop}), density, calphas)
    # Torsions come out as unit vectors, and centring differs between crops.
    assert_same(cropped, whole, atol=2e-5, skip=("torsions",))
    np.testing.assert_allclose(cropped.torsions, unit_torsions(whole.torsions), atol=2e-5)


def test_crops_are_averaged_or_last_as_documented():
    plan = (Crop(np.array([0, 1, 2]), 2), Crop(np.array([2, 1, 0]), 2))
    parts = [made_up([[v, 0, 0] for v in (0, 4, 8)], [0.2] * 3)]
    parts.append(made_up([[v, 2, 0] for v in (8, 4, 0)], [0.6] * 3))
    told = []

    def play(residues, i):
        told.append((residues.tolist(), i))
        return parts[i]

    merged = refine_crops(plan, 3, play)
    assert told == [([0, 1, 2], 0), ([2, 1, 0], 1)]
    np.testing.assert_allclose(merged.frames.ca, [[0, 0, 0], [4, 1, 0], [8, 2, 0]])
    np.testing.assert_allclose(merged.existence, [0.2, 0.4, 0.6])
    np.testing.assert_array_equal(merged.frames.rotation[1], parts[1].frames.rotation[1])
    np.testing.assert_array_equal(merged.predicted_error[2], parts[1].predicted_error[0])
    np.testing.assert_array_equal(
        merged.neighbours[1], np.array([2, 1, 0])[parts[1].neighbours[1]]
    )
    with pytest.raises(ValueError, match="no crop keeps residue 2"):
        refine_crops(plan[:1], 3, play)


def test_sampling_in_parts_changes_nothing(tiny, positions, monkeypatch):
    args = (tiny, blobs(positions), calphas_at(positions))
    at_once = run(*args)
    monkeypatch.setattr(refine_module, "POINTS_AT_ONCE", 100)
    assert_same(run(*args), at_once)


@pytest.mark.parametrize("crop", [None, {"size": 10, "keep": 5, "repeats": 1}])
def test_progress_rises_to_the_end(tmp_path, positions, crop):
    folder = write_tiny_bundle(tmp_path, gnn={"rounds": 2, "iterations": 2, "crop": crop})
    told = []
    run(folder, blobs(positions), calphas_at(positions), progress=lambda *s: told.append(s))
    done, total = zip(*told, strict=True)
    assert list(done) == list(range(1, total[0] + 1)) and set(total) == {total[0]}
    if crop is None:
        assert total[0] == 2 * 2 * 2


def test_sigmoid():
    logits = np.float32([-1000, -2, 0, 2, 1000])
    expected = [0, 1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2), 1]
    np.testing.assert_allclose(sigmoid(logits), expected, atol=1e-7)
    assert sigmoid(logits).dtype == np.float32
