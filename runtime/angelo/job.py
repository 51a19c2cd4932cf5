"""A job: what to build from what, and its files read and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angelo import __version__
from angelo.bundle import MANIFEST, find_bundle, load_bundle
from angelo.density import apply_mask, average_half_maps, read_map, read_mask
from angelo.hand import HandOption
from angelo.manifest import Bundle
from angelo.run_folder import sha256_of_file
from angelo.sequences import read_fasta
from angelo.session import Device, find_devices
from angelo.types import Density, SequenceRecord

#: What a person is told who gave no sequences.
NO_SEQUENCES = (
    "no sequences given: residue types are the networks' guess; angelo search finds the "
    "proteins in a database",
)


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build, from what, where, and how."""

    map_path: Path
    """MRC or CCP4 map."""
    fasta_path: Path | None
    """Protein sequences; None: chains are built, but not named after a sequence."""
    out: Path
    """Run folder."""
    bundle: str | Path = "compact"
    """Name or folder of the networks."""
    device: str = "auto"
    """See ``angelo.session.find_devices``."""
    mask_path: Path | None = None
    """Solvent mask on the grid of the map, 0 to 1."""
    half_map_path: Path | None = None
    """The other half-map, where ``map_path`` is one; their mean is built into."""
    voxel_size: float | None = None
    """Replaces that of the map's header, Å."""
    hand: HandOption = "check"
    """Whether to look for the wrong hand, and to build into the mirror image then."""
    seed: int = 0
    """Of everything random."""
    threads: int = 0
    """CPU threads; 0: as many as this process may use."""
    overwrite: bool = False
    """Replace an earlier run in the folder."""
    keep_stages: bool = True
    """Leave the data from which a stopped run continues."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job with its files read and checked."""

    density: Density
    """The map, masked; its mirror image where ``is_mirrored``."""
    records: tuple[SequenceRecord, ...]
    """Sequences to look for; empty without a FASTA file."""
    notes: tuple[str, ...]
    """What a person should know about the input."""
    bundle: Bundle
    devices: tuple[Device, ...]
    facts: dict[str, Any]
    """Everything that decides the result: checksums and settings."""
    is_mirrored: bool = False
    """Whether the map was found to have the wrong hand, and was flipped."""


def read_inputs(job: BuildJob) -> Inputs:
    """Read and check everything a job names; nothing is written.

    Raises
    ------
    UserError
        For whatever is wrong, in one line.
    """
    devices = find_devices(job.device)
    bundle = load_bundle(find_bundle(job.bundle))
    records, notes = read_fasta(job.fasta_path) if job.fasta_path else ((), NO_SEQUENCES)
    density = read_map(job.map_path, job.voxel_size)
    if job.half_map_path is not None:
        density = average_half_maps(density, read_map(job.half_map_path, job.voxel_size))
    if job.mask_path is not None:
        density = apply_mask(density, read_mask(job.mask_path, job.voxel_size))
    facts = {
        "angelo": __version__,
        "map_sha256": sha256_of_file(job.map_path),
        "fasta_sha256": sha256_of_file(job.fasta_path) if job.fasta_path else None,
        "half_map_sha256": sha256_of_file(job.half_map_path) if job.half_map_path else None,
        "mask_sha256": sha256_of_file(job.mask_path) if job.mask_path else None,
        "bundle_sha256": sha256_of_file(bundle.folder / MANIFEST),
        "voxel_size": job.voxel_size,
        "hand": job.hand,
        "seed": job.seed,
    }
    return Inputs(density, records, notes, bundle, devices, facts)


def describe_inputs(job: BuildJob, inputs: Inputs) -> dict[str, Any]:
    """Describe the input for run.json, where and what it was."""
    return {
        "inputs": inputs.facts,
        "map": str(job.map_path.resolve()),
        "fasta": str(job.fasta_path.resolve()) if job.fasta_path else None,
        "half_map": str(job.half_map_path.resolve()) if job.half_map_path else None,
        "mask": str(job.mask_path.resolve()) if job.mask_path else None,
        "bundle": {
            "name": inputs.bundle.name,
            "version": inputs.bundle.version,
            "folder": str(inputs.bundle.folder.resolve()),
        },
        "devices": [str(device) for device in inputs.devices],
        "threads": job.threads,
    }
