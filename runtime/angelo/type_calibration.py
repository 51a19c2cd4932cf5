"""What the amino-acid logits are worth on this map, learned from residues surely placed.

A network is surer of itself on a real map than it should be, and in each map it favours some
types over others: where side chains are blurred, alanine and glycine over aromatic ones, say.
Residues that the sequences have placed tell how much. One temperature and one bias for each
amino acid, fitted to these, then make better evidence for the fragments that could not be
placed before (temperature scaling with biases: Guo et al. 2017, arXiv:1706.04599).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.optimize import minimize

from angelo.profiles import (
    BACKGROUND_WEIGHT,
    HMMER_CODES,
    amino_columns,
    background_frequencies,
    codes_of,
)
from angelo.types import Assignment, Refinement, SequenceRecord

_log = logging.getLogger(__name__)

#: Fewer placed residues say too little of a map.
MIN_PLACED = 50
#: Temperature that is expected before a map has told its own, and how far (natural logarithm)
#: that of a map is from it; and of the biases, natural-log units.
USUAL_TEMPERATURE, TEMPERATURE_SPREAD, BIAS_SPREAD = 1.5, 0.25, 0.25


@dataclass(frozen=True, slots=True)
class TypeCalibration:
    """How logits become those that are right as often as they say."""

    temperature: float
    """Divides the logits."""
    bias: Float64[np.ndarray, "20"]
    """Then added; amino acids in the order of `angelo.profiles.HMMER_CODES`."""

    def of(
        self, aa_logits: Float32[np.ndarray, "r t"], residue_types: Sequence[str]
    ) -> Float32[np.ndarray, "r t"]:
        """Calibrated logits; columns that are not of amino acids stay as they are."""
        calibrated = aa_logits.copy()
        columns = amino_columns(residue_types)
        calibrated[:, columns] = aa_logits[:, columns] / self.temperature + self.bias
        return calibrated


def usual_calibration() -> TypeCalibration:
    """Return what is done to the logits of a map of which nothing is known yet."""
    return TypeCalibration(USUAL_TEMPERATURE, np.zeros(len(HMMER_CODES)))


def fit_calibration(
    amino_logits: Float32[np.ndarray, "p 20"], true_types: Int64[np.ndarray, " p"]
) -> TypeCalibration:
    """Most likely temperature and biases, given residues of known type.

    Parameters
    ----------
    amino_logits
        The network's, columns in the order of `angelo.profiles.HMMER_CODES`.
    true_types
        Column of each residue's type.

    Notes
    -----
    As everywhere, a little background is mixed into the probabilities, so that a few residues
    that were placed wrongly have little say. Temperature and biases have normal priors.
    """
    logits = amino_logits.astype(np.float64)
    rows = np.arange(len(logits))
    chance = BACKGROUND_WEIGHT * background_frequencies()[true_types]

    def cost(unknowns: Float64[np.ndarray, "21"]) -> tuple[float, Float64[np.ndarray, "21"]]:
        log_temperature, bias = unknowns[0], unknowns[1:]
        scaled = logits * np.exp(-log_temperature)
        odds = scaled + bias
        odds = np.exp(odds - odds.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        of_network = (1 - BACKGROUND_WEIGHT) * probabilities[rows, true_types]
        likelihood = of_network + chance
        slope = probabilities * (of_network / likelihood)[:, None]  # of the cost, by odds
        slope[rows, true_types] -= of_network / likelihood
        away = log_temperature - np.log(USUAL_TEMPERATURE)
        prior = (away / TEMPERATURE_SPREAD) ** 2 + ((bias / BIAS_SPREAD) ** 2).sum()
        gradient = np.concatenate(
            [
                [-(slope * scaled).sum() + away / TEMPERATURE_SPREAD**2],
                slope.sum(axis=0) + bias / BIAS_SPREAD**2,
            ]
        )
        return float(-np.log(likelihood).sum() + prior / 2), gradient

    start = np.concatenate([[np.log(USUAL_TEMPERATURE)], np.zeros(logits.shape[1])])
    found = minimize(cost, start, jac=True, method="L-BFGS-B").x
    return TypeCalibration(float(np.exp(found[0])), found[1:])


def calibrate_by_placed(
    refinement: Refinement,
    assignments: Sequence[Assignment],
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> TypeCalibration | None:
    """Calibration by the residues that are placed on sequences; None where they are too few.

    Parameters
    ----------
    refinement, residue_types
        The network's own logits, and what their columns are.
    assignments, records
        Protein chains, placed or not, and the sequences that they are placed on. Residues
        placed on an X say nothing.
    """
    rows, types = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for assignment in assignments:
        if assignment.sequence >= 0:
            matched = assignment.positions >= 0
            rows.append(assignment.chain.residues[matched])
            codes = codes_of(records[assignment.sequence].residues)
            types.append(codes[assignment.positions[matched]])
    row, kind = np.concatenate(rows), np.concatenate(types)
    known = kind >= 0
    if known.sum() < MIN_PLACED:
        return None
    logits = refinement.aa_logits[row[known]][:, amino_columns(residue_types)]
    calibration = fit_calibration(logits, kind[known])
    _log.info(
        "%d placed residues: temperature of amino acids %.2f, biases %s",
        known.sum(),
        calibration.temperature,
        " ".join(f"{c}{b:+.1f}" for c, b in zip(HMMER_CODES, calibration.bias, strict=True)),
    )
    return calibration


def with_calibration(
    refinement: Refinement, calibration: TypeCalibration, residue_types: Sequence[str]
) -> Refinement:
    """Replace the network's logits by calibrated ones."""
    return replace(refinement, aa_logits=calibration.of(refinement.aa_logits, residue_types))
