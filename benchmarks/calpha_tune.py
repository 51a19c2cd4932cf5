"""Settings of the C-alpha points, chosen on maps that the network has searched once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from angelo.calpha import PointSettings, find_calphas
from angelo.evaluate import match_calphas
from angelo.windows import VoxelPredictions

#: Values that are tried of each setting (probability, Å, Å, sum of probabilities).
GRID: Mapping[str, Sequence[float]] = {
    "threshold": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6),
    "radius": (0.8, 1.0, 1.2, 1.5, 1.8, 2.1),
    "min_separation": (1.5, 1.8, 2.1, 2.4, 2.7, 3.0, 3.3),
    "min_support": (0.05, 0.15, 0.25, 0.35, 0.5, 0.7, 0.9, 1.2, 1.5, 2.0),
}


@dataclass(frozen=True, slots=True)
class PredictedMap:
    """What the network said of one map, and what is there."""

    group: str
    """Maps of a group share their best settings."""
    voxels: VoxelPredictions
    """Over the lowest threshold that is tried."""
    calphas: Float32[np.ndarray, "r 3"]
    """Deposited C-alphas, Å."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The best settings for some maps."""

    settings: PointSettings
    f1: float
    """Mean over the maps, %."""
    f1_before: float
    """With the settings that the search began at, %."""
    n_tried: int
    """Settings that were compared."""


def lowest_threshold(settings: PointSettings) -> float:
    """Threshold that predictions must have for all settings to be tried."""
    return min(*GRID["threshold"], settings.threshold)


def f1_of(predicted: PredictedMap, settings: PointSettings) -> float:
    """Harmonic mean of recall and precision of the points, %."""
    points = find_calphas(predicted.voxels, settings).positions
    if not len(points):
        return 0.0
    matched, _ = match_calphas(points, predicted.calphas)
    return 200 * len(matched) / (len(points) + len(predicted.calphas))


class Scores:
    """F1 of every map at every setting that was asked for, each computed once."""

    def __init__(
        self,
        maps: Sequence[PredictedMap],
        score: Callable[[PredictedMap, PointSettings], float] = f1_of,
    ) -> None:
        self._maps = maps
        self._score = score
        self._known: dict[tuple[int, PointSettings], float] = {}

    def mean(self, settings: PointSettings, group: str | None = None) -> float:
        """Mean over the maps of a group, or over all."""
        chosen = [i for i, m in enumerate(self._maps) if group in (None, m.group)]
        for key in ((i, settings) for i in chosen):
            if key not in self._known:
                self._known[key] = self._score(self._maps[key[0]], settings)
        return float(np.mean([self._known[i, settings] for i in chosen]))


def choose_settings(scores: Scores, start: PointSettings, group: str | None = None) -> Choice:
    """Change one setting at a time to its best value, until no change helps.

    A setting that is as good as the present one does not replace it.
    """
    best, tried = start, {start}
    best_f1 = before = scores.mean(start, group)
    while True:
        previous = best
        for name, values in GRID.items():
            for value in values:
                settings = replace(best, **{name: value})
                tried.add(settings)
                if (f1 := scores.mean(settings, group)) > best_f1:
                    best, best_f1 = settings, f1
        if best == previous:
            return Choice(best, round(best_f1, 2), round(before, 2), len(tried))
