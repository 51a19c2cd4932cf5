"""Boxes by the thousand: simulated ahead by worker processes, in an order fixed by the seed."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from angelo_training.boxes import Box, make_box
from angelo_training.profile import load_spectrum
from angelo_training.simulate import draw_conditions
from angelo_training.structures import Entry, PackedStructures

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
    with_relatives: bool = True
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
    _opened.update(
        settings=settings,
        packed=packed,
        indices=np.array(indices),
        share=weight / weight.sum(),
    )


def draw_entry(
    settings: StreamSettings, number: int
) -> tuple[Entry, list[str], np.random.Generator]:
    """Entry ``number`` of the stream, the names of its atoms, and the generator to go on with."""
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
    """A simulated box of an entry, under random conditions."""
    return make_box(entry, settings.side, load_spectrum(), rng, draw_conditions(rng, resolution))


def make_numbered_box(
    settings: StreamSettings, number: int, resolution: float | None = None
) -> Box:
    """Box ``number`` of the stream; the same for the same settings, in any process."""
    entry, _, rng = draw_entry(settings, number)
    return make_entry_box(entry, settings, rng, resolution)


def stream_boxes(
    settings: StreamSettings, first: int, *, workers: int = 1, ahead: int = 12
) -> Iterator[Box]:
    """Boxes ``first``, ``first + 1``, ... without end."""
    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),  # forking a process with torch's threads can hang
        initializer=_open_structures,
        initargs=(settings,),
    ) as pool:
        waiting: deque[Future[Box]] = deque()
        number = first
        while True:
            while len(waiting) < ahead:
                waiting.append(pool.submit(make_numbered_box, settings, number))
                number += 1
            yield waiting.popleft().result()
