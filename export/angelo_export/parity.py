"""The worst difference of a graph's outputs: torch against a file, or file against file.

Files run as in the runtime (``angelo.session``), on the CPU in single precision. That matters:
with its default optimizers ONNX Runtime crashes where the axis of the sequence is empty.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from angelo.session import Graph
from angelo_export.trace import TracedGraph

#: What a graph gives for each of its sets of inputs: arrays by output name.
Outputs = list[dict[str, np.ndarray]]


@torch.no_grad()
def torch_outputs(graph: TracedGraph) -> Outputs:
    """Return what the torch module gives for every set of inputs."""
    outputs: Outputs = []
    for inputs in graph.inputs:
        values = graph.module.eval()(*inputs)
        values = (values,) if isinstance(values, torch.Tensor) else values
        names = graph.output_names
        outputs.append({n: v.numpy() for n, v in zip(names, values, strict=True)})
    return outputs


def file_outputs(graph: TracedGraph, path: Path) -> Outputs:
    """Return what the ONNX file gives for every set of inputs."""
    session = Graph(path, threads=1)
    return [
        session(**{n: v.numpy() for n, v in zip(graph.input_names, inputs, strict=True)})
        for inputs in graph.inputs
    ]


def worst_differences(
    expected: Sequence[dict[str, np.ndarray]], got: Sequence[dict[str, np.ndarray]]
) -> dict[str, float]:
    """Largest difference of each output, relative to the output's largest value.

    Infinite where the shapes differ or a value is not finite.
    """
    worst = dict.fromkeys(expected[0], 0.0)
    for want, have in zip(expected, got, strict=True):
        for name in worst:
            worst[name] = max(worst[name], _difference(want[name], have[name]))
    return worst


def _difference(want: np.ndarray, have: np.ndarray) -> float:
    if want.shape != have.shape or not (np.isfinite(want).all() and np.isfinite(have).all()):
        return float("inf")
    scale = np.abs(want).max(initial=np.finfo(np.float32).tiny)
    return float(np.abs(want - have).max(initial=0.0) / scale)
