"""Amino-acid probabilities of a chain, and the profile HMM that they make."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64
from pyhmmer.easel import Alphabet
from pyhmmer.plan7 import HMM, Background

from angelo.residues import AMINO_ACID_CODES, AMINO_ACIDS, NAME_FROM_CODE

if TYPE_CHECKING:
    from pyhmmer.easel import AA

    ProfileHmm = HMM[AA]
else:  # generic in pyhmmer's stubs only
    ProfileHmm = HMM

#: One-letter codes of the amino acids in HMMER's order, which is that of all columns here.
HMMER_CODES = "".join(sorted(AMINO_ACID_CODES))
#: Weight of the background mixed into the network's probabilities, so that none is 0.
BACKGROUND_WEIGHT = 0.05
#: Chance, at each residue, that the chain missed one, or that it holds one twice.
MISS, DOUBLE = 0.01, 0.01
#: Chance that one more residue is missed, or doubled, right after one was.
MISS_AGAIN, DOUBLE_AGAIN = 0.5, 0.3


def amino_probabilities(
    aa_logits: Float32[np.ndarray, "c t"],
    residue_types: Sequence[str],
    temperature: float = 1.0,
) -> Float64[np.ndarray, "c 20"]:
    """Softmax over the 20 amino acids, columns in `HMMER_CODES` order.

    Parameters
    ----------
    aa_logits
        Network output; columns of other residue types take no part.
    residue_types
        Three-letter codes of the columns.
    temperature
        Divides the logits; above 1 for a network that is too sure of itself.

    Raises
    ------
    ValueError
        If an amino acid has no column.
    """
    if missing := [name for name in AMINO_ACIDS if name not in residue_types]:
        raise ValueError(f"amino-acid logits have no column for {', '.join(missing)}")
    columns = [residue_types.index(NAME_FROM_CODE[code]) for code in HMMER_CODES]
    logits = aa_logits[:, columns].astype(np.float64) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def background_frequencies() -> Float64[np.ndarray, "20"]:
    """Amino-acid frequencies of proteins at large (Swiss-Prot, as HMMER has them)."""
    frequencies = np.array(Background(Alphabet.amino()).residue_frequencies, dtype=np.float64)
    normalised: np.ndarray = frequencies / frequencies.sum()
    return normalised


def with_background(
    probabilities: Float64[np.ndarray, "c 20"],
) -> Float64[np.ndarray, "c 20"]:
    """Mix in a little background: no amino acid is impossible."""
    return (
        1 - BACKGROUND_WEIGHT
    ) * probabilities + BACKGROUND_WEIGHT * background_frequencies()


def profile_hmm(name: str, probabilities: Float64[np.ndarray, "c 20"]) -> ProfileHmm:
    """Profile HMM with one match state for each residue of a chain.

    Its E-value parameters are those of the bound ``P(score >= s bits) <= 2^-s``, which holds
    for the Forward score of any HMM: they need no simulation and err on the safe side.
    """
    hmm = HMM(Alphabet.amino(), len(probabilities), name)
    # Views on HMMER's float32 matrices (pyhmmer's stubs lack them); row 0 is the begin state.
    model: Any = hmm
    matches, inserts = np.asarray(model.match_emissions), np.asarray(model.insert_emissions)
    matches[0, 0], matches[0, 1:] = 1.0, 0.0
    matches[1:] = probabilities
    inserts[:] = background_frequencies()
    # MM, MI, MD, IM, II, DM, DD. Here an insertion is a residue that the chain lacks.
    moves = np.asarray(model.transition_probabilities)
    moves[:, :3] = 1 - MISS - DOUBLE, MISS, DOUBLE
    moves[:, 3:5] = 1 - MISS_AGAIN, MISS_AGAIN
    moves[:, 5:] = 1 - DOUBLE_AGAIN, DOUBLE_AGAIN
    moves[0, 5:] = 1.0, 0.0  # no delete state before the first residue, none after the last
    moves[-1] = 1 - MISS, MISS, 0.0, 1 - MISS_AGAIN, MISS_AGAIN, 1.0, 0.0
    hmm.renormalize()
    hmm.set_composition()
    hmm.set_consensus(None)
    hmm.validate(tolerance=1e-4)
    parameters = hmm.evalue_parameters
    parameters.m_lambda = parameters.v_lambda = parameters.f_lambda = float(np.log(2))
    parameters.m_mu = parameters.v_mu = parameters.f_tau = 0.0
    return hmm
