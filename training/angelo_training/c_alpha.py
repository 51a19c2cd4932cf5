"""Training of the compact C-alpha network on whole simulated boxes."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_training.box_stream import StreamSettings
from angelo_training.crops import Crop, make_numbered_crops, stream_crops
from angelo_training.precision import autocast_for, torch_device
from angelo_training.run_log import CurveLog
from angelo_training.run_state import RunState
from angelo_training.schedule import Budget

logger = logging.getLogger(__name__)

#: A cell this close to a C-alpha is positive, Å.
POSITIVE_RADIUS = 1.9
#: Offsets and the rest are learned within this distance of a C-alpha, Å.
VECTOR_RADIUS = 2.4
#: Weights of the loss terms.
WEIGHTS = {"calpha": 0.5, "offset": 0.5, "direction": 0.4, "amino_acid": 0.4}
WEIGHT_DECAY = 0.02
#: Crops without protein count as if they held this many cells near C-alphas.
FEWEST_CELLS = 200
#: Orientations learned of each simulated box, in steps that lie apart.
TURNS = 2
#: Boxes that are simulated before any of them is learned, so that orientations lie apart.
POOL = 16
#: Boxes of the ``val`` split judged at every check, with their resolutions.
CHECK_RESOLUTIONS = (2.5, 3.0, 3.5, 3.0, 2.5, 3.0, 3.5, 3.0)


@dataclass(frozen=True, slots=True)
class CalphaRun:
    """What a training run needs to know."""

    structures: Path
    """Packed structures."""
    out: Path
    """Run folder: ``checkpoint.pt``, ``curves.csv``, ``weights.pt``."""
    budget: Budget
    """When to stop; the learning rate follows the share of it that is spent."""
    start_from: Path | None = None
    """Weight file to start from, where the folder has no checkpoint."""
    seed: int = 0
    """Same seed, same boxes."""
    side: int = 64
    """Of a box, voxels of 1 Å."""
    batch: int = 2
    """Boxes of a step."""
    rate: float = 1e-3
    """Highest learning rate."""
    workers: int = 1
    """Processes that simulate boxes; 0: the training process itself."""
    device: str = "cpu"
    """Torch device."""
    check_every: int = 300
    """Steps between rows of the curves, and between checkpoints."""
    config: CompactCalphaConfig = field(default_factory=CompactCalphaConfig)


@dataclass(frozen=True, slots=True)
class Batch:
    """Crops as tensors; rows of the labels are cells near C-alphas, over the whole batch."""

    density: Tensor
    distance: Tensor
    near: Tensor
    vectors: Tensor
    amino_acid: Tensor


def batch_of(crops: list[Crop], device: str) -> Batch:
    """Stack crops on the device."""
    cells = crops[0].distance.size
    near = np.concatenate([crop.near + i * cells for i, crop in enumerate(crops)])
    columns = (
        np.stack([crop.density for crop in crops])[:, None],
        np.stack([crop.distance for crop in crops]).reshape(-1),
        near,
        np.concatenate([crop.vectors for crop in crops]),
        np.concatenate([crop.amino_acid for crop in crops]),
    )
    density, *labels = (torch.from_numpy(column).to(device) for column in columns)
    return Batch(density.float(), *labels)


def rows_of(output: Tensor) -> Tensor:
    """Channels of every cell of the batch, (cells, K)."""
    return output.movedim(1, -1).reshape(-1, output.shape[1])


def losses(rows: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Loss terms, each a sum over cells for one cell near a C-alpha."""
    positive = (batch.distance < POSITIVE_RADIUS).float()
    close = batch.distance[batch.near] < VECTOR_RADIUS
    count = close.sum().clamp(min=FEWEST_CELLS)
    near = rows[batch.near[close]]
    off = functional.smooth_l1_loss(near[:, 1:10], batch.vectors[close], reduction="none")
    found = functional.binary_cross_entropy_with_logits(rows[:, 0], positive, reduction="sum")
    kinds = functional.cross_entropy(near[:, 10:], batch.amino_acid[close], reduction="sum")
    return {
        "calpha": found / count,
        "offset": off[:, :3].sum() / count,
        "direction": off[:, 3:].sum() / count,
        "amino_acid": kinds / count,
    }


