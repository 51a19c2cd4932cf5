"""Chains from links: a known helix, a case greedy gets wrong, rings, order of residues."""

import time
from dataclasses import replace

import numpy as np
import pytest

from angelo.frames import rotation_from_backbone
from angelo.trace import TraceSettings, trace_chains
from angelo.types import BackboneFrames, Refinement

SETTINGS = TraceSettings(min_next_probability=0.2, max_bond=2.6, min_existence=0.5)
#: From one residue to the next, Å, when both have the axes of the map and the bond is ideal.
STEP = np.float32([1.525 + 0.523 + 1.329, -1.362, 0])


def place_atom(a, b, c, length, angle_deg, dihedral_deg):
    """Next atom from three atoms, a bond length, an angle and a dihedral (NeRF)."""
    angle, dihedral = np.deg2rad(angle_deg), np.deg2rad(dihedral_deg)
    bc = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, bc)
    normal /= np.linalg.norm(normal)
    axes = np.stack([bc, np.cross(normal, bc), normal], axis=-1)
    local = [-np.cos(angle), np.sin(angle) * np.cos(dihedral), np.sin(angle) * np.sin(dihedral)]
    return c + length * axes @ np.array(local)


def helix_frames(n):
    """Frames of an ideal alpha helix: phi -57, psi -47, omega 180 degrees."""
    atoms = [np.zeros(3), np.array([1.459, 0, 0]), np.array([2.0, 1.43, 0])]
    for _ in range(n - 1):
        atoms.append(place_atom(*atoms[-3:], 1.329, 116.2, -47))
        atoms.append(place_atom(*atoms[-3:], 1.459, 121.7, 180))
        atoms.append(place_atom(*atoms[-3:], 1.525, 111.0, -57))
    n_, ca, c = np.moveaxis(np.float32(atoms).reshape(n, 3, 3), 1, 0)
    return BackboneFrames(rotation_from_backbone(n_, ca, c), ca)


def straight_frames(ca):
    ca = np.asarray(ca, dtype=np.float32)
    return BackboneFrames(np.eye(3, dtype=np.float32)[None].repeat(len(ca), 0), ca)


def refinement_of(frames, links, k=4, existence=None):
    """A Refinement with the given links ``{(i, j): probability}``."""
    n = len(frames)
    neighbours = np.arange(n)[:, None].repeat(k, 1)
    probability = np.zeros((n, k), dtype=np.float32)
    used = np.zeros(n, dtype=int)
    for (i, j), p in links.items():
        neighbours[i, used[i]], probability[i, used[i]] = j, p
        used[i] += 1
    return Refinement(
        frames=frames,
        aa_logits=np.zeros((n, 20), dtype=np.float32),
        torsions=np.zeros((n, 7, 2), dtype=np.float32),
        predicted_error=np.zeros(n, dtype=np.float32),
        existence=np.ones(n, dtype=np.float32) if existence is None else existence,
        neighbours=neighbours,
        next_probability=probability,
    )


def nearest_refinement(frames, k=8, probability=0.5):
    """Every near residue might follow: only geometry tells which does."""
    distance = np.linalg.norm(frames.ca[:, None] - frames.ca, axis=-1)
    neighbours = np.argsort(distance, axis=1)[:, 1 : k + 1]
    n = len(frames)
    return replace(
        refinement_of(frames, {}, k),
        neighbours=neighbours,
        next_probability=np.full((n, k), probability, dtype=np.float32),
    )


def paths(chains):
    return [chain.residues.tolist() for chain in chains]


def shuffled(refinement, rng):
    """The same residues in another order, and where each one went."""
    order = rng.permutation(len(refinement))
    where = np.argsort(order)
    frames = refinement.frames
    return where, Refinement(
        frames=BackboneFrames(frames.rotation[order], frames.ca[order]),
        aa_logits=refinement.aa_logits[order],
        torsions=refinement.torsions[order],
        predicted_error=refinement.predicted_error[order],
        existence=refinement.existence[order],
        neighbours=where[refinement.neighbours[order]],
        next_probability=refinement.next_probability[order],
    )


def test_a_helix_is_traced_from_n_to_c_by_geometry_alone():
    assert paths(trace_chains(nearest_refinement(helix_frames(30)), SETTINGS)) == [
        list(range(30))
    ]


def test_a_helix_built_with_error_is_still_one_chain():
    frames = helix_frames(60)
    rng = np.random.default_rng(0)
    frames = replace(frames, ca=frames.ca + rng.normal(0, 0.2, (60, 3)).astype(np.float32))
    assert paths(trace_chains(nearest_refinement(frames), SETTINGS)) == [list(range(60))]


@pytest.mark.parametrize("seed", range(3))
def test_order_of_residues_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    a, b = helix_frames(20), helix_frames(12)
    ca = np.concatenate([a.ca, b.ca + np.float32([12, 0, 0])])
    ca += rng.normal(0, 0.3, ca.shape).astype(np.float32)
    frames = BackboneFrames(np.concatenate([a.rotation, b.rotation]), ca)
    refinement = nearest_refinement(frames)
    where, other = shuffled(refinement, rng)
    expected = [where[path].tolist() for path in paths(trace_chains(refinement, SETTINGS))]
    assert paths(trace_chains(other, SETTINGS)) == expected


