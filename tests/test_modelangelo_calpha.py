"""The official C-alpha network as a file: its loop over frequencies."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from official_bundle import CALPHA, random_calpha
from onnx import TensorProto

from angelo.session import Graph
from angelo_export.modelangelo_graphs import calpha_piece
from angelo_export.networks.c_alpha import CalphaNetwork
from angelo_export.storage import store_in_half

SIDE = 32


@pytest.fixture(scope="module")
def network():
    network = CalphaNetwork(replace(CALPHA, blocks=(1, 1, 1, 1))).eval()
    missing = network.load_state_dict(random_calpha(), strict=False).missing_keys
    assert not missing
    return network


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    piece = calpha_piece(network, SIDE)
    return piece.write(piece.trace(), tmp_path_factory.mktemp("graph"))


@torch.no_grad()
@pytest.mark.parametrize("n_windows", [1, 3])
def test_as_torch(network, path, n_windows):
    generator = torch.Generator().manual_seed(n_windows)
    windows = torch.randn(n_windows, 2, SIDE, SIDE, SIDE, generator=generator)
    expected = network(windows).numpy()
    got = Graph(path, threads=1)(windows=windows.numpy())["logits"]
    # Worst of 24 draws: 8e-6 of the largest value.
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-5 * np.abs(expected).max())


def test_large_kernels_are_not_convolved_directly(path):
    model = onnx.load(path)
    assert [port.name for port in model.graph.input] == ["windows"]
    assert [port.name for port in model.graph.output] == ["logits"]
    kernels = [
        tuple(attribute.ints)
        for node in model.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "kernel_shape"
    ]
    assert kernels.count((5, 5, 5)) == 1  # the first layer
    assert max(kernels) == (5, 5, 5)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1


def test_half_precision_leaves_the_transforms_as_they_are(path, tmp_path):
    stored = tmp_path / "half.onnx"
    stored.write_bytes(path.read_bytes())
    assert store_in_half(stored) > 0
    (loop,) = (node for node in onnx.load(stored).graph.node if node.op_type == "Scan")
    (body,) = (a.g for a in loop.attribute if a.name == "body")
    constants = [n.attribute[0].t for n in body.node if n.op_type == "Constant"]
    matrices = [array for array in constants if np.prod(array.dims) > 90]
    kinds = {tuple(array.dims): array.data_type for array in matrices}
    assert {(12, 8), (8, 12), (2 * 11 * 2, SIDE), (SIDE, 2 * 11 * 2)} <= kinds.keys()
    assert set(kinds.values()) == {TensorProto.FLOAT}
    assert not body.initializer
