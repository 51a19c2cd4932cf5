"""Networks to ONNX files with the port names that the runtime expects (docs/bundle.md)."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo_export.language_networks import Embedder
from angelo_export.networks.compact_c_alpha import CompactCalpha
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.storage import save_model

#: ONNX operator set; ONNX Runtime has had all of it on CPU and CUDA for long.
OPSET = 18
#: Residues and sequence length that layers are traced with, and those they are checked with:
#: few residues, fewer than neighbours, and a build without sequence.
TRACED_SIZES, CHECKED_SIZES = (30, 25), ((43, 60), (7, 1), (1, 0), (30, 0))
#: Ports of a layer, in order. An input and an output of one graph may not share a name.
LAYER_INPUTS = (
    "features", "rotations", "positions", "neighbours", "cubes", "rectangles",
    "sequence_keys", "sequence_values",
)  # fmt: skip
LAYER_OUTPUTS = (
    "features_out", "shifts", "aa_logits", "predicted_error", "existence", "next_logits",
)  # fmt: skip
#: Dynamic axes by port: axis number -> name.
Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class TracedGraph:
    """A torch module with the inputs it is traced on and checked with."""

    name: str
    """File name."""
    module: nn.Module
    inputs: tuple[tuple[Tensor, ...], ...]
    """Sets of inputs: the first is traced, all are compared (see ``parity``)."""
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    axes: Axes
    """Dynamic axes; all others are fixed."""


class SequenceProjection(nn.Module):
    """Keys and values of every layer."""

    def __init__(self, network: CompactGraph) -> None:
        super().__init__()
        self.network = network

    def forward(self, embedding: Float[Tensor, "l e"]) -> tuple[Tensor, Tensor]:
        """Stacked over layers."""
        return self.network.project_sequence(embedding)


class LayerPorts(nn.Module):
    """A layer that returns plain tensors in the manifest's order."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self,
        features: Float[Tensor, "r h"],
        rotations: Float[Tensor, "r 3 3"],
        positions: Float[Tensor, "r 3"],
        neighbours: Int[Tensor, "r k"],
        cubes: Float[Tensor, "r p"],
        rectangles: Float[Tensor, "r k q"],
        sequence_keys: Float[Tensor, "l a c"],
        sequence_values: Float[Tensor, "l a c"],
    ) -> tuple[Tensor, ...]:
        """One layer."""
        return tuple(
            self.layer(
                features,
                rotations,
                positions,
                neighbours,
                cubes,
                rectangles,
                sequence_keys,
                sequence_values,
            )
        )


