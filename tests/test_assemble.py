"""Models from placed chains: names, numbers, types, entities, confidence."""

from dataclasses import replace

import numpy as np
import pytest

from angelo.assemble import chains_to_model
from angelo.confidence import confidence_from_error
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE, residues_of
from angelo.types import Assignment, BackboneFrames, Chain, Refinement, SequenceRecord

RECORDS = (SequenceRecord("a", "MKVLXGW"), SequenceRecord("b", "GGGG"))
#: As a network that knows nucleotides too, in an order of its own.
TYPES = ("DA", *AMINO_ACIDS[::-1], "U")


def refinement_of(letters, types=AMINO_ACIDS):
    """Residues in a row whose network says the given letters at 90 %."""
    n, t = len(letters), len(types)
    logits = np.full((n, t), np.log(0.1 / 19), dtype=np.float32)
    logits[np.arange(n), [types.index(NAME_FROM_CODE[c]) for c in letters]] = np.log(0.9)
    rng = np.random.default_rng(0)
    return Refinement(
        frames=BackboneFrames(
            np.eye(3, dtype=np.float32)[None].repeat(n, 0),
            np.float32([3.8, 0, 0]) * np.arange(n, dtype=np.float32)[:, None],
        ),
        aa_logits=logits,
        torsions=rng.normal(size=(n, 3 + 5 * t, 2)).astype(np.float32),
        predicted_error=np.linspace(0, 2, n, dtype=np.float32),
        existence=np.ones(n, dtype=np.float32),
        neighbours=np.zeros((n, 1), dtype=np.int64),
        next_probability=np.zeros((n, 1), dtype=np.float32),
    )


def assignment(residues, positions, sequence=0):
    return Assignment(
        Chain(np.array(residues, dtype=np.int64)),
        sequence,
        np.array(positions, dtype=np.int64),
        1.0,
        1e-3,
    )


def only_chain(positions, letters, pruned, sequence=0):
    refinement = refinement_of(letters)
    placed = assignment(range(len(letters)), positions, sequence)
    (chain,) = chains_to_model([placed], refinement, RECORDS, AMINO_ACIDS, pruned).chains
    return chain


def test_types_and_numbers_come_from_the_sequence():
    chain = only_chain([1, 2, 3, 4], "RVIY", pruned=True)
    assert chain.name == "A"
    assert chain.sequence == 0
    assert chain.residue_types == ("LYS", "VAL", "LEU", "TYR")  # X: what the network says
    assert chain.sequence_positions.tolist() == [2, 3, 4, 5]
    np.testing.assert_allclose(chain.aa_probability, [0.1 / 19, 0.9, 0.1 / 19, 0.9], rtol=1e-5)


def test_pruned_models_hold_matched_residues_only():
    chain = only_chain([-1, 1, 2, -1], "WKVW", pruned=True)
    assert chain.residue_types == ("LYS", "VAL")
    assert chain.sequence_positions.tolist() == [2, 3]
    unmatched = assignment([0, 1], [-1, -1], -1)
    assert not chains_to_model(
        [unmatched], refinement_of("AA"), RECORDS, AMINO_ACIDS, True
    ).chains


def test_only_numbers_of_the_sequence_have_a_probability():
    sure = np.array([0.0, 0.9, 0.8])
    for positions, expected in (
        ([-1, 2, 3], [0, 0.9, 0.8]),
        ([-1, 0, 1], [0, 0, 0]),  # numbered 1, 2, 3: no number is that of its place
    ):
        placed = replace(assignment([0, 1, 2], positions), number_probability=sure)
        model = chains_to_model([placed], refinement_of("KVL"), RECORDS, AMINO_ACIDS, False)
        np.testing.assert_allclose(model.chains[0].number_probability, expected)
    pruned = chains_to_model([placed], refinement_of("KVL"), RECORDS, AMINO_ACIDS, True)
    np.testing.assert_allclose(pruned.chains[0].number_probability, [0.9, 0.8])
    assert only_chain([1, 2, 3], "KVL", pruned=False).number_probability is None


