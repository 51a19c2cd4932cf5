"""Official ModelAngelo networks from their parameters: every size is read off the shapes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from angelo.residues import AMINO_ACIDS, RESIDUE_TYPES
from angelo_export.networks.c_alpha import CalphaConfig, CalphaNetwork
from angelo_export.networks.distances import N_DISTANCES
from angelo_export.networks.gnn import GraphConfig, GraphNetwork
from angelo_export.weights import CheckpointError

Network = TypeVar("Network", bound=nn.Module)

#: Names of residue types by their number; columns of every amino-acid output.
TYPES_BY_NUMBER = {len(names): names for names in (AMINO_ACIDS, RESIDUE_TYPES)}
#: Longest message about parameters that do not fit.
LONGEST_REASON = 300


def calpha_network(path: Path, state: Mapping[str, Tensor]) -> CalphaNetwork:
    """C-alpha network with these parameters. Raises CheckpointError if they do not fit."""
    shapes = _Shapes(path, state)
    stem, last = shapes("net.modules_dict.conv1.conv.weight"), "predictor.final_conv.weight"
    blocks = [
        shapes.count(f"net.modules_dict.layer{i}.{{}}.conv1.weight") for i in (1, 2, 3, 4)
    ]
    config = CalphaConfig(
        features=stem[0],
        blocks=(blocks[0], blocks[1], blocks[2], blocks[3]),
        n_in=stem[1],
        n_out=shapes(f"net.modules_dict.{last}")[0],
    )
    with torch.device("meta"):
        network = CalphaNetwork(config)
    return _filled(path, network, state)


def graph_network(path: Path, state: Mapping[str, Tensor], cube_side: int) -> GraphNetwork:
    """Graph network with these parameters; ``cube_side`` is the one size they do not show.

    Raises
    ------
    CheckpointError
        If they do not fit.
    """
    with torch.device("meta"):
        network = GraphNetwork(graph_config(path, state, cube_side))
    return _filled(path, network, state)


def graph_config(path: Path, state: Mapping[str, Tensor], cube_side: int) -> GraphConfig:
    """Sizes of a graph network. Raises CheckpointError if they are not those of one."""
    shapes = _Shapes(path, state)
    spatial, cryo = "ipa.spatial_ipas.0", "ipa.cryo_attentions.0"
    hidden = shapes(f"{spatial}.en.weight")[0]
    heads = shapes(f"{cryo}.cryo_q.0.weight")[0] // hidden
    density = shapes(f"{cryo}.cryo_vectors_k.0.weight")[0]
    distances = shapes(f"{spatial}.backbone_distance_emb.ne.weight")
    frequencies = shapes(f"{spatial}.backbone_distance_emb.distance_encoding.inv_freq")[0]
    sequence = "ipa.seq_attentions.0.k.0.weight"
    n_types = shapes(f"{cryo}.cryo_point_aa_head.3.weight")[0]
    if n_types not in TYPES_BY_NUMBER:
        raise CheckpointError(
            f"{path}: a network of {n_types} residue types; 20 (amino acids) and 28 (and "
            "nucleotides) are known"
        )
    return GraphConfig(
        sequence=shapes(sequence)[1] if sequence in state else None,
        hidden=hidden,
        layers=shapes.count("ipa.cryo_attentions.{}.en.weight"),
        heads=heads,
        points=shapes(f"{spatial}.loc_q.0.weight")[0] // max(1, 3 * heads),
        neighbours=distances[1] // (N_DISTANCES * 2 * frequencies),
        distances=distances[0],
        rectangle_length=shapes(f"{cryo}.cryo_vectors_k.2.weight")[0] // density,
        cube_side=cube_side,
        density=density,
        residue_types=n_types,
    )


class _Shapes:
    """Shapes of parameters by name, and a clear error for one that is missing."""

    def __init__(self, path: Path, state: Mapping[str, Tensor]) -> None:
        self._path, self._state = path, state

    def __call__(self, name: str) -> tuple[int, ...]:
        value = self._state.get(name)
        if value is None or not value.ndim or not value.numel():
            raise CheckpointError(
                f"{self._path}: has no parameter {name}, or an empty one, so it is no "
                "checkpoint of this ModelAngelo network; were two files exchanged?"
            )
        return tuple(value.shape)

    def count(self, pattern: str) -> int:
        """How many names, numbered from 0, there are."""
        n = 0
        while pattern.format(n) in self._state:
            n += 1
        return n


def _filled(path: Path, network: Network, state: Mapping[str, Tensor]) -> Network:
    """Load strictly; the tensors become the parameters, without a copy."""
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise CheckpointError(f"{path}: does not fit its own sizes ({reason})") from error
    return network.eval().requires_grad_(False)
