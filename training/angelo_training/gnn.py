"""Training of the compact graph network on points that the C-alpha network found."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from angelo.refine import surviving_residues
from angelo.types import BackboneFrames, Calphas
from angelo_export.language_networks import embed_letters, load_language
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.networks.gnn import LayerOutput
from angelo_training.box_stream import StreamSettings
from angelo_training.graph_boxes import (
    FEWEST_POINTS,
    GraphBox,
    GraphStreamSettings,
    make_graph_box,
    stream_graph_boxes,
    take_points,
)
from angelo_training.graph_losses import box_losses, run_layers
from angelo_training.precision import torch_device
from angelo_training.reading import SequenceView
from angelo_training.run_log import CurveLog
from angelo_training.run_state import RunState
from angelo_training.schedule import Budget
from angelo_training.structures import PackedStructures

logger = logging.getLogger(__name__)

WEIGHT_DECAY = 0.01
#: Residues of sequence a step may see.
MOST_SEQUENCE = 2000
#: Chances that an example is learned from as found, from where a first round led, a second.
ROUND_RATES = (0.55, 0.25, 0.2)
#: Figures that are also taken in the second and third round and without a sequence.
IN_ALL_WAYS = (
    "calpha_rmsd",
    "amino_acid_right",
    "next_right",
    "exists_right",
    "reading",
)
#: Chance that sequences of other entries are there as well, and how many at most.
OTHERS_RATE, MOST_OTHERS = 0.4, 4
#: Boxes of the ``val`` split judged at every check, with their resolutions.
CHECK_RESOLUTIONS = (2.5, 3.0, 3.5, 3.0, 3.0, 2.5, 3.5, 3.0)


@dataclass(frozen=True, slots=True)
class GraphRun:
    """What a training run needs to know."""

    structures: Path
    """Packed structures."""
    calpha_weights: Path
    """The C-alpha network whose points are learned from."""
    language_weights: Path
    """The language model; its width is ``config.sequence``."""
    out: Path
    """Run folder: ``checkpoint.pt``, ``curves.csv``, ``weights.pt``."""
    budget: Budget
    """When to stop; the learning rate follows the share of it that is spent."""
    start_from: Path | None = None
    """Weight file to start from, where the folder has no checkpoint."""
    seed: int = 0
    """Same seed, same examples; with a step budget also the same weights on one machine."""
    side: int = 72
    """Of a box, voxels of 1 Å."""
    rate: float = 8e-4
    """Highest learning rate."""
    accumulate: int = 2
    """Boxes of a step."""
    workers: int = 1
    """Processes that make boxes; 0: the training process itself."""
    device: str = "cpu"
    """Torch device."""
    check_every: int = 250
    """Steps between rows of the curves, and between checkpoints."""
    unread_rate: float = 0.15
    """Chance that a step sees no sequence. Near 1 for bundles that do not read them."""
    config: CompactGraphConfig = field(default_factory=CompactGraphConfig)


class Embedder:
    """The frozen language model: sequences -> embeddings, remembered while memory is small."""

    def __init__(self, weights: Path, device: str) -> None:
        self.model = load_language(weights).to(device)
        self.device = device
        self.width = self.model.config.width
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def __call__(self, sequence: str) -> Tensor:
        """(residues, channels), without the special tokens."""
        if sequence not in self._known:
            if len(self._known) > 3000:
                self._known.clear()
            self._known[sequence] = embed_letters(self.model, sequence, self.device).cpu()
        return self._known[sequence].to(self.device)


def embed_entry(
    embedder: Embedder,
    sequences: tuple[str, ...],
    rng: np.random.Generator | None,
    others: Sequence[str] = (),
    *,
    unread_rate: float = 0.0,
) -> SequenceView:
    """Embeddings of an entry's sequences, for training in random order among ``others``.

    With a chance of ``unread_rate`` there are none at all, sometimes (``OTHERS_RATE``) some
    that are not in the map: users give the sequences of whole complexes.
    """
    offered: Sequence[str] = sequences
    order = np.arange(len(sequences))
    if rng is not None:
        if rng.random() < unread_rate:
            offered = ()
        elif others and rng.random() < OTHERS_RATE:
            n_others = rng.integers(1, MOST_OTHERS + 1)
            chosen = rng.integers(len(others), size=n_others)
            offered = (*sequences, *(others[i] for i in chosen))
        order = rng.permutation(len(offered))
    starts = [-1] * len(sequences)
    parts = [torch.zeros(0, embedder.width, device=embedder.device)]
    total = 0
    for index in order.tolist():
        sequence = offered[index][:MOST_SEQUENCE]
        if total and total + len(sequence) > MOST_SEQUENCE:
            break
        if index < len(sequences):
            starts[index] = total
        parts.append(embedder(sequence))
        total += len(sequence)
    return SequenceView(torch.cat(parts), tuple(starts))


@torch.no_grad()
def after_a_round(
    network: CompactGraph, box: GraphBox, view: SequenceView, device: str
) -> GraphBox:
    """Return the same example as the next round finds it (see ``angelo.refine``).

    Points that the runtime would drop are gone, unless too few would be left to learn from.
    """
    outputs: list[LayerOutput] = []
    _, frames = run_layers(
        network, box, view.embedding, device, lambda output, *_: outputs.append(output)
    )
    existence = outputs[-1].existence.sigmoid().cpu().numpy()
    said = Calphas(
        positions=frames.ca,
        probability=existence,
        rotation=frames.rotation,
        aa_logits=outputs[-1].aa_logits.cpu().numpy(),
    )
    chosen = surviving_residues(frames.ca, existence)
    after = replace(box, calphas=said)
    return take_points(after, chosen) if len(chosen) >= FEWEST_POINTS else after


@torch.no_grad()
def check(
    network: CompactGraph, boxes: list[GraphBox], embedder: Embedder, device: str
) -> dict[str, float]:
    """Loss terms and plain figures on fixed ``val`` examples.

    ``second_*`` and ``third_*`` are those of further rounds, of the points that are left then;
    ``unread_*`` those without a sequence.
    """
    columns: dict[str, list[float]] = {}
    for box in boxes:
        view = embed_entry(embedder, box.sequences, None)
        second = after_a_round(network, box, view, device)
        figures = _figures(network, box, view, device)
        for way, example, offered in (
            ("second", second, view),
            ("third", after_a_round(network, second, view, device), view),
            ("unread", box, view.nothing()),
        ):
            for name, figure in _figures(network, example, offered, device).items():
                if name in IN_ALL_WAYS:
                    figures[f"{way}_{name}"] = figure
        for name, figure in figures.items():
            columns.setdefault(name, []).append(figure)
    return {f"val_{name}": float(np.nanmean(column)) for name, column in columns.items()}


def _figures(
    network: CompactGraph, box: GraphBox, view: SequenceView, device: str
) -> dict[str, float]:
    """Loss terms and plain figures on one example."""
    seen: list[np.ndarray] = []

    def note(_output: LayerOutput, _frames: BackboneFrames, neighbours: np.ndarray) -> None:
        seen.append(neighbours)

    _, figures, last, frames = box_losses(network, box, view, device, note)
    real, truth = box.is_residue, box.backbone[:, 1]
    figures["start_rmsd"] = _rmsd(box.calphas.positions[real], truth[real])
    figures["calpha_rmsd"] = _rmsd(frames.ca[real], truth[real])
    right = last.aa_logits.argmax(1).cpu().numpy() == box.residue_type
    figures["amino_acid_right"] = float(right[real].mean())
    assert box.calphas.aa_logits is not None
    before = box.calphas.aa_logits.argmax(1) == box.residue_type
    figures["start_amino_acid_right"] = float(before[real].mean())
    neighbours = seen[-1]  # those that the last layer speaks of
    has_next = (neighbours == box.follows[:, None]).any(1)
    best = neighbours[np.arange(len(real)), last.next_logits.argmax(1).cpu().numpy()]
    figures["next_right"] = float((best == box.follows)[has_next].mean())
    exists = last.existence.cpu().numpy() > 0
    figures["exists_right"] = float((exists == real).mean())
    return figures


def _rmsd(positions: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(((positions - truth) ** 2).sum(1).mean()))


def train_graph(run: GraphRun) -> None:
    """Train until the budget is spent; goes on from ``out/checkpoint.pt`` where there is one.

    Raises
    ------
    StructuresError
        If the packed structures cannot be used.
    CheckpointError
        If the checkpoint or a weight file is damaged or of another network.
    DeviceError
        If the device is not here.
    """
    device = torch_device(run.device)
    torch.manual_seed(run.seed)
    embedder = Embedder(run.language_weights, run.device)
    network = CompactGraph(run.config).to(device)
    state = RunState(
        network,
        asdict(run.config),
        run.out,
        run.budget,
        rate=run.rate,
        weight_decay=WEIGHT_DECAY,
        start_from=run.start_from,
    )
    check_boxes = _check_boxes(run)
    others = _train_sequences(run.structures)
    boxes = _Examples(run, state.extra.get("n_examples", state.step * run.accumulate))
    running: dict[str, list[float]] = {}
    state.start_clock()
    with CurveLog(run.out / "curves.csv", step=state.step) as log:
        while not state.is_over:
            rng = np.random.default_rng([run.seed, state.step, 2])
            rate = state.present_rate()
            for _ in range(run.accumulate):
                box = boxes.take()
                view = embed_entry(
                    embedder, box.sequences, rng, others, unread_rate=run.unread_rate
                )
                for _ in range(rng.choice(len(ROUND_RATES), p=ROUND_RATES)):
                    box = after_a_round(network, box, view, run.device)
                loss, terms, _, _ = box_losses(network, box, view, run.device)
                (loss / run.accumulate).backward()  # type: ignore[no-untyped-call]
                for name, term in terms.items():
                    running.setdefault(name, []).append(term)
            state.take_step()
            state.extra["n_examples"] = boxes.n_taken
            if state.step % run.check_every == 0:
                with state.average.swapped_in(network):
                    figures = check(network, check_boxes, embedder, run.device)
                figures |= {name: float(np.mean(column)) for name, column in running.items()}
                running.clear()
                log.append(state.step, figures | {"rate": rate})
                logger.info("step %d: %s", state.step, figures)
                state.save()
    state.save()


def _train_sequences(structures: Path) -> list[str]:
    """Every sequence of the ``train`` split."""
    packed = PackedStructures(structures)
    return sorted({s for i in packed.select("train") for s in packed.entries[i]["sequences"]})


class _Examples:
    """Endless boxes from the ``train`` split, after those that a resumed run has seen."""

    def __init__(self, run: GraphRun, n_taken: int) -> None:
        boxes = StreamSettings(run.structures, run.side, seed=run.seed + 7, protein_only=True)
        settings = GraphStreamSettings(boxes, run.calpha_weights)
        self.n_taken = n_taken
        self._stream = stream_graph_boxes(settings, n_taken, workers=run.workers)

    def take(self) -> GraphBox:
        """Return the next box that has enough points."""
        box = None
        while box is None:
            box = next(self._stream)
            self.n_taken += 1
        return box


def _check_boxes(run: GraphRun) -> list[GraphBox]:
    """Boxes of the ``val`` split, the same in all runs with these C-alpha weights."""
    boxes = StreamSettings(run.structures, run.side, split="val", seed=1, protein_only=True)
    settings = GraphStreamSettings(boxes, run.calpha_weights, with_noise=False)
    made = [make_graph_box(settings, i, r) for i, r in enumerate(CHECK_RESOLUTIONS)]
    return [box for box in made if box is not None]
