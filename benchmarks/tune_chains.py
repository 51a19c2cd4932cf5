"""Compare settings of chain tracing on simulated ``val`` maps, refining each map once.

python benchmarks/tune_chains.py --bundle models/compact --structures data/structures.npz
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import options
from cases import simulated_cases
from staged import Prepared, Types, named, prepare, refined, types_of_model

from angelo.coordinates import read_structure
from angelo_training.structures import PackedStructures

#: Settings that are tried: least probability of a link, longest bond (Å), least existence.
GRID = tuple(itertools.product((0.02, 0.05, 0.2), (3.2, 4.0, 5.0, 6.0), (0.3, 0.5)))


def with_chains(prepared: Prepared, setting: tuple[float, float, float]) -> Prepared:
    """The same map, its chains traced by other settings."""
    names = ("min_next_probability", "max_bond", "min_existence")
    bundle = prepared.inputs.bundle
    chains = replace(bundle.chains, **dict(zip(names, setting, strict=True)))
    inputs = replace(prepared.inputs, bundle=replace(bundle, chains=chains))
    return replace(prepared, inputs=inputs)


def percentages(found: Types) -> tuple[float, float, float]:
    """C-alpha recall, sequence recall and sequence precision."""
    n, n_built = found.n_deposited, max(found.n_built, 1)
    return 100 * found.n_matched / n, 100 * found.n_right / n, 100 * found.n_right / n_built


def main() -> None:
    """Print a table of pruned figures, one row for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=options.BUNDLE)
    parser.add_argument("--structures", type=Path, default=options.STRUCTURES)
    parser.add_argument("--entries", type=int, default=4)
    parser.add_argument("--resolutions", default="3.0,3.5")
    arguments = parser.parse_args()
    resolutions = [float(text) for text in arguments.resolutions.split(",")]
    packed = PackedStructures(arguments.structures)
    rows: dict[tuple[float, float, float], list[tuple[float, float, float]]] = {}
    for case in simulated_cases(packed, arguments.entries, resolutions):
        with tempfile.TemporaryDirectory() as scratch:
            files, _ = case.make(Path(scratch))
            reference = read_structure(files.reference)
            prepared = prepare(files, arguments.bundle, "cpu")
            refinement = refined(prepared)
            for setting in GRID:
                pruned = named(with_chains(prepared, setting), refinement).pruned
                assert pruned is not None  # the case has sequences
                figures = percentages(types_of_model(pruned, reference))
                rows.setdefault(setting, []).append(figures)
    print("min_next max_bond min_existence: C-alpha recall, sequence recall, precision")
    for setting, several in rows.items():
        print(*setting, ":", *np.round(np.mean(several, 0), 2))


if __name__ == "__main__":
    main()
