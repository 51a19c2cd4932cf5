"""ESM checkpoints: what fair-esm computes comes out; other files are refused.

``data/esm1b.npz`` and ``data/esm2.npz`` are reduced networks with random weights and what
fair-esm 2.0.0 computed from them. ``data/esm_golden.py`` made them, and its head says how.
"""

import argparse
import json
import os
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tiny_bundle import read_manifest, write_manifest, write_tiny_bundle
from typer.testing import CliRunner

from angelo.bundle import load_bundle
from angelo.errors import BundleError, OutputError
from angelo.language import embed_sequence, tokens_from_sequence, window_starts
from angelo.manifest import LanguageNetwork
from angelo.session import Graph, Networks
from angelo_export import esm_checkpoints
from angelo_export.__main__ import app
from angelo_export.bundle import file_record
from angelo_export.esm_checkpoints import export_esm, import_esm
from angelo_export.esm_files import read_esm
from angelo_export.weights import CheckpointError

DATA = Path(__file__).with_name("data")
FAMILIES = ("esm1b", "esm2")
#: Worst seen, torch and ONNX Runtime: 1.0e-6, where values reach 1.9.
ATOL = 5e-6


def golden(family):
    with np.load(DATA / f"{family}.npz") as file:
        return dict(file)


def checkpoint(family):
    """Content of a file as published."""
    arrays = golden(family)
    model = {
        name.removeprefix("model/"): torch.from_numpy(value).float()
        for name, value in arrays.items()
        if name.startswith("model/")
    }
    settings = argparse.Namespace(**json.loads(str(arrays["settings"])))
    if family == "esm1b":
        return {"args": settings, "model": model}
    return {"cfg": {"model": settings}, "model": model}


def saved(folder, content, name="esm.pt", **options):
    path = folder / name
    torch.save(content, path, **options)
    return path


@pytest.fixture(scope="module", params=FAMILIES)
def traced(request, tmp_path_factory):
    """Family, section ``language`` and folder of an embedder in single precision."""
    folder = tmp_path_factory.mktemp(request.param)
    path = saved(folder, checkpoint(request.param))
    language = LanguageNetwork(**export_esm(path, folder, half=False).language)
    return request.param, language, folder


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_torch_gives_what_fair_esm_gives(family, tmp_path):
    network, arrays = read_esm(saved(tmp_path, checkpoint(family))), golden(family)
    assert len(arrays["sequences"]) == 4
    for number in range(4):
        tokens = torch.from_numpy(arrays[f"tokens_{number}"])[None]
        expected = arrays[f"representation_{number}"]
        for embed in (network, network.embed_unpadded):
            np.testing.assert_allclose(embed(tokens)[0].numpy(), expected, rtol=0, atol=ATOL)


def test_the_graph_gives_what_fair_esm_gives(traced):
    family, language, folder = traced
    graph, arrays = Graph(folder / language.graph, threads=1), golden(family)
    for number, sequence in enumerate(arrays["sequences"]):
        tokens = tokens_from_sequence(str(sequence), language)
        np.testing.assert_array_equal(tokens[0], arrays[f"tokens_{number}"])
        rows = embed_sequence(str(sequence), language, graph)
        expected = arrays[f"representation_{number}"][1:-1]
        np.testing.assert_allclose(rows, expected, rtol=0, atol=ATOL)


