"""Weak parts of a map made stronger and strong ones weaker, so that both are searched alike."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter

from angelo.spectrum import contrast

#: Density nearer to 0 than this is outside of a mask.
OUTSIDE = 1e-6
#: Places with less of the map around them than this fraction count as if they had so much.
LEAST_INSIDE = 0.05


@dataclass(frozen=True, slots=True)
class LocalStrength:
    """How far the strength of a map is evened out."""

    sigma: float
    """Width of the Gaussian under which strength is measured, Å."""
    reference: float
    """Strength that is left as it is, relative to the contrast of the map."""
    power: float
    """1: all places become equally strong; 0: the map stays as it is."""
    least_gain: float
    most_gain: float


def even_out(
    values_zyx: Float32[np.ndarray, "z y x"],
    voxel_size: Float32[np.ndarray, "3"],
    settings: LocalStrength,
) -> Float32[np.ndarray, "z y x"]:
    """Multiply a normalised map by a gain that falls with its strength around each voxel.

    Strength is the root mean square under a Gaussian, over what is not outside of a mask. The
    contrast stays what it is. A map of zeros stays one. Voxel size in Å, in x, y, z order.
    """
    before = contrast(values_zyx)
    if not before > 0:
        return values_zyx
    sigma = settings.sigma / voxel_size[::-1].astype(np.float64)
    # In place wherever that is possible: maps may have 10^8 voxels.
    strength = np.square(values_zyx)
    gaussian_filter(strength, sigma, output=strength)
    inside = ((values_zyx > OUTSIDE) | (values_zyx < -OUTSIDE)).astype(np.float32)
    gaussian_filter(inside, sigma, output=inside)
    strength /= np.maximum(inside, np.float32(LEAST_INSIDE), out=inside)
    del inside
    np.sqrt(strength, out=strength)
    strength /= np.float32(settings.reference * before)
    # What has nothing around it gets the most gain.
    np.maximum(strength, np.finfo(np.float32).tiny, out=strength)
    gain = np.power(strength, np.float32(-settings.power), out=strength)
    np.clip(gain, settings.least_gain, settings.most_gain, out=gain)
    evened: np.ndarray = np.multiply(gain, values_zyx, out=gain)
    evened *= np.float32(before / contrast(evened))
    return evened
