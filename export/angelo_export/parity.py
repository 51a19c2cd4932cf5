"""Torch against ONNX Runtime: the worst difference of every output."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from angelo_export.trace import TracedGraph


@torch.no_grad()
def worst_difference(graph: TracedGraph, path: Path) -> dict[str, float]:
    """Largest |torch - ONNX| of each output, relative to the output's largest value.

    On the inputs the graph was traced with: both run in single precision on the CPU.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {
        name: value.numpy() for name, value in zip(graph.input_names, graph.inputs, strict=True)
    }
    expected = graph.module.eval()(*graph.inputs)
    if isinstance(expected, torch.Tensor):
        expected = (expected,)
    differences = {}
    for name, want, got in zip(
        graph.output_names, expected, session.run(list(graph.output_names), feeds), strict=True
    ):
        scale = max(float(want.abs().max()), np.finfo(np.float32).tiny)
        differences[name] = float(np.abs(want.numpy() - got).max()) / scale
    return differences
