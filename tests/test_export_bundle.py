"""The compact bundle: the runtime loads it and computes what torch computes."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from angelo.bundle import load_bundle
from angelo.errors import BundleError
from angelo.frames import random_rotations
from angelo.language import embed_sequence
from angelo.local_strength import even_out
from angelo.refine import refine
from angelo.session import Graph, Networks
from angelo.types import Calphas, Density
from angelo.window_plan import plan_axis
from angelo.windows import run_windows
from angelo_export.__main__ import app
from angelo_export.bundle import CHANNELS, load_networks, write_compact_bundle
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageModel
from angelo_export.settings import read_settings
from angelo_export.weights import CheckpointError, save_weights
from angelo_training import graph_losses

SPECTRUM = {
    "shell_width": 0.05,
    "amplitudes": [3.0, 2.0, 1.0],
    "reference_shells": [1, 3],
    "max_gain": 8.0,
}
SETTINGS = {
    "name": "compact",
    "version": "0.1.0",
    "licence": "MIT",
    "citation": "None: random weights.",
    "made_by": {"data": "none"},
    "points": {
        "method": "votes",
        "threshold": 0.3,
        "radius": 1.5,
        "min_separation": 2.4,
        "min_support": 0.4,
    },
    "chains": {"min_next_probability": 0.2, "max_bond": 2.6},
    "rounds": 1,
    "min_existence": 0.4,
    "reads_sequences": True,
    "half_precision_storage": True,
}
CALPHA = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)
LANGUAGE = LanguageConfig(layers=1, width=8, heads=2)
GRAPH = CompactGraphConfig(
    layers=2,
    hidden=16,
    heads=2,
    edge=8,
    points=2,
    point_value=4,
    sequence=8,
    sequence_heads=2,
    sequence_head_width=4,
    cube_side=5,
    cube_hidden=16,
    rectangle_length=5,
    neighbours=6,
    encoding=4,
)
#: Worst seen: 9e-6, over two seeds with and without sequence.
ATOL = 1e-4


def save_network(path, network, config, seed):
    """Weights far enough from their start that nothing is zero or the same by accident."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    save_weights(path, network, asdict(config))


def write_weights(folder, *, calpha=CALPHA, language=LANGUAGE, graph=GRAPH):
    torch.manual_seed(5)
    save_network(folder / "c_alpha.pt", CompactCalpha(calpha), calpha, 1)
    save_network(folder / "language.pt", LanguageModel(language), language, 2)
    save_network(folder / "gnn.pt", CompactGraph(graph), graph, 3)
    return folder


