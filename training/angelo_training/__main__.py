"""Command line: parse, call, report. No science here."""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer

from angelo.errors import UserError
from angelo_export.networks.compact_c_alpha import CompactCalphaConfig
from angelo_export.networks.compact_gnn import CompactGraphConfig
from angelo_export.networks.sequence_context import SequenceContext, SequenceContextConfig
from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training.average import average as averaged
from angelo_training.c_alpha import CalphaRun, train_calpha
from angelo_training.deepen import deepen as deepened
from angelo_training.gnn import GraphRun, train_graph
from angelo_training.language import language_command
from angelo_training.profile import measure_profile, spectrum_as_json
from angelo_training.schedule import Budget
from angelo_training.structures import PackedStructures, pack_structures
from angelo_training.widen import widen as widened

C = TypeVar("C")

#: Exit codes: the user's input or machine; stopped by Ctrl-C.
EXIT_USER, EXIT_STOPPED = 2, 130
#: The profile that ``load_spectrum`` reads.
SPECTRUM = Path(__file__).with_name("spectrum.json")


class OneLineErrors(typer.core.TyperGroup):
    """A group that turns bad input into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            _complain(str(error))
            raise typer.Exit(EXIT_USER) from None
        except KeyboardInterrupt:
            _complain("stopped; the same command goes on from the last checkpoint")
            raise typer.Exit(EXIT_STOPPED) from None


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("language")(language_command)

Structures = Annotated[Path, typer.Option(help="Packed structures.")]
Out = Annotated[Path, typer.Option(help="Run folder; continued if it has a checkpoint.")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="Time budget.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Step budget.")]
StartFrom = Annotated[
    Path | None, typer.Option(help="Weight file to start from; it decides the sizes.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same examples.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that make examples; 0: the training process.")
]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's choice.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Rate = Annotated[float, typer.Option(min=0, help="Highest learning rate.")]


@app.callback()
def main() -> None:
    """Train the networks of a bundle: pack, c-alpha, context (or language), gnn."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@app.command()
