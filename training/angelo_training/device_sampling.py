"""``angelo.sampling`` in torch, for training: many times faster with threads or on a GPU."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from angelo.sampling import SHORTEST_EDGE, cube_offsets


def _unit_scale(values_zyx: Tensor) -> Tensor:
    """Voxels to what ``grid_sample`` counts in, where the grid reaches from -1 to 1: (3,)."""
    n_z, n_y, n_x = values_zyx.shape
    return 2 / torch.tensor([n_x - 1.0, n_y - 1.0, n_z - 1.0], device=values_zyx.device)


def _sample_unit(values_zyx: Tensor, unit: Tensor) -> Tensor:
    """Trilinear density at points that reach from -1 to 1 over the grid; zero outside."""
    sampled = functional.grid_sample(
        values_zyx[None, None],
        unit.reshape(1, 1, 1, -1, 3),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
    return sampled.reshape(unit.shape[:-1])


def sample_cubes(
    values_zyx: Float[Tensor, "z y x"],
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    side: int,
    spacing: float,
) -> Float[Tensor, "r p"]:
    """Cubes in residue frames; positions in voxels of 1 Å from the first voxel."""
    offsets = torch.from_numpy(cube_offsets(side, spacing)).to(positions.device)
    # Few frames are scaled instead of many points.
    scale = _unit_scale(values_zyx)
    turn = rotations.transpose(-1, -2) * scale
    centres = (positions * scale - 1)[:, None]
    return _sample_unit(
        values_zyx, torch.baddbmm(centres, offsets.expand(len(turn), -1, 3), turn)
    )


def sample_edge_rectangles(
    values_zyx: Float[Tensor, "z y x"],
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    neighbours: Int[Tensor, "r k"],
    length: int,
    side: int,
    spacing: float,
) -> Float[Tensor, "r k p"]:
    """Boxes along edges, as ``angelo.sampling.sample_edge_rectangles`` has them."""
    start = positions[:, None]
    edge = positions[neighbours] - start
    distance = torch.linalg.vector_norm(edge, dim=-1, keepdim=True)
    along = edge / distance.clamp(min=SHORTEST_EDGE)
    e1 = rotations[:, None, :, 0].expand_as(along)
    e2 = rotations[:, None, :, 1].expand_as(along)
    parallel = (e1 * along).sum(-1, keepdim=True).abs() > 0.95
    seed = torch.where(parallel, e2, e1)
    across = functional.normalize(seed - (seed * along).sum(-1, keepdim=True) * along, dim=-1)
    up = torch.linalg.cross(along, across)
    ticks = (torch.arange(side, device=positions.device) - (side - 1) / 2) * spacing
    steps = torch.linspace(0, 1, length, device=positions.device)
    scale = _unit_scale(values_zyx)
    start, edge, across, up = start * scale - 1, edge * scale, across * scale, up * scale
    centres = start[:, :, None] + steps[:, None] * edge[:, :, None]
    cross = (
        ticks[:, None, None] * across[:, :, None, None] + ticks[:, None] * up[:, :, None, None]
    )
    points = centres[:, :, :, None, None] + cross[:, :, None]
    values = _sample_unit(values_zyx, points)
    return values.reshape(*neighbours.shape, length * side * side)
