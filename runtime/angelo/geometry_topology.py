"""Every bond, angle, plane, chiral centre and torsion of a protein, as index arrays.

Atoms are counted through all residues, present ones only, so that one array operation serves
them all. Lengths in Å, angles in degrees; float64, for minimisers.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.sparse import csr_array, eye_array
from scipy.spatial import KDTree

from angelo.coordinates import CA, C, N, ProteinCoordinates
from angelo.geometry_tables import joint_geometry, residue_geometry
from angelo.residues import AMINO_ACIDS, residues_of

#: Elements in the order of the numbers in ``Topology.element``.
ELEMENTS = "CNOS"
#: Closest that two atoms come which do not bond, Å, by element: where the pairs that structures
#: better than 1.6 Å have begin in earnest. Nitrogen and oxygen, and carbon and oxygen, come as
#: close as hydrogen bonds let them; sulphur and carbon as close as disulphides do.
CLOSEST_CONTACT = np.array(
    [
        [3.40, 3.25, 3.05, 3.30],
        [3.25, 2.85, 2.80, 3.35],
        [3.05, 2.80, 2.75, 3.30],
        [3.30, 3.35, 3.30, 2.00],
    ]
)
#: Atoms up to this many bonds apart are no contact: bonds, angles and torsions hold them.
MOST_BONDS_HELD = 3
#: Standard deviation of omega, degrees (Engh & Huber 2001 have 6.2; here planes add to it).
OMEGA_SIGMA = 5.0


@dataclass(frozen=True, slots=True)
class Ideals:
    """Things of one kind that have an ideal value."""

    atoms: Int64[np.ndarray, "n k"]
    """Atoms of each."""
    ideal: Float64[np.ndarray, " n"]
    """Å, degrees or Å³."""
    sigma: Float64[np.ndarray, " n"]
    """Standard deviation in good structures, in the same unit."""

    def __len__(self) -> int:
        return len(self.ideal)


@dataclass(frozen=True, slots=True)
class Topology:
    """Atoms, and what holds them to each other."""

    slot: Int64[np.ndarray, "r 14"]
    """Number of the atom in each slot of each residue; -1: none."""
    residue: Int64[np.ndarray, " a"]
    """Residue of each atom."""
    element: Int64[np.ndarray, " a"]
    """Index into ``ELEMENTS``."""
    bonds: Ideals
    """Lengths, Å."""
    angles: Ideals
    """Degrees; the second atom is the vertex."""
    volumes: Ideals
    """Planes (ideal 0) and chiral centres, ``angelo.geometry_tables.signed_volume``, Å³."""
    omegas: Ideals
    """Torsion of each link, 180 or 0 degrees; the last atom is the C-alpha behind the bond."""
    chis: Int64[np.ndarray, "x 4"]
    """Atoms of each chi torsion that is staggered when relaxed."""

    def __len__(self) -> int:
        return len(self.residue)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Rows of one kind of thing, gathered residue type by residue type."""

    width: int
    atoms: list[Int64[np.ndarray, "n k"]] = field(default_factory=list)
    values: list[Float64[np.ndarray, "n 2"]] = field(default_factory=list)

    def add(
        self, atoms: Int64[np.ndarray, "r n k"], values: Float64[np.ndarray, "n 2"]
    ) -> None:
        """Add ``n`` things of each of ``r`` residues, but those that lack an atom."""
        is_whole = (atoms >= 0).all(-1)
        self.atoms.append(atoms[is_whole])
        self.values.append(np.broadcast_to(values, (len(atoms), *values.shape))[is_whole])

    def ideals(self) -> Ideals:
        """All rows in the order of their atoms: near in space is then near in memory."""
        atoms = np.concatenate([np.zeros((0, self.width), dtype=np.int64), *self.atoms])
        values = np.concatenate([np.zeros((0, 2)), *self.values])
        order = np.lexsort(atoms.T[::-1])
        ideal, sigma = values[order].T
        return Ideals(atoms[order], ideal.copy(), sigma.copy())