@torch.no_grad()
def check(network: CompactCalpha, crops: list[Crop], device: str) -> dict[str, float]:
    """Losses and plain figures on fixed ``val`` crops."""
    sums: dict[str, list[float]] = {}
    for crop in crops:
        batch = batch_of([crop], device)
        with autocast_for(torch.device(device)):
            rows = rows_of(network(batch.density).float())
        figures = {name: float(term) for name, term in losses(rows, batch).items()}
        core = batch.distance[batch.near] < 1.0
        near, truth = rows[batch.near[core]], batch.vectors[core]
        right = near[:, 10:].argmax(1) == batch.amino_acid[core]
        figures["amino_acid_right"] = float(right.float().mean())
        figures["offset_error"] = float((near[:, 1:4] - truth[:, :3]).norm(dim=1).mean())
        cosine = functional.cosine_similarity(near[:, 7:10], truth[:, 6:9])
        figures["cosine_c"] = float(cosine.mean())
        for name, figure in figures.items():
            sums.setdefault(name, []).append(figure)
    return {f"val_{name}": float(np.nanmean(column)) for name, column in sums.items()}


def train_calpha(run: CalphaRun) -> None:
    """Train until the budget is spent; goes on from ``out/checkpoint.pt`` where there is one.

    Raises
    ------
    StructuresError
        If the packed structures cannot be used.
    CheckpointError
        If the checkpoint or the file to start from is damaged or of another network.
    DeviceError
        If the device is not here.
    """
    device = torch_device(run.device)
    torch.manual_seed(run.seed)
    network = CompactCalpha(run.config).to(device)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    state = RunState(
        network,
        asdict(run.config),
        run.out,
        run.budget,
        rate=run.rate,
        weight_decay=WEIGHT_DECAY,
        start_from=run.start_from,
    )
    judged = StreamSettings(run.structures, run.side, split="val", seed=1, protein_only=True)
    checked = [
        make_numbered_crops(judged, i, 1, resolution)[0]
        for i, resolution in enumerate(CHECK_RESOLUTIONS)
    ]
    batches = _batches(run, state.step)
    running: dict[str, list[float]] = {}
    state.start_clock()
    with CurveLog(run.out / "curves.csv", step=state.step) as log:
        while not state.is_over:
            rate = state.present_rate()
            for name, term in _learn(
                state, network, batch_of(next(batches), run.device)
            ).items():
                running.setdefault(name, []).append(term)
            if state.step % run.check_every == 0:
                with state.average.swapped_in(network):
                    figures = check(network, checked, run.device)
                figures |= {name: float(np.mean(column)) for name, column in running.items()}
                running.clear()
                log.append(state.step, figures | {"rate": rate})
                logger.info("step %d: %s", state.step, figures)
                state.save()
    state.save()


def _learn(state: RunState, network: CompactCalpha, batch: Batch) -> dict[str, float]:
    """Take one step; the loss terms before it."""
    with autocast_for(batch.density.device):
        output = network(batch.density)
    terms = losses(rows_of(output.float()), batch)
    loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    state.take_step()
    return {name: term.detach().item() for name, term in terms.items()}


def _batches(run: CalphaRun, n_steps: int) -> Iterator[list[Crop]]:
    """Endless batches from the ``train`` split, after those that a resumed run has seen.

    ``POOL`` boxes in ``TURNS`` orientations are learned in random order, then the next ones.
    """
    settings = StreamSettings(run.structures, run.side, seed=run.seed)
    n_pool, n_seen = divmod(n_steps * run.batch, POOL * TURNS)
    boxes = stream_crops(settings, n_pool * POOL, turns=TURNS, workers=run.workers)
    batch: list[Crop] = []
    while True:
        pool = list(chain.from_iterable(islice(boxes, POOL)))
        order = np.random.default_rng([run.seed, n_pool, 2]).permutation(len(pool))
        for number in order[n_seen:]:
            batch.append(pool[number])
            if len(batch) == run.batch:
                yield batch
                batch = []
        n_pool, n_seen = n_pool + 1, 0
