"""Distances between the backbone atoms of neighbours, as features."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from angelo_export.networks.blocks import SinusoidalEncoding, to_global

#: N, CA, C of alanine in the residue's axes, angstrom: the table of AlphaFold2
#: (doi:10.1038/s41586-021-03819-2), which official weights use for every amino acid.
PROTEIN_ATOMS = ((-0.525, 1.363, 0.0), (0.0, 0.0, 0.0), (1.526, 0.0, 0.0))
#: OP1, P, OP2 of a nucleotide, which stand in for N, CA, C; ModelAngelo's table.
NUCLEOTIDE_ATOMS = ((-0.7319, 1.2920, 0.0), (0.0, 0.0, 0.0), (1.4855, 0.0, 0.0))
#: Distances of each neighbour: CA to its N, CA and C; N to its C; C to its N.
N_DISTANCES = 5


class NeighbourDistances(nn.Module):
    """Features, widened by an embedding of the distances to all neighbours.

    The number of neighbours is fixed, for nearest, second nearest and so on have weights of
    their own.
    """

    def __init__(self, neighbours: int, width: int, encoding: int = 20) -> None:
        super().__init__()
        self.distance_encoding = SinusoidalEncoding(encoding)
        self.ne = nn.Linear(N_DISTANCES * neighbours * encoding, width, bias=False)

    def forward(
        self,
        features: Float[Tensor, "r h"],
        atoms: Float[Tensor, "r 3 3"],
        neighbours: Int[Tensor, "r k"],
    ) -> Float[Tensor, "r i"]:
        """Features and the embedding of distances between ``atoms`` (N, CA, C, angstrom)."""
        n, ca, c = atoms[:, None].unbind(dim=2)  # each r 1 3
        other = atoms[neighbours]  # r k 3 3
        from_ca = torch.linalg.vector_norm(other - ca[:, :, None], dim=-1)  # r k 3
        n_to_c = torch.linalg.vector_norm(other[:, :, 2] - n, dim=-1)  # r k
        c_to_n = torch.linalg.vector_norm(other[:, :, 0] - c, dim=-1)
        distances = torch.cat((from_ca.flatten(1), n_to_c, c_to_n), dim=1)
        embedding = self.ne(self.distance_encoding(distances).flatten(1))
        return torch.cat((features, embedding), dim=1)


def backbone_of_frames(
    rotations: Float[Tensor, "r 3 3"],
    positions: Float[Tensor, "r 3"],
    is_protein: Bool[Tensor, " r"],
) -> Float[Tensor, "r 3 3"]:
    """N, CA, C of protein residues and OP1, P, OP2 of nucleotides, angstrom."""
    protein, nucleotide = positions.new_tensor((PROTEIN_ATOMS, NUCLEOTIDE_ATOMS))
    local = torch.where(is_protein[:, None, None], protein, nucleotide)
    return to_global(rotations, positions, local)
