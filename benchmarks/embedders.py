"""Which embedder of sequences lets residues find their place in them.

The graph network of the bundle sees boxes of simulated maps without any sequence. What it then
knows of each residue, and an embedding of the sequences, go into one new sequence attention,
trained for each embedder alike on boxes of the ``train`` split and judged on ``val``. So the
embedders differ in nothing else, and none is used to the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import numpy as np
import options
import torch
import typer
from jaxtyping import Bool, Float, Int64
from provenance import machine_facts, write_results
from report import markdown_table
from torch import Tensor, nn

from angelo_export.graph_networks import load_graph
from angelo_export.language_networks import Embedder, embed_letters, load_language
from angelo_export.networks.blocks import SequenceAttention
from angelo_export.networks.compact_gnn import CompactGraph
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig
from angelo_training.box_stream import StreamSettings
from angelo_training.graph_boxes import GraphBox, GraphStreamSettings, stream_graph_boxes
from angelo_training.graph_losses import run_layers
from angelo_training.reading import (
    Attention,
    SequenceView,
    attention_on,
    reading_loss,
    right_places,
    watch_reading,
)

#: Letters at each side that the one-hot embedders see.
REACHES = (0, 2, 5)
#: Sequences of other entries beside the right ones.
OTHERS = 3
HEADS, HEAD_WIDTH = 4, 32
RATE, SEED = 2e-3, 5


@dataclass(frozen=True, slots=True)
class Example:
    """What a box gives: features of its residues, where they belong, and the sequences."""

    features: Float[Tensor, "r h"]
    """Before the sequence attention of the last layer."""
    right: Bool[Tensor, "r l+1"]
    """Places that are right; column 0 is none."""
    residue_type: Int64[np.ndarray, " r"]
    is_residue: Bool[np.ndarray, " r"]
    sequences: tuple[str, ...]


class Reader(nn.Module):
    """A sequence attention, and a head for residue types behind it."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.attention = SequenceAttention(hidden, width, HEADS, HEAD_WIDTH, null_key=True)
        self.types = nn.Linear(hidden, 20)

    def forward(
        self, features: Float[Tensor, "r h"], embedding: Float[Tensor, "l e"]
    ) -> tuple[Float[Tensor, "r t"], Attention]:
        """Logits of types, and what the attention was given."""
        keys, values = self.attention.project_sequence(embedding)
        logits: Tensor = self.types(self.attention(features, keys, values))
        return logits, Attention(self.attention, features, keys)


def embedded(model: Embedder, sequences: Sequence[str]) -> Float[Tensor, "l e"]:
    """Embeddings of all sequences, one after another."""
    return torch.cat([embed_letters(model, sequence) for sequence in sequences])


@torch.no_grad()
def example_of(
    network: CompactGraph, box: GraphBox, others: Sequence[str], rng: np.random.Generator
) -> Example:
    """What the network knows without sequences, and the sequences in random order."""
    context = SequenceContext(SequenceContextConfig())
    nothing = torch.zeros(0, network.config.sequence)
    with watch_reading(network) as noted:
        run_layers(network, box, nothing, "cpu", lambda *_: None)
    drawn = [others[i] for i in rng.integers(len(others), size=OTHERS)]
    offered = [*box.sequences, *drawn]
    order = rng.permutation(len(offered))
    starts, total = [-1] * len(box.sequences), 0
    for index in order.tolist():
        if index < len(box.sequences):
            starts[index] = total
        total += len(offered[index])
    sequences = tuple(offered[i] for i in order)
    # Told apart by the letters around them, whatever the embedder.
    view = SequenceView(embedded(context, sequences), tuple(starts))
    return Example(
        noted[-1].features.float(),
        right_places(box.places, view),
        box.residue_type,
        box.is_residue,
        sequences,
    )


def examples(
    network: CompactGraph, calpha: Path, structures: Path, split: str, count: int
) -> list[Example]:
    """Examples of a split, the same each time."""
    stream = StreamSettings(structures, 64, split=split, seed=SEED, protein_only=True)
    settings = GraphStreamSettings(stream, calpha, with_noise=False)
    boxes = [box for box in islice(stream_graph_boxes(settings, 0), count) if box is not None]
    pool = sorted({sequence for box in boxes for sequence in box.sequences})
    rng = np.random.default_rng(SEED)
    made = []
    for box in boxes:
        foreign = [s for s in pool if s not in box.sequences]
        made.append(example_of(network, box, foreign, rng))
    return made


