"""ESM checkpoints as the fair-esm project publishes them -> the embedder of a bundle.

ESM-1b and its kin (learned positions) and the ESM-2 family (rotary positions). What is written
gives the last layer's representation after the final layer norm: fair-esm's
``representations[number of layers]``. Token and contact heads are left out on purpose.
"""

import argparse
import json
import re
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from angelo.errors import BundleError, OutputError
from angelo_export.bundle import file_record, file_records
from angelo_export.external_weights import round_matrices_to_half, write_large_graph
from angelo_export.networks.language import ALPHABET, ESM1B, LanguageConfig, LanguageEmbedder
from angelo_export.parity import Outputs, file_outputs, torch_outputs, worst_differences
from angelo_export.trace import TracedGraph
from angelo_export.weights import CheckpointError

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
#: What stands before the names of parameters: ESM-1b, ESM-2, neither.
WRAPPERS = re.compile(r"^(encoder\.)?(sentence_encoder\.)?")
#: Parameters that an embedder does without: predictions of tokens and of contacts.
HEADS = ("lm_head.", "contact_head.")
#: Sections for the manifest of a bundle, beside an embedder that is not yet part of one.
SECTIONS = "language.json"
#: Of the published files, and what to cite for them, by family.
LICENCE = "MIT"
CITATIONS = {
    "learned": "Rives et al. 2021, doi:10.1073/pnas.2016239118",
    "rotary": "Lin et al. 2023, doi:10.1126/science.ade2574",
}
#: What to give instead of a file that is none of these.
WANTED = "give a fair-esm file of ESM-1b or ESM-2, such as esm1b_t33_650M_UR50S.pt"


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


def trace_esm(path: Path, folder: Path, half: bool) -> dict[str, Any]:
    """Write the embedder of a checkpoint; returns section ``language`` (see ``export_esm``)."""
    return export_esm(path, folder, half=half).language


def export_esm(path: Path, folder: Path, *, half: bool) -> EsmExport:
    """Write ``embedder.onnx`` and ``embedder.onnx.data`` into a folder, compared with torch.

    Parameters
    ----------
    path
        Checkpoint; see ``read_esm``.
    half
        Store matrices in half precision. Half the size; the loss is measured.

    Raises
    ------
    CheckpointError
        If the file is not one that ``read_esm`` takes.
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


def read_esm(path: Path) -> LanguageEmbedder:
    """Network of a checkpoint, in single precision; no code from the file is run.

    A checkpoint is what fair-esm publishes, a dictionary of ``model`` and its settings
    (``args`` or ``cfg``), or the parameters alone. Sizes are those of the parameters; the
    settings say how many attention heads there are and whether embeddings are scaled for
    masked tokens.

    Raises
    ------
    CheckpointError
        If the file cannot be read, holds anything but tensors and settings, or holds another
        network; one line that says which.
    """
    parameters, settings = _parts(path, _load(path))
    state = {name: v for name, v in parameters.items() if not name.startswith(HEADS)}
    if parameters and not state:
        raise CheckpointError(
            f"{path}: holds the weights of a token or contact head alone; give the file of the "
            "network, which has the same name without -contact-regression"
        )
    config = _read_config(path, parameters, settings)
    with torch.device("meta"):
        network = LanguageEmbedder(config)
    _require_same(path, state, network.state_dict(), settings)
    network.load_state_dict({name: v.float() for name, v in state.items()}, assign=True)
    return network.eval()


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


def _load(path: Path) -> Any:
    """Content of a torch file: tensors, built-in values and ``argparse.Namespace``."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped where the file's format allows: weights are read when they are needed.
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check the path"
        ) from None
    except UnpicklingError as error:
        if (refused := re.search(r"GLOBAL (\S+)", str(error))) is None:
            raise _damaged(path, error) from error
        raise CheckpointError(
            f"{path}: asks for {refused[1]} to be loaded, which could run code from the file; "
            "only tensors, built-in values and argparse.Namespace are let in. Fetch the file "
            "again from its source, or save its 'model' entry alone to another file"
        ) from None
    except Exception as error:  # damaged zips and pickles raise many types
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a torch file, or a damaged one ({type(error).__name__}); fetch it again"
    )


