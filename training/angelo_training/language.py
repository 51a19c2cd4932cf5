"""Train the small protein language model on masked residues.

References
----------
Rives et al. 2021, doi:10.1073/pnas.2016239118; Lin et al. 2023, doi:10.1126/science.ade2574.
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from angelo_export.networks.language import LanguageConfig, LanguageModel
from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training.checkpoints import load_checkpoint, save_checkpoint, start_from_weights
from angelo_training.precision import autocast_for, torch_device
from angelo_training.run_log import CurveLog
from angelo_training.schedule import Budget, learning_rate
from angelo_training.sequence_data import (
    MASK,
    NO_TARGET,
    Batch,
    draw_crops,
    held_out_batches,
    mask_residues,
    read_corpora,
    unigram_scores,
)

logger = logging.getLogger(__name__)

#: Seed of the crops and masks of held-out sequences, the same for every run.
HELD_OUT_SEED = 20_220_930
#: Held-out sequences scored during training; all are at its end.
N_HELD_OUT_DURING = 256
#: Held-out sequences per forward pass.
HELD_OUT_BATCH = 32
#: Longest gradient, in its norm over all parameters, that a step follows in full.
MAX_GRADIENT = 1.0

#: Called with a step and its row of the curves.
Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, slots=True)
class LanguageTraining:
    """How to train the language model."""

    sequences: Path
    """FASTA file, plain or gzipped."""
    out: Path
    """Run folder: ``checkpoint.pt``, ``curves.csv``, ``weights.pt``, ``summary.json``."""
    budget: Budget
    """When to stop; the learning rate follows the share of it that is spent."""
    layers: int = 4
    """Transformer layers."""
    width: int = 128
    """Channels of an embedding."""
    heads: int = 4
    """Attention heads."""
    batch_tokens: int = 2048
    """Tokens of a batch, padding included."""
    crop: int = 256
    """Longest piece of a sequence, residues."""
    learning_rate: float = 3e-3
    """Highest learning rate."""
    weight_decay: float = 0.05
    """AdamW's decay, of matrices only."""
    evaluate_every: int = 250
    """Steps between held-out scores, and between checkpoints."""
    log_every: int = 25
    """Steps that a row of the curves is the mean of."""
    seed: int = 0
    """Same seed, same batches; with a step budget also the same weights on one machine."""
    threads: int = 0
    """CPU threads; 0: torch's choice."""
    device: str = "cpu"
    """Torch device."""
    start_from: Path | None = None
    """Weight file to start from, where the folder has no checkpoint."""

    def __post_init__(self) -> None:
        _ = self.network  # refuses sizes that do not go together

    @property
    def network(self) -> LanguageConfig:
        """Sizes of the network."""
        return LanguageConfig(self.layers, self.width, self.heads)

    def identity(self) -> dict[str, Any]:
        """Return what a resumed run must share with the run it continues."""
        free = {"sequences", "out", "budget", "evaluate_every", "log_every"}
        free |= {"threads", "device", "start_from"}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(slots=True)