@pytest.mark.parametrize(
    ("positions", "letters", "numbers", "sequence"),
    [
        ([1, 2, 3], "KVL", [2, 3, 4], 0),
        ([-1, 2, 3, -1], "KVLA", [2, 3, 4, 5], 0),  # both unmatched residues agree
        ([-1, 2, 3, -1], "WVLA", [2, 3, 4, 5], -1),  # the first departs from the sequence
        ([1, -1, 3], "KVL", [2, 3, 4], 0),
        ([1, -1, 5], "KVG", [2, 3, 6], 0),
        ([1, -1, 2], "KKV", [1, 2, 3], -1),  # a doubled residue: no room
        ([-1, 0, 1], "GMK", [1, 2, 3], -1),  # would start at 0
        ([5, 6, -1], "GWA", [6, 7, 8], -1),  # past the end of the sequence
        ([-1, -1], "AA", [1, 2], -1),
        ([-1], "A", [1], -1),
    ],
)
def test_raw_chains_count_on_from_their_matches(positions, letters, numbers, sequence):
    placed = 0 if max(positions) >= 0 else -1
    chain = only_chain(positions, letters, pruned=False, sequence=placed)
    assert len(chain) == len(letters)
    assert chain.sequence_positions.tolist() == numbers
    assert chain.sequence == sequence
    assert chain.residue_types == tuple(NAME_FROM_CODE[c] for c in letters)


def test_every_residue_is_in_the_raw_model_once():
    refinement = refinement_of("MKVLAGWGGGGA")
    assignments = [
        assignment([0, 1, 2, 3, 4, 5, 6], range(7)),
        assignment([7, 8, 9, 10], range(4), 1),
        assignment([11], [-1], -1),
    ]
    model = chains_to_model(assignments, refinement, RECORDS, AMINO_ACIDS, False)
    assert [chain.name for chain in model.chains] == ["A", "B", "C"]
    assert [chain.sequence for chain in model.chains] == [0, 1, -1]
    assert model.n_residues == 12
    pruned = chains_to_model(assignments, refinement, RECORDS, AMINO_ACIDS, True)
    assert pruned.n_residues == 11


def test_chain_names_go_on_with_two_letters():
    refinement = refinement_of("A" * 56)
    assignments = [assignment([i], [-1], -1) for i in range(56)]
    model = chains_to_model(assignments, refinement, RECORDS, AMINO_ACIDS, False)
    names = [chain.name for chain in model.chains]
    assert [names[i] for i in (0, 25, 26, 51, 52, 53)] == ["A", "Z", "a", "z", "AA", "AB"]
    assert len(set(names)) == 56


def test_atoms_are_those_of_the_written_type_at_the_residue():
    chain = only_chain([1, 2, 6], "KVF", pruned=True)  # written as LYS, VAL, TRP
    n_atoms = [len(residue.atoms) for residue in residues_of(("LYS", "VAL", "TRP"))]
    assert chain.has_atom.sum(1).tolist() == n_atoms
    ca = [residue.atoms.index("CA") for residue in residues_of(chain.residue_types)]
    np.testing.assert_allclose(
        chain.atom_positions[np.arange(3), ca], [[0, 0, 0], [3.8, 0, 0], [7.6, 0, 0]], atol=1e-4
    )


def test_the_order_of_the_columns_does_not_matter():
    plain, mixed = (
        chains_to_model(
            [assignment([0, 1, 2], [-1, -1, -1], -1)],
            refinement_of("KVW", types),
            RECORDS,
            types,
            False,
        ).chains[0]
        for types in (AMINO_ACIDS, TYPES)
    )
    assert plain.residue_types == mixed.residue_types == ("LYS", "VAL", "TRP")
    np.testing.assert_allclose(plain.aa_probability, mixed.aa_probability, rtol=1e-5)


def test_confidence_runs_from_0_to_100():
    errors = np.float32([0, 0.5, 0.85, 1.2, 3.0])
    np.testing.assert_allclose(confidence_from_error(errors), [100, 100, 50, 0, 0], atol=1e-4)
    chain = only_chain([1, 2, 3, 4], "RVIY", pruned=False)
    assert (np.diff(chain.confidence) <= 0).all()
