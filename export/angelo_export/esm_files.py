"""Checkpoints that the fair-esm project publishes -> the network that embeds sequences.

ESM-1b and its kin (learned positions) and the ESM-2 family (rotary positions). Heads for tokens
and contacts are left out on purpose.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from angelo_export.foreign import load_foreign
from angelo_export.networks.language import ALPHABET, ESM1B, LanguageConfig, LanguageEmbedder
from angelo_export.weights import CheckpointError

#: What stands before the names of parameters: ESM-1b, ESM-2, neither.
WRAPPERS = re.compile(r"^(encoder\.)?(sentence_encoder\.)?")
#: Parameters that an embedder does without: predictions of tokens and of contacts.
HEADS = ("lm_head.", "contact_head.")
#: What to give instead of a file that is none of these.
WANTED = "give a fair-esm file of ESM-1b or ESM-2, such as esm1b_t33_650M_UR50S.pt"


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
    parameters, settings = _parts(path, load_foreign(path))
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
