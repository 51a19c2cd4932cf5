"""Chains on sequences: right registers at several accuracies, and what is refused.

Rates behind the numbers, 200 fragments each of haemoglobin alpha among four sequences of 560
residues (beta, alpha, lysozyme, myoglobin), simulated as below at the default settings: no
wrong register in 4,200 trials, and against lysozyme alone one match in 4,200. Right registers:

    residues         8    10    12    15    20    30    50
    100 % accurate  0.99  1.0   1.0   1.0   1.0   1.0   1.0
    60 %            0.32  0.65  0.80  0.92  0.98  1.0   1.0
    45 %            0.21  0.33  0.42  0.74  0.89  0.99  1.0
"""

from dataclasses import replace

import numpy as np
import pytest

from angelo.align import AlignSettings, align_chain, align_chains, is_conflict
from angelo.placements import Placement, _best_interval, find_placements, profile_of, targets_of
from angelo.profiles import HMMER_CODES, background_frequencies
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE
from angelo.types import BackboneFrames, Chain, Refinement, SequenceRecord

#: Human haemoglobin alpha and beta, sperm-whale myoglobin, hen lysozyme.
ALPHA = (
    "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNALS"
    "ALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVHASLDKFLASVSTVLTSKYR"
)
BETA = (
    "VHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLDNL"
    "KGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFTPPVQAAYQKVVAGVANALAHKYH"
)
MYOGLOBIN = (
    "VLSEGEWQLVLHVWAKVEADVAGHGQDILIRLFKSHPETLEKFDRFKHLKTEAEMKASEDLKKHGVTVLTALGAILKKKGH"
    "HEAELKPLAQSHATKHKIPIKYLEFISEAIIHVLHSRHPGDFGADAQGAMNKALELFRKDIAAKYKELGYQG"
)
LYSOZYME = (
    "KVFGRCELAAAMKRHGLDNYRGYSLGNWVCAAKFESNFNTQATNRNTDGSTDYGILQINSRWWCNDGRTPGSRNLCNIPCS"
    "ALLSSDITASVNCAKKIVSDGNGMNAWVAWRNRCKGTDVQAWIRGCRL"
)
RECORDS = tuple(
    SequenceRecord(name, residues)
    for name, residues in [
        ("beta", BETA),
        ("alpha", ALPHA),
        ("lysozyme", LYSOZYME),
        ("myoglobin", MYOGLOBIN),
    ]
)
#: Amino acids that look alike in density, or play alike roles: what networks confuse.
ALIKE = ["AGSCT", "ILVMF", "FYWH", "DENQ", "KRQE", "ST", "P", "DN"]


def confusion():
    """(20, 20): how a wrong call is distributed, given the truth."""
    weights = np.full((20, 20), 0.3)
    for group in ALIKE:
        rows = [HMMER_CODES.index(code) for code in group]
        weights[np.ix_(rows, rows)] += 2
    np.fill_diagonal(weights, 0)
    return weights / weights.sum(1, keepdims=True)


def simulate_logits(sequence, accuracy, rng):
    """Logits of a calibrated network whose best call is right this often, AMINO_ACIDS order."""
    weights = confusion()
    logits = np.empty((len(sequence), 20), dtype=np.float32)
    for row, code in zip(logits, sequence, strict=True):
        truth = HMMER_CODES.index(code)
        sure = rng.beta(4 * accuracy, 4 * (1 - accuracy)) if accuracy < 1 else 0.98
        call = truth if rng.random() < sure else rng.choice(20, p=weights[truth])
        row[:] = np.log((1 - sure) * weights[call] + sure * (np.arange(20) == call) + 1e-3)
    columns = [HMMER_CODES.index(code) for code in map(code_of, AMINO_ACIDS)]
    return logits[:, columns]


def code_of(name):
    return next(code for code, other in NAME_FROM_CODE.items() if other == name)


def refinement_of(logits, ca=None):
    """Residues that say this, at these places (else all at one)."""
    n = len(logits)
    ca = np.zeros((n, 3), dtype=np.float32) if ca is None else ca
    return Refinement(
        frames=BackboneFrames(np.eye(3, dtype=np.float32)[None].repeat(n, 0), ca),
        aa_logits=logits,
        torsions=np.zeros((n, 103, 2), dtype=np.float32),
        predicted_error=np.zeros(n, dtype=np.float32),
        existence=np.ones(n, dtype=np.float32),
        neighbours=np.zeros((n, 1), dtype=np.int64),
        next_probability=np.zeros((n, 1), dtype=np.float32),
    )