def test_one_window_is_one_pass_and_more_are_averaged(traced):
    _, language, folder = traced
    graph = Graph(folder / language.graph, threads=1)
    limit = 62 if traced[0] == "esm1b" else 1022
    assert (language.max_length, language.overlap) == (limit, min(256, limit // 4))
    chain = "MKTAYIAKQRQISFVKSHFSRQLEERLGL" * 40

    def at_once(residues):
        return graph(tokens=tokens_from_sequence(residues, language))["embedding"][0, 1:-1]

    whole = chain[:limit]
    np.testing.assert_array_equal(embed_sequence(whole, language, graph), at_once(whole))

    longer = chain[: limit + 7]
    starts = window_starts(len(longer), limit, language.overlap)
    assert starts == (0, 7)
    first, second = (at_once(longer[start : start + limit]) for start in starts)
    averaged = embed_sequence(longer, language, graph)
    np.testing.assert_array_equal(averaged[:7], first[:7])
    np.testing.assert_array_equal(averaged[limit:], second[limit - 7 :])
    np.testing.assert_array_equal(averaged[7:limit], (first[7:] + second[:-7]) / 2)


def test_matrices_lie_outside_the_graph(traced):
    """All of them, and no node is left that would transpose them."""
    _, language, folder = traced
    graph = onnx.load(folder / language.graph, load_external_data=False).graph
    inside = [array for array in graph.initializer if not array.external_data]
    assert all(len(array.dims) < 2 for array in inside)
    assert len(graph.initializer) - len(inside) == 2 * 6 + (2 if traced[0] == "esm1b" else 1)
    constants = {array.name for array in graph.initializer}
    for node in graph.node:
        assert node.op_type != "Transpose" or node.input[0] not in constants


def test_same_checkpoint_same_bytes(traced, tmp_path):
    family, language, folder = traced
    export_esm(saved(tmp_path, checkpoint(family)), tmp_path, half=False)
    for name in (language.graph, f"{language.graph}.data"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_bundle_covers_the_weights(traced, tmp_path):
    """The file with the matrices is opened with the graph, and its checksum is checked."""
    _, language, folder = traced
    bundle = write_tiny_bundle(tmp_path)
    manifest = read_manifest(bundle) | {"language": asdict(language)}
    for name in (language.graph, f"{language.graph}.data"):
        (bundle / name).write_bytes((folder / name).read_bytes())
        manifest["files"][name] = file_record(bundle / name)
    write_manifest(bundle, manifest)
    loaded = load_bundle(bundle)
    graph = Networks(loaded.folder).open(loaded.language.graph)
    assert embed_sequence("ACD", loaded.language, graph).shape == (3, 32)

    damaged = bytearray((bundle / f"{language.graph}.data").read_bytes())
    damaged[100] ^= 1
    (bundle / f"{language.graph}.data").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"embedder\.onnx\.data: sha256 is"):
        load_bundle(bundle)


def test_missing_weights_are_named(traced, tmp_path):
    _, language, folder = traced
    (tmp_path / language.graph).write_bytes((folder / language.graph).read_bytes())
    with pytest.raises(BundleError, match=r"cannot load it .*embedder\.onnx\.data"):
        Graph(tmp_path / language.graph, threads=1)


def test_weights_that_half_precision_holds_lose_nothing(tmp_path):
    path = saved(tmp_path, checkpoint("esm2"))
    whole = export_esm(path, tmp_path, half=False)
    size = (tmp_path / "embedder.onnx.data").stat().st_size
    half = export_esm(path, tmp_path, half=True)
    assert half.parity == {**whole.parity, "half_precision_storage": 0.0}
    # Down to the padding between matrices, of which none is as large as a page.
    assert (tmp_path / "embedder.onnx.data").stat().st_size < 0.7 * size


def test_loss_of_half_precision_is_measured(tmp_path):
    content = checkpoint("esm1b")
    for name, value in content["model"].items():
        content["model"][name] = value * (1 + 2**-13)  # between two numbers that it holds
    content["model"]["encoder.sentence_encoder.layers.0.fc1.weight"][0, 0] = 1e6  # too large
    export = export_esm(saved(tmp_path, content), tmp_path, half=True)
    lost = export.parity["half_precision_storage"]
    assert 1e-6 < lost < 1e-2
    assert export.parity["embedder.onnx"] == pytest.approx(lost, rel=0.1)
    arrays = onnx.load(tmp_path / "embedder.onnx").graph.initializer
    kept = [a for a in arrays if len(a.dims) > 1 and a.data_type == onnx.TensorProto.FLOAT]
    assert len(kept) == 1 and onnx.numpy_helper.to_array(kept[0]).max() == 1e6


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("wrapper", ["encoder.", "sentence_encoder.", ""])
def test_other_wrappings_of_the_same_network(family, wrapper, tmp_path):
    """Names with less before them, no settings, an old format, half precision: all the same."""
    content = checkpoint(family)
    network = read_esm(saved(tmp_path, content))
    bare = {
        wrapper + name.split("encoder.")[-1]: value if "inv_freq" in name else value.half()
        for name, value in content["model"].items()
    }
    bare["contact_head.regression.weight"] = torch.zeros(1, 8)  # two layers of four heads
    path = saved(tmp_path, bare, "bare.pt", _use_new_zipfile_serialization=False)
    other = read_esm(path)
    assert other.config == network.config
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


@torch.no_grad()
def test_settings_are_followed(tmp_path):
    """Files without token dropout or the first layer norm are read as fair-esm reads them."""
    content = checkpoint("esm1b")
    del content["args"].token_dropout
    for kind in ("weight", "bias"):
        del content["model"][f"encoder.sentence_encoder.emb_layer_norm_before.{kind}"]
    network = read_esm(saved(tmp_path, content))
    assert not network.config.token_dropout and not network.config.input_norm
    tokens = torch.tensor([[0, 5, 6, 2]])
    network.layers = torch.nn.ModuleList()
    network.emb_layer_norm_after = torch.nn.Identity()
    expected = network.embed_tokens.weight[tokens] + network.embed_positions.weight[2:6]
    assert torch.equal(network(tokens), expected)


class Attack:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_refused_and_not_run(new_format, tmp_path):
    content = {**checkpoint("esm1b"), "extra": Attack(tmp_path / "harm")}
    path = saved(tmp_path, content, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"asks for \w+\.mkdir to be loaded"):
        read_esm(path)
    assert not (tmp_path / "harm").exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def without(name):
    def spoil(content):
        del content["model"][name]

    return spoil


def changed(name, value):
    def spoil(content):
        content["model"][name] = value

    return spoil


def heads(number):
    def spoil(content):
        content["args"].encoder_attention_heads = number

    return spoil


def contacts_alone(content):
    content["model"] = {"contact_head.regression.weight": torch.zeros(1, 8)}


def other_kind(content):
    content["args"].arch = "protein_bert_base"
    content["model"] = {"decoder.embed_out": torch.zeros(35, 32)}


WRAPPED = "encoder.sentence_encoder."


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without(WRAPPED + "layers.1.fc1.bias"), "without layers.1.fc1.bias"),
        (changed("encoder.extra", torch.zeros(2)), "with the unknown extra"),
        (
            changed(WRAPPED + "layers.1.fc1.bias", torch.zeros(2)),
            "another shape of layers.1.fc1",
        ),
        (changed(WRAPPED + "embed_tokens.weight", torch.zeros(35, 32)), "35 tokens, not 33"),
        (changed(WRAPPED + "embed_positions.weight", torch.zeros(4, 32)), "2 positions"),
        (heads(3), "3 heads do not divide a width of 32"),
        (heads(None), "nothing in it tells how many attention heads"),
        (heads(0), "nothing in it tells how many attention heads"),
        (contacts_alone, "the same name without -contact-regression"),
        (other_kind, "architecture 'protein_bert_base', without embed_tokens"),
        (lambda content: content.update(model=3), "holds no network's parameters"),
    ],
)
def test_other_networks_are_refused_in_one_line(spoil, said, tmp_path):
    content = checkpoint("esm1b")
    spoil(content)
    path = saved(tmp_path, content)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_esm(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([1, 2])])
