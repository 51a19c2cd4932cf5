"""Energies of bonds, volumes, torsions and contacts, with their gradients. float64, Å.

An energy is half the sum of squared deviations in standard deviations, so terms add up like
log-likelihoods. Every term adds to an energy and puts the derivatives with respect to its own
atoms into a block of rows; one sparse product gathers the rows of all terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from scipy.sparse import csr_array

#: A torsion counts half where three of its atoms span a parallelogram of this squared area, Å⁴
#: (3 Å⁴ in good geometry): nothing where they are in line, so that its force stays finite.
HALF_AREA_SQ = 0.3
#: Squared lengths are not allowed below this, Å²: keeps the gradient finite at singular places.
TINY = 1e-8


@runtime_checkable
class Term(Protocol):
    """One kind of energy."""

    @property
    def atoms(self) -> Int64[np.ndarray, "n k"]:
        """Atoms of each thing."""

    def evaluate(
        self, corners: Float64[np.ndarray, "n k 3"]
    ) -> tuple[float, Float64[np.ndarray, "n k 3"]]:
        """Energy and its derivatives, from the positions of the atoms."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Harmonic distances."""

    atoms: Int64[np.ndarray, "n 2"]
    ideal: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]

    def evaluate(
        self, corners: Float64[np.ndarray, "n 2 3"]
    ) -> tuple[float, Float64[np.ndarray, "n 2 3"]]:
        """See ``Term``."""
        between = corners[:, 0] - corners[:, 1]
        length = np.sqrt(np.einsum("nx,nx->n", between, between) + TINY)
        off = (length - self.ideal) / self.sigma
        pull = (off / (self.sigma * length))[:, None] * between
        return 0.5 * float(off @ off), np.stack([pull, -pull], axis=1)


@dataclass(frozen=True, slots=True)
class Volumes:
    """Harmonic signed volumes: chiral centres, and planes (volume 0)."""

    atoms: Int64[np.ndarray, "n 4"]
    ideal: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]

    def evaluate(
        self, corners: Float64[np.ndarray, "n 4 3"]
    ) -> tuple[float, Float64[np.ndarray, "n 4 3"]]:
        """See ``Term``."""
        a, b, c = np.moveaxis(corners[:, 1:] - corners[:, :1], 1, 0)
        normals = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
        off = (np.einsum("nx,nx->n", a, normals[:, 0]) - self.ideal) / self.sigma
        slopes = (off / self.sigma)[:, None, None] * normals
        return 0.5 * float(off @ off), np.concatenate(
            [-slopes.sum(1, keepdims=True), slopes], axis=1
        )


@dataclass(frozen=True, slots=True)
class Torsions:
    """Torsions with ``period`` equivalent ideal angles.

    Harmonic near an ideal angle, smooth everywhere: between two ideal angles it goes as a
    cosine, and it fades out where three of the atoms come to lie in line.
    """

    atoms: Int64[np.ndarray, "n 4"]
    ideal_rad: Float64[np.ndarray, " n"]
    sigma_rad: Float64[np.ndarray, " n"]
    period: Int64[np.ndarray, " n"]

    def evaluate(
        self, corners: Float64[np.ndarray, "n 4 3"]
    ) -> tuple[float, Float64[np.ndarray, "n 4 3"]]:
        """See ``Term``."""
        angle, angle_slopes = torsions_with_slopes(corners)
        weight, weight_slopes = _torsion_weights(corners)
        off = self.period * (angle - self.ideal_rad)
        stiffness = 1 / (self.period * self.sigma_rad) ** 2
        energy = stiffness * (1 - np.cos(off))
        per_radian = stiffness * self.period * np.sin(off)
        slopes = (weight * per_radian)[:, None, None] * angle_slopes
        return float(weight @ energy), slopes + energy[:, None, None] * weight_slopes


@dataclass(frozen=True, slots=True)
class Contacts:
    """Repulsion of atoms closer than they may be; beyond ``yield_length`` a constant force."""

    atoms: Int64[np.ndarray, "n 2"]
    closest: Float64[np.ndarray, " n"]
    """Distance from which on there is no force, Å."""
    sigma: float
    """Å."""
    yield_length: float
    """Overlap up to which the force grows, Å: a chain that runs through another is not torn."""

    def evaluate(
        self, corners: Float64[np.ndarray, "n 2 3"]
    ) -> tuple[float, Float64[np.ndarray, "n 2 3"]]:
        """See ``Term``."""
        between = corners[:, 0] - corners[:, 1]
        length = np.sqrt(np.einsum("nx,nx->n", between, between) + TINY)
        overlap = np.maximum(self.closest - length, 0.0)
        held = np.minimum(overlap, self.yield_length)
        energy = held * (overlap - 0.5 * held) / self.sigma**2
        push = (-held / (self.sigma**2 * length))[:, None] * between
        return float(energy.sum()), np.stack([push, -push], axis=1)


