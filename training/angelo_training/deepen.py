"""More blocks for a trained C-alpha network, which says the same until they learn."""

from dataclasses import asdict
from pathlib import Path

from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.weights import CheckpointError, load_weights, save_weights


def deepen(
    weights: Path, out: Path, down_blocks: tuple[int, ...], up_blocks: tuple[int, ...]
) -> CompactCalphaConfig:
    """Write a weight file of the same network with more residual blocks at the end of levels.

    New blocks begin as the identity (their second convolution is zero), so training goes on
    from where the smaller network stands.

    Raises
    ------
    CheckpointError
        If the file cannot be read, a level would have fewer blocks than it has, or the file to
        write would be too large for git.
    """
    state, sizes = load_weights(weights)
    try:
        config = CompactCalphaConfig(
            **sizes | {"down_blocks": down_blocks, "up_blocks": up_blocks}
        )
        network = CompactCalpha(config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{weights}: cannot be deepened ({error})") from None
    own = network.state_dict()
    if surplus := sorted(state.keys() - own.keys()):
        raise CheckpointError(
            f"{weights} has blocks that {down_blocks} and {up_blocks} leave out "
            f"({surplus[0].rpartition('.')[0]}); give at least as many for each level"
        )
    network.load_state_dict(own | state)
    save_weights(out, network, asdict(config))
    return config
