"""Data contracts passed between stages. Lengths in Å, arrays float32, xyz order.

The flow is one way: ``Density`` -> ``Calphas`` -> ``Refinement`` -> ``Chain`` list ->
``Assignment`` list -> ``Model``. Nothing here is changed in place; use ``dataclasses.replace``.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from angelo.residues import Kind, residue_table

#: Largest departure of RᵀR from the identity accepted in a frame.
ORTHONORMAL_ATOL = 1e-4


@dataclass(frozen=True, slots=True)
class Density:
    """A map on an orthogonal grid, with its place in space."""

    values_zyx: Float32[np.ndarray, "z y x"]
    """Density, arbitrary units, axes z, y, x."""
    voxel_size: Float32[np.ndarray, "3"]
    """Edges of a voxel along x, y, z, Å."""
    origin: Float32[np.ndarray, "3"]
    """Position of the centre of voxel (0, 0, 0), Å, map coordinates."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.voxel_size).all() and (self.voxel_size > 0).all()):
            raise ValueError(f"voxel size must be positive, got {self.voxel_size}")


@dataclass(frozen=True, slots=True)
class Calphas:
    """C-alpha candidates, and what else the network said of them.

    With networks that know nucleotides also phosphorus candidates: see ``is_protein``.
    """

    positions: Float32[np.ndarray, "r 3"]
    """Å, map coordinates (origin applied)."""
    probability: Float32[np.ndarray, " r"]
    """That a C-alpha is there, in [0, 1]."""
    rotation: Float32[np.ndarray, "r 3 3"] | None = None
    """Frames from the predicted N and C directions (residue axes as columns), if predicted."""
    aa_logits: Float32[np.ndarray, "r t"] | None = None
    """Amino-acid logits in the bundle's residue order, if predicted."""
    is_protein: Bool[np.ndarray, " r"] | None = None
    """Whether it is an amino acid rather than a nucleotide; None: all are."""

    def __len__(self) -> int:
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class BackboneFrames:
    """One rigid frame per residue.

    ``x_map = rotation @ x_residue + ca``, columns of ``rotation`` being the residue axes:
    e1 along CA->C, e2 the part of CA->N normal to e1, e3 = e1 x e2. In a nucleotide P takes
    the place of CA, OP2 that of C, and OP1 that of N.
    """

    rotation: Float32[np.ndarray, "r 3 3"]
    """Proper rotations, residue axes as columns."""
    ca: Float32[np.ndarray, "r 3"]
    """C-alpha positions, Å, map coordinates (origin applied)."""

    def __post_init__(self) -> None:
        gram = np.swapaxes(self.rotation, -1, -2) @ self.rotation
        off = float(np.abs(gram - np.eye(3, dtype=np.float32)).max(initial=0.0))
        if off > ORTHONORMAL_ATOL:
            raise ValueError(f"rotation is not orthonormal: |RᵀR - I| reaches {off:.1e}")

    def __len__(self) -> int:
        return len(self.ca)


@dataclass(frozen=True, slots=True)
class Refinement:
    """What the graph network says of every residue, before chains exist."""

    frames: BackboneFrames
    """Final backbone frames."""
    aa_logits: Float32[np.ndarray, "r t"]
    """Amino-acid logits, columns in the bundle's residue order."""
    torsions: Float32[np.ndarray, "r s 2"]
    """(sin, cos) of every torsion the network predicts; layout in ``angelo.atoms``."""
    predicted_error: Float32[np.ndarray, " r"]
    """Predicted backbone error, Å; small is good."""
    existence: Float32[np.ndarray, " r"]
    """Probability that the residue is real, in [0, 1]."""
    neighbours: Int64[np.ndarray, "r k"]
    """Nearest residues, nearest first; a residue's own index pads rows that have too few."""
    next_probability: Float32[np.ndarray, "r k"]
    """Probability that each neighbour is the following residue (bonded at this one's C)."""
    is_protein: Bool[np.ndarray, " r"] | None = None
    """Whether it is an amino acid rather than a nucleotide; None: all are."""

    def __len__(self) -> int:
        return len(self.aa_logits)


