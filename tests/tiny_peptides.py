"""Peptides of ideal geometry and any torsions."""

from dataclasses import replace

import numpy as np

from angelo.atoms import place_selected_atoms
from angelo.coordinates import ProteinCoordinates
from angelo.frames import rotation_from_backbone
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE
from angelo.types import BackboneFrames, Model, ModelChain

#: phi and psi of the middle of an alpha helix and of a beta strand.
HELIX, STRAND = (-62.0, -42.0), (-120.0, 130.0)


def next_atom(before, length, angle, torsion):
    """The atom bonded to the last of three, with bond angle and torsion in degrees."""
    a, b, c = before
    bond = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, bond)
    normal /= np.linalg.norm(normal)
    angle, torsion = np.deg2rad(angle), np.deg2rad(torsion)
    return c + length * (
        -np.cos(angle) * bond
        + np.sin(angle) * np.cos(torsion) * np.cross(normal, bond)
        + np.sin(angle) * np.sin(torsion) * normal
    )


def make_peptide(letters, phi_psi=HELIX, omega=180.0, chi1=-60.0):
    """One chain; torsions are one value for all residues or one for each."""
    n = len(letters)
    phi, psi = np.broadcast_to(np.asarray(phi_psi, float), (n, 2)).T
    omega, chi1 = np.broadcast_to(omega, n), np.broadcast_to(chi1, n)
    trace = [np.zeros(3), np.array([1.459, 0, 0])]  # N, CA, C of one residue after another
    trace.append(next_atom([np.array([0, 1.0, 0]), *trace], 1.525, 111.0, phi[0]))
    for i in range(1, n):
        is_cis_proline = letters[i] == "P" and abs(omega[i]) < 90
        turn = 127.0 if is_cis_proline else 119.3 if letters[i] == "P" else 121.7
        trace.append(next_atom(trace[-3:], 1.336, 117.2, psi[i - 1]))
        trace.append(next_atom(trace[-3:], 1.459, turn, omega[i]))
        trace.append(next_atom(trace[-3:], 1.525, 111.0, phi[i]))
    backbone = np.array(trace, np.float32).reshape(n, 3, 3)
    frames = BackboneFrames(
        rotation_from_backbone(*np.moveaxis(backbone, 1, 0)), backbone[:, 1].copy()
    )
    degrees = np.full((n, 8), 180.0)
    degrees[:, 2], degrees[:, 3] = psi, chi1
    is_proline = np.array([letter == "P" for letter in letters])
    degrees[is_proline, 3:5] = 28.0, -36.0  # a closed ring
    radians = np.deg2rad(degrees)
    pairs = np.stack([np.sin(radians), np.cos(radians)], axis=-1).astype(np.float32)
    types = np.array([AMINO_ACIDS.index(NAME_FROM_CODE[letter]) for letter in letters])
    positions, has_atom = place_selected_atoms(frames, pairs, types)
    return ProteinCoordinates(
        residue_type=types,
        positions=positions,
        has_atom=has_atom,
        chain=np.zeros(n, np.int64),
        chain_names=("A",),
        sequence_number=np.arange(1, n + 1),
    )


def moved(protein, shift):
    """All present atoms shifted: by one vector, one a residue, or one an atom."""
    shift = np.asarray(shift, np.float32)
    shift = shift.reshape(shift.shape[:-1] + (1,) * (3 - shift.ndim) + (3,))
    positions = np.where(protein.has_atom[..., None], protein.positions + shift, 0)
    return replace(protein, positions=positions.astype(np.float32))


def sure(protein, confidence=100.0):
    """The same confidence for every residue."""
    return np.full(len(protein), confidence, np.float32)


def joined(*proteins):
    """Several as the chains of one."""
    chains = [np.full(len(protein), k) for k, protein in enumerate(proteins)]
    rows = {
        name: np.concatenate([getattr(protein, name) for protein in proteins])
        for name in ("residue_type", "positions", "has_atom", "sequence_number")
    }
    names = tuple("ABCDEFGH"[: len(proteins)])
    return ProteinCoordinates(chain=np.concatenate(chains), chain_names=names, **rows)


def model_of(protein, confidence=100.0):
    """A model of one chain."""
    n = len(protein)
    return Model(
        (
            ModelChain(
                name="A",
                sequence=-1,
                sequence_positions=protein.sequence_number,
                residue_types=tuple(AMINO_ACIDS[kind] for kind in protein.residue_type),
                atom_positions=protein.positions,
                has_atom=protein.has_atom,
                confidence=np.full(n, confidence, np.float32),
                aa_probability=np.ones(n, np.float32),
            ),
        )
    )
