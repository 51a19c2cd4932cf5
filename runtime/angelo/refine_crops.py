"""One round of refinement in overlapping crops, their results brought together."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from jaxtyping import Float32, Int64

from angelo.neighbours import Crop
from angelo.types import BackboneFrames, Refinement
from angelo.windows import Progress

#: Torsion vectors shorter than this have no direction.
SHORTEST_TORSION = 1e-6

#: Refines residues (by index) of the crop with this number.
RefineCrop = Callable[[Int64[np.ndarray, " s"], int], Refinement]


class Tally:
    """Counts the steps of crops that may run at the same time."""

    def __init__(self, progress: Progress, n_crops: int) -> None:
        self._progress, self._n_crops = progress, n_crops
        self._done, self._lock = 0, Lock()

    def __call__(self, done: int, total: int) -> None:
        """Tell of one more step of some crop, ``total`` of which make the crop."""
        with self._lock:
            self._done += 1
            self._progress(self._done, self._n_crops * total)


def share_of(progress: Progress | None, i: int, n: int) -> Progress | None:
    """Progress of part ``i`` of ``n`` as progress of the whole."""
    if progress is None:
        return None
    whole = progress
    return lambda done, total: whole(i * total + done, n * total)


def refine_crops(plan: Sequence[Crop], n: int, run: RefineCrop, at_once: int = 1) -> Refinement:
    """Refine every crop, and combine what each says of the residues it keeps.

    C-alphas, amino-acid logits, existence and torsions (as unit vectors) are averaged over
    crops. Rotations, predicted errors and links are those of the last crop: rotations have no
    plain mean, and the neighbours that links refer to differ from crop to crop.

    Parameters
    ----------
    plan
        Crops that together keep each of the ``n`` residues (see ``plan_crops``).
    n
        Number of residues.
    run
        Refines the given residues; called once for each crop, in order.
    at_once
        Crops that run at the same time, in threads; results are combined in order all the
        same, so that they do not depend on it.

    Raises
    ------
    ValueError
        If no crop keeps some residue.
    """
    times_kept = np.zeros(n, np.int64)
    means: dict[str, np.ndarray] = {}
    last: dict[str, np.ndarray] = {}
    for crop, part in zip(plan, _parts(plan, run, at_once), strict=True):
        rows = crop.residues[: crop.n_kept]
        times_kept[rows] += 1
        for name, values in _averaged(part).items():
            # float64 sums: the order of crops then does not show in the float32 mean.
            total = means.setdefault(name, np.zeros((n, *values.shape[1:])))
            total[rows] += values[: crop.n_kept]
        for name, values in _replaced(part, crop.residues).items():
            kept = last.setdefault(name, np.zeros((n, *values.shape[1:]), values.dtype))
            kept[rows] = values[: crop.n_kept]
    if (missed := np.flatnonzero(times_kept == 0)).size:
        raise ValueError(f"no crop keeps residue {missed[0]} (of {missed.size} such)")
    for total in means.values():
        total /= times_kept.reshape(-1, *(1,) * (total.ndim - 1))
    mean = {name: total.astype(np.float32) for name, total in means.items()}
    ca, rotation = mean.pop("ca"), last.pop("rotation")
    return Refinement(frames=BackboneFrames(rotation, ca), **mean, **last)


def _parts(plan: Sequence[Crop], run: RefineCrop, at_once: int) -> Iterator[Refinement]:
    """Refined crops in the order of the plan."""
    residues = [crop.residues for crop in plan]
    if at_once == 1:
        yield from map(run, residues, range(len(plan)))
        return
    pool = ThreadPoolExecutor(at_once)
    try:
        yield from pool.map(run, residues, range(len(plan)))
    finally:  # after an error the crops that have not begun are not wanted any more
        pool.shutdown(cancel_futures=True)


def _averaged(part: Refinement) -> dict[str, np.ndarray]:
    return {
        "ca": part.frames.ca,
        "aa_logits": part.aa_logits,
        "existence": part.existence,
        "torsions": unit_torsions(part.torsions),
    }


def _replaced(part: Refinement, residues: Int64[np.ndarray, " s"]) -> dict[str, np.ndarray]:
    return {
        "rotation": part.frames.rotation,
        "predicted_error": part.predicted_error,
        "neighbours": residues[part.neighbours],
        "next_probability": part.next_probability,
    }


def unit_torsions(torsions: Float32[np.ndarray, "r s 2"]) -> Float32[np.ndarray, "r s 2"]:
    """(sin, cos) scaled to unit length; a vanishing one stays zero."""
    length = np.linalg.norm(torsions, axis=-1, keepdims=True)
    unit: np.ndarray = torsions / np.maximum(length, np.float32(SHORTEST_TORSION))
    return unit
