"""Graphs: checks of arrays, refusals; devices; how many processors."""

import resource

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_bundle import write_tiny_bundle

from angelo import session
from angelo.errors import BundleError, DeviceError, GraphError
from angelo.processors import _cgroup_limits, usable_cpus
from angelo.session import CPU, Device, Graph, Networks, find_devices, parse_devices


def write_add(path, first_axis="n", kind=TensorProto.FLOAT):
    """Smallest graph with a shared symbolic axis: total = a + b."""

    def info(name):
        return helper.make_tensor_value_info(name, kind, [first_axis, 3])

    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["total"])],
        "add",
        [info("a"), info("b")],
        [info("total")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


@pytest.fixture
def add_graph(tmp_path):
    return Graph(write_add(tmp_path / "add.onnx"))


def test_named_arrays_in_and_out(add_graph):
    ones = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(add_graph(a=ones, b=ones)["total"], 2 * ones)
    assert add_graph.inputs == {"a": ("n", 3), "b": ("n", 3)}
    assert add_graph.outputs == ("total",)


def test_strided_arrays_are_read_right(add_graph):
    a = np.arange(24, dtype=np.float32).reshape(3, 8).T[::2, :]
    total = add_graph(a=a, b=np.zeros((4, 3), np.float32))["total"]
    np.testing.assert_array_equal(total, a)


@pytest.mark.parametrize(
    "b", [np.ones((4, 3), np.float32), np.ones((2, 3)), np.ones(3, np.float32)]
)
def test_misfit_is_refused_by_name(add_graph, b):
    with pytest.raises(GraphError, match=r"add\.onnx: b is float"):
        add_graph(a=np.ones((2, 3), np.float32), b=b)


def test_missing_input_is_named(add_graph):
    with pytest.raises(GraphError, match="wants"):
        add_graph(a=np.ones((2, 3), np.float32))


def test_unnamed_axis_is_refused(tmp_path):
    with pytest.raises(BundleError, match="every axis needs a size or a name"):
        Graph(write_add(tmp_path / "add.onnx", first_axis=None))


def test_unserved_type_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"tensor\(double\)"):
        Graph(write_add(tmp_path / "add.onnx", kind=TensorProto.DOUBLE))


def test_files_that_are_no_graph_are_refused(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for name in ("junk.onnx", "absent.onnx"):
        with pytest.raises(BundleError, match=rf"{name}: ONNX Runtime .* cannot load it"):
            Graph(tmp_path / name)


def test_an_empty_axis_after_a_transpose_does_not_end_the_process(tmp_path):
    """ONNX Runtime 1.31 fuses these two and then divides by the length of the axis."""
    nodes = [
        helper.make_node("Transpose", ["k"], ["t"], perm=[1, 2, 0]),
        helper.make_node("MatMul", ["q", "t"], ["y"]),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("q", [2, "r", 4]), ("k", ["l", 2, 4]), ("y", [2, "r", "l"]))
    ]
    graph = helper.make_graph(nodes, "g", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "g.onnx")
    scores = Graph(tmp_path / "g.onnx")(
        q=np.ones((2, 3, 4), np.float32), k=np.zeros((0, 2, 4), np.float32)
    )
    assert scores["y"].shape == (2, 3, 0)


def test_kept_memory_is_used_again(tmp_path):
    """Arrays of 16 MB between the nodes; new memory would be touched page by page."""
    nodes = [helper.make_node("Add", [f"y{i}", "x"], [f"y{i + 1}"]) for i in range(5)]
    nodes.insert(0, helper.make_node("Expand", ["x", "shape"], ["y0"]))
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "total")
    ]
    nodes.append(helper.make_node("ReduceSum", ["y5"], ["total"]))
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [4, 1_000_000])
    graph = helper.make_graph(nodes, "sum", ports[:1], ports[1:], [shape])
    graph.output[0].type.tensor_type.shape.dim[0].dim_param = "one"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, tmp_path / "sum.onnx")
    x = np.ones(1_000_000, np.float32)
    pages, totals = [], []
    for keeps_memory in (True, False):
        total = Graph(tmp_path / "sum.onnx", threads=1, keeps_memory=keeps_memory)
        total(x=x)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        totals.append(total(x=x)["total"])
        pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert totals[0] == totals[1] == 4 * 6 * 1_000_000
    assert pages[0] < pages[1] / 10


