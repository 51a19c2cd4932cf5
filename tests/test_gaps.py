"""Room for fragments: gaps, distances, superposed copies."""

import numpy as np
import pytest
from test_context import ALPHA_RECORD, Build, calphas

from angelo.gaps import (
    Molecule,
    copies_of,
    gaps_of,
    molecules_of,
    possible_places,
    superpose,
)
from angelo.types import SequenceRecord

RECORDS = (SequenceRecord("x", "A" * 9), SequenceRecord("alpha", "A" * 141))


def test_gaps_are_what_a_molecule_leaves_free():
    ca = np.arange(15, dtype=np.float32).reshape(5, 3)
    molecule = Molecule(0, np.array([1, 2, 5, 6, 7]), ca)
    first, middle, last = gaps_of([molecule], RECORDS)
    assert [(g.first, g.end) for g in (first, middle, last)] == [(0, 1), (3, 5), (8, 9)]
    assert first.before is None
    assert last.after is None
    np.testing.assert_array_equal(middle.before, ca[1])
    np.testing.assert_array_equal(middle.after, ca[2])


def test_fragments_of_one_molecule_are_taken_together_and_copies_apart():
    build = Build().add("A", 0, 30).add("C", 0, 30).add("A", 33, 141).add("C", 33, 60)
    molecules = molecules_of(build.assignments, build.refinement, RECORDS)
    assert [len(m.positions) for m in molecules] == [138, 57]
    for molecule, chain in zip(molecules, "AC", strict=True):
        np.testing.assert_array_equal(molecule.ca, calphas(chain)[molecule.positions])


@pytest.mark.parametrize(("start", "stop"), [(42, 52), (60, 64), (100, 130)])
def test_the_true_place_is_among_the_likeliest(start, stop):
    chain = calphas("A")
    rest = np.r_[0 : start - 2, stop + 2 : 141]
    molecules = [Molecule(ALPHA_RECORD, rest, chain[rest])]
    places = possible_places(chain[start:stop], gaps_of(molecules, RECORDS))
    assert places.weight.sum() == pytest.approx(1)
    best = places.offset[places.weight.argmax()]
    assert abs(best - start) <= 2
    assert places.weight[places.offset == start].sum() > 0.05
    away = possible_places(chain[start:stop] + np.float32(100), gaps_of(molecules, RECORDS))
    assert len(away.offset) == 0


def test_a_fragment_running_backwards_does_not_fit_a_short_gap():
    chain = calphas("A")
    rest = np.r_[0:39, 51:141]
    molecules = [Molecule(ALPHA_RECORD, rest, chain[rest])]
    gap = gaps_of(molecules, RECORDS)
    forwards = possible_places(chain[39:51], gap)
    assert 39 in forwards.offset
    backwards = possible_places(chain[50:38:-1], gap)
    assert 39 not in backwards.offset


def test_another_copy_tells_the_offset_and_whose_it_is():
    first, other = calphas("A"), calphas("C")
    molecules = [
        Molecule(ALPHA_RECORD, np.arange(141), first),
        Molecule(ALPHA_RECORD, np.arange(50), other[:50]),
    ]
    copies = copies_of(molecules)
    assert [copy.molecule for copy in copies] == [0, 1]
    assert [copy.suggest(other[70:82]) for copy in copies] == [None, 70]
    assert copies[1].suggest(other[81:69:-1]) is None  # the other direction
    plain = possible_places(other[70:82], gaps_of(molecules, RECORDS))
    places = possible_places(other[70:82], gaps_of(molecules, RECORDS), copies)
    assert places.weight.sum() == pytest.approx(1)
    assert plain.weight.max() < 0.5 < places.weight[places.offset == 70].sum()
    assert copies_of([molecules[0], Molecule(ALPHA_RECORD, np.arange(10), other[:10])]) == ()
    assert copies_of([molecules[0], Molecule(0, np.arange(50), other[:50])]) == ()


@pytest.mark.parametrize("seed", range(4))
def test_superposition_undoes_a_motion_and_never_mirrors(seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(scale=10, size=(30, 3)).astype(np.float32)
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.linalg.det(q)
    moved = (points @ q.T + [3, -4, 50]).astype(np.float32)
    rotation, shift, rmsd = superpose(points, moved)
    np.testing.assert_allclose(rotation, q, atol=1e-5)
    np.testing.assert_allclose(shift, [3, -4, 50], atol=1e-4)
    assert rmsd < 1e-4
    rotation, _, rmsd = superpose(points, points * np.float32([1, 1, -1]))
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rmsd > 1
