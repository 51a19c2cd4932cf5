"""The compact C-alpha network from a weight file, and the windows it is run over."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from angelo.local_strength import LocalStrength
from angelo_export.networks.compact_c_alpha import (
    CHANNELS,
    STEP,
    CompactCalpha,
    CompactCalphaConfig,
)
from angelo_export.weights import load_network

#: Edge of the largest windows, voxels: the larger, the less of it is margin.
WINDOW = 96
#: Outputs nearer than this to a window's faces are not used, voxels. With 8 or 4 as many
#: C-alphas and types are right, for a third less work; with 2 or none fewer (experiments.md).
WINDOW_MARGIN = 4
#: Windows to a call.
BATCH = 1
#: How maps are evened out for the network: with it residues in weak parts are found
#: (experiments.md).
LOCAL_STRENGTH = LocalStrength(
    sigma=7.0, reference=0.6, power=0.6, least_gain=0.7, most_gain=1.8
)


def load_calpha(path: Path) -> CompactCalpha:
    """Network of a weight file. Raises CheckpointError."""
    return load_network(path, lambda sizes: CompactCalpha(CompactCalphaConfig(**sizes)))


def window_geometry(network: CompactCalpha, window: int = WINDOW) -> dict[str, Any]:
    """Keys of the manifest's section ``c_alpha`` that say how windows are cut and read.

    Raises
    ------
    ValueError
        If the network cannot halve a window of this size as often as it has to.
    """
    if window % network.multiple:
        raise ValueError(f"a window of {window} voxels is no multiple of {network.multiple}")
    return {
        "inputs": ["even_density"],
        "channels": list(CHANNELS),
        "window": window,
        "step": STEP,
        "start": 0.0,
        "margin": WINDOW_MARGIN,
        # From the first output at or behind one margin to the last before the other.
        "stride": (window - 1 - 2 * WINDOW_MARGIN) // STEP * STEP + STEP,
        "batch": BATCH,
        "multiple": network.multiple,
        "local_strength": asdict(LOCAL_STRENGTH),
    }
