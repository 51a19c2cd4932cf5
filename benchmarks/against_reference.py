"""The reference's program and this one on the same weights and inputs, in one run.

Random full-size weights; one 64³ window of the C-alpha network, one 200-residue crop of the
graph network (two passes through its layers), and ESM-1b on a chain of 500 residues, with
contacts in the reference, which computes them. Both get the same inputs. In the crop each of
our layers starts from what the reference's layer started from: with random weights a difference
of 1e-5 Å would otherwise grow to Ångströms, in any two programs.

The reference's checkout, and what it imports, must be importable: run this where it runs.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from official_graphs import layer_inputs, relative, write_pieces
from provenance import machine_facts, write_json
from reference_networks import (
    Recorder,
    Step,
    reference_calpha,
    reference_graph,
    reference_language,
    reference_modules,
    take_language_weights,
    take_weights,
)
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter

from angelo.frames import apply_frames, frames_from_places, octant_rotations
from angelo.session import Device, Graph, Networks
from angelo.types import BackboneFrames, Density
from angelo_export.esm_checkpoints import GRAPH as EMBEDDER
from angelo_export.foreign import load_foreign
from angelo_export.modelangelo_graphs import calpha_piece, graph_pieces
from angelo_export.networks.c_alpha import CalphaConfig, CalphaNetwork
from angelo_export.networks.gnn import GraphConfig, GraphNetwork
from angelo_export.networks.language import ALPHABET, ESM1B, LanguageConfig, LanguageEmbedder

#: Voxels along the density, of 1 Å, that a crop lies in.
GRID = 96
#: Passes through all layers.
ITERATIONS = 2


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is timed."""

    calpha: CalphaConfig = field(default_factory=CalphaConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    language: LanguageConfig = ESM1B
    window: int = 64
    residues: int = 200
    sequence: int = 500
    chain: int = 500  # the contacts of 1,000 take more than 20 GB in the reference


#: For a check of this program in seconds.
SMALL = Sizes(
    CalphaConfig(features=4, blocks=(1, 2, 1, 1)),
    GraphConfig(sequence=24, hidden=16, layers=2, heads=2, density=16),
    LanguageConfig(layers=2, width=24, heads=2, positions="learned"),
    window=32,
    residues=40,
    sequence=30,
    chain=60,
)


@dataclass(slots=True)
class Clock:
    """Wall and processor time of what runs under ``timed``."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def timed(self, device: str) -> Iterator[None]:
        """Add the time of a block."""
        _wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        _wait(device)
        self.seconds += time.perf_counter() - wall
        self.cpu_seconds += time.process_time() - cpu


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def random_weights(sizes: Sizes) -> tuple[CalphaNetwork, GraphNetwork]:
    """Return both networks, with the initial weights of their layers."""
    torch.manual_seed(0)
    return CalphaNetwork(sizes.calpha).eval(), GraphNetwork(sizes.graph).eval()


@torch.no_grad()
def time_window(
    theirs: torch.nn.Module, folder: Path, sizes: Sizes, device: str, threads: int
) -> dict[str, Any]:
    """One window through both C-alpha networks."""
    rng = np.random.default_rng(0)
    window = rng.normal(size=(1, 2, *[sizes.window] * 3)).astype(np.float32)
    window = gaussian_filter(window, (0, 0, 1, 1, 1)) * 5
    theirs.to(device)
    batch = torch.from_numpy(window).to(device)
    path = folder / "c_alpha.onnx"
    graph = Graph(path, Device(device), threads or None, keeps_memory=True)
    if device == "cuda":  # what is loaded with the first call belongs to neither
        theirs(batch)
        graph(windows=window)
    reference, ours = Clock(), Clock()
    with reference.timed(device):
        expected = theirs(batch).cpu().numpy()
    with ours.timed(device):
        logits = graph(windows=window)["logits"]
    off = np.sqrt(np.square(logits - expected).mean()) / expected.std()
    return _row("one window", reference, ours, {"logits, rms in deviations": float(off)})


@torch.no_grad()
def time_crop(
    theirs: torch.nn.Module, folder: Path, sizes: Sizes, device: str, threads: int
) -> dict[str, Any]:
    """All layers of one crop, twice, through both graph networks."""
    rng = np.random.default_rng(1)
    values = gaussian_filter(rng.normal(size=[GRID] * 3).astype(np.float32), 1)
    density = Density(values / values.std(), np.ones(3, np.float32), np.zeros(3, np.float32))
    n = sizes.residues
    walk = np.cumsum(rng.normal(size=(n, 3)) * 2, axis=0)
    places = (GRID / 2 + (walk - walk.mean(0)) * (GRID / 5) / np.abs(walk).max()).astype("f4")
    frames = BackboneFrames(octant_rotations(n, rng), places)
    embedding = rng.normal(size=(sizes.sequence, sizes.graph.sequence)).astype(np.float32)
    affines = np.concatenate([frames.rotation, frames.ca[..., None]], axis=-1)
    inputs = {
        "sequence": torch.from_numpy(embedding)[None].to(device),
        "sequence_mask": torch.ones(1, sizes.sequence, device=device),
        "positions": torch.from_numpy(places).to(device),
        "prot_mask": torch.ones(n, dtype=torch.bool, device=device),
        "init_affine": torch.from_numpy(affines).to(device),
        "batch": None,
        "cryo_grids": [torch.from_numpy(density.values_zyx[None]).to(device)],
        "cryo_global_origins": [torch.zeros(3, device=device)],
        "cryo_voxel_sizes": [torch.ones(1, device=device)],
        "run_iters": ITERATIONS,
        "seq_attention_batch_size": 200,
    }
    theirs.to(device)
    reference, ours = Clock(), Clock()
    if device == "cuda":
        theirs(**inputs)
    recorder = Recorder(theirs, sizes.graph, inputs["init_affine"])
    with reference.timed(device):
        result = theirs(**inputs)
    recorder.finish()
    steps = recorder.steps
    with Networks(folder, Device(device), threads or None) as networks:
        worst, last = _run_layers(
            networks, sizes.graph, density, embedding, steps, ours, device
        )
        heads = networks.open("heads.onnx")
        with ours.timed(device):
            torsions = heads(features=steps[-1].features_out.numpy())["torsions"]
    for name, got, expected in (
        ("torsions", torsions, result["pred_torsions"]),
        ("amino acids", last["aa_logits"], result["cryo_aa_logits"][-1]),
        ("predicted error", last["predicted_error"], result["local_confidence_score"][-1]),
    ):
        wanted = expected.cpu().numpy()
        worst[name] = relative(got.reshape(wanted.shape), wanted)
    return _row("one crop", reference, ours, worst)


@torch.no_grad()
def time_language(folder: Path, sizes: Sizes, device: str, threads: int) -> dict[str, Any]:
    """ESM-1b once, as both programs call it. The reference does so in every round."""
    theirs = reference_language(sizes.language)
    checkpoint, embedder = folder / "esm.pt", folder / "esm"
    if not checkpoint.exists():
        torch.manual_seed(0)
        settings = argparse.Namespace(
            arch="roberta_large", attention_heads=sizes.language.heads, token_dropout=True
        )
        state = LanguageEmbedder(sizes.language).state_dict()
        torch.save({"args": settings, "model": state}, checkpoint)
        del state
    if not embedder.exists():  # in a process of its own: it takes as much memory as all else
        command = [sys.executable, "-m", "angelo_export", "import-esm", str(checkpoint)]
        subprocess.run([*command, "-o", str(embedder)], check=True)
    take_language_weights(theirs, load_foreign(checkpoint)["model"])
    rng = np.random.default_rng(2)
    letters = [ALPHABET.index(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"]
    ends = ALPHABET.index("<cls>"), ALPHABET.index("<eos>")
    tokens = np.array([[ends[0], *rng.choice(letters, sizes.chain), ends[1]]])
    graph = Graph(embedder / EMBEDDER, Device(device), threads or None)
    layer = sizes.language.layers
    theirs.to(device)
    batch = torch.from_numpy(tokens).to(device)
    if device == "cuda":
        theirs(batch, repr_layers=[layer], return_contacts=True)
        graph(tokens=tokens)
    reference, ours = Clock(), Clock()
    with reference.timed(device):
        result = theirs(batch, repr_layers=[layer], return_contacts=True)
    with ours.timed(device):
        embedding = graph(tokens=tokens)["embedding"]
    expected = result["representations"][layer].cpu().numpy()
    return _row("language model", reference, ours, {"embedding": relative(embedding, expected)})


def _run_layers(
    networks: Networks,
    config: GraphConfig,
    density: Density,
    embedding: np.ndarray,
    steps: list[Step],
    clock: Clock,
    device: str,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Our layers, each from what the reference's started from: differences, last output."""
    for name in (f"layer_{number:02}.onnx" for number in range(config.layers)):
        networks.open(name)  # loading a file is not refinement
    projection = networks.open("seq_kv.onnx")
    with clock.timed(device):
        pairs = projection(embedding=embedding)
    networks.close("seq_kv.onnx")
    worst = {"features": 0.0, "N, CA, C": 0.0, "axes": 0.0}
    for number, step in enumerate(steps):
        layer = number % config.layers
        array = step.affines.numpy()
        frames = BackboneFrames(array[..., :3].copy(), array[..., 3].copy())
        graph = networks.open(f"layer_{layer:02}.onnx")
        with clock.timed(device):
            pair = {name: pairs[name][layer] for name in ("keys", "values")}
            features, is_protein = step.features.numpy(), np.ones(len(frames), bool)
            output = graph(**layer_inputs(config, density, frames, features, is_protein, pair))
            after = frames_from_places(frames, output["shifts"])
        for name, got, expected in (
            ("features", output["features_out"], step.features_out),
            ("N, CA, C", apply_frames(frames, output["shifts"]), step.places_out),
            ("axes", after.rotation, step.affines_out[..., :3]),
        ):
            worst[name] = max(worst[name], relative(got, expected.numpy()))
    return worst, output


def _row(what: str, reference: Clock, ours: Clock, off: dict[str, float]) -> dict[str, Any]:
    return {
        "what": what,
        "reference": {"seconds": reference.seconds, "cpu_seconds": reference.cpu_seconds},
        "angelo": {"seconds": ours.seconds, "cpu_seconds": ours.cpu_seconds},
        "ratio": reference.seconds / ours.seconds,
        "cpu_ratio": reference.cpu_seconds / ours.cpu_seconds,
        "difference": off,
    }


def main(
    reference: Annotated[Path, typer.Option(help="Checkout of model-angelo.")],
    scratch: Annotated[Path, typer.Option(help="Folder for ONNX graphs; used again.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    parts: Annotated[
        str, typer.Option(help="Of window, crop and language.")
    ] = "window,crop,language",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: one per core.")] = 0,
    small: Annotated[bool, typer.Option("--small", help="Reduced widths: a check.")] = False,
    machine: Annotated[str, typer.Option(help="What people call this machine.")] = "",
) -> None:
    """Time the reference and angelo on the same weights and inputs."""
    sizes = SMALL if small else Sizes()
    if threads:
        torch.set_num_threads(threads)
    calpha, graph = random_weights(sizes)
    folder = scratch / ("small" if small else "full")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    if "language" in parts:
        rows.append(time_language(folder, sizes, device, threads))
    if "window" in parts or "crop" in parts:
        definition, graph_class = reference_modules(reference)
    if "window" in parts:
        write_pieces([calpha_piece(calpha, sizes.window)], folder)
        theirs = reference_calpha(definition, sizes.calpha)
        take_weights(theirs, calpha, "net.")
        rows.append(time_window(theirs, folder, sizes, device, threads))
    if "crop" in parts:
        write_pieces(list(graph_pieces(graph)), folder)
        theirs = reference_graph(graph_class, sizes.graph)
        take_weights(theirs, graph, "ipa.")
        rows.append(time_crop(theirs, folder, sizes, device, threads))
    facts = machine_facts(machine) | {"torch": torch.__version__, "device": device}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    content = {"machine": facts, "threads": threads, "small": small, "rows": rows}
    content["peak_memory_mib"] = peak
    if out is not None:
        write_json(out, content)
    table = Table(
        "", "reference, s", "CPU s", "angelo, s", "CPU s", "ratio", "CPU ratio", "difference"
    )
    for row in rows:
        times = [row[who][k] for who in ("reference", "angelo") for k in row[who]]
        shown = [f"{x:.2f}" for x in (*times, row["ratio"], row["cpu_ratio"])]
        table.add_row(row["what"], *shown, json.dumps(row["difference"]))
    Console(width=150).print(table)
    typer.echo(f"peak memory of this process, both programs: {peak} MiB")


if __name__ == "__main__":
    typer.run(main)
