"""Is a model stereochemically sane? Bonds, angles, peptides, torsions and clashes, counted.

Every measure needs the model alone. Ideal values are those of the geometry step; regions of
the Ramachandran plane and of rotamers are our own (``angelo.torsion_regions``), so figures are
close to those of other validation programs, but not the same.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from angelo.atoms import measure_torsions
from angelo.coordinates import ProteinCoordinates
from angelo.geometry_tables import signed_volume
from angelo.geometry_topology import CLOSEST_CONTACT, Topology, build_topology, contact_pairs
from angelo.residues import AMINO_ACIDS, OMEGA
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
#: What can be wrong with a residue, in the columns of ``Validation.problems``.
PROBLEMS = ("bond", "angle", "chirality", "peptide", "ramachandran", "rotamer", "clash")
BOND, ANGLE, CHIRALITY, PEPTIDE, RAMACHANDRAN, ROTAMER, CLASH = range(len(PROBLEMS))


@dataclass(frozen=True, slots=True)
class Validation:
    """Stereochemistry of a model. What could not be measured at all is None."""

    bond_rmsd: float | None
    """Root mean square departure of bond lengths from ideal, Å."""
    n_bond_outliers: int
    """Bonds more than four standard deviations off."""
    angle_rmsd: float | None
    """As ``bond_rmsd``, bond angles in degrees."""
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
    """% of residues with phi and psi in favoured regions; 98 in good structures."""
    ramachandran_outliers: float | None
    """% of residues outside all allowed regions; 0.05 in good structures."""
    rotamer_outliers: float | None
    """% of side chains with chi1 and chi2 outside all allowed regions; 0.3 in good ones."""
    clashscore: float | None
    """Pairs of heavy atoms that overlap by more than 0.4 Å, per 1000 atoms."""
    problems: Bool[np.ndarray, "r 7"]
    """What is wrong with each residue; columns are named by ``PROBLEMS``."""

    def as_dict(self) -> dict[str, int | float | None]:
        """All numbers by name, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name != "problems"}

    def names(self, residue: int) -> tuple[str, ...]:
        """Names of the problems of a residue."""
        return tuple(np.array(PROBLEMS)[self.problems[residue]].tolist())


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
    is_joint = is_linked & is_measured[:, OMEGA]
    omega = np.abs(np.rad2deg(np.arctan2(torsions[:, OMEGA, 0], torsions[:, OMEGA, 1])))
    is_cis = is_joint & (omega < 90)
    is_twisted = is_joint & (np.minimum(omega, 180 - omega) > TWISTED_OMEGA)
    is_proline = protein.residue_type == AMINO_ACIDS.index("PRO")
    backbone = ramachandran_regions(torsions, is_measured, protein.residue_type, is_linked)
    side_chains = rotamer_regions(torsions, is_measured, protein.residue_type)

    topology = build_topology(protein, is_linked, is_cis)
    positions = protein.positions[protein.has_atom].astype(np.float64)
    lengths, degrees = bond_lengths(topology, positions), angle_degrees(topology, positions)
    bonds, angles = topology.bonds, topology.angles
    is_long = np.abs(lengths - bonds.ideal) > OUTLIER_SIGMAS * bonds.sigma
    is_bent = np.abs(degrees - angles.ideal) > OUTLIER_SIGMAS * angles.sigma
    wrong_centres = _wrong_centres(topology, positions)
    clashes = find_clashes(topology, positions)

    problems = np.zeros((len(protein), len(PROBLEMS)), dtype=np.bool_)
    problems[topology.residue[bonds.atoms[is_long]], BOND] = True
    problems[topology.residue[angles.atoms[is_bent]], ANGLE] = True
    problems[topology.residue[wrong_centres], CHIRALITY] = True
    problems[:, PEPTIDE] = is_twisted | (is_cis & ~is_proline)
    problems[:, RAMACHANDRAN] = backbone == OUTLIER
    problems[:, ROTAMER] = side_chains == OUTLIER
    problems[topology.residue[clashes], CLASH] = True
    return Validation(
        bond_rmsd=_root_mean_square(lengths - bonds.ideal),
        n_bond_outliers=int(is_long.sum()),
        angle_rmsd=_root_mean_square(degrees - angles.ideal),
        n_angle_outliers=int(is_bent.sum()),
        n_chirality_errors=len(wrong_centres),
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
) -> Int64[np.ndarray, "p 2"]:
    """Pairs of atoms that overlap, see ``CLASH_OVERLAP``."""
    pairs = contact_pairs(topology, positions, float(CLOSEST_CONTACT.max()) - CLASH_OVERLAP)
    first, second = pairs.T
    distance = np.linalg.norm(positions[first] - positions[second], axis=-1)
    closest = CLOSEST_CONTACT[topology.element[first], topology.element[second]]
    clashes: np.ndarray = pairs[distance < closest - CLASH_OVERLAP]
    return clashes


def _wrong_centres(
    topology: Topology, positions: Float64[np.ndarray, "a 3"]
) -> Int64[np.ndarray, " w"]:
    """Chiral centres with less than half their ideal volume."""
    is_chiral = topology.volumes.ideal != 0
    atoms, ideal = topology.volumes.atoms[is_chiral], topology.volumes.ideal[is_chiral]
    is_wrong = signed_volume(positions[atoms]) / ideal < 0.5
    wrong: np.ndarray = atoms[is_wrong, 0]
    return wrong


def _root_mean_square(values: Float64[np.ndarray, " n"]) -> float | None:
    return float(np.sqrt((values**2).mean())) if len(values) else None


def _percent(regions: Int64[np.ndarray, " r"], region: int) -> float | None:
    """Share of a region among the residues that were judged."""
    n_judged = int((regions != NOT_JUDGED).sum())
    return 100 * int((regions == region).sum()) / n_judged if n_judged else None
