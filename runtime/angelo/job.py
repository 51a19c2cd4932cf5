"""A job: what to build from what, and its files read and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angelo import __version__
from angelo.bundle import MANIFEST, find_bundle, load_bundle
from angelo.density import apply_mask, average_half_maps, read_map, read_mask
from angelo.errors import MapError
from angelo.hand import HandOption
from angelo.manifest import Bundle
from angelo.run_folder import sha256_of_file
from angelo.sequences import FileKind, read_sequences
from angelo.session import Device, find_devices
from angelo.types import Density, SequenceRecord

#: What a person is told who gave no sequences.
NO_SEQUENCES = (
    "no sequences given: residue types are the networks' guess; angelo search finds the "
    "proteins in a database",
)
#: What a person is told whose bundle knows nucleotides and whose sequences are all proteins.
NO_NUCLEIC_ACID = "no DNA or RNA among the sequences: nucleotides are left out"


#: What a person is told whose networks read sequences, and who gave none of a protein.
NO_PROTEIN = (
    "these networks were trained with protein sequences and get none: expect worse residue "
    "types than from networks trained without"
)


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What to build, from what, where, and how."""

    map_path: Path
    """MRC or CCP4 map."""
    fasta_path: Path | None
    """Sequences, of proteins and, if the bundle knows them, nucleic acids; without any, here or
    below, chains are built, but not named after a sequence."""
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
    dna_path: Path | None = None
    """Sequences of DNA."""
    rna_path: Path | None = None
    """Sequences of RNA."""

    @property
    def sequence_files(self) -> dict[FileKind, Path]:
        """Files of sequences by what they hold."""
        files: tuple[tuple[FileKind, Path | None], ...] = (
            ("any", self.fasta_path),
            ("dna", self.dna_path),
            ("rna", self.rna_path),
        )
        return {kind: path for kind, path in files if path is not None}


@dataclass(frozen=True, slots=True)
class Inputs:
    """A job with its files read and checked."""

    density: Density
    """The map, masked; its mirror image where ``is_mirrored``."""
    records: tuple[SequenceRecord, ...]
    """Sequences to look for, proteins first; empty without a FASTA file."""
    notes: tuple[str, ...]
    """What a person should know about the input."""
    bundle: Bundle
    devices: tuple[Device, ...]
    facts: dict[str, Any]
    """Everything that decides the result: checksums and settings."""
    is_mirrored: bool = False
    """Whether the map was found to have the wrong hand, and was flipped."""

    @property
    def proteins(self) -> tuple[SequenceRecord, ...]:
        """The records of proteins, which are the first."""
        return tuple(record for record in self.records if record.kind == "protein")

    @property
    def wants_nucleotides(self) -> bool:
        """Whether to look for nucleotides: the bundle can, and they may be there.

        Parity: where sequences are given, but none of nucleic acid, ModelAngelo builds none.
        """
        is_expected = not self.records or len(self.proteins) < len(self.records)
        return self.bundle.builds_nucleotides and is_expected


def read_inputs(job: BuildJob) -> Inputs:
    """Read and check everything a job names; nothing is written.

    Raises
    ------
    UserError
        For whatever is wrong, in one line.
    """
    devices = find_devices(job.device)
    bundle = load_bundle(find_bundle(job.bundle))
    files, knows_both = job.sequence_files, bundle.builds_nucleotides
    records: tuple[SequenceRecord, ...] = ()
    notes: tuple[str, ...] = NO_SEQUENCES
    if files:
        records, notes = read_sequences(files, builds_nucleotides=knows_both)
    if files and knows_both and all(record.kind == "protein" for record in records):
        notes = (*notes, NO_NUCLEIC_ACID)
    if bundle.language is not None and not any(r.kind == "protein" for r in records):
        notes = (*notes, NO_PROTEIN)
    density = read_map(job.map_path, job.voxel_size)
    if job.half_map_path is not None:
        half, name = read_map(job.half_map_path, job.voxel_size), f"{job.half_map_path}: it"
        density = average_half_maps(density, half, name)
    if job.mask_path is not None:
        mask, name = read_mask(job.mask_path, job.voxel_size), f"{job.mask_path}: it"
        density = apply_mask(density, mask, name)
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
        **{
            f"{kind}_sha256": sha256_of_file(path)
            for kind, path in files.items()
            if kind != "any"
        },
    }
    if facts["half_map_sha256"] == facts["map_sha256"]:
        raise MapError(
            f"{job.half_map_path}: the same map as {job.map_path}; give the other half-map, or "
            "leave --half-map out"
        )
    return Inputs(density, records, notes, bundle, devices, facts)


def describe_inputs(job: BuildJob, inputs: Inputs) -> dict[str, Any]:
    """Describe the input for run.json, where and what it was."""
    return {
        "inputs": inputs.facts,
        "map": str(job.map_path.resolve()),
        "fasta": str(job.fasta_path.resolve()) if job.fasta_path else None,
        **{kind: str(p.resolve()) for kind, p in job.sequence_files.items() if kind != "any"},
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
