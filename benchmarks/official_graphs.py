"""Official graphs as an import writes them, fed as the runtime feeds them, and compared."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import typer
from jaxtyping import Bool, Float32

from angelo.neighbours import nearest_residues
from angelo.sampling import sample_cubes, sample_sheared_rectangles
from angelo.types import BackboneFrames, Density
from angelo_export.modelangelo_graphs import Piece
from angelo_export.networks.cryo import RECTANGLE_SIDE
from angelo_export.networks.gnn import GraphConfig


def write_pieces(pieces: Iterable[Piece], folder: Path) -> None:
    """Write graphs that the folder lacks: tracing all of them takes minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    for piece in pieces:
        if not (folder / piece.name).exists():
            typer.echo(f"tracing {piece.name}", err=True)
            piece.write(piece.trace(), folder)


def layer_inputs(
    config: GraphConfig,
    density: Density,
    frames: BackboneFrames,
    features: Float32[np.ndarray, "r h"],
    is_protein: Bool[np.ndarray, " r"],
    pair: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Inputs of a layer's graph; ``pair`` is the layer's ``keys`` and ``values``, or empty.

    Voxels of 1 Å.
    """
    neighbours = nearest_residues(frames.ca, config.neighbours)
    return {
        "features": features,
        "rotations": frames.rotation,
        "positions": frames.ca - frames.ca.mean(axis=0),
        "neighbours": neighbours,
        "cubes": sample_cubes(density, frames, config.cube_side, 1.0),
        "rectangles": sample_sheared_rectangles(
            density, frames, neighbours, config.rectangle_length, RECTANGLE_SIDE, 1.0
        ),
        "is_protein": is_protein,
        **{f"sequence_{name}": array for name, array in pair.items()},
    }


def relative(got: np.ndarray | torch.Tensor, expected: np.ndarray | torch.Tensor) -> float:
    """Largest difference, relative to the largest magnitude expected.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise ValueError(f"{got.shape} is not the shape {expected.shape}")
    return float(np.abs(got - expected).max() / np.abs(expected).max())
