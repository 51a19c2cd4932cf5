"""Placed chains to models: names, numbers, residue types, atoms and confidence."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from string import ascii_lowercase, ascii_uppercase

import numpy as np
from jaxtyping import Float32, Int64

from angelo.atoms import place_atoms
from angelo.profiles import HMMER_CODES, amino_probabilities
from angelo.residues import NAME_FROM_CODE
from angelo.types import (
    Assignment,
    BackboneFrames,
    Chain,
    Model,
    ModelChain,
    Refinement,
    SequenceRecord,
)

#: Predicted error, Å, at which confidence is 0, and how much less makes it 100: ModelAngelo's
#: scale, kept so that models compare.
NO_CONFIDENCE_ERROR = 1.2
CONFIDENCE_RANGE = 0.7


def chains_to_model(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
    pruned: bool,
) -> Model:
    """Name, number and type the residues of all chains, and place their atoms.

    A matched residue has the type and number of its sequence position; where the sequence says
    X, and where nothing matched, the type is the network's best. Chains are named A to Z, a to
    z, AA, AB, ... in the order given.

    Parameters
    ----------
    assignments
        Chains, placed or not.
    refinement
        Frames, torsions, amino-acid logits and predicted errors of the residues.
    records
        The sequence records that assignments refer to.
    residue_types
        Three-letter codes of the columns of the logits.
    pruned
        Write matched residues only. Otherwise every residue of every chain is written: those
        that are not matched are numbered on from their neighbours, and a chain where that does
        not fit is numbered 1, 2, ... . A chain that then departs anywhere from its sequence in
        type or number is an entity of its own (sequence -1).
    """
    if pruned:
        assignments = [_matched_part(a) for a in assignments if (a.positions >= 0).any()]
    names = _chain_names()
    return Model(
        tuple(
            _model_chain(next(names), assignment, refinement, records, residue_types)
            for assignment in assignments
            if len(assignment.chain)
        )
    )


def confidence_from_error(
    predicted_error: Float32[np.ndarray, " c"],
) -> Float32[np.ndarray, " c"]:
    """0 to 100, high is good, from a predicted backbone error in Å."""
    fraction = (NO_CONFIDENCE_ERROR - predicted_error) / CONFIDENCE_RANGE
    clipped: np.ndarray = 100 * np.clip(fraction, 0, 1)
    return clipped.astype(np.float32)


def _chain_names() -> Iterator[str]:
    """Yield A to Z, a to z, then all pairs of these letters, and so on."""
    length = 1
    while True:
        yield from map("".join, product(ascii_uppercase + ascii_lowercase, repeat=length))
        length += 1


def _matched_part(assignment: Assignment) -> Assignment:
    """Drop the residues that match no position."""
    matched = assignment.positions >= 0
    return replace(
        assignment,
        chain=Chain(assignment.chain.residues[matched]),
        positions=assignment.positions[matched],
    )


def _model_chain(
    name: str,
    assignment: Assignment,
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> ModelChain:
    """One chain with atoms."""
    residues = assignment.chain.residues
    probabilities = amino_probabilities(refinement.aa_logits[residues], residue_types)
    sequence = records[assignment.sequence].residues if assignment.sequence >= 0 else ""
    codes = [
        sequence[position] if position >= 0 and sequence[position] != "X" else HMMER_CODES[best]
        for position, best in zip(
            assignment.positions, probabilities.argmax(axis=1), strict=True
        )
    ]
    types = tuple(NAME_FROM_CODE[code] for code in codes)
    numbers = _residue_numbers(assignment.positions)
    frames = BackboneFrames(
        refinement.frames.rotation[residues], refinement.frames.ca[residues]
    )
    type_index = np.array([residue_types.index(kind) for kind in types], dtype=np.int64)
    positions, has_atom = place_atoms(
        frames, refinement.torsions[residues], type_index, residue_types
    )
    columns = [HMMER_CODES.index(code) for code in codes]
    return ModelChain(
        name=name,
        sequence=assignment.sequence if _agrees(sequence, numbers, codes) else -1,
        sequence_positions=numbers,
        residue_types=types,
        atom_positions=positions,
        has_atom=has_atom,
        confidence=confidence_from_error(refinement.predicted_error[residues]),
        aa_probability=probabilities[np.arange(len(codes)), columns].astype(np.float32),
    )


def _residue_numbers(positions: Int64[np.ndarray, " c"]) -> Int64[np.ndarray, " c"]:
    """1-based numbers; unmatched residues count on from the match before them.

    Those before the first match count back from it. If the numbers then fail to increase, or
    start below 1, the chain is numbered from 1.
    """
    matched = np.flatnonzero(positions >= 0)
    rows = np.arange(len(positions))
    if not len(matched):
        return rows + 1
    anchor = matched[np.maximum(np.searchsorted(matched, rows, side="right") - 1, 0)]
    numbers: np.ndarray = positions[anchor] + 1 + rows - anchor
    if numbers[0] < 1 or (np.diff(numbers) < 1).any():
        return rows + 1
    return numbers


def _agrees(sequence: str, numbers: Int64[np.ndarray, " c"], codes: Sequence[str]) -> bool:
    """Whether every residue is what the sequence has at its number (X is anything)."""
    return int(numbers[-1]) <= len(sequence) and all(
        sequence[number - 1] in (code, "X") for number, code in zip(numbers, codes, strict=True)
    )
