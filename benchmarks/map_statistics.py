"""What a map is like as a whole, and around each residue: to compare real and simulated ones.

Maps have voxels of 1 Å, arrays are z, y, x, and atoms lie in Å from the centre of voxel
(0, 0, 0).
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Float64
from scipy.spatial import cKDTree
from scipy.stats import skew, spearmanr

from angelo.spectrum import shell_amplitudes, spatial_frequencies
from angelo_training.boxes import normalise
from angelo_training.conditions import Conditions, draw_conditions
from angelo_training.profile import load_spectrum
from angelo_training.scatterers import Scatterers
from angelo_training.simulate import distance_to_atoms, simulate_density

#: Shells whose power is compared by direction: name, and resolutions that bound them, Å.
SHELLS = (("5 to 4.2 Å", 4.2, 5.0), ("4 to 3.45 Å", 3.45, 4.0))
#: Amplitudes between these resolutions tell how fast they fall, Å.
FALL_FROM, FALL_TO = 8.0, 4.0
#: Voxels this close to an atom are of the model, Å; those from there to `AROUND` around it.
INSIDE, AROUND = 2.0, 4.0
#: Density below this share of the model's deviation is none.
EMPTY = 0.02
#: Percentiles of densities and of residues that are given.
LOW, MIDDLE, HIGH = 10, 50, 90
#: Resolution of the clean map that residues are compared with, Å.
CLEAN_RESOLUTION = 3.0
#: A residue is compared in voxels this close to one of its atoms, Å.
RESIDUE_RADIUS = 2.5


def amplitude_fall(values_zyx: Float32[np.ndarray, "z y x"]) -> float:
    """B-factor with which amplitudes fall from 8 to 4 Å, Å²; below that of others: sharpened.

    Slope of the logarithm of mean shell amplitudes over the squared frequency (Wilson, Nature
    150 (1942) 152), protein's own fall included. Not for normalised maps, which are all alike.
    """
    width = 0.005
    s = spatial_frequencies(values_zyx.shape, np.ones(3, np.float32))
    shells = (s / width).astype(np.int64)
    n_shells = int(shells.max()) + 1
    amplitude = shell_amplitudes(np.fft.rfftn(values_zyx), shells, n_shells)
    centre = (np.arange(n_shells) + 0.5) * width
    chosen = (centre > 1 / FALL_FROM) & (centre < 1 / FALL_TO) & (amplitude > 0)
    slope = np.polyfit(centre[chosen] ** 2, np.log(amplitude[chosen]), 1)[0]
    return float(-4 * slope)


def anisotropy(values_zyx: Float32[np.ndarray, "z y x"]) -> dict[str, float]:
    """Power along the weakest and the strongest direction of each shell, relative to its mean.

    Principal second moments of the power over the directions of spatial frequencies, times 3:
    all 1 where no direction is preferred.
    """
    power = np.abs(np.fft.fftn(values_zyx)) ** 2
    axes = [np.fft.fftfreq(n) for n in values_zyx.shape]
    frequency = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    length = np.linalg.norm(frequency, axis=-1)
    found = {}
    for name, low, high in SHELLS:
        shell = (length > 1 / high) & (length < 1 / low)
        direction = frequency[shell] / length[shell][:, None]
        weight = power[shell] / power[shell].sum()
        moments = 3 * np.einsum("i,ij,ik->jk", weight, direction, direction)
        weakest, _, strongest = np.linalg.eigvalsh(moments)
        found[f"power from {name}, weakest direction"] = float(weakest)
        found[f"power from {name}, strongest direction"] = float(strongest)
    return found


def statistics(
    values_zyx: Float32[np.ndarray, "z y x"],
    clean_zyx: Float32[np.ndarray, "z y x"],
    atoms: Scatterers,
) -> dict[str, float]:
    """Figures of a whole map that is not normalised yet, by what they are called.

    ``clean_zyx`` is the `clean_map` of the atoms.
    """
    normalised = normalise(values_zyx, load_spectrum())
    away = distance_to_atoms(atoms.positions, values_zyx.shape)
    inside, around = normalised[away < INSIDE], normalised[(away >= INSIDE) & (away < AROUND)]
    low, middle, high = np.percentile(inside, (LOW, MIDDLE, HIGH)) / inside.mean()
    poor, typical, good = np.nanpercentile(
        residue_correlations(normalised, clean_zyx, atoms), (LOW, MIDDLE, HIGH)
    )
    at = np.rint(atoms.positions).astype(int)[:, ::-1].clip(0, np.array(values_zyx.shape) - 1)
    return {
        "B-factor of the amplitudes, Å²": amplitude_fall(values_zyx),
        "density within 2 Å of atoms, 10th percentile": float(low),
        "density within 2 Å of atoms, median": float(middle),
        "density within 2 Å of atoms, 90th percentile": float(high),
        "density within 2 Å of atoms, skewness": float(skew(inside)),
        "density 2 to 4 Å from atoms, deviation": float(around.std() / inside.mean()),
        "voxels beyond 4 Å from atoms with next to no density, %": 100
        * empty_share(values_zyx, away),
        "rank correlation of density and deposited B-factors": float(
            spearmanr(normalised[tuple(at.T)], atoms.b_factors).statistic
        ),
        "residues' correlation with a clean map, 10th percentile": float(poor),
        "residues' correlation with a clean map, median": float(typical),
        "residues' correlation with a clean map, 90th percentile": float(good),
        **anisotropy(values_zyx),
    }


def empty_share(
    values_zyx: Float32[np.ndarray, "z y x"], away: Float64[np.ndarray, "z y x"]
) -> float:
    """Share of the voxels far from atoms that a mask has emptied, but for ripples."""
    is_far = away > AROUND
    if not is_far.any():
        return float("nan")
    limit = EMPTY * values_zyx[away < INSIDE].std()
    return float((np.abs(values_zyx[is_far]) < limit).mean())


def residue_correlations(
    normalised_zyx: Float32[np.ndarray, "z y x"],
    clean_zyx: Float32[np.ndarray, "z y x"],
    atoms: Scatterers,
) -> Float64[np.ndarray, " r"]:
    """Correlation of each residue's density with that of its model in a map without faults.

    Over the voxels around the residue; what local resolution, noise and errors of the model
    leave of it. NaN for residue numbers that have no atom in the map.

    Parameters
    ----------
    normalised_zyx
        As the networks see a map.
    clean_zyx
        The `clean_map` of the atoms.
    atoms
        Their residues count from 0; atoms of residue -1 are in the clean map alone.
    """
    n_residues = int(atoms.residue.max(initial=-1)) + 1
    found = np.full(n_residues, np.nan)
    upper = np.array(normalised_zyx.shape[::-1]) - 1
    reach = int(np.ceil(RESIDUE_RADIUS))
    for r in range(n_residues):
        mine = atoms.positions[atoms.residue == r]
        if len(mine) == 0:
            continue
        low = np.clip(np.floor(mine.min(axis=0)).astype(int) - reach, 0, upper)
        high = np.clip(np.ceil(mine.max(axis=0)).astype(int) + reach, 0, upper)
        box = np.stack(
            np.meshgrid(*(np.arange(a, b + 1) for a, b in zip(low, high, strict=True))), -1
        ).reshape(-1, 3)
        box = box[cKDTree(mine).query(box)[0] < RESIDUE_RADIUS]
        if len(box) > 1:
            at = tuple(box[:, ::-1].T)
            found[r] = np.corrcoef(normalised_zyx[at], clean_zyx[at])[0, 1]
    return found


def clean_map(
    atoms: Scatterers, shape_zyx: tuple[int, int, int]
) -> Float32[np.ndarray, "z y x"]:
    """Map without faults of the atoms, as the networks see one."""
    rng = np.random.default_rng(0)
    values_zyx = simulate_density(atoms, shape_zyx, 1.0, clean_conditions(), rng)
    return normalise(values_zyx, load_spectrum())


def clean_conditions() -> Conditions:
    """Return conditions of a map without noise, in which all atoms are equally well ordered."""
    drawn = draw_conditions(np.random.default_rng(0), CLEAN_RESOLUTION, mask="tight")
    faults = ("noise", "b_overall", "b_scale", "local_b", "side_b", "exposed_b")
    kept = dict.fromkeys(("carboxylate", "polar", "sulphur", "magnification", "pixel"), 1.0)
    return replace(drawn, **dict.fromkeys(faults, 0.0), **kept, anisotropic_b=(0.0, 0.0))