def test_assignment_gives_up_the_best_link_for_the_best_total():
    # a -> p is the best link of all, but taking it leaves b without successor and q without
    # predecessor; a -> q and b -> p together cost less than a -> p and an unlinked b.
    a, b, p, q = range(4)
    frames = straight_frames([[0, 0, 0], [0, 0.6, 0], STEP, STEP + np.float32([0, 0, 0.6])])
    links = {(a, p): 0.9, (a, q): 0.6, (b, p): 0.5}
    assert sorted(paths(trace_chains(refinement_of(frames, links), SETTINGS))) == [
        [a, q],
        [b, p],
    ]


def test_a_ring_is_opened_at_its_longest_bond():
    n = 6
    turn = np.linspace(0, 2 * np.pi, n, endpoint=False)
    ca = 3.8 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)  # sides of 3.8 Å
    forward = np.stack([-np.sin(turn), np.cos(turn), 0 * turn], -1)
    c, n_ = ca + 1.2 * forward, ca - 1.2 * forward + 0.3 * np.array([0, 0, 1])
    rotation = rotation_from_backbone(*np.float32([n_, ca, c]))
    ca[3] += 0.4 * forward[3]  # now 2 -> 3 is the longest bond
    frames = BackboneFrames(rotation, ca.astype(np.float32))
    links = {(i, (i + 1) % n): 0.9 for i in range(n)}
    loose = replace(SETTINGS, max_bond=4.0)
    assert paths(trace_chains(refinement_of(frames, links), loose)) == [[3, 4, 5, 0, 1, 2]]


def test_two_residues_that_follow_each_other_make_one_link():
    frames = straight_frames([[0, 0, 0], STEP])
    (chain,) = trace_chains(
        refinement_of(frames, {(0, 1): 0.9, (1, 0): 0.9}), replace(SETTINGS, max_bond=20.0)
    )
    assert chain.residues.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("probability", "shift", "n_chains"),
    [
        (0.9, 0.0, 1),
        (0.19, 0.0, 2),
        (0.9, 1.0, 1),
        (0.9, 3.0, 2),
        (0.21, 1.25, 1),
        (0.99, 1.32, 1),
        (0.99, 1.5, 2),
    ],
)
def test_links_outside_the_limits_are_ignored(probability, shift, n_chains):
    frames = straight_frames([[0, 0, 0], STEP + np.float32([shift, 0, 0])])
    refinement = refinement_of(frames, {(0, 1): probability})
    assert len(trace_chains(refinement, SETTINGS)) == n_chains


def test_of_two_bonds_alike_the_likelier_is_made():
    aside = np.float32([0, 0, 0.5])
    frames = straight_frames([[0, 0, 0], STEP - aside, STEP + aside])
    for likely, unlikely in ((1, 2), (2, 1)):
        links = {(0, likely): 0.7, (0, unlikely): 0.3}
        chains = trace_chains(refinement_of(frames, links), SETTINGS)
        assert paths(chains) == [[0, likely], [unlikely]]


def test_residues_that_do_not_exist_are_in_no_chain():
    frames = straight_frames([i * STEP for i in range(5)])
    existence = np.float32([1, 1, 0.4, 1, 1])
    links = {(i, i + 1): 0.9 for i in range(4)}
    chains = trace_chains(refinement_of(frames, links, existence=existence), SETTINGS)
    assert paths(chains) == [[0, 1], [3, 4]]


def test_every_existing_residue_is_in_exactly_one_chain():
    rng = np.random.default_rng(1)
    frames = straight_frames(rng.uniform(0, 30, (300, 3)))
    refinement = nearest_refinement(frames, k=10)
    refinement = replace(
        refinement,
        existence=rng.uniform(size=300).astype(np.float32),
        next_probability=rng.uniform(size=(300, 10)).astype(np.float32),
    )
    built = np.concatenate(paths(trace_chains(refinement, SETTINGS)))
    assert sorted(built) == np.flatnonzero(refinement.existence >= 0.5).tolist()


def test_nothing_in_nothing_out():
    assert trace_chains(refinement_of(straight_frames(np.zeros((0, 3))), {}), SETTINGS) == ()


def test_ten_thousand_residues_take_seconds():
    rng = np.random.default_rng(2)
    helix = helix_frames(100)
    shifts = 20.0 * np.stack(np.unravel_index(np.arange(100), (10, 10, 1)), -1)
    ca = (helix.ca[None] + shifts[:, None].astype(np.float32)).reshape(-1, 3)
    frames = BackboneFrames(np.tile(helix.rotation, (100, 1, 1)), ca)
    near = (np.arange(100)[:, None] + [-4, -3, -2, -1, 1, 2, 3, 4]) % 100
    neighbours = (near[None] + 100 * np.arange(100)[:, None, None]).reshape(-1, 8)
    refinement = replace(
        refinement_of(frames, {}, 8),
        neighbours=neighbours,
        next_probability=rng.uniform(0.2, 1, (10_000, 8)).astype(np.float32),
    )
    start = time.process_time()
    chains = trace_chains(refinement, SETTINGS)
    assert time.process_time() - start < 5
    assert sorted(paths(chains)) == np.arange(10_000).reshape(100, 100).tolist()


@pytest.mark.parametrize(
    "wrong", [{"min_next_probability": 0.0}, {"max_bond": 1.0}], ids=["probability", "bond"]
)
def test_settings_that_allow_no_link_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)
