"""Atoms from torsions in torch, for the all-atom loss; ``angelo.atoms`` is the reference."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from angelo.residues import AMINO_ACIDS, N_SHARED_TORSIONS, residues_of


class GeometryTables(NamedTuple):
    """Rigid groups of the 20 amino acids, padded to one size; t types, g groups, a atoms."""

    torsion: Int[Tensor, "t g"]
    parent: Int[Tensor, "t g"]
    rotation: Float[Tensor, "t g 3 3"]
    origin: Float[Tensor, "t g 3"]
    atom_group: Int[Tensor, "t a"]
    atom_local: Float[Tensor, "t a 3"]
    swapped: Int[Tensor, "t a"]


@lru_cache(maxsize=2)
def geometry_tables(device: str = "cpu") -> GeometryTables:
    """Tables from ``angelo.residues``; group 0 is the backbone."""
    residues = residues_of(AMINO_ACIDS)
    n_groups = max(len(residue.groups) for residue in residues)
    n_atoms = max(len(residue.atoms) for residue in residues)
    shape = (len(residues), n_groups)
    torsion, parent = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rotation = np.broadcast_to(np.eye(3, dtype=np.float32), (*shape, 3, 3)).copy()
    origin = np.zeros((*shape, 3), np.float32)
    atom_group = np.zeros((len(residues), n_atoms), np.int64)
    atom_local = np.zeros((len(residues), n_atoms, 3), np.float32)
    swapped = np.broadcast_to(np.arange(n_atoms), (len(residues), n_atoms)).copy()
    for t, residue in enumerate(residues):
        for g, group in enumerate(residue.groups):
            torsion[t, g], parent[t, g] = group.torsion, group.parent + 1
            rotation[t, g], origin[t, g] = group.rotation, group.origin
        atom_group[t, : len(residue.atoms)] = np.array(residue.atom_group) + 1
        atom_local[t, : len(residue.atoms)] = residue.atom_local
        for first, second in residue.swaps:
            i, j = residue.index(first), residue.index(second)
            swapped[t, [i, j]] = j, i
    arrays = (torsion, parent, rotation, origin, atom_group, atom_local, swapped)
    return GeometryTables(*(torch.from_numpy(a).to(device) for a in arrays))


def pick_torsions(
    torsions: Float[Tensor, "r s 2"], kinds: Int[Tensor, " r"], n_types: int
) -> Float[Tensor, "r 8 2"]:
    """Torsions of each residue's own type, as predicted (``angelo.atoms.select_torsions``)."""
    own = torsions[:, N_SHARED_TORSIONS:].reshape(len(torsions), -1, n_types, 2)
    index = kinds[:, None, None, None].expand(-1, own.shape[1], 1, 2)
    return torch.cat((torsions[:, :N_SHARED_TORSIONS], own.gather(2, index)[:, :, 0]), dim=1)


def place_atoms(
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    selected: Float[Tensor, "r 8 2"],
    kinds: Int[Tensor, " r"],
) -> Float[Tensor, "r a 3"]:
    """All heavy atoms; ``selected`` are unit (sin, cos) pairs."""
    tables = geometry_tables(str(positions.device))
    r = len(kinds)
    placed_rotation = [torch.eye(3, device=positions.device).expand(r, 3, 3)]
    placed_origin = [torch.zeros(r, 3, device=positions.device)]
    rows = torch.arange(r, device=positions.device)
    for g in range(tables.torsion.shape[1]):
        sin, cos = selected[rows, tables.torsion[kinds, g]].unbind(-1)
        zero, one = torch.zeros_like(sin), torch.ones_like(sin)
        turn = torch.stack((one, zero, zero, zero, cos, -sin, zero, sin, cos), -1).reshape(
            r, 3, 3
        )
        parent = tables.parent[kinds, g]
        rotation = torch.stack(placed_rotation, 1)[rows, parent]
        origin = torch.stack(placed_origin, 1)[rows, parent]
        placed_rotation.append(rotation @ tables.rotation[kinds, g] @ turn)
        placed_origin.append((rotation @ tables.origin[kinds, g][..., None])[..., 0] + origin)
    group = tables.atom_group[kinds]  # r a
    rotation = torch.stack(placed_rotation, 1)[rows[:, None], group]
    origin = torch.stack(placed_origin, 1)[rows[:, None], group]
    local = (rotation @ tables.atom_local[kinds][..., None])[..., 0] + origin
    return local @ rotations.transpose(-1, -2) + positions[:, None]


def atom_error(
    predicted: Float[Tensor, "r a 3"],
    truth: Float[Tensor, "r a 3"],
    has_atom: Bool[Tensor, "r a"],
    kinds: Int[Tensor, " r"],
    limit: float = 5.0,
) -> Float[Tensor, ""]:
    """Mean clamped atom distance, Å; of interchangeable names the better naming counts."""
    swapped = geometry_tables(str(predicted.device)).swapped[kinds]
    renamed = truth.gather(1, swapped[..., None].expand(-1, -1, 3))
    has_renamed = has_atom.gather(1, swapped)

    def per_residue(target: Tensor, mask: Tensor) -> Tensor:
        distance = (predicted - target).square().sum(-1).add(1e-4).sqrt().clamp(max=limit)
        return (distance * mask).sum(1)

    best = torch.minimum(per_residue(truth, has_atom), per_residue(renamed, has_renamed))
    return best.sum() / has_atom.sum().clamp(min=1)
