"""Where the built molecules leave room for a fragment, and how likely each place is.

All of it is decided by C-alphas and residue numbers; amino acids play no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float32, Float64, Int64
from scipy.spatial import KDTree

from angelo.prune import MAX_JOIN_DISTANCE, SPAN_PER_RESIDUE, SPAN_SLACK, join_fragments
from angelo.types import Assignment, Refinement, SequenceRecord

#: Residues by which a fragment may overlap its neighbours in the sequence: its ends may be
#: traced into them, and are then left unmatched.
OVERLAP = 3
#: Copies on which a molecule is superposed, the most complete ones.
N_COPIES = 3
#: Copies of a molecule are superposed on at least this many common residues ...
MIN_COMMON = 20
#: ... if their C-alphas then agree this well, Å (root mean square): else they are no copies.
MAX_COPY_RMSD = 2.5
#: A residue lies on one of another copy if the C-alphas are this close after superposition, Å.
ON_COPY = 2.0
#: Part of a fragment that must lie on the other copy in one register.
MIN_ON_COPY = 0.6
#: Mean square distance, Å^2, of the ends of a coil of n steps is COIL**2 * n**COIL_POWER: six
#: times the squared radius of gyration of Kohn et al. 2004, doi:10.1073/pnas.0403643101.
COIL, COIL_POWER = 4.7, 1.2
#: Error of built ends, Å.
PLACE_ERROR = 2.0
#: Weight of an end without neighbour, 1/Å³: it may be anywhere within some 40 Å.
NO_NEIGHBOUR = 4e-6
#: Part of the weight of all places that goes to those that a copy suggests, if there are any.
COPY_WEIGHT = 0.5


def span_weights(steps: Int64[np.ndarray, "*s"], distance: float) -> Float64[np.ndarray, "*s"]:
    """How likely a gap of this many steps is between two C-alphas, by their distance, Å.

    Few residues are missing rather than many, and the ends are as far apart as those of a
    random coil, see `COIL`; 0 where that many residues cannot span it. Fewer than one step
    count as one.
    """
    steps = np.maximum(steps, 1)
    variance = COIL**2 * steps**COIL_POWER + PLACE_ERROR**2
    near = variance**-1.5 * np.exp(-1.5 * distance**2 / variance) / steps
    possible = np.minimum(SPAN_PER_RESIDUE * steps + SPAN_SLACK, MAX_JOIN_DISTANCE)
    weights: np.ndarray = np.where(distance <= possible, near, 0.0)
    return weights


@dataclass(frozen=True, slots=True)
class Molecule:
    """Residues of one chain that are placed on a sequence, in its order."""

    record: int
    positions: Int64[np.ndarray, " m"]
    ca: Float32[np.ndarray, "m 3"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Part of a sequence that a molecule does not cover."""

    molecule: int
    record: int
    first: int
    """First position that is free."""
    end: int
    """Position behind the last free one."""
    before: Float32[np.ndarray, "3"] | None
    """C-alpha before the gap; None at the start of the sequence."""
    after: Float32[np.ndarray, "3"] | None

    def weights(
        self,
        first_at: Int64[np.ndarray, " o"],
        last_at: Int64[np.ndarray, " o"],
        start: Float32[np.ndarray, "3"],
        stop: Float32[np.ndarray, "3"],
    ) -> Float64[np.ndarray, " o"]:
        """How likely fragments are, by their distances, between these positions.

        See `span_weights` for either side.
        """
        weights = np.ones(len(first_at))
        for place, end, steps in (
            (self.before, start, first_at - self.first + 1),
            (self.after, stop, self.end - last_at),
        ):
            if place is None:
                weights *= NO_NEIGHBOUR
                continue
            weights *= span_weights(steps, float(np.linalg.norm(place - end)))
        return weights


@dataclass(frozen=True, slots=True)
class Copy:
    """A molecule and how it lies on another one of the same sequence."""

    molecule: int
    """Index of the molecule."""
    other: Molecule
    rotation: Float64[np.ndarray, "3 3"]
    shift: Float64[np.ndarray, "3"]
    """Å."""

    def suggest(self, ca: Float32[np.ndarray, "c 3"]) -> int | None:
        """Position of a fragment's first residue, if it lies on the other in one register."""
        moved = ca @ self.rotation.T + self.shift
        away, nearest = KDTree(self.other.ca).query(moved)
        register = self.other.positions[nearest] - np.arange(len(ca))
        offsets, counts = np.unique(register[away <= ON_COPY], return_counts=True)
        if not len(counts) or counts.max() < MIN_ON_COPY * len(ca):
            return None
        return int(offsets[counts.argmax()])


