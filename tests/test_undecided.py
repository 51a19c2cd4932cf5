"""Chains that were not placed: which are told of, and what."""

import csv
import io

import numpy as np
import pytest

from angelo.report.undecided import UndecidedChain, undecided_chains, undecided_csv
from angelo.types import Assignment, Chain, Doubt, Model, ModelChain, SequenceRecord

RECORDS = (SequenceRecord("one", "M" * 90), SequenceRecord("two", "K" * 90))
WEAK = Doubt(1, 5, 12, 6.25, 3.0)
TIE = Doubt(0, 1, 9, 20.0, 1e-3, rival=(1, 42, 18.5))


def model_of(n):
    chain = ModelChain(
        name="",
        sequence=-1,
        sequence_positions=np.arange(1, 9),
        residue_types=("ALA",) * 8,
        atom_positions=np.zeros((8, 5, 3), np.float32),
        has_atom=np.ones((8, 5), bool),
        confidence=np.zeros(8, np.float32),
        aa_probability=np.zeros(8, np.float32),
    )
    names = "ABCDEF"[:n]
    slots = [slot for slot in ModelChain.__slots__ if slot != "name"]
    return Model(
        tuple(ModelChain(name=name, **{s: getattr(chain, s) for s in slots}) for name in names)
    )


def assignment(doubt):
    return Assignment(Chain(np.arange(8)), -1, np.full(8, -1), 0.0, np.inf, doubt)


def test_chains_with_a_doubt_are_named_as_in_the_model():
    hopeless = Doubt(0, 1, 8, 1.0, 200.0)
    found = undecided_chains(
        model_of(4), [assignment(doubt) for doubt in (None, TIE, hopeless, WEAK)]
    )
    assert [(chain.name, chain.n_residues, chain.doubt) for chain in found] == [
        ("B", 8, TIE),
        ("D", 8, WEAK),
    ]


def test_model_and_assignments_must_be_of_the_same_chains():
    with pytest.raises(ValueError, match="zip"):
        undecided_chains(model_of(2), [assignment(WEAK)])


def test_the_table_names_both_sides_of_a_tie():
    text = undecided_csv([UndecidedChain("B", 8, TIE), UndecidedChain("D", 8, WEAK)], RECORDS)
    tie, weak = csv.DictReader(io.StringIO(text))
    assert tie == {
        **{"chain": "B", "residues": "8", "reason": "tie", "sequence": "one"},
        **{"first": "1", "last": "9", "bits": "20.0", "e_value": "0.001"},
        **{"rival": "two", "rival_first": "42", "rival_bits": "18.5"},
    }
    assert (weak["reason"], weak["sequence"], weak["first"], weak["rival"]) == (
        *("weak", "two"),
        *("5", ""),
    )
    assert undecided_csv([], RECORDS).count("\n") == 1