def _parts(path: Path, content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters, under the names of ``LanguageEmbedder``, and settings, without "encoder_"."""
    whole = content if isinstance(content, dict) else {}
    parameters = whole.get("model", whole)
    cfg = whole.get("cfg")
    args = cfg.get("model") if isinstance(cfg, dict) else whole.get("args")
    is_state = isinstance(parameters, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor)
        for name, value in parameters.items()
    )
    if not is_state:
        raise CheckpointError(f"{path}: holds no network's parameters; {WANTED}")
    settings = vars(args) if isinstance(args, argparse.Namespace) else {}
    return (
        {WRAPPERS.sub("", name): value for name, value in parameters.items()},
        {str(name).removeprefix("encoder_"): value for name, value in settings.items()},
    )


def _read_config(
    path: Path, parameters: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> LanguageConfig:
    """Sizes from shapes, the rest from settings."""
    learned = "embed_positions.weight" in parameters
    names = ("embed_tokens", "layers.0.fc1", *(("embed_positions",) if learned else ()))
    matrices = [parameters.get(f"{name}.weight", torch.empty(0)) for name in names]
    if any(matrix.ndim != 2 for matrix in matrices):
        raise _other_network(path, f"without {' or '.join(names)}", settings)
    (n_tokens, width), (feed_forward, _) = matrices[0].shape, matrices[1].shape
    if n_tokens != len(ALPHABET):
        raise _other_network(path, f"{n_tokens} tokens, not {len(ALPHABET)}", settings)
    layers = len({name.split(".")[1] for name in parameters if name.startswith("layers.")})
    if not (heads := _count_heads(parameters, settings, layers, width)):
        raise CheckpointError(
            f"{path}: nothing in it tells how many attention heads there are; give the "
            "published file, which has its settings too"
        )
    max_positions = ESM1B.max_positions
    if learned:  # the first rows are that of padding and one before it, which is not used
        max_positions = len(matrices[-1]) - ALPHABET.index("<pad>") - 1
    if max_positions < 3:
        raise _other_network(path, f"{max_positions} positions", settings)
    try:
        return LanguageConfig(
            layers=layers,
            width=width,
            heads=heads,
            positions="learned" if learned else "rotary",
            feed_forward=feed_forward,
            max_positions=max_positions,
            input_norm="emb_layer_norm_before.weight" in parameters,
            # Files with settings that lack it are read as fair-esm reads them.
            token_dropout=bool(settings.get("token_dropout", not settings)),
        )
    except ValueError as error:
        raise _other_network(path, str(error), settings) from None


def _count_heads(
    parameters: Mapping[str, Tensor], settings: Mapping[str, Any], layers: int, width: int
) -> int:
    """Attention heads of every layer, or 0 if nothing tells."""
    told = settings.get("attention_heads")
    if isinstance(told, int):
        return max(told, 0)
    # One frequency for each pair of channels of a head.
    frequencies = parameters.get("layers.0.self_attn.rot_emb.inv_freq")
    if frequencies is not None and frequencies.numel():
        return width // (2 * frequencies.numel())
    # One weight for each head of each layer.
    contacts = parameters.get("contact_head.regression.weight")
    if contacts is not None:
        return contacts.numel() // layers
    return ESM1B.heads if (layers, width) == (ESM1B.layers, ESM1B.width) else 0


def _require_same(
    path: Path, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], settings: Any
) -> None:
    """Refuse parameters that are not exactly the network's."""
    shared = wanted.keys() & found.keys()
    for trouble, names in (
        ("without", sorted(wanted.keys() - shared)),
        ("with the unknown", sorted(found.keys() - shared)),
        (
            "with another shape of",
            sorted(n for n in shared if found[n].shape != wanted[n].shape),
        ),
    ):
        if names:
            listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise _other_network(path, f"{trouble} {listed}", settings)


def _other_network(path: Path, reason: str, settings: Mapping[str, Any]) -> CheckpointError:
    architecture = f"architecture {settings['arch']!r}, " if "arch" in settings else ""
    return CheckpointError(f"{path}: not ESM-1b or ESM-2 ({architecture}{reason}); {WANTED}")


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
