"""Weights of ONNX files in half precision: half the size, computed in single precision."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Smaller arrays stay as they are: they weigh nothing.
MIN_ELEMENTS = 1024


def store_in_half(path: Path) -> int:
    """Rewrite an ONNX file so that its large arrays are stored in half precision.

    A Cast after each gives single precision again; ONNX Runtime does it once, when it loads the
    file. Arrays with a value that half precision cannot hold stay as they are.

    Returns
    -------
    int
        How many arrays were stored so.
    """
    model = onnx.load(path)
    casts = []
    for array in model.graph.initializer:
        if array.data_type != TensorProto.FLOAT or np.prod(array.dims) < MIN_ELEMENTS:
            continue
        with np.errstate(over="ignore"):
            half = numpy_helper.to_array(array).astype(np.float16)
        if not np.isfinite(half).all():
            continue
        name = array.name
        array.CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
        casts.append(helper.make_node("Cast", [array.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # before what uses them
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    save_model(model, path)
    return len(casts)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it; the same model gives the same bytes."""
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
