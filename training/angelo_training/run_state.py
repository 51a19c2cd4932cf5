"""What a training loop carries from step to step, kept in its run folder."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from angelo_export.weights import save_weights
from angelo_training.checkpoints import load_checkpoint, save_checkpoint, start_from_weights
from angelo_training.optimizers import MatrixSteps
from angelo_training.schedule import Budget, MovingAverage, learning_rate

#: Longest gradient, in its norm over all parameters, that a step follows in full.
MAX_GRADIENT = 1.0


class RunState:
    """Network, averaged network, optimizer, step and time of a run.

    In the run folder, ``checkpoint.pt`` is all that a resumed run needs, ``weights.pt`` the
    averaged network alone.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Mapping[str, Any],
        out: Path,
        budget: Budget,
        *,
        rate: float,
        weight_decay: float,
        start_from: Path | None = None,
    ) -> None:
        """Go on from the folder's checkpoint; else start from a weight file, if given.

        Raises
        ------
        CheckpointError
            If either file is damaged or of another network.
        """
        self.network, self.config, self.out, self.budget = network, dict(config), out, budget
        self.rate, self.step = rate, 0
        #: What else the loop wants to find again: tensors and built-in values.
        self.extra: dict[str, Any] = {}
        self._spent, self._started = 0.0, time.monotonic()
        self.optimizer = MatrixSteps(network, rate, weight_decay)
        self.average = MovingAverage(network)
        if self.checkpoint.exists():
            self._resume()
        elif start_from is not None:
            start_from_weights(network, start_from)
            self.average = MovingAverage(network)

    @property
    def checkpoint(self) -> Path:
        """Where the run can be taken up again."""
        return self.out / "checkpoint.pt"

    @property
    def seconds(self) -> float:
        """Training time so far, the runs before a resume included."""
        return self._spent + time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the budget is spent."""
        return self.budget.is_spent(self.step, self.seconds)

    def start_clock(self) -> None:
        """Let training time begin now: what came before, since the start, does not count."""
        self._started = time.monotonic()

    def present_rate(self) -> float:
        """Set and return the learning rate of this step."""
        share = self.budget.share(self.step, self.seconds)
        rate = learning_rate(self.rate, self.step, share)
        self.optimizer.set_rate(rate)
        return rate

    def take_step(self) -> None:
        """Follow the gradients that are there, and forget them."""
        nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.network)
        self.step += 1

    def save(self) -> None:
        """Write checkpoint and weights."""
        save_checkpoint(
            self.checkpoint,
            self.network,
            self.optimizer,
            step=self.step,
            config=self.config,
            extra=self.extra | {"average": self.average.state, "seconds": self.seconds},
        )
        with self.average.swapped_in(self.network):
            save_weights(self.out / "weights.pt", self.network, self.config)

    def _resume(self) -> None:
        saved = load_checkpoint(self.checkpoint)
        saved.restore(self.network, self.optimizer)
        self.step, self.extra = saved.step, dict(saved.extra)
        self._spent = self.extra.pop("seconds")
        self.average.load(self.extra.pop("average"), self.step)
