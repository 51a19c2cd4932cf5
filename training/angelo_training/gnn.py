"""Training of the compact graph network on points that the C-alpha network found."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from angelo.frames import IDEAL_BACKBONE, update_frames
from angelo.neighbours import nearest_residues
from angelo.residues import AMINO_ACIDS, pi_periodic_torsions
from angelo.sampling import sample_cubes, sample_edge_rectangles
from angelo.types import BackboneFrames
from angelo_export.networks.blocks import rotations_from_backbone
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.gnn import LayerOutput
from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageModel
from angelo_training.all_atom import atom_error, pick_torsions, place_atoms
from angelo_export.weights import load_weights, save_weights
from angelo_training.box_stream import StreamSettings
from angelo_training.checkpoints import load_checkpoint, save_checkpoint
from angelo_training.graph_boxes import (
    GraphBox,
    GraphStreamSettings,
    make_graph_box,
    stream_graph_boxes,
)
from angelo_training.precision import autocast_for
from angelo_training.run_log import CurveLog
from angelo_training.schedule import Budget, MovingAverage, learning_rate

#: Weights of the loss terms.
WEIGHTS = {
    "calpha": 1.0,
    "backbone": 1.0,
    "amino_acid": 0.6,
    "error": 0.2,
    "existence": 0.5,
    "next": 4.0,
    "torsion": 0.4,
    "atoms": 0.4,
}
#: Errors beyond this pull no harder, Å.
FAR = 3.0
#: Predicted error that false points should get, Å.
FALSE_ERROR = 3.0
#: Chance that a step sees no sequence, and residues of sequence a step may see.
NO_SEQUENCE_RATE, MOST_SEQUENCE = 0.1, 2000
#: Boxes of the ``val`` split judged at every check, with their resolutions.
CHECK_RESOLUTIONS = (2.5, 3.0, 3.5, 3.0, 3.0, 2.5, 3.5, 3.0)


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What a training run needs to know."""

    structures: Path
    calpha_weights: Path
    language_weights: Path
    out: Path
    budget: Budget
    start_from: Path | None = None
    seed: int = 0
    side: int = 72
    rate: float = 8e-4
    accumulate: int = 2
    workers: int = 1
    device: str = "cpu"
    check_every: int = 250
    config: CompactGraphConfig = CompactGraphConfig()


class Embedder:
    """The frozen language model: sequences -> embeddings, remembered while memory is small."""

    def __init__(self, weights: Path, device: str) -> None:
        state, config = load_weights(weights)
        self.model = LanguageModel(LanguageConfig(**config)).to(device).eval()
        self.model.load_state_dict(state)
        self.device = device
        self.width = int(config["width"])
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, sequence: str) -> Tensor:
        """(residues, channels), without the special tokens."""
        if sequence not in self._known:
            if len(self._known) > 3000:
                self._known.clear()
            letters = [ALPHABET.index(c) for c in sequence]
            tokens = [ALPHABET.index("<cls>"), *letters, ALPHABET.index("<eos>")]
            embedded = self.model(torch.tensor([tokens], device=self.device))
            self._known[sequence] = embedded[0, 1:-1].float().cpu()
        return self._known[sequence].to(self.device)


