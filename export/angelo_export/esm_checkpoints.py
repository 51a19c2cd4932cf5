"""ESM checkpoints -> the embedder of a bundle, and what its manifest says of it.

What is written gives the last layer's representation after the final layer norm: fair-esm's
``representations[number of layers]``.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo.errors import BundleError, OutputError
from angelo_export.bundle import file_record, file_records
from angelo_export.esm_files import read_esm
from angelo_export.external_weights import round_matrices_to_half, write_large_graph
from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageEmbedder
from angelo_export.parity import Outputs, file_outputs, torch_outputs, worst_differences
from angelo_export.trace import TracedGraph

#: File of the embedder in a bundle; its matrices lie beside it (``external_weights``).
GRAPH = "embedder.onnx"
#: Residues of the longest sequences that ESM-2 was trained on; rotary positions set no limit.
TRAINED_LENGTH = 1022
#: Residues that windows of a longer chain share at least, or a quarter of a shorter window.
OVERLAP = 256
#: Lengths of the inputs that are traced (the first) and compared, begin and end included.
CHECKED_LENGTHS = (40, 3, 75)
#: A graph that differs more than this from torch, relative to the largest value, is refused;
#: so is one that storage in half precision changes by more than the second.
PARITY_LIMIT, HALF_LIMIT = 1e-4, 1e-2
#: Sections for the manifest of a bundle, beside an embedder that is not yet part of one.
SECTIONS = "language.json"
#: Of the published files, and what to cite for them, by family.
LICENCE = "MIT"
CITATIONS = {
    "learned": "Rives et al. 2021, doi:10.1073/pnas.2016239118",
    "rotary": "Lin et al. 2023, doi:10.1126/science.ade2574",
}


@dataclass(frozen=True, slots=True)
class EsmExport:
    """What a bundle's manifest says of an embedder."""

    language: dict[str, Any]
    """Section ``language``."""
    parity: dict[str, float]
    """Entries of ``parity``: the graph's, and ``half_precision_storage`` where it applies."""
    positions: Literal["learned", "rotary"]
    """Which family: ESM-1b or ESM-2."""


def import_esm(path: Path, folder: Path, *, half: bool) -> EsmExport:
    """Write a new folder with an embedder and ``language.json``, to be made part of a bundle.

    Parameters and errors as in ``export_esm``; the folder must be new or empty.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise OutputError(f"{folder}: holds files already; name a new folder")
    try:
        return _import_esm(path, folder, half)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or error}); check that folder and "
            "the room on its disk, or give another one with -o"
        ) from error


def _import_esm(path: Path, folder: Path, half: bool) -> EsmExport:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as scratch:
        unfinished = Path(scratch)
        export = export_esm(path, unfinished, half=half)
        sections = {
            "licence": LICENCE,
            "citation": CITATIONS[export.positions],
            "made_by": {"checkpoint": {path.name: file_record(path)}},
            "parity": export.parity,
            "files": file_records(unfinished, f"{GRAPH}*"),
            "language": export.language,
        }
        text = json.dumps(sections, indent=1, ensure_ascii=False) + "\n"
        (unfinished / SECTIONS).write_text(text, encoding="utf-8")
        folder.mkdir(exist_ok=True)
        for file in sorted(unfinished.iterdir()):
            file.replace(folder / file.name)
    return export


def export_esm(path: Path, folder: Path, *, half: bool) -> EsmExport:
    """Write ``embedder.onnx`` and ``embedder.onnx.data`` into a folder, compared with torch.

    Parameters
    ----------
    path
        Checkpoint; see ``esm_files.read_esm``.
    half
        Store matrices in half precision. Half the size; the loss is measured.

    Raises
    ------
    CheckpointError
        If the file is not one that ``esm_files.read_esm`` takes.
    OutputError
        If the folder's disk has too little room.
    BundleError
        If the graph departs from torch by more than ``PARITY_LIMIT`` or ``HALF_LIMIT``.
    """
    network = read_esm(path)
    _require_room(folder, network, half)
    graph = _traced_graph(network)
    expected = torch_outputs(graph)
    stored, parity = expected, {}
    if half:
        round_matrices_to_half(network)
        stored = torch_outputs(graph)
        parity["half_precision_storage"] = _difference(expected, stored, HALF_LIMIT, path)
    language, positions = language_section(network.config), network.config.positions
    file = write_large_graph(graph, folder, half=half)
    # A large network need not be in memory twice.
    del network
    graph = replace(graph, module=nn.Identity())
    got = file_outputs(graph, file)
    _difference(stored, got, PARITY_LIMIT, path)
    parity[GRAPH] = _difference(expected, got, HALF_LIMIT, path)
    return EsmExport(language, parity, positions)


def language_section(config: LanguageConfig) -> dict[str, Any]:
    """Section ``language`` of the manifest (docs/bundle.md)."""
    learned = config.positions == "learned"
    max_length = config.max_positions - 2 if learned else TRAINED_LENGTH  # begin and end
    return {
        "graph": GRAPH,
        "tokens": {
            token: ALPHABET.index(token) for token in sorted(ALPHABET) if token.isalpha()
        },
        "begin": ALPHABET.index("<cls>"),
        "end": ALPHABET.index("<eos>"),
        "unknown": ALPHABET.index("<unk>"),
        "max_length": max_length,
        "overlap": min(OVERLAP, max_length // 4),
    }


class _Unpadded(nn.Module):
    """The network of one sequence at a time, as the runtime calls it."""

    def __init__(self, network: LanguageEmbedder) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Int[Tensor, "1 l"]) -> Float[Tensor, "1 l e"]:
        """Embed one sequence."""
        return self.network.embed_unpadded(tokens)


def _traced_graph(network: LanguageEmbedder) -> TracedGraph:
    """Return what is traced, with the inputs on which it is compared."""
    generator = torch.Generator().manual_seed(0)
    longest = language_section(network.config)["max_length"] + 2
    inputs = []
    for length in CHECKED_LENGTHS:
        tokens = torch.randint(4, 24, (1, min(length, longest)), generator=generator)
        tokens[0, 0], tokens[0, -1] = ALPHABET.index("<cls>"), ALPHABET.index("<eos>")
        inputs.append((tokens,))
    axes = {"tokens": {1: "residues"}, "embedding": {1: "residues"}}
    return TracedGraph(
        GRAPH, _Unpadded(network), tuple(inputs), ("tokens",), ("embedding",), axes
    )


def _difference(expected: Outputs, got: Outputs, limit: float, path: Path) -> float:
    """Worst difference to two digits. Raises BundleError above the limit."""
    worst = worst_differences(expected, got)["embedding"]
    if not worst <= limit:
        raise BundleError(
            f"{path}: what was written differs from torch by {worst:.1e} of the largest value, "
            f"more than {limit:.0e}; check that the file's weights are finite, and that torch, "
            "onnx and onnxruntime are the versions that export/pyproject.toml asks for"
        )
    return float(f"{worst:.2g}")


def _require_room(folder: Path, network: LanguageEmbedder, half: bool) -> None:
    elements = sum(value.numel() for value in network.state_dict().values())
    wanted, free = elements * (2 if half else 4), shutil.disk_usage(folder).free
    if wanted > free:
        raise OutputError(
            f"{folder}: the embedder takes {wanted / 1e9:.1f} GB, but {free / 1e9:.1f} GB are "
            "free there; make room" + ("" if half else " or store it in half precision")
        )
