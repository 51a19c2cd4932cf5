"""Link residues into chains: one assignment problem over all peptide bonds at once.

A link from residue i to residue j (j follows i) costs what its C-N distance and the network's
probability make it unlikely; leaving the C of a residue unlinked costs as much as the worst
link that the settings allow. The links of least total cost, each residue with at most one
successor and one predecessor, are the chains.
"""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from angelo.frames import backbone_atoms
from angelo.types import Chain, Refinement

_log = logging.getLogger(__name__)

#: C-N bond length of a peptide, Å (Engh & Huber 1991, doi:10.1107/S0108767391001071).
IDEAL_BOND = 1.329
#: Standard deviation of built C-N distances about it, Å; at 3 Å resolution carbonyls are not
#: seen, so built peptide planes are far less exact than real ones.
BOND_DEVIATION = 0.5
#: A C-N distance over the limit is forgiven when the C-alphas are this close, Å: they are
#: 3.8 Å apart across a trans peptide, and a wrongly turned plane hardly moves them.
MAX_CALPHA_STEP = 5.0
#: Keeps costs off zero, which a sparse matrix does not store; the same for every choice.
_COST_OFFSET = 1.0


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """Which links are allowed."""

    min_next_probability: float
    """Links that the network holds less likely are ignored, in (0, 1]."""
    max_bond: float
    """Longest C-N distance, Å, unless the C-alphas are within 5 Å."""
    min_existence: float
    """Residues that exist with less than this probability are left out, in [0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.min_next_probability <= 1:
            raise ValueError(
                f"min_next_probability is {self.min_next_probability}, not in (0, 1]"
            )
        if self.max_bond <= IDEAL_BOND:
            raise ValueError(f"max_bond is {self.max_bond} Å, less than a peptide bond")

    @property
    def unlinked_cost(self) -> float:
        """Cost of no successor: that of a link at both limits."""
        at_limit = (self.max_bond - IDEAL_BOND) / BOND_DEVIATION
        return 0.5 * at_limit**2 - float(np.log(self.min_next_probability))


@dataclass(frozen=True, slots=True)
class Links:
    """Candidate links ``start -> end``."""

    start: Int64[np.ndarray, " e"]
    end: Int64[np.ndarray, " e"]
    bond: Float64[np.ndarray, " e"]
    """Length, Å."""
    cost: Float64[np.ndarray, " e"]
    """How unlikely it is."""

    def keep(self, chosen: Bool[np.ndarray, " e"]) -> "Links":
        """Only these."""
        return Links(self.start[chosen], self.end[chosen], self.bond[chosen], self.cost[chosen])


def trace_chains(refinement: Refinement, settings: TraceSettings) -> tuple[Chain, ...]:
    """Chains of residues joined by peptide bonds.

    Every residue that exists is in exactly one chain; a residue without links is a chain of
    one. Rings are opened at their longest bond. The longest chain comes first; chains of one
    length are ordered by the position of their first residue. Nucleotides take no part.

    References
    ----------
    Jamali, Kimanius & Scheres 2023 (ICLR), section 3.3. The minimum-weight matching is solved
    exactly: Jonker & Volgenant 1987, doi:10.1007/BF02278710.
    """
    exists = refinement.existence >= settings.min_existence
    if refinement.is_protein is not None:  # nucleotides: angelo.nucleotide_trace
        exists &= refinement.is_protein
    links = _candidate_links(refinement, exists, settings)
    return chains_from_links(links, exists, settings.unlinked_cost, refinement.frames.ca)


def chains_from_links(
    links: Links,
    exists: Bool[np.ndarray, " r"],
    unlinked_cost: float,
    positions: Float32[np.ndarray, "r 3"],
) -> tuple[Chain, ...]:
    """Chains of the residues that exist, through the links of least total cost.

    ``positions`` (Å) put chains of one length in order.
    """
    while True:
        successor = _best_successors(links, len(exists), unlinked_cost)
        chains, rings = _follow(successor, np.flatnonzero(exists))
        if not rings:
            break
        _log.info("opening %d rings of residues at their longest bond", len(rings))
        links = links.keep(~_longest_bonds(links, successor, rings))
    chains.sort(key=lambda residues: (-len(residues), *positions[residues[0]].tolist()))
    return tuple(Chain(residues) for residues in chains)


def _candidate_links(
    refinement: Refinement, exists: Bool[np.ndarray, " r"], settings: TraceSettings
) -> Links:
    """Links within the limits."""
    start, end, probability = allowed_pairs(refinement, exists, settings.min_next_probability)
    atoms = backbone_atoms(refinement.frames).astype(np.float64)
    bond = np.linalg.norm(atoms[start, 2] - atoms[end, 0], axis=-1)
    step = np.linalg.norm(atoms[start, 1] - atoms[end, 1], axis=-1)
    cost = 0.5 * ((bond - IDEAL_BOND) / BOND_DEVIATION) ** 2 - np.log(probability)
    fits = (bond <= settings.max_bond) | (step <= MAX_CALPHA_STEP)
    return Links(start, end, bond, cost).keep(fits & (cost < settings.unlinked_cost))


def allowed_pairs(
    refinement: Refinement, exists: Bool[np.ndarray, " r"], min_next_probability: float
) -> tuple[Int64[np.ndarray, " e"], Int64[np.ndarray, " e"], Float64[np.ndarray, " e"]]:
    """Residues that exist, those that may follow them, and the probability that they do.

    Each pair comes once, at its highest probability.
    """
    n, k = refinement.neighbours.shape
    start, end = np.repeat(np.arange(n), k), refinement.neighbours.ravel()
    probability = refinement.next_probability.ravel().astype(np.float64)
    allowed = (probability >= min_next_probability) & (start != end)
    allowed &= exists[start] & exists[end]
    start, end, probability = start[allowed], end[allowed], probability[allowed]
    order = np.lexsort((-probability, end, start))
    start, end, probability = start[order], end[order], probability[order]
    first = np.ones(len(start), dtype=bool)
    first[1:] = (np.diff(start) != 0) | (np.diff(end) != 0)
    return start[first], end[first], probability[first]


def _best_successors(links: Links, n: int, unlinked_cost: float) -> Int64[np.ndarray, " r"]:
    """Successor of each residue in the links of least total cost; -1: none.

    Columns n to 2n - 1 of the matrix are 'no successor', one for each residue.
    """
    if not len(links.start):
        return np.full(n, -1)
    costs = np.concatenate([links.cost, np.full(n, unlinked_cost)]) + _COST_OFFSET
    rows = np.concatenate([links.start, np.arange(n)])
    columns = np.concatenate([links.end, np.arange(n, 2 * n)])
    matrix = csr_matrix((costs, (rows, columns)), shape=(n, 2 * n))
    _, partner = min_weight_full_bipartite_matching(matrix)
    return np.where(partner < n, partner, -1).astype(np.int64)


def _follow(
    successor: Int64[np.ndarray, " r"], residues: Int64[np.ndarray, " e"]
) -> tuple[list[Int64[np.ndarray, " c"]], list[Int64[np.ndarray, " c"]]]:
    """Open chains, N to C, and rings, from any of their residues."""
    has_predecessor = np.zeros(len(successor), dtype=bool)
    has_predecessor[successor[successor >= 0]] = True
    following: list[int] = successor.tolist()
    seen = np.zeros(len(successor), dtype=bool)

    def walk(start: int) -> Int64[np.ndarray, " c"]:
        path = [start]
        while (here := following[path[-1]]) not in (-1, start):
            path.append(here)
        seen[path] = True
        return np.array(path, dtype=np.int64)

    chains = [walk(int(i)) for i in residues[~has_predecessor[residues]]]
    rings = [walk(int(i)) for i in residues if not seen[i]]
    return chains, rings


def _longest_bonds(
    links: Links, successor: Int64[np.ndarray, " r"], rings: list[Int64[np.ndarray, " c"]]
) -> Bool[np.ndarray, " e"]:
    """Mark the longest bond of each ring among the links."""
    ring_of = np.full(len(successor), -1)
    for number, ring in enumerate(rings):
        ring_of[ring] = number
    used = np.flatnonzero((successor[links.start] == links.end) & (ring_of[links.start] >= 0))
    used = used[np.lexsort((-links.bond[used], ring_of[links.start[used]]))]
    _, first = np.unique(ring_of[links.start[used]], return_index=True)
    longest = np.zeros(len(links.start), dtype=bool)
    longest[used[first]] = True
    return longest