def embed_entry(
    embedder: Embedder, sequences: tuple[str, ...], rng: np.random.Generator | None
) -> Tensor:
    """Embeddings of an entry's sequences in random order, sometimes none of them."""
    order = np.arange(len(sequences)) if rng is None else rng.permutation(len(sequences))
    chosen, total = [], 0
    dropped = rng is not None and rng.random() < NO_SEQUENCE_RATE
    for index in () if dropped else order:
        total += len(sequences[index])
        if total > MOST_SEQUENCE and chosen:
            break
        chosen.append(embedder(sequences[index][:MOST_SEQUENCE]))
    if not chosen:
        return torch.zeros(0, embedder.width, device=embedder.device)
    return torch.cat(chosen)


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels of a box as tensors; see ``GraphBox``."""

    is_residue: Tensor
    backbone: Tensor
    kinds: Tensor
    follows: Tensor
    torsions: Tensor
    has_torsion: Tensor
    atoms: Tensor
    has_atom: Tensor


def truth_of(box: GraphBox, device: str) -> Truth:
    """Labels to the device."""
    arrays = (
        box.is_residue,
        box.backbone,
        box.residue_type,
        box.follows,
        box.torsions,
        box.has_torsion,
        box.atoms,
        box.has_atom,
    )
    return Truth(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


#: Called after each layer: its output, the frames it started from, its neighbours.
AfterLayer = Callable[[LayerOutput, BackboneFrames, np.ndarray], None]


def run_layers(
    network: CompactGraph, box: GraphBox, embedding: Tensor, device: str, after: AfterLayer
) -> tuple[Tensor, BackboneFrames]:
    """All layers as the runtime runs them; final torsions and frames."""
    config = network.config
    calphas = box.calphas
    assert calphas.rotation is not None
    assert calphas.aa_logits is not None
    frames = BackboneFrames(calphas.rotation, calphas.positions)
    start = np.concatenate([calphas.aa_logits, calphas.probability[:, None]], axis=1)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    with autocast_for(torch.device(device)):
        features = network.start(tensor(start))
        keys, values = network.project_sequence(embedding)
    for index, layer in enumerate(network.layers):
        neighbours = nearest_residues(frames.ca, config.neighbours)
        cubes = sample_cubes(box.density, frames, config.cube_side, config.cube_spacing)
        boxes = sample_edge_rectangles(
            box.density,
            frames,
            neighbours,
            config.rectangle_length,
            config.rectangle_side,
            config.rectangle_spacing,
        )
        with autocast_for(torch.device(device)):
            output = layer(
                features,
                tensor(frames.rotation),
                tensor(frames.ca - frames.ca.mean(0)),
                tensor(neighbours),
                tensor(cubes),
                tensor(boxes),
                keys[index],
                values[index],
            )
        output = LayerOutput(*(part.float() for part in output))
        after(output, frames, neighbours)
        features = output.features
        frames = update_frames(frames, output.places.detach().cpu().numpy())
    with autocast_for(torch.device(device)):
        torsions = network.torsions(features)
    return torsions.float(), frames


def layer_losses(
    output: LayerOutput, frames: BackboneFrames, neighbours: np.ndarray, truth: Truth
) -> dict[str, Tensor]:
    """Loss terms of one layer."""
    device = output.places.device
    rotation = torch.from_numpy(frames.rotation).to(device)
    ca = torch.from_numpy(frames.ca).to(device)
    ideal = torch.from_numpy(IDEAL_BACKBONE).to(device).float()
    moved = (ideal + output.places) @ rotation.transpose(-1, -2) + ca[:, None]
    distance = (moved - truth.backbone).square().sum(-1).add(1e-4).sqrt()  # r 3
    real = truth.is_residue
    count = real.sum().clamp(min=1)
    pull = distance.clamp(max=FAR) * real[:, None]
    target = torch.where(real, distance.detach().mean(1), distance.new_tensor(FALSE_ERROR))
    follows = torch.from_numpy(neighbours).to(device) == truth.follows[:, None]
    # Whether a false point has a successor is nobody's business but existence's.
    edges = functional.binary_cross_entropy_with_logits(
        output.next_logits, follows.float(), reduction="none"
    )
    return {
        "calpha": pull[:, 1].sum() / count,
        "backbone": pull[:, [0, 2]].sum() / (2 * count),
        "amino_acid": (
            functional.cross_entropy(output.aa_logits, truth.kinds, reduction="none") * real
        ).sum()
        / count,
        "error": functional.smooth_l1_loss(output.predicted_error, target.clamp(max=FAR)),
        "existence": functional.binary_cross_entropy_with_logits(output.existence, real.float()),
        "next": edges.mean(),
    }


def torsion_losses(
    torsions: Tensor, last: LayerOutput, frames: BackboneFrames, truth: Truth
) -> dict[str, Tensor]:
    """Torsions of the true type against the truth, and the atoms they place."""
    device = torsions.device
    selected = pick_torsions(torsions, truth.kinds, len(AMINO_ACIDS))
    length = selected.square().sum(-1).add(1e-6).sqrt()
    unit = selected / length[..., None]
    periodic = torch.from_numpy(pi_periodic_torsions(AMINO_ACIDS)).to(device)[truth.kinds]
    straight = (unit - truth.torsions).square().sum(-1)
    flipped = (unit + truth.torsions).square().sum(-1)
    error = torch.where(periodic, torch.minimum(straight, flipped), straight)
    known = truth.has_torsion
    torsion = (error * known).sum() / known.sum().clamp(min=1)
    stray = ((length - 1).abs() * known).sum() / known.sum().clamp(min=1)
    # Through the last layer's places, so that side chains pull on their frames as well.
    rotation = torch.from_numpy(frames.rotation).to(device)
    ca = torch.from_numpy(frames.ca).to(device)
    ideal = torch.from_numpy(IDEAL_BACKBONE).to(device).float()
    local = ideal + last.places
    axes = rotation @ rotations_from_backbone(local)
    origin = (rotation @ local[:, 1, :, None])[..., 0] + ca
    predicted = place_atoms(axes, origin, unit, truth.kinds)
    return {
        "torsion": torsion + 0.02 * stray,
        "atoms": atom_error(predicted, truth.atoms, truth.has_atom, truth.kinds),
    }


def box_losses(
    network: CompactGraph, box: GraphBox, embedding: Tensor, device: str
) -> tuple[Tensor, dict[str, float], LayerOutput, BackboneFrames]:
    """Weighted loss over all layers, the last layer's terms, its output, the final frames."""
    truth = truth_of(box, device)
    outputs: list[tuple[LayerOutput, BackboneFrames, dict[str, Tensor]]] = []

    def after(output: LayerOutput, frames: BackboneFrames, neighbours: np.ndarray) -> None:
        outputs.append((output, frames, layer_losses(output, frames, neighbours, truth)))

    torsions, frames = run_layers(network, box, embedding, device, after)
    last, before_last, terms = outputs[-1]
    terms |= torsion_losses(torsions, last, before_last, truth)
    weights = np.linspace(0.5, 1.0, len(outputs))
    total = torch.zeros((), device=device)
    for weight, (_, _, layer_terms) in zip(weights, outputs, strict=True):
        for name, term in layer_terms.items():
            total = total + float(weight) * WEIGHTS[name] * term
    return total, {name: term.detach().item() for name, term in terms.items()}, last, frames


