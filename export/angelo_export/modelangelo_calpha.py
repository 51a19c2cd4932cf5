"""ModelAngelo's C-alpha network as an ONNX file, its last convolutions in Fourier space.

Those make up 74 % of the multiplications of the full-size network.
"""

import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from jaxtyping import Float, Int
from onnx import compose, helper, numpy_helper
from torch import Tensor, nn

from angelo_export.networks.c_alpha import CalphaNetwork, MultiScaleHead
from angelo_export.networks.fourier import FourierConvolutions
from angelo_export.storage import save_model
from angelo_export.trace import TracedGraph, trace_model

#: Ports between the network and the loop over frequencies in its midst.
LOOP_INPUTS, LOOP_OUTPUT = ("values", "kernels", "no_sums"), "all_sums"


class AroundLoop(nn.Module):
    """All of the network but the loop, whose result it takes and whose inputs it gives."""

    def __init__(self, network: CalphaNetwork, convolutions: FourierConvolutions) -> None:
        super().__init__()
        self.network, self.convolutions = network, convolutions

    def forward(
        self, windows: Float[Tensor, "b c z y x"], all_sums: Float[Tensor, "z yxbd"]
    ) -> tuple[Tensor, ...]:
        """Logits, and what the loop starts from."""
        features = self.network.net.features(windows)
        no_sums, values, kernels = self.convolutions.start(features)
        head = cast(MultiScaleHead, self.network.net.modules_dict["predictor"])
        logits = head.logits(self.convolutions.finish(all_sums))
        return logits, values, kernels, no_sums


class Turn(nn.Module):
    """One turn of the loop."""

    def __init__(self, convolutions: FourierConvolutions) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(
        self,
        sums: Float[Tensor, "z yxbd"],
        number: Int[Tensor, "1"],
        values: Float[Tensor, "z yxbc"],
        kernels: Float[Tensor, "k kkcd"],
    ) -> Tensor:
        """Add frequency ``number`` along z."""
        return self.convolutions.step(sums, number, values, kernels)


def write_calpha(graph: TracedGraph, folder: Path) -> Path:
    """Trace and write the C-alpha network; returns the path."""
    network = cast(CalphaNetwork, graph.module)
    windows = graph.inputs[0][0]
    head = cast(MultiScaleHead, network.net.modules_dict["predictor"])
    parts = [cast(nn.Conv3d, part) for part in head.convs.values()]
    convolutions = FourierConvolutions(parts, windows.shape[-1]).eval()
    columns = convolutions.side**2 * len(windows)
    sums = torch.zeros(convolutions.side, columns * convolutions.n_out)
    values = torch.zeros(convolutions.side, columns * convolutions.n_in)
    kernels = torch.zeros(
        convolutions.kernel, convolutions.kernel**2 * convolutions.n_in * convolutions.n_out
    )
    around = TracedGraph(
        graph.name,
        AroundLoop(network, convolutions).eval(),
        ((windows, sums),),
        (*graph.input_names, LOOP_OUTPUT),
        (*graph.output_names, *LOOP_INPUTS),
        {**graph.axes, **{name: {1: name} for name in (LOOP_OUTPUT, "values", "no_sums")}},
    )
    turn = TracedGraph(
        "turn.onnx",
        Turn(convolutions),
        ((sums, torch.zeros(1, dtype=torch.int64), values, kernels),),
        ("sums", "number", "values", "kernels"),
        ("sums_out",),
        {"sums": {1: "no_sums"}, "values": {1: "values"}, "sums_out": {1: "no_sums"}},
    )
    with tempfile.TemporaryDirectory(dir=folder, prefix=".tracing-") as scratch:
        model = trace_model(around, Path(scratch) / around.name)
        body = trace_model(turn, Path(scratch) / turn.name)
    insert_loop(model, body, convolutions.n_bins)
    path = folder / graph.name
    save_model(model, path)
    return path


def insert_loop(model: onnx.ModelProto, body: onnx.ModelProto, n_turns: int) -> None:
    """Join ``model`` and ``n_turns`` turns of ``body`` between its ports to the loop.

    Matrices of the body are constants in it, so that they are never stored in half precision.
    """
    body = compose.add_prefix(body, "turn/")
    for node in body.graph.node:  # of the model, computed once
        for i, name in enumerate(node.input):
            if name in ("turn/values", "turn/kernels"):
                node.input[i] = name.removeprefix("turn/")
    ports = body.graph.input[:2]
    del body.graph.input[:]
    body.graph.input.extend(ports)
    numbers = numpy_helper.from_array(np.arange(n_turns)[:, None], "turn/numbers")
    loop = helper.make_node(
        "Scan",
        ["no_sums", numbers.name],
        [LOOP_OUTPUT],
        name="turn/loop",
        body=body.graph,
        num_scan_inputs=1,
    )
    graph = model.graph
    graph.initializer.append(numbers)
    for places, name in ((graph.input, LOOP_OUTPUT), *((graph.output, n) for n in LOOP_INPUTS)):
        (port,) = (port for port in places if port.name == name)
        places.remove(port)
    nodes = list(graph.node)
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    after = max(made[name] for name in LOOP_INPUTS) + 1
    del graph.node[:]
    graph.node.extend([*nodes[:after], loop, *nodes[after:]])
