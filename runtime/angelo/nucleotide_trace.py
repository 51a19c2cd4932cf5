"""Link nucleotides into strands by the bonds from O3' to P, as one assignment problem.

As `angelo.trace` does for peptide bonds. O3' hangs on five torsions, so built bonds are far
less exact than those of peptides.
"""

from collections.abc import Sequence

import numpy as np

from angelo.atoms import place_atoms
from angelo.residues import NUCLEOTIDES, residue_table
from angelo.trace import Links, TraceSettings, allowed_pairs, chains_from_links
from angelo.types import BackboneFrames, Chain, Refinement

#: O3'-P bond length, Å (Gelbin et al. 1996, doi:10.1021/ja9528846).
IDEAL_BOND = 1.607
#: Standard deviation of built O3'-P distances about it, Å.
BOND_DEVIATION = 1.5
#: Longest O3'-P distance of a link, Å (ModelAngelo: 4).
MAX_BOND = 5.0
#: Least and largest distance of the P of bonded nucleotides, Å: 5.9 in A-form helices, up to
#: 7.2 in B-form and stretched strands, and the error of both ends.
PHOSPHORUS_STEP = (4.0, 9.0)


def trace_strands(
    refinement: Refinement, residue_types: Sequence[str], settings: TraceSettings
) -> tuple[Chain, ...]:
    """Strands of nucleotides, 5' to 3'; longest first, as `angelo.trace.trace_chains`.

    Of the settings the limits of probability and existence apply; those of length are for
    peptides.
    """
    if refinement.is_protein is None or refinement.is_protein.all():
        return ()
    exists = ~refinement.is_protein & (refinement.existence >= settings.min_existence)
    unlinked_cost = 0.5 * ((MAX_BOND - IDEAL_BOND) / BOND_DEVIATION) ** 2
    unlinked_cost -= float(np.log(settings.min_next_probability))
    links = _candidate_links(refinement, exists, residue_types, settings, unlinked_cost)
    return chains_from_links(links, exists, unlinked_cost, refinement.frames.ca)


def _candidate_links(
    refinement: Refinement,
    exists: np.ndarray,
    residue_types: Sequence[str],
    settings: TraceSettings,
    unlinked_cost: float,
) -> Links:
    """Links within the limits; O3' is that of the most likely nucleotide."""
    start, end, probability = allowed_pairs(refinement, exists, settings.min_next_probability)
    o3 = _o3_positions(refinement, exists, residue_types)
    p = refinement.frames.ca.astype(np.float64)
    bond = np.linalg.norm(o3[start] - p[end], axis=-1)
    step = np.linalg.norm(p[start] - p[end], axis=-1)
    cost = 0.5 * ((bond - IDEAL_BOND) / BOND_DEVIATION) ** 2 - np.log(probability)
    nearest, farthest = PHOSPHORUS_STEP
    fits = (bond <= MAX_BOND) & (step >= nearest) & (step <= farthest)
    return Links(start, end, bond, cost).keep(fits & (cost < unlinked_cost))


def _o3_positions(
    refinement: Refinement, exists: np.ndarray, residue_types: Sequence[str]
) -> np.ndarray:
    """O3' of every nucleotide that exists, Å; NaN elsewhere."""
    columns = np.array([residue_types.index(name) for name in NUCLEOTIDES])
    rows = np.flatnonzero(exists)
    kinds = columns[refinement.aa_logits[rows][:, columns].argmax(axis=1)]
    frames = BackboneFrames(refinement.frames.rotation[rows], refinement.frames.ca[rows])
    atoms, _ = place_atoms(frames, refinement.torsions[rows], kinds, residue_types)
    slots = np.array(
        [
            residue_table()[name].atoms.index("O3'") if name in NUCLEOTIDES else -1
            for name in residue_types
        ]
    )
    o3 = np.full((len(refinement), 3), np.nan)
    o3[rows] = atoms[np.arange(len(rows)), slots[kinds]]
    return o3
