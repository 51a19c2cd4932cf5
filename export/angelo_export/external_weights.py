"""ONNX files whose matrices lie in a second file: what protobuf, with its 2 GB, cannot hold.

Weights go from the module to the file one at a time. The exporter alone would hold all of them
two or three times over, and leave a file for each.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from angelo_export.trace import TracedGraph, trace_model

#: Added to a graph's name: the file with its matrices.
WEIGHTS_SUFFIX = ".data"
#: Matrices start at multiples of this in their file, bytes: memory is mapped in such pages.
PAGE = 4096


@torch.no_grad()
def round_matrices_to_half(module: nn.Module) -> None:
    """Round matrices in place to what half precision holds; any that overflow stay."""
    for parameter in module.parameters():
        if parameter.ndim > 1:
            rounded = parameter.half().float()
            if rounded.isfinite().all():
                parameter.data = rounded


def write_large_graph(graph: TracedGraph, folder: Path, *, half: bool) -> Path:
    """Trace a module and write ``graph.name`` and, beside it, ``graph.name + ".data"``.

    With ``half``, matrices that half precision holds exactly are stored so (see
    ``round_matrices_to_half``), each followed by a Cast, which ONNX Runtime does once, when it
    loads the file. The same weights give the same bytes.
    """
    path = folder / graph.name
    model = trace_model(graph, path, with_weights=False)
    casts: list[NodeProto] = []
    with path.with_name(path.name + WEIGHTS_SUFFIX).open("wb") as file:
        for name, value in _take_weights(model.graph, graph.module).items():
            if value.ndim < 2:
                constant = numpy_helper.from_array(value.numpy(), name)
            elif half and torch.equal(value.half().float(), value):
                constant = _external(f"{name}_half", value.half(), file)
                casts.append(
                    helper.make_node("Cast", [constant.name], [name], to=TensorProto.FLOAT)
                )
            else:
                constant = _external(name, value, file)
            model.graph.initializer.append(constant)
    nodes = [*casts, *model.graph.node]  # before what uses them
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)
    return path


def _take_weights(graph: GraphProto, module: nn.Module) -> dict[str, Tensor]:
    """Remove inputs that are weights from a graph; return what the constants must be instead.

    A matrix that the graph transposes is returned transposed, and the node is removed: done by
    ONNX Runtime, that would take the memory of all weights once more.
    """
    weights = module.state_dict()
    ports = [port for port in graph.input if port.name not in weights]
    del graph.input[:]
    graph.input.extend(ports)
    constants: dict[str, Tensor] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Transpose" and node.input[0] in weights:
            constants[node.output[0]] = weights[node.input[0]].t()
            continue
        nodes.append(node)
        constants |= {name: weights[name] for name in node.input if name in weights}
    del graph.node[:]
    graph.node.extend(nodes)
    return constants


def _external(name: str, value: Tensor, file: BinaryIO) -> TensorProto:
    """Append a matrix to the file of weights; return the constant that points there."""
    array = np.ascontiguousarray(value.numpy())
    file.seek(-(-file.tell() // PAGE) * PAGE)
    place = {"location": Path(file.name).name, "offset": file.tell(), "length": array.nbytes}
    file.write(array.data)
    constant = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    for key, entry in place.items():
        constant.external_data.add(key=key, value=str(entry))
    return constant
