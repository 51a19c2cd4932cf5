"""Checkpoints that resume a training run exactly, and small weight files for keeping.

Both are plain dictionaries of tensors and built-in values, read with ``weights_only=True``:
opening one never runs code from it.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from angelo.errors import UserError

#: Largest weight file, bytes; these files live in git.
MAX_WEIGHT_BYTES = 15_000_000

Config = Mapping[str, Any]


class CheckpointError(UserError):
    """A checkpoint or weight file is missing, damaged, or of another network."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything a training loop needs to go on as if it had never stopped."""

    model: dict[str, Tensor]
    """State dict of the network, full precision."""
    optimizer: dict[str, Any]
    """State dict of the optimizer, moments included."""
    step: int
    """Optimizer steps taken."""
    numpy_rng: dict[str, Any] | None
    """Bit-generator state of the loop's ``np.random.Generator``, if it has one."""
    torch_rng: Tensor
    """State of torch's CPU generator."""
    cuda_rng: list[Tensor]
    """State of torch's generator of each CUDA device; empty without CUDA."""
    config: dict[str, Any]
    """What the run was started with: built-in values only."""
    extra: dict[str, Any]
    """Anything else of the loop's: tensors and built-in values only."""

    def restore(
        self,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        """Put weights, moments and all random states back in place.

        Raises
        ------
        CheckpointError
            If the weights are those of another network.
        """
        try:
            model.load_state_dict(self.model)
        except RuntimeError as error:
            detail = " ".join(str(error).split())
            raise CheckpointError(
                f"checkpoint of step {self.step} does not fit the network ({detail}); "
                "resume with the configuration it was written with, or start a new run"
            ) from error
        if optimizer is not None:
            optimizer.load_state_dict(self.optimizer)
        if rng is not None and self.numpy_rng is not None:
            rng.bit_generator.state = self.numpy_rng
        torch.set_rng_state(self.torch_rng)
        if self.cuda_rng and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(self.cuda_rng)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    step: int,
    config: Config,
    rng: np.random.Generator | None = None,
    extra: Config | None = None,
) -> None:
    """Write a checkpoint in one move: a killed run leaves the old file or the new one.

    ``rng`` is the loop's own generator; torch's generators are always included.
    ``config`` and ``extra`` hold tensors and built-in values only (``dataclasses.asdict``).
    """
    checkpoint = Checkpoint(
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        step=step,
        numpy_rng=None if rng is None else dict(rng.bit_generator.state),
        torch_rng=torch.get_rng_state(),
        cuda_rng=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        config=dict(config),
        extra=dict(extra or {}),
    )
    content = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    _write(path, _packed(content))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or is not a checkpoint of ours.
    """
    return Checkpoint(**_unpacked(path, {field.name for field in fields(Checkpoint)}))


def save_weights(path: Path, model: nn.Module, config: Config) -> None:
    """Write the parameters in half precision, buffers as they are.

    The same weights give the same bytes.

    Raises
    ------
    ValueError
        If a weight is not finite in half precision, or the file would be too large for git.
    """
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    weights = {}
    for name, value in model.state_dict().items():
        kept = value.detach().cpu()
        weights[name] = kept.half() if name in parameters else kept
        if not weights[name].isfinite().all():
            raise ValueError(f"{name} is not finite in half precision")
    content = _packed({"weights": weights, "config": dict(config)})
    if len(content) > MAX_WEIGHT_BYTES:
        raise ValueError(f"{path}: {len(content)} bytes, more than {MAX_WEIGHT_BYTES}")
    _write(path, content)


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a weight file: the state dict in single precision, and the network's config.

    Raises
    ------
    CheckpointError
        If the file is missing or is not a weight file of ours.
    """
    content = _unpacked(path, {"weights", "config"})
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in content["weights"].items()
    }
    return weights, content["config"]


def _packed(content: dict[str, Any]) -> bytes:
    # Through memory: torch.save to a path would put the path's name into the bytes.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _unpacked(path: Path, names: set[str]) -> dict[str, Any]:
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
