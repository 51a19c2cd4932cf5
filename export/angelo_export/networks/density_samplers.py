"""Where official weights look into the map, and the density there.

Grids are cubic voxels of edge ``voxel_size`` with voxel (0, 0, 0) at ``origin``; both samplers
count in voxels, which official bundles make 1 angstrom. The NumPy twins that the appliance
uses are in ``angelo.sampling``.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

#: Smallest 1 + cosine of the angle between an edge and +x; see ``rotations_from_x_axis``.
SMALLEST_TURN = 1e-7


def cube_points(
    rotations: Float[Tensor, "r 3 3"], centres: Float[Tensor, "r 3"], side: int
) -> Float[Tensor, "r p 3"]:
    """Points of a centred cube in every residue's frame, one voxel apart.

    Row-major over the residue axes (e1, e2, e3). ``centres`` in voxels, as the points are.
    """
    ticks = torch.arange(side, dtype=centres.dtype, device=centres.device) - (side - 1) / 2
    offsets = torch.cartesian_prod(ticks, ticks, ticks)
    return centres[:, None] + offsets @ rotations.transpose(-1, -2)


def rectangle_points(
    edges: Float[Tensor, "r k 3"], centres: Float[Tensor, "r 3"], length: int, side: int = 3
) -> Float[Tensor, "r k p 3"]:
    """Points of the box that official weights sample for every edge, in voxels.

    Row-major over (length, side, side). Parity: three oddities that the weights were trained
    with. ``edges`` are in the residue's frame but used as map directions; the half-lengths
    scale map axes, not the box's (global z is stretched, whatever the edge's direction); and
    the box is centred off the residue, by (1, 0, 2) voxels for 7 x 3 x 3.

    Parameters
    ----------
    edges
        From each residue to its neighbours, in the residue's frame; the length is ignored.
    centres
        C-alpha positions in voxels.
    length, side
        Samples along the first and the other two axes of the box.
    """
    half = centres.new_tensor([side - 1, side - 1, length - 1]) / 2
    off_centre = half - centres.new_tensor([0, side // 2, side // 2])
    along, across = (
        torch.linspace(-1, 1, n, dtype=centres.dtype, device=centres.device)
        for n in (length, side)
    )
    unit = torch.cartesian_prod(along, across, across).flip(-1)  # x fastest
    turned = unit @ rotations_from_x_axis(edges).transpose(-1, -2)
    return (centres + off_centre)[:, None, None] + half * turned


def rotations_from_x_axis(vectors: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r 3 3"]:
    """Turn +x onto each vector by the smallest rotation; zero vectors turn nothing.

    ``I + [v] + [v]² / (1 + cos)``, v being x cross the vector. It has no limit for vectors
    along -x, where the reference divides by zero; here the divisor is kept off zero.
    """
    x, y, z = functional.normalize(vectors, dim=-1).unbind(dim=-1)
    scale = 1.0 / (1.0 + x).clamp_min(SMALLEST_TURN)
    rows = (
        (1.0 - (y * y + z * z) * scale, -y, -z),
        (y, 1.0 - y * y * scale, -y * z * scale),
        (z, -y * z * scale, 1.0 - z * z * scale),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def sample_grid(
    grid: Float[Tensor, "z y x"], points: Float[Tensor, "*p 3"]
) -> Float[Tensor, "*p"]:
    """Trilinear density at points in voxels (x, y, z); zero outside the grid."""
    size = points.new_tensor(grid.shape[::-1])
    unit = 2.0 * points.reshape(1, -1, 1, 1, 3) / (size - 1) - 1.0
    sampled = functional.grid_sample(grid[None, None], unit, align_corners=True)
    return sampled.reshape(points.shape[:-1])
