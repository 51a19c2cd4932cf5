"""A build into the tiny map, with the tiny bundle."""

from pathlib import Path

from tiny_bundle import write_tiny_bundle
from tiny_map import write_tiny_inputs

from angelo.job import BuildJob


def job_without_sequences(folder: Path) -> BuildJob:
    """The job, its map and its bundle; results go to ``folder / "out"``."""
    map_path, _ = write_tiny_inputs(folder)
    bundle = write_tiny_bundle(folder / "bundle")
    return BuildJob(
        map_path, None, folder / "out", bundle, device="cpu", hand="keep", threads=1
    )
