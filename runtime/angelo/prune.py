"""Join fragments of one molecule, drop what no sequence supports, and report what is left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment

from angelo.nucleotide_trace import PHOSPHORUS_STEP
from angelo.trace import MAX_CALPHA_STEP
from angelo.types import Assignment, Chain, Refinement, SequenceRecord

#: C-alpha to C-alpha distance that one residue can span, Å: a fully stretched trans peptide.
SPAN_PER_RESIDUE = 3.8
#: P to P distance that one nucleotide can span, Å: a stretched one with C2'-endo sugar.
SPAN_PER_NUCLEOTIDE = 7.2
#: Allowed on top of it, Å: coordinate errors, and a residue that tracing left out.
SPAN_SLACK = 6.0
#: Fragments further apart than this are not joined, Å: with a gap of many residues nearly
#: any distance is possible, but a loop that no density shows seldom runs further.
MAX_JOIN_DISTANCE = 60.0
#: Cost of leaving a fragment without successor. A join costs distance / possible distance, at
#: most 1, so as many fragments as possible are joined, and of the ways to do so the tightest.
UNJOINED_COST = 1000.0
#: Residues that the ends of two fragments may both claim; the later fragment loses them.
MAX_OVERLAP = 2


@dataclass(frozen=True, slots=True)
class SequenceCoverage:
    """How much of one sequence record was found."""

    name: str
    """Name of the record."""
    length: int
    """Residues in the record."""
    n_chains: int
    """Chains placed on it."""
    n_residues: int
    """Residues placed on it, in all chains."""
    fraction: float
    """Part of its positions that at least one chain covers, 0 to 1."""


@dataclass(frozen=True, slots=True)
class AssignmentReport:
    """What the sequences explain, and what they do not."""

    n_built: int
    """Residues built before pruning."""
    n_assigned: int
    """Residues kept because a sequence supports them."""
    sequences: tuple[SequenceCoverage, ...]
    """One for each record, in the order of the records."""

    @property
    def n_left_over(self) -> int:
        """Built residues that no sequence supports."""
        return self.n_built - self.n_assigned

    @property
    def not_found(self) -> tuple[str, ...]:
        """Names of the records of which nothing was found."""
        return tuple(sequence.name for sequence in self.sequences if not sequence.n_chains)


def join_fragments(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
) -> tuple[Assignment, ...]:
    """Join fragments that follow each other in one sequence and can be one molecule.

    Fragment b may follow a if its first matched position comes after a's last one (but for
    `MAX_OVERLAP`), and if the residues between can span the distance. Which follows which is
    one assignment problem for each record, so copies of a molecule sort themselves out by
    distance, and no position is used twice in a chain. The score of a joined chain is the sum,
    its E-value the smallest, of its fragments'. Longest chains come first, ties by position of
    the first residue.
    """
    joined = [assignment for assignment in assignments if assignment.sequence < 0]
    for number, record in enumerate(records):
        fragments = [a for a in assignments if a.sequence == number]
        span = SPAN_PER_RESIDUE if record.kind == "protein" else SPAN_PER_NUCLEOTIDE
        joined += [_join(path) for path in _best_paths(fragments, refinement.frames.ca, span)]
    ca = refinement.frames.ca
    joined.sort(key=lambda a: (-len(a.chain), *ca[a.chain.residues[0]].tolist()))
    return tuple(joined)


def prune_chains(
    assignments: Sequence[Assignment], refinement: Refinement, min_matched: int = 4
) -> tuple[Assignment, ...]:
    """Keep the residues that a sequence supports.

    Kept are matched residues in fragments, runs of bonded and matched residues, of at least
    ``min_matched``. A chain without any is dropped. The order stays.
    """
    kept = []
    for assignment in assignments:
        matched = np.flatnonzero(assignment.positions >= 0)
        if assignment.sequence < 0 or not len(matched):
            continue
        residues = assignment.chain.residues[matched]
        steps = np.linalg.norm(np.diff(refinement.frames.ca[residues], axis=0), axis=-1)
        runs = np.split(matched, np.flatnonzero(steps > _max_step(refinement, residues)) + 1)
        supported = [run for run in runs if len(run) >= min_matched]
        if supported:
            kept.append(assignment.only(np.concatenate(supported)))
    return tuple(kept)


def report_assignment(
    pruned: Sequence[Assignment], n_built: int, records: Sequence[SequenceRecord]
) -> AssignmentReport:
    """Coverage of every record by the chains that pruning kept.

    Parameters
    ----------
    pruned
        What `prune_chains` returned.
    n_built
        Residues in all chains before pruning.
    records
        The sequence records that assignments refer to.
    """
    sequences = []
    for index, record in enumerate(records):
        placed = [a.positions[a.positions >= 0] for a in pruned if a.sequence == index]
        covered = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *placed]))
        sequences.append(
            SequenceCoverage(
                name=record.name,
                length=len(record),
                n_chains=len(placed),
                n_residues=sum(len(positions) for positions in placed),
                fraction=len(covered) / len(record),
            )
        )
    n_assigned = sum(sequence.n_residues for sequence in sequences)
    return AssignmentReport(n_built, n_assigned, tuple(sequences))


def _max_step(refinement: Refinement, residues: Int64[np.ndarray, " k"]) -> float:
    """Largest distance of bonded C-alphas or P, Å; the same as in tracing."""
    is_protein = refinement.is_protein is None or refinement.is_protein[residues].all()
    return MAX_CALPHA_STEP if is_protein else PHOSPHORUS_STEP[1]


def _best_paths(
    fragments: list[Assignment], ca: np.ndarray, span: float
) -> list[list[Assignment]]:
    """Group fragments of one record into molecules, each in sequence order."""
    n = len(fragments)
    costs = np.full((n, 2 * n), np.inf)
    costs[:, :n] = _join_costs(fragments, ca, span)
    costs[:, n:] = UNJOINED_COST
    _, partner = linear_sum_assignment(costs)
    following = {a: int(b) for a, b in enumerate(partner) if b < n}
    paths = []
    for first in sorted(set(range(n)) - set(following.values())):
        path = [first]
        while path[-1] in following:
            path.append(following[path[-1]])
        paths.append([fragments[index] for index in path])
    return paths


def _join_costs(
    fragments: list[Assignment], ca: np.ndarray, span: float
) -> Float64[np.ndarray, "f f"]:
    """Distance over possible distance from each fragment's end to each one's start."""
    n = len(fragments)
    first_at, last_at = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    starts, ends = np.empty((n, 3)), np.empty((n, 3))
    for row, fragment in enumerate(fragments):
        matched = np.flatnonzero(fragment.positions >= 0)
        first_at[row], last_at[row] = fragment.positions[matched[[0, -1]]]
        starts[row], ends[row] = ca[fragment.chain.residues[matched[[0, -1]]]]
    gap = first_at - last_at[:, None]
    distance = np.linalg.norm(starts - ends[:, None], axis=-1)
    possible = span * np.maximum(gap, 1) + SPAN_SLACK
    allowed = (gap > -MAX_OVERLAP) & (last_at > last_at[:, None])
    allowed &= distance <= np.minimum(possible, MAX_JOIN_DISTANCE)
    return np.where(allowed, distance / possible, np.inf)


def _join(path: list[Assignment]) -> Assignment:
    """One assignment from the fragments of a molecule."""
    residues, positions = [path[0].chain.residues], [path[0].positions]
    for fragment in path[1:]:
        last = max(int(before.max()) for before in positions)
        claimed = np.flatnonzero((fragment.positions >= 0) & (fragment.positions <= last))
        start = int(claimed[-1]) + 1 if len(claimed) else 0
        residues.append(fragment.chain.residues[start:])
        positions.append(fragment.positions[start:])
    return Assignment(
        Chain(np.concatenate(residues)),
        path[0].sequence,
        np.concatenate(positions),
        float(sum(fragment.score for fragment in path)),
        min(fragment.e_value for fragment in path),
    )
