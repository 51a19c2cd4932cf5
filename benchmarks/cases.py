"""What is benchmarked: simulated maps of ``val`` entries, and real maps."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simulated_maps import choose_entries, write_case

from angelo_training.conditions import DrawConditions, draw_conditions
from angelo_training.structures import PackedStructures

#: Table of the real maps; paths relative to the folder of maps.
REAL_MAPS = Path(__file__).with_name("real_maps.json")


@dataclass(frozen=True, slots=True)
class MapFiles:
    """Input of a build and what it should give."""

    map_path: Path
    fasta_path: Path
    reference: Path
    chain: str | None = None
    """Chain of the reference that the map holds; None: all."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the benchmark."""

    group: str
    """Rows of a group are averaged."""
    name: str
    """Of the map."""
    facts: dict[str, Any]
    """More about the map."""
    make: Callable[[Path], tuple[MapFiles, dict[str, Any]]]
    """Finds the files, or writes them into a folder; with facts that are known only then."""
    comparison: Path | None = None
    """Somebody else's model to be judged instead of building one."""

    @property
    def key(self) -> str:
        """Tells the row from all others."""
        return f"{self.group}/{self.name}"


def simulated_cases(
    packed: PackedStructures,
    n_entries: int,
    resolutions: list[float],
    draw: DrawConditions = draw_conditions,
) -> Iterator[Case]:
    """All chosen entries at one resolution after another, under conditions from ``draw``."""
    chosen = choose_entries(packed, n_entries)
    for resolution in resolutions:
        for index in chosen:
            yield Case(
                group=f"simulated_{resolution:.1f}",
                name=packed.entries[index]["pdb_id"],
                facts={"resolution": resolution},
                make=partial(_simulate, packed, index, resolution, draw),
            )


def _simulate(
    packed: PackedStructures, index: int, resolution: float, draw: DrawConditions, folder: Path
) -> tuple[MapFiles, dict[str, Any]]:
    case = write_case(packed, index, resolution, folder, draw)
    files = MapFiles(case.map_path, case.fasta_path, case.reference)
    return files, {"n_other_atoms": case.n_other_atoms}


def real_cases(maps: Path, names: set[str] | None = None) -> Iterator[Case]:
    """The real maps, and models that others built into them."""
    for entry in json.loads(REAL_MAPS.read_text(encoding="utf-8")):
        if names is not None and entry["name"] not in names:
            continue
        files = MapFiles(
            maps / entry["map"], maps / entry["fasta"], maps / entry["model"], entry["chain"]
        )
        facts = {key: entry[key] for key in ("pdb", "resolution", "what")}
        yield Case("real", entry["name"], facts, partial(_as_they_are, files))
        for builder, path in entry["others"].items():
            name = f"{entry['name']}, {builder}"
            yield Case("comparison", name, facts, partial(_as_they_are, files), maps / path)


def real_maps(maps: Path) -> list[Case]:
    """The real maps alone: those that are built."""
    return [case for case in real_cases(maps) if case.comparison is None]


def _as_they_are(files: MapFiles, _: Path) -> tuple[MapFiles, dict[str, Any]]:
    return files, {}
