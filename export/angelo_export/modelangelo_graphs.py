"""Official ModelAngelo networks to ONNX files, one at a time.

Left out because nothing in a build reads it: heads of all layers but the last, and the edge
head everywhere (chains are traced by geometry, as the reference does).
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from jaxtyping import Float
from onnx import compose, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from angelo_export.modelangelo_calpha import write_calpha
from angelo_export.networks.c_alpha import CalphaNetwork
from angelo_export.networks.cryo import RECTANGLE_SIDE, CryoAttention
from angelo_export.networks.gnn import GraphConfig, GraphNetwork, OfficialSequenceAttention
from angelo_export.storage import save_model
from angelo_export.trace import TracedGraph, trace_model, write_graph

#: Density cubes that go through their convolutions together. A layer of 200 residues then takes
#: 0.5 GB and 1.55 CPU seconds; with all of its cubes at once 1.8 GB and 2.1 s.
CUBES_AT_ONCE = 4
#: Residues and sequence length that a layer is traced with, and those it is checked with.
TRACED_SIZES, CHECKED_SIZES = (30, 25), ((43, 60), (7, 1), (1, 3), (5, 0))
#: Outputs of the last layer, and of those before it.
LAST_OUTPUTS = (
    "features_out", "shifts", "aa_logits", "predicted_error", "existence", "next_logits",
)  # fmt: skip
LAYER_OUTPUTS = LAST_OUTPUTS[:2]


@dataclass(frozen=True, slots=True)
class Piece:
    """One file of a bundle, not traced yet."""

    name: str
    trace: Callable[[], TracedGraph]
    write: Callable[[TracedGraph, Path], Path] = write_graph


class LayerPorts(nn.Module):
    """One layer with the ports of the manifest; ``shifts`` are places of N, CA and C."""

    def __init__(self, network: GraphNetwork, *, is_last: bool) -> None:
        super().__init__()
        self.network, self.is_last = network, is_last

    def forward(self, *ports: Tensor) -> tuple[Tensor, ...]:
        """One layer; inputs in the order of ``layer_inputs``."""
        named = dict(zip(layer_inputs(self.network.config), ports, strict=True))
        output = self.network.layer(0, **named)
        if not self.is_last:
            return output.features, output.places
        # Parity: the reference does not read its edge logits; 0 leaves all links equal.
        equal = torch.zeros_like(named["neighbours"], dtype=torch.float32)
        heads = (output.aa_logits, output.predicted_error, output.existence)
        return (output.features, output.places, *heads, equal)


class Start(nn.Module):
    """Features before the first layer: zeros, and in the last channel 1 for proteins."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, is_protein: Float[Tensor, "r 1"]) -> Float[Tensor, "r h"]:
        """1 or 0 for each residue."""
        return functional.pad(is_protein, (self.hidden - 1, 0))


class SequenceProjection(nn.Module):
    """Keys and values of every layer, and nothing else of the network."""

    def __init__(self, network: GraphNetwork) -> None:
        super().__init__()
        layers = cast(list[OfficialSequenceAttention], list(network.ipa.seq_attentions))
        self.keys = nn.ModuleList(layer.k for layer in layers)
        self.values = nn.ModuleList(layer.v for layer in layers)
        self.heads, self.width = network.config.heads, network.config.hidden

    def forward(self, embedding: Float[Tensor, "l e"]) -> tuple[Tensor, Tensor]:
        """Stacked over layers: (n, l, heads, c)."""
        shape = (len(self.keys), embedding.shape[0], self.heads, self.width)
        return tuple(  # type: ignore[return-value]
            torch.stack([part(embedding) for part in parts]).reshape(shape)
            for parts in (self.keys, self.values)
        )


def calpha_piece(network: CalphaNetwork, window: int) -> Piece:
    """``c_alpha.onnx``."""

    def trace() -> TracedGraph:
        generator = torch.Generator().manual_seed(0)
        shape = (1, network.config.n_in, window, window, window)
        windows = torch.randn(shape, generator=generator)
        windows[:, 1:] = windows[:, 1:].abs()  # a deviation
        axes = {port: {0: "windows"} for port in ("windows", "logits")}
        return TracedGraph(
            "c_alpha.onnx", network, ((windows,),), ("windows",), ("logits",), axes
        )

    return Piece("c_alpha.onnx", trace, write_calpha)


