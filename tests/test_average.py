"""Weights of several trainings of one network, averaged."""

from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training.__main__ import app
from angelo_training.average import average

SIZES = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)


def write_network(path, seed, sizes=SIZES):
    torch.manual_seed(seed)
    save_weights(path, CompactCalpha(sizes), asdict(sizes))
    return path


@pytest.fixture
def files(tmp_path):
    return [write_network(tmp_path / f"{seed}.pt", seed) for seed in range(3)]


def test_every_weight_is_the_mean(files):
    out = files[0].with_name("mean.pt")
    average(files, out)
    states = [load_weights(path)[0] for path in files]
    mean, config = load_weights(out)
    assert config == asdict(SIZES)
    assert mean.keys() == states[0].keys()
    for name, value in mean.items():
        expected = sum(state[name] for state in states) / 3
        torch.testing.assert_close(value, expected, atol=1e-3, rtol=1e-3)  # half precision
    assert out.stat().st_size == pytest.approx(files[0].stat().st_size, rel=0.01)


def test_other_networks_are_refused(files):
    deeper = CompactCalphaConfig((8, 12), (1, 2), (1,), 8)
    files.append(write_network(files[0].with_name("deeper.pt"), 0, deeper))
    out = files[0].with_name("mean.pt")
    with pytest.raises(
        CheckpointError, match=r"deeper.pt: weights of another network than .*0.pt"
    ):
        average(files, out)
    with pytest.raises(CheckpointError, match="no such file"):
        average([*files[:2], files[0].with_name("none.pt")], out)
    assert not out.exists()


def test_the_command_says_what_it_wrote(files):
    out = files[0].with_name("mean.pt")
    result = CliRunner().invoke(app, ["average", *map(str, files), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: mean of 3\n"
    assert out.is_file()
