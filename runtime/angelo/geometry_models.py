"""Geometry of models: their protein chains as one set of arrays, and new positions put back.

Chains of nucleic acid have no part in it: they stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from angelo.coordinates import MAX_ATOMS, ProteinCoordinates
from angelo.geometry import regularise
from angelo.residues import AMINO_ACIDS
from angelo.types import Model, ModelChain

#: Told of finished rounds and all rounds.
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RegularPositions:
    """Atoms of the models of a run after the geometry step: a stage that is kept."""

    raw: Float32[np.ndarray, "r 14 3"]
    """Of the unpruned model, as in ``protein_from_model``, Å."""
    pruned: Float32[np.ndarray, "p 14 3"] | None
    """Of the pruned model; None: there is none."""


def regularise_models(raw: Model, pruned: Model | None, tell: Tell) -> RegularPositions:
    """Move the atoms of each model to good geometry; see ``angelo.geometry.regularise``."""
    n = 1 if pruned is None else 2

    def regular(model: Model, number: int) -> Float32[np.ndarray, "r 14 3"]:
        protein = protein_from_model(model)
        moved = regularise(
            protein,
            _confidence(model),
            lambda done, total: tell(number * total + done, n * total),
        )
        return moved.positions

    first = regular(raw, 0)
    return RegularPositions(first, None if pruned is None else regular(pruned, 1))


def protein_from_model(model: Model) -> ProteinCoordinates:
    """All amino acids of a model in one set of arrays, in the order of its chains."""
    chains = protein_chains(model)
    n = sum(len(chain) for chain in chains)
    positions = np.zeros((n, MAX_ATOMS, 3), dtype=np.float32)
    has_atom = np.zeros((n, MAX_ATOMS), dtype=np.bool_)
    kinds: list[int] = []
    for chain in chains:
        rows, width = slice(len(kinds), len(kinds) + len(chain)), _width(chain)
        has_atom[rows, :width] = chain.has_atom[:, :width]
        positions[rows, :width] = chain.atom_positions[:, :width]
        kinds += [AMINO_ACIDS.index(kind) for kind in chain.residue_types]
    lengths = [len(chain) for chain in chains]
    numbers = [np.zeros(0, np.int64), *(chain.sequence_positions for chain in chains)]
    return ProteinCoordinates(
        residue_type=np.array(kinds, dtype=np.int64),
        positions=np.where(has_atom[..., None], positions, np.float32(0)),
        has_atom=has_atom,
        chain=np.repeat(np.arange(len(lengths)), lengths),
        chain_names=tuple(chain.name for chain in chains),
        sequence_number=np.concatenate(numbers),
    )


def with_positions(model: Model, positions: Float32[np.ndarray, "r 14 3"]) -> Model:
    """Give the amino acids of a model other positions; all else stays.

    Parameters
    ----------
    model
        Any model.
    positions
        Å, rows and atoms as in ``protein_from_model(model)``.
    """
    chains, start = [], 0
    for chain in model.chains:
        if chain.kind != "protein":
            chains.append(chain)
            continue
        width = _width(chain)
        moved = chain.atom_positions.copy()
        moved[:, :width] = positions[start : start + len(chain), :width]
        chains.append(replace(chain, atom_positions=moved))
        start += len(chain)
    return Model(tuple(chains))


def protein_chains(model: Model) -> list[ModelChain]:
    """Return the chains that are protein, in order."""
    return [chain for chain in model.chains if chain.kind == "protein"]


def _width(chain: ModelChain) -> int:
    """Slots of atoms that count: tables with nucleotides are wider."""
    return min(MAX_ATOMS, int(chain.has_atom.shape[1]))


def _confidence(model: Model) -> Float32[np.ndarray, " r"]:
    none = np.zeros(0, np.float32)
    return np.concatenate([none, *(chain.confidence for chain in protein_chains(model))])
