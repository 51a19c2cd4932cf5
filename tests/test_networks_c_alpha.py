"""The C-alpha network against recorded arrays of the reference."""

import json
import sys
from pathlib import Path

import pytest
import torch

from angelo_export.networks.c_alpha import (
    CalphaConfig,
    CalphaNetwork,
    normalise_first_channel,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from golden import GOLDEN, recorded_calpha
from parity import calpha_differences


@pytest.fixture(scope="module")
def recorded():
    return recorded_calpha()


@torch.no_grad()
def test_logits(recorded):
    network, arrays = recorded
    got, expected = network(arrays["x"]), arrays["y"]
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_onnx_graph_gives_what_was_recorded(tmp_path):
    found = calpha_differences(tmp_path)
    assert found.keys() == {"torch", "onnx"}
    assert max(found.values()) <= 1e-4


@torch.no_grad()
def test_scale_and_offset_of_the_density_do_not_matter(recorded):
    network, arrays = recorded
    window = arrays["x"][:1]
    rescaled = torch.cat((5 * window[:, :1] - 3, window[:, 1:]), dim=1)
    # float32 rounding of the input grows through the norms: 5e-5 seen.
    assert torch.allclose(network(rescaled), network(window), atol=1e-3)


def test_first_channel_is_normalised_and_the_second_is_not():
    x = 3 + 2 * torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    y = normalise_first_channel(x)
    assert torch.equal(y[:, 1], x[:, 1])
    for window in y[:, 0]:
        assert window.mean().abs() < 1e-5
        assert abs(window.std(correction=1) - 1) < 1e-5


def test_full_size_names_and_shapes():
    shapes = json.loads((GOLDEN / "modelangelo_state_dict_shapes.json").read_text())["c_alpha"]
    with torch.device("meta"):
        network = CalphaNetwork(CalphaConfig())
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    network.load_state_dict(state, strict=True, assign=True)
