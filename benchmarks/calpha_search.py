"""The C-alpha network of a bundle alone: windows, points, and what the search costs."""

import hashlib
import json
import multiprocessing
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from builds import own_peak_memory_mib
from jaxtyping import Bool
from provenance import ROOT, write_json

from angelo.bundle import MANIFEST, load_bundle
from angelo.calpha import find_calphas
from angelo.density import prepare_density, read_map
from angelo.manifest import Bundle
from angelo.session import Graph, find_devices
from angelo.types import Density
from angelo.window_plan import WindowSettings, fit_windows
from angelo.windows import VoxelPredictions, run_windows

#: Radial profile that networks are trained on; ``make bundle`` puts it into the manifest.
SPECTRUM = ROOT / "training/angelo_training/spectrum.json"
#: What ``make bundle`` reads beside the manifest.
SETTINGS = "settings.json"


def open_graph(bundle: Bundle, device: str, threads: int) -> Graph:
    """The C-alpha network, on the first of the devices."""
    path = bundle.folder / bundle.c_alpha.graph
    return Graph(path, find_devices(device)[0], threads or None, keeps_memory=True)


def density_for(density: Density, bundle: Bundle) -> Density:
    """What the C-alpha network sees of a map."""
    return prepare_density(density, replace(bundle.map, voxel_size=bundle.c_alpha.voxel_size))


def predict_voxels(
    density: Density, bundle: Bundle, graph: Graph, threshold: float
) -> VoxelPredictions:
    """Predictions over ``threshold`` for a map that ``density_for`` has prepared."""
    part, windows, wanted = fit_windows(density, bundle.c_alpha.windows)
    return predict_windows(part, windows, graph, threshold, wanted)


def predict_windows(
    density: Density,
    settings: WindowSettings,
    graph: Graph,
    threshold: float,
    wanted: Bool[np.ndarray, "wz wy wx"] | None = None,
) -> VoxelPredictions:
    """As ``predict_voxels``, with these windows; ``wanted`` as in ``predict_points``."""

    def run(windows: np.ndarray) -> np.ndarray:
        return graph(windows=windows)["logits"]

    return run_windows(density, settings, run, threshold, wanted=wanted)


def tiled(density: Density, n: int) -> Density:
    """``n`` copies of a map along each axis, side by side."""
    return replace(density, values_zyx=np.tile(density.values_zyx, (n, n, n)))


def measure_search(folder: Path, map_path: Path, device: str, threads: int) -> dict[str, Any]:
    """Time and memory of one search in this process, from the map's file to the points.

    ``seconds`` is that of network and points; reading and preparing the map has its own
    figure, and the most memory held so far is given at the end of either.
    """
    bundle = load_bundle(folder)
    points = bundle.c_alpha.points
    clock = time.perf_counter
    started = clock()
    density = density_for(read_map(map_path), bundle)
    is_prepared, memory_before = clock(), own_peak_memory_mib()
    graph = open_graph(bundle, device, threads)
    cpu_before, began = time.process_time(), clock()
    voxels = predict_voxels(density, bundle, graph, points.threshold)
    predicted = clock()
    calphas = find_calphas(voxels, points, bundle.residue_types)
    ended = clock()
    return {
        "shape_zyx": list(density.values_zyx.shape),
        "n_points": len(calphas),
        "seconds": round(ended - began, 2),
        "network_seconds": round(predicted - began, 2),
        "points_seconds": round(ended - predicted, 2),
        "cpu_seconds": round(time.process_time() - cpu_before, 2),
        "map_seconds": round(is_prepared - started, 2),
        "map_peak_memory_mib": memory_before,
        "peak_memory_mib": own_peak_memory_mib(),
    }


def measure_search_in_own_process(
    folder: Path, map_path: Path, device: str, threads: int
) -> dict[str, Any]:
    """As ``measure_search``, in a fresh process, so that its memory is its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure_search, folder, map_path, device, threads).result()


def bundle_with_network(bundle: Path, weights: Path, folder: Path) -> Path:
    """Copy a bundle into ``folder``, with the C-alpha network of a weight file in its place.

    Its points and its density are those that ``make bundle`` would give it.

    Raises
    ------
    CheckpointError
        If the weights cannot be read.
    BundleError
        If they do not fit the manifest.
    """
    # Not at the top: a bundle is measured without torch.
    from angelo_export.calpha_networks import load_calpha, window_geometry
    from angelo_export.trace import trace_calpha, write_graph

    load_bundle(bundle)
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("*.md", "*.csv", "*.svg"))
    network = load_calpha(weights)
    geometry = window_geometry(network)
    graph = write_graph(trace_calpha(network, geometry["window"]), folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["map"]["spectrum"] = json.loads(SPECTRUM.read_text(encoding="utf-8"))
    manifest["c_alpha"] |= {"graph": graph.name, **geometry}
    if (settings := bundle / SETTINGS).is_file():
        points = json.loads(settings.read_text(encoding="utf-8"))["points"]
        manifest["c_alpha"]["points"] = points
    content = graph.read_bytes()
    checksum = hashlib.sha256(content).hexdigest()
    manifest["files"][graph.name] = {"sha256": checksum, "bytes": len(content)}
    write_json(folder / MANIFEST, manifest)
    load_bundle(folder)
    return folder
