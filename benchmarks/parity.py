"""Worst differences from what ModelAngelo computes, array by array, with the same weights.

Layer by layer, each from what the reference's layer started from ("teacher-forced"), in the
torch modules that weights are loaded into and in the ONNX graphs that an import writes, the
latter fed by the runtime's own samplers and neighbours. Weights are random and networks small;
what was recorded is part of the tests.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from golden import CASES, ITERATIONS, Recorded, recorded_calpha
from official_graphs import layer_inputs, relative, write_pieces
from provenance import machine_facts, write_results
from report import markdown_table

from angelo.frames import apply_frames, frames_from_places
from angelo.session import Graph, Networks
from angelo.types import BackboneFrames, Density
from angelo_export.modelangelo_graphs import calpha_piece, graph_pieces
from angelo_export.networks.blocks import rotations_from_backbone, to_global

#: Arrays in the order of the pipeline, and what they are.
ARRAYS = {
    "neighbours": "nearest residues, share that differ",
    "logits": "logits of the C-alpha network",
    "start": "features before the first layer",
    "cubes": "density cubes",
    "rectangles": "density boxes along edges",
    "x_after_cryo": "features after the density",
    "edge_logits": "logits of edges",
    "aa_logits_cryo": "logits of residue types, from the density",
    "sequence_scores": "attention scores of the sequence",
    "x_after_seq": "features after the sequence",
    "aa_logits_seq": "logits of residue types, from the sequence",
    "x_after_ipa": "features after the points",
    "x_out": "features after the layer",
    "aa_logits": "logits of residue types, combined",
    "confidence": "predicted error",
    "existence": "logits of existence",
    "ncac": "N, CA, C",
    "affines_out": "axes of the new frames",
    "pred_torsions": "torsions",
}
Difference = tuple[str, float]


def combined_types(recorded: Recorded, step: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Logits of residue types as the reference combines them: the mean where there are two.

    None without sequences, where it combines them in a way that was not recorded.
    """
    if "aa_logits_seq" not in step:
        return None
    n_predictions = 1 + recorded.is_protein[:, None].float()
    return (step["aa_logits_cryo"] + step["aa_logits_seq"]) / n_predictions


@torch.no_grad()
def torch_differences(recorded: Recorded, iteration: int, layer: int) -> Iterator[Difference]:
    """Every recorded array of one layer in the torch modules."""
    step, ipa, network = recorded.step(iteration, layer), recorded.network.ipa, recorded.network
    is_protein, place = recorded.is_protein, recorded.geometry(step)
    rotations, positions, neighbours = place
    if layer == 0:
        yield "start", relative(network.start(is_protein), step["x_in"])
    density = recorded.density(step)
    seen = ipa.cryo(layer, step["x_in"], *place, *density, is_protein)
    yield "x_after_cryo", relative(seen.features, step["x_after_cryo"])
    yield "edge_logits", relative(seen.edge_logits, step["edge_logits"])
    yield "aa_logits_cryo", relative(seen.aa_logits, step["aa_logits_cryo"])
    before_ipa, pair = step["x_after_cryo"], ()
    if recorded.config.sequence is not None:
        projected = network.project_sequence(recorded.arrays["sequence_embedding"])
        pair = tuple(of_layers[layer] for of_layers in projected)
        scores = ipa.seq_attentions[layer].scores(before_ipa, pair[0]).permute(1, 2, 0)
        expected = step["sequence_scores"][is_protein]
        yield "sequence_scores", relative(scores[is_protein], expected)
        x, types = ipa.attend_sequence(layer, before_ipa, *pair, is_protein)
        yield "x_after_seq", relative(x, step["x_after_seq"])
        yield "aa_logits_seq", relative(types, step["aa_logits_seq"])
        before_ipa = step["x_after_seq"]
    x = ipa.look_around(layer, before_ipa, *place, is_protein)
    yield "x_after_ipa", relative(x, step["x_after_ipa"])
    # Moved as the runtime moves it: centred. Features depend on relative places alone.
    centred = positions - positions.mean(dim=0)
    inputs = (step["x_in"], rotations, centred, neighbours, *density, *pair)
    output = network.layer(layer, *inputs, is_protein=is_protein)
    yield "x_out", relative(output.features, step["x_out"])
    yield "confidence", relative(output.predicted_error, step["confidence"][:, 0])
    yield "existence", relative(output.existence, step["existence"][:, 0])
    if (types := combined_types(recorded, step)) is not None:
        yield "aa_logits", relative(output.aa_logits, types)
    yield "ncac", relative(to_global(rotations, positions, output.places), step["ncac"])
    # From recorded atoms: those above differ by 1e-4 Å, and axes by as much.
    axes = rotations_from_backbone(step["ncac"])
    yield "affines_out", relative(axes, step["affines_out"][..., :3])
    if (iteration, layer) == (ITERATIONS[-1], recorded.config.layers - 1):
        torsions = network.torsions(step["x_out"])
        yield "pred_torsions", relative(torsions, recorded.arrays["out/final/pred_torsions"])


