"""A built model against a deposited one: completeness, residue types, accuracy, continuity.

Both must be in the same place; nothing is superposed. Residues are paired one to one by their
C-alphas, and every other number follows from those pairs.
"""

from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree

from angelo.coordinates import CA, MAX_ATOMS, ProteinCoordinates, read_structure
from angelo.residues import AMINO_ACIDS, residues_of

__all__ = [
    "Evaluation",
    "ProteinCoordinates",
    "evaluate",
    "evaluate_files",
    "lddt",
    "match_calphas",
    "read_structure",
]

#: Farthest that a built C-alpha may be from its deposited one, Å (Jamali et al. 2023).
MATCH_RADIUS = 3.0
#: Pairs of reference atoms up to this far apart are scored by lDDT, Å (Mariani et al. 2013).
LDDT_RADIUS = 15.0
#: Changes of distance that lDDT tolerates, Å (Mariani et al. 2013).
LDDT_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)
#: Atoms whose neighbours are listed at once: 4000 atoms have about 4 million, 100 MB.
LDDT_CHUNK = 4000


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well a built model reproduces a deposited one.

    Percentages are of all deposited (recall) or all built (precision) residues. Distances
    are None where no atom could be compared.
    """

    n_deposited: int
    """Deposited amino-acid residues with a C-alpha."""
    n_built: int
    """Built amino-acid residues with a C-alpha."""
    n_matched: int
    """Pairs of a built and a deposited C-alpha within 3 Å, one to one."""
    calpha_recall: float
    """% of deposited residues that are matched."""
    calpha_precision: float
    """% of built residues that are matched."""
    sequence_recall: float
    """% of deposited residues matched to a built residue of the same type."""
    sequence_precision: float
    """% of built residues matched to a deposited residue of the same type."""
    calpha_rmsd: float | None
    """Over the C-alphas of matched residues, Å, no superposition."""
    backbone_rmsd: float | None
    """Over N, CA, C and O of matched residues, those that both have, Å."""
    all_atom_rmsd: float | None
    """Over atom names that both residues of a match have, Å, the names of symmetric atoms
    (as OD1 and OD2 of Asp) exchanged where that is closer."""
    calpha_lddt: float | None
    """0 to 100 over C-alphas; distances to deposited residues that are not built count as
    lost. None if no two deposited residues are within 15 Å."""
    all_atom_lddt: float | None
    """As ``calpha_lddt``, over all heavy atoms; stereochemistry is not checked."""
    n_chain_breaks: int
    """Bonds between deposited neighbours, both matched, whose built residues are not bonded
    neighbours in the same direction."""
    chain_breaks_per_100: float | None
    """Chain breaks per 100 matched residues."""

    def as_dict(self) -> dict[str, int | float | None]:
        """All fields by name, ready for JSON."""
        return asdict(self)


def evaluate_files(built: Path, deposited: Path) -> Evaluation:
    """Compare two mmCIF or PDB files. Raises ModelFileError for one that cannot be used."""
    return evaluate(read_structure(built), read_structure(deposited))


def evaluate(built: ProteinCoordinates, deposited: ProteinCoordinates) -> Evaluation:
    """Compare a built with a deposited model in the same map.

    References
    ----------
    Jamali et al. 2023, section 4, arXiv:2210.00006; Mariani et al. 2013 (lDDT),
    doi:10.1093/bioinformatics/btt473.
    """
    of_built, of_deposited = match_calphas(built.calphas, deposited.calphas)
    n_matched, n_built, n_deposited = len(of_built), len(built), len(deposited)
    types = built.residue_type[of_built]
    n_right = int(((types == deposited.residue_type[of_deposited]) & (types >= 0)).sum())
    target = _by_name(deposited)
    model = _at_matches(built, deposited, of_built, of_deposited)
    is_common = model[1] & target[1]
    distance_sq = ((model[0] - target[0]) ** 2).sum(-1)
    n_breaks = _count_breaks(built, deposited, of_built, of_deposited)
    is_matched = model[1][:, CA]
    return Evaluation(
        n_deposited=n_deposited,
        n_built=n_built,
        n_matched=n_matched,
        calpha_recall=percent(n_matched, n_deposited),
        calpha_precision=percent(n_matched, n_built),
        sequence_recall=percent(n_right, n_deposited),
        sequence_precision=percent(n_right, n_built),
        calpha_rmsd=root_mean(distance_sq[:, CA][is_common[:, CA]]),
        backbone_rmsd=root_mean(distance_sq[:, :4][is_common[:, :4]]),
        all_atom_rmsd=root_mean(distance_sq[is_common]),
        calpha_lddt=lddt(
            deposited.calphas, model[0][:, CA], is_matched, np.arange(n_deposited)
        ),
        all_atom_lddt=lddt(
            target[0][target[1]],
            model[0][target[1]],
            model[1][target[1]],
            np.nonzero(target[1])[0],
        ),
        n_chain_breaks=n_breaks,
        chain_breaks_per_100=100 * n_breaks / n_matched if n_matched else None,
    )


def match_calphas(
    built: Float32[np.ndarray, "b 3"], deposited: Float32[np.ndarray, "d 3"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Pair points one to one: as many pairs as possible, of those the least total distance.

    Returns
    -------
    of_built, of_deposited
        Rows of the pairs, increasing in ``of_deposited``; no pair is longer than
        ``MATCH_RADIUS``.
    """
    near = KDTree(built).sparse_distance_matrix(
        KDTree(deposited), MATCH_RADIUS, output_type="ndarray"
    )
    rows, row_of_pair = np.unique(near["i"], return_inverse=True)
    n = len(rows)
    if n == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    # Every row can also stay alone, in a column of its own; that costs more than any change
    # of the other rows' distances can gain, so it happens only where it must.
    alone = np.arange(n)
    # Distances + 1: the matching routine takes a weight of zero as no edge.
    cost = np.concatenate([near["v"] + 1, np.full(n, (MATCH_RADIUS + 1) * (n + 1))])
    row = np.concatenate([row_of_pair, alone])
    column = np.concatenate([near["j"], len(deposited) + alone])
    graph = csr_array(coo_array((cost, (row, column)), shape=(n, len(deposited) + n)))
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    is_pair = matched_columns < len(deposited)
    of_deposited = matched_columns[is_pair].astype(np.int64)
    of_built = rows[matched_rows[is_pair]].astype(np.int64)
    order = np.argsort(of_deposited)
    return of_built[order], of_deposited[order]


