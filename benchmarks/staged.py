"""Builds stage by stage in memory, to compare variants of a stage on the same input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cases import MapFiles

from angelo import pipeline
from angelo.coordinates import CA, ProteinCoordinates
from angelo.evaluate import match_calphas
from angelo.job import BuildJob, Inputs, read_inputs
from angelo.residues import AMINO_ACIDS
from angelo.results import Models
from angelo.types import Calphas, Density, Model, Refinement, SequenceRecord


@dataclass(frozen=True, slots=True)
class Prepared:
    """A map up to its C-alphas, which do not depend on sequences."""

    job: BuildJob
    inputs: Inputs
    density: Density
    calphas: Calphas

    def with_records(self, records: Sequence[SequenceRecord]) -> "Prepared":
        """The same map with other sequences (or none)."""
        return replace(self, inputs=replace(self.inputs, records=tuple(records)))


@dataclass(frozen=True, slots=True)
class Types:
    """Residue types of a model against the deposited ones."""

    n_deposited: int
    n_built: int
    n_matched: int
    """Built residues within 3 Å of a deposited one, one to one."""
    n_right: int
    """Those of them that have its type."""


def prepare(files: MapFiles, bundle: Path, device: str, threads: int = 0) -> Prepared:
    """Read the input of a build and find C-alphas."""
    out = files.map_path.parent / "model"  # not written: no stage of this module writes
    job = BuildJob(files.map_path, files.fasta_path, out, bundle, device, threads=threads)
    inputs = read_inputs(job)
    density = pipeline.prepare_density(inputs.density, inputs.bundle.map)
    calphas = pipeline._search(job, inputs, density, _not_told)
    return Prepared(job, inputs, density, calphas)


def refined(prepared: Prepared) -> Refinement:
    """The graph network's residues, with the sequences of ``prepared`` in view."""
    return pipeline._refine(
        prepared.job, prepared.inputs, prepared.density, prepared.calphas, _not_told
    )


def named(prepared: Prepared, refinement: Refinement) -> Models:
    """Chains of the residues, placed on the sequences of ``prepared``."""
    return pipeline._name_chains(refinement, prepared.inputs)


def types_of_network(
    prepared: Prepared, refinement: Refinement, reference: ProteinCoordinates
) -> Types:
    """The network's own best types of the residues that are traced, before any alignment."""
    exists = is_traced(prepared, refinement)
    columns = [prepared.inputs.bundle.residue_types.index(name) for name in AMINO_ACIDS]
    kinds = refinement.aa_logits[exists][:, columns].argmax(axis=1)
    return _types(refinement.frames.ca[exists], kinds, reference)


def is_traced(prepared: Prepared, refinement: Refinement) -> np.ndarray:
    """Residues that exist likely enough for chains to be traced through them, (r,)."""
    return refinement.existence >= prepared.inputs.bundle.gnn.min_existence


def types_of_model(model: Model, reference: ProteinCoordinates) -> Types:
    """The types that a model is written with."""
    ca = [chain.atom_positions[:, CA] for chain in model.chains]
    kinds = [AMINO_ACIDS.index(kind) for chain in model.chains for kind in chain.residue_types]
    positions = np.concatenate([np.zeros((0, 3), np.float32), *ca])
    return _types(positions, np.array(kinds, dtype=np.int64), reference)


def _types(ca: np.ndarray, kinds: np.ndarray, reference: ProteinCoordinates) -> Types:
    of_built, of_deposited = match_calphas(ca, reference.calphas)
    n_right = int((kinds[of_built] == reference.residue_type[of_deposited]).sum())
    return Types(len(reference), len(ca), len(of_built), n_right)


def _not_told(*_: object) -> None:
    """Progress that nobody follows."""
