"""Regularise a model: ideal bonds, angles and planes at the least movement of its atoms.

The networks place every residue as rigid groups of its own, so what lies between residues is
a little off: bonds too long, peptides twisted, atoms that overlap. Here all atoms move together
to the minimum of an energy whose terms are deviations in standard deviations: geometry in those
of good structures, positions in those of the networks' errors. Confident atoms thus stay, and
doubtful ones give way.

In models of nine maps, bonds then were 0.002 to 0.004 Å and angles 0.6 to 1.5 degrees (rms)
from ideal, with at most one overlap of 0.4 Å in 1000 atoms. C-alphas had moved by 0.1 to 0.3 Å
(rms), and all backbones were closer to the deposited ones, by 0.02 to 0.09 Å.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.optimize import minimize

from angelo.atoms import measure_torsions
from angelo.coordinates import CA, CB, MAX_ATOMS, C, N, ProteinCoordinates
from angelo.geometry_terms import (
    Contacts,
    Distances,
    Energy,
    Term,
    Tethers,
    Torsions,
    Volumes,
    torsions_with_slopes,
)
from angelo.geometry_topology import (
    CLOSEST_CONTACT,
    Topology,
    angle_distances,
    build_topology,
    contact_pairs,
)
from angelo.residues import AMINO_ACIDS, residues_of
from angelo.torsion_regions import OUTLIER, rotamer_regions

log = logging.getLogger(__name__)

#: C-alphas of bonded residues are within this distance, Å, the same as in tracing: neighbours
#: farther apart are a chain break and are not pulled together. Neighbours that the numbering
#: separates are bonded only if they were built so, with C and N within the second distance, Å.
LONGEST_STEP, LONGEST_BOND_IN_GAP = 5.0, 2.0
#: C-alphas of ideal cis and trans peptides, Å apart.
CIS_STEP, TRANS_STEP = 2.95, 3.80
#: Before proline one peptide in twenty is cis. It counts as cis if omega over 90 degrees plus
#: its C-alphas' share of the way from cis to trans is below this. Of 203 prolines in the
#: models of nine maps all six cis ones were below 1.7, one trans one, and no other below 2.3.
CIS_PROLINE_LIMIT = 2.0
#: Elsewhere one in 3000 is cis: C-alphas have to be this near, Å, omega this small, degrees,
#: and both residues this confident.
CIS_LONGEST_STEP, CIS_LARGEST_OMEGA, CIS_CONFIDENCE = 3.1, 30.0, 80.0

#: Error of a built atom along each axis, Å (s.d.), at confidence 100 and at confidence 0: of N,
#: CA, C, O, and of side-chain atoms by the Greek letter of their name. Measured against the
#: deposited models on simulated maps of validation entries at 3 Å and on EMD-3488.
SURE_ERROR = {"N": 0.20, "CA": 0.18, "C": 0.17, "O": 0.31} | dict(
    zip("BGDEZH", (0.23, 0.50, 0.75, 0.95, 1.05, 1.10), strict=True)
)
DOUBTFUL_ERROR = {"N": 0.90, "CA": 0.35, "C": 0.80, "O": 1.30} | dict(
    zip("BGDEZH", (1.00, 1.40, 1.60, 1.70, 1.80, 1.90), strict=True)
)
#: Side chains that are rotamer outliers after all but the last round are held this many times
#: less firmly in it. Halves the outliers, at no loss of accuracy.
LOOSER_SIDE_CHAIN = 4.0
#: Spread of a staggered torsion about -60, 60 or 180 degrees.
CHI_SIGMA = 20.0
#: Atoms repel each other from this much inside their closest contact on, Å, by a force that
#: grows as over this standard deviation, Å, and no more beyond this overlap, Å.
CONTACT_SLACK, CONTACT_SIGMA, CONTACT_YIELD = 0.1, 0.1, 0.5
#: Pairs of atoms this much farther apart are kept in view while atoms move, Å.
CONTACT_MARGIN = 0.7
#: Rounds of minimisation, and the most steps in each. The first is without contacts, so that
#: peptides built the wrong way round can turn; each other one sees the contacts anew. 600
#: steps take four times as long and change backbone RMSDs by 0.01 Å at most.
ROUNDS, STEPS = 3, 150
#: Pairs of steps from which L-BFGS estimates curvature, and the relative gain in a step below
#: which a round has come to its end.
MEMORY, LEAST_GAIN = 6, 1e-6
#: Told of finished rounds and all rounds.
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Joints:
    """How residues follow each other."""

    is_linked: Bool[np.ndarray, " r"]
    """Whether a peptide bond joins the residue to the one before it."""
    is_cis: Bool[np.ndarray, " r"]
    """Whether that bond is cis."""


def regularise(
    protein: ProteinCoordinates,
    confidence: Float32[np.ndarray, " r"],
    tell: Tell | None = None,
) -> ProteinCoordinates:
    """Move atoms to good geometry, the less the more confident they are.

    Bond lengths, angles, planes, the hand of C-alphas, flat peptides (trans, or cis where they
    were), staggered side chains, and no overlaps. Where neighbours are too far apart for a
    bond the chain stays broken. The same input gives the same output.

    Parameters
    ----------
    protein
        Residues with all their atoms.
    confidence
        0 to 100, as written to models.
    tell
        Told of rounds.

    References
    ----------
    Minimiser: Byrd, Lu, Nocedal & Zhu 1995 (L-BFGS-B), doi:10.1137/0916069.
    """
    joints = find_joints(protein, confidence)
    topology = build_topology(protein, joints.is_linked, joints.is_cis)
    if not len(topology):
        return protein
    built = protein.positions[protein.has_atom].astype(np.float64)
    centre = built.mean(axis=0)  # so that rounding does not depend on where the model is
    start, errors = built - centre, expected_errors(protein, confidence)
    bonded, positions = bonded_terms(topology), start
    for number in range(ROUNDS):
        contacts = [contact_term(topology, positions)] if number else []
        if number == ROUNDS - 1:
            near = _with_atoms(protein, positions)
            errors = np.where(is_poor_side_chain(near), LOOSER_SIDE_CHAIN * errors, errors)
        energy = Energy(Tethers(start, errors), [*bonded, *contacts])
        positions = _minimum(energy, positions)
        if tell is not None:
            tell(number + 1, ROUNDS)
    moved = _with_atoms(protein, positions + centre)
    log.info(
        "geometry: %d residues, %d bonds between them (%d cis), C-alphas moved by %.2f Å",
        *(len(protein), joints.is_linked.sum(), joints.is_cis.sum()),
        calpha_shift(protein.calphas, moved.calphas),
    )
    return moved


def find_joints(protein: ProteinCoordinates, confidence: Float32[np.ndarray, " r"]) -> Joints:
    """Which neighbours are bonded, and which of these bonds are cis; see the limits above."""
    before, here = protein.positions[:-1], protein.positions[1:]
    has_both = protein.has_atom[:-1, [CA, C]].all(-1) & protein.has_atom[1:, [N, CA]].all(-1)
    step = np.linalg.norm(here[:, CA] - before[:, CA], axis=-1)
    bond = np.linalg.norm(here[:, N] - before[:, C], axis=-1)
    is_next = (np.diff(protein.sequence_number) == 1) | (bond <= LONGEST_BOND_IN_GAP)
    is_joined = (protein.chain[1:] == protein.chain[:-1]) & has_both
    is_joined &= is_next & (step <= LONGEST_STEP)
    corners = np.stack([before[:, CA], before[:, C], here[:, N], here[:, CA]], axis=1)
    omega = np.abs(np.rad2deg(torsions_with_slopes(corners.astype(np.float64))[0]))
    is_proline = protein.residue_type[1:] == AMINO_ACIDS.index("PRO")
    is_sure = np.minimum(confidence[1:], confidence[:-1]) >= CIS_CONFIDENCE
    is_cis = np.where(
        is_proline,
        omega / 90 + (step - CIS_STEP) / (TRANS_STEP - CIS_STEP) < CIS_PROLINE_LIMIT,
        (step < CIS_LONGEST_STEP) & (omega < CIS_LARGEST_OMEGA) & is_sure,
    )
    first = np.zeros(min(1, len(protein)), dtype=np.bool_)
    return Joints(np.append(first, is_joined), np.append(first, is_joined & is_cis))


def expected_errors(
    protein: ProteinCoordinates, confidence: Float32[np.ndarray, " r"]
) -> Float64[np.ndarray, " a"]:
    """Error of each atom along an axis, Å (s.d.), between the values of sure and doubtful."""
    doubt = 1 - confidence.astype(np.float64)[:, None] / 100
    sure, doubtful = np.moveaxis(_error_table()[protein.residue_type], -1, 0)
    errors: np.ndarray = (sure + doubt * (doubtful - sure))[protein.has_atom]
    return errors


def is_poor_side_chain(protein: ProteinCoordinates) -> Bool[np.ndarray, " a"]:
    """Whether an atom is beyond C-beta in a side chain that is a rotamer outlier."""
    torsions, is_measured = measure_torsions(
        protein.positions,
        protein.has_atom,
        protein.residue_type,
        np.zeros(len(protein), dtype=np.bool_),
    )
    regions = rotamer_regions(torsions, is_measured, protein.residue_type)
    is_poor = (regions == OUTLIER)[:, None] & (np.arange(MAX_ATOMS) > CB)
    poor: np.ndarray = is_poor[protein.has_atom]
    return poor


def bonded_terms(topology: Topology) -> list[Term]:
    """Energies of all that bonds hold: distances, volumes and torsions."""
    bonds, volumes, omegas = topology.bonds, topology.volumes, topology.omegas
    across = angle_distances(topology)
    n, m = len(omegas), len(topology.chis)
    return [
        Distances(
            np.concatenate([bonds.atoms, across.atoms]),
            np.concatenate([bonds.ideal, across.ideal]),
            np.concatenate([bonds.sigma, across.sigma]),
        ),
        Volumes(volumes.atoms, volumes.ideal, volumes.sigma),
        Torsions(
            np.concatenate([omegas.atoms, topology.chis]),
            np.deg2rad(np.concatenate([omegas.ideal, np.full(m, 180.0)])),
            np.deg2rad(np.concatenate([omegas.sigma, np.full(m, CHI_SIGMA)])),
            np.repeat(np.array([1, 3]), [n, m]),
        ),
    ]


def contact_term(topology: Topology, positions: Float64[np.ndarray, "a 3"]) -> Contacts:
    """Repulsion of atoms that are, or may come, too close."""
    radius = float(CLOSEST_CONTACT.max()) - CONTACT_SLACK + CONTACT_MARGIN
    pairs = contact_pairs(topology, positions, radius)
    first, second = topology.element[pairs].T
    closest = CLOSEST_CONTACT[first, second] - CONTACT_SLACK
    return Contacts(pairs, closest, CONTACT_SIGMA, CONTACT_YIELD)


def calpha_shift(
    before: Float32[np.ndarray, "r 3"], after: Float32[np.ndarray, "r 3"]
) -> float:
    """Root mean square distance that C-alphas moved, Å; 0 of none."""
    shifts = (after.astype(np.float64) - before) ** 2
    return float(np.sqrt(shifts.sum(-1).mean())) if len(shifts) else 0.0


def _with_atoms(
    protein: ProteinCoordinates, positions: Float64[np.ndarray, "a 3"]
) -> ProteinCoordinates:
    """Give the atoms that there are other positions."""
    moved = protein.positions.copy()
    moved[protein.has_atom] = positions.astype(np.float32)
    return replace(protein, positions=moved)


def _minimum(
    energy: Energy, positions: Float64[np.ndarray, "a 3"]
) -> Float64[np.ndarray, "a 3"]:
    """Positions of least energy near the given ones, or as near as the steps allow."""

    def flat(values: Float64[np.ndarray, " x"]) -> tuple[float, Float64[np.ndarray, " x"]]:
        value, gradient = energy(values.reshape(3, -1).T)
        return value, gradient.T.ravel()

    settings = {"maxiter": STEPS, "maxcor": MEMORY, "ftol": LEAST_GAIN}
    start = positions.T.ravel()  # one component after the other, see geometry_terms
    found = minimize(flat, start, jac=True, method="L-BFGS-B", options=settings)
    log.debug("energy %.1f after %d steps: %s", found.fun, found.nit, found.message)
    return np.asarray(found.x.reshape(3, -1).T)


@cache
def _error_table() -> Float64[np.ndarray, "types 14 2"]:
    """Errors of each slot of each amino acid, sure and doubtful; unused slots are 1."""
    table = np.ones((len(AMINO_ACIDS), MAX_ATOMS, 2))
    for row, residue in zip(table, residues_of(AMINO_ACIDS), strict=True):
        for slot, atom in enumerate(residue.atoms):
            name = atom if atom in SURE_ERROR else atom[1]
            row[slot] = SURE_ERROR[name], DOUBTFUL_ERROR[name]
    return table
