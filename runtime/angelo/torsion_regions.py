"""Where backbone and side-chain torsions of good structures lie, and where they do not.

``torsion_regions.json`` divides the Ramachandran plane of four kinds of residues, and the plane
of chi1 and chi2 of every side chain, into favoured, allowed and outlying cells. It is measured
on crystal structures by ``python -m angelo_training.torsion_regions``, not taken from another
program.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from angelo.residues import AMINO_ACIDS, CHI1, PHI, PSI, residues_of

#: File of the regions, beside this module.
FILE = "torsion_regions.json"
#: Regions as numbers, and their letters in the file.
NOT_JUDGED, OUTLIER, ALLOWED, FAVOURED = -1, 0, 1, 2
LETTERS = ".aF"
#: Kinds of residues with a Ramachandran plane of their own, in the order that decides: proline
#: before proline is proline.
GLYCINE, PROLINE, PRE_PROLINE, GENERAL = KINDS = (
    "glycine",
    "proline",
    "pre-proline",
    "general",
)


@dataclass(frozen=True, slots=True)
class TorsionRegions:
    """Planes of one or two torsions, cut into equal cells from -180 degrees on."""

    ramachandran: Mapping[str, Int64[np.ndarray, "p p"]]
    """Region of each (phi, psi) cell by kind of residue."""
    rotamers: Mapping[str, Int64[np.ndarray, "c q"]]
    """Region of each (chi1, chi2) cell by residue type; one column for a single chi."""


@cache
def torsion_regions() -> TorsionRegions:
    """Read the regions once. Raises ValueError for a damaged file."""
    table = json.loads(files("angelo").joinpath(FILE).read_text(encoding="utf-8"))
    return TorsionRegions(
        ramachandran=_planes(table["ramachandran"]), rotamers=_planes(table["rotamers"])
    )


def ramachandran_kinds(
    residue_type: Int64[np.ndarray, " r"], is_linked: Bool[np.ndarray, " r"]
) -> Int64[np.ndarray, " r"]:
    """Index into ``KINDS`` of each residue; ``is_linked``: bonded to the residue before."""
    is_proline = residue_type == AMINO_ACIDS.index("PRO")
    before_proline = np.zeros(len(residue_type), dtype=np.bool_)
    before_proline[:-1] = (is_proline & is_linked)[1:]
    kinds = np.full(len(residue_type), KINDS.index(GENERAL))
    kinds[before_proline] = KINDS.index(PRE_PROLINE)
    kinds[is_proline] = KINDS.index(PROLINE)
    kinds[residue_type == AMINO_ACIDS.index("GLY")] = KINDS.index(GLYCINE)
    return kinds


def ramachandran_regions(
    torsions: Float32[np.ndarray, "r 8 2"],
    is_measured: Bool[np.ndarray, "r 8"],
    residue_type: Int64[np.ndarray, " r"],
    is_linked: Bool[np.ndarray, " r"],
) -> Int64[np.ndarray, " r"]:
    """Region of each residue's phi and psi; ``NOT_JUDGED`` at the ends of chains.

    Parameters
    ----------
    torsions, is_measured
        See ``angelo.atoms.measure_torsions``.
    residue_type
        Index into ``AMINO_ACIDS``; -1 is not judged.
    is_linked
        Whether the residue is bonded to the one before it.
    """
    regions = np.full(len(residue_type), NOT_JUDGED)
    is_inner = is_linked & np.append(is_linked[1:], False)
    is_inner &= is_measured[:, [PHI, PSI]].all(-1) & (residue_type >= 0)
    kinds = ramachandran_kinds(residue_type, is_linked)
    for number, kind in enumerate(KINDS):
        rows = np.flatnonzero(is_inner & (kinds == number))
        regions[rows] = _look_up(
            torsion_regions().ramachandran[kind], torsions[rows][:, [PHI, PSI]]
        )
    return regions


def rotamer_regions(
    torsions: Float32[np.ndarray, "r 8 2"],
    is_measured: Bool[np.ndarray, "r 8"],
    residue_type: Int64[np.ndarray, " r"],
) -> Int64[np.ndarray, " r"]:
    """Region of each residue's chi1 and chi2; ``NOT_JUDGED`` where there are none.

    Parameters are those of ``ramachandran_regions``. chi3 and chi4 are not looked at.
    """
    regions = np.full(len(residue_type), NOT_JUDGED)
    for number, residue in enumerate(residues_of(AMINO_ACIDS)):
        if (plane := torsion_regions().rotamers.get(residue.name)) is None:
            continue
        chis = [CHI1, CHI1 + 1][: residue.n_chi]
        is_judged = (residue_type == number) & is_measured[:, chis].all(-1)
        rows = np.flatnonzero(is_judged)
        regions[rows] = _look_up(plane, torsions[rows][:, chis])
    return regions


def cells_of(
    torsions: Float32[np.ndarray, "r k 2"], shape: tuple[int, ...]
) -> tuple[Int64[np.ndarray, " r"], Int64[np.ndarray, " r"]]:
    """Row and column of the cell that (sin, cos) of one or two torsions fall in."""
    fraction = np.arctan2(torsions[..., 0], torsions[..., 1]) / (2 * np.pi) + 0.5
    cells = np.floor(fraction[:, : len(shape)] * shape[: fraction.shape[1]]).astype(np.int64)
    cells %= np.array(shape[: fraction.shape[1]])  # +180 degrees is -180 degrees
    if fraction.shape[1] == 1:
        return cells[:, 0], np.zeros(len(cells), dtype=np.int64)
    return cells[:, 0], cells[:, 1]


def _look_up(
    plane: Int64[np.ndarray, "p q"], torsions: Float32[np.ndarray, "r k 2"]
) -> Int64[np.ndarray, " r"]:
    return np.asarray(plane[cells_of(torsions, plane.shape)])


def _planes(entries: Mapping[str, Any]) -> Mapping[str, Int64[np.ndarray, "p q"]]:
    return MappingProxyType(
        {
            name: np.array([[LETTERS.index(c) for c in row] for row in rows], dtype=np.int64)
            for name, rows in entries.items()
        }
    )
