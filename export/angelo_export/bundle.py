"""Write a bundle folder from trained weights: graphs, parity, manifest, checksums."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch

from angelo.bundle import load_bundle
from angelo.errors import BundleError
from angelo.residues import AMINO_ACIDS
from angelo_export.calpha_networks import load_calpha, window_geometry
from angelo_export.graph_networks import load_graph
from angelo_export.language_networks import Embedder, load_language
from angelo_export.networks.compact_c_alpha import CHANNELS, CompactCalpha
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.language import ALPHABET
from angelo_export.networks.sequence_context import SequenceContext
from angelo_export.parity import file_outputs, torch_outputs, worst_differences
from angelo_export.settings import BundleSettings
from angelo_export.storage import store_in_half
from angelo_export.trace import (
    OPSET,
    TracedGraph,
    trace_calpha,
    trace_graph_network,
    trace_language,
    write_graph,
)

#: A graph that differs more than this from torch is not written. Trained networks: about 1e-6.
PARITY_LIMIT = 1e-4
#: The same for the storage in half precision, which rounds weights to one part in 2000. Weights
#: from files of ours are rounded already and lose nothing more.
STORAGE_LIMIT = 1e-2
#: Residues to a call of the embedder, and residues that its windows share at least. What looks
#: at letters alone takes every chain whole.
MAX_LENGTH, OVERLAP, ANY_LENGTH = 1022, 256, 1_000_000
#: Graphs that only a network which reads sequences needs.
READERS = ("embedder.onnx", "seq_kv.onnx")
#: Weight files in a folder.
WEIGHT_FILES = ("c_alpha.pt", "language.pt", "gnn.pt")


@dataclass(frozen=True, slots=True)
class CompactNetworks:
    """The three networks of a compact bundle."""

    calpha: CompactCalpha
    language: Embedder
    graph: CompactGraph

    def __post_init__(self) -> None:
        channels, graph = self.calpha.config.channels, self.graph.config
        width, n_types = self.language.config.width, len(AMINO_ACIDS)
        for what, got, wanted in (
            ("channels of the C-alpha network", channels, len(CHANNELS)),
            ("residue types of the graph network", graph.residue_types, n_types),
            ("start features of the graph network", graph.start_features, n_types + 1),
            ("sequence channels of the graph network", graph.sequence, width),
        ):
            if got != wanted:
                raise BundleError(
                    f"the weights do not fit together: {got} {what}, wanted {wanted}; train "
                    "the graph network on the other two"
                )


def write_compact_bundle(
    weights: Path,
    settings: BundleSettings,
    spectrum: Mapping[str, Any],
    folder: Path,
    accuracy: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the compact bundle; other files in ``folder`` (model card, settings) stay.

    The same weights and settings give the same bytes. Nothing in ``folder`` changes until all
    is written, compared with torch, and loaded once as the runtime does.

    Parameters
    ----------
    weights
        Folder with ``WEIGHT_FILES``.
    spectrum
        Section ``map.spectrum`` of the manifest: the profile that the networks are trained on.
    accuracy
        What was measured, for the manifest.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    CheckpointError
        If a weight file is missing or of another network.
    BundleError
        If the networks do not fit together, a graph departs from torch by more than
        ``PARITY_LIMIT``, or the runtime would refuse the manifest.
    """
    networks = load_networks(weights)
    graphs = [
        trace_calpha(networks.calpha, window_geometry(networks.calpha)["window"]),
        trace_language(networks.language),
        *trace_graph_network(networks.graph),
    ]
    if not settings.reads_sequences:
        graphs = [graph for graph in graphs if graph.name not in READERS]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as scratch:
        unfinished = Path(scratch)
        parity = write_checked(graphs, unfinished, half=settings.half_precision_storage)
        manifest = {
            "format": "angelo-bundle",
            "format_version": 1,
            "name": settings.name,
            "version": settings.version,
            "licence": settings.licence,
            "citation": settings.citation,
            "made_by": {**settings.made_by, **provenance(weights)},
            "accuracy": dict(accuracy or {}),
            "parity": parity,
            "files": file_records(unfinished, "*.onnx"),
            **network_sections(networks, settings, spectrum),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (unfinished / "bundle.json").write_text(text, encoding="utf-8")
        load_bundle(unfinished)
        install(unfinished, folder)
    return manifest


def load_networks(folder: Path) -> CompactNetworks:
    """Networks from the three weight files in a folder. Raises CheckpointError, BundleError."""
    calpha, language, graph = (folder / name for name in WEIGHT_FILES)
    return CompactNetworks(load_calpha(calpha), load_language(language), load_graph(graph))


def write_checked(
    graphs: Sequence[TracedGraph], folder: Path, *, half: bool
) -> dict[str, float]:
    """Write graphs, compare them with torch, and return the worst difference of each.

    With ``half``, weights are stored in half precision; the entry ``half_precision_storage`` is
    then the worst that this alone changes in any graph.
    """
    parity, lost = {}, 0.0
    for graph in graphs:
        path = write_graph(graph, folder)
        expected, got = torch_outputs(graph), file_outputs(graph, path)
        worst = _require_within(PARITY_LIMIT, worst_differences(expected, got), path)
        if half:
            store_in_half(path)
            stored = file_outputs(graph, path)
            change = worst_differences(got, stored)
            lost = max(lost, _require_within(STORAGE_LIMIT, change, path))
            worst = max(worst_differences(expected, stored).values())
        parity[graph.name] = _rounded(worst)
    if half:
        parity["half_precision_storage"] = _rounded(lost)
    return parity


def _require_within(limit: float, differences: Mapping[str, float], path: Path) -> float:
    port, worst = max(differences.items(), key=lambda item: item[1])
    if worst > limit:
        raise BundleError(
            f"{path.name}: {port} is off by {worst:.1e} of its scale, more than {limit:.0e}; "
            "check that torch, onnx and onnxruntime are the versions export/pyproject.toml asks"
        )
    return worst


def _rounded(difference: float) -> float:
    return float(f"{difference:.2g}")


def provenance(weights: Path) -> dict[str, Any]:
    """Checksums of the weight files and versions of what wrote the graphs."""
    return {
        "weights": {
            name: record["sha256"] for name, record in file_records(weights, "*.pt").items()
        },
        "exported_with": {
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "onnxruntime": onnxruntime.__version__,
            "opset": OPSET,
        },
    }


def file_records(folder: Path, pattern: str) -> dict[str, dict[str, Any]]:
    """Checksum and size of files by name."""
    return {path.name: file_record(path) for path in sorted(folder.glob(pattern))}


def file_record(path: Path) -> dict[str, Any]:
    """Checksum and size of a file of any size."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def install(unfinished: Path, folder: Path) -> None:
    """Move a finished bundle into place, the manifest last; graphs it lacks are removed."""
    folder.mkdir(exist_ok=True)
    graphs = sorted(unfinished.glob("*.onnx"))
    kept = {path.name for path in graphs}
    for path in (*graphs, unfinished / "bundle.json"):
        path.replace(folder / path.name)
    for stale in folder.glob("*.onnx"):
        if stale.name not in kept:
            stale.unlink()


def network_sections(
    networks: CompactNetworks, settings: BundleSettings, spectrum: Mapping[str, Any]
) -> dict[str, Any]:
    """Sections of the manifest that say how the networks are used."""
    return {
        "residue_types": list(AMINO_ACIDS),
        "map": {"voxel_size": 1.0, "spectrum": dict(spectrum), "scale": "contrast"},
        "c_alpha": _c_alpha_section(networks.calpha, settings),
        "language": _language_section(networks.language) if settings.reads_sequences else None,
        "gnn": _gnn_section(networks.graph.config, settings),
        "chains": dict(settings.chains),
    }


def _c_alpha_section(network: CompactCalpha, settings: BundleSettings) -> dict[str, Any]:
    return {
        "graph": "c_alpha.onnx",
        "voxel_size": 1.0,
        **window_geometry(network),
        "points": asdict(settings.points),
    }


def _language_section(network: Embedder) -> dict[str, Any]:
    is_context = isinstance(network, SequenceContext)
    return {
        "graph": "embedder.onnx",
        "tokens": {letter: ALPHABET.index(letter) for letter in "ACDEFGHIKLMNPQRSTVWY"},
        "begin": ALPHABET.index("<cls>"),
        "end": ALPHABET.index("<eos>"),
        "unknown": ALPHABET.index("X"),
        "max_length": ANY_LENGTH if is_context else MAX_LENGTH,
        "overlap": OVERLAP,
    }


def _gnn_section(graph: CompactGraphConfig, settings: BundleSettings) -> dict[str, Any]:
    return {
        "start": "start.onnx",
        "start_features": ["aa_logits", "probability"],
        "sequence": "seq_kv.onnx" if settings.reads_sequences else None,
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
        "rounds": settings.rounds,
        "crop": None,
        "min_existence": settings.min_existence,
    }
