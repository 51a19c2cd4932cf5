"""Is a model stereochemically sane? Bonds, angles, peptides, torsions and clashes, counted.

Every measure needs the model alone. Ideal values are those of the geometry step; regions of
the Ramachandran plane and of rotamers are our own (``angelo.torsion_regions``), so figures are
close to those of other validation programs, but not the same.
"""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float64, Int64

from angelo.atoms import measure_torsions
from angelo.coordinates import ProteinCoordinates
from angelo.geometry_tables import signed_volume
from angelo.geometry_topology import (
    CLOSEST_CONTACT,
    Ideals,
    Topology,
    build_topology,
    contact_pairs,
)
from angelo.residues import AMINO_ACIDS, CHI1, OMEGA, PHI, PSI, residue_table
from angelo.torsion_regions import (
    FAVOURED,
    NOT_JUDGED,
    OUTLIER,
    ramachandran_regions,
    rotamer_regions,
)

#: Bonds and angles farther from ideal than this many standard deviations are outliers.
OUTLIER_SIGMAS = 4.0
#: A peptide is twisted if omega is this far from 0 and from 180 degrees.
TWISTED_OMEGA = 30.0
#: Atoms clash if they are this much closer than atoms come, Å.
CLASH_OVERLAP = 0.4
#: A chiral centre is of the wrong hand, or flat, below this share of its ideal volume.
WRONG_CENTRE = 0.5
#: What can be wrong with a residue, and the unit of the value that shows it.
PROBLEMS = {
    "bond": "Å",
    "angle": "degrees",
    "chirality": "Å³",
    "peptide": "degrees",
    "ramachandran": "degrees",
    "rotamer": "degrees",
    "clash": "Å",
}
#: Torsions that show a problem, and their slots in ``angelo.atoms.measure_torsions``.
TORSIONS_OF = {
    "peptide": {"omega": OMEGA},
    "ramachandran": {"phi": PHI, "psi": PSI},
    "rotamer": {"chi1": CHI1, "chi2": CHI1 + 1},
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a residue."""

    residue: int
    """Index of the residue; of things between residues, that of the first atom's."""
    what: str
    """A key of ``PROBLEMS``."""
    atoms: str
    """Atoms, or torsions, that it is about; those of other residues as chain/number/atom."""
    values: tuple[float, ...]
    """Measured: length, angle, volume, omega, phi and psi, chi1 and chi2, distance."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Stereochemistry of a model. What could not be measured at all is None."""

    bond_rmsd: float | None
    """Root mean square departure of bond lengths from ideal, Å."""
    bond_rmsz: float | None
    """The same in standard deviations: up to 1 in good structures."""
    n_bond_outliers: int
    """Bonds more than four standard deviations off."""
    angle_rmsd: float | None
    """As ``bond_rmsd``, bond angles in degrees."""
    angle_rmsz: float | None
    """The same in standard deviations: up to 1 in good structures."""
    n_angle_outliers: int
    """Angles more than four standard deviations off."""
    n_chirality_errors: int
    """C-alphas and side-chain centres of the wrong hand, or flat."""
    n_cis_prolines: int
    """Cis peptides before proline; some five in a hundred are natural."""
    n_cis_others: int
    """Cis peptides before other residues; rarely right."""
    n_twisted_peptides: int
    """Peptides more than 30 degrees from flat."""
    ramachandran_favoured: float | None
    """% of residues with phi and psi in favoured regions; 98 in crystal structures."""
    ramachandran_outliers: float | None
    """% of residues outside all allowed regions; 0.05 in crystal structures better
    than 1.5 Å, 0.2 up to 2 Å, 0.6 up to 2.6 Å."""
    rotamer_outliers: float | None
    """% of side chains with chi1 and chi2 outside all allowed regions; likewise 0.5, 1.0,
    1.7."""
    clashscore: float | None
    """Pairs of heavy atoms that overlap by more than 0.4 Å, per 1000 atoms; likewise 0.6, 1.1,
    2.1."""
    problems: tuple[Problem, ...]
    """Everything that is wrong, kind by kind."""

    def as_dict(self) -> dict[str, int | float | None]:
        """All numbers by name, ready for JSON."""
        names = [field.name for field in fields(self) if field.name != "problems"]
        return {name: getattr(self, name) for name in names}


def validate(protein: ProteinCoordinates) -> Validation:
    """Measure the stereochemistry of a model; nothing else is needed.

    Residues are bonded where ``protein.follows_previous`` says so. The contours and the idea of
    counting overlaps for each 1000 atoms follow Lovell et al. 2003, doi:10.1002/prot.10286, and
    Word et al. 1999, doi:10.1006/jmbi.1998.2400, here without hydrogens.
    """
    is_linked = protein.follows_previous
    torsions, is_measured = measure_torsions(
        protein.positions, protein.has_atom, protein.residue_type, is_linked
    )
    degrees = np.rad2deg(np.arctan2(torsions[..., 0], torsions[..., 1]).astype(np.float64))
    degrees[~is_measured] = np.nan
    is_joint, turn = is_linked & is_measured[:, OMEGA], np.abs(degrees[:, OMEGA])
    is_cis = is_joint & (turn < 90)
    is_twisted = is_joint & (np.minimum(turn, 180 - turn) > TWISTED_OMEGA)
    is_proline = protein.residue_type == AMINO_ACIDS.index("PRO")
    backbone = ramachandran_regions(torsions, is_measured, protein.residue_type, is_linked)
    side_chains = rotamer_regions(torsions, is_measured, protein.residue_type)

    topology = build_topology(protein, is_linked, is_cis)
    positions = protein.positions[protein.has_atom].astype(np.float64)
    bonds = _Measured(topology.bonds, bond_lengths(topology, positions))
    angles = _Measured(topology.angles, angle_degrees(topology, positions))
    centres, volumes = _wrong_centres(topology, positions)
    clashes, distances = find_clashes(topology, positions)
    names = _AtomNames(protein, topology)
    problems = (
        *names.problems("bond", bonds.things.atoms[bonds.is_off], bonds.values[bonds.is_off]),
        *names.problems(
            "angle", angles.things.atoms[angles.is_off], angles.values[angles.is_off]
        ),
        *names.problems("chirality", centres, volumes),
        *_torsion_problems("peptide", is_twisted | (is_cis & ~is_proline), degrees),
        *_torsion_problems("ramachandran", backbone == OUTLIER, degrees),
        *_torsion_problems("rotamer", side_chains == OUTLIER, degrees),
        *names.problems("clash", clashes, distances),
    )
    return Validation(
        bond_rmsd=bonds.rmsd,
        bond_rmsz=bonds.rmsz,
        n_bond_outliers=int(bonds.is_off.sum()),
        angle_rmsd=angles.rmsd,
        angle_rmsz=angles.rmsz,
        n_angle_outliers=int(angles.is_off.sum()),
        n_chirality_errors=len(centres),
        n_cis_prolines=int((is_cis & is_proline).sum()),
        n_cis_others=int((is_cis & ~is_proline).sum()),
        n_twisted_peptides=int(is_twisted.sum()),
        ramachandran_favoured=_percent(backbone, FAVOURED),
        ramachandran_outliers=_percent(backbone, OUTLIER),
        rotamer_outliers=_percent(side_chains, OUTLIER),
        clashscore=1000 * len(clashes) / len(topology) if len(topology) else None,
        problems=problems,
    )


def bond_lengths(
    topology: Topology, positions: Float64[np.ndarray, "a 3"]
) -> Float64[np.ndarray, " b"]:
    """Length of every bond, Å."""
    first, second = positions[topology.bonds.atoms[:, 0]], positions[topology.bonds.atoms[:, 1]]
    return np.asarray(np.linalg.norm(first - second, axis=-1))


def angle_degrees(
    topology: Topology, positions: Float64[np.ndarray, "a 3"]
) -> Float64[np.ndarray, " n"]:
    """Every bond angle."""
    first, vertex, last = np.moveaxis(positions[topology.angles.atoms], 1, 0)
    one, other = first - vertex, last - vertex
    along = np.einsum("nx,nx->n", one, other)
    across = np.linalg.norm(np.cross(one, other), axis=-1)
    return np.asarray(np.rad2deg(np.arctan2(across, along)))


def find_clashes(
    topology: Topology, positions: Float64[np.ndarray, "a 3"]
) -> tuple[Int64[np.ndarray, "p 2"], Float64[np.ndarray, " p"]]:
    """Pairs of atoms that overlap, see ``CLASH_OVERLAP``, and their distances, Å."""
    pairs = contact_pairs(topology, positions, float(CLOSEST_CONTACT.max()) - CLASH_OVERLAP)
    first, second = pairs.T
    distance = np.linalg.norm(positions[first] - positions[second], axis=-1)
    closest = CLOSEST_CONTACT[topology.element[first], topology.element[second]]
    is_clash = distance < closest - CLASH_OVERLAP
    return pairs[is_clash], distance[is_clash]


@dataclass(frozen=True, slots=True)
class _Measured:
    """Things that have an ideal value, and what was measured."""

    things: Ideals
    values: Float64[np.ndarray, " n"]

    @property
    def deviations(self) -> Float64[np.ndarray, " n"]:
        """In standard deviations."""
        return np.asarray((self.values - self.things.ideal) / self.things.sigma)

    @property
    def is_off(self) -> Bool[np.ndarray, " n"]:
        return np.asarray(np.abs(self.deviations) > OUTLIER_SIGMAS)

    @property
    def rmsd(self) -> float | None:
        return _root_mean_square(self.values - self.things.ideal)

    @property
    def rmsz(self) -> float | None:
        return _root_mean_square(self.deviations)


class _AtomNames:
    """Names the atoms of problems."""

    def __init__(self, protein: ProteinCoordinates, topology: Topology) -> None:
        self._protein, self._residue = protein, topology.residue
        self._slot = np.nonzero(protein.has_atom)[1]

    def problems(
        self, what: str, atoms: Int64[np.ndarray, "n k"], values: Float64[np.ndarray, " n"]
    ) -> list[Problem]:
        """One problem a row, in the residue of its first atom."""
        return [
            Problem(int(self._residue[row[0]]), what, self._text(row), (value,))
            for row, value in zip(atoms.tolist(), values.tolist(), strict=True)
        ]

    def _text(self, atoms: list[int]) -> str:
        return " ".join(self._name(atom, int(self._residue[atoms[0]])) for atom in atoms)

    def _name(self, atom: int, home: int) -> str:
        """Name of an atom; in another residue than ``home`` with chain and number."""
        protein, row = self._protein, int(self._residue[atom])
        kind = int(protein.residue_type[row])
        residue = residue_table()[AMINO_ACIDS[kind] if kind >= 0 else "ALA"]
        name: str = residue.atoms[int(self._slot[atom])]
        if row == home:
            return name
        chain = protein.chain_names[protein.chain[row]]
        return f"{chain}/{protein.sequence_number[row]}/{name}"


def _torsion_problems(
    what: str, is_wrong: Bool[np.ndarray, " r"], degrees: Float64[np.ndarray, "r 8"]
) -> list[Problem]:
    """One problem a residue with its torsions; those that it lacks are NaN in ``degrees``."""
    slots = TORSIONS_OF[what]
    found = []
    for row in np.flatnonzero(is_wrong).tolist():
        measured = {n: float(degrees[row, k]) for n, k in slots.items()}
        measured = {name: value for name, value in measured.items() if not np.isnan(value)}
        found.append(Problem(row, what, " ".join(measured), tuple(measured.values())))
    return found


def _wrong_centres(
    topology: Topology, positions: Float64[np.ndarray, "a 3"]
) -> tuple[Int64[np.ndarray, "w 1"], Float64[np.ndarray, " w"]]:
    """Centres with less than half their ideal volume, and their volumes, Å³."""
    is_chiral = topology.volumes.ideal != 0
    atoms, ideal = topology.volumes.atoms[is_chiral], topology.volumes.ideal[is_chiral]
    volumes = signed_volume(positions[atoms])
    is_wrong = volumes / ideal < WRONG_CENTRE
    return atoms[is_wrong, :1], volumes[is_wrong]


def _root_mean_square(values: Float64[np.ndarray, " n"]) -> float | None:
    return float(np.sqrt((values**2).mean())) if len(values) else None


def _percent(regions: Int64[np.ndarray, " r"], region: int) -> float | None:
    """Share of a region among the residues that were judged."""
    n_judged = int((regions != NOT_JUDGED).sum())
    return 100 * int((regions == region).sum()) / n_judged if n_judged else None
