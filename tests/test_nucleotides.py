"""Nucleotides from a network's outputs to strands, sequences, and names."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tiny_complex import (
    BACKWARD,
    FIRST,
    FORWARD,
    HAIRPIN,
    PROTEIN,
    RECORDS,
    complex_refinement,
    parts,
    true_rows,
)

from angelo.align import place_chains
from angelo.nucleotide_placements import best_path, strand_targets_of, with_confusions
from angelo.nucleotide_trace import trace_strands
from angelo.nucleotides import base_probabilities, dna_probability, kind_of_chain
from angelo.placements import DOUBLE, GO_ON_BITS, LEAVE, MISS, profile_over
from angelo.profiles import DOUBLE_AGAIN, MISS_AGAIN
from angelo.residues import RESIDUE_TYPES
from angelo.trace import TraceSettings, trace_chains
from angelo.types import Assignment, Chain, SequenceRecord

SETTINGS = TraceSettings(min_next_probability=0.5, max_bond=2.6, min_existence=0.0)
NUCLEIC = (FORWARD, BACKWARD, HAIRPIN)


def strands_of(refinement):
    return trace_strands(refinement, RESIDUE_TYPES, SETTINGS)


def placed(refinement, records=RECORDS):
    targets = strand_targets_of(records)
    return place_chains(strands_of(refinement), refinement, targets, RESIDUE_TYPES)


def code_logits(*names):
    logits = np.zeros((len(names), len(RESIDUE_TYPES)), np.float32)
    logits[np.arange(len(names)), [RESIDUE_TYPES.index(name) for name in names]] = 20
    return logits


# ---------------------------------------------------------------- bases


def test_bases_of_dna_and_rna_count_together():
    logits = code_logits("DA", "C", "G", "DT", "U")
    found = base_probabilities(logits, RESIDUE_TYPES)
    np.testing.assert_allclose(found, np.eye(4)[[0, 1, 2, 3, 3]], atol=1e-7)
    logits[:, :20] = 99  # amino acids take no part
    np.testing.assert_array_equal(base_probabilities(logits, RESIDUE_TYPES), found)


def test_dna_or_rna_is_the_mean_over_a_chain():
    assert dna_probability(code_logits("DA", "DT", "G", "DC"), RESIDUE_TYPES) == pytest.approx(
        0.75, abs=1e-6
    )
    assert dna_probability(code_logits(), RESIDUE_TYPES) == 0.5


def test_a_bundle_without_nucleotides_has_no_columns_for_them():
    with pytest.raises(ValueError, match="no column for DA, DC"):
        base_probabilities(np.zeros((1, 20), np.float32), RESIDUE_TYPES[:20])


DNA, RNA = SequenceRecord("d", "ACGT", kind="dna"), SequenceRecord("r", "ACGU", kind="rna")


@pytest.mark.parametrize(
    ("records", "sequence", "by_logits", "kind"),
    [
        ((), -1, "DA", "dna"),
        ((), -1, "A", "rna"),
        ((DNA,), -1, "A", "dna"),  # the only kind there is
        ((DNA, RNA), -1, "A", "rna"),
        ((DNA, RNA), 0, "A", "dna"),  # that of the sequence
    ],
)
def test_kind_of_a_chain(records, sequence, by_logits, kind):
    refinement = complex_refinement(FORWARD)
    n = len(refinement)
    refinement = replace(refinement, aa_logits=code_logits(*[by_logits] * n))
    chain = Assignment(Chain(np.arange(n)), sequence, np.full(n, -1), 0.0, np.inf)
    assert kind_of_chain(chain, refinement, records, RESIDUE_TYPES) == kind


# ---------------------------------------------------------------- strands


def test_strands_run_from_5_to_3_and_leave_proteins_alone():
    refinement = complex_refinement()
    rows = true_rows(refinement)
    part = parts()["part"]
    strands = strands_of(refinement)
    assert [len(strand) for strand in strands] == [14, 10, 10]
    for strand in strands:
        assert (np.diff(rows[strand.residues]) == 1).all()
        assert len(set(part[rows[strand.residues]])) == 1
    (chain,) = trace_chains(refinement, SETTINGS)
    np.testing.assert_array_equal(rows[chain.residues], np.flatnonzero(part == PROTEIN))


def test_proteins_alone_have_no_strands_and_are_traced_as_ever():
    mixed = complex_refinement(PROTEIN)
    assert strands_of(mixed) == ()
    plain = replace(mixed, is_protein=None)
    assert strands_of(plain) == ()
    np.testing.assert_array_equal(
        trace_chains(mixed, SETTINGS)[0].residues, trace_chains(plain, SETTINGS)[0].residues
    )


def test_a_missing_nucleotide_breaks_a_strand_and_unlikely_links_are_none():
    refinement = complex_refinement(FORWARD)
    middle = int(np.flatnonzero(true_rows(refinement) == 28 + 5)[0])
    existence = refinement.existence.copy()
    existence[middle] = 0.1
    settings = replace(SETTINGS, min_existence=0.5)
    strands = trace_strands(replace(refinement, existence=existence), RESIDUE_TYPES, settings)
    assert [len(strand) for strand in strands] == [5, 4]
    unlikely = replace(
        refinement, next_probability=refinement.next_probability * np.float32(0.9)
    )
    assert [len(strand) for strand in strands_of(unlikely)] == [1] * 10


# ---------------------------------------------------------------- sequences


@pytest.mark.parametrize("confused", [False, True])
def test_strands_are_placed_in_the_right_register(confused):
    refinement = complex_refinement(confused=confused)
    rows, part = true_rows(refinement), parts()["part"]
    found = placed(refinement)
    sequences = sorted(a.sequence for a in found)
    # Ten nucleotides of which every other is wrong are not enough to be sure.
    assert sequences == ([-1, -1, HAIRPIN] if confused else [FORWARD, BACKWARD, HAIRPIN])
    for a in found:
        if a.sequence < 0:
            continue
        of_part = rows[a.chain.residues]
        assert set(part[of_part]) == {a.sequence}
        first_of_part = np.flatnonzero(part == a.sequence)[0]
        matched = a.positions >= 0
        wanted = FIRST[a.sequence] + of_part - first_of_part
        np.testing.assert_array_equal(a.positions[matched], wanted[matched])
        assert matched.sum() >= len(matched) - 2


def test_a_confusion_within_a_ring_size_costs_less():
    bits = profile_over(with_confusions(np.eye(4)[:1]), np.full(4, 0.25)).log_odds[0]
    right, pyrimidine, purine, thymine, unknown = bits  # A was seen: A, C, G, T, N
    assert right > 1.5 and abs(purine) < 0.1 and pyrimidine < -4
    assert (thymine, unknown) == (pyrimidine, 0)
    spread = with_confusions(np.random.default_rng(0).dirichlet(np.ones(4), 20))
    np.testing.assert_allclose(spread.sum(axis=1), 1)


def test_two_registers_alike_are_left_open():
    refinement = complex_refinement(FORWARD)
    once, twice = (
        (SequenceRecord("site", "TTAATT" + "GCGTGGGCGT" * n + "TATTAA", kind="dna"),)
        for n in (1, 2)
    )
    (found,) = placed(refinement, once)
    np.testing.assert_array_equal(found.positions, np.arange(6, 16))
    (found,) = placed(refinement, twice)
    assert found.sequence == -1


def test_dna_and_rna_of_one_sequence_are_told_apart_by_the_logits():
    both = (
        SequenceRecord("as_rna", "AGCGUGGGCGU", kind="rna"),
        SequenceRecord("as_dna", "AGCGTGGGCGT", kind="dna"),
    )
    (found,) = placed(complex_refinement(FORWARD), both)
    assert found.sequence == 1
    (found,) = placed(complex_refinement(FORWARD), both[:1])
    assert found.sequence == 0  # what the user says decides


def test_records_of_proteins_are_passed_over():
    targets = strand_targets_of(RECORDS)
    assert [number for number, _ in targets.codes] == [FORWARD, BACKWARD, HAIRPIN]
    assert targets.n_offsets(5) == sum(len(RECORDS[i]) + 4 for i in NUCLEIC)
    assert strand_targets_of(RECORDS[:1]).codes == ()
    assert all(a.sequence == -1 for a in placed(complex_refinement(FORWARD), RECORDS[:1]))


# ---------------------------------------------------------------- gaps


def path_score(log_odds, codes, path):
    n = len(log_odds)
    leave = np.log2(LEAVE)
    score = (leave if path[0][0] else 0) + (leave if path[-1][0] < n - 1 else 0)
    score += sum(log_odds[i, codes[j]] + GO_ON_BITS for i, j in path)
    for (i, j), (next_i, next_j) in pairwise(path):
        missed, doubled = next_j - j - 1, next_i - i - 1
        score += np.log2(MISS) + (missed - 1) * np.log2(MISS_AGAIN) if missed else 0
        score += np.log2(DOUBLE) + (doubled - 1) * np.log2(DOUBLE_AGAIN) if doubled else 0
    return score


def all_paths(n, length):
    """Every path with either missed positions or doubled nucleotides between two matches."""
    ending = {}
    for i in range(n):
        for j in range(length):
            before = [(a, j - 1) for a in range(i)] + [(i - 1, b) for b in range(j - 1)]
            tails = [path for cell in before for path in ending.get(cell, [])]
            ending[i, j] = [[(i, j)], *([*path, (i, j)] for path in tails)]
    return [path for paths in ending.values() for path in paths]


@pytest.mark.parametrize("seed", range(8))
def test_best_path_is_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    n, length = rng.integers(1, 6), rng.integers(1, 7)
    log_odds = np.pad(rng.normal(0, 8, (n, 4)), ((0, 0), (0, 1)))
    codes = rng.integers(-1, 4, length)
    best = max(path_score(log_odds, codes, path) for path in all_paths(n, length))
    found = best_path(log_odds, codes)
    path = [(i, int(j)) for i, j in enumerate(found) if j >= 0]
    assert path_score(log_odds, codes, path) == pytest.approx(best)


def test_a_skipped_position_and_a_doubled_nucleotide():
    codes = np.array([0, 1, 2, 3, 1, 0, 2, 2, 3, 0])
    log_odds = np.full((9, 5), -6.0)
    log_odds[:, 4] = 0
    seen = [0, 1, 2, 3, 0, 2, 2, 3, 0]  # position 4 is missed
    log_odds[np.arange(9), seen] = 2
    np.testing.assert_array_equal(best_path(log_odds, codes), [0, 1, 2, 3, 5, 6, 7, 8, 9])
    doubled = np.insert(log_odds, 4, log_odds[3], axis=0)
    found = best_path(np.insert(doubled, 5, [-6, 2, -6, -6, 0], axis=0), codes)
    assert found[:3].tolist() == [0, 1, 2]
    assert sorted(found[3:5].tolist()) == [-1, 3]
    assert found[5:].tolist() == [4, 5, 6, 7, 8, 9]
