"""One network out of several that began as one: the mean of their weights.

Trainings that start from the same weights, on other examples, stay close enough for their mean
to be a network as well, and a better one than each (Wortsman et al., ICML 2022, "model soups").
They need nothing of each other meanwhile: one core each, or one machine.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from angelo_export.weights import CheckpointError, packed, unpacked, write_whole


def average(weights: Sequence[Path], out: Path) -> None:
    """Write the mean of weight files of one network.

    Raises
    ------
    CheckpointError
        If a file cannot be read, or is of another network than the first.
    """
    first, *others = (unpacked(path, {"weights", "config"}) for path in weights)
    shapes = {name: value.shape for name, value in first["weights"].items()}
    for path, other in zip(weights[1:], others, strict=True):
        own = {name: value.shape for name, value in other["weights"].items()}
        if other["config"] != first["config"] or own != shapes:
            raise CheckpointError(
                f"{path}: weights of another network than {weights[0]}; "
                "give files that were trained from the same one"
            )
    mean = {}
    for name, value in first["weights"].items():
        values = torch.stack([value, *(other["weights"][name] for other in others)])
        mean[name] = values.float().mean(dim=0).to(value.dtype)
    write_whole(out, packed({"weights": mean, "config": first["config"]}))