def trained_reader(
    model: Embedder, training: Sequence[Example], width: int, steps: int
) -> Reader:
    """A new reader, trained on the examples in random order."""
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    reader = Reader(training[0].features.shape[1], width)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with torch.no_grad():
        embeddings = [embedded(model, example.sequences) for example in training]
    for _ in range(steps):
        index = int(rng.integers(len(training)))
        example = training[index]
        logits, attention = reader(example.features, embeddings[index])
        kinds = torch.from_numpy(example.residue_type[example.is_residue])
        loss = nn.functional.cross_entropy(logits[example.is_residue], kinds)
        loss = loss + reading_loss(attention_on(attention, example.right))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return reader


@torch.no_grad()
def judged(
    reader: Reader, model: Embedder | None, held_out: Sequence[Example]
) -> dict[str, float]:
    """Shares of attention on right places, and of residues whose type comes out right."""
    shares, types = [], []
    for example in held_out:
        width = reader.attention.k[0].in_features
        embedding = (
            torch.zeros(0, width) if model is None else embedded(model, example.sequences)
        )
        logits, attention = reader(example.features, embedding)
        known = ~example.right[:, 0]
        if model is not None:
            shares.append(attention_on(attention, example.right)[known])
        best = logits.argmax(1).numpy() == example.residue_type
        types.append(best[example.is_residue])
    found = {"types": float(np.concatenate(types).mean())}
    if shares:
        found["attention"] = float(torch.cat(shares).mean())
    return found


def main(
    structures: options.Structures = options.STRUCTURES,
    weights: Annotated[Path, typer.Option(help="Folder of c_alpha.pt and gnn.pt.")] = Path(
        "training/weights"
    ),
    language: Annotated[
        list[Path], typer.Option(help="Weights of a language model; may be repeated.")
    ] = [],  # noqa: B006
    boxes: Annotated[int, typer.Option(min=2, help="Training boxes.")] = 160,
    held_out: Annotated[int, typer.Option(min=1, help="Boxes of val.")] = 40,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of each reader.")] = 3000,
    out: Annotated[Path, typer.Option(help="JSON file; a table goes beside it.")] = Path(
        "benchmarks/embedders.json"
    ),
    machine: options.Machine = "",
) -> None:
    """Train a reader on each embedder and compare them."""
    network = load_graph(weights / "gnn.pt")
    calpha = weights / "c_alpha.pt"
    training = examples(network, calpha, structures, "train", boxes)
    judging = examples(network, calpha, structures, "val", held_out)
    embedders: dict[str, Embedder] = {
        (
            "the letter alone" if reach == 0 else f"letters of {reach} residues on each side"
        ): SequenceContext(SequenceContextConfig(reach))
        for reach in REACHES
    }
    for path in language:
        model = load_language(path)
        embedders[f"language model of {path.parent.name}"] = model
    rows, figures = [], {}
    for name, model in embedders.items():
        width = embedded(model, ("A",)).shape[1]
        reader = trained_reader(model, training, width, steps)
        found = judged(reader, model, judging)
        unread = judged(reader, None, judging)
        figures[name] = {**found, "types_unread": unread["types"], "width": width}
        typer.echo(f"{name}: {figures[name]}", err=True)
        shown = (found["attention"], found["types"], unread["types"])
        rows.append([name, str(width), *(f"{100 * value:.1f}" for value in shown)])
    facts = {"machine": machine_facts(machine), "boxes": len(training), "steps": steps}
    text = (
        "# Embedders of sequences\n\nWritten by `python benchmarks/embedders.py`: one sequence "
        f"attention, trained for {steps} steps on what the graph network knows of the residues "
        f"of {len(training)} simulated boxes, judged on {len(judging)} of `val`, with "
        f"{OTHERS} sequences of other entries beside the right ones. *Attention*: share that "
        "lies on right places. *Types*: residues whose type comes out right, with the "
        "sequences and without any.\n\n"
    )
    head = ["embedder", "channels", "attention %", "types %", "types without, %"]
    content = {**facts, "held_out": len(judging), "embedders": figures}
    write_results(out, content, text + markdown_table(head, rows) + "\n")


if __name__ == "__main__":
    typer.run(main)