def lddt(
    reference: Float32[np.ndarray, "n 3"],
    model: Float32[np.ndarray, "n 3"],
    is_built: Bool[np.ndarray, " n"],
    residue: Int64[np.ndarray, " n"],
) -> float | None:
    """Local distance difference test of the whole model, 0 to 100.

    The share of distances up to 15 Å between reference atoms of different residues that the
    model keeps within 0.5, 1, 2 and 4 Å, averaged over the four.

    Parameters
    ----------
    reference, model
        The same atoms in both, Å.
    is_built
        Which atoms the model has; distances to others count as not kept.
    residue
        Residue of each atom.

    References
    ----------
    Mariani et al. 2013, doi:10.1093/bioinformatics/btt473; without its check of
    stereochemistry.
    """
    n_pairs, n_kept = 0, 0
    for start in range(0, len(reference), LDDT_CHUNK):
        chunk, rest = reference[start : start + LDDT_CHUNK], reference[start:]
        near = KDTree(chunk).sparse_distance_matrix(
            KDTree(rest), LDDT_RADIUS, output_type="ndarray"
        )
        first, second, length = near["i"] + start, near["j"] + start, near["v"]
        is_pair = (first < second) & (residue[first] != residue[second])
        n_pairs += int(np.count_nonzero(is_pair))
        is_pair &= is_built[first] & is_built[second]
        between = model[first[is_pair]] - model[second[is_pair]]
        change = np.sqrt(np.einsum("px,px->p", between, between)) - length[is_pair]
        np.abs(change, out=change)
        n_kept += sum(int(np.count_nonzero(change < limit)) for limit in LDDT_THRESHOLDS)
    return 100 * n_kept / (len(LDDT_THRESHOLDS) * n_pairs) if n_pairs else None


