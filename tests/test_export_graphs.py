"""ONNX files: parity is measured, storage in half precision is what it says."""

import numpy as np
import onnx
import pytest
import torch

from angelo.errors import BundleError
from angelo.session import Graph
from angelo_export.bundle import write_checked
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.parity import file_outputs, torch_outputs, worst_differences
from angelo_export.storage import MIN_ELEMENTS, store_in_half
from angelo_export.trace import LAYER_INPUTS, TracedGraph, trace_graph_network, write_graph


class Fixed(torch.nn.Module):
    """Silently wrong elsewhere: the number of rows becomes a constant when traced."""

    def forward(self, rows):
        return rows * len(rows.tolist())


def linear(scale=1.0):
    torch.manual_seed(0)
    module = torch.nn.Linear(64, 32)
    with torch.no_grad():
        module.weight *= scale
    rows = tuple((torch.randn(n, 64),) for n in (4, 9))
    return TracedGraph(
        "linear.onnx", module, rows, ("x",), ("y",), {"x": {0: "rows"}, "y": {0: "rows"}}
    )


@pytest.fixture(scope="module")
def graphs():
    torch.manual_seed(0)
    config = CompactGraphConfig(
        layers=1, hidden=16, heads=2, edge=8, sequence=8, cube_side=3, neighbours=5
    )
    return {graph.name: graph for graph in trace_graph_network(CompactGraph(config))}


def test_layer_ports_are_those_of_the_format(graphs, tmp_path):
    graph = Graph(write_graph(graphs["layer_00.onnx"], tmp_path), threads=1)
    r, k, length = "residues", 5, ("sequence", 4, 32)
    assert graph.inputs == {
        "features": (r, 16),
        "rotations": (r, 3, 3),
        "positions": (r, 3),
        "neighbours": (r, k),
        "cubes": (r, 27),
        "rectangles": (r, k, 81),
        "sequence_keys": length,
        "sequence_values": length,
    }
    assert tuple(graph.inputs) == LAYER_INPUTS
    n = np.zeros
    outputs = graph(
        features=n((2, 16), np.float32),
        rotations=n((2, 3, 3), np.float32),
        positions=n((2, 3), np.float32),
        neighbours=n((2, k), np.int64),
        cubes=n((2, 27), np.float32),
        rectangles=n((2, k, 81), np.float32),
        sequence_keys=n((0, 4, 32), np.float32),
        sequence_values=n((0, 4, 32), np.float32),
    )
    assert {name: value.shape for name, value in outputs.items()} == {
        "features_out": (2, 16),
        "shifts": (2, 3, 3),
        "aa_logits": (2, 20),
        "predicted_error": (2,),
        "existence": (2,),
        "next_logits": (2, k),
    }


def test_a_layer_is_compared_without_sequence_and_with_few_residues(graphs):
    sizes = [(len(x[0]), len(x[6])) for x in graphs["layer_00.onnx"].inputs]
    assert any(length == 0 for _, length in sizes)
    assert any(residues < 5 for residues, _ in sizes)
    assert len({residues for residues, _ in sizes}) > 2


def test_graphs_of_the_network_equal_torch(graphs, tmp_path):
    for name in ("start.onnx", "seq_kv.onnx", "heads.onnx"):
        path = write_graph(graphs[name], tmp_path)
        worst = worst_differences(torch_outputs(graphs[name]), file_outputs(graphs[name], path))
        assert set(worst) == set(graphs[name].output_names)
        assert max(worst.values()) < 1e-5


def test_no_folder_of_this_machine_is_in_a_file(tmp_path):
    content = write_graph(linear(), tmp_path).read_bytes()
    assert str(tmp_path).encode() not in content
    assert b".py" not in content


def test_a_size_that_tracing_fixed_is_found(tmp_path):
    rows = tuple((torch.ones(n, 3),) for n in (4, 9))
    graph = TracedGraph("fixed.onnx", Fixed(), rows, ("x",), ("y",), {"x": {0: "r"}})
    with pytest.raises(BundleError, match=r"fixed\.onnx: y is off by 5\.6e-01"):
        write_checked([graph], tmp_path, half=False)


def test_worst_difference_is_relative_and_over_all_inputs():
    expected = [{"y": np.array([1.0, -4.0])}, {"y": np.array([2.0])}]
    got = [{"y": np.array([1.0, -4.2])}, {"y": np.array([2.2])}]
    assert worst_differences(expected, got)["y"] == pytest.approx(0.1)
    assert worst_differences(expected, expected) == {"y": 0.0}


@pytest.mark.parametrize("wrong", [np.array([[2.0]]), np.array([np.nan])])
def test_other_shapes_and_nan_differ_infinitely(wrong):
    assert worst_differences([{"y": np.array([2.0])}], [{"y": wrong}]) == {"y": np.inf}


def test_half_storage_rounds_the_weights_and_nothing_else(tmp_path):
    graph = linear()
    path = write_graph(graph, tmp_path)
    before, size = file_outputs(graph, path), path.stat().st_size
    assert store_in_half(path) == 1
    assert path.stat().st_size < 0.65 * size
    with torch.no_grad():
        graph.module.weight.copy_(graph.module.weight.half().float())
    after = file_outputs(graph, path)
    assert worst_differences(torch_outputs(graph), after)["y"] < 1e-6
    assert 1e-6 < worst_differences(before, after)["y"] < 1e-3
    kinds = {x.name: x.data_type for x in onnx.load(path).graph.initializer}
    assert sorted(kinds.values()) == [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16]


def test_values_too_large_for_half_and_small_arrays_stay(tmp_path):
    path = write_graph(linear(scale=1e7), tmp_path)
    before = path.read_bytes()
    assert store_in_half(path) == 0
    assert path.read_bytes() == before
    assert MIN_ELEMENTS <= 64 * 32


def test_parity_says_what_half_storage_costs(tmp_path):
    plain = write_checked([linear()], tmp_path, half=False)
    half = write_checked([linear()], tmp_path, half=True)
    assert plain["linear.onnx"] < 1e-6
    assert set(half) == {"linear.onnx", "half_precision_storage"}
    assert half["linear.onnx"] == pytest.approx(half["half_precision_storage"], rel=0.1)
    assert 1e-5 < half["half_precision_storage"] < 1e-3
