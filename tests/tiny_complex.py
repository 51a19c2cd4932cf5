"""A protein with DNA and RNA: real frames and torsions, and what a network might say of them.

Zif268 bound to its site (PDB 1AAY, in part), and an RNA hairpin beside them (of 1A9N).
"""

from functools import cache
from pathlib import Path

import numpy as np

from angelo.frames import rotation_from_backbone
from angelo.neighbours import nearest_residues
from angelo.residues import N_SHARED_TORSIONS, RESIDUE_TYPES
from angelo.types import BackboneFrames, Refinement, SequenceRecord

#: The parts in their order, and the first residue's 0-based position in its sequence.
PROTEIN, FORWARD, BACKWARD, HAIRPIN = range(4)
RECORDS = (
    SequenceRecord("zif268", "MERPYACPVESCDRRFSRSDELTRHIRIHTGQK"),
    SequenceRecord("forward", "AGCGTGGGCGT", kind="dna"),
    SequenceRecord("backward", "TACGCCCACGC", kind="dna"),
    SequenceRecord("hairpin", "CCUGGUAUUGCAGUACCUCCAGGU", kind="rna"),
)
FIRST = (2, 1, 1, 1)
#: Logit of a sure type, and of the other base of its ring size where that is nearly as likely.
SURE, ALMOST = 6.0, 5.0


@cache
def parts() -> dict[str, np.ndarray]:
    """Arrays of the file."""
    with np.load(Path(__file__).parent / "data" / "nucleic_complex.npz") as file:
        return dict(file.items())


def complex_refinement(*wanted: int, confused: bool = False, seed: int = 0) -> Refinement:
    """What a network would say of the parts, in an order of its own.

    ``confused``: every other base is taken for the other one of its ring size, and DNA is
    hardly told from RNA.
    """
    data = parts()
    rows = np.flatnonzero(np.isin(data["part"], wanted or range(4)))
    rows = np.random.default_rng(seed).permutation(rows)
    kinds, places = data["kind"][rows].astype(np.int64), data["places"][rows]
    n, n_types = len(rows), len(RESIDUE_TYPES)
    torsions = np.zeros((n, N_SHARED_TORSIONS + 5 * n_types, 2), np.float32)
    torsions[:, :N_SHARED_TORSIONS] = data["torsions"][rows, :N_SHARED_TORSIONS]
    for column in range(5):  # whatever the type: chains may be given another one
        own = slice(
            N_SHARED_TORSIONS + column * n_types, N_SHARED_TORSIONS + (column + 1) * n_types
        )
        torsions[:, own] = data["torsions"][rows, N_SHARED_TORSIONS + column, None]
    rotation = rotation_from_backbone(*np.moveaxis(places, 1, 0))
    neighbours = nearest_residues(places[:, 1].copy(), 20)
    is_padding = neighbours == np.arange(n)[:, None]
    return Refinement(
        frames=BackboneFrames(rotation, places[:, 1].copy()),
        aa_logits=_logits(kinds, rows, confused),
        torsions=torsions,
        predicted_error=np.full(n, 0.5, np.float32),
        existence=np.full(n, 0.9, np.float32),
        neighbours=neighbours,
        next_probability=np.where(is_padding, 0, 0.5).astype(np.float32),
        is_protein=kinds < 20,
    )


def _logits(kinds: np.ndarray, rows: np.ndarray, confused: bool) -> np.ndarray:
    logits = np.zeros((len(kinds), len(RESIDUE_TYPES)), np.float32)
    for i, (kind, row) in enumerate(zip(kinds, rows, strict=True)):
        logits[i, kind] = SURE
        if kind >= 20 and confused:
            base, polymer = (kind - 20) % 4, (kind - 20) // 4
            partner = (base + 2) % 4  # A and G, C and T
            best, second = (partner, base) if row % 2 else (base, partner)
            for same, share in ((polymer, 0.0), (1 - polymer, -0.5)):
                logits[i, 20 + 4 * same + best] = SURE + share
                logits[i, 20 + 4 * same + second] = ALMOST + share
    return logits


def true_rows(refinement: Refinement) -> np.ndarray:
    """Row of the file for each residue, by its place."""
    places = parts()["places"][:, 1]
    away = np.linalg.norm(refinement.frames.ca[:, None] - places[None], axis=-1)
    return away.argmin(axis=1)