def place(sequence, accuracy=1.0, records=RECORDS, seed=0, **settings):
    """Align a chain that was built from ``sequence``."""
    logits = simulate_logits(sequence, accuracy, np.random.default_rng(seed))
    return align_chain(
        Chain(np.arange(len(sequence))),
        refinement_of(logits),
        records,
        AMINO_ACIDS,
        AlignSettings(**settings),
    )


# ---------------------------------------------------------------- whole chains and fragments


@pytest.mark.parametrize(("accuracy", "at_least"), [(1.0, 141), (0.6, 138), (0.45, 133)])
def test_a_whole_chain_is_placed_residue_by_residue(accuracy, at_least):
    found = place(ALPHA, accuracy)
    is_matched = found.positions >= 0
    assert found.sequence == 1
    assert is_matched.sum() >= at_least  # ends that the network got wrong may be clipped
    np.testing.assert_array_equal(found.positions[is_matched], np.flatnonzero(is_matched))
    assert found.e_value < 1e-10


@pytest.mark.parametrize(
    ("accuracy", "length", "at_least"), [(1.0, 10, 0.9), (0.6, 20, 0.85), (0.45, 30, 0.85)]
)
def test_fragments_find_their_register_and_never_another(accuracy, length, at_least):
    rng = np.random.default_rng(length)
    right = wrong = decoy = 0
    for seed in range(25):
        start = int(rng.integers(len(ALPHA) - length + 1))
        fragment = ALPHA[start : start + length]
        found = place(fragment, accuracy, seed=seed)
        is_right = (found.positions - np.arange(length))[found.positions >= 0] == start
        right += found.sequence == 1 and is_right.mean() > 0.5
        wrong += found.sequence >= 0 and not (found.sequence == 1 and is_right.mean() > 0.5)
        decoy += place(fragment, accuracy, RECORDS[2:3], seed).sequence >= 0
    assert right >= at_least * 25
    assert (wrong, decoy) == (0, 0)


def test_the_score_of_a_perfect_fragment_is_its_log_odds():
    fragment = "NVKAAWGKVG"
    logits = np.full((10, 20), -30, dtype=np.float32)
    logits[np.arange(10), [AMINO_ACIDS.index(NAME_FROM_CODE[c]) for c in fragment]] = 30
    (profile, targets) = profile_of(logits, AMINO_ACIDS), targets_of(RECORDS)
    best = max(find_placements(profile, targets), key=lambda p: p.score)
    one_hot = np.eye(20)[[HMMER_CODES.index(c) for c in fragment]]
    background = background_frequencies()
    own = (0.95 * one_hot + 0.05 * background).sum(0) + 4 * background
    own /= own.sum()
    emitted = 0.95 + 0.05 * (one_hot @ background)
    by_hand = [np.log2(0.96 * emitted / (one_hot @ null)).sum() for null in (background, own)]
    assert best.score == pytest.approx(min(by_hand), abs=1e-6)


def test_the_bound_on_chance_matches_holds():
    """Random sequences reach the score s in at most n 2^-s of trials."""
    rng = np.random.default_rng(4)
    profile = profile_of(simulate_logits("NVKAAWGKVGAH", 0.6, rng), AMINO_ACIDS)
    codes = np.array(list(HMMER_CODES))
    best = []
    for _ in range(80):
        letters = codes[rng.choice(20, size=80, p=background_frequencies())]
        targets = targets_of([SequenceRecord("random", "".join(letters))])
        best.append(max(p.score for p in find_placements(profile, targets)))
    bound = 91 * 2.0 ** -np.array(best)
    for expected in (0.5, 1.0, 2.0):
        assert (bound <= expected).mean() <= expected
    assert min(bound) < 25  # and it is not so loose as to be of no use


# ------------------------------------------------------------------------- gaps and wrong ends


def test_a_missed_residue_leaves_a_jump_in_the_numbers():
    found = place(ALPHA[:60] + ALPHA[61:], 0.6)
    expected = np.delete(np.arange(141), 60)
    wrong = np.flatnonzero(found.positions != expected)
    assert (np.abs(wrong - 60) <= 2).all()  # just where the gap lies may be uncertain
    assert (np.diff(found.positions) > 0).all()