@dataclass(frozen=True, slots=True)
class Chain:
    """Residues linked by peptide bonds, N to C, or nucleotides by phosphates, 5' to 3'."""

    residues: Int64[np.ndarray, " c"]
    """Indices into the Refinement, in that order."""

    def __len__(self) -> int:
        return len(self.residues)


@dataclass(frozen=True, slots=True)
class SequenceRecord:
    """One FASTA record, cleaned; positions count from 0 and never shift."""

    name: str
    """First word of the header, or a made-up one for an unnamed record."""
    residues: str
    """Upper-case one-letter codes; anything not one of the 20 is X (of nucleic acid, of the
    four: N)."""
    copies: int = 1
    """How many identical records of the file this one stands for."""
    kind: Kind = "protein"
    """Which polymer it is."""

    def __len__(self) -> int:
        return len(self.residues)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a chain was not placed, although it fits somewhere."""

    sequence: int
    """Index of the sequence record that it fits best."""
    first: int
    """Number (from 1) of the first residue there."""
    last: int
    """Number of the last one."""
    score: float
    """Alignment score, bits."""
    e_value: float
    """Expected number of chance matches as good."""
    rival: tuple[int, int, float] | None = None
    """Record, first residue and score of a place that fits nearly as well; None: there is
    none, but chance would give as good a match too often."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A chain placed on a sequence."""

    chain: Chain
    """The chain (after joining, possibly of several traced fragments)."""
    sequence: int
    """Index of the sequence record; -1 when no sequence matched."""
    positions: Int64[np.ndarray, " c"]
    """For each residue of the chain its 0-based position in the sequence; -1: not matched."""
    score: float
    """Alignment score, bits; 0 when nothing matched."""
    e_value: float
    """Expected number of chance matches as good; inf when nothing matched."""
    doubt: Doubt | None = None
    """Where a chain that did not match might belong."""
    number_probability: Float64[np.ndarray, " c"] | None = None
    """How likely each residue is the one of the position that it was placed at, see
    ``angelo.register``; 0 where it was not placed; None: not judged."""

    def only(self, rows: Int64[np.ndarray, " k"]) -> "Assignment":
        """Return the same with some of the residues of the chain (k of c)."""
        sure = self.number_probability
        return replace(
            self,
            chain=Chain(self.chain.residues[rows]),
            positions=self.positions[rows],
            number_probability=None if sure is None else sure[rows],
        )


@dataclass(frozen=True, slots=True)
class ModelChain:
    """One polymer chain with atoms, ready to be written."""

    name: str
    """Chain name (label_asym_id and auth_asym_id)."""
    sequence: int
    """Index of the sequence record, or -1: its entity is then the chain's own residues."""
    sequence_positions: Int64[np.ndarray, " c"]
    """1-based residue numbers (label_seq_id and auth_seq_id), increasing."""
    residue_types: tuple[str, ...]
    """Three-letter codes; of nucleotides one letter (RNA) or two (DNA)."""
    atom_positions: Float32[np.ndarray, "c a 3"]
    """Å, map coordinates; atoms in the order of ``angelo.residues`` for each type."""
    has_atom: Bool[np.ndarray, "c a"]
    """Which of the ``a`` slots hold an atom."""
    confidence: Float32[np.ndarray, " c"]
    """0 to 100, high is good: 100 * clip((1.2 - predicted error in Å) / 0.7, 0, 1)."""
    aa_probability: Float32[np.ndarray, " c"]
    """Network probability of the written residue type."""
    number_probability: Float32[np.ndarray, " c"] | None = None
    """How likely each residue is the one of its number in the sequence, see
    ``angelo.register``; 0 where the number is not that of a place in it; None: the chain is
    not placed, or not judged."""

    @property
    def kind(self) -> Kind:
        """Which polymer it is."""
        return residue_table()[self.residue_types[0]].kind

    def __len__(self) -> int:
        return len(self.residue_types)


@dataclass(frozen=True, slots=True)
class Model:
    """All chains of one output file."""

    chains: tuple[ModelChain, ...]
    """In the order in which they are written."""

    @property
    def n_residues(self) -> int:
        """Residues in all chains."""
        return sum(len(chain) for chain in self.chains)
