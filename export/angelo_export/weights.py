"""Weight files: a network's parameters in half precision, small enough for git.

Plain dictionaries of tensors and built-in values, read with ``weights_only=True``: opening one
never runs code from it.
"""

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from angelo.errors import UserError

#: Largest weight file, bytes; these files live in git.
MAX_WEIGHT_BYTES = 15_000_000

Config = Mapping[str, Any]
Network = TypeVar("Network", bound=nn.Module)


class CheckpointError(UserError):
    """A checkpoint or weight file is missing, damaged, or of another network."""


def save_weights(path: Path, model: nn.Module, config: Config) -> None:
    """Write the parameters in half precision, buffers as they are.

    The same weights give the same bytes.

    Raises
    ------
    ValueError
        If a weight is not finite in half precision.
    CheckpointError
        If the file would be too large for git.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    weights = {}
    for name, value in model.state_dict().items():
        kept = value.detach().cpu()
        weights[name] = kept.half() if name in parameters else kept
        if not weights[name].isfinite().all():
            raise ValueError(f"{name} is not finite in half precision")
    content = packed({"weights": weights, "config": dict(config)})
    if len(content) > MAX_WEIGHT_BYTES:
        raise CheckpointError(
            f"{path}: would have {len(content)} bytes, more than {MAX_WEIGHT_BYTES}, which is "
            "what git should hold; ask for a smaller network"
        )
    write_whole(path, content)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weight file: the state dict in single precision, and the network's config.

    Raises
    ------
    CheckpointError
        If the file is missing or is not a weight file of ours.
    """
    content = unpacked(path, {"weights", "config"})
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in content["weights"].items()
    }
    return weights, content["config"]


def load_network(path: Path, make: Callable[[Mapping[str, Any]], Network]) -> Network:
    """Network of a weight file; ``make`` builds it from the file's config.

    Raises
    ------
    CheckpointError
        If the file cannot be read or holds weights of another network.
    """
    state, config = load_weights(path)
    try:
        network = make(config)
        network.load_state_dict(state)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].rstrip(": \t")
        raise CheckpointError(
            f"{path}: weights of another network ({reason}); give the file of this one, or "
            "train it again"
        ) from error
    return network.eval()


def packed(content: dict[str, Any]) -> bytes:
    """Bytes of a torch file."""
    # Through memory: torch.save to a path would put the path's name into the bytes.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write in one move: a killed run leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def unpacked(path: Path, names: set[str]) -> dict[str, Any]:
    """Content of a torch file that holds exactly these names. Raises CheckpointError."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train first, or check the path") from None
    except Exception as error:  # damaged zips and pickles raise many types
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__}); "
            "delete it and train again, or restore a copy"
        ) from error
    if not isinstance(content, dict) or content.keys() != names:
        raise CheckpointError(
            f"{path}: not a file of this kind (wants {', '.join(sorted(names))}); "
            "was a weight file given for a checkpoint, or the reverse?"
        )
    return content
