"""Boxes by the thousand: simulated ahead by worker processes, in an order fixed by the seed."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import numpy as np

from angelo_training.boxes import Box, make_box
from angelo_training.conditions import draw_conditions, draw_training_conditions
from angelo_training.profile import load_spectrum
from angelo_training.structures import Entry, PackedStructures, StructuresError

T = TypeVar("T")

#: Entries with more residues than this are drawn no more often.
MOST_RESIDUES = 600
#: Draws of an entry without protein count as one of this many residues.
NUCLEIC_WEIGHT = 12


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Which boxes are made."""

    structures: Path
    """Packed structures."""
    side: int
    """Box side, voxels of 1 Å."""
    split: str = "train"
    """'train' or 'val'."""
    seed: int = 0
    """Box i of a seed is always the same."""
    with_relatives: bool = False
    """Keep entries homologous to the development maps."""
    protein_only: bool = False
    """Leave out entries without amino acids."""


#: What this process has opened: packed structures stay in memory for the life of a worker.
_opened: dict[str, Any] = {}


def _open_structures(settings: StreamSettings) -> None:
    packed = PackedStructures(settings.structures)
    indices = packed.select(settings.split, with_relatives=settings.with_relatives)
    residues = np.array([np.diff(packed.entries[i]["residues"])[0] for i in indices])
    floor = 0 if settings.protein_only else NUCLEIC_WEIGHT
    weight = np.where(residues < 20, floor, np.minimum(residues, MOST_RESIDUES)).astype(float)
    if not weight.sum() > 0:
        raise StructuresError(
            f"{settings.structures}: no protein in its {settings.split} split; "
            "pack structures of both splits"
        )
    _opened.update(
        settings=settings,
        packed=packed,
        indices=np.array(indices),
        share=weight / weight.sum(),
    )


def draw_entry(
    settings: StreamSettings, number: int
) -> tuple[Entry, list[str], np.random.Generator]:
    """Draw entry ``number``; its atoms' names and the generator to go on with come along."""
    if _opened.get("settings") != settings:
        _open_structures(settings)
    packed, indices, share = _opened["packed"], _opened["indices"], _opened["share"]
    rng = np.random.default_rng([settings.seed, number])
    return packed[int(rng.choice(indices, p=share))], packed.atom_names, rng


def make_entry_box(
    entry: Entry,
    settings: StreamSettings,
    rng: np.random.Generator,
    resolution: float | None = None,
) -> Box:
    """Simulate a box of an entry, under random conditions: those of its split."""
    draw = draw_training_conditions if settings.split == "train" else draw_conditions
    return make_box(entry, settings.side, load_spectrum(), rng, draw(rng, resolution))


def make_numbered_box(
    settings: StreamSettings, number: int, resolution: float | None = None
) -> Box:
    """Box ``number`` of the stream; the same for the same settings, in any process."""
    entry, _, rng = draw_entry(settings, number)
    return make_entry_box(entry, settings, rng, resolution)


def stream_numbered(
    make: Callable[[int], T],
    first: int,
    *,
    workers: int,
    ahead: int,
    start_worker: Callable[[], None] | None = None,
) -> Iterator[T]:
    """``make(first)``, ``make(first + 1)``, ... without end, in this order.

    Parameters
    ----------
    make
        Picklable (a function of a module, or ``functools.partial`` of one).
    workers
        Processes that make examples ahead of their use; 0: this process, on demand.
    ahead
        How many examples are in the making or ready; at least two for each worker.
    start_worker
        Called once in each worker process.
    """
    if workers == 0:
        yield from map(make, count(first))
        return
    # Forking a process with torch's threads can hang.
    pool = ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin_worker, initargs=(start_worker,)
    )
    try:
        waiting: deque[Future[T]] = deque()
        for number in count(first):
            waiting.append(pool.submit(make, number))
            if len(waiting) >= max(ahead, 2 * workers):
                yield waiting.popleft().result()
    finally:  # whoever stops early does not wait for examples that nobody will see
        pool.shutdown(cancel_futures=True)


def _begin_worker(start_worker: Callable[[], None] | None) -> None:
    # A training that is killed cannot end its workers: they watch whether it still runs.
    Thread(target=_end_with_parent, daemon=True).start()
    if start_worker is not None:
        start_worker()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:  # a worker's; None only where no process was started
        parent.join()
        os._exit(1)  # sys.exit would end this thread alone
