"""Write a bundle folder from trained weights: graphs, parity, manifest, checksums."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from angelo.errors import BundleError
from angelo.residues import AMINO_ACIDS
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageModel
from angelo_export.parity import worst_difference
from angelo_export.trace import (
    TracedGraph,
    trace_calpha,
    trace_graph_network,
    trace_language,
    write_graph,
)
from angelo_export.weights import load_weights

#: Input window of the C-alpha network and spacing of its outputs, voxels.
WINDOW, STEP = 52, 2
#: A graph that differs more than this from torch is not written.
PARITY_LIMIT = 1e-4
#: Names of the compact C-alpha network's channels, in order.
CHANNELS = (
    "calpha",
    *(f"{what}_{axis}" for what in ("offset", "n", "c") for axis in "xyz"),
    *(f"aa_{name}" for name in AMINO_ACIDS),
)


def write_compact_bundle(
    runs: Path, settings: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write the compact bundle from ``runs/{c_alpha,language,gnn}/weights.pt``.

    ``settings`` holds what is chosen rather than trained: name, version, licence, citation,
    made_by, spectrum, points, chains, rounds, min_existence. Returns the manifest.

    Raises
    ------
    BundleError
        If a graph departs from torch by more than ``PARITY_LIMIT``.
    """
    calpha_state, calpha_config = load_weights(runs / "c_alpha" / "weights.pt")
    calpha = CompactCalpha(CompactCalphaConfig(**calpha_config))
    calpha.load_state_dict(calpha_state)
    language_state, language_config = load_weights(runs / "language" / "weights.pt")
    language = LanguageModel(LanguageConfig(**language_config))
    language.load_state_dict(language_state)
    graph_state, graph_config = load_weights(runs / "gnn" / "weights.pt")
    graph = CompactGraph(CompactGraphConfig(**graph_config))
    graph.load_state_dict(graph_state)
    traced = [
        trace_calpha(calpha, WINDOW, STEP),
        trace_language(language),
        *trace_graph_network(graph),
    ]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unfinished = Path(scratch)
        parity = write_checked(traced, unfinished)
        manifest = compact_manifest(calpha.config, graph.config, settings, parity, unfinished)
        text = json.dumps(manifest, indent=1) + "\n"
        (unfinished / "bundle.json").write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for old in folder.glob("*.onnx"):
            old.unlink()
        for path in unfinished.iterdir():
            shutil.copyfile(path, folder / path.name)
    return manifest


def write_checked(graphs: list[TracedGraph], folder: Path) -> dict[str, float]:
    """Write graphs and return the worst parity error of each."""
    parity = {}
    for graph in graphs:
        path = write_graph(graph, folder)
        differences = worst_difference(graph, path)
        port, worst = max(differences.items(), key=lambda item: item[1])
        if not worst <= PARITY_LIMIT:
            raise BundleError(
                f"{graph.name}: {port} differs from torch by {worst:.1e} of its scale, more than "
                f"{PARITY_LIMIT:.0e}; the exporter and ONNX Runtime versions may not fit"
            )
        parity[graph.name] = float(f"{worst:.2g}")
    return parity


def compact_manifest(
    calpha: CompactCalphaConfig,
    graph: CompactGraphConfig,
    settings: Mapping[str, Any],
    parity: Mapping[str, float],
    folder: Path,
) -> dict[str, Any]:
    """``bundle.json`` of a compact bundle whose graphs lie in ``folder``."""
    reach = calpha.reach
    kept = (WINDOW - 2 * reach - 1) // STEP + 1
    files = {
        path.name: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in sorted(folder.glob("*.onnx"))
    }
    letters = {letter: ALPHABET.index(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"}
    return {
        "format": "angelo-bundle",
        "format_version": 1,
        **{key: settings[key] for key in ("name", "version", "licence", "citation", "made_by")},
        "accuracy": dict(settings.get("accuracy", {})),
        "parity": dict(parity),
        "files": files,
        "residue_types": list(AMINO_ACIDS),
        "map": {"voxel_size": 1.0, "spectrum": settings["spectrum"], "scale": "contrast"},
        "c_alpha": {
            "graph": "c_alpha.onnx",
            "voxel_size": 1.0,
            "inputs": ["density"],
            "channels": list(CHANNELS),
            "window": WINDOW,
            "step": STEP,
            "start": float(reach),
            "margin": reach,
            "stride": kept * STEP,
            "batch": 4,
            "points": dict(settings["points"]),
        },
        "language": {
            "graph": "embedder.onnx",
            "tokens": letters,
            "begin": ALPHABET.index("<cls>"),
            "end": ALPHABET.index("<eos>"),
            "unknown": ALPHABET.index("X"),
            "max_length": 1022,
            "overlap": 256,
        },
        "gnn": {
            "start": "start.onnx",
            "start_features": ["aa_logits", "probability"],
            "sequence": "seq_kv.onnx",
            "layers": [f"layer_{number:02}.onnx" for number in range(graph.layers)],
            "heads": "heads.onnx",
            "hidden": graph.hidden,
            "neighbours": graph.neighbours,
            "cube": {"side": graph.cube_side, "spacing": graph.cube_spacing},
            "rectangle": {
                "length": graph.rectangle_length,
                "side": graph.rectangle_side,
                "spacing": graph.rectangle_spacing,
                "method": "axis",
            },
            "frames": "alphafold",
            "start_frames": "predicted",
            "iterations": 1,
            "rounds": settings["rounds"],
            "crop": None,
            "min_existence": settings["min_existence"],
        },
        "chains": dict(settings["chains"]),
    }
