"""Cryo-EM density of a structure: scattering, local disorder, noise, filtering and masks.

A simulated box is what a window of a post-processed map looks like, before the runtime's own
normalisation (``angelo.spectrum``), which is then applied exactly as it is at run time.
Lengths in Å, grids z, y, x.
"""

from functools import lru_cache

import gemmi
import numpy as np
import scipy.fft
from jaxtyping import Float32, Float64, Int64
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.spatial import cKDTree

from angelo.frames import random_rotations
from angelo.spectrum import shell_amplitudes, spatial_frequencies
from angelo_training.conditions import Conditions
from angelo_training.scatterers import Group, Scatterers

#: Elements with scattering of their own; any other takes that of the nearest one (by Z).
ELEMENTS = (6, 7, 8, 11, 15, 16, 20, 26, 30, 35)
#: Typical bond length of hydrogen, Å.
HYDROGEN_BOND = 1.09
#: Electron scattering of vitreous ice of 0.93 g/cm³ at low frequency, Å per Å³.
SOLVENT_SCATTERING = 0.095
#: Volume whose Gaussian stands for that of every displaced atom, Å³ (as in Fraser et al.,
#: J. Appl. Cryst. 11 (1978) 693, but one width for all).
DISPLACED_WIDTH = 20.0
#: Atoms within this distance, Å, tell how buried an atom is.
BURIAL_RADIUS = 7.0
#: B-factor bins, Å²; an atom is shared linearly between the two bins around its own.
B_BINS = np.array([0.0, 40.0, 110.0, 250.0])
#: Width of the end of the FSC, 1/Å.
END_WIDTH = 0.004
#: Spectral density of white shells used for measuring amplitudes, 1/Å.
SHELL_WIDTH = 0.01

#: Density that no model explains differs from place to place: deviation of its logarithm.
UNMODELLED_SPREAD = 0.5
#: It is less fine than the signal: B-factor that its amplitudes lost besides, Å².
UNMODELLED_B = 200.0
#: It has its full strength from here on, Å, and none at the atoms, which leave it no room.
UNMODELLED_FROM = 3.5


@lru_cache(maxsize=64)
def _scattering(element: int, n: int) -> np.ndarray:
    """Electron scattering factor at n spatial frequencies from 0 to 1/Å (ITC C 4.3.2.2)."""
    s_squared = np.linspace(0, 1, n) ** 2
    coefs = np.array(gemmi.Element(element).c4322.get_coefs())
    a, b = coefs[:5], coefs[5:]
    factor = (a[:, None] * np.exp(-b[:, None] * s_squared / 4)).sum(0)
    if element == 1:
        factor *= np.sinc(2 * np.sqrt(s_squared) * HYDROGEN_BOND)
    return np.asarray(factor)


@lru_cache(maxsize=4)
def _displaced(n: int) -> np.ndarray:
    """Scattering of 1 Å³ of displaced vitreous ice at n spatial frequencies from 0 to 1/Å."""
    s_squared = np.linspace(0, 1, n) ** 2
    fall = np.exp(-np.pi * s_squared * DISPLACED_WIDTH ** (2 / 3))
    return np.asarray(SOLVENT_SCATTERING * fall)


def _spline_weights(fraction: np.ndarray) -> np.ndarray:
    """Quintic B-spline weights of the six nearest grid points, (atoms, 6)."""
    at = np.abs(fraction[:, None] - np.arange(-2, 4))
    near = 0.55 - 0.5 * at**2 + 0.25 * at**4 - at**5 / 12
    mid = 0.425 + 0.625 * at - 1.75 * at**2 + 1.25 * at**3 - 0.375 * at**4 + at**5 / 24
    far = (3 - at) ** 5 / 120
    return np.where(at < 1, near, np.where(at < 2, mid, np.where(at < 3, far, 0)))


def spread_atoms(
    positions_vox: np.ndarray, weights: np.ndarray, shape: tuple[int, int, int]
) -> Float32[np.ndarray, "z y x"]:
    """Atoms as points on a periodic grid, each shared by 6³ voxels (quintic B-spline)."""
    base = np.floor(positions_vox).astype(np.int64)
    wx, wy, wz = (_spline_weights(positions_vox[:, i] - base[:, i]) for i in range(3))
    reach = np.arange(-2, 4)
    ix, iy, iz = ((base[:, i, None] + reach) % shape[2 - i] for i in range(3))
    flat = (iz[:, :, None] * shape[1] + iy[:, None, :])[..., None] * shape[2] + ix[
        :, None, None, :
    ]
    share = (wz[:, :, None] * wy[:, None, :])[..., None] * (wx * weights[:, None])[
        :, None, None, :
    ]
    grid = np.bincount(flat.ravel(), share.ravel(), minlength=int(np.prod(shape)))
    return grid.astype(np.float32).reshape(shape)


