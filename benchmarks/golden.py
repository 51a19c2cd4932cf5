"""What the reference computed with random weights, and our networks with those weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from angelo_export.networks.blocks import to_local
from angelo_export.networks.c_alpha import CalphaConfig, CalphaNetwork
from angelo_export.networks.density_samplers import cube_points, rectangle_points, sample_grid
from angelo_export.networks.gnn import GraphConfig, GraphNetwork

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
#: Recorded graph networks: with sequences, with nucleotides among the residues, without either.
CASES = ("seq_protein", "seq_protein_nucleotide", "noseq_protein")
ITERATIONS = (0, 1)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file if name != "config"}
        return arrays, json.loads(str(file["config"]))


def _take_parameters(network: torch.nn.Module, arrays: dict[str, torch.Tensor]) -> None:
    prefix = "param/"
    state = {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
    network.load_state_dict(state, strict=True)


def recorded_calpha() -> tuple[CalphaNetwork, dict[str, torch.Tensor]]:
    """Return the C-alpha network with the recorded parameters, and the arrays: x, y."""
    arrays, sizes = _read(GOLDEN / "c_alpha_tiny.npz")
    config = CalphaConfig(
        sizes["features"],
        tuple(sizes["num_blocks"]),
        sizes["in_channels"],
        sizes["out_channels"],
    )
    network = CalphaNetwork(config).eval()
    _take_parameters(network, arrays)
    return network, arrays


class Recorded:
    """One graph network: its parameters, and the arrays of its layers."""

    def __init__(self, case: str) -> None:
        self.arrays, sizes = _read(GOLDEN / f"gnn_tiny_{case}.npz")
        self.config = GraphConfig(
            sequence=sizes["in_features"] if case != "noseq_protein" else None,
            hidden=sizes["hidden_features"],
            layers=sizes["num_layers"],
            heads=sizes["attention_heads"],
            points=sizes["query_points"],
            neighbours=sizes["num_neighbours"],
            rectangle_length=sizes["q_length"],
            cube_side=sizes["p_context"],
            density=sizes["cryo_emb_dim"],
        )
        self.network = GraphNetwork(self.config).eval()
        _take_parameters(self.network, self.arrays)
        self.is_protein = self.arrays["prot_mask"]

    def step(self, iteration: int, layer: int) -> dict[str, torch.Tensor]:
        """What was recorded of one layer."""
        prefix = f"out/iter{iteration}/layer{layer}/"
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }

    def geometry(self, step: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Rotations, positions, neighbours; voxels are 1 Å and the origin is 0."""
        return step["affines_in"][..., :3], step["affines_in"][..., 3], step["neighbours"]

    def density(self, step: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cubes and rectangles of a layer."""
        rotations, positions, neighbours = self.geometry(step)
        edges = to_local(rotations, positions, positions[neighbours])
        cubes = cube_points(rotations, positions, self.config.cube_side)
        rectangles = rectangle_points(edges, positions, self.config.rectangle_length)
        grid = self.arrays["grid"]
        return sample_grid(grid, cubes), sample_grid(grid, rectangles)