def test_a_doubled_residue_is_matched_once():
    found = place(ALPHA[:60] + ALPHA[60] + ALPHA[60:], 1.0)
    assert found.sequence == 1
    np.testing.assert_array_equal(found.positions[found.positions >= 0], np.arange(141))
    assert (found.positions < 0).sum() == 1
    assert found.positions[60] < 0 or found.positions[61] < 0


def test_an_end_that_fits_badly_is_left_unmatched():
    found = place(ALPHA[20:60] + "W" * 8, 1.0)
    np.testing.assert_array_equal(found.positions[:40], np.arange(20, 60))
    assert (found.positions[41:] == -1).all()


def test_a_chain_that_overhangs_the_sequence_keeps_its_numbers():
    found = place("GSHM" + ALPHA[:40], 1.0)
    np.testing.assert_array_equal(found.positions, [-1] * 4 + list(range(40)))


def test_a_chain_traced_across_two_molecules_is_cut():
    sequence = ALPHA[10:50] + LYSOZYME[60:100]
    logits = simulate_logits(sequence, 0.8, np.random.default_rng(1))
    chain = Chain(np.arange(80))
    pieces = align_chains([chain], refinement_of(logits), RECORDS, AMINO_ACIDS)
    assert [piece.sequence for piece in pieces] == [1, 2]
    np.testing.assert_array_equal(
        np.concatenate([p.chain.residues for p in pieces]), chain.residues
    )
    offsets = [np.median(p.positions[p.positions >= 0] - p.chain.residues[p.positions >= 0])
               for p in pieces]  # fmt: skip
    assert offsets == [10, 20]


# ---------------------------------------------------------------- ties, X, and nothing found


def test_two_registers_that_fit_alike_are_not_assigned():
    # ACDEFGHIKL, once followed by M and once by W; the chain says either at its last residue.
    records = (SequenceRecord("twice", "ACDEFGHIKLMNPQ" + "RSTVY" + "ACDEYGWIKWWNPQ"),)
    logits = (
        simulate_logits("ACDEFGHIKLMNPQ", 1.0, np.random.default_rng(0))
        + simulate_logits("ACDEYGWIKWWNPQ", 1.0, np.random.default_rng(0))
    ) / 2
    chain, refinement = Chain(np.arange(14)), refinement_of(logits.astype(np.float32))
    assert align_chain(chain, refinement, records, AMINO_ACIDS).sequence == -1
    bold = AlignSettings(min_margin=0.0)
    assert align_chain(chain, refinement, records, AMINO_ACIDS, bold).sequence == 0


@pytest.mark.parametrize(
    ("positions", "other", "contradicts"),
    [
        (range(10), [0, 1, 2, 3, 4, 5, 7, 8, 9, 10], False),  # a gap placed elsewhere
        (range(10), [0, 1, 2, 3, 5, 6, 7, 8, 9, 10], True),  # most residues shifted
        (range(10), range(1, 11), True),  # another register
        ([*range(6), -1, -1, -1, -1], [-1] * 5 + [*range(20, 25)], False),  # other parts
        ([*range(6), -1, -1, -1, -1], [-1] * 3 + [*range(20, 27)], True),
    ],
)
def test_what_counts_as_another_register(positions, other, contradicts):
    first, second = (Placement(0, np.array(list(p)), 9.0) for p in (positions, other))
    record = SequenceRecord("all different", "ACDEFGHIKLMNPQRSTVWY" + "YWVTSRQPNM")
    assert is_conflict(first, second, (record,), min_identity=0.9) is contradicts


def test_a_repeat_of_one_sequence_is_a_tie_and_the_rival_is_named():
    repeat = "ACDEFGHIKLMNPQ"
    records = (SequenceRecord("twice", repeat + "RSTVY" + repeat + "WW"),)
    found = place(repeat, 1.0, records)
    assert found.sequence == -1
    assert (found.doubt.sequence, found.doubt.first, found.doubt.last) == (0, 1, 14)
    record, first, score = found.doubt.rival
    assert (record, first) == (0, 20)
    assert score == pytest.approx(found.doubt.score)
    assert found.doubt.e_value < AlignSettings().max_e_value


