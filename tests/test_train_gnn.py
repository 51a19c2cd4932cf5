"""Training of the graph network: known losses, and resumed runs equal to unbroken ones."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from tiny_structures import pack_tiny

from angelo.types import BackboneFrames
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.networks.compact_gnn import CompactGraphConfig
from angelo_export.networks.gnn import LayerOutput
from angelo_export.networks.language import LanguageConfig, LanguageModel
from angelo_export.weights import load_weights, save_weights
from angelo_training import gnn
from angelo_training.checkpoints import load_checkpoint
from angelo_training.gnn import Embedder, GraphRun, embed_entry, train_graph
from angelo_training.graph_losses import FALSE_ERROR, FAR, Truth, layer_losses
from angelo_training.schedule import Budget

CALPHA = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)
LANGUAGE = LanguageConfig(1, 8, 2)
GRAPH = CompactGraphConfig(
    layers=2,
    hidden=16,
    heads=2,
    edge=8,
    points=2,
    point_value=2,
    sequence=8,
    sequence_heads=2,
    sequence_head_width=4,
    cube_side=3,
    cube_hidden=8,
    rectangle_length=3,
    neighbours=6,
    encoding=4,
    depth=1,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Packed structures and untrained networks."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    save_weights(folder / "language.pt", LanguageModel(LANGUAGE), asdict(LANGUAGE))
    network = CompactCalpha(CALPHA)
    with torch.no_grad():
        network.out.weight[0] *= 10  # some voxels over the threshold, not all
        network.out.bias[0] = -1.5
    save_weights(folder / "c_alpha.pt", network, asdict(CALPHA))
    pack_tiny(folder)
    return folder


@pytest.fixture(autouse=True)
def one_check(monkeypatch):
    monkeypatch.setattr(gnn, "CHECK_RESOLUTIONS", (3.0,))


def run_of(files, out, **changes):
    settings = {
        "structures": files / "structures.npz",
        "calpha_weights": files / "c_alpha.pt",
        "language_weights": files / "language.pt",
        "out": out,
        "budget": Budget(steps=4),
        "side": 32,
        "workers": 0,
        "check_every": 2,
        "accumulate": 1,
        "config": GRAPH,
    }
    return GraphRun(**(settings | changes))


class StoppedError(Exception):
    """Stands for a killed process."""


def test_a_resumed_run_equals_an_unbroken_one(files, tmp_path, monkeypatch):
    train_graph(run_of(files, tmp_path / "unbroken"))
    steps = []

    def stop_after_two(*args):
        if len(steps) == 2:
            raise StoppedError
        steps.append(1)
        return box_losses(*args)

    box_losses = gnn.box_losses
    with monkeypatch.context() as patched:
        patched.setattr(gnn, "box_losses", stop_after_two)
        # The check must not count as a step.
        patched.setattr(gnn, "check", lambda *_: {})
        with pytest.raises(StoppedError):
            train_graph(run_of(files, tmp_path / "broken"))
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt").step == 2
    train_graph(run_of(files, tmp_path / "broken"))
    first, second = (
        load_weights(tmp_path / name / "weights.pt") for name in ("unbroken", "broken")
    )
    assert CompactGraphConfig(**first[1]) == GRAPH
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name


def test_the_next_round_has_lost_what_the_runtime_drops(files, monkeypatch):
    run = run_of(files, files / "none")
    box = gnn._check_boxes(run)[0]
    embedder = Embedder(run.language_weights, "cpu")
    view = embed_entry(embedder, box.sequences, None)
    torch.manual_seed(0)
    network = gnn.CompactGraph(GRAPH)
    after = gnn.after_a_round(network, box, view, "cpu")
    n_before, n_after = len(box.is_residue), len(after.is_residue)
    kept = gnn.surviving_residues(after.calphas.positions, after.calphas.probability)
    assert len(kept) == n_after <= n_before
    monkeypatch.setattr(gnn, "surviving_residues", lambda *_: np.arange(1, n_before))
    fewer = gnn.after_a_round(network, box, view, "cpu")
    np.testing.assert_array_equal(fewer.backbone, box.backbone[1:])
    assert len(fewer.calphas) == len(fewer.is_residue)


def perfect_layer(truth, neighbours, frames):
    """The output that the losses ask for, as far as it exists."""
    r = len(truth.kinds)
    follows = torch.from_numpy(neighbours) == truth.follows[:, None]
    return LayerOutput(
        features=torch.zeros(r, 4),
        places=torch.zeros(r, 3, 3),
        aa_logits=torch.nn.functional.one_hot(truth.kinds, 20) * 100.0,
        predicted_error=torch.where(truth.is_residue, 0.01, FALSE_ERROR),
        existence=torch.where(truth.is_residue, 100.0, -100.0),
        next_logits=torch.where(follows, 100.0, -100.0),
    )


@pytest.fixture
def layer():
    """Truth of two residues and a false point, its frames, neighbours and perfect output."""
    from angelo.frames import IDEAL_BACKBONE

    ca = np.array([[0, 0, 0], [3.8, 0, 0], [9, 0, 0]], np.float32)
    rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (3, 3, 3)).copy()
    frames = BackboneFrames(rotation, ca)
    backbone = (IDEAL_BACKBONE + ca[:, None]).astype(np.float32)
    truth = Truth(
        is_residue=torch.tensor([True, True, False]),
        backbone=torch.from_numpy(backbone),
        kinds=torch.tensor([3, 7, 0]),
        follows=torch.tensor([1, -1, -1]),
        torsions=torch.zeros(3, 8, 2),
        has_torsion=torch.zeros(3, 8, dtype=torch.bool),
        atoms=torch.zeros(3, 14, 3),
        has_atom=torch.zeros(3, 14, dtype=torch.bool),
    )
    neighbours = np.array([[1, 2], [0, 2], [1, 0]])
    return truth, frames, neighbours, perfect_layer(truth, neighbours, frames)


def test_a_perfect_layer_costs_nothing(layer):
    truth, frames, neighbours, output = layer
    terms = {n: float(t) for n, t in layer_losses(output, frames, neighbours, truth).items()}
    assert terms.pop("calpha") == pytest.approx(0.01, abs=1e-4)  # sqrt of the added 1e-4
    assert terms.pop("backbone") == pytest.approx(0.01, abs=1e-4)
    assert sum(terms.values()) == pytest.approx(0, abs=1e-4)


def test_layer_losses_of_known_errors(layer):
    truth, frames, neighbours, output = layer
    places = output.places.clone()
    places[0, 1, 0] = 2.0  # one C-alpha of two is 2 Å off
    places[1, 0, 1] = 50.0  # one N of four N and C is far off
    places[2] = 70.0  # false points may go anywhere
    output = output._replace(places=places, next_logits=torch.zeros(3, 2))
    terms = {n: float(t) for n, t in layer_losses(output, frames, neighbours, truth).items()}
    assert terms["calpha"] == pytest.approx((2 + 0.01) / 2, abs=1e-3)
    assert terms["backbone"] == pytest.approx((FAR + 0.03) / 4, abs=1e-3)
    assert terms["next"] == pytest.approx(np.log(2), abs=1e-6)


def test_embeddings_are_the_models_without_its_marks(files):
    embedder = Embedder(files / "language.pt", "cpu")
    first, second = embedder("ACDEF"), embedder("MKVLWAQE")
    assert first.shape == (5, 8)
    both = embed_entry(embedder, ("ACDEF", "MKVLWAQE"), None)
    torch.testing.assert_close(both.embedding, torch.cat([first, second]))
    assert both.starts == (0, 5)
    pair = ("ACDEF", "MKVLWAQE")
    views = [
        embed_entry(embedder, pair, np.random.default_rng(seed), unread_rate=0.2)
        for seed in range(60)
    ]
    sizes = {len(view.embedding) for view in views}
    assert sizes == {0, 13}  # now and then no sequence
    torch.testing.assert_close(embedder("ACDEF"), first)
