"""Built nucleotides against deposited ones, by their P atoms; nothing is superposed."""

from dataclasses import asdict, dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float32

from angelo.coordinates import read_model
from angelo.evaluate import match_calphas, percent, root_mean

POLYMER = gemmi.EntityType.Polymer


@dataclass(frozen=True, slots=True)
class NucleotideCoordinates:
    """The nucleotides of a coordinate file that have a P, in file order."""

    phosphorus: Float32[np.ndarray, "r 3"]
    """Å, file coordinates."""
    bases: tuple[str, ...]
    """One-letter codes of the bases, modified ones as their parents; U and T are both T."""

    def __len__(self) -> int:
        return len(self.bases)


@dataclass(frozen=True, slots=True)
class NucleotideEvaluation:
    """How well built nucleotides reproduce deposited ones; percentages as in `Evaluation`."""

    n_deposited_nucleotides: int
    """Deposited nucleotides with a P."""
    n_built_nucleotides: int
    """Built nucleotides."""
    n_matched_nucleotides: int
    """Pairs of a built and a deposited P within 3 Å, one to one."""
    phosphorus_recall: float
    """% of deposited nucleotides that are matched."""
    phosphorus_precision: float
    """% of built nucleotides that are matched."""
    base_recall: float
    """% of deposited nucleotides matched to a built one of the same base."""
    base_precision: float
    """% of built nucleotides matched to a deposited one of the same base."""
    phosphorus_rmsd: float | None
    """Over matched P, Å, no superposition; None if there are none."""

    def as_dict(self) -> dict[str, int | float | None]:
        """All fields by name, ready for JSON."""
        return asdict(self)


def evaluate_nucleotide_files(built: Path, deposited: Path) -> NucleotideEvaluation | None:
    """Compare the nucleotides of two mmCIF or PDB files; None if neither has any.

    Raises ModelFileError for a file that cannot be read.
    """
    model, target = read_nucleotides(built), read_nucleotides(deposited)
    if not len(model) and not len(target):
        return None
    return evaluate_nucleotides(model, target)


def evaluate_nucleotides(
    built: NucleotideCoordinates, deposited: NucleotideCoordinates
) -> NucleotideEvaluation:
    """Compare built with deposited nucleotides in the same map."""
    of_built, of_deposited = match_calphas(built.phosphorus, deposited.phosphorus)
    n_matched, n_built, n_deposited = len(of_built), len(built), len(deposited)
    n_right = sum(
        built.bases[i] == deposited.bases[j]
        for i, j in zip(of_built, of_deposited, strict=True)
    )
    shift = built.phosphorus[of_built] - deposited.phosphorus[of_deposited]
    return NucleotideEvaluation(
        n_deposited_nucleotides=n_deposited,
        n_built_nucleotides=n_built,
        n_matched_nucleotides=n_matched,
        phosphorus_recall=percent(n_matched, n_deposited),
        phosphorus_precision=percent(n_matched, n_built),
        base_recall=percent(n_right, n_deposited),
        base_precision=percent(n_right, n_built),
        phosphorus_rmsd=root_mean((shift.astype(np.float64) ** 2).sum(-1)),
    )


def read_nucleotides(path: Path) -> NucleotideCoordinates:
    """Read the nucleotides with a P of an mmCIF or PDB file (also .gz), perhaps none.

    Of several models the first is read, and of alternatives the first. The nucleotide at the 5'
    end of a strand often has no phosphate, and then does not count.
    """
    found = []
    for chain in read_model(path):
        for residue in chain.first_conformer():
            kind = gemmi.find_tabulated_residue(residue.name)
            is_ligand = residue.het_flag == "H" and residue.entity_type != POLYMER
            if kind.is_nucleic_acid() and not is_ligand and "P" in residue:
                base = kind.one_letter_code.upper().replace("U", "T")
                found.append((residue["P"][0].pos.tolist(), base))
    places, bases = zip(*found, strict=True) if found else ((), ())
    return NucleotideCoordinates(np.array(places, np.float32).reshape(-1, 3), tuple(bases))
