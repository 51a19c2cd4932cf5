"""A C-alpha network with more blocks says the same before it learns."""

from dataclasses import asdict

import pytest
import torch
from typer.testing import CliRunner

from angelo_export.calpha_networks import load_calpha
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.weights import CheckpointError, save_weights
from angelo_training.__main__ import app
from angelo_training.deepen import deepen

TINY = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    network = CompactCalpha(TINY)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_weights(tmp_path / "small.pt", network, asdict(TINY))
    return tmp_path / "small.pt"


def test_a_deeper_network_says_the_same(weights):
    deeper = weights.with_name("deep.pt")
    config = deepen(weights, deeper, (1, 3), (2,))
    assert (config.down_blocks, config.up_blocks) == ((1, 3), (2,))
    density = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    small, deep = load_calpha(weights), load_calpha(deeper)
    n_parameters = [sum(p.numel() for p in each.parameters()) for each in (small, deep)]
    assert n_parameters[1] > 1.5 * n_parameters[0]
    with torch.no_grad():
        torch.testing.assert_close(deep(density), small(density))


def test_blocks_are_never_lost(weights):
    with pytest.raises(CheckpointError, match=r"leave out \(down.1.0.*at least as many"):
        deepen(weights, weights.with_name("less.pt"), (1, 0), (1,))
    with pytest.raises(CheckpointError, match="want as many down_blocks"):
        deepen(weights, weights.with_name("less.pt"), (1, 1, 1), (1,))
    assert not weights.with_name("less.pt").exists()


def test_the_command_says_what_it_wrote(weights):
    out = weights.with_name("deep.pt")
    options = ["--down-blocks", "2,1", "--up-blocks", "1", "--out", str(out)]
    result = CliRunner().invoke(app, ["deepen", str(weights), *options])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{out}: (2, 1) blocks down, (1,) up\n"
    options[1] = "2;1"
    assert CliRunner().invoke(app, ["deepen", str(weights), *options]).exit_code == 2
