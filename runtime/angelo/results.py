"""Results: the models, and every file of a run folder that is made from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from angelo import __version__
from angelo.density import write_map
from angelo.hand import MIRRORED_ENDING
from angelo.job import BuildJob, Inputs
from angelo.mmcif import ModelMetadata, mmcif_text
from angelo.profiles import ProfileHmm, hmmer_text
from angelo.prune import AssignmentReport
from angelo.report.chimerax import chimerax_script
from angelo.report.page import html_report
from angelo.report.tables import chains_csv, problems_csv, residues_csv, sequences_csv
from angelo.report.undecided import UndecidedChain, undecided_csv
from angelo.run_folder import PROFILES, RunFolder, make_folder, sha256_of_file, write_files
from angelo.types import Model
from angelo.validate import Validation


@dataclass(frozen=True, slots=True)
class Models:
    """What was built."""

    raw: Model
    """Every residue of every chain; without sequences the only model."""
    profiles: tuple[ProfileHmm, ...] = ()
    """Of its chains that are long enough."""
    pruned: Model | None = None
    """The residues that the sequences support."""
    report: AssignmentReport | None = None
    """What the sequences explain."""
    undecided: tuple[UndecidedChain, ...] = ()
    """Chains that they might explain."""

    @property
    def by_name(self) -> dict[str, Model]:
        """The models there are, the one to look at first."""
        if self.pruned is None:
            return {"built": self.raw}
        return {"pruned": self.pruned, "raw": self.raw}


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a run made."""

    folder: Path
    files: tuple[str, ...]
    """Names of the files in the folder."""
    summary: dict[str, Any]
    """See ``angelo.report.tables.summarise``."""
    notes: tuple[str, ...]
    """What a person should know."""
    was_done: bool
    """Whether an earlier run had done all of it already."""

    @property
    def nothing_matched(self) -> bool:
        """Whether there were sequences, but no chain that fits one."""
        return self.summary.get("matched_residues") == 0

    @property
    def why_nothing_matched(self) -> str:
        """What it may be due to then: not the hand, where that was seen to be right."""
        sequences = "the sample has other sequences, or these are too short to be told"
        if self.summary.get("hand") == "as given":
            return f"{sequences}; or the map's resolution is below about 4 Å"
        return (
            "the map has the wrong hand (try --hand auto), its resolution is below about 4 Å, "
            f"its voxel size is not right (--voxel-size), or {sequences}"
        )


def write_results(
    job: BuildJob,
    inputs: Inputs,
    folder: RunFolder,
    models: Models,
    checks: Mapping[str, Validation],
    summary: dict[str, Any],
) -> tuple[str, ...]:
    """Write every file of the run, whole or not at all; return their names.

    ``checks`` has the stereochemistry of each model, by its name in ``models.by_name``.
    """
    name = folder.name
    map_path = job.map_path
    if inputs.is_mirrored:
        map_path = folder.path / f"{name}{MIRRORED_ENDING}"
        write_map(map_path, inputs.density)
    suffix = {"built": "", "pruned": "", "raw": "_raw"}
    texts = {
        f"{name}{suffix[kind]}.cif": mmcif_text(
            model, inputs.records, _metadata(map_path, inputs, f"{name}{suffix[kind]}", kind)
        )
        for kind, model in models.by_name.items()
        if model.n_residues
    }
    coordinates = list(texts)
    texts["residues.csv"] = residues_csv(models.by_name, inputs.records)
    texts["chains.csv"] = chains_csv(models.by_name, inputs.records)
    texts[f"{name}_problems.csv"] = problems_csv(models.by_name, checks)
    if models.pruned is not None and models.report is not None:
        texts["sequences.csv"] = sequences_csv(models.report, models.pruned, inputs.records)
        texts["undecided.csv"] = undecided_csv(models.undecided, inputs.records)
    texts["summary.json"] = json.dumps(summary, indent=2) + "\n"
    texts[f"{name}.html"] = html_report(
        f"{name}: angelo in {map_path.name}",
        summary,
        models.by_name,
        inputs.records,
        inputs.notes,
        models.undecided,
    )
    texts[f"{name}.cxc"] = chimerax_script(folder.path, map_path, coordinates)
    if models.profiles:
        texts[f"{name}.hmm"] = hmmer_text(models.profiles)
        for profile in models.profiles:
            texts[f"{PROFILES}/{profile.name}.hmm"] = hmmer_text([profile])
        make_folder(folder.path / PROFILES)
    write_files({folder.path / file: text for file, text in texts.items()})
    return (*texts, map_path.name) if inputs.is_mirrored else tuple(texts)


def _metadata(map_path: Path, inputs: Inputs, name: str, kind: str) -> ModelMetadata:
    density, bundle = inputs.density, inputs.bundle
    what = {
        "built": "all residues; no sequences were given, types are the networks' guess",
        "pruned": "residues that the sequences support",
        "raw": "all residues, also those that no sequence supports",
    }[kind]
    shape_xyz = np.array(density.values_zyx.shape[::-1], np.float32)
    checksum = sha256_of_file(map_path) if inputs.is_mirrored else inputs.facts["map_sha256"]
    return ModelMetadata(
        name=name,
        title=f"Atomic model built by angelo: {what}",
        program_version=__version__,
        bundle=f"{bundle.name} {bundle.version}",
        bundle_citation=bundle.citation,
        map_name=map_path.name,
        map_sha256=checksum,
        cell=shape_xyz * density.voxel_size,
    )


def read_result(folder: RunFolder, *, was_done: bool) -> BuildResult:
    """Read what a finished run says of itself."""
    record = folder.record()
    return BuildResult(
        folder.path,
        tuple(record["files"]),
        record["summary"],
        tuple(record["notes"]),
        was_done,
    )
