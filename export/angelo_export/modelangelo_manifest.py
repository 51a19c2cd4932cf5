"""What bundle.json says of an imported ModelAngelo bundle (docs/bundle.md)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import onnx
import onnxruntime
import torch

import angelo
from angelo.errors import BundleError
from angelo_export.modelangelo_files import OfficialFiles, Schedule
from angelo_export.modelangelo_networks import TYPES_BY_NUMBER
from angelo_export.networks.c_alpha import CalphaConfig
from angelo_export.networks.cryo import RECTANGLE_SIDE
from angelo_export.networks.gnn import GraphConfig
from angelo_export.trace import OPSET

#: Meaning of the C-alpha network's channels, in order.
CALPHA_INPUTS = ("density", "local_deviation")
CALPHA_OUTPUTS = ("calpha", "phosphorus", "backbone")
#: Voxels that the C-alpha network was trained on, Å.
CALPHA_VOXEL = 1.5
#: Voxels this close belong to one point, voxels.
MERGE_RADIUS = 1.1
#: Passes through all layers in a round; residues of a crop whose results are kept.
ITERATIONS, CROP_KEEP = 2, 50
#: Windows to a call. The published 4 would take four times the memory and give the same.
BATCH = 1
#: Chains are traced by geometry alone: all links are equally likely (see
#: ``modelangelo_graphs``). The distance is this program's; the reference has its own search.
CHAINS = {"min_next_probability": 0.5, "max_bond": 2.6}
#: The reference keeps every residue, however unlikely its network holds it.
MIN_EXISTENCE = 0.0
CITATION = (
    "Jamali K., Käll L., Zhang R., Brown A., Kimanius D., Scheres S.H.W. (2024), Automated "
    "model building and protein identification in cryo-EM maps, Nature 628, 450-457, "
    "doi:10.1038/s41586-024-07215-4"
)
LICENCE = "of the weights: as published with them"
#: Model card.
CARD = """# {name}

Networks of ModelAngelo, imported from an official bundle ({source}) by `angelo-export
import-modelangelo`: the published weights, unchanged, as ONNX graphs. They are not part of
angelo, and were neither made nor checked by its developers.

- Licence: {licence}.
- Cite: {citation}.
- Each graph was compared with the torch network it was traced from: `parity` in
  `bundle.json`. Checksums of the source are under `made_by`.
- Accuracy was not measured with angelo.
"""


def manifest_of(
    name: str,
    files: OfficialFiles,
    schedule: Schedule,
    calpha: CalphaConfig,
    graph: GraphConfig,
    facts: Mapping[str, Any],
    pieces: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Manifest of a bundle.

    Parameters
    ----------
    name
        Of the bundle.
    facts
        What decides its content, for ``made_by``.
    pieces
        What is known of each graph: ``files``, ``parity``, ``half``, and for the embedder
        ``language`` and ``citation``.

    Raises
    ------
    BundleError
        If the C-alpha network has channels of unknown meaning.
    """
    embedder = pieces.get("embedder.onnx", {})
    step = files.graph.stem.rpartition("_")[2]
    lost = [piece["half"] for piece in pieces.values() if "half" in piece]
    return {
        "format": "angelo-bundle",
        "format_version": 1,
        "name": name,
        "version": f"1.0-{step}",
        "licence": LICENCE + (" (ESM: MIT)" if embedder else ""),
        "citation": "; ".join([CITATION, *filter(None, [embedder.get("citation")])]),
        "made_by": {
            "imported": dict(files.origin),
            **facts,
            "c_alpha": asdict(calpha),
            "gnn": asdict(graph),
            "exported_with": versions(),
        },
        "accuracy": {},
        "parity": {
            **{name: piece["parity"] for name, piece in pieces.items()},
            **({"half_precision_storage": max(lost)} if lost else {}),
        },
        "files": {k: v for piece in pieces.values() for k, v in piece["files"].items()},
        "residue_types": list(TYPES_BY_NUMBER[graph.residue_types]),
        "map": {
            "voxel_size": schedule.voxel_size,
            "spectrum": None,
            "scale": "standard_deviation",
        },
        "c_alpha": _c_alpha(schedule, calpha),
        "language": embedder.get("language"),
        "gnn": gnn_section(schedule, graph),
        "chains": dict(CHAINS),
    }


def versions() -> dict[str, Any]:
    """Return what writes the graphs."""
    return {
        "angelo": angelo.__version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "opset": OPSET,
    }


def _c_alpha(schedule: Schedule, config: CalphaConfig) -> dict[str, Any]:
    if config.n_in > len(CALPHA_INPUTS) or config.n_out > len(CALPHA_OUTPUTS):
        raise BundleError(
            f"a C-alpha network of {config.n_in} inputs and {config.n_out} outputs; at most "
            f"{len(CALPHA_INPUTS)} and {len(CALPHA_OUTPUTS)} are known"
        )
    return {
        "graph": "c_alpha.onnx",
        "voxel_size": CALPHA_VOXEL,
        "inputs": list(CALPHA_INPUTS[: config.n_in]),
        "channels": list(CALPHA_OUTPUTS[: config.n_out]),
        "window": schedule.window,
        "step": 1,
        "start": 0.0,
        "margin": schedule.margin,
        "stride": schedule.stride,
        "batch": BATCH,
        "points": {
            "method": "merge",
            "threshold": schedule.threshold,
            "radius": MERGE_RADIUS * CALPHA_VOXEL,
            "min_separation": 0.0,
            "min_support": 0.0,
        },
    }


def gnn_section(schedule: Schedule, config: GraphConfig) -> dict[str, Any]:
    """Section ``gnn``: the graph network and the published schedule."""
    size = schedule.crop_size
    return {
        "start": "start.onnx",
        "start_features": ["is_protein"],
        "sequence": None if config.sequence is None else "seq_kv.onnx",
        "layers": [f"layer_{number:02}.onnx" for number in range(config.layers)],
        "heads": "heads.onnx",
        "hidden": config.hidden,
        "neighbours": config.neighbours,
        "cube": {"side": config.cube_side, "spacing": schedule.voxel_size},
        "rectangle": {
            "length": config.rectangle_length,
            "side": RECTANGLE_SIDE,
            "spacing": schedule.voxel_size,
            "method": "modelangelo",
        },
        "frames": "modelangelo",
        "start_frames": "modelangelo",
        "iterations": ITERATIONS,
        "rounds": schedule.rounds,
        "crop": {"size": size, "keep": min(CROP_KEEP, size), "repeats": schedule.repeats},
        "min_existence": MIN_EXISTENCE,
    }
