"""Training of the compact C-alpha network on patches of simulated boxes."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.weights import load_weights, save_weights
from angelo_training.box_stream import StreamSettings
from angelo_training.checkpoints import load_checkpoint, save_checkpoint
from angelo_training.patches import Patches, make_numbered_patches, stream_patches
from angelo_training.precision import autocast_for
from angelo_training.run_log import CurveLog
from angelo_training.schedule import Budget, MovingAverage, learning_rate

#: A voxel this close to a C-alpha is positive, Å.
POSITIVE_RADIUS = 1.9
#: Offsets and the rest are learned within this distance of a C-alpha, Å.
VECTOR_RADIUS = 2.4
#: Weights of the loss terms.
WEIGHTS = {"calpha": 1.0, "offset": 0.5, "direction": 0.4, "amino_acid": 0.4}
#: Draws from each simulated box, each in another orientation.
TURNS = 2
#: Boxes of the ``val`` split judged at every check, with their resolutions.
CHECK_RESOLUTIONS = (2.5, 3.0, 3.5, 3.0, 2.5, 3.0, 3.5, 3.0)


@dataclass(frozen=True, slots=True)
class CalphaRun:
    """What a training run needs to know."""

    structures: Path
    out: Path
    budget: Budget
    start_from: Path | None = None
    seed: int = 0
    side: int = 64
    voxels: int = 3072
    """Drawn from a box at a time."""
    batch: int = 1024
    rate: float = 1e-3
    workers: int = 1
    device: str = "cpu"
    check_every: int = 600
    config: CompactCalphaConfig = CompactCalphaConfig()


@dataclass(frozen=True, slots=True)
class Batch:
    """Patches as tensors."""

    fine: Tensor
    coarse: Tensor
    distance: Tensor
    vectors: Tensor
    amino_acid: Tensor


def batch_of(patches: Patches, rows: np.ndarray, device: str) -> Batch:
    """Some rows of the patches, on the device; density in single precision."""
    columns = (patches.fine, patches.coarse, patches.distance, patches.vectors, patches.amino_acid)
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
    """Train until the budget is spent; goes on from ``out/checkpoint.pt`` where there is one."""
    torch.manual_seed(run.seed)
    network = CompactCalpha(run.config).to(run.device)
    average = MovingAverage(network)
    optimizer = torch.optim.AdamW(network.parameters(), run.rate, weight_decay=0.02)
    checkpoint, step, spent = run.out / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        saved.restore(network, optimizer)
        average.load(saved.extra["average"])
        step, spent = saved.step, saved.extra["seconds"]
    elif run.start_from is not None:
        network.load_state_dict(load_weights(run.start_from)[0])
        average = MovingAverage(network)
    settings = StreamSettings(run.structures, run.side, seed=run.seed)
    judged = StreamSettings(run.structures, run.side, split="val", seed=1, protein_only=True)
    check_draws = [
        make_numbered_patches(judged, i, run.voxels, run.config, 1, resolution)[0]
        for i, resolution in enumerate(CHECK_RESOLUTIONS)
    ]
    per_draw = max(1, run.voxels // run.batch)
    # A step is a batch; a checkpoint falls between draws, so that a resumed run sees the same.
    stream = stream_patches(
        settings, step // (per_draw * TURNS), run.voxels, run.config, turns=TURNS, workers=run.workers
    )
    log = CurveLog(run.out / "curves.csv", step=step)
    running: dict[str, list[float]] = {}
    started = time.monotonic()

    def save() -> None:
        extra = {"average": average.state, "seconds": spent + time.monotonic() - started}
        save_checkpoint(
            checkpoint, network, optimizer, step=step, config=asdict(run.config), extra=extra
        )
        with average.swapped_in(network):
            save_weights(run.out / "weights.pt", network, asdict(run.config))

    while not run.budget.is_spent(step, spent + time.monotonic() - started):
        patches = next(stream)
        order = np.random.default_rng([run.seed, step, 1]).permutation(len(patches.distance))
        for rows in np.array_split(order, per_draw):
            batch = batch_of(patches, rows, run.device)
            share = run.budget.share(step, spent + time.monotonic() - started)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(run.rate, step, share)
            with autocast_for(torch.device(run.device)):
                output = network.forward_patches(batch.fine, batch.coarse)
            terms = losses(output.float(), batch)
            loss = torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            average.update(network)
            step += 1
            for name, term in terms.items():
                running.setdefault(name, []).append(term.detach().item())
        if step % run.check_every < per_draw:
            with average.swapped_in(network):
                figures = check(network, check_draws, run.device)
            figures |= {name: float(np.mean(column)) for name, column in running.items()}
            running.clear()
            log.append(step, figures | {"rate": optimizer.param_groups[0]["lr"]})
            save()
    save()
    log.close()
