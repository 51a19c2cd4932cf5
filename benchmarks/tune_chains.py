"""Compare settings of chain tracing on simulated ``val`` maps, refining each map once.

python benchmarks/tune_chains.py --bundle models/compact --structures data/structures.npz
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from simulated_maps import choose_entries, write_case

from angelo import pipeline
from angelo.assemble import chains_to_model
from angelo.coordinates import read_structure
from angelo.evaluate import match_calphas
from angelo.job import BuildJob, Inputs, read_inputs
from angelo.place import place_proteins
from angelo.prune import join_fragments, prune_chains
from angelo.register import leave_out_unsure
from angelo.residues import AMINO_ACIDS
from angelo.trace import TraceSettings, trace_chains
from angelo.types import Model, Refinement
from angelo_training.structures import PackedStructures

#: Settings that are tried: least probability of a link, longest bond (Å), least existence.
GRID = tuple(itertools.product((0.02, 0.05, 0.2), (3.2, 4.0, 5.0, 6.0), (0.3, 0.5)))


def refine_case(inputs: Inputs, job: BuildJob) -> Refinement:
    """All stages before the chains."""
    density = pipeline.prepare_density(inputs.density, inputs.bundle.map)
    calphas = pipeline._search(job, inputs, density, lambda *_: None)
    return pipeline._refine(job, inputs, density, calphas, lambda *_: None)


def pruned_model(refinement: Refinement, inputs: Inputs, settings: TraceSettings) -> Model:
    """What the sequences support."""
    types, records = inputs.bundle.residue_types, inputs.records
    chains = trace_chains(refinement, settings)
    placed, refinement = place_proteins(chains, refinement, records, types)
    joined = join_fragments(placed, refinement, records)
    kept = prune_chains(leave_out_unsure(joined, refinement, records, types), refinement)
    return chains_to_model(kept, refinement, records, types, pruned=True)


def judge(model: Model, reference: Path) -> tuple[float, float, float]:
    """C-alpha recall, sequence recall and sequence precision, %."""
    truth = read_structure(reference)
    kinds = np.array([AMINO_ACIDS.index(k) for c in model.chains for k in c.residue_types])
    built = np.concatenate([c.atom_positions[:, 1] for c in model.chains])
    found, of = match_calphas(built, truth.calphas)
    right = float((kinds[found] == truth.residue_type[of]).sum())
    n = len(truth.calphas)
    return 100 * len(found) / n, 100 * right / n, 100 * right / len(built)


def main() -> None:
    """Print a table of pruned figures, one row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="models/compact")
    parser.add_argument("--structures", type=Path, default=Path("data/structures.npz"))
    parser.add_argument("--entries", type=int, default=4)
    parser.add_argument("--resolutions", default="3.0,3.5")
    arguments = parser.parse_args()
    packed = PackedStructures(arguments.structures)
    rows: dict[tuple[float, float, float], list[tuple[float, float, float]]] = {}
    for index in choose_entries(packed, arguments.entries):
        for resolution in map(float, arguments.resolutions.split(",")):
            with tempfile.TemporaryDirectory() as scratch:
                case = write_case(packed, index, resolution, Path(scratch))
                out = Path(scratch) / "out"
                job = BuildJob(case.map_path, case.fasta_path, out, arguments.bundle, "cpu")
                inputs = read_inputs(job)
                refinement = refine_case(inputs, job)
                for setting in GRID:
                    settings = replace(inputs.bundle.chains, **_named(setting))
                    model = pruned_model(refinement, inputs, settings)
                    rows.setdefault(setting, []).append(judge(model, case.reference))
    print("min_next max_bond min_existence: C-alpha recall, sequence recall, precision")
    for setting, figures in rows.items():
        print(*setting, ":", *np.round(np.mean(figures, 0), 2))


def _named(setting: tuple[float, float, float]) -> dict[str, float]:
    names = ("min_next_probability", "max_bond", "min_existence")
    return dict(zip(names, setting, strict=True))


if __name__ == "__main__":
    main()
