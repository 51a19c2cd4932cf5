"""Figures of C-alpha points against deposited ones, and their means over maps."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from angelo.coordinates import CA, C, ProteinCoordinates
from angelo.evaluate import match_calphas
from angelo.residues import AMINO_ACIDS
from angelo.types import Calphas

#: Figures that are averaged over maps.
FIGURES = ("recall", "precision", "calpha_rmsd", "direction_error", "amino_acids")


def judge_calphas(
    calphas: Calphas, reference: ProteinCoordinates, residue_types: Sequence[str]
) -> dict[str, Any]:
    """Every figure of the points of one map; None where there is nothing to measure.

    Percentages; Å; degrees. Residues without a C, or of an unknown type, do not count for the
    direction, or for the amino acids.
    """
    found, of = match_calphas(calphas.positions, reference.calphas)
    n_found, n_true, n_matched = len(calphas), len(reference), len(found)
    off = np.linalg.norm(calphas.positions[found] - reference.calphas[of], axis=-1)
    return {
        "n_deposited": n_true,
        "n_points": n_found,
        "n_matched": n_matched,
        "recall": _percent(n_matched, n_true),
        "precision": _percent(n_matched, n_found),
        "calpha_rmsd": _rounded(np.sqrt(np.mean(off**2)) if n_matched else None),
        "direction_error": _direction_error(calphas, reference, found, of),
        "amino_acids": _amino_acid_accuracy(calphas, reference, found, of, residue_types),
    }


def _direction_error(
    calphas: Calphas, reference: ProteinCoordinates, found: np.ndarray, of: np.ndarray
) -> float | None:
    """Mean angle between the predicted and the true CA->C, degrees."""
    has_c = reference.has_atom[of, C]
    if calphas.rotation is None or not has_c.any():
        return None
    predicted = calphas.rotation[found[has_c], :, 0]
    true = reference.positions[of[has_c], C] - reference.positions[of[has_c], CA]
    true = true / np.linalg.norm(true, axis=-1, keepdims=True)
    cosine = np.clip((predicted * true).sum(-1), -1, 1)
    return _rounded(np.degrees(np.arccos(cosine)).mean())


def _amino_acid_accuracy(
    calphas: Calphas,
    reference: ProteinCoordinates,
    found: np.ndarray,
    of: np.ndarray,
    residue_types: Sequence[str],
) -> float | None:
    """Matched residues whose most likely type is right, %."""
    is_known = reference.residue_type[of] >= 0
    if calphas.aa_logits is None or not is_known.any():
        return None
    names = np.array(residue_types)[calphas.aa_logits[found[is_known]].argmax(-1)]
    true = np.array(AMINO_ACIDS)[reference.residue_type[of[is_known]]]
    return _rounded(100 * np.mean(names == true))


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def mean_of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over maps, each counting the same; None where no map has the figure."""
    means: dict[str, Any] = {"n_maps": len(rows)}
    for name in FIGURES:
        known = [row[name] for row in rows if row[name] is not None]
        means[name] = _rounded(np.mean(known)) if known else None
    return means


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of each group: simulated maps by resolution, and the real maps."""
    rows = list(rows)
    groups = sorted({row["group"] for row in rows})
    return {group: mean_of_rows([r for r in rows if r["group"] == group]) for group in groups}