class Tally:
    """Running score over predicted residues."""

    loss: float = 0.0
    """Sum over targets, nats."""
    n_targets: int = 0
    """Residues that were to be predicted."""
    n_masked: int = 0
    """Those of them that could not be seen."""
    n_right: int = 0
    """Those of the masked that were predicted right."""

    def add(self, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        """Count one batch, its loss being the sum over its targets."""
        is_masked = batch.inputs == MASK
        is_right = logits.argmax(dim=-1).cpu().numpy() == batch.targets
        self.loss += loss.item()
        self.n_targets += batch.n_targets
        self.n_right += int((is_right & is_masked).sum())
        self.n_masked += int(is_masked.sum())

    @property
    def mean_loss(self) -> float:
        """Nats per target."""
        return self.loss / max(self.n_targets, 1)

    @property
    def accuracy(self) -> float:
        """Fraction of masked residues predicted right."""
        return self.n_right / max(self.n_masked, 1)

    def named(self, prefix: str) -> dict[str, float]:
        """Perplexity and accuracy under names for curves and summaries."""
        perplexity = math.exp(self.mean_loss)
        return {f"{prefix}_perplexity": perplexity, f"{prefix}_accuracy": self.accuracy}


class LanguageRun:
    """One run: its network, optimizer and sequences, at some step."""

    def __init__(self, config: LanguageTraining) -> None:
        """Read the sequences; start afresh or from the run folder's checkpoint."""
        device = torch_device(config.device)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.training, self.held_out = read_corpora(config.sequences)
        torch.manual_seed(config.seed)
        self.model = LanguageModel(config.network).to(device)
        self.optimizer = _optimizer(self.model, config)
        self.step = self._resume()
        self.seconds = 0.0

    @property
    def checkpoint(self) -> Path:
        """Where the run can be taken up again."""
        return self.config.out / "checkpoint.pt"

    def train(self, on_step: Progress | None = None) -> None:
        """Train until the budget is spent."""
        config, tally = self.config, Tally()
        batches = self._held_out_batches()[: N_HELD_OUT_DURING // HELD_OUT_BATCH]
        with CurveLog(config.out / "curves.csv", step=self.step) as log:
            while not config.budget.is_spent(self.step, log.seconds):
                share = config.budget.share(self.step, log.seconds)
                rate = learning_rate(config.learning_rate, self.step, share)
                self.learn(rate, tally)
                evaluates = self.step % config.evaluate_every == 0
                if evaluates or self.step % config.log_every == 0:
                    row = {"learning_rate": rate, "loss": tally.mean_loss}
                    row["accuracy"] = tally.accuracy
                    if evaluates:
                        row |= score(self.model, batches).named("held_out")
                        logger.info("step %d: %s", self.step, row)
                    log.append(self.step, row)
                    tally = Tally()
                    if evaluates:
                        self._save()
                    if on_step is not None:
                        on_step(self.step, row)
            self.seconds = log.seconds
        self._save()

    def learn(self, rate: float, tally: Tally) -> None:
        """Take one step on a batch that seed and step alone decide."""
        rng = np.random.default_rng([self.config.seed, self.step])
        crops = draw_crops(
            self.training, rng, tokens=self.config.batch_tokens, crop=self.config.crop
        )
        batch = mask_residues(crops, rng)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, logits = _predict(self.model, batch)
        if not loss.isfinite():
            raise FloatingPointError(f"loss is {loss.item()} at step {self.step}")
        self.optimizer.zero_grad()
        (loss / max(batch.n_targets, 1)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
        self.optimizer.step()
        tally.add(loss, logits, batch)
        self.step += 1

    def finish(self) -> dict[str, Any]:
        """Write the weights and return what they score, as rounded in their file."""
        path = self.config.out / "weights.pt"
        save_weights(path, self.model, asdict(self.model.config))
        self.model.load_state_dict(load_weights(path)[0])
        batches = self._held_out_batches()
        loss, accuracy = unigram_scores(self.training, batches)
        return {
            "steps": self.step,
            "minutes": round(self.seconds / 60, 2),
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "training_sequences": len(self.training),
            "held_out_sequences": len(self.held_out),
            **score(self.model, batches).named("held_out"),
            "unigram_perplexity": math.exp(loss),
            "unigram_accuracy": accuracy,
            "settings": self.config.identity(),
        }

    def _held_out_batches(self) -> list[Batch]:
        return held_out_batches(
            self.held_out, seed=HELD_OUT_SEED, size=HELD_OUT_BATCH, crop=self.config.crop
        )

    def _save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            self.model,
            self.optimizer,
            step=self.step,
            config=self.config.identity(),
        )

    def _resume(self) -> int:
        """Restore the run folder's checkpoint and return its step; 0 if it has none."""
        if not self.checkpoint.exists():
            if self.config.start_from is not None:
                start_from_weights(self.model, self.config.start_from)
            return 0
        saved = load_checkpoint(self.checkpoint)
        now = self.config.identity()
        if changed := [name for name in now if saved.config.get(name) != now[name]]:
            raise CheckpointError(
                f"{self.checkpoint}: written by a run with another {', '.join(changed)}; "
                "give the same settings to continue it, or another --out"
            )
        saved.restore(self.model, self.optimizer)
        return saved.step


def train_language(config: LanguageTraining, on_step: Progress | None = None) -> None:
    """Train to the end of the budget, from the run folder's checkpoint if it has one.

    ``on_step`` gets the step and its row of the curves, after any checkpoint of the step is
    written.

    Raises
    ------
    SequenceError
        If the FASTA file cannot be used.
    CheckpointError
        If the run folder holds a checkpoint of a run with other settings.
    DeviceError
        If the device is not here.
    """
    run = LanguageRun(config)
    logger.info("%d sequences to train on, from step %d", len(run.training), run.step)
    run.train(on_step)
    summary = run.finish()
    (config.out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    logger.info("held-out perplexity %(held_out_perplexity).3f", summary)


def score(model: LanguageModel, batches: list[Batch]) -> Tally:
    """Predict the targets of batches, without learning from them."""
    model.eval()
    tally = Tally()
    with torch.no_grad():
        for batch in batches:
            tally.add(*_predict(model, batch), batch)
    model.train()
    return tally


def _predict(model: LanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Loss, nats, summed over the targets, and all logits."""
    device = model.embed_tokens.weight.device
    with autocast_for(device):
        logits = model.logits(torch.from_numpy(batch.inputs).to(device)).float()
    targets = torch.from_numpy(batch.targets).to(device)
    loss = functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, reduction="sum"
    )
    return loss, logits.detach()


def _optimizer(model: LanguageModel, config: LanguageTraining) -> Optimizer:
    """AdamW that decays matrices, not biases and norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def language_command(
    sequences: Annotated[Path, typer.Option(help="FASTA file, plain or gzipped.")],
    out: Annotated[Path, typer.Option(help="Run folder; continued if it has a checkpoint.")],
    layers: Annotated[int, typer.Option(min=1, help="Transformer layers.")] = 4,
    width: Annotated[int, typer.Option(min=8, help="Channels of an embedding.")] = 128,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads.")] = 4,
    steps: Annotated[int | None, typer.Option(min=1, help="Step budget.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Time budget.")] = None,
    batch_tokens: Annotated[int, typer.Option(min=64, help="Tokens of a batch.")] = 2048,
    learning_rate: Annotated[float, typer.Option(min=0, help="Highest rate.")] = 3e-3,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same run.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's choice.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    start_from: Annotated[Path | None, typer.Option(help="Weight file to start from.")] = None,
) -> None:
    """Train the protein language model on masked residues."""
    try:
        config = LanguageTraining(
            sequences=sequences,
            out=out,
            budget=Budget(steps, minutes),
            layers=layers,
            width=width,
            heads=heads,
            batch_tokens=batch_tokens,
            learning_rate=learning_rate,
            seed=seed,
            threads=threads,
            device=device,
            start_from=start_from,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    train_language(config)
