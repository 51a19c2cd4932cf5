"""A wider reader of density cubes for a trained graph network, which says nearly the same."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from angelo_export.graph_networks import load_graph
from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.weights import CheckpointError, save_weights


def widen(weights: Path, out: Path, cube_hidden: int, seed: int = 0) -> CompactGraphConfig:
    """Write a weight file of the same network with ``cube_hidden`` units that read cubes.

    New units read random mixtures of what trained ones do, and nothing listens to them yet:
    all that changes is what layer norms see, a little.

    Raises
    ------
    CheckpointError
        If the file cannot be read or has as many units already, or the file to write would be
        too large for git.
    """
    narrow = load_graph(weights)
    state, config = narrow.state_dict(), replace(narrow.config, cube_hidden=cube_hidden)
    if cube_hidden <= narrow.config.cube_hidden:
        raise CheckpointError(f"{weights} has {narrow.config.cube_hidden} units; give more")
    generator = torch.Generator().manual_seed(seed)
    for i in range(config.layers):
        _widen_reader(state, f"layers.{i}.cube.", cube_hidden, generator)
    wide = CompactGraph(config)
    wide.load_state_dict(state)
    save_weights(out, wide, asdict(config))
    return config


def _widen_reader(
    state: dict[str, Tensor], reader: str, width: int, generator: torch.Generator
) -> None:
    """Add units to one ``FlatDensity`` of a state dict."""
    read, bias = state[f"{reader}read.weight"], state[f"{reader}read.bias"]
    scale, mix = state[f"{reader}ln.weight"], state[f"{reader}mix.weight"]
    more = width - len(read)
    mixture = torch.randn(more, len(read), generator=generator) / len(read) ** 0.5
    state[f"{reader}read.weight"] = torch.cat((read, mixture @ read))
    state[f"{reader}read.bias"] = torch.cat((bias, mixture @ bias))
    state[f"{reader}ln.weight"] = torch.cat((scale, scale.mean().expand(more)))
    state[f"{reader}mix.weight"] = torch.cat((mix, torch.zeros(len(mix), more)), dim=1)
