"""A graph network with more units that read density says nearly the same before it learns."""

from dataclasses import asdict, replace

import pytest
import torch
from typer.testing import CliRunner

from angelo_export import weights as weight_files
from angelo_export.graph_networks import load_graph
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training.__main__ import app
from angelo_training.widen import widen

SIZES = CompactGraphConfig(
    layers=2, hidden=16, heads=2, edge=8, sequence=8, cube_side=5, cube_hidden=64, neighbours=5
)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "narrow.pt", CompactGraph(SIZES), asdict(SIZES))
    return tmp_path / "narrow.pt"


def readers(path):
    return [layer.cube for layer in load_graph(path).layers]


def test_a_wider_network_reads_nearly_the_same(weights):
    wide = weights.with_name("wide.pt")
    assert widen(weights, wide, 96) == replace(SIZES, cube_hidden=96)
    boxes = torch.randn(40, 125, generator=torch.Generator().manual_seed(1))
    for before, after in zip(readers(weights), readers(wide), strict=True):
        assert after.read.out_features == 96
        with torch.no_grad():
            old, new = before(boxes), after(boxes)
            strength = after.read(boxes).std(dim=0)
        assert torch.corrcoef(torch.stack((old.flatten(), new.flatten())))[0, 1] > 0.99
        assert strength[64:].mean() == pytest.approx(float(strength[:64].mean()), rel=0.3)


def test_other_weights_stay_and_seeds_repeat(weights):
    files = [weights.with_name(f"{name}.pt") for name in ("first", "again", "other")]
    for path, seed in zip(files, (0, 0, 1), strict=True):
        widen(weights, path, 80, seed)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()
    before, after = load_weights(weights)[0], load_weights(files[0])[0]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("read.weight", "read.bias", "ln.weight", "mix.weight")
    assert changed == {f"layers.{i}.cube.{part}" for i in (0, 1) for part in parts}


def test_units_are_never_lost(weights):
    narrow = weights.with_name("less.pt")
    with pytest.raises(CheckpointError, match="has 64 units; give more"):
        widen(weights, narrow, 64)
    save_weights(narrow, torch.nn.Linear(2, 2), {"width": 2})
    with pytest.raises(CheckpointError, match="weights of another network"):
        widen(narrow, weights.with_name("wide.pt"), 80)


def test_the_command_says_what_it_wrote(weights):
    out = weights.with_name("wide.pt")
    options = ["--cube-hidden", "80", "--out", str(out)]
    result = CliRunner().invoke(app, ["widen", str(weights), *options])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: 80 units in each of 2 layers\n"


def test_a_network_too_large_for_git_is_one_line(weights, monkeypatch):
    monkeypatch.setattr(weight_files, "MAX_WEIGHT_BYTES", weights.stat().st_size)
    out = weights.with_name("wide.pt")
    options = ["--cube-hidden", "80", "--out", str(out)]
    result = CliRunner().invoke(app, ["widen", str(weights), *options])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "wide.pt" in result.stderr
    assert not out.exists()
