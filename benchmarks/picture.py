"""The README's picture: the example map with the built and the deposited model.

pip install matplotlib && python benchmarks/picture.py MAP BUILT DEPOSITED docs/picture.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from angelo.coordinates import ProteinCoordinates, read_structure
from angelo.density import read_map
from angelo.types import Density

#: Longest CA-CA distance that is drawn as a bond, Å.
LONGEST_BOND = 4.5


def draw_density(axes: Axes, density: Density) -> None:
    """Projection along z."""
    projected = np.maximum(density.values_zyx, 0).sum(0)
    low = density.origin[:2]
    high = low + density.voxel_size[:2] * projected.shape[::-1]
    axes.imshow(
        projected,
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        cmap="Greys",
        vmax=float(np.percentile(projected, 99.7)) * 1.4,
    )


def draw_trace(axes: Axes, model: ProteinCoordinates, title: str) -> None:
    """C-alpha trace, one colour a chain."""
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    ca = model.calphas
    step = np.linalg.norm(ca[1:] - ca[:-1], axis=1)
    joined = (model.chain[1:] == model.chain[:-1]) & (step < LONGEST_BOND)
    rows = np.flatnonzero(joined)
    lines = np.stack([ca[rows, :2], ca[rows + 1, :2]], axis=1)
    shades = [colours[int(c) % len(colours)] for c in model.chain[rows]]
    axes.add_collection(LineCollection(list(lines), colors=shades, linewidths=1.3))
    axes.set_title(title, fontsize=10)
    middle, half = ca[:, :2].mean(0), np.abs(ca[:, :2] - ca[:, :2].mean(0)).max() + 6
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_xticks([])
    axes.set_yticks([])


def main(map_path: Path, built: Path, deposited: Path, out: Path) -> None:
    """Three panels: density, built, deposited."""
    density = read_map(map_path)
    truth, model = read_structure(deposited), read_structure(built)
    figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.7), layout="constrained")
    for axes in panels:
        draw_density(axes, density)
    draw_trace(panels[0], truth, "map (projection)")
    panels[0].collections[0].remove()
    draw_trace(panels[1], model, "built by angelo (C-alphas)")
    draw_trace(panels[2], truth, "deposited (C-alphas)")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:5]))
