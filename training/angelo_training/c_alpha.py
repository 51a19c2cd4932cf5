"""Training of the compact C-alpha network on patches of simulated boxes."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_training.box_stream import StreamSettings
from angelo_training.patches import Patches, make_numbered_patches, stream_patches
from angelo_training.precision import autocast_for, torch_device
from angelo_training.run_log import CurveLog
from angelo_training.run_state import RunState
from angelo_training.schedule import Budget

logger = logging.getLogger(__name__)

#: A voxel this close to a C-alpha is positive, Å.
POSITIVE_RADIUS = 1.9
#: Offsets and the rest are learned within this distance of a C-alpha, Å.
VECTOR_RADIUS = 2.4
#: Weights of the loss terms.
WEIGHTS = {"calpha": 1.0, "offset": 0.5, "direction": 0.4, "amino_acid": 0.4}
WEIGHT_DECAY = 0.02
#: Draws from each simulated box, each in another orientation.
TURNS = 2
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
    """Same seed, same examples; with a step budget also the same weights on one machine."""
    side: int = 64
    """Of a box, voxels of 1 Å."""
    voxels: int = 3072
    """Drawn from a box at a time."""
    batch: int = 1024
    """Voxels of a step, about."""
    rate: float = 1e-3
    """Highest learning rate."""
    workers: int = 1
    """Processes that simulate boxes; 0: the training process itself."""
    device: str = "cpu"
    """Torch device."""
    check_every: int = 600
    """Steps between rows of the curves, and between checkpoints."""
    config: CompactCalphaConfig = field(default_factory=CompactCalphaConfig)


@dataclass(frozen=True, slots=True)
class Batch:
    """Patches as tensors."""

    fine: Tensor
    coarse: Tensor
    distance: Tensor
    vectors: Tensor
    amino_acid: Tensor


def batch_of(patches: Patches, rows: np.ndarray, device: str) -> Batch:
    """Bring some rows of the patches to the device, density in single precision."""
    columns = (
        patches.fine,
        patches.coarse,
        patches.distance,
        patches.vectors,
        patches.amino_acid,
    )
    fine, coarse, *labels = (torch.from_numpy(column[rows]).to(device) for column in columns)
    return Batch(fine.float(), coarse.float(), *labels)


def losses(output: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Loss terms; ``output`` (v, K) in the order of the network's channels."""
    positive = (batch.distance < POSITIVE_RADIUS).float()
    close = batch.distance < VECTOR_RADIUS
    count = close.sum().clamp(min=1)
    off = functional.smooth_l1_loss(output[:, 1:10], batch.vectors, reduction="none")
    off = off * close[:, None]
    kinds = functional.cross_entropy(output[:, 10:], batch.amino_acid, reduction="none")
    return {
        "calpha": functional.binary_cross_entropy_with_logits(output[:, 0], positive),
        "offset": off[:, :3].sum() / count,
        "direction": off[:, 3:].sum() / count,
        "amino_acid": (kinds * close).sum() / count,
    }


@torch.no_grad()
def check(network: CompactCalpha, draws: list[Patches], device: str) -> dict[str, float]:
    """Losses and plain figures on fixed ``val`` patches."""
    sums: dict[str, list[float]] = {}
    for patches in draws:
        batch = batch_of(patches, np.arange(len(patches.distance)), device)
        with autocast_for(torch.device(device)):
            output = network.forward_patches(batch.fine, batch.coarse).float()
        figures = {name: float(term) for name, term in losses(output, batch).items()}
        positive, said = batch.distance < POSITIVE_RADIUS, output[:, 0] > 0
        core = batch.distance < 1.0
        rows, truth = output[core], batch.vectors[core]
        figures["voxels_right"] = float((said == positive).float().mean())
        right = rows[:, 10:].argmax(1) == batch.amino_acid[core]
        figures["amino_acid_right"] = float(right.float().mean())
        figures["offset_error"] = float((rows[:, 1:4] - truth[:, :3]).norm(dim=1).mean())
        cosine = functional.cosine_similarity(rows[:, 7:10], truth[:, 6:9])
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
    state = RunState(
        network,
        asdict(run.config),
        run.out,
        run.budget,
        rate=run.rate,
        weight_decay=WEIGHT_DECAY,
        start_from=run.start_from,
    )
    per_draw = max(1, run.voxels // run.batch)
    check_draws = _check_draws(run)
    draws = _draws(run, state.step // per_draw)
    running: dict[str, list[float]] = {}
    state.start_clock()
    with CurveLog(run.out / "curves.csv", step=state.step) as log:
        while not state.is_over:
            patches = next(draws)
            shuffled = np.random.default_rng([run.seed, state.step, 1])
            order = shuffled.permutation(len(patches.distance))
            for rows in np.array_split(order, per_draw):
                batch = batch_of(patches, rows, run.device)
                rate = state.present_rate()
                for name, term in _learn(state, network, batch).items():
                    running.setdefault(name, []).append(term)
            if state.step % run.check_every < per_draw:
                with state.average.swapped_in(network):
                    figures = check(network, check_draws, run.device)
                figures |= {name: float(np.mean(column)) for name, column in running.items()}
                running.clear()
                log.append(state.step, figures | {"rate": rate})
                logger.info("step %d: %s", state.step, figures)
                state.save()
    state.save()


def _learn(state: RunState, network: CompactCalpha, batch: Batch) -> dict[str, float]:
    """Take one step; the loss terms before it."""
    with autocast_for(batch.fine.device):
        output = network.forward_patches(batch.fine, batch.coarse)
    terms = losses(output.float(), batch)
    loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    state.take_step()
    return {name: term.detach().item() for name, term in terms.items()}


def _check_draws(run: CalphaRun) -> list[Patches]:
    """Draws of the ``val`` split, the same in all runs."""
    judged = StreamSettings(run.structures, run.side, split="val", seed=1, protein_only=True)
    return [
        make_numbered_patches(judged, i, run.voxels, run.config, 1, resolution)[0]
        for i, resolution in enumerate(CHECK_RESOLUTIONS)
    ]


def _draws(run: CalphaRun, n_seen: int) -> Iterator[Patches]:
    """Endless draws from the ``train`` split, after those that a resumed run has seen."""
    settings = StreamSettings(run.structures, run.side, seed=run.seed)
    n_boxes, n_turns = divmod(n_seen, TURNS)
    draws = stream_patches(
        settings, n_boxes, run.voxels, run.config, turns=TURNS, workers=run.workers
    )
    return islice(draws, n_turns, None)
