"""Amino-acid probabilities of a chain, and the profile HMM that they make."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, Int64
from pyhmmer.easel import Alphabet, Randomness
from pyhmmer.plan7 import HMM, Background, Builder, HMMFile

from angelo.errors import OutputError
from angelo.residues import AMINO_ACID_CODES, AMINO_ACIDS, NAME_FROM_CODE
from angelo.types import Assignment, Model, Refinement, SequenceRecord

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
MISS, DOUBLE = 0.02, 0.01
#: Chance that one more residue is missed, or doubled, right after one was.
MISS_AGAIN, DOUBLE_AGAIN = 0.5, 0.3
#: Shorter chains get no profile for searches: they say too little to find a protein.
MIN_PROFILE_LENGTH = 10
#: Sequences drawn from a profile to calibrate it, and the seed they are drawn with.
N_CALIBRATION, CALIBRATION_SEED = 500, 1
#: Scores that have E-value parameters, in HMMER's order.
FITTED = ("MSV", "VITERBI", "FORWARD")


def amino_probabilities(
    aa_logits: Float32[np.ndarray, "c t"],
    residue_types: Sequence[str],
) -> Float64[np.ndarray, "c 20"]:
    """Softmax over the 20 amino acids, columns in `HMMER_CODES` order.

    Parameters
    ----------
    aa_logits
        Network output; columns of other residue types take no part.
    residue_types
        Three-letter codes of the columns.

    Raises
    ------
    ValueError
        If an amino acid has no column.
    """
    logits = aa_logits[:, amino_columns(residue_types)].astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def amino_columns(residue_types: Sequence[str]) -> list[int]:
    """Columns of the 20 amino acids in the order of `HMMER_CODES`.

    Raises
    ------
    ValueError
        If an amino acid has none.
    """
    if missing := [name for name in AMINO_ACIDS if name not in residue_types]:
        raise ValueError(f"amino-acid logits have no column for {', '.join(missing)}")
    return [residue_types.index(NAME_FROM_CODE[code]) for code in HMMER_CODES]


def codes_of(residues: str) -> Int64[np.ndarray, "_"]:
    """Column of each residue of a sequence; -1 for an X."""
    return np.array([HMMER_CODES.find(letter) for letter in residues], dtype=np.int64)


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
    matches, inserts, moves = _matrices(hmm)  # row 0 is the begin state
    matches[0, 0], matches[0, 1:] = 1.0, 0.0
    matches[1:] = probabilities
    inserts[:] = background_frequencies()
    # MM, MI, MD, IM, II, DM, DD. Here an insertion is a residue that the chain lacks.
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


def _matrices(hmm: ProfileHmm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Get views on HMMER's float32 matrices: match and insert emissions, transitions."""
    model: Any = hmm  # pyhmmer's stubs lack them
    names = ("match_emissions", "insert_emissions", "transition_probabilities")
    matches, inserts, moves = (np.asarray(getattr(model, name)) for name in names)
    return matches, inserts, moves


def calibrated(hmm: ProfileHmm) -> ProfileHmm:
    """Copy of a profile with E-value parameters fitted as HMMER fits them.

    HMMER calibrates what its builder builds (Eddy 2008, doi:10.1371/journal.pcbi.1000069), so
    a profile is built anew from sequences that this one emits, and its parameters are taken.
    """
    emitted = hmm.emit_alignment(N_CALIBRATION, randomness=Randomness(CALIBRATION_SEED))
    emitted.name = hmm.name
    builder = Builder(
        hmm.alphabet,
        architecture="hand",
        weighting="none",
        effective_number="none",
        prior_scheme=None,
    )
    rebuilt, _, _ = builder.build_msa(emitted, Background(hmm.alphabet))
    # Through the text format, as nothing else marks a profile as calibrated.
    fitted: Any = rebuilt.evalue_parameters.as_vector()
    head, body = hmmer_text([hmm]).split("\nHMM ", 1)
    for kind, (location, decay) in zip(FITTED, np.reshape(fitted, (3, 2)), strict=True):
        head += f"\nSTATS LOCAL {kind} {location:.4f} {decay:.5f}"
    return _parse(io.BytesIO(f"{head}\nHMM {body}".encode()))[0]


def chain_profiles(
    model: Model,
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> tuple[ProfileHmm, ...]:
    """Calibrated profile of every protein chain that is long enough, named after it.

    Parameters
    ----------
    model
        The chains under their names.
    assignments
        The same chains, in the same order: their residues.
    refinement, residue_types
        Amino-acid logits, and what their columns are.
    records
        Sequences that were given; a profile's description says which one its chain matched.
    """
    profiles = []
    for chain, assignment in zip(model.chains, assignments, strict=True):
        if len(chain) < MIN_PROFILE_LENGTH or chain.kind != "protein":
            continue
        logits = refinement.aa_logits[assignment.chain.residues]
        hmm = profile_hmm(
            chain.name, with_background(amino_probabilities(logits, residue_types))
        )
        matched = assignment.sequence >= 0
        known = f"matches {records[assignment.sequence].name}" if matched else "unassigned"
        hmm.description = f"chain {chain.name}, {len(chain)} residues, {known}"
        profiles.append(calibrated(hmm))
    return tuple(profiles)


def hmmer_text(profiles: Iterable[ProfileHmm]) -> str:
    """Profiles in HMMER3's text format, one after another."""
    written = io.BytesIO()
    for profile in profiles:
        profile.write(written)
    return written.getvalue().decode()


def read_profiles(path: Path) -> tuple[ProfileHmm, ...]:
    """Read profiles back.

    Raises
    ------
    OutputError
        If the file is missing, damaged, or holds no protein profile.
    """
    try:
        with path.open("rb") as source:
            found = _parse(source)
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError):  # pyhmmer's message may hold stray bytes
        found = ()
    if not found:
        raise OutputError(
            f"{path}: damaged, holds no HMMER3 profiles. Build the model again with --overwrite"
        )
    return found


def _parse(source: io.BufferedIOBase) -> tuple[ProfileHmm, ...]:
    file: Any = source  # bytes, but not called so by type
    profiles: Any  # of proteins: pyhmmer's stubs cannot know
    with HMMFile(file) as profiles:
        found = tuple(profiles)
    return found