@torch.no_grad()
def check(
    network: CompactGraph, boxes: list[GraphBox], embedder: Embedder, device: str
) -> dict[str, float]:
    """Loss terms and plain figures on fixed ``val`` examples."""
    sums: dict[str, list[float]] = {}
    for box in boxes:
        embedding = embed_entry(embedder, box.sequences, None)
        _, figures, last, frames = box_losses(network, box, embedding, device)
        real = box.is_residue
        right = last.aa_logits.argmax(1).cpu().numpy() == box.residue_type
        start = np.linalg.norm(box.calphas.positions - box.backbone[:, 1], axis=1)[real]
        figures["start_rmsd"] = float(np.sqrt((start**2).mean()))
        error = np.linalg.norm(frames.ca - box.backbone[:, 1], axis=1)[real]
        figures["calpha_rmsd"] = float(np.sqrt((error**2).mean()))
        figures["amino_acid_right"] = float(right[real].mean())
        assert box.calphas.aa_logits is not None
        before = box.calphas.aa_logits.argmax(1) == box.residue_type
        figures["start_amino_acid_right"] = float(before[real].mean())
        neighbours = nearest_residues(frames.ca, network.config.neighbours)
        has_next = (neighbours == box.follows[:, None]).any(1)
        best = neighbours[np.arange(len(real)), last.next_logits.argmax(1).cpu().numpy()]
        figures["next_right"] = float((best == box.follows)[has_next].mean())
        exists = last.existence.cpu().numpy() > 0
        figures["exists_right"] = float((exists == real).mean())
        for name, figure in figures.items():
            sums.setdefault(name, []).append(figure)
    return {f"val_{name}": float(np.nanmean(column)) for name, column in sums.items()}


def train_graph(run: GraphRun) -> None:
    """Train until the budget is spent; goes on from ``out/checkpoint.pt`` where there is one."""
    torch.manual_seed(run.seed)
    embedder = Embedder(run.language_weights, run.device)
    network = CompactGraph(run.config).to(run.device)
    average = MovingAverage(network)
    optimizer = torch.optim.AdamW(network.parameters(), run.rate, weight_decay=0.01)
    checkpoint, step, spent = run.out / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = load_checkpoint(checkpoint)
        saved.restore(network, optimizer)
        average.load(saved.extra["average"])
        step, spent = saved.step, saved.extra["seconds"]
    elif run.start_from is not None:
        network.load_state_dict(load_weights(run.start_from)[0])
        average = MovingAverage(network)
    settings = GraphStreamSettings(
        StreamSettings(run.structures, run.side, seed=run.seed + 7, protein_only=True),
        run.calpha_weights,
    )
    judged = GraphStreamSettings(
        StreamSettings(run.structures, run.side, split="val", seed=1, protein_only=True),
        run.calpha_weights,
        noisy_share=0.0,
    )
    made = [make_graph_box(judged, i, r) for i, r in enumerate(CHECK_RESOLUTIONS)]
    check_boxes = [box for box in made if box is not None]
    stream = stream_graph_boxes(settings, step * run.accumulate, workers=run.workers)
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
        rng = np.random.default_rng([run.seed, step, 2])
        share = run.budget.share(step, spent + time.monotonic() - started)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(run.rate, step, share)
        optimizer.zero_grad(set_to_none=True)
        for _ in range(run.accumulate):
            box = next(stream)
            embedding = embed_entry(embedder, box.sequences, rng)
            loss, terms, _, _ = box_losses(network, box, embedding, run.device)
            (loss / run.accumulate).backward()
            for name, term in terms.items():
                running.setdefault(name, []).append(term)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update(network)
        step += 1
        if step % run.check_every == 0:
            with average.swapped_in(network):
                figures = check(network, check_boxes, embedder, run.device)
            figures |= {name: float(np.mean(column)) for name, column in running.items()}
            running.clear()
            log.append(step, figures | {"rate": optimizer.param_groups[0]["lr"]})
            save()
    save()
    log.close()