@dataclass(frozen=True, slots=True)
class Places:
    """Where a fragment may be, decided without its amino acids."""

    gap: Int64[np.ndarray, " h"]
    """Index into the gaps."""
    offset: Int64[np.ndarray, " h"]
    """Position of the fragment's first residue."""
    weight: Float64[np.ndarray, " h"]
    """Part of all, sum 1."""


def molecules_of(
    assignments: Sequence[Assignment],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
) -> tuple[Molecule, ...]:
    """Placed fragments, joined as they will be."""
    molecules = []
    for joined in join_fragments(assignments, refinement, records):
        if joined.sequence >= 0:
            matched = joined.positions >= 0
            ca = refinement.frames.ca[joined.chain.residues[matched]]
            molecules.append(Molecule(joined.sequence, joined.positions[matched], ca))
    return tuple(molecules)


def gaps_of(
    molecules: Sequence[Molecule], records: Sequence[SequenceRecord]
) -> tuple[Gap, ...]:
    """All that the molecules leave free, their ends included."""
    gaps = []
    for index, molecule in enumerate(molecules):
        ends = [-1, *molecule.positions.tolist(), len(records[molecule.record])]
        places = [None, *molecule.ca, None]
        for (before, place), (after, next_place) in pairwise(zip(ends, places, strict=True)):
            if after - before > 1:
                gaps.append(Gap(index, molecule.record, before + 1, after, place, next_place))
    return tuple(gaps)


def possible_places(
    ca: Float32[np.ndarray, "c 3"], gaps: Sequence[Gap], copies: Sequence[Copy] = ()
) -> Places:
    """Where a fragment with these C-alphas may be, with weights that add up to 1."""
    gap_index, offsets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    weights = [np.zeros(0)]
    for index, gap in enumerate(gaps):
        offset = np.arange(gap.first - OVERLAP, gap.end - len(ca) + OVERLAP + 1)
        weight = gap.weights(offset, offset + len(ca) - 1, ca[0], ca[-1])
        can_be = weight > 0
        offsets.append(offset[can_be])
        weights.append(weight[can_be])
        gap_index.append(np.full(int(can_be.sum()), index))
    gap_of, offset = np.concatenate(gap_index), np.concatenate(offsets)
    weight = np.concatenate(weights)
    owner = np.array([gaps[g].molecule for g in gap_of.tolist()], dtype=np.int64)
    is_suggested = np.zeros(len(offset), dtype=np.bool_)
    for copy in copies:
        if (owner == copy.molecule).any() and (position := copy.suggest(ca)) is not None:
            is_suggested |= (owner == copy.molecule) & (offset == position)
    weight /= weight.sum() or 1.0
    if is_suggested.any():
        weight *= 1 - COPY_WEIGHT
        weight[is_suggested] += COPY_WEIGHT / is_suggested.sum()
    return Places(gap_of, offset, weight)


def copies_of(molecules: Sequence[Molecule]) -> tuple[Copy, ...]:
    """Superpose every molecule on the most complete other ones of the same sequence."""
    copies = []
    for index, mine in enumerate(molecules):
        others = [m for m in molecules if m.record == mine.record and m is not mine]
        others.sort(key=lambda other: -len(other.positions))  # equals stay in order
        for other in others[:N_COPIES]:
            _, at, at_other = np.intersect1d(
                mine.positions, other.positions, assume_unique=True, return_indices=True
            )
            if len(at) < MIN_COMMON:
                continue
            rotation, shift, rmsd = superpose(mine.ca[at], other.ca[at_other])
            if rmsd <= MAX_COPY_RMSD:
                copies.append(Copy(index, other, rotation, shift))
    return tuple(copies)


def superpose(
    mobile: Float32[np.ndarray, "n 3"], target: Float32[np.ndarray, "n 3"]
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, "3"], float]:
    """Rotation, shift (Å) and remaining r.m.s. distance (Å): ``target ~ R @ mobile + shift``.

    References
    ----------
    Kabsch 1978, doi:10.1107/S0567739478001680.
    """
    centre, target_centre = mobile.mean(axis=0, dtype=float), target.mean(axis=0, dtype=float)
    u, _, vt = np.linalg.svd((target - target_centre).T @ (mobile - centre))
    flip = np.diag([1.0, 1.0, float(np.linalg.det(u @ vt))])
    rotation = u @ flip @ vt
    shift = target_centre - rotation @ centre
    left = mobile @ rotation.T + shift - target
    return rotation, shift, float(np.sqrt((left**2).sum(axis=-1).mean()))
