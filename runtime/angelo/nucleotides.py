"""What a network's logits say of a nucleotide: its base, and whether it is DNA or RNA.

Bases are A, C, G and T (in RNA: U), in this order; the columns of DNA and RNA count together.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64

from angelo.residues import NAMES_BY_KIND, Kind
from angelo.types import Assignment, Refinement, SequenceRecord

#: One-letter codes in the order of all columns here.
BASE_CODES = {"dna": "ACGT", "rna": "ACGU"}


def base_probabilities(
    aa_logits: Float32[np.ndarray, "c t"], residue_types: Sequence[str]
) -> Float64[np.ndarray, "c 4"]:
    """Probability of each base, whether DNA or RNA; amino acids take no part.

    Raises
    ------
    ValueError
        If a nucleotide has no column.
    """
    probabilities: np.ndarray = _probabilities(aa_logits, residue_types).sum(axis=1)
    return probabilities


def dna_probability(
    aa_logits: Float32[np.ndarray, "c t"], residue_types: Sequence[str]
) -> float:
    """Probability that a chain is DNA rather than RNA: the mean over its nucleotides."""
    if not len(aa_logits):
        return 0.5
    return float(_probabilities(aa_logits, residue_types)[:, 0].sum(axis=1).mean())


def kind_of_chain(
    assignment: Assignment,
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> Kind:
    """Which polymer a chain is.

    Amino acids and nucleotides are never in one chain. A nucleic acid is what the sequence
    says that it is placed on; one without a sequence is what all nucleic acid records are, and
    if there are records of DNA and of RNA, or none, what its logits say.
    """
    residues = assignment.chain.residues
    if refinement.is_protein is None or refinement.is_protein[residues].all():
        return "protein"
    if assignment.sequence >= 0:
        return records[assignment.sequence].kind
    given = {record.kind for record in records} - {"protein"}
    if len(given) == 1:
        return given.pop()
    is_dna = dna_probability(refinement.aa_logits[residues], residue_types) > 0.5
    return "dna" if is_dna else "rna"


def _probabilities(
    aa_logits: Float32[np.ndarray, "c t"], residue_types: Sequence[str]
) -> Float64[np.ndarray, "c 2 4"]:
    """Softmax over the eight nucleotides: DNA, then RNA."""
    names = [NAMES_BY_KIND[kind][code] for kind, codes in BASE_CODES.items() for code in codes]
    if missing := [name for name in names if name not in residue_types]:
        raise ValueError(f"the logits have no column for {', '.join(missing)}")
    logits = aa_logits[:, [residue_types.index(name) for name in names]].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return probabilities.reshape(-1, 2, 4)