def build_topology(
    protein: ProteinCoordinates,
    is_linked: Bool[np.ndarray, " r"],
    is_cis: Bool[np.ndarray, " r"],
) -> Topology:
    """List what holds the atoms of a protein.

    Parameters
    ----------
    protein
        Residues; those of an unknown type (-1) count as alanine.
    is_linked, is_cis
        Whether a peptide bond joins each residue to the one before it, and whether that bond
        is cis.
    """
    slot = np.full(protein.has_atom.shape, -1, dtype=np.int64)
    slot[protein.has_atom] = np.arange(int(protein.has_atom.sum()))
    types = np.where(protein.residue_type < 0, AMINO_ACIDS.index("ALA"), protein.residue_type)
    bonds, angles, volumes = _Parts(2), _Parts(3), _Parts(4)
    omegas, chis = _Parts(4), _Parts(4)
    for number in np.unique(types):
        geometry, own = residue_geometry(AMINO_ACIDS[number]), slot[types == number]
        bonds.add(own[:, geometry.bonds], geometry.lengths)
        angles.add(own[:, geometry.angles], geometry.angle_degrees)
        volumes.add(own[:, geometry.volumes], geometry.volume_values)
        staggered = geometry.chis[geometry.is_staggered]
        chis.add(own[:, staggered], np.zeros((len(staggered), 2)))
    links = np.flatnonzero(is_linked[1:]) + 1
    kinds = np.stack([types[links - 1], types[links], is_cis[links]], axis=-1)
    for before, behind, cis in np.unique(kinds, axis=0):
        joint = joint_geometry(AMINO_ACIDS[before], AMINO_ACIDS[behind], bool(cis))
        rows = links[(kinds == (before, behind, cis)).all(-1)]
        pair = np.stack([slot[rows - 1], slot[rows]], axis=1)
        bonds.add(pair[:, joint.bonds[..., 0], joint.bonds[..., 1]], joint.lengths)
        angles.add(pair[:, joint.angles[..., 0], joint.angles[..., 1]], joint.angle_degrees)
        volumes.add(pair[:, joint.volumes[..., 0], joint.volumes[..., 1]], joint.volume_values)
        omega = pair[:, [0, 0, 1, 1], [CA, C, N, CA]]
        omegas.add(omega[:, None], np.array([[0.0 if cis else 180.0, OMEGA_SIGMA]]))
    return Topology(
        slot=slot,
        residue=np.repeat(np.arange(len(protein)), protein.has_atom.sum(1)),
        element=_element_table()[types][protein.has_atom],
        bonds=bonds.ideals(),
        angles=angles.ideals(),
        volumes=volumes.ideals(),
        omegas=omegas.ideals(),
        chis=chis.ideals().atoms,
    )


def angle_distances(topology: Topology) -> Ideals:
    """Distances of the ends of all angles, Å: what an angle is while its bonds are ideal."""
    bonds, angles, n = topology.bonds, topology.angles, len(topology)
    code = np.sort(bonds.atoms, axis=1) @ (n, 1)
    order = np.argsort(code)

    def length(arm: Int64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
        found = np.searchsorted(code, np.sort(arm, axis=1) @ (n, 1), sorter=order)
        return np.asarray(bonds.ideal[order[found]])

    one, other = length(angles.atoms[:, :2]), length(angles.atoms[:, 1:])
    angle_rad = np.deg2rad(angles.ideal)
    distance = np.sqrt(one**2 + other**2 - 2 * one * other * np.cos(angle_rad))
    per_radian = one * other * np.sin(angle_rad) / distance
    return Ideals(angles.atoms[:, [0, 2]], distance, per_radian * np.deg2rad(angles.sigma))


def contact_pairs(
    topology: Topology, positions: Float64[np.ndarray, "a 3"], radius: float
) -> Int64[np.ndarray, "p 2"]:
    """Pairs of atoms within ``radius`` (Å) that bonds do not hold at a distance, sorted.

    Atoms up to three bonds apart are left out, and so are pairs of sulphurs, which may be
    bonded.
    """
    pairs = KDTree(positions).query_pairs(radius, output_type="ndarray").astype(np.int64)
    pairs = pairs.reshape(-1, 2)[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    n = len(topology)
    first, second = topology.bonds.atoms.T
    ends = (np.concatenate([first, second]), np.concatenate([second, first]))
    step = csr_array((np.ones(len(ends[0])), ends), shape=(n, n)) + eye_array(n, format="csr")
    held = step
    for _ in range(MOST_BONDS_HELD - 1):
        held = held @ step
    held = held.tocoo()
    codes = held.row.astype(np.int64) * n + held.col
    is_held = np.isin(pairs @ (n, 1), codes, assume_unique=True)
    is_sulphur = topology.element == ELEMENTS.index("S")
    free: np.ndarray = pairs[~is_held & ~is_sulphur[pairs].all(-1)]
    return free


def _element_table() -> Int64[np.ndarray, "types 14"]:
    """Element of each slot of each amino acid; unused slots are carbon."""
    residues = residues_of(AMINO_ACIDS)
    table = np.zeros((len(residues), max(len(r.atoms) for r in residues)), dtype=np.int64)
    for row, residue in zip(table, residues, strict=True):
        row[: len(residue.atoms)] = [ELEMENTS.index(symbol) for symbol in residue.elements]
    return table