def trace_calpha(network: CompactCalpha, window: int) -> TracedGraph:
    """``c_alpha.onnx``; windows are cubes of up to ``window`` voxels."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(2, 1, window, window, window, generator=generator)
    at_edge = windows[:1].clone()
    at_edge[:, :, : window // 2] = 0  # beyond the map
    half = window // 2
    smaller = windows[:, :, :half, :half, :half].clone()
    # A name for each axis: torch takes equal ones to be equal sizes, which they need not be.
    sizes = dict(enumerate(("z", "y", "x"), start=2))
    cells = {axis: f"cells_{name}" for axis, name in sizes.items()}
    return TracedGraph(
        "c_alpha.onnx",
        network,
        ((windows,), (at_edge,), (smaller,)),
        ("windows",),
        ("logits",),
        {"windows": {0: "windows", **sizes}, "logits": {0: "windows", **cells}},
    )


def trace_language(network: Embedder) -> TracedGraph:
    """``embedder.onnx``: one sequence of any length."""
    generator = torch.Generator().manual_seed(0)
    # 4 to 23 are the amino acids; a single residue has a token on each side.
    inputs = tuple(
        (torch.randint(4, 24, (1, length), generator=generator),) for length in (40, 3, 75)
    )
    axes = {"tokens": {1: "residues"}, "embedding": {1: "residues"}}
    return TracedGraph("embedder.onnx", network, inputs, ("tokens",), ("embedding",), axes)


def trace_graph_network(network: CompactGraph, seed: int = 0) -> list[TracedGraph]:
    """``start.onnx``, ``seq_kv.onnx``, every ``layer_NN.onnx`` and ``heads.onnx``."""
    config = network.config
    generator = torch.Generator().manual_seed(seed)
    sizes = (TRACED_SIZES, *CHECKED_SIZES)

    def rows(axis: int, *shape: int) -> tuple[tuple[Tensor], ...]:
        """One input with residues (axis 0) or the sequence (axis 1) first, in all sizes."""
        lengths = [size[axis] for size in sizes if size[axis] > 0]
        return tuple((torch.randn(n, *shape, generator=generator),) for n in lengths)

    by_residue, by_length, by_sequence = {0: "residues"}, {0: "sequence"}, {1: "sequence"}
    start = TracedGraph(
        "start.onnx",
        network.start,
        rows(0, config.start_features),
        ("start_features",),
        ("features",),
        {"start_features": by_residue, "features": by_residue},
    )
    sequence = TracedGraph(
        "seq_kv.onnx",
        SequenceProjection(network),
        rows(1, config.sequence),
        ("embedding",),
        ("keys", "values"),
        {"embedding": by_length, "keys": by_sequence, "values": by_sequence},
    )
    heads = TracedGraph(
        "heads.onnx",
        network.torsions,
        rows(0, config.hidden),
        ("features",),
        ("torsions",),
        {"features": by_residue, "torsions": by_residue},
    )
    layer_inputs = tuple(random_layer_inputs(config, *size, generator) for size in sizes)
    layer_axes = dict.fromkeys((*LAYER_INPUTS, *LAYER_OUTPUTS), by_residue)
    layer_axes |= dict.fromkeys(("sequence_keys", "sequence_values"), by_length)
    layers = [
        TracedGraph(
            f"layer_{number:02}.onnx",
            LayerPorts(layer),
            layer_inputs,
            LAYER_INPUTS,
            LAYER_OUTPUTS,
            layer_axes,
        )
        for number, layer in enumerate(network.layers)
    ]
    return [start, sequence, *layers, heads]


def random_layer_inputs(
    config: CompactGraphConfig, residues: int, length: int, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Make inputs of a layer in the order of ``LAYER_INPUTS``, as wide as the runtime's."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rotations = torch.linalg.qr(random(residues, 3, 3))[0]
    k, head_shape = config.neighbours, (config.sequence_heads, config.sequence_head_width)
    return (
        random(residues, config.hidden),
        rotations * torch.linalg.det(rotations)[:, None, None],  # proper
        random(residues, 3) * 10,
        torch.randint(0, residues, (residues, k), generator=generator),
        random(residues, config.cube_side**3),
        random(residues, k, config.rectangle_length * config.rectangle_side**2),
        random(length, *head_shape),
        random(length, *head_shape),
    )


def trace_model(
    graph: TracedGraph, path: Path, *, with_weights: bool = True
) -> onnx.ModelProto:
    """Trace a model, through a file; without its weights they are inputs named as in it."""
    with warnings.catch_warnings():
        # The tracing exporter is kept on purpose: it makes smaller graphs and is exact here.
        # Its warnings about sizes that become constants are what ``parity`` looks for.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            graph.inputs[0],
            str(path),
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            dynamic_axes={name: dict(axes) for name, axes in graph.axes.items()},
            opset_version=OPSET,
            dynamo=False,
            export_params=with_weights,
            # Else the exporter would compare all weights, and copy the first of equal ones.
            keep_initializers_as_inputs=not with_weights,
            # Folded weights would be inputs with other names. ONNX Runtime folds the rest.
            do_constant_folding=with_weights,
        )
    return onnx.load(path)


def write_graph(graph: TracedGraph, folder: Path) -> Path:
    """Trace and write one ONNX file, checked; returns its path."""
    path = folder / graph.name
    save_model(trace_model(graph, path), path)
    return path