def graph_pieces(network: GraphNetwork) -> Iterator[Piece]:
    """``start.onnx``, ``seq_kv.onnx`` (with sequences), the layers, and ``heads.onnx``."""
    config = network.config
    by_residue, by_length, by_sequence = {0: "residues"}, {0: "sequence"}, {1: "sequence"}

    def rows(axis: int, width: int) -> tuple[tuple[Tensor], ...]:
        generator = torch.Generator().manual_seed(0)
        lengths = [size[axis] for size in (TRACED_SIZES, *CHECKED_SIZES) if size[axis]]
        return tuple((torch.randn(n, width, generator=generator),) for n in lengths)

    def start() -> TracedGraph:
        axes = dict.fromkeys(("start_features", "features"), by_residue)
        names = (("start_features",), ("features",))
        return TracedGraph("start.onnx", Start(config.hidden), rows(0, 1), *names, axes)

    def sequence() -> TracedGraph:
        axes = {"embedding": by_length, "keys": by_sequence, "values": by_sequence}
        names = (("embedding",), ("keys", "values"))
        inputs = rows(1, config.sequence or 0)
        return TracedGraph("seq_kv.onnx", SequenceProjection(network), inputs, *names, axes)

    def heads() -> TracedGraph:
        axes = dict.fromkeys(("features", "torsions"), by_residue)
        names = (("features",), ("torsions",))
        head = network.ipa.torsion_angle_fc
        return TracedGraph("heads.onnx", head, rows(0, config.hidden), *names, axes)

    yield Piece("start.onnx", start)
    if config.sequence is not None:
        yield Piece("seq_kv.onnx", sequence)
    for number in range(config.layers):
        yield layer_piece(network, number)
    yield Piece("heads.onnx", heads)


def layer_piece(network: GraphNetwork, number: int) -> Piece:
    """``layer_NN.onnx``."""
    name, is_last = f"layer_{number:02}.onnx", number == network.config.layers - 1

    def trace() -> TracedGraph:
        generator = torch.Generator().manual_seed(number)
        inputs = layer_inputs(network.config)
        outputs = LAST_OUTPUTS if is_last else LAYER_OUTPUTS
        axes = {port: {0: "residues"} for port in (*inputs, *outputs)}
        axes |= {port: {0: "sequence"} for port in inputs if port.startswith("sequence")}
        return TracedGraph(
            name,
            LayerPorts(single_layer(network, number), is_last=is_last).eval(),
            tuple(
                random_inputs(network.config, *size, generator)
                for size in (TRACED_SIZES, *CHECKED_SIZES)
            ),
            inputs,
            outputs,
            axes,
        )

    return Piece(name, trace, write_layer)


def layer_inputs(config: GraphConfig) -> tuple[str, ...]:
    """Ports of a layer, in order."""
    geometry = ("features", "rotations", "positions", "neighbours", "cubes", "rectangles")
    pair = ("sequence_keys", "sequence_values") if config.sequence is not None else ()
    return (*geometry, *pair, "is_protein")