def pack(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Has index.csv and cif/*.cif.gz.")
    ],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("data/structures.npz"),
    workers: Annotated[int, typer.Option(min=0, help="Processes that parse; 0: this one.")] = 2,
) -> None:
    """Parse deposited structures into one file of arrays."""
    typer.echo(f"{out}: {pack_structures(folder, out, workers=workers)} structures")


@app.command()
def profile(
    structures: Structures = Path("data/structures.npz"),
    out: Annotated[Path, typer.Option(help="File to write.")] = SPECTRUM,
    seed: Seed = 0,
) -> None:
    """Measure the amplitude profile that maps are brought to.

    Networks trained with one profile do not fit another: train them all again.
    """
    spectrum = measure_profile(PackedStructures(structures), np.random.default_rng(seed))
    out.write_text(json.dumps(spectrum_as_json(spectrum)) + "\n", encoding="utf-8")
    typer.echo(f"{out}: {len(spectrum.amplitudes)} shells")


@app.command()
def c_alpha(
    structures: Structures = Path("data/structures.npz"),
    out: Out = Path("runs/c_alpha"),
    minutes: Minutes = None,
    steps: Steps = None,
    start_from: StartFrom = None,
    seed: Seed = 0,
    workers: Workers = 1,
    threads: Threads = 0,
    device: Device = "cpu",
    rate: Rate = 1e-3,
    batch: Annotated[int, typer.Option(min=1, help="Boxes of a step.")] = 2,
) -> None:
    """Train the network that finds C-alphas."""
    _use_threads(threads)
    train_calpha(
        CalphaRun(
            structures=structures,
            out=out,
            budget=_budget(steps, minutes),
            start_from=start_from,
            seed=seed,
            batch=batch,
            rate=rate,
            workers=workers,
            device=device,
            config=_config(CompactCalphaConfig, start_from),
        )
    )


@app.command()
def deepen(
    weights: Annotated[Path, typer.Argument(help="Weight file of a C-alpha network.")],
    down_blocks: Annotated[str, typer.Option(help="Blocks of each level, fine to coarse.")],
    up_blocks: Annotated[str, typer.Option(help="On the way up, fine to coarse.")],
    out: Annotated[Path, typer.Option(help="Weight file to write.")],
) -> None:
    """Give a trained C-alpha network more blocks, to train it on (c-alpha --start-from)."""
    config = deepened(weights, out, _blocks(down_blocks), _blocks(up_blocks))
    typer.echo(f"{out}: {config.down_blocks} blocks down, {config.up_blocks} up")


@app.command()
def widen(
    weights: Annotated[Path, typer.Argument(help="Weight file of a graph network.")],
    cube_hidden: Annotated[int, typer.Option(min=1, help="Units that read density cubes.")],
    out: Annotated[Path, typer.Option(help="Weight file to write.")],
    seed: Seed = 0,
) -> None:
    """Let more units of a trained graph network read density (then gnn --start-from)."""
    config = widened(weights, out, cube_hidden, seed)
    typer.echo(f"{out}: {config.cube_hidden} units in each of {config.layers} layers")


@app.command()
def average(
    weights: Annotated[
        list[Path], typer.Argument(help="Weight files of networks trained from the same one.")
    ],
    out: Annotated[Path, typer.Option(help="Weight file to write.")],
) -> None:
    """Average the weights of several trainings that started from the same network."""
    averaged(weights, out)
    typer.echo(f"{out}: mean of {len(weights)}")


@app.command()
def context(
    reach: Annotated[int, typer.Option(min=1, help="Residues seen on each side.")] = 5,
    out: Annotated[Path, typer.Option(help="Weight file to write.")] = Path(
        "runs/language/weights.pt"
    ),
) -> None:
    """Write the embedder that needs no training: the letters around every residue.

    In place of a language model; the graph network is trained on either.
    """
    sizes = SequenceContextConfig(reach)
    save_weights(out, SequenceContext(sizes), asdict(sizes))
    typer.echo(f"{out}: {sizes.width} channels")


@app.command()
def gnn(
    structures: Structures = Path("data/structures.npz"),
    calpha_weights: Annotated[
        Path, typer.Option(help="C-alpha network whose points are learned from.")
    ] = Path("runs/c_alpha/weights.pt"),
    language_weights: Annotated[Path, typer.Option(help="Embedder of sequences.")] = Path(
        "runs/language/weights.pt"
    ),
    out: Out = Path("runs/gnn"),
    minutes: Minutes = None,
    steps: Steps = None,
    start_from: StartFrom = None,
    seed: Seed = 0,
    workers: Workers = 1,
    threads: Threads = 0,
    device: Device = "cpu",
    rate: Rate = 8e-4,
    unread_rate: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the examples that come without sequences."),
    ] = 0.15,
) -> None:
    """Train the graph network, on points that the C-alpha network finds."""
    _use_threads(threads)
    train_graph(
        GraphRun(
            structures=structures,
            calpha_weights=calpha_weights,
            language_weights=language_weights,
            out=out,
            budget=_budget(steps, minutes),
            start_from=start_from,
            seed=seed,
            rate=rate,
            workers=workers,
            device=device,
            unread_rate=unread_rate,
            config=_config(CompactGraphConfig, start_from),
        )
    )


def _budget(steps: int | None, minutes: float | None) -> Budget:
    try:
        return Budget(steps, minutes)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; give --steps or --minutes") from None


def _blocks(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(count) for count in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: numbers with commas between, as in 1,3,2"
        ) from None


def _use_threads(threads: int) -> None:
    if threads:
        torch.set_num_threads(threads)


def _config(kind: type[C], start_from: Path | None) -> C:
    """Sizes of the network: those of the file that it starts from, or the defaults."""
    if start_from is None:
        return kind()
    try:
        return kind(**load_weights(start_from)[1])
    except TypeError:
        raise CheckpointError(f"{start_from}: weights of another kind of network") from None


def _complain(message: str) -> None:
    """One line on stderr, whatever the message contains."""
    typer.secho("error: " + " ".join(message.split()), fg="red", err=True)


if __name__ == "__main__":
    app()
