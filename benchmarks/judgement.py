"""A built model against the deposited one: every figure that the tables show."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from angelo.coordinates import ProteinCoordinates, read_structure
from angelo.evaluate import Evaluation, evaluate, match_calphas
from angelo.validate import validate

#: Stretches with fewer residues count as short.
SHORT = 10
#: So many residues of a wrong type in a row are a run; in placed chains their register is off.
RUN = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """Which residues a model calls by a wrong name."""

    n_chains: int
    """Chains in the file."""
    wrong_type: float | None
    """% of matched residues whose type is not the deposited one."""
    n_wrong_stretches: int
    """Bonded stretches, numbered without a gap, with fewer right than wrong types."""
    n_short_wrong_stretches: int
    """Those of fewer than 10 residues."""
    n_wrong_runs: int
    """Places where 3 or more bonded residues in a row match a residue of another type."""


#: Figures of ``angelo.validate``; the deposited model has no part in them.
GEOMETRY = (
    "ramachandran_outliers",
    "rotamer_outliers",
    "clashscore",
    "n_bond_outliers",
    "n_angle_outliers",
    "n_twisted_peptides",
    "n_cis_prolines",
    "n_cis_others",
)
#: Names of all figures of a model.
FIGURES = (
    *(field.name for field in fields(Evaluation)),
    *(field.name for field in fields(Identity)),
    *GEOMETRY,
)
#: Figures of an empty model that are a plain zero; the other ones have no value.
ZERO_WHEN_EMPTY = {
    "n_built",
    "n_matched",
    "calpha_recall",
    "calpha_precision",
    "sequence_recall",
    "sequence_precision",
    "calpha_lddt",
    "all_atom_lddt",
    "n_chain_breaks",
    *("n_chains", "n_wrong_stretches", "n_short_wrong_stretches", "n_wrong_runs"),
}


def judge(model: Path | None, reference: ProteinCoordinates) -> dict[str, Any]:
    """Every figure of a model file; zeros where there is no model."""
    if model is None:
        empty = {name: 0 if name in ZERO_WHEN_EMPTY else None for name in FIGURES}
        return empty | {"n_deposited": len(reference)}
    built = read_structure(model)
    figures = evaluate(built, reference).as_dict() | asdict(identify(built, reference))
    checked = validate(built).as_dict()
    figures |= {name: checked[name] for name in GEOMETRY}
    return {n: round(v, 3) if isinstance(v, float) else v for n, v in figures.items()}


def identify(built: ProteinCoordinates, reference: ProteinCoordinates) -> Identity:
    """Count residues, and stretches of them, that carry a wrong type."""
    of_built, of_deposited = match_calphas(built.calphas, reference.calphas)
    is_right = built.residue_type[of_built] == reference.residue_type[of_deposited]
    goes_on = built.follows_previous.copy()
    goes_on[1:] &= np.diff(built.sequence_number) == 1
    stretch = np.cumsum(~goes_on) - 1
    length = np.bincount(stretch)
    n_right = np.bincount(stretch[of_built[is_right]], minlength=len(length))
    n_wrong = np.bincount(stretch[of_built[~is_right]], minlength=len(length))
    is_wrong = n_right < n_wrong
    has_wrong_type = np.zeros(len(built), bool)
    has_wrong_type[of_built[~is_right]] = True
    goes_on_wrong = has_wrong_type[1:] & has_wrong_type[:-1] & built.follows_previous[1:]
    run = np.cumsum(np.append(True, ~goes_on_wrong))
    run_length = np.bincount(run[has_wrong_type])
    return Identity(
        n_chains=len(built.chain_names),
        wrong_type=100 * float((~is_right).mean()) if len(is_right) else None,
        n_wrong_stretches=int(is_wrong.sum()),
        n_short_wrong_stretches=int((is_wrong & (length < SHORT)).sum()),
        n_wrong_runs=int((run_length >= RUN).sum()),
    )


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values that there are, to three decimals."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None