def random_inputs(
    config: GraphConfig, residues: int, length: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Make inputs of a layer, in the order of ``layer_inputs``."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rotations = torch.linalg.qr(random(residues, 3, 3))[0]
    pair = [random(length, config.heads, config.hidden) for _ in range(2)]
    return (
        random(residues, config.hidden),
        rotations * torch.linalg.det(rotations)[:, None, None],  # proper
        random(residues, 3) * 10,
        torch.randint(0, residues, (residues, config.neighbours), generator=generator),
        random(residues, config.cube_side**3),
        random(residues, config.neighbours, config.rectangle_length * RECTANGLE_SIDE**2),
        *(pair if config.sequence is not None else []),
        torch.rand(residues, generator=generator) < 0.8,
    )


def single_layer(network: GraphNetwork, number: int) -> GraphNetwork:
    """Take one layer of a network as a network, which shares all parameters."""
    with torch.device("meta"):
        single = GraphNetwork(replace(network.config, layers=1))
    for name, part in network.ipa.named_children():
        if isinstance(part, nn.ModuleList):
            part = nn.ModuleList([part[number]])
        setattr(single.ipa, name, part)
    return single


def write_layer(graph: TracedGraph, folder: Path) -> Path:
    """Trace and write a layer, its cubes a few at a time; returns the path."""
    network = cast(LayerPorts, graph.module).network
    attention = cast(CryoAttention, network.ipa.cryo_attentions[0])
    cubes = attention.cryo_point_v
    place = graph.input_names.index("cubes")
    arrays = list(graph.inputs[0])
    few = arrays[place][:CUBES_AT_ONCE]
    arrays[place] = arrays[place].new_zeros(len(arrays[place]), cubes(few).shape[1])
    names = tuple("around" if name == "cubes" else name for name in graph.input_names)
    axes = {**graph.axes, "around": graph.axes["cubes"]}
    del axes["cubes"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tracing-") as scratch:
        body = TracedGraph("cubes.onnx", cubes, ((few,),), ("cubes",), ("around",), {})
        body_model = trace_model(body, Path(scratch) / body.name)
        attention.cryo_point_v = nn.Identity()  # type: ignore[assignment]
        try:
            rest = replace(graph, inputs=(tuple(arrays),), input_names=names, axes=axes)
            model = trace_model(rest, Path(scratch) / rest.name)
        finally:
            attention.cryo_point_v = cubes
    scan_cubes(model, body_model)
    path = folder / graph.name
    save_model(model, path)
    return path


def scan_cubes(model: onnx.ModelProto, body: onnx.ModelProto) -> None:
    """Give ``model``, which takes ``around``, the input ``cubes`` that ``body`` makes it from.

    The body sees a fixed number of cubes and runs over as many as there are. Its weights
    become weights of the model, so that they are stored as all others are.
    """
    body = compose.add_prefix(body, "cube/")
    rows, vectors = body.graph.input[0], body.graph.output[0]
    at_once, n_points = (dim.dim_value for dim in rows.type.tensor_type.shape.dim)
    width = vectors.type.tensor_type.shape.dim[1].dim_value
    constants = {
        "none": [0],
        "none_2": [0, 0],
        "at_once": [at_once],
        "grouped": [-1, at_once, n_points],
        "flat": [-1, width],
    }
    node = helper.make_node
    several = helper.make_graph(list(body.graph.node), "cubes", [rows], [vectors])
    nodes = [
        node("Shape", ["cubes"], ["cube/n"], end=1),
        node("Neg", ["cube/n"], ["cube/minus_n"]),
        node("Mod", ["cube/minus_n", "cube/at_once"], ["cube/n_lacking"]),
        node("Concat", ["cube/none_2", "cube/n_lacking", "cube/none"], ["cube/pads"], axis=0),
        node("Pad", ["cubes", "cube/pads"], ["cube/filled"]),
        node("Reshape", ["cube/filled", "cube/grouped"], ["cube/groups"]),
        node("Scan", ["cube/groups"], ["cube/found"], body=several, num_scan_inputs=1),
        node("Reshape", ["cube/found", "cube/flat"], ["cube/vectors"]),
        node("Slice", ["cube/vectors", "cube/none", "cube/n", "cube/none"], ["around"]),
    ]
    graph = model.graph
    (old,) = (port for port in graph.input if port.name == "around")
    axis = old.type.tensor_type.shape.dim[0].dim_param
    float_type = onnx.TensorProto.FLOAT
    old.CopyFrom(helper.make_tensor_value_info("cubes", float_type, [axis, n_points]))
    graph.initializer.extend(body.graph.initializer)
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), f"cube/{name}")
        for name, value in constants.items()
    )
    nodes += list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