def test_files_that_torch_did_not_write_are_refused(content, tmp_path):
    path = tmp_path / "esm.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged|holds no network"):
        read_esm(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_esm(tmp_path)


def test_truncated_files_are_called_that(tmp_path):
    path = saved(tmp_path, checkpoint("esm1b"))
    whole = path.read_bytes()
    for share in (0.5, 0.75):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            read_esm(path)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    path = saved(tmp_path, checkpoint("esm2"))
    (tmp_path / "file").write_text("in the way")
    arguments = ["import-esm", str(path), "-o", str(tmp_path / "file" / "esm")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "cannot be written" in result.output
    assert (tmp_path / "file").read_text() == "in the way"


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    content = checkpoint("esm2")
    content["model"][WRAPPED + "layers.0.fc1.bias"][0] = torch.nan
    with pytest.raises(BundleError, match="differs from torch by inf"):
        export_esm(saved(tmp_path, content), tmp_path, half=False)


def test_full_disk_is_told_beforehand(tmp_path, monkeypatch):
    path = saved(tmp_path, checkpoint("esm2"))
    usage = argparse.Namespace(free=1000)
    monkeypatch.setattr(esm_checkpoints.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match="make room or store it in half precision"):
        import_esm(path, tmp_path / "out", half=False)
    assert list(tmp_path.iterdir()) == [path]


def test_command_writes_a_folder_once(tmp_path):
    path, out = saved(tmp_path, checkpoint("esm2")), tmp_path / "models" / "esm2"
    result = CliRunner().invoke(app, ["import-esm", str(path), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert sorted(file.name for file in out.iterdir()) == [
        "embedder.onnx",
        "embedder.onnx.data",
        "language.json",
    ]
    sections = json.loads((out / "language.json").read_text())
    assert set(sections["files"]) == {"embedder.onnx", "embedder.onnx.data"}
    assert sections["files"]["embedder.onnx.data"]["bytes"] == (
        (out / "embedder.onnx.data").stat().st_size
    )
    assert sections["language"]["tokens"]["A"] == 5 and sections["language"]["unknown"] == 3
    assert "ade2574" in sections["citation"]

    again = CliRunner().invoke(app, ["import-esm", str(path), "-o", str(out)])
    assert again.exit_code == 2 and "name a new folder" in again.output
    assert "Traceback" not in again.output
