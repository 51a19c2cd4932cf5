"""Where the windows of the C-alpha network lie: geometry, plan, solvent left out."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float32, Int64

from angelo.local_strength import LocalStrength
from angelo.solvent import BLOCK, find_solvent_blocks
from angelo.types import Density

#: Smallest windows that are tried, voxels: a network sees little of the whole in smaller ones.
SMALLEST_WINDOW = 48
#: What input channels may be.
INPUTS = ("density", "even_density", "local_deviation")


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """Geometry of the C-alpha network (bundle.json, section ``c_alpha``)."""

    inputs: tuple[str, ...]
    """Meaning of the input channels, of ``INPUTS``."""
    channels: tuple[str, ...]
    """Meaning of the output channels; one of them is "calpha"."""
    window: int
    """Edge of an input window, voxels."""
    step: int
    """Output voxels are this many input voxels apart."""
    start: float
    """Input voxel coordinate of output voxel 0, within a window."""
    margin: int
    """Outputs closer than this to a window's outermost voxels are not used, input voxels."""
    stride: int
    """Distance between windows, input voxels."""
    batch: int
    """Windows to a call of the network."""
    multiple: int | None = None
    """Windows may be smaller than ``window``: cubes of any multiple of this; None: they may
    not."""
    local_strength: LocalStrength | None = None
    """How "even_density" is made of the density; None where no input is that."""

    def __post_init__(self) -> None:
        if "calpha" not in self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels must be unique and hold calpha: {self.channels}")
        if unknown := set(self.inputs) - set(INPUTS):
            raise ValueError(f"unknown inputs {sorted(unknown)}")
        if ("even_density" in self.inputs) != (self.local_strength is not None):
            raise ValueError(
                "local_strength must come with the input even_density, and only so"
            )
        if min(self.window, self.step, self.stride, self.batch) < 1 or self.margin < 0:
            raise ValueError("window, step, stride and batch must be positive, margin not < 0")
        if self.multiple is not None and (self.multiple < 1 or self.window % self.multiple):
            raise ValueError(f"window {self.window} is no multiple of {self.multiple}")
        if self.stride % self.step or not self.step <= self.stride <= self.n_kept * self.step:
            raise ValueError(
                f"stride {self.stride} must be a multiple of step {self.step} and leave no gap "
                f"between the {self.n_kept} outputs that a window keeps"
            )

    @property
    def first_kept(self) -> int:
        """Index of the first output, along an axis, that lies outside the margin."""
        return max(0, int(np.ceil((self.margin - self.start) / self.step)))

    @property
    def n_kept(self) -> int:
        """Outputs along an axis that lie outside the margins."""
        last = np.floor((self.window - 1 - self.margin - self.start) / self.step)
        return max(0, int(last) - self.first_kept + 1)


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Where windows lie along one axis. Outputs count from the first one kept."""

    n_outputs: int
    """Output voxels that cover the map."""
    output_0: float
    """Input voxel coordinate of output 0 in the map."""
    first_outputs: Int64[np.ndarray, " w"]
    """First output that each window keeps."""
    corners: Int64[np.ndarray, " w"]
    """First input voxel of each window; negative in the padding before the map."""


def plan_axis(n: int, settings: WindowSettings) -> WindowPlan:
    """Windows that predict all ``n`` voxels of an axis.

    As few as the stride allows, spread evenly; a map that one window covers sits in its middle.
    """
    step, n_kept = settings.step, settings.n_kept
    # An output stands for the `step` voxels around it: half of them on each side.
    reach = (step - 1) / 2
    phase = (settings.start - reach) % step
    output_0 = reach + (phase - step if phase > 0 else 0)
    n_outputs = int(np.ceil((n - 1 - reach - output_0) / step)) + 1
    n_outputs = max(1, n_outputs)
    spare = n_outputs - n_kept
    if spare <= 0:
        first = np.array([spare // 2])
    else:
        n_windows = -(-spare * step // settings.stride) + 1
        first = np.round(np.linspace(0, spare, n_windows))
    first = first.astype(np.int64)
    # Whole numbers: output_0 differs from `start` by whole steps.
    corner_0 = round(output_0 - settings.start - settings.first_kept * step)
    return WindowPlan(n_outputs, output_0, first, corner_0 + first * step)


def find_solvent_windows(
    values_zyx: Float32[np.ndarray, "z y x"], plans: list[WindowPlan], settings: WindowSettings
) -> Bool[np.ndarray, "wz wy wx"]:
    """Windows whose kept outputs lie in solvent blocks only, see ``angelo.solvent``."""
    return ~_busy_windows(_busy_blocks(values_zyx), plans, settings)


def fit_windows(
    density: Density, settings: WindowSettings
) -> tuple[Density, WindowSettings, Bool[np.ndarray, "wz wy wx"]]:
    """Cut solvent away, and choose the size of windows with which the rest costs least.

    For networks that take windows of any size; else the map and settings stay as they are.

    Returns
    -------
    tuple
        Part of the map, at its place; settings for it; the windows to run, all that hold more
        than solvent.
    """
    is_busy = _busy_blocks(density.values_zyx)
    multiple = settings.multiple
    if multiple is None or settings.window < SMALLEST_WINDOW or not is_busy.any():
        plans = [plan_axis(n, settings) for n in density.values_zyx.shape]
        return density, settings, _busy_windows(is_busy, plans, settings)
    spans = [np.flatnonzero(is_busy.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    voxels = tuple(slice(part.start * BLOCK, part.stop * BLOCK) for part in box)
    corner = np.array([part.start for part in voxels[::-1]])
    part = Density(
        np.ascontiguousarray(density.values_zyx[voxels]),
        density.voxel_size,
        (density.origin + corner * density.voxel_size).astype(np.float32),
    )
    is_busy = is_busy[box]
    choices = []
    for window in range(settings.window, SMALLEST_WINDOW - 1, -multiple):
        smaller = touching(settings, window, settings.margin)
        plans = [plan_axis(n, smaller) for n in part.values_zyx.shape]
        choices.append((smaller, _busy_windows(is_busy, plans, smaller)))
    best, wanted = min(choices, key=lambda choice: choice[1].sum() * choice[0].window ** 3)
    return part, best, wanted


def touching(settings: WindowSettings, window: int, margin: int) -> WindowSettings:
    """Windows of another size or margin that just touch with what they keep."""
    other = replace(settings, window=window, margin=margin, stride=settings.step)
    return replace(other, stride=other.n_kept * settings.step)


def _busy_blocks(values_zyx: Float32[np.ndarray, "z y x"]) -> Bool[np.ndarray, "bz by bx"]:
    """Blocks that are more than solvent, and those next to them: protein at a rim is kept."""
    is_busy = ~find_solvent_blocks(values_zyx)
    grown: np.ndarray = scipy.ndimage.binary_dilation(is_busy, np.ones((3, 3, 3), bool))
    return grown


def _busy_windows(
    is_busy: Bool[np.ndarray, "bz by bx"], plans: list[WindowPlan], settings: WindowSettings
) -> Bool[np.ndarray, "wz wy wx"]:
    """Windows with an output in one of the blocks."""
    spans = []
    for plan, n_blocks in zip(plans, is_busy.shape, strict=True):
        low = plan.output_0 + plan.first_outputs * settings.step
        high = low + (settings.n_kept - 1) * settings.step
        half = settings.step / 2
        first = np.clip((low - half) // BLOCK, 0, n_blocks - 1).astype(int)
        last = np.clip((high + half) // BLOCK, 0, n_blocks - 1).astype(int)
        spans.append([slice(a, b + 1) for a, b in zip(first, last, strict=True)])
    busy = [is_busy[block].any() for block in itertools.product(*spans)]
    return np.array(busy, bool).reshape([len(span) for span in spans])
