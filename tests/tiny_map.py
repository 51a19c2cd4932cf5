"""A map that the tiny bundle builds: two straight rows of eight C-alphas, N to C along +x."""

from pathlib import Path

import mrcfile
import numpy as np

#: Odd on purpose, Å: a position that loses the origin, or mixes up axes, is far off.
ORIGIN = np.array([-13.37, 7.71, 101.2], np.float32)
SHAPE_ZYX = (24, 30, 42)
#: Width of a blob, Å.
SIGMA = 1.0
#: One letter for each residue of a row; the two rows are copies.
SEQUENCE = "MKVLWAQE"
#: (row, residue, xyz), Å, map coordinates.
CALPHAS = ORIGIN + np.array(
    [[[6.2 + 3.8 * i, 9.5 + 11 * row, 10.1 + 4 * row] for i in range(8)] for row in (0, 1)]
)


def tiny_density() -> np.ndarray:
    """Gaussian blobs at the C-alphas on a grid of 1 Å, axes z, y, x."""
    axes = [np.arange(n) + start for n, start in zip(SHAPE_ZYX, ORIGIN[::-1], strict=True)]
    grid_zyx = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = np.zeros(SHAPE_ZYX)
    for xyz in CALPHAS.reshape(-1, 3):
        values += np.exp(-((grid_zyx - xyz[::-1]) ** 2).sum(-1) / (2 * SIGMA**2))
    return values.astype(np.float32)


def write_volume(path: Path, values_zyx: np.ndarray, voxel_size: float = 1.0) -> Path:
    """Write an MRC file with the odd origin."""
    with mrcfile.new(path) as mrc:
        mrc.set_data(values_zyx)
        mrc.voxel_size = voxel_size
        mrc.header.origin = tuple(ORIGIN.tolist())
    return path


def write_tiny_inputs(folder: Path) -> tuple[Path, Path]:
    """Write the map and a FASTA file with both copies; return their paths."""
    fasta = folder / "tiny.fasta"
    fasta.write_text(f">one\n{SEQUENCE}\n>two\n{SEQUENCE}\n")
    return write_volume(folder / "tiny.mrc", tiny_density()), fasta
