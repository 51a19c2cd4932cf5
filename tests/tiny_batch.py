"""A manifest, and a stand-in for ``angelo build`` that ends at once, as its map's name says."""

import json
import shutil
import stat
from pathlib import Path

from tiny_map import write_tiny_inputs

#: What the stand-in writes as the record of a run.
RECORD = {
    "program": "angelo",
    "status": "finished",
    "files": ["good.cif"],
    "peak_memory_mib": 7,
    "summary": {"residues_built": 16, "matched_residues": 12, "sequence_coverage": 0.75},
}

#: good: a model. none: nothing matched. bad: says why. killed: cannot say. slow: until stopped;
#: its second attempt is good.
SCRIPT = """#!/bin/sh
# stands in for: angelo build MAP FASTA --out DIR ...
printf '%s\\n' "$*" >> "{calls}"
printf '%s|%s\\n' "$CUDA_VISIBLE_DEVICES" "$OMP_NUM_THREADS" >> "{environment}"
map=$2
while [ "$1" != --out ]; do shift; done
mkdir -p "$2"
case $map in
  *good*) cp "{record}" "$2/run.json"; exit 0 ;;
  *none*) cp "{record}" "$2/run.json"; echo "error: no chain matches"; exit 3 ;;
  *bad*) echo "reading"; echo "error: the map is bad"; exit 2 ;;
  *killed*) kill -9 $$ ;;
  *slow*)
    if [ -e "$2/begun" ]; then cp "{record}" "$2/run.json"; exit 0; fi
    touch "$2/begun"
    trap 'echo "error: stopped"; exit 130' INT
    n=0; while [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; exit 1 ;;
esac
"""


def write_manifest_of(folder: Path, names: list[str]) -> Path:
    """Write a manifest whose rows behave as their names begin, and files that are missing."""
    tiny_map, fasta = folder / "tiny.mrc", folder / "tiny.fasta"
    if not fasta.exists():
        write_tiny_inputs(folder)
    lines = ["map\tfasta"]
    for name in names:
        if not (folder / f"{name}.mrc").exists():
            shutil.copy(tiny_map, folder / f"{name}.mrc")
        lines.append(f"{name}.mrc\t{fasta.name}")
    path = folder / "maps.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


class FakeAngelo:
    """The stand-in, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self._calls, self._environment = folder / "calls", folder / "environment"
        record = folder / "record.json"
        record.write_text(json.dumps(RECORD))
        self.path = folder / "fake_angelo"
        self.path.write_text(
            SCRIPT.format(calls=self._calls, environment=self._environment, record=record)
        )
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    @property
    def command(self) -> tuple[str, ...]:
        """Words that start it."""
        return (str(self.path),)

    def calls(self) -> list[list[str]]:
        """Arguments of every call so far."""
        return _lines(self._calls, " ")

    def environment(self) -> list[list[str]]:
        """CUDA_VISIBLE_DEVICES and OMP_NUM_THREADS of every call so far."""
        return _lines(self._environment, "|")


def _lines(path: Path, separator: str) -> list[list[str]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(separator) for line in lines]