def test_graphs_of_a_bundle_open_once_and_close(tmp_path):
    folder = write_tiny_bundle(tmp_path / "tiny")
    with Networks(folder) as networks:
        heads = networks.open("heads.onnx")
        assert networks.open("heads.onnx") is heads
        networks.close("heads.onnx")
        assert networks.open("heads.onnx") is not heads


def test_library_version_names_providers():
    version, _, providers = session.library_version().partition(" ")
    assert version == session.ort.__version__ and "CPU" in providers


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("cpu", [CPU]),
        ("cuda", [Device("cuda", 0)]),
        ("CUDA:2", [Device("cuda", 2)]),
        ("cuda:1,0", [Device("cuda", 1), Device("cuda", 0)]),
        ("cuda:0,cuda:3", [Device("cuda", 0), Device("cuda", 3)]),
    ],
)
def test_devices_in_words(text, devices):
    assert parse_devices(text) == tuple(devices)


@pytest.mark.parametrize("text", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:0,"])
def test_other_words_are_refused(text):
    with pytest.raises(DeviceError, match="give auto, cpu, cuda"):
        parse_devices(text)


def test_one_gpu_twice_is_refused():
    with pytest.raises(DeviceError, match="twice"):
        parse_devices("cuda:1,1")


def test_a_gpu_that_is_not_there_is_an_error_and_auto_goes_without(monkeypatch):
    monkeypatch.setattr(
        session.ort, "get_available_providers", lambda: ["CPUExecutionProvider"]
    )
    with pytest.raises(DeviceError, match=r"cuda:0 needs CUDAExecutionProvider.*--device cpu"):
        find_devices("cuda")
    assert find_devices("auto") == (CPU,)


def test_without_a_driver_no_session_is_tried(monkeypatch):
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [session.CUDA])
    monkeypatch.setattr(session, "driver_loads", lambda: False)
    monkeypatch.setattr(session, "_new_session", lambda *_, **__: pytest.fail("was tried"))
    with pytest.raises(DeviceError, match=r"cuda:0: no GPU .* install the driver"):
        find_devices("cuda")
    assert find_devices("auto") == (CPU,)


def test_a_gpu_that_does_not_start_is_an_error(monkeypatch):
    """The build has the provider, but the session comes up without it."""
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: [session.CUDA])
    monkeypatch.setattr(session, "driver_loads", lambda: True)
    on_cpu = session._new_session(session.IDENTITY_MODEL, CPU, 1)
    monkeypatch.setattr(session, "_new_session", lambda *_, **__: on_cpu)
    with pytest.raises(DeviceError, match=r"cuda:3: .* did not start; check the driver"):
        find_devices("cuda:3")
    assert find_devices("auto") == (CPU,)


def test_threads_heed_affinity_and_environment(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("angelo.processors._cgroup_limits", lambda *_: iter([4]))
    assert usable_cpus() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert usable_cpus() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert usable_cpus() == 4


def test_quota_of_an_outer_control_group_counts(tmp_path):
    (tmp_path / "cgroup").write_text("0::/job/step\n")
    (tmp_path / "job" / "step").mkdir(parents=True)
    (tmp_path / "job" / "step" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "job" / "cpu.max").write_text("250000 100000\n")
    assert list(_cgroup_limits(tmp_path, tmp_path / "cgroup")) == [2]


def test_quota_of_version_1(tmp_path):
    (tmp_path / "cgroup").write_text("4:cpu,cpuacct:/job\n2:memory:/job\n")
    (tmp_path / "cpu" / "job").mkdir(parents=True)
    (tmp_path / "cpu" / "job" / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    assert list(_cgroup_limits(tmp_path, tmp_path / "cgroup")) == [3]
