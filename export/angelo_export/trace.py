"""Networks to ONNX files with the port names that the runtime expects (docs/bundle.md)."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo_export.networks.compact_c_alpha import CompactCalpha
from angelo_export.networks.compact_gnn import CompactGraph, CompactLayer
from angelo_export.networks.language import LanguageModel

#: ONNX operator set; ONNX Runtime has had all of it on CPU and CUDA for long.
OPSET = 18
#: Dynamic axes by port: axis number -> name.
Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class TracedGraph:
    """A torch module with the inputs it is traced on."""

    name: str
    """File name."""
    module: nn.Module
    inputs: tuple[Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    axes: Axes
    """Dynamic axes; all others are fixed."""


class DenseCalpha(nn.Module):
    """The compact C-alpha network over windows."""

    def __init__(self, network: CompactCalpha, step: int) -> None:
        super().__init__()
        self.network, self.step = network, step

    def forward(self, windows: Float[Tensor, "b 1 z y x"]) -> Tensor:
        """Windows to logits."""
        logits: Tensor = self.network(windows, self.step)
        return logits


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

    def __init__(self, layer: CompactLayer) -> None:
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


LAYER_INPUTS = (
    "features", "rotations", "positions", "neighbours", "cubes", "rectangles",
    "sequence_keys", "sequence_values",
)  # fmt: skip
LAYER_OUTPUTS = (
    "features_out", "shifts", "aa_logits", "predicted_error", "existence", "next_logits",
)  # fmt: skip


def trace_calpha(network: CompactCalpha, window: int, step: int) -> TracedGraph:
    """``c_alpha.onnx``; windows are cubes of ``window`` voxels."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(2, 1, window, window, window, generator=generator)
    return TracedGraph(
        "c_alpha.onnx",
        DenseCalpha(network, step),
        (windows,),
        ("windows",),
        ("logits",),
        {"windows": {0: "windows"}, "logits": {0: "windows"}},
    )


def trace_language(network: LanguageModel) -> TracedGraph:
    """``embedder.onnx``."""
    tokens = torch.randint(4, 24, (1, 40), generator=torch.Generator().manual_seed(0))
    axes = {"tokens": {1: "residues"}, "embedding": {1: "residues"}}
    return TracedGraph("embedder.onnx", network, (tokens,), ("tokens",), ("embedding",), axes)


def trace_graph_network(network: CompactGraph, seed: int = 0) -> list[TracedGraph]:
    """``start.onnx``, ``seq_kv.onnx``, every ``layer_NN.onnx`` and ``heads.onnx``."""
    config = network.config
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    residues, length, k = 30, 25, config.neighbours
    rotations = torch.linalg.qr(random(residues, 3, 3))[0]
    rotations = rotations * torch.linalg.det(rotations)[:, None, None]
    head_shape = (config.sequence_heads, config.sequence_head_width)
    n_box = config.rectangle_length * config.rectangle_side**2
    layer_inputs = (
        random(residues, config.hidden),
        rotations,
        random(residues, 3) * 10,
        torch.randint(0, residues, (residues, k), generator=generator),
        random(residues, config.cube_side**3),
        random(residues, k, n_box),
        random(length, *head_shape),
        random(length, *head_shape),
    )
    by_residue = {0: "residues"}
    layer_axes = {name: by_residue for name in (*LAYER_INPUTS, *LAYER_OUTPUTS)}
    layer_axes |= {name: {0: "sequence"} for name in ("sequence_keys", "sequence_values")}
    start = TracedGraph(
        "start.onnx",
        network.start,
        (random(residues, config.start_features),),
        ("start_features",),
        ("features",),
        {"start_features": by_residue, "features": by_residue},
    )
    sequence = TracedGraph(
        "seq_kv.onnx",
        SequenceProjection(network),
        (random(length, config.sequence),),
        ("embedding",),
        ("keys", "values"),
        {"embedding": {0: "sequence"}, "keys": {1: "sequence"}, "values": {1: "sequence"}},
    )
    heads = TracedGraph(
        "heads.onnx",
        network.torsions,
        (random(residues, config.hidden),),
        ("features",),
        ("torsions",),
        {"features": by_residue, "torsions": by_residue},
    )
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


def write_graph(graph: TracedGraph, folder: Path) -> Path:
    """Trace and write one ONNX file, checked; returns its path."""
    path = folder / graph.name
    with warnings.catch_warnings():
        # The tracing exporter is kept on purpose: it makes smaller graphs and is exact here.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            graph.inputs,
            str(path),
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            dynamic_axes={name: dict(axes) for name, axes in graph.axes.items()},
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(onnx.load(path))
    return path


def write_graphs(graphs: Sequence[TracedGraph], folder: Path) -> list[Path]:
    """Write several graphs."""
    return [write_graph(graph, folder) for graph in graphs]
