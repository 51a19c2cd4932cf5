"""Checkpoints that resume a training run exactly (weight files are ``angelo_export.weights``).

They are plain dictionaries of tensors and built-in values, read with ``weights_only=True``:
opening one never runs code from it.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from angelo_export.weights import (
    CheckpointError,
    Config,
    load_weights,
    packed,
    unpacked,
    write_whole,
)


class Optimizer(Protocol):
    """Whatever keeps moments between steps: one of torch's optimizers, or several as one."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and built-in values."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take over a saved state; ValueError if it does not fit."""
        ...


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
            If the weights are those of another network, or the moments of another optimizer.
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
            try:
                optimizer.load_state_dict(self.optimizer)
            except ValueError as error:
                raise CheckpointError(
                    f"checkpoint of step {self.step} has moments that do not fit ({error}); "
                    "start a new run from the weights beside it (--start-from)"
                ) from error
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
    write_whole(path, packed(content))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing or is not a checkpoint of ours.
    """
    return Checkpoint(**unpacked(path, {field.name for field in fields(Checkpoint)}))


def start_from_weights(model: nn.Module, path: Path) -> None:
    """Put the weights of a weight file in place.

    Raises
    ------
    CheckpointError
        If the file cannot be read or is of another network.
    """
    try:
        model.load_state_dict(load_weights(path)[0])
    except RuntimeError:
        raise CheckpointError(
            f"{path}: weights of another network, or of one of other sizes; "
            "start from a file of this network, or from none"
        ) from None
