"""Examples of the graph network: points matched one to one, every label in its place."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from tiny_structures import clean_conditions, pack_tiny, tiny_entry

from angelo.atoms import place_selected_atoms
from angelo.frames import rotation_from_backbone
from angelo.local_strength import even_out
from angelo.residues import AMINO_ACIDS, residues_of
from angelo.types import BackboneFrames, Calphas
from angelo_export.calpha_networks import LOCAL_STRENGTH
from angelo_export.networks.compact_c_alpha import STEP, CompactCalpha, CompactCalphaConfig
from angelo_training import graph_boxes
from angelo_training.box_stream import StreamSettings, make_numbered_box
from angelo_training.boxes import make_box
from angelo_training.graph_boxes import (
    CHANNELS,
    RANDOM_FRAMES_RATE,
    GraphStreamSettings,
    label,
    make_graph_box,
    match_points,
    predict_voxels,
    residue_atoms,
    start_from_noise,
    take_points,
    voxel_predictions,
)
from angelo_training.precision import has_fast_bfloat16

SIDE = 32


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    return tiny_entry(pack_tiny(tmp_path_factory.mktemp("packed")))


@pytest.fixture(scope="module")
def box(piece):
    return make_box(piece[0], SIDE, None, np.random.default_rng(1), clean_conditions())


def calphas_at(positions):
    n = len(positions)
    return Calphas(
        positions.astype(np.float32),
        np.full(n, 0.5, np.float32),
        np.broadcast_to(np.eye(3, dtype=np.float32), (n, 3, 3)).copy(),
        np.zeros((n, 20), np.float32),
    )


def test_closest_pairs_are_matched_first():
    truth = np.array([[0.0, 0, 0], [10, 0, 0]])
    points = np.array([[1.0, 0, 0], [0.5, 0, 0], [9, 0, 0], [5, 0, 0]])
    np.testing.assert_array_equal(match_points(points, truth, 3.0), [-1, 0, 1, -1])
    assert (match_points(points, truth[:0], 3.0) == -1).all()
    assert len(match_points(points[:0], truth, 3.0)) == 0


def test_matches_are_one_to_one_and_near():
    rng = np.random.default_rng(0)
    points, truth = rng.uniform(0, 12, (60, 3)), rng.uniform(0, 12, (40, 3))
    matched = match_points(points, truth, 2.0)
    hit = matched >= 0
    assert len(np.unique(matched[hit])) == hit.sum() > 10
    assert (np.linalg.norm(points[hit] - truth[matched[hit]], axis=1) <= 2).all()


def test_atoms_of_residues_are_in_the_tables_order(piece):
    entry, names = piece
    positions, has_atom = residue_atoms(entry, names)
    np.testing.assert_array_equal(positions[:, :3], entry.backbone)
    valine = residues_of(AMINO_ACIDS)[AMINO_ACIDS.index("VAL")]
    assert AMINO_ACIDS[entry.residue_type[0]] == "VAL"
    for slot, name in enumerate(valine.atoms):
        if has_atom[0, slot]:
            row = (entry.atom_residue == 0) & (entry.atom_name == names.index(name))
            np.testing.assert_array_equal(positions[0, slot], entry.positions[row][0])
    assert has_atom[0].sum() == len(valine.atoms)


@pytest.fixture(scope="module")
def labelled(box, piece):
    """Points at the true C-alphas in random order, with one false point in the middle."""
    rng = np.random.default_rng(2)
    order = rng.permutation(len(box.backbone))
    at = box.backbone[order, 1] + rng.normal(scale=0.2, size=(len(order), 3))
    false = box.backbone[:, 1].max(0) + 5
    at = np.insert(at, 4, false, axis=0)
    return np.insert(order, 4, -1), label(box, *piece, calphas_at(at))


def test_points_get_the_truth_of_their_residue(box, labelled):
    order, example = labelled
    real = order >= 0
    np.testing.assert_array_equal(example.is_residue, real)
    np.testing.assert_array_equal(example.backbone[real], box.backbone[order[real]])
    np.testing.assert_array_equal(example.residue_type[real], box.residue_type[order[real]])
    assert not example.has_atom[~real].any()
    assert not example.has_torsion[~real].any()
    assert len(example.sequences) == 2 or len(example.sequences) == 1


def test_points_are_linked_as_the_chain_is(piece, box, labelled):
    order, example = labelled
    entry_residue = np.where(order >= 0, box.entry_residue[order], -5)
    for point, residue in enumerate(entry_residue):
        after = np.flatnonzero(entry_residue == residue + 1)
        expected = after[0] if residue >= 0 and len(after) else -1
        assert example.follows[point] == expected
    linked = example.follows >= 0
    assert linked.sum() > 5
    bond = example.backbone[linked, 2] - example.backbone[example.follows[linked], 0]
    np.testing.assert_allclose(np.linalg.norm(bond, axis=1), 1.33, atol=0.05)


def test_torsions_rebuild_the_atoms(labelled):
    order, example = labelled
    real = order >= 0
    np.testing.assert_allclose(example.atoms[real, :3], example.backbone[real], atol=1e-3)
    n, ca, c = example.backbone[real].swapaxes(0, 1)
    frames = BackboneFrames(rotation_from_backbone(n, ca, c), ca)
    placed, _ = place_selected_atoms(frames, example.torsions[real], example.residue_type[real])
    known = example.has_atom[real]
    error = np.linalg.norm(placed - example.atoms[real], axis=-1)[known]
    assert np.median(error) < 0.15  # ideal against refined geometry
    assert error.max() < 1.0


def test_points_taken_keep_their_truth_and_bonds(labelled):
    _, example = labelled
    chosen = np.flatnonzero(np.arange(len(example.is_residue)) % 5 != 2)[::-1]
    taken = take_points(example, chosen)
    np.testing.assert_array_equal(taken.calphas.positions, example.calphas.positions[chosen])
    np.testing.assert_array_equal(taken.backbone, example.backbone[chosen])
    np.testing.assert_array_equal(taken.has_atom, example.has_atom[chosen])
    bonded = taken.follows >= 0
    assert bonded.any()
    np.testing.assert_array_equal(
        chosen[taken.follows[bonded]], example.follows[chosen][bonded]
    )
    gone = ~np.isin(example.follows[chosen], chosen)
    np.testing.assert_array_equal(bonded, ~gone)


def test_noisy_starts_stay_close_and_proper(box):
    rng = np.random.default_rng(0)
    output = rng.normal(size=(30, 16, 16, 16)).astype(np.float32)
    start = start_from_noise(box, output, rng)
    gap = np.linalg.norm(start.positions[:, None] - box.backbone[None, :, 1], axis=-1).min(1)
    assert np.median(gap) < 2
    assert start.aa_logits.shape == (len(start.positions), 20)
    np.testing.assert_allclose(np.linalg.det(start.rotation), 1, atol=1e-4)


def test_a_tenth_of_the_noisy_starts_has_random_frames(box):
    output = np.zeros((30, 16, 16, 16), np.float32)
    tree = cKDTree(box.backbone[:, 1])
    true = rotation_from_backbone(*np.moveaxis(box.backbone, 1, 0))
    tilts = []
    for seed in range(300):
        start = start_from_noise(box, output, np.random.default_rng(seed))
        of = tree.query(start.positions)[1]
        cosine = (np.einsum("rij,rij->r", start.rotation, true[of]) - 1) / 2
        tilts.append(np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
    # A random turn is one by 127 degrees on average.
    share = float(np.mean(np.array(tilts) > 80))
    assert share == pytest.approx(RANDOM_FRAMES_RATE, abs=0.05)


def test_searched_voxels_are_those_of_the_dense_form(box):
    torch.manual_seed(0)
    network = CompactCalpha(CompactCalphaConfig((8, 12), (1, 1), (1,), 8)).eval()
    found = predict_voxels(network, box.density.values_zyx)
    with torch.no_grad():
        dense = network(torch.from_numpy(box.density.values_zyx)[None, None])[0].numpy()
    # Products are in bfloat16 where that is fast.
    atol = 0.1 if has_fast_bfloat16(torch.device("cpu")) else 1e-5
    np.testing.assert_allclose(found, dense, atol=atol)


def test_points_come_from_the_map_evened_out(tmp_path, monkeypatch):
    boxes = StreamSettings(pack_tiny(tmp_path), SIDE, seed=3)
    settings = GraphStreamSettings(boxes, tmp_path / "c_alpha.pt")
    searched = []

    def find_nothing(network, values_zyx):
        searched.append(values_zyx)
        return np.full((len(CHANNELS), *np.array(values_zyx.shape) // STEP), -9, np.float32)

    monkeypatch.setattr(graph_boxes, "_network", lambda weights: None)
    monkeypatch.setattr(graph_boxes, "predict_voxels", find_nothing)
    assert make_graph_box(settings, 0, 3.0) is None
    density = make_numbered_box(boxes, 0, 3.0).density
    evened = even_out(density.values_zyx, density.voxel_size, LOCAL_STRENGTH)
    np.testing.assert_array_equal(searched, [evened])


def test_voxels_over_the_threshold_keep_their_places():
    output = np.full((30, 4, 5, 6), -9.0, np.float32)
    output[:, 1, 2, 3] = np.arange(30)
    output[0, 1, 2, 3] = 0.0
    voxels = voxel_predictions(output, 0.3)
    np.testing.assert_array_equal(voxels.positions, [[6, 4, 2]])
    assert voxels.probability[0] == 0.5
    assert dict(zip(voxels.names, voxels.channels[0], strict=True))["aa_ALA"] == 10
    assert len(CHANNELS) == 30