@dataclass(frozen=True, slots=True)
class Tethers:
    """Atoms held near where they were."""

    positions: Float64[np.ndarray, "a 3"]
    sigma: Float64[np.ndarray, " a"]
    """Å."""

    def evaluate(
        self, positions: Float64[np.ndarray, "a 3"]
    ) -> tuple[float, Float64[np.ndarray, "a 3"]]:
        """Energy and its derivatives."""
        off = (positions - self.positions) / self.sigma[:, None]
        return 0.5 * float(np.vdot(off, off)), off / self.sigma[:, None]


class Energy:
    """Sum of terms over the same atoms."""

    def __init__(self, tethers: Tethers, terms: Sequence[Term]) -> None:
        self._tethers = tethers
        self._terms = terms
        rows = np.concatenate([np.zeros(0, np.int64), *(term.atoms.ravel() for term in terms)])
        n_atoms, n_rows = len(tethers.positions), len(rows)
        entries = (np.ones(n_rows), (rows, np.arange(n_rows)))
        self._gather = csr_array(entries, shape=(n_atoms, n_rows))

    def __call__(
        self, positions: Float64[np.ndarray, "a 3"]
    ) -> tuple[float, Float64[np.ndarray, "a 3"]]:
        """Energy and its derivatives with respect to all positions."""
        energy, gradient = self._tethers.evaluate(positions)
        blocks = [np.zeros((0, 3))]
        for term in self._terms:
            part, slopes = term.evaluate(positions[term.atoms])
            energy += part
            blocks.append(slopes.reshape(-1, 3))
        return energy, gradient + self._gather @ np.concatenate(blocks)


def torsions_with_slopes(
    corners: Float64[np.ndarray, "n 4 3"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 4 3"]]:
    """Torsion angles, radians, and their derivatives with respect to the four atoms.

    References
    ----------
    Blondel & Karplus 1996, doi:10.1002/(SICI)1096-987X(19960715)17:9<1132::AID-JCC5>3.0.CO;2-T,
    equation 27.
    """
    first, axis, last = (corners[:, k] - corners[:, k + 1] for k in range(3))
    last = -last
    a, b = _cross(first, axis), _cross(last, axis)
    a_sq = np.einsum("nx,nx->n", a, a) + TINY
    b_sq = np.einsum("nx,nx->n", b, b) + TINY
    axis_length = np.sqrt(np.einsum("nx,nx->n", axis, axis) + TINY)
    sine = np.einsum("nx,nx->n", _cross(b, a), axis) / axis_length
    angle = np.arctan2(sine, np.einsum("nx,nx->n", a, b))
    near, far = a / a_sq[:, None], b / b_sq[:, None]
    share_a = (np.einsum("nx,nx->n", first, axis) / axis_length)[:, None]
    share_b = (np.einsum("nx,nx->n", last, axis) / axis_length)[:, None]
    one, four = -axis_length[:, None] * near, axis_length[:, None] * far
    shift = share_a * near - share_b * far
    return angle, np.stack([one, shift - one, -shift - four, four], axis=1)


def _torsion_weights(
    corners: Float64[np.ndarray, "n 4 3"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 4 3"]]:
    """How well torsions are defined, 0 to 1, and the derivatives of that."""
    first, axis = corners[:, 0] - corners[:, 1], corners[:, 1] - corners[:, 2]
    last = corners[:, 3] - corners[:, 2]
    a, b = _cross(first, axis), _cross(last, axis)
    a_sq, b_sq = np.einsum("nx,nx->n", a, a), np.einsum("nx,nx->n", b, b)
    share_a, share_b = a_sq / (a_sq + HALF_AREA_SQ), b_sq / (b_sq + HALF_AREA_SQ)
    slope_a = (2 * share_b * HALF_AREA_SQ / (a_sq + HALF_AREA_SQ) ** 2)[:, None]
    slope_b = (2 * share_a * HALF_AREA_SQ / (b_sq + HALF_AREA_SQ) ** 2)[:, None]
    of_first, of_last = slope_a * _cross(axis, a), slope_b * _cross(axis, b)
    of_axis = slope_a * _cross(a, first) + slope_b * _cross(b, last)
    slopes = [of_first, of_axis - of_first, -of_axis - of_last, of_last]
    return share_a * share_b, np.stack(slopes, axis=1)


def _cross(
    a: Float64[np.ndarray, "n 3"], b: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 3"]:
    """Vector product; several times as fast as ``np.cross``."""
    ax, ay, az = a.T
    bx, by, bz = b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)
