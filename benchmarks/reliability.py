"""Predicted against true errors of residues: groups, curves, tables of reliability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from angelo.confidence import ErrorCalibration, confidence_from_error
from angelo.coordinates import CA, C, N, ProteinCoordinates
from angelo.evaluate import MATCH_RADIUS, match_calphas
from angelo.frames import backbone_atoms
from angelo.types import Refinement

#: Limits of the groups of residues, parts of all sorted by predicted error, that give the curve
#: its points: small groups at its end, where few residues have the large errors that matter.
PARTS = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 1)
#: Limits of the rows of the table, confidence; a row holds its lower limit.
LIMITS = (0, 1, 20, 40, 60, 80, 90, 100, 101)
#: Error, Å, up to which a residue counts as well built.
GOOD = 1.0


@dataclass(frozen=True, slots=True)
class Residues:
    """What was said of residues, and what was true. Å."""

    predicted: Float32[np.ndarray, " r"]
    """Errors as the network gave them, or as a calibration turned them."""
    backbone: Float32[np.ndarray, " r"]
    """Mean distance of N, CA and C from their true places; of a false residue 3."""
    calpha: Float32[np.ndarray, " r"]
    """Distance of CA; of a false residue 3."""
    is_false: Bool[np.ndarray, " r"]
    """No deposited C-alpha is near, or another residue is nearer to it."""

    def __len__(self) -> int:
        return len(self.predicted)


def residues_of(
    refinement: Refinement, min_existence: float, reference: ProteinCoordinates
) -> Residues:
    """Errors of the residues that are traced; without the backbone's atoms that lack."""
    exists = refinement.existence >= min_existence
    atoms = backbone_atoms(refinement.frames)[exists][:, :3]
    of_built, of_deposited = match_calphas(atoms[:, 1], reference.calphas)
    columns = [N, CA, C]
    away = np.linalg.norm(
        atoms[of_built] - reference.positions[of_deposited][:, columns], axis=-1
    )
    there = reference.has_atom[of_deposited][:, columns]
    backbone = np.full(len(atoms), MATCH_RADIUS, np.float32)
    calpha = backbone.copy()
    backbone[of_built] = (away * there).sum(axis=1) / there.sum(axis=1)
    calpha[of_built] = away[:, 1]
    is_false = np.ones(len(atoms), bool)
    is_false[of_built] = False
    return Residues(refinement.predicted_error[exists], backbone, calpha, is_false)


def together(parts: Sequence[Residues]) -> Residues:
    """All residues of several maps."""
    columns = zip(
        *((p.predicted, p.backbone, p.calpha, p.is_false) for p in parts), strict=True
    )
    return Residues(*(np.concatenate(column) for column in columns))


def groups_of(residues: Residues) -> list[Int64[np.ndarray, " g"]]:
    """Residues of each group, by ``PARTS`` of those sorted by predicted error."""
    order = np.argsort(residues.predicted, kind="stable")
    limits = np.rint(np.array(PARTS[1:-1]) * len(order)).astype(int)
    return [group for group in np.split(order, limits) if len(group)]


def curve_of(residues: Residues) -> Float64[np.ndarray, "g 2"]:
    """Mean predicted and mean true error of each group, Å."""
    return np.array(
        [
            [
                values[group].mean(dtype=float)
                for values in (residues.predicted, residues.backbone)
            ]
            for group in groups_of(residues)
        ]
    )


def fit_calibration(residues: Residues) -> ErrorCalibration:
    """Mean errors of the groups, made never to fall (pool adjacent violators).

    The curve ends at 3 Å for 3 Å, which the network says of nothing but false residues.
    """
    sizes = [len(group) for group in groups_of(residues)]
    predicted, errors = curve_of(residues).T
    expected = np.minimum(isotonic_regression(errors, weights=sizes).x, MATCH_RADIUS)
    is_below = predicted < MATCH_RADIUS
    points = np.append(predicted[is_below], MATCH_RADIUS).round(4)
    values = np.append(expected[is_below], MATCH_RADIUS).round(4)
    _, first = np.unique(points, return_index=True)
    return ErrorCalibration(tuple(points[first].tolist()), tuple(values[first].tolist()))


def calibrated(residues: Residues, calibration: ErrorCalibration) -> Residues:
    """The same residues with calibrated errors."""
    return replace(residues, predicted=calibration.expect(residues.predicted))


def cross_calibrated(entries: Sequence[Residues]) -> Residues:
    """Every second entry by the curve of the others, and these by the curve of the first."""
    halves = [together(entries[start::2]) for start in (0, 1)]
    curves = [fit_calibration(half) for half in halves]
    return together([calibrated(halves[0], curves[1]), calibrated(halves[1], curves[0])])


def reliability(residues: Residues) -> list[dict[str, Any]]:
    """One row for each range of confidence that holds residues."""
    confidence = confidence_from_error(residues.predicted)
    rows = []
    for low, high in pairwise(LIMITS):
        inside = (confidence >= low) & (confidence < high)
        if not inside.any():
            continue
        rows.append(
            {
                "confidence": [low, high],
                "residues": int(inside.sum()),
                "expected": float(residues.predicted[inside].mean(dtype=float)),
                "backbone": float(residues.backbone[inside].mean(dtype=float)),
                "calpha": float(residues.calpha[inside].mean(dtype=float)),
                "good": 100 * float((residues.backbone[inside] <= GOOD).mean()),
                "false": 100 * float(residues.is_false[inside].mean()),
            }
        )
    return rows


def departure(residues: Residues) -> float:
    """Mean over the residues of |expected - true| of their group, Å: 0 if perfect."""
    predicted, errors = curve_of(residues).T
    sizes = [len(group) for group in groups_of(residues)]
    return float(np.average(np.abs(predicted - errors), weights=sizes))


def figures_of(residues: Residues) -> dict[str, Any]:
    """Everything shown of one set of residues."""
    return {
        "residues": len(residues),
        "departure": departure(residues),
        "rank_correlation": float(spearmanr(residues.predicted, residues.backbone).statistic),
        "rows": reliability(residues),
        "curve": curve_of(residues).tolist(),
    }
