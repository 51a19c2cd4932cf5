"""Weak parts of a map made stronger and strong ones weaker, so that both are searched alike."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.ndimage import gaussian_filter

from angelo.spectrum import contrast

#: Widest Gaussian, Å: parts of a map are smaller.
MOST_SIGMA = 100.0


@dataclass(frozen=True, slots=True)
class LocalStrength:
    """How far the strength of a map is evened out.

    Gains are those before the whole map is scaled back to the contrast that it had.
    """

    sigma: float
    """Width of the Gaussian under which strength is measured, Å; at most 100."""
    reference: float
    """Strength whose gain is 1, relative to the contrast of the map."""
    power: float
    """Gain is strength to minus this. 1: all places become equally strong; 0: the map stays as
    it is."""
    least_gain: float
    """What is stronger than this gain would allow for has it all the same."""
    most_gain: float
    """The same for what is weaker, such as what a mask left empty."""

    def __post_init__(self) -> None:
        if not (0 < self.sigma <= MOST_SIGMA and self.reference > 0 and 0 <= self.power <= 1):
            raise ValueError(
                f"sigma must be in (0, {MOST_SIGMA:g}] Å, reference positive, power in [0, 1]: "
                f"{self}"
            )
        if not 0 < self.least_gain <= self.most_gain:
            raise ValueError(f"gains must be positive, least_gain the smaller one: {self}")


def even_out(
    values_zyx: Float32[np.ndarray, "z y x"],
    voxel_size: Float32[np.ndarray, "3"],
    settings: LocalStrength,
) -> Float32[np.ndarray, "z y x"]:
    """Multiply a normalised map by a gain that falls with its strength around each voxel.

    Strength is the root mean square under a Gaussian. The contrast stays what it is. A map of
    zeros stays one. Voxel size in Å, in x, y, z order.
    """
    before = contrast(values_zyx)
    if not before > 0:
        return values_zyx
    sigma = settings.sigma / voxel_size[::-1].astype(np.float64)
    # In place wherever that is possible: maps may have 10^8 voxels.
    strength = np.square(values_zyx)
    gaussian_filter(strength, sigma, output=strength)
    np.sqrt(strength, out=strength)
    strength /= np.float32(settings.reference * before)
    # What has nothing around it gets the most gain.
    np.maximum(strength, np.finfo(np.float32).tiny, out=strength)
    gain = np.power(strength, np.float32(-settings.power), out=strength)
    np.clip(gain, settings.least_gain, settings.most_gain, out=gain)
    evened: np.ndarray = np.multiply(gain, values_zyx, out=gain)
    evened *= np.float32(before / contrast(evened))
    return evened