def write_settings(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    path.write_text(json.dumps(SETTINGS | changes))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Weights, their networks, the bundle's folder and its manifest."""
    place = tmp_path_factory.mktemp("compact")
    weights = write_weights(place / "weights")
    folder = place / "models" / "compact"
    settings = read_settings(write_settings(folder))
    (folder / "README.md").write_text("# card\n")
    (folder / "layer_99.onnx").write_bytes(b"of an earlier export")
    manifest = write_compact_bundle(weights, settings, SPECTRUM, folder, {"recall": 0.5})
    return SimpleNamespace(
        weights=weights,
        networks=load_networks(weights),
        settings=settings,
        folder=folder,
        manifest=manifest,
    )


@pytest.fixture(autouse=True)
def single_precision(monkeypatch):
    """On some CPUs training uses bfloat16, which is not what is compared here."""
    monkeypatch.setattr("angelo_training.precision.has_fast_bfloat16", lambda device: False)


def random_density(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return Density(values, np.ones(3, np.float32), np.zeros(3, np.float32))


def test_folder_holds_the_bundle_and_what_people_wrote(made):
    graphs = ["c_alpha", "embedder", "heads", "layer_00", "layer_01", "seq_kv", "start"]
    written = {"README.md", "settings.json", "bundle.json", *(f"{g}.onnx" for g in graphs)}
    assert {path.name for path in made.folder.iterdir()} == written
    assert [path.name for path in made.folder.parent.iterdir()] == ["compact"]
    assert json.loads((made.folder / "bundle.json").read_text()) == made.manifest


def test_a_bundle_that_does_not_read_has_no_graphs_for_it(made, tmp_path):
    settings = replace(made.settings, reads_sequences=False)
    write_compact_bundle(made.weights, settings, SPECTRUM, tmp_path / "unread")
    bundle = load_bundle(tmp_path / "unread")
    assert bundle.language is None and bundle.gnn.sequence is None
    assert set(made.manifest["files"]) - set(bundle.files) == {"embedder.onnx", "seq_kv.onnx"}


def test_manifest_says_what_was_given_and_measured(made):
    bundle = load_bundle(made.folder)
    assert (bundle.name, bundle.version, bundle.licence) == ("compact", "0.1.0", "MIT")
    assert bundle.accuracy == {"recall": 0.5}
    assert bundle.made_by["data"] == "none"
    assert sorted(bundle.made_by["weights"]) == ["c_alpha.pt", "gnn.pt", "language.pt"]
    assert bundle.c_alpha.points == made.settings.points
    assert bundle.c_alpha.windows.channels == CHANNELS
    assert bundle.gnn.min_existence == bundle.chains.min_existence == 0.4
    assert bundle.map.spectrum.amplitudes.tolist() == [3, 2, 1]
    # Weights were in half precision already: storing them so again costs what folding rounds.
    assert bundle.parity["half_precision_storage"] < 1e-3
    assert set(bundle.parity) == {*bundle.files, "half_precision_storage"}


def test_outputs_within_the_margins_are_used(made):
    windows = load_bundle(made.folder).c_alpha.windows
    assert (windows.window, windows.margin, windows.step) == (96, 4, 2)
    # Outputs sit at voxels 0, 2, ... 94: those from 4 to 90 are used.
    assert (windows.first_kept, windows.n_kept, windows.stride) == (2, 44, 88)
    graph = Graph(made.folder / "c_alpha.onnx", threads=1)
    for side in (windows.window, 48, 2 * windows.multiple):
        logits = graph(windows=np.zeros((1, 1, side, side, side), np.float32))["logits"]
        assert logits.shape == (1, 30, *[side // 2] * 3)


def test_stitched_predictions_are_torchs(made):
    """A map larger than a window, voxels near its edges too; zeros surround it.

    The whole map in one piece sees no seams. Within 4 voxels of a window's face they are left
    out; beyond, they may still be felt, by random weights more than by trained ones.
    """
    bundle = load_bundle(made.folder)
    graph = Graph(made.folder / "c_alpha.onnx", threads=1)
    density = random_density((47, 34, 103))
    settings = bundle.c_alpha.windows
    assert max(density.values_zyx.shape) > settings.window
    found = run_windows(density, settings, lambda w: graph(windows=w)["logits"], threshold=0.0)
    place = {tuple(p): i for i, p in enumerate(found.positions.astype(int).tolist())}
    assert len(place) == len(found)
    assert np.all(found.positions % 2 == 0)
    # x, y, z: corners, faces, both sides of the seam between windows, the middle.
    chosen = [(0, 0, 0), (102, 32, 46), (0, 16, 20), (34, 0, 24), (102, 0, 2), (2, 32, 0)]
    chosen += [(x, 16, z) for x in range(28, 76, 2) for z in (12, 30)]
    assert settings.local_strength is not None
    evened = even_out(density.values_zyx, density.voxel_size, settings.local_strength)
    seen = replace(density, values_zyx=evened)
    expected = torch_at(made.networks.calpha, seen, settings, chosen)
    rows = [place[voxel] for voxel in chosen]
    probability = torch.sigmoid(expected[:, 0]).numpy()
    np.testing.assert_allclose(found.probability[rows], probability, atol=0.03)
    off = np.abs(found.channels[rows] - expected[:, 1:].numpy())
    assert np.median(off) < 1e-5
    assert off.max() < 0.2 < np.ptp(found.channels[rows])
    assert found.names == CHANNELS[1:]
    assert np.ptp(probability) > 0.05


@torch.no_grad()
def torch_at(network, density, settings, voxels):
    """Predictions of torch for the whole map, padded so that cells fall as windows cut them."""
    corner = [plan_axis(n, settings).corners[0] for n in density.values_zyx.shape]
    far = [-n % network.multiple + 8 * network.multiple for n in density.values_zyx.shape]
    pads = [(-c, f) for c, f in zip(corner, far, strict=True)]
    padded = np.pad(density.values_zyx, pads)
    padded = padded[
        tuple(slice(n // network.multiple * network.multiple) for n in padded.shape)
    ]
    output = network(torch.from_numpy(padded)[None, None])[0]
    z, y, x = (
        [(v[2 - axis] - corner[axis]) // settings.step for v in voxels] for axis in range(3)
    )
    return output[:, z, y, x].T


def calphas_on_a_grid(seed):
    """30 points about 4 Å apart with random frames."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.unravel_index(np.arange(30), (3, 5, 2)), axis=-1) * 4.0 + 6
    return Calphas(
        (grid + rng.uniform(-0.5, 0.5, grid.shape)).astype(np.float32),
        rng.uniform(0.3, 1, 30).astype(np.float32),
        random_rotations(30, rng),
        rng.normal(size=(30, 20)).astype(np.float32),
    )


def links(neighbours, probability):
    """(r, r): the probability of every link, whatever the order of neighbours."""
    matrix = np.zeros((len(neighbours),) * 2)
    np.put_along_axis(matrix, neighbours, probability, axis=1)
    return matrix


@pytest.mark.parametrize("sequence", ["MKTAYIAKQR", None])
@pytest.mark.parametrize("seed", [0, 1])
def test_refinement_is_that_of_training(made, sequence, seed):
    bundle = load_bundle(made.folder)
    density, calphas = random_density((22, 30, 24), seed), calphas_on_a_grid(seed)
    with Networks(made.folder, threads=1) as networks:
        embedding = None
        if sequence is not None:
            graph = networks.open(bundle.language.graph)
            embedding = embed_sequence(sequence, bundle.language, graph)
        rng = np.random.default_rng(0)
        found = refine(density, calphas, bundle, networks, embedding, rng)

    box = SimpleNamespace(density=density, calphas=calphas)
    seen = []
    with torch.no_grad():
        torsions, frames = graph_losses.run_layers(
            made.networks.graph,
            box,
            torch_embedding(made.networks.language, sequence),
            "cpu",
            lambda output, frames, neighbours: seen.append((output, neighbours)),
        )
    last, neighbours = seen[-1]
    assert len(found) == 30
    assert np.abs(frames.ca - calphas.positions).max() > 0.05  # something moved
    for got, wanted in (
        (found.frames.ca, frames.ca),
        (found.frames.rotation, frames.rotation),
        (found.aa_logits, last.aa_logits.numpy()),
        (found.torsions, torsions.numpy()),
        (found.predicted_error, last.predicted_error.numpy()),
        (found.existence, torch.sigmoid(last.existence).numpy()),
        (
            links(found.neighbours, found.next_probability),
            links(neighbours, torch.sigmoid(last.next_logits).numpy()),
        ),
    ):
        np.testing.assert_allclose(got, wanted, atol=ATOL)


def torch_embedding(network, sequence):
    if sequence is None:
        return torch.zeros(0, network.config.width)
    letters = [ALPHABET.index(letter) for letter in sequence]
    tokens = torch.tensor([[ALPHABET.index("<cls>"), *letters, ALPHABET.index("<eos>")]])
    return network(tokens)[0, 1:-1]


def test_sequence_matters(made):
    """Else the comparison above could pass with the sequence left out on both sides."""
    embedding = torch_embedding(made.networks.language, "MKTAYIAKQR").detach().numpy()
    bundle = load_bundle(made.folder)
    density, calphas = random_density((22, 30, 24)), calphas_on_a_grid(0)
    with Networks(made.folder, threads=1) as networks:
        one, other = (
            refine(density, calphas, bundle, networks, e, np.random.default_rng(0))
            for e in (embedding, None)
        )
    assert np.abs(one.aa_logits - other.aa_logits).max() > 100 * ATOL


def test_weights_that_do_not_fit_together(tmp_path):
    write_weights(tmp_path / "w", graph=replace(GRAPH, sequence=12))
    with pytest.raises(BundleError, match=r"12 sequence channels of .*, wanted 8"):
        load_networks(tmp_path / "w")


def test_weights_of_another_network(tmp_path):
    weights = write_weights(tmp_path / "w")
    (weights / "gnn.pt").write_bytes((weights / "c_alpha.pt").read_bytes())
    with pytest.raises(CheckpointError, match=r"gnn\.pt: weights of another network"):
        load_networks(weights)


def test_an_unusable_setting_leaves_the_old_bundle(made, monkeypatch):
    def write_again(graphs, folder, half):
        for graph in graphs:
            (folder / graph.name).write_bytes((made.folder / graph.name).read_bytes())
        return {}

    monkeypatch.setattr("angelo_export.bundle.write_checked", write_again)  # quick
    before = {path: path.read_bytes() for path in made.folder.iterdir()}
    wrong = replace(made.settings, chains={"min_next_probability": 2.0, "max_bond": 2.6})
    with pytest.raises(BundleError, match=r"min_next_probability is 2\.0"):
        write_compact_bundle(made.weights, wrong, SPECTRUM, made.folder)
    assert {path: path.read_bytes() for path in made.folder.iterdir()} == before


def test_settings_of_the_default_bundle_can_be_read():
    settings = read_settings(Path(__file__).parents[1] / "models" / "compact" / "settings.json")
    assert (settings.name, settings.licence) == ("compact", "MIT")


def export(*arguments):
    return CliRunner().invoke(app, ["compact", *(str(a) for a in arguments)])


def arguments_for(tmp_path, weights, **changes):
    (tmp_path / "spectrum.json").write_text(json.dumps(SPECTRUM))
    settings = write_settings(tmp_path, **changes)
    options = {"weights": weights, "settings": settings, "out": tmp_path / "out" / "compact"}
    options["spectrum"] = tmp_path / "spectrum.json"
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def test_command_writes_the_same_bundle_again(made, tmp_path):
    accuracy = tmp_path / "accuracy.json"
    accuracy.write_text('{"recall": 0.5}')
    result = export(*arguments_for(tmp_path, made.weights), "--accuracy", accuracy)
    assert result.exit_code == 0, result.output
    assert "7 graphs" in result.output
    assert load_bundle(tmp_path / "out" / "compact").files == load_bundle(made.folder).files
    # The same weights and settings: the same bytes.
    written = (tmp_path / "out" / "compact" / "bundle.json").read_bytes()
    assert written == (made.folder / "bundle.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rounds": "1"}, "settings.rounds is '1', wants a whole number"),
        ({"colour": 1}, "settings.colour is not a key"),
    ],
)
def test_command_refuses_in_one_line(made, tmp_path, changes, words):
    result = export(*arguments_for(tmp_path, made.weights, **changes))
    assert result.exit_code == 2
    assert words in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_command_names_missing_weights(tmp_path):
    result = export(*arguments_for(tmp_path, tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "c_alpha.pt: no such file" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
