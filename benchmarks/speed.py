"""Time and memory of a build: EMD-3488 as it is, and in larger boxes of empty space."""

import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import options
import typer
from builds import MeasuredBuild, measure_in_own_process
from provenance import ROOT, build_conditions, machine_facts, write_json
from rich.console import Console
from rich.table import Table

from angelo.density import read_map, write_map
from angelo.job import BuildJob
from angelo.types import Density

#: Width of a table that goes to a file, characters.
LOG_WIDTH = 150


def padded(density: Density, side: int) -> Density:
    """The map in the middle of a cube of ``side`` voxels; zeros around it, in its place.

    Zero is what the deposited map has outside its mask.
    """
    shape = np.array(density.values_zyx.shape)
    if (shape > side).any():
        raise ValueError(f"a map of {shape.tolist()} voxels does not fit into {side}³")
    before = (side - shape) // 2
    widths = [(int(b), int(side - n - b)) for b, n in zip(before, shape, strict=True)]
    origin = density.origin - before[::-1] * density.voxel_size
    return Density(
        np.pad(density.values_zyx, widths), density.voxel_size, origin.astype(np.float32)
    )


def measure(map_path: Path, fasta: Path, job: dict[str, Any]) -> MeasuredBuild:
    """One build of a map, into a folder that is then thrown away."""
    with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
        out = Path(scratch) / "model"
        return measure_in_own_process(BuildJob(map_path, fasta, out, keep_stages=False, **job))


def row_of(name: str, density: Density, built: MeasuredBuild) -> dict[str, Any]:
    """One row of the table."""
    figures = asdict(built)
    del figures["raw"], figures["pruned"]
    return {"name": name, "shape_zyx": list(density.values_zyx.shape), **figures}


def main(
    bundle: options.Bundle = options.BUNDLE,
    map_path: Annotated[Path, typer.Option("--map", help="Map that is padded.")] = ROOT
    / "examples/emd_3488.map.gz",
    fasta: Annotated[Path, typer.Option(help="Its sequences.")] = ROOT / "examples/5ni1.fasta",
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path(
        "benchmarks/speed.json"
    ),
    sides: Annotated[str, typer.Option(help="Sides of padded boxes, voxels.")] = "200,400",
    device: options.Device = "cpu",
    threads: options.Threads = 0,
    machine: options.Machine = "",
) -> None:
    """Measure time and memory of builds."""
    job = {"bundle": bundle, "device": device, "threads": threads}
    content: dict[str, Any] = {
        "conditions": build_conditions(bundle, device, threads),
        "machine": machine_facts(machine),
        "rows": [],
    }
    density = read_map(map_path)
    name = map_path.name.split(".")[0]
    content["rows"].append(row_of(name, density, measure(map_path, fasta, job)))
    write_json(out, content)
    for side in (int(text) for text in sides.split(",")):
        with tempfile.TemporaryDirectory(prefix="angelo-bench-") as scratch:
            larger = padded(density, side)
            path = Path(scratch) / f"padded_{side}.mrc"
            write_map(path, larger)
            built = measure(path, fasta, job)
        content["rows"].append(row_of(f"{name} padded to {side}³", larger, built))
        write_json(out, content)
    stages = list(dict.fromkeys(stage for row in content["rows"] for stage in row["stages"]))
    table = Table("map", "outcome", "s", "CPU s", "MiB", *stages)
    for row in content["rows"]:
        cost = (row["seconds"], row["cpu_seconds"], row["peak_memory_mib"])
        times = (row["stages"].get(stage, "") for stage in stages)
        table.add_row(row["name"], row["outcome"], *map(str, cost), *map(str, times))
    Console(width=None if sys.stdout.isatty() else LOG_WIDTH).print(table)


if __name__ == "__main__":
    typer.run(main)
