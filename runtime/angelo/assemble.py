"""Placed chains to models: names, numbers, residue types, atoms and confidence."""

from collections.abc import Iterator, Sequence
from itertools import product
from string import ascii_lowercase, ascii_uppercase

import numpy as np
from jaxtyping import Float32, Float64, Int64

from angelo.atoms import place_atoms
from angelo.confidence import confidence_from_error
from angelo.nucleotides import BASE_CODES, base_probabilities, kind_of_chain
from angelo.profiles import HMMER_CODES, amino_probabilities
from angelo.residues import NAMES_BY_KIND, UNKNOWN_BY_KIND, Kind
from angelo.types import (
    Assignment,
    BackboneFrames,
    Model,
    ModelChain,
    Refinement,
    SequenceRecord,
)


def chains_to_model(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
    pruned: bool,
) -> Model:
    """Name, number and type the residues of all chains, and place their atoms.

    A matched residue has the type and number of its sequence position; where the sequence says
    X (of nucleic acid: N), and where nothing matched, the type is the network's best. Chains
    are named A to Z, a to z, AA, AB, ... in the order given.

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


def _chain_names() -> Iterator[str]:
    """Yield A to Z, a to z, then all pairs of these letters, and so on."""
    length = 1
    while True:
        yield from map("".join, product(ascii_uppercase + ascii_lowercase, repeat=length))
        length += 1


def _matched_part(assignment: Assignment) -> Assignment:
    """Drop the residues that match no position."""
    return assignment.only(np.flatnonzero(assignment.positions >= 0))


def _model_chain(
    name: str,
    assignment: Assignment,
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> ModelChain:
    """One chain with atoms."""
    residues = assignment.chain.residues
    kind = kind_of_chain(assignment, refinement, records, residue_types)
    letters, probabilities = _type_probabilities(
        kind, refinement.aa_logits[residues], residue_types
    )
    sequence = records[assignment.sequence].residues if assignment.sequence >= 0 else ""
    unknown, _ = UNKNOWN_BY_KIND[kind]
    codes = [
        sequence[position] if position >= 0 and sequence[position] != unknown else letters[best]
        for position, best in zip(
            assignment.positions, probabilities.argmax(axis=1), strict=True
        )
    ]
    types = tuple(NAMES_BY_KIND[kind][code] for code in codes)
    numbers = _residue_numbers(assignment.positions)
    frames = BackboneFrames(
        refinement.frames.rotation[residues], refinement.frames.ca[residues]
    )
    type_index = np.array([residue_types.index(kind) for kind in types], dtype=np.int64)
    positions, has_atom = place_atoms(
        frames, refinement.torsions[residues], type_index, residue_types
    )
    columns = [letters.index(code) for code in codes]
    return ModelChain(
        name=name,
        sequence=assignment.sequence if _agrees(sequence, numbers, codes, unknown) else -1,
        sequence_positions=numbers,
        residue_types=types,
        atom_positions=positions,
        has_atom=has_atom,
        confidence=confidence_from_error(refinement.predicted_error[residues]),
        aa_probability=probabilities[np.arange(len(codes)), columns].astype(np.float32),
        number_probability=_number_probability(assignment, numbers),
    )


def _number_probability(
    assignment: Assignment, numbers: Int64[np.ndarray, " c"]
) -> Float32[np.ndarray, " c"] | None:
    """Probabilities of the positions, where the numbers are those of the positions."""
    sure = assignment.number_probability
    if sure is None:
        return None
    is_placed = numbers == assignment.positions + 1
    return np.where(is_placed, sure, 0.0).astype(np.float32)


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


def _type_probabilities(
    kind: Kind, aa_logits: Float32[np.ndarray, "c t"], residue_types: Sequence[str]
) -> tuple[str, Float64[np.ndarray, "c k"]]:
    """One-letter codes of the residues of a kind, and the probability of each."""
    if kind == "protein":
        return HMMER_CODES, amino_probabilities(aa_logits, residue_types)
    return BASE_CODES[kind], base_probabilities(aa_logits, residue_types)


def _agrees(
    sequence: str, numbers: Int64[np.ndarray, " c"], codes: Sequence[str], unknown: str
) -> bool:
    """Whether every residue is what the sequence has at its number (unknown: anything)."""
    return int(numbers[-1]) <= len(sequence) and all(
        sequence[number - 1] in (code, unknown)
        for number, code in zip(numbers, codes, strict=True)
    )
