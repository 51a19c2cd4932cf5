"""The compact graph network from a weight file."""

from pathlib import Path

from angelo_export.networks.compact_gnn import CompactGraph, CompactGraphConfig
from angelo_export.weights import load_network


def load_graph(path: Path) -> CompactGraph:
    """Network of a weight file. Raises CheckpointError."""
    return load_network(path, lambda sizes: CompactGraph(CompactGraphConfig(**sizes)))