def structure_factors(
    atoms: Scatterers,
    b_factors: np.ndarray,
    occupancy: np.ndarray,
    shape: tuple[int, int, int],
    voxel: float,
    *,
    hydrogen: float = 1.0,
    solvent: float = 0.0,
) -> np.ndarray:
    """Half transform (``rfftn`` layout) of the electron scattering of atoms in a periodic box.

    ``atoms.positions`` in Å from the centre of voxel (0, 0, 0). Hydrogens, which scatter
    ``hydrogen`` times what free ones do, are spread over the sphere around the atom that they
    are bonded to. What atoms displace of ``solvent`` times vitreous ice is taken away.
    """
    s = spatial_frequencies(shape, np.full(3, voxel, np.float32))
    table_at = (s * 1000).astype(np.int32).clip(max=1000)
    known = np.array(ELEMENTS)
    nearest = known[np.abs(atoms.elements.astype(int)[:, None] - known).argmin(1)]
    b = np.clip(b_factors, 0, B_BINS[-1] - 1e-3)
    low = np.searchsorted(B_BINS, b, side="right") - 1
    upper_share = (b - B_BINS[low]) / (B_BINS[low + 1] - B_BINS[low])
    grid_at = atoms.positions / voxel
    total = np.zeros(s.shape, np.complex64)
    for i, b_bin in enumerate(B_BINS):
        share = np.where(low == i, 1 - upper_share, np.where(low + 1 == i, upper_share, 0))
        there = share * occupancy
        decay = np.exp(-b_bin * s**2 / 4)
        kinds = [(_scattering(e, 1001), there * (nearest == e)) for e in ELEMENTS]
        kinds.append((hydrogen * _scattering(1, 1001), there * atoms.hydrogens))
        kinds.append((-solvent * _displaced(1001), share * atoms.volume))
        for scattering, weight in kinds:
            pick = weight > 0
            if pick.any() and scattering.any():
                grid = spread_atoms(grid_at[pick], weight[pick], shape)
                factor = scattering[table_at] * decay
                total += scipy.fft.rfftn(grid) * factor.astype(np.float32)
    transform: np.ndarray = total / _spline_transfer(shape)
    return transform


@lru_cache(maxsize=8)
def _spline_transfer(shape: tuple[int, int, int]) -> np.ndarray:
    """Transform of the quintic B-spline, to be divided out."""
    z, y = (np.sinc(np.fft.fftfreq(n)) for n in shape[:2])
    x = np.sinc(np.fft.rfftfreq(shape[2]))
    transfer: np.ndarray = (z[:, None, None] * y[:, None] * x) ** 6
    return transfer.astype(np.float32)


def fourier_shell_correlation(s: np.ndarray, conditions: Conditions) -> np.ndarray:
    """Half-map FSC: a logistic that passes 0.143 at the stated resolution, and soon ends."""
    centre = 1 / conditions.resolution - conditions.fsc_width * np.log(1 / 0.143 - 1)
    fall = 1 / (1 + np.exp((s - centre) / conditions.fsc_width))
    end = conditions.fsc_end / conditions.resolution
    return np.asarray(fall / (1 + np.exp(np.minimum((s - end) / END_WIDTH, 50))))


def process(
    signal: np.ndarray,
    shape: tuple[int, int, int],
    voxel: float,
    conditions: Conditions,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "z y x"]:
    """Add noise shaped by the FSC, weight, filter and sharpen; back to real space."""
    s = spatial_frequencies(shape, np.full(3, voxel, np.float32))
    shells, centres, amplitude = _radial_profile(signal, s)
    half = np.clip(fourier_shell_correlation(centres, conditions), 1e-3, 0.999)
    full = 2 * half / (1 + half)
    noise_rms = conditions.noise * amplitude * np.sqrt((1 - full) / full)
    white = _white_noise(shape, rng)
    fall = anisotropic_exponent(shape, voxel, conditions.anisotropic_b, rng)
    signal = signal * np.exp(-fall)
    white *= np.exp(-conditions.anisotropic_noise * fall)
    total = signal + white * noise_rms[shells].astype(np.float32)
    gain = np.exp(-conditions.b_overall * centres**2 / 4)
    if conditions.weighting:
        gain = gain * np.sqrt(full)
    if conditions.low_pass > 0:
        gain = gain / (1 + np.exp((centres - 1 / conditions.low_pass) / 0.01))
    elif not conditions.weighting:  # an unfiltered map still ends somewhere
        gain = gain / (1 + np.exp((centres - 1.15 / conditions.resolution) / 0.02))
    return np.asarray(
        scipy.fft.irfftn(
            total
            * np.interp(s, centres, gain).astype(np.float32)
            * _nyquist(shape, voxel, conditions),
            s=shape,
        ),
        np.float32,
    )