def onnx_differences(
    recorded: Recorded, networks: Networks, iteration: int, layer: int
) -> Iterator[Difference]:
    """What comes out of the ONNX graph of one layer, around which the runtime works."""
    step, config = recorded.step(iteration, layer), recorded.config
    affines = step["affines_in"].numpy()
    frames = BackboneFrames(affines[..., :3].copy(), affines[..., 3].copy())
    is_protein = recorded.is_protein.numpy()
    if layer == 0:
        start = networks.open("start.onnx")
        features = start(start_features=is_protein[:, None].astype(np.float32))["features"]
        yield "start", relative(features, step["x_in"])
    pair = {}
    if config.sequence is not None:
        embedding = recorded.arrays["sequence_embedding"].numpy()
        projected = networks.open("seq_kv.onnx")(embedding=embedding)
        pair = {name: projected[name][layer] for name in ("keys", "values")}
    grid = recorded.arrays["grid"].numpy()
    density = Density(grid, np.ones(3, np.float32), np.zeros(3, np.float32))
    inputs = layer_inputs(config, density, frames, step["x_in"].numpy(), is_protein, pair)
    is_other = inputs["neighbours"] != step["neighbours"].numpy()
    yield "neighbours", float(is_other.mean())
    expected_cubes, expected_boxes = recorded.density(step)
    yield "cubes", relative(inputs["cubes"], expected_cubes)
    yield "rectangles", relative(inputs["rectangles"], expected_boxes)
    output = networks.open(f"layer_{layer:02}.onnx")(**inputs)
    yield "x_out", relative(output["features_out"], step["x_out"])
    yield "ncac", relative(apply_frames(frames, output["shifts"]), step["ncac"])
    after = frames_from_places(frames, output["shifts"])
    yield "affines_out", relative(after.rotation, step["affines_out"][..., :3])
    if layer == config.layers - 1:  # heads of other layers are left out
        if (types := combined_types(recorded, step)) is not None:
            yield "aa_logits", relative(output["aa_logits"], types)
        predicted = output["predicted_error"].reshape(-1)
        yield "confidence", relative(predicted, step["confidence"][:, 0])
        existence = output["existence"].reshape(-1)
        yield "existence", relative(existence, step["existence"][:, 0])
        if iteration == ITERATIONS[-1]:
            torsions = networks.open("heads.onnx")(features=step["x_out"].numpy())["torsions"]
            expected = recorded.arrays["out/final/pred_torsions"].numpy()
            yield "pred_torsions", relative(torsions.reshape(expected.shape), expected)


@torch.no_grad()
def calpha_differences(folder: Path) -> dict[str, float]:
    """Logits of the recorded windows, in torch and ONNX."""
    network, arrays = recorded_calpha()
    windows, expected = arrays["x"], arrays["y"]
    piece = calpha_piece(network, windows.shape[-1])
    graph = Graph(piece.write(piece.trace(), folder))
    got = [graph(windows=window[None].numpy())["logits"] for window in windows]
    return {
        "torch": relative(network(windows), expected),
        "onnx": relative(np.concatenate(got), expected),
    }


def keep_worst(found: Iterator[Difference], worst: dict[str, float]) -> None:
    """Keep the largest difference of each array."""
    for name, value in found:
        worst[name] = max(worst.get(name, 0.0), value)


def measure(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Worst difference of every array over layers and iterations: by case, then torch, onnx."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case in CASES:
        recorded, graphs = Recorded(case), folder / case
        write_pieces(graph_pieces(recorded.network), graphs)
        worst: dict[str, dict[str, float]] = {"torch": {}, "onnx": {}}
        with Networks(graphs) as networks:
            for iteration in ITERATIONS:
                for layer in range(recorded.config.layers):
                    keep_worst(torch_differences(recorded, iteration, layer), worst["torch"])
                    keep_worst(
                        onnx_differences(recorded, networks, iteration, layer), worst["onnx"]
                    )
        found[case] = worst
    calpha = calpha_differences(folder)
    found["c_alpha"] = {kind: {"logits": value} for kind, value in calpha.items()}
    return found


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: arrays down, torch and ONNX of each case across."""
    cases = [case for case in found if case != "c_alpha"]
    rows = []
    for name, meaning in ARRAYS.items():
        cells = []
        for case in cases if name != "logits" else ["c_alpha"] * len(cases):
            for kind in ("torch", "onnx"):
                value = found[case][kind].get(name)
                cells.append("-" if value is None else f"{value:.1e}")
        rows.append([meaning, *cells])
    head = [f"{case.replace('_', ' ')}: {kind}" for case in cases for kind in ("torch", "ONNX")]
    return markdown_table(["array", *head], rows)


def main(
    out: Annotated[Path, typer.Option(help="JSON file; a table goes beside it.")] = Path(
        "benchmarks/parity.json"
    ),
) -> None:
    """Compare torch modules and ONNX graphs with recorded arrays of the reference."""
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(Path(scratch))
    text = (
        "# Parity with ModelAngelo\n\nWritten by `python benchmarks/parity.py`. Worst "
        "difference over two layers and two iterations, relative to the largest value of the "
        "array, in single precision; each layer starts from what the reference's layer started "
        "from. The ONNX graphs hold heads of the last layer alone, and no edge logits.\n\n"
    )
    content = {"machine": machine_facts(), "worst": found}
    write_results(out, content, text + table(found) + "\n")


if __name__ == "__main__":
    typer.run(main)