@cache
def _name_columns() -> Int64[np.ndarray, "types 14"]:
    """Column of each atom in arrays by atom name; the last row is the type -1, as alanine."""
    residues = residues_of((*AMINO_ACIDS, "ALA"))
    names = dict.fromkeys(atom for residue in residues for atom in residue.atoms)
    column = {atom: number for number, atom in enumerate(names)}
    columns = np.full((len(residues), MAX_ATOMS), len(column), dtype=np.int64)
    for row, residue in zip(columns, residues, strict=True):
        row[: len(residue.atoms)] = [column[atom] for atom in residue.atoms]
    return columns


def _by_name(
    structure: ProteinCoordinates,
) -> tuple[Float32[np.ndarray, "r names 3"], Bool[np.ndarray, "r names"]]:
    """Atoms in columns by name, the same for all residue types (N, CA, C, O first)."""
    columns = _name_columns()[structure.residue_type]
    rows = np.arange(len(structure))[:, None]
    n_names = int(_name_columns().max())  # one more column takes the unused slots
    positions = np.zeros((len(structure), n_names + 1, 3), dtype=np.float32)
    has_atom = np.zeros((len(structure), n_names + 1), dtype=np.bool_)
    positions[rows, columns] = structure.positions
    has_atom[rows, columns] = structure.has_atom
    return positions[:, :n_names], has_atom[:, :n_names]


def _at_matches(
    built: ProteinCoordinates,
    deposited: ProteinCoordinates,
    of_built: Int64[np.ndarray, " m"],
    of_deposited: Int64[np.ndarray, " m"],
) -> tuple[Float32[np.ndarray, "d names 3"], Bool[np.ndarray, "d names"]]:
    """Built atoms in the rows of the deposited residues, symmetric atoms named to fit."""
    renamed = _rename_symmetric(built, deposited, of_built, of_deposited)
    positions, has_atom = _by_name(renamed)
    model = np.zeros((len(deposited), *positions.shape[1:]), dtype=np.float32)
    is_there = np.zeros((len(deposited), positions.shape[1]), dtype=np.bool_)
    model[of_deposited], is_there[of_deposited] = positions[of_built], has_atom[of_built]
    return model, is_there


def _rename_symmetric(
    built: ProteinCoordinates,
    deposited: ProteinCoordinates,
    of_built: Int64[np.ndarray, " m"],
    of_deposited: Int64[np.ndarray, " m"],
) -> ProteinCoordinates:
    """Exchange the names of symmetric built atoms where that is closer to the deposited."""
    positions = built.positions.copy()
    types = built.residue_type[of_built]
    same = types == deposited.residue_type[of_deposited]
    for number, residue in enumerate(residues_of(AMINO_ACIDS)):
        if not residue.swaps:
            continue
        here = np.array([residue.index(a) for pair in residue.swaps for a in pair])
        there = np.array([residue.index(a) for pair in residue.swaps for a in pair[::-1]])
        match = np.flatnonzero(same & (types == number))
        match = match[built.has_atom[of_built[match]][:, here].all(-1)]
        rows = of_built[match]
        target = deposited.positions[of_deposited[match]][:, here]
        is_there = deposited.has_atom[of_deposited[match]][:, here]
        as_named = ((positions[rows][:, here] - target) ** 2).sum(-1)
        exchanged = ((positions[rows][:, there] - target) ** 2).sum(-1)
        rows = rows[((exchanged - as_named) * is_there).sum(-1) < 0]
        positions[rows[:, None], here] = built.positions[rows[:, None], there]
    return replace(built, positions=positions)


def _count_breaks(
    built: ProteinCoordinates,
    deposited: ProteinCoordinates,
    of_built: Int64[np.ndarray, " m"],
    of_deposited: Int64[np.ndarray, " m"],
) -> int:
    """Deposited bonds between matched residues that the built chain does not have."""
    partner = np.full(len(deposited), -1, dtype=np.int64)
    partner[of_deposited] = of_built
    before, here = partner[:-1], partner[1:]
    is_bond = deposited.follows_previous[1:] & (before >= 0) & (here >= 0)
    is_kept = (here == before + 1) & built.follows_previous[here]
    return int((is_bond & ~is_kept).sum())


def percent(part: int, whole: int) -> float:
    """100 * part / whole; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def root_mean(squares: Float[np.ndarray, " n"]) -> float | None:
    """Root of the mean, or None of nothing."""
    return float(np.sqrt(squares.mean(dtype=np.float64))) if len(squares) else None
