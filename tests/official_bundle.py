"""Official ModelAngelo bundles of reduced widths, laid out as the published ones."""

import json
from pathlib import Path
from typing import Any

import torch

from angelo_export.networks.c_alpha import CalphaConfig, CalphaNetwork
from angelo_export.networks.gnn import GraphConfig, GraphNetwork
from angelo_export.networks.language import LanguageConfig, LanguageEmbedder

CALPHA = CalphaConfig(features=2, blocks=(1, 2, 1, 1))
GRAPH = GraphConfig(
    sequence=12,
    hidden=8,
    layers=2,
    heads=2,
    points=2,
    neighbours=4,
    distances=6,
    density=4,
)
#: As published, but for smaller windows and crops.
CONFIG = {
    "standardize_mrc_args": {"target_voxel_size": 1.5},
    "ca_infer_args": {
        "model_checkpoint": "chkpt.torch",
        "batch_size": 4,
        "box_size": 32,
        "stride": 16,
        "threshold": 0.05,
        "crop": 6,
        "do_nucleotides": True,
    },
    "gnn_infer_args": {
        "num_rounds": 2,
        "crop_length": 12,
        "repeat_per_residue": 1,
        "esm_model": "tiny",
        "seq_attention_batch_size": 200,
    },
}
#: Brings the logits of C-alphas and phosphorus, of random networks, to where few voxels pass
#: the threshold.
CALPHA_BIAS = -6.5


def write_official(
    folder: Path,
    calpha: dict[str, torch.Tensor] | None = None,
    graph: dict[str, torch.Tensor] | None = None,
    *,
    sizes: GraphConfig = GRAPH,
    config: dict[str, Any] = CONFIG,
) -> Path:
    """Write a bundle; its weights are random where none are given."""
    for name in ("c_alpha", "gnn"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    torch.save(calpha or random_calpha(), folder / "c_alpha" / "chkpt.torch")
    torch.save({"model": {}}, folder / "gnn" / "chkpt_99.torch")  # an earlier step
    torch.save({"model": graph or random_graph(sizes)}, folder / "gnn" / "chkpt_100.torch")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def random_calpha(seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters of a small C-alpha network."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = CalphaNetwork(CALPHA).state_dict()
    state["net.modules_dict.predictor.final_conv.bias"][:2] = CALPHA_BIAS
    state["net.modules_dict.predictor.final_conv.weight"] *= 3
    return state


def random_graph(sizes: GraphConfig, seed: int = 0) -> dict[str, torch.Tensor]:
    """Parameters of a small graph network, none of them zero or the same by accident."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = GraphNetwork(sizes)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return network.state_dict()


def write_esm(path: Path, width: int = 12) -> Path:
    """Write a small ESM-2 with random weights, as fair-esm has them."""
    config = LanguageConfig(layers=1, width=width, heads=2, positions="rotary")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        torch.save({"model": LanguageEmbedder(config).state_dict()}, path)
    return path