def _radial_profile(
    signal: np.ndarray, s: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shell of every coefficient, and of every shell its centre, 1/Å, and rms amplitude."""
    shells = (s / SHELL_WIDTH).astype(np.int64)
    n_shells = int(shells.max()) + 1
    centres = (np.arange(n_shells) + 0.5) * SHELL_WIDTH
    amplitude = np.maximum(shell_amplitudes(signal, shells, n_shells), 1e-9)
    return shells, centres, amplitude


def _white_noise(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Half transform of white noise: coefficients of unit mean square."""
    values = rng.standard_normal(shape, dtype=np.float32)
    transform: np.ndarray = scipy.fft.rfftn(values) / np.sqrt(np.prod(shape))
    return transform


def anisotropic_exponent(
    shape: tuple[int, int, int],
    voxel: float,
    b_factors: tuple[float, float],
    rng: np.random.Generator,
) -> Float32[np.ndarray, "z y f"]:
    """Sum of B (s·a)² / 4 over two random directions a, for every coefficient of ``rfftn``."""
    axes = random_rotations(1, rng)[0][:2]
    z, y = (np.fft.fftfreq(n, voxel) for n in shape[:2])
    x = np.fft.rfftfreq(shape[2], voxel)
    exponent = np.zeros((len(z), len(y), len(x)))
    for b_factor, axis in zip(b_factors, axes, strict=True):
        along = z[:, None, None] * axis[2] + y[:, None] * axis[1] + x * axis[0]
        exponent += b_factor * along**2 / 4
    return exponent.astype(np.float32)


def _nyquist(shape: tuple[int, int, int], voxel: float, conditions: Conditions) -> np.ndarray:
    """1 inside the cube of frequencies that the deposited pixel can hold."""
    edge = 0.5 / conditions.pixel
    z, y = (np.abs(np.fft.fftfreq(n, voxel)) <= edge for n in shape[:2])
    x = np.fft.rfftfreq(shape[2], voxel) <= edge
    inside: np.ndarray = z[:, None, None] & y[:, None] & x
    return inside.astype(np.float32)


def smooth_field(
    shape: tuple[int, int, int], rng: np.random.Generator, waves: int = 3
) -> Float32[np.ndarray, "z y x"]:
    """Draw a smooth field of zero mean and unit variance: up to ``waves`` along each axis."""
    transform = np.zeros((*shape[:2], shape[2] // 2 + 1), np.complex64)
    axis = np.arange(-waves, waves + 1)
    block = (len(axis), len(axis), waves + 1)
    random = rng.standard_normal(block) + 1j * rng.standard_normal(block)
    transform[np.ix_(axis, axis, np.arange(waves + 1))] = random
    transform[0, 0, 0] = 0
    field = scipy.fft.irfftn(transform, s=shape)
    return np.asarray(field / field.std(), np.float32)


def distance_to_atoms(
    positions_vox: np.ndarray, shape: tuple[int, ...]
) -> Float64[np.ndarray, "z y x"]:
    """Distance of every voxel to the nearest atom's voxel, in voxels."""
    empty = np.ones(shape, bool)
    index = np.rint(positions_vox).astype(int)[:, ::-1]
    index = index[((index >= 0) & (index < np.array(shape))).all(1)]
    empty[tuple(index.T)] = False
    return np.asarray(distance_transform_edt(empty))


def soft_mask(
    positions: np.ndarray, shape: tuple[int, int, int], voxel: float, radius: float, edge: float
) -> Float32[np.ndarray, "z y x"]:
    """1 within ``radius`` of any atom, falling to 0 over ``edge``."""
    distance = distance_to_atoms(positions / voxel, shape) * voxel
    ramp = np.clip((radius + edge - distance) / max(edge, 1e-3), 0, 1)
    smooth: np.ndarray = 0.5 - 0.5 * np.cos(np.pi * ramp)
    return smooth.astype(np.float32)


def local_scattering(
    atoms: Scatterers, field: np.ndarray, conditions: Conditions, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """B-factors relative to the best-ordered atoms, Å², and occupancies.

    ``field`` is the smooth field at the atoms. Side chains differ in how much they fade, by
    an exponential factor that their atoms share.
    """
    n_residues = int(atoms.residue.max(initial=-1)) + 1
    per_residue = np.append(rng.exponential(size=n_residues), 0.0)[atoms.residue]
    spread = (
        conditions.b_scale * (atoms.b_factors - np.median(atoms.b_factors))
        + conditions.local_b * field
        + conditions.exposed_b * exposure(atoms.positions)
        + conditions.side_b * atoms.depth * (0.4 + 0.6 * per_residue)
    )
    b = np.maximum(spread - np.percentile(spread, 5), 0)
    # The charge of an acid weakens what is around it.
    kept: dict[Group, np.ndarray | float] = {
        Group.CARBOXYLATE: conditions.carboxylate * rng.uniform(0.5, 1.5, len(atoms)),
        Group.ACID_CARBON: (1 + conditions.carboxylate) / 2,
        Group.HYDROXYL: conditions.polar * rng.uniform(0.6, 1.1, len(atoms)),
        Group.NITROGEN: conditions.polar * rng.uniform(0.8, 1.2, len(atoms)),
        Group.SULPHUR: conditions.sulphur,
    }
    occupancy = np.exp(-conditions.weakness * np.maximum(field, 0))
    for group, factor in kept.items():
        occupancy = np.where(atoms.group == group, factor * occupancy, occupancy)
    return b, occupancy


def exposure(positions: Float32[np.ndarray, "a 3"]) -> Float32[np.ndarray, " a"]:
    """How exposed to solvent atoms are: neighbours they lack, in deviations, -2 to 2.

    Real maps are weaker where few atoms are around.
    """
    tree = cKDTree(positions)
    near = tree.query_ball_point(positions, BURIAL_RADIUS, return_length=True)
    lacking = near.mean() - near
    deviations = np.clip(lacking / max(float(near.std()), 1.0), -2, 2)
    return np.asarray(deviations, np.float32)


def unmodelled_density(
    signal: np.ndarray,
    index: Int64[np.ndarray, "a 3"],
    shape: tuple[int, int, int],
    voxel: float,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Half transform of a random density between the atoms, less fine than the signal.

    ``index`` has the atoms' voxels (x, y, z). Away from them it is ``share`` as strong as the
    signal at them, in some parts of the box more than in others.
    """
    s = spatial_frequencies(shape, np.full(3, voxel, np.float32))
    shells, centres, amplitude = _radial_profile(signal, s)
    amplitude = (amplitude * np.exp(-UNMODELLED_B * centres**2 / 4)).astype(np.float32)
    values = scipy.fft.irfftn(_white_noise(shape, rng) * amplitude[shells], s=shape)
    values *= np.exp(UNMODELLED_SPREAD * smooth_field(shape, rng))
    explained = scipy.fft.irfftn(signal, s=shape)
    strength = (explained[tuple(index.T[::-1])] - explained.mean()).std()
    room = np.clip(distance_to_atoms(index, shape) * voxel / UNMODELLED_FROM, 0, 1)
    values *= share * strength / max(values.std(), 1e-9) * room
    transform: np.ndarray = scipy.fft.rfftn(values.astype(np.float32))
    return transform


def simulate_density(
    atoms: Scatterers,
    shape: tuple[int, int, int],
    voxel: float,
    conditions: Conditions,
    rng: np.random.Generator,
    mask_atoms: np.ndarray | None = None,
) -> Float32[np.ndarray, "z y x"]:
    """Simulate the processed density of atoms in a box.

    Positions are Å from the centre of voxel (0, 0, 0); ``mask_atoms`` says which atoms hold
    the mask open (all of them when None).
    """
    field = smooth_field(shape, rng)
    positions = atoms.positions
    index = np.clip(np.rint(positions / voxel).astype(int), 0, np.array(shape[::-1]) - 1)
    local = field[index[:, 2], index[:, 1], index[:, 0]]
    b, occupancy = local_scattering(atoms, local, conditions, rng)
    signal = structure_factors(
        atoms,
        b,
        occupancy,
        shape,
        voxel,
        hydrogen=conditions.hydrogen,
        solvent=conditions.solvent,
    )
    if conditions.unmodelled > 0:
        signal += unmodelled_density(signal, index, shape, voxel, conditions.unmodelled, rng)
    density = process(signal, shape, voxel, conditions, rng)
    if conditions.mask == "none":
        # Detector and refinement leave slow undulations in unmasked maps.
        low = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 6, mode="wrap")
        density += low / low.std() * density.std() * np.float32(rng.uniform(0, 0.15))
        return density
    inside = positions if mask_atoms is None else positions[mask_atoms]
    mask = soft_mask(inside, shape, voxel, conditions.mask_radius, conditions.mask_edge)
    masked: np.ndarray = density * mask
    return masked
