"""Tables of ideal geometry and the index arrays made of them."""

import numpy as np
import pytest
from tiny_peptides import joined, make_peptide, moved

from angelo.geometry_tables import joint_geometry, residue_geometry, signed_volume
from angelo.geometry_topology import angle_distances, build_topology, contact_pairs
from angelo.residues import AMINO_ACIDS, residue_table

#: Heavy atoms, and rings among the bonds of each residue.
RINGS = {"HIS": 1, "PHE": 1, "PRO": 1, "TRP": 2, "TYR": 1}


def names(name, rows):
    return {tuple(residue_table()[name].atoms[slot] for slot in row) for row in rows}


@pytest.mark.parametrize("name", AMINO_ACIDS)
def test_bonds_connect_all_atoms_and_close_rings(name):
    geometry, n = residue_geometry(name), len(residue_table()[name].atoms)
    assert len(geometry.bonds) == n - 1 + RINGS.get(name, 0)
    reached = {0}
    for _ in range(n):
        reached |= {a for bond in geometry.bonds.tolist() if reached & {*bond} for a in bond}
    assert reached == set(range(n))
    assert (geometry.lengths[:, 0] > 1.2).all() and (geometry.lengths[:, 0] < 1.85).all()
    assert (geometry.angle_degrees[:, 0] > 100).all()
    assert (geometry.angle_degrees[:, 0] < 136).all()
    assert len({*map(tuple, geometry.angles.tolist())}) == len(geometry.angles)


def test_values_of_engh_and_huber():
    alanine = residue_geometry("ALA")
    assert dict(zip(map(tuple, alanine.bonds.tolist()), alanine.lengths[:, 0], strict=True))[
        0, 1
    ] == pytest.approx(1.459)
    trans, cis = (joint_geometry("ALA", "PRO", is_cis) for is_cis in (False, True))
    at_n = (trans.angles == [[0, 2], [1, 0], [1, 1]]).all((1, 2))
    assert trans.angle_degrees[at_n, 0] == 119.3
    assert cis.angle_degrees[at_n, 0] == 127.0
    np.testing.assert_array_equal(trans.angles, cis.angles)
    assert joint_geometry("GLY", "ALA", False).lengths[0, 0] == 1.326
    assert joint_geometry("ALA", "ALA", True).angle_degrees[2, 0] == 121.7


@pytest.mark.parametrize(
    ("name", "planar", "chiral"),
    [
        ("GLY", set(), set()),
        ("VAL", set(), {"CA", "CB"}),
        ("LEU", set(), {"CA", "CG"}),
        ("ASN", {"CG"}, {"CA"}),
        ("ARG", {"NE", "CZ"}, {"CA"}),
    ],
)
def test_planes_and_centres(name, planar, chiral):
    geometry, atoms = residue_geometry(name), residue_table()[name].atoms
    is_plane = geometry.volume_values[:, 0] == 0
    assert {atoms[quad[3]] for quad in geometry.volumes[is_plane]} == planar
    assert {atoms[quad[0]] for quad in geometry.volumes[~is_plane]} == chiral
    assert names(name, geometry.chis) == {*residue_table()[name].chi_atoms}


def test_staggered_torsions():
    assert residue_geometry("LYS").is_staggered.tolist() == [True] * 4
    assert residue_geometry("PHE").is_staggered.tolist() == [True, False]
    assert residue_geometry("PRO").is_staggered.tolist() == [False, False]


def test_volume_of_a_box_corner():
    corner = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4]], float)
    np.testing.assert_allclose(signed_volume(corner[None]), [24])
    np.testing.assert_allclose(signed_volume(corner[None, [0, 2, 1, 3]]), [-24])


def topology_of(protein, is_cis=()):
    linked = np.arange(len(protein)) > 0
    return build_topology(protein, linked, np.isin(np.arange(len(protein)), is_cis))


def test_counts_of_a_peptide():
    protein = make_peptide("AGP")
    topology = topology_of(protein, is_cis=[2])
    assert len(topology) == 5 + 4 + 7
    assert len(topology.bonds) == 4 + 3 + 7 + 2
    assert topology.omegas.ideal.tolist() == [180, 0]
    np.testing.assert_array_equal(
        topology.omegas.atoms[0], topology.slot[[0, 0, 1, 1], [1, 2, 0, 1]]
    )
    # An atom that is missing takes its bonds along.
    protein.has_atom[0, 4] = False
    assert len(topology_of(protein).bonds) == len(topology.bonds) - 1


def test_no_joint_without_a_link():
    protein = make_peptide("AA")
    apart = build_topology(protein, np.zeros(2, bool), np.zeros(2, bool))
    assert len(apart.omegas) == 0
    assert (
        apart.residue[apart.bonds.atoms].min(1) == apart.residue[apart.bonds.atoms].max(1)
    ).all()


def test_angle_distances_are_those_of_ideal_atoms():
    protein = make_peptide("W")
    topology, positions = topology_of(protein), protein.positions[protein.has_atom]
    ends = angle_distances(topology)
    measured = np.linalg.norm(
        positions[ends.atoms[:, 0]] - positions[ends.atoms[:, 1]], axis=-1
    )
    np.testing.assert_allclose(measured, ends.ideal, atol=0.02)


def test_contacts_leave_out_what_bonds_hold():
    pair = joined(make_peptide("AA"), moved(make_peptide("AA"), [0, 0, 3.0]))
    topology = build_topology(pair, np.array([0, 1, 0, 1], bool), np.zeros(4, bool))
    positions = pair.positions[pair.has_atom].astype(np.float64)
    pairs = contact_pairs(topology, positions, 3.2)
    distance = np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=-1)
    assert len(pairs) and (distance <= 3.2).all()
    chain = topology.residue[pairs] // 2
    assert (chain[:, 0] != chain[:, 1]).any()
    # Within a chain: N and O of one residue are three bonds apart, CB and the next O five.
    held = {frozenset((0, 3)), frozenset((0, 1))}
    assert not held & {frozenset(pair) for pair in pairs.tolist()}
    everything = contact_pairs(topology, positions, 50.0)
    assert len(everything) < len(positions) * (len(positions) - 1) / 2
