"""Models in and out of the geometry step: what moves, and what stays."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_peptides import make_peptide, model_of, moved, sure

from angelo import geometry
from angelo.geometry import regularise
from angelo.geometry_models import (
    protein_chains,
    protein_from_model,
    regularise_models,
    with_positions,
)
from angelo.types import Model, ModelChain


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """How far the minimiser gets does not matter here."""
    monkeypatch.setattr(geometry, "STEPS", 15)


def distorted(letters, seed=0):
    protein = make_peptide(letters)
    shift = np.random.default_rng(seed).normal(scale=0.2, size=(len(protein), 3))
    return moved(protein, shift)


def nucleotide(name="N"):
    """A chain of one nucleotide, in the wide arrays of tables with nucleotides."""
    return ModelChain(
        name=name,
        sequence=-1,
        sequence_positions=np.array([1]),
        residue_types=("DA",),
        atom_positions=np.arange(23 * 3, dtype=np.float32).reshape(1, 23, 3),
        has_atom=np.ones((1, 23), bool),
        confidence=np.full(1, 90, np.float32),
        aa_probability=np.ones(1, np.float32),
    )


def wide(chain):
    more = 23 - chain.has_atom.shape[1]
    return replace(
        chain,
        atom_positions=np.pad(chain.atom_positions, ((0, 0), (0, more), (0, 0))),
        has_atom=np.pad(chain.has_atom, ((0, 0), (0, more))),
    )


def test_a_model_and_its_protein():
    protein = distorted("AGV")
    chain = wide(model_of(protein).chains[0])
    model = Model((chain, nucleotide(), replace(chain, name="B")))
    assert [chain.name for chain in protein_chains(model)] == ["A", "B"]
    both = protein_from_model(model)
    assert both.chain_names == ("A", "B") and both.chain.tolist() == [0] * 3 + [1] * 3
    assert both.sequence_number.tolist() == [1, 2, 3] * 2
    np.testing.assert_array_equal(both.positions[3:], protein.positions)
    np.testing.assert_array_equal(both.has_atom[:3], protein.has_atom)
    assert len(protein_from_model(Model((nucleotide(),)))) == 0


def test_positions_go_back_where_they_came_from():
    chain = wide(model_of(distorted("AGV")).chains[0])
    model = Model((chain, nucleotide(), replace(chain, name="B")))
    protein = protein_from_model(model)
    same = with_positions(model, protein.positions)
    for one, other in zip(model.chains, same.chains, strict=True):
        np.testing.assert_array_equal(one.atom_positions, other.atom_positions)
    numbered = np.arange(6, dtype=np.float32)[:, None, None] + np.zeros_like(protein.positions)
    first, strand, last = with_positions(model, numbered).chains
    assert first.atom_positions[:, 0, 0].tolist() == [0, 1, 2]
    assert last.atom_positions[:, 13, 2].tolist() == [3, 4, 5]
    assert strand is model.chains[1]
    assert not first.atom_positions[:, 14:].any()
    for field in ("confidence", "residue_types", "has_atom", "aa_probability"):
        assert getattr(first, field) is getattr(chain, field)


def test_both_models_are_regularised_each_alone():
    long, short = distorted("AGVAG"), distorted("VLA", seed=1)
    told = []
    done = regularise_models(model_of(long), model_of(short), lambda *at: told.append(at))
    np.testing.assert_array_equal(done.raw, regularise(long, sure(long)).positions)
    np.testing.assert_array_equal(done.pruned, regularise(short, sure(short)).positions)
    assert told == [(k, 6) for k in range(1, 7)]


def test_without_sequences_there_is_one_model():
    told = []
    done = regularise_models(model_of(distorted("AG")), None, lambda *at: told.append(at))
    assert done.pruned is None and told[-1] == (3, 3)


def test_the_confidence_is_that_of_the_model():
    protein = distorted("AGVLA")
    model = model_of(protein, confidence=20.0)
    done = regularise_models(model, None, lambda *_: None)
    np.testing.assert_array_equal(done.raw, regularise(protein, sure(protein, 20)).positions)


def test_models_without_protein_stay():
    done = regularise_models(Model((nucleotide(),)), Model(()), lambda *_: None)
    assert done.raw.shape == (0, 14, 3) and done.pruned.shape == (0, 14, 3)
    assert with_positions(Model((nucleotide(),)), done.raw).chains[0].name == "N"