def test_a_weak_match_has_a_doubt_without_rival_and_a_good_one_has_none():
    weak = place(ALPHA[20:26], 0.45)
    assert weak.sequence == -1
    assert weak.doubt.rival is None
    assert weak.doubt.e_value > AlignSettings().max_e_value
    assert place(ALPHA[20:60]).doubt is None


def test_equal_sequences_are_no_conflict_and_the_first_is_taken():
    records = (SequenceRecord("x", LYSOZYME[:50] + ALPHA), SequenceRecord("y", ALPHA + BETA))
    found = place(ALPHA, 1.0, records)
    assert (found.sequence, found.positions[0]) == (0, 50)


def test_unknown_residues_of_the_sequence_are_matched():
    masked = ALPHA[:30] + "X" * 5 + ALPHA[35:]
    found = place(ALPHA[20:60], 0.8, (SequenceRecord("masked", masked),))
    np.testing.assert_array_equal(found.positions, np.arange(20, 60))


def test_a_sequence_of_unknown_residues_matches_nothing():
    assert place(ALPHA, 1.0, (SequenceRecord("x", "X" * 200),)).sequence == -1


def test_composition_alone_is_no_match():
    # 40 residues that all say "alanine, perhaps leucine" against a sequence rich in both.
    probabilities = np.full(20, 0.01)
    probabilities[[AMINO_ACIDS.index("ALA"), AMINO_ACIDS.index("LEU")]] = 0.6, 0.2
    logits = np.log(probabilities)[None].repeat(40, 0).astype(np.float32)
    rich = SequenceRecord("rich", "AALAAEALAALALAAKALAAALEAALAAALAALKAAALAALA")
    found = align_chain(
        Chain(np.arange(40)), refinement_of(logits), (rich,), AMINO_ACIDS,
        AlignSettings(min_margin=-1.0),
    )  # fmt: skip
    assert found.sequence == -1


@pytest.mark.parametrize("records", [(), RECORDS], ids=["no records", "short chain"])
def test_what_cannot_be_placed_is_returned_unmatched(records):
    found = place("VLS" if records else ALPHA, 1.0, records)
    assert (found.sequence, found.score, found.e_value) == (-1, 0.0, np.inf)
    assert (found.positions == -1).all()
    assert len(found.positions) == len(found.chain)


def test_the_same_input_gives_the_same_output():
    first, second = (place(ALPHA[:70] + ALPHA[72:], 0.45) for _ in range(2))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert (first.score, first.e_value) == (second.score, second.e_value)


def test_only_the_residues_of_the_chain_count_and_in_its_order():
    logits = simulate_logits(ALPHA[:50], 1.0, np.random.default_rng(0))
    order = np.random.default_rng(1).permutation(50)
    refinement = refinement_of(logits[order])
    found = align_chain(Chain(np.argsort(order)), refinement, RECORDS, AMINO_ACIDS)
    np.testing.assert_array_equal(found.positions, np.arange(50))


# ------------------------------------------------------------------------- the search itself


@pytest.mark.parametrize("seed", range(5))
def test_the_best_interval_is_that_of_a_search_over_all(seed):
    bits = np.random.default_rng(seed).normal(0, 4, (9, 3))
    scores, first, last = _best_interval(bits)
    leave = np.log2(0.01)
    for column in range(3):
        every = {
            (a, b): bits[a : b + 1, column].sum() + leave * (a > 0) + leave * (b < 8)
            for a in range(9)
            for b in range(a, 9)
        }
        assert max(every, key=every.get) == (first[column], last[column])
        assert scores[column] == pytest.approx(max(every.values()))


def test_a_long_chain_is_scored_in_blocks_without_change(monkeypatch):
    profile = profile_of(
        simulate_logits(ALPHA[:50], 0.6, np.random.default_rng(0)), AMINO_ACIDS
    )
    targets = targets_of(RECORDS)
    whole = [p.score for p in find_placements(profile, targets)]
    monkeypatch.setattr("angelo.placements.OFFSETS_AT_ONCE", 37)
    assert [p.score for p in find_placements(profile, targets)] == whole


def test_settings_change_by_replacement():
    assert replace(AlignSettings(), min_matched=9).min_matched == 9
    assert place(ALPHA[:8], 1.0, min_matched=9).sequence == -1
