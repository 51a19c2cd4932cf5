"""Budgets, learning rates and averaged weights, shared by all training loops."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

#: Steps over which the learning rate rises from zero.
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Budget:
    """When a run ends: after so many steps or so many minutes, whichever comes first."""

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise ValueError("a budget needs steps or minutes")

    def share(self, step: int, seconds: float) -> float:
        """How much is spent, 0 to 1."""
        by_step = step / self.steps if self.steps else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes else 0.0
        return min(1.0, max(by_step, by_time))

    def is_spent(self, step: int, seconds: float) -> bool:
        """Whether the run is over."""
        return self.share(step, seconds) >= 1


def learning_rate(peak: float, step: int, share: float) -> float:
    """Linear warm-up, then a cosine from the peak to a hundredth of it."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * share)
    return peak * min(1.0, (step + 1) / WARM_UP) * (0.01 + 0.99 * cosine)


class MovingAverage:
    """Exponential average of the weights; the averaged network is the one that is kept."""

    def __init__(self, network: nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.state = {n: v.detach().clone() for n, v in network.state_dict().items()}
        self._updates = 0

    def load(self, state: dict[str, Tensor], updates: int) -> None:
        """Take over a saved average, made in so many updates."""
        self.state = {n: v.clone().to(self.state[n].device) for n, v in state.items()}
        self._updates = updates

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the network's present weights."""
        self._updates += 1
        decay = min(self.decay, self._updates / (self._updates + 10))
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    @contextmanager
    def swapped_in(self, network: nn.Module) -> Iterator[None]:
        """Lend the network the averaged weights, for the length of a ``with`` block."""
        own = {n: v.detach().clone() for n, v in network.state_dict().items()}
        network.load_state_dict(self.state)
        try:
            yield
        finally:
            network.load_state_dict(own)
