"""How a simulated map was recorded and processed, drawn at random. Lengths in Å."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

#: Largest B-factor along one direction, Å². Power of EMD-30342 from 5 to 4.2 Å differs by 4.5
#: times between directions (benchmarks/realism.md), as 64 would make it.
MOST_ANISOTROPY = 120.0
#: Noise of maps to train on relative to what the FSC implies, least and most; two to three
#: times as much makes maps like real ones (benchmarks/experiments.md).
TRAINING_NOISE = (0.6, 4.0)
#: Share of the maps to train on that hold density which no model explains
#: (benchmarks/experiments.md).
FLAWED_RATE = 0.5
#: Such density between atoms, relative to that at the atoms: mean and most.
MEAN_UNMODELLED, MOST_UNMODELLED = 0.2, 0.6
#: Share of the maps to train on with weak parts, and how weak they are, least and most;
#: EMD-5778 has such parts (benchmarks/experiments.md).
WEAK_RATE, WEAKNESS = 0.4, (0.3, 1.0)


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a map was recorded and processed. Drawn by ``draw_conditions``."""

    resolution: float
    """FSC = 0.143 resolution, Å."""
    fsc_width: float
    """Width of the logistic fall of the FSC, 1/Å."""
    fsc_end: float
    """Spatial frequency beyond which nothing is left but noise, relative to 1 / resolution:
    what refinement could not align."""
    noise: float
    """Factor on the noise that the FSC implies."""
    weighting: bool
    """Whether amplitudes are multiplied by the FSC figure of merit."""
    low_pass: float
    """Resolution of a soft low-pass filter, Å; 0 for none."""
    b_overall: float
    """Overall blurring (positive) or over-sharpening (negative), Å²."""
    b_scale: float
    """Factor on the differences between deposited B-factors."""
    local_b: float
    """Amplitude of a smooth random B-factor field (varying local resolution), Å²."""
    side_b: float
    """B-factor added with every bond between an atom and the backbone, on average, Å²."""
    exposed_b: float
    """B-factor that a deviation of exposure adds, Å²."""
    carboxylate: float
    """What the charged oxygens of Asp and Glu keep of their scattering, on average."""
    polar: float
    """What hydroxyl oxygens and side-chain nitrogens keep of it, on average."""
    sulphur: float
    """What sulphur keeps of its scattering (radiation damage)."""
    hydrogen: float
    """What hydrogens keep of the scattering of free atoms."""
    solvent: float
    """Scattering of the solvent that atoms displace, relative to vitreous ice."""
    mask: str
    """'none', 'loose', 'tight' or 'zone' (one chain only)."""
    mask_radius: float
    """Distance from the atoms at which the mask ends, Å."""
    mask_edge: float
    """Width of the soft edge, Å."""
    pixel: float
    """Pixel of the deposited map, Å: nothing lies beyond its Nyquist frequency."""
    magnification: float
    """Factor on all coordinates."""
    anisotropic_b: tuple[float, float]
    """B-factors lost along two random directions at right angles, Å²: particles prefer some
    orientations, and microscopes drift."""
    anisotropic_noise: float
    """What of these B-factors damps the noise as well: 0 to 1 (regularised reconstructions)."""
    unmodelled: float
    """Density between the atoms that no model explains, relative to that at them: solvent,
    lipids, other conformations, neighbours that were cut away."""
    weakness: float
    """How fast occupancies fall where B-factors are high: exp(-weakness x field), for a smooth
    random field of unit variance, where that is positive."""


class DrawConditions(Protocol):
    """``draw_conditions`` and its like."""

    def __call__(
        self,
        rng: np.random.Generator,
        resolution: float | None = None,
        *,
        mask: str | None = None,
    ) -> Conditions:
        """Draw conditions at random; a given resolution or mask is kept."""


def draw_conditions(
    rng: np.random.Generator, resolution: float | None = None, *, mask: str | None = None
) -> Conditions:
    """Random conditions; a given resolution or mask is kept."""
    if resolution is None:
        # Of most real maps of 3.2 to 3.4 Å no more residue types are found than of simulated
        # ones of 4 Å (benchmarks/calpha.md).
        resolution = float(
            rng.uniform(2.3, 4.6) if rng.random() < 0.85 else rng.uniform(4.6, 5.2)
        )
    if mask is None:
        mask = str(rng.choice(["none", "loose", "tight", "zone"], p=[0.35, 0.35, 0.15, 0.15]))
    radius = {"none": 0.0, "loose": rng.uniform(5, 12), "tight": rng.uniform(2.5, 4.5)}
    return Conditions(
        resolution=resolution,
        fsc_width=float(rng.uniform(0.012, 0.03)),
        fsc_end=float(rng.uniform(0.98, 1.06)),
        noise=float(rng.uniform(0.6, 1.3)),
        weighting=bool(rng.random() < 0.7),
        low_pass=float(resolution * rng.uniform(0.8, 1.05)) if rng.random() < 0.75 else 0.0,
        b_overall=float(rng.uniform(-30, 120)),
        b_scale=float(rng.uniform(0.2, 1.2)),
        local_b=float(rng.uniform(0, 60)),
        side_b=float(rng.uniform(5, 30)),
        exposed_b=float(rng.uniform(0, 25)),
        carboxylate=float(rng.uniform(0.2, 0.9)),
        polar=float(rng.uniform(0.6, 1.0)),
        sulphur=float(rng.uniform(0.5, 1.0)),
        hydrogen=float(rng.uniform(0.3, 1.0)),
        solvent=float(rng.uniform(0.3, 1.3)),
        mask=mask,
        mask_radius=float(radius.get(mask, 4.0)),
        mask_edge=float(rng.uniform(0.5, 5.0) if mask != "zone" else 0.5),
        pixel=float(rng.uniform(0.7, 1.4)),
        magnification=float(rng.uniform(0.98, 1.02)),
        anisotropic_b=(_anisotropy(rng), _anisotropy(rng)),
        anisotropic_noise=float(rng.uniform(0, 1)),
        unmodelled=0.0,
        weakness=0.0,
    )


def draw_training_conditions(
    rng: np.random.Generator, resolution: float | None = None, *, mask: str | None = None
) -> Conditions:
    """As ``draw_conditions``, but with more noise, some with density no model explains or weak.

    Real maps have all that (benchmarks/realism.md). Maps that networks are judged on have none
    of it, so that figures of one version compare with the next.
    """
    conditions = draw_conditions(rng, resolution, mask=mask)
    noise = float(np.exp(rng.uniform(*np.log(TRAINING_NOISE))))
    flawed = rng.random() < FLAWED_RATE
    share = min(rng.exponential(MEAN_UNMODELLED), MOST_UNMODELLED) if flawed else 0.0
    weakness = float(rng.uniform(*WEAKNESS)) if rng.random() < WEAK_RATE else 0.0
    return replace(conditions, noise=noise, unmodelled=float(share), weakness=weakness)


def _anisotropy(rng: np.random.Generator) -> float:
    """B-factor along a direction, Å²: mostly small, with a tail for maps like EMD-30342."""
    share = rng.exponential()
    return float(min(18 * share * (1 + (share / 3) ** 2), MOST_ANISOTROPY))
