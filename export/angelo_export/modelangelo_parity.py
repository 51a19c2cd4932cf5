"""Trace one graph of an official bundle, and keep it only if it computes what torch does."""

import copy
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from angelo.errors import BundleError
from angelo_export.modelangelo_graphs import Piece
from angelo_export.parity import Outputs, file_outputs, torch_outputs, worst_differences
from angelo_export.storage import store_in_half
from angelo_export.trace import TracedGraph

log = logging.getLogger(__name__)

#: Largest difference from torch, relative to an output's largest value, that needs no further
#: question. Single layers with random weights: about 1e-5.
PARITY_LIMIT = 1e-4
#: The C-alpha network's 82 blocks can amplify rounding to 1e-2 in any program that computes in
#: single precision. So a graph that is further from torch is kept if it is no further from what
#: torch computes in double precision than this many times torch itself is, root mean square.
EXACT_FACTOR = 3.0
#: Weights stay in single precision where half changes an output by more than this.
HALF_LIMIT = 1e-2
#: Memory for what a convolution in double precision unfolds at once, bytes, if a layer allows.
SLAB_BYTES = 1_000_000_000


def write_compared(piece: Piece, folder: Path, *, half: bool) -> dict[str, float]:
    """Write the file of a piece and say how far it is from torch.

    Returns
    -------
    dict
        ``parity``: the worst difference; ``half``, where weights are in half precision: how
        much of it that alone makes.

    Raises
    ------
    BundleError
        If it departs from torch by more than rounding.
    """
    graph = piece.trace()
    path = piece.write(graph, folder)
    expected, got = torch_outputs(graph), file_outputs(graph, path)
    worst = _worst(expected, got)
    if not worst <= PARITY_LIMIT:
        require_as_exact(graph, expected, got, path)
    if not half:
        return {"parity": _rounded(worst)}
    single = path.read_bytes()
    store_in_half(path)
    stored = file_outputs(graph, path)
    if not (lost := _worst(got, stored)) <= HALF_LIMIT:
        path.write_bytes(single)
        log.warning(
            "%s stays in single precision: half would change its output by %.1e of its "
            "largest value",
            piece.name,
            lost,
        )
        return {"parity": _rounded(worst)}
    return {"parity": _rounded(_worst(expected, stored)), "half": _rounded(lost)}


def require_as_exact(graph: TracedGraph, expected: Outputs, got: Outputs, path: Path) -> None:
    """Raise BundleError if ``got`` is much further from double precision than ``expected``."""
    exact = torch_outputs(_in_double_precision(graph))
    torchs, ours = root_mean_square(exact, expected), root_mean_square(exact, got)
    if not ours <= EXACT_FACTOR * torchs:
        raise BundleError(
            f"{path.name}: {ours:.1e} of its deviation from double precision, while torch's "
            f"single precision is {torchs:.1e}; check that torch, onnx and onnxruntime are the "
            "versions export/pyproject.toml asks"
        )
    log.info("%s: %.1e from double precision, torch %.1e", path.name, ours, torchs)


def root_mean_square(exact: Outputs, got: Outputs) -> float:
    """Difference of the worst output, in units of its deviation; infinite if not finite."""
    worst = 0.0
    for want, have in zip(exact, got, strict=True):
        for name, values in want.items():
            if values.shape != have[name].shape or not np.isfinite(have[name]).all():
                return float("inf")
            scale = max(float(values.std()), float(np.finfo(np.float32).tiny))
            square = np.square(values - have[name].astype(np.float64)).mean()
            worst = max(worst, float(np.sqrt(square)) / scale)
    return worst


class SlabConvolution(nn.Conv3d):
    """A convolution done a few layers at a time; torch unfolds double precision in memory.

    A kernel of 7 over 256 channels of a 64 voxel window would take 184 GB at once.
    """

    def forward(self, x: Float[Tensor, "b c z y x"]) -> Float[Tensor, "b d Z Y X"]:
        """As ``nn.Conv3d`` with zeros around the grid."""
        kernel, stride = self.kernel_size, self.stride
        pad_z, pad_y, pad_x = cast(tuple[int, int, int], self.padding)
        x = functional.pad(x, (pad_x, pad_x, pad_y, pad_y, pad_z, pad_z))
        n_layers = (x.shape[2] - kernel[0]) // stride[0] + 1
        unfolded = x.shape[1] * math.prod(kernel) * x.shape[3] * x.shape[4] * x.element_size()
        step = max(1, SLAB_BYTES // unfolded)
        slabs = []
        for first in range(0, n_layers, step):
            count = min(step, n_layers - first)
            start = first * stride[0]
            end = start + (count - 1) * stride[0] + kernel[0]
            slabs.append(functional.conv3d(x[:, :, start:end], self.weight, self.bias, stride))
        return torch.cat(slabs, dim=2)


def _in_double_precision(graph: TracedGraph) -> TracedGraph:
    inputs = tuple(
        tuple(array.double() if array.is_floating_point() else array for array in arrays)
        for arrays in graph.inputs
    )
    module = copy.deepcopy(graph.module).double()
    for part in module.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = SlabConvolution
    return replace(graph, module=module, inputs=inputs)


def _worst(expected: Outputs, got: Outputs) -> float:
    return max(worst_differences(expected, got).values())


def _rounded(difference: float) -> float:
    return float(f"{difference:.2g}")
