"""Windows for the C-alpha network: cut, run, stitch. Where they lie: `angelo.window_plan`."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float32, Int64
from scipy.special import expit

from angelo.local_strength import even_out
from angelo.types import Density
from angelo.window_plan import WindowPlan, WindowSettings, find_solvent_windows, plan_axis

log = logging.getLogger(__name__)

#: Half width and reach of the Gaussian of the local deviation, voxels and units of its width.
DEVIATION_RADIUS, DEVIATION_REACH = 10, 1.5
#: Windows that give a voxel less than this fraction of the threshold leave its channels alone.
RECORD_FRACTION = 0.25

#: Runs the network: windows (b, c, D, D, D) to logits (b, K, d, d, d), both float32.
Network = Callable[[np.ndarray], np.ndarray]
#: Told of finished and of all windows.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class VoxelPredictions:
    """Output voxels of the C-alpha network over the threshold."""

    positions: Float32[np.ndarray, "v 3"]
    """Centres of the output voxels, Å, map coordinates."""
    probability: Float32[np.ndarray, " v"]
    """That a C-alpha (or what else was asked for) is there, in [0, 1]."""
    channels: Float32[np.ndarray, "v k"]
    """The other output channels, as the network gives them."""
    names: tuple[str, ...]
    """Meaning of the columns of ``channels``."""

    def __len__(self) -> int:
        return len(self.probability)


def run_windows(
    density: Density,
    settings: WindowSettings,
    run: Network,
    threshold: float,
    progress: Progress | None = None,
    wanted: Bool[np.ndarray, "wz wy wx"] | None = None,
    inputs: Sequence[np.ndarray] | None = None,
) -> VoxelPredictions:
    """Predict C-alphas: :func:`predict_points` of that channel."""
    wants = ("calpha",)
    return predict_points(wants, density, settings, run, threshold, progress, wanted, inputs)[0]


def predict_points(
    targets: Sequence[str],
    density: Density,
    settings: WindowSettings,
    run: Network,
    threshold: float,
    progress: Progress | None = None,
    wanted: Bool[np.ndarray, "wz wy wx"] | None = None,
    inputs: Sequence[np.ndarray] | None = None,
) -> tuple[VoxelPredictions, ...]:
    """Predictions of the C-alpha network for every voxel of a map of any size.

    Zeros surround the map, so that its outermost voxels are predicted too. Where windows
    overlap, probabilities (not logits) are averaged before the threshold is applied; the other
    channels are means weighted with the probability. Windows of solvent are not run. Memory
    holds one layer of windows and what passes the threshold, never a dense result.

    Parameters
    ----------
    targets
        Channels that are logits of points; each gives predictions of its own.
    density
        As ``angelo.density.prepare_density`` returns it.
    run
        The network; the last batch may be short.
    threshold
        Only voxels with a higher probability are returned, in z, y, x order.
    wanted
        Windows to run, as ``plan_axis`` lays them; None: those that hold more than solvent.
    inputs
        What ``input_volumes`` makes of the density, of which only the grid is used then; None:
        made here.
    """
    plans = [plan_axis(n, settings) for n in density.values_zyx.shape]
    if wanted is None:
        wanted = ~find_solvent_windows(density.values_zyx, plans, settings)
    indices = [tuple(int(i) for i in index) for index in np.argwhere(wanted)]
    log.info("running %d of %d windows", len(indices), wanted.size)
    if inputs is None:
        inputs = input_volumes(density, settings)
    columns = [settings.channels.index(target) for target in targets]
    n_outputs = tuple(plan.n_outputs for plan in plans)
    sizes = (n_outputs, settings.n_kept, len(settings.channels) - 1, threshold)
    stitchers = [_Stitcher(*sizes) for _ in columns]
    kept = slice(settings.first_kept, settings.first_kept + settings.n_kept)
    for done in range(0, len(indices), settings.batch):
        batch = indices[done : done + settings.batch]
        logits = run(_cut(inputs, plans, batch, settings.window))[:, :, kept, kept, kept]
        for index, window in zip(batch, logits, strict=True):
            corner = tuple(int(p.first_outputs[i]) for p, i in zip(plans, index, strict=True))
            for column, stitcher in zip(columns, stitchers, strict=True):
                stitcher.add(corner, expit(window[column]), np.delete(window, column, axis=0))
        if progress is not None:
            progress(done + len(batch), len(indices))
    output_0 = np.array([plan.output_0 for plan in plans])
    predictions = []
    for target, stitcher in zip(targets, stitchers, strict=True):
        flat, probability, channels = stitcher.finish()
        outputs_zyx = np.stack(np.unravel_index(flat, n_outputs), axis=-1)
        voxels_zyx = outputs_zyx * settings.step + output_0
        positions = (density.origin + density.voxel_size * voxels_zyx[:, ::-1]).astype("f4")
        others = tuple(name for name in settings.channels if name != target)
        predictions.append(VoxelPredictions(positions, probability, channels, others))
    return tuple(predictions)


def local_deviation(values_zyx: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "z y x"]:
    """Local standard deviation under a Gaussian window, divided by its maximum.

    Weights are exp(-t²) over 21 voxels, t from -1.5 to 1.5; the map is 0 outside.
    """
    ticks = np.linspace(-DEVIATION_REACH, DEVIATION_REACH, 2 * DEVIATION_RADIUS + 1)
    weights = np.exp(-(ticks**2))
    weights /= weights.sum()

    def smooth(volume: np.ndarray) -> np.ndarray:
        for axis in range(3):
            volume = scipy.ndimage.correlate1d(volume, weights, axis, mode="constant")
        return volume

    variance = smooth(values_zyx**2)
    variance -= smooth(values_zyx) ** 2
    deviation: np.ndarray = np.sqrt(np.maximum(variance, 0, out=variance), out=variance)
    # Parity: the reference adds the same constant.
    deviation /= deviation.max() + np.float32(1e-6)
    return deviation


def input_volumes(
    density: Density, settings: WindowSettings
) -> list[Float32[np.ndarray, "z y x"]]:
    """Return the input channels over the whole map, in the order of the settings."""
    values = density.values_zyx
    makers = {"density": lambda: values, "local_deviation": lambda: local_deviation(values)}
    if (strength := settings.local_strength) is not None:
        makers["even_density"] = lambda: even_out(values, density.voxel_size, strength)
    return [makers[name]() for name in settings.inputs]


def _cut(
    inputs: Sequence[np.ndarray],
    plans: list[WindowPlan],
    indices: list[tuple[int, ...]],
    window: int,
) -> Float32[np.ndarray, "b c z y x"]:
    """Windows out of the input volumes, zeros outside the map."""
    cut = np.zeros((len(indices), len(inputs), window, window, window), np.float32)
    for b, index in enumerate(indices):
        source, target = [], []
        for plan, i, n in zip(plans, index, inputs[0].shape, strict=True):
            corner = int(plan.corners[i])
            low, high = max(0, corner), min(n, corner + window)
            source.append(slice(low, high))
            target.append(slice(low - corner, high - corner))
        for c, volume in enumerate(inputs):
            cut[b, c][tuple(target)] = volume[tuple(source)]
    return cut


class _Stitcher:
    """Averages windows that arrive in z order; dense only in the layer at work.

    Planes are numbered as the outputs of the whole map; the layer holds ``n_kept`` of them.
    """

    def __init__(
        self, n_outputs: tuple[int, ...], n_kept: int, n_channels: int, threshold: float
    ) -> None:
        self._shape = n_outputs
        self._threshold = threshold
        self._n_channels = n_channels
        self._first_plane = 0
        layer = (min(n_kept, n_outputs[0]), *n_outputs[1:])
        self._sum = np.zeros(layer, np.float32)
        self._count = np.zeros(layer, np.uint16)
        self._records: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._finished: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(self, corner: tuple[int, ...], probability: np.ndarray, others: np.ndarray) -> None:
        """Add a window whose first kept output is ``corner`` (may stick out of the map)."""
        low = np.maximum(corner, 0)
        high = np.minimum(np.add(corner, len(probability)), self._shape)
        z, y, x = (slice(a, b) for a, b in zip(low - corner, high - corner, strict=True))
        probability, others = probability[z, y, x], others[:, z, y, x]
        if low[0] > self._first_plane:
            self._finish_planes(int(low[0]))
        base = (self._first_plane, 0, 0)
        here = tuple(slice(a, b) for a, b in zip(low - base, high - base, strict=True))
        self._sum[here] += probability
        self._count[here] += 1
        chosen = np.nonzero(probability > RECORD_FRACTION * self._threshold)
        at = tuple(axis + offset for axis, offset in zip(chosen, low, strict=True))
        weight = probability[chosen]
        values = others.transpose(1, 2, 3, 0)[chosen] * weight[:, None]
        self._records.append((np.ravel_multi_index(at, self._shape), weight, values))

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flat output index, probability and channels of all voxels over the threshold."""
        self._finish_planes(self._shape[0])
        none = np.zeros((0, self._n_channels), np.float32)
        parts = [(np.zeros(0, np.int64), none.sum(1), none), *self._finished]
        flat, probability, others = (np.concatenate(p) for p in zip(*parts, strict=True))
        return flat, probability, others

    def _finish_planes(self, stop: int) -> None:
        """Finish planes below ``stop`` and move the layer up to start there."""
        n_done = min(stop - self._first_plane, len(self._sum))
        mean = self._sum[:n_done] / np.maximum(self._count[:n_done], 1)
        plane_size = self._shape[1] * self._shape[2]
        over = np.flatnonzero(mean > self._threshold)
        flat = over + self._first_plane * plane_size
        if flat.size:
            self._finished.append((flat, mean.ravel()[over], self._mean_channels(flat)))
        boundary = stop * plane_size
        kept = [r[0] >= boundary for r in self._records]
        self._records = [
            (at[mask], weight[mask], values[mask])
            for mask, (at, weight, values) in zip(kept, self._records, strict=True)
            if mask.any()
        ]
        for layer in (self._sum, self._count):
            layer[: len(layer) - n_done] = layer[n_done:].copy()
            layer[len(layer) - n_done :] = 0
        self._first_plane = stop

    def _mean_channels(self, flat: Int64[np.ndarray, " v"]) -> Float32[np.ndarray, "v k"]:
        """Probability-weighted means over the recorded windows; ``flat`` is sorted."""
        weights = np.zeros(len(flat), np.float32)
        sums = np.zeros((len(flat), self._n_channels), np.float32)
        for at, weight, values in self._records:
            row = np.minimum(np.searchsorted(flat, at), len(flat) - 1)
            found = flat[row] == at
            # No index occurs twice within a window, so that plain indexing adds correctly.
            weights[row[found]] += weight[found]
            sums[row[found]] += values[found]
        return sums / np.maximum(weights, np.finfo(np.float32).tiny)[:, None]
