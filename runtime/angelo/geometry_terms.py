"""Energies of bonds, volumes, torsions and contacts, with their gradients. float64, Å.

An energy is half the sum of squared deviations in standard deviations, so terms add up like
log-likelihoods. Every term adds to an energy and puts the derivatives with respect to its own
atoms into a block of rows; a sparse product gathers them.

Arrays of vectors are kept one component after the other in memory (Fortran order), which more
than halves the time: loops over things run without strides.
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
        length = np.sqrt(_dot(between, between) + TINY)
        off = (length - self.ideal) / self.sigma
        pull = (off / (self.sigma * length))[:, None] * between
        return 0.5 * float(off @ off), _by_corner(pull, -pull)


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
        of_a, of_b, of_c = _cross(b, c), _cross(c, a), _cross(a, b)
        off = (_dot(a, of_a) - self.ideal) / self.sigma
        slopes = _by_corner(-of_a - of_b - of_c, of_a, of_b, of_c)
        return 0.5 * float(off @ off), (off / self.sigma)[:, None, None] * slopes


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
        length = np.sqrt(_dot(between, between) + TINY)
        overlap = np.maximum(self.closest - length, 0.0)
        held = np.minimum(overlap, self.yield_length)
        energy = held * (overlap - 0.5 * held) / self.sigma**2
        push = (-held / (self.sigma**2 * length))[:, None] * between
        return float(energy.sum()), _by_corner(push, -push)


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
        self._atoms = [np.ascontiguousarray(term.atoms.T) for term in terms]
        self._gathers = [_gather_matrix(a.ravel(), len(tethers.positions)) for a in self._atoms]

    def __call__(
        self, positions: Float64[np.ndarray, "a 3"]
    ) -> tuple[float, Float64[np.ndarray, "a 3"]]:
        """Energy and its derivatives with respect to all positions."""
        energy, gradient = self._tethers.evaluate(positions)
        components = np.ascontiguousarray(positions.T)
        for term, atoms, gather in zip(self._terms, self._atoms, self._gathers, strict=True):
            part, slopes = term.evaluate(np.take(components, atoms, axis=1).T)
            energy += part
            for column, block in zip(gradient.T, slopes.T.reshape(3, -1), strict=True):
                column += gather @ block
        return energy, gradient


def _gather_matrix(atoms: Int64[np.ndarray, " n"], n_atoms: int) -> csr_array:
    """Sparse matrix that adds up, for each atom, the rows that are its own."""
    entries = (np.ones(len(atoms)), (atoms, np.arange(len(atoms))))
    return csr_array(entries, shape=(n_atoms, len(atoms)))


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
    a_sq = _dot(a, a) + TINY
    b_sq = _dot(b, b) + TINY
    axis_length = np.sqrt(_dot(axis, axis) + TINY)
    sine = _dot(_cross(b, a), axis) / axis_length
    angle = np.arctan2(sine, _dot(a, b))
    near, far = a / a_sq[:, None], b / b_sq[:, None]
    share_a = (_dot(first, axis) / axis_length)[:, None]
    share_b = (_dot(last, axis) / axis_length)[:, None]
    one, four = -axis_length[:, None] * near, axis_length[:, None] * far
    shift = share_a * near - share_b * far
    return angle, _by_corner(one, shift - one, -shift - four, four)


def _torsion_weights(
    corners: Float64[np.ndarray, "n 4 3"],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 4 3"]]:
    """How well torsions are defined, 0 to 1, and the derivatives of that."""
    first, axis = corners[:, 0] - corners[:, 1], corners[:, 1] - corners[:, 2]
    last = corners[:, 3] - corners[:, 2]
    a, b = _cross(first, axis), _cross(last, axis)
    a_sq, b_sq = _dot(a, a), _dot(b, b)
    share_a, share_b = a_sq / (a_sq + HALF_AREA_SQ), b_sq / (b_sq + HALF_AREA_SQ)
    slope_a = (2 * share_b * HALF_AREA_SQ / (a_sq + HALF_AREA_SQ) ** 2)[:, None]
    slope_b = (2 * share_a * HALF_AREA_SQ / (b_sq + HALF_AREA_SQ) ** 2)[:, None]
    of_first, of_last = slope_a * _cross(axis, a), slope_b * _cross(axis, b)
    of_axis = slope_a * _cross(a, first) + slope_b * _cross(b, last)
    slopes = _by_corner(of_first, of_axis - of_first, -of_axis - of_last, of_last)
    return share_a * share_b, slopes


# Called by the thousand: their arrays are not annotated with shapes, which tests would check.


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Vector products, (n, 3); several times as fast as ``np.cross``."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx]).T


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Scalar products, (n,)."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    products: np.ndarray = ax * bx + ay * by + az * bz
    return products


def _by_corner(*vectors: np.ndarray) -> np.ndarray:
    """Vectors of each thing's corners, each (n, 3), as one array (n, corners, 3)."""
    return np.stack([vector.T for vector in vectors], axis=1).T
