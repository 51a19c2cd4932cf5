"""Atoms in torch: equal to the runtime's, and an error that knows which names are alike."""

import numpy as np
import pytest
import torch

from angelo.atoms import place_selected_atoms, select_torsions
from angelo.frames import random_rotations
from angelo.residues import AMINO_ACIDS, residues_of
from angelo.types import BackboneFrames
from angelo_training.all_atom import atom_error, geometry_tables, pick_torsions, place_atoms

N_TORSIONS = 3 + 5 * 20


@pytest.fixture
def residues():
    """Three residues of each type: frames, torsions of all types, types."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(20), 3)
    frames = BackboneFrames(
        random_rotations(60, rng), rng.normal(scale=20, size=(60, 3)).astype(np.float32)
    )
    torsions = rng.normal(size=(60, N_TORSIONS, 2)).astype(np.float32)
    return frames, torsions, kinds


def placed(frames, torsions, kinds):
    selected = pick_torsions(torch.from_numpy(torsions), torch.from_numpy(kinds), 20)
    unit = selected / selected.norm(dim=-1, keepdim=True)
    rotation, ca = torch.from_numpy(frames.rotation), torch.from_numpy(frames.ca)
    return unit, place_atoms(rotation, ca, unit, torch.from_numpy(kinds))


def test_torsions_are_picked_as_the_runtime_does(residues):
    _, torsions, kinds = residues
    unit, _ = placed(*residues)
    np.testing.assert_allclose(unit, select_torsions(torsions, kinds, 20), atol=1e-6)


def test_atoms_are_placed_as_the_runtime_does(residues):
    frames, _, kinds = residues
    unit, atoms = placed(*residues)
    expected, has_atom = place_selected_atoms(frames, unit.numpy(), kinds)
    np.testing.assert_allclose(atoms.numpy()[has_atom], expected[has_atom], atol=5e-5)
    assert has_atom.sum() == 3 * sum(len(kind.atoms) for kind in residues_of(AMINO_ACIDS))


def test_torsions_feel_the_atoms(residues):
    frames, torsions, kinds = residues
    leaf = torch.from_numpy(torsions).requires_grad_()
    selected = pick_torsions(leaf, torch.from_numpy(kinds), 20)
    rotation, ca = torch.from_numpy(frames.rotation), torch.from_numpy(frames.ca)
    place_atoms(rotation, ca, selected, torch.from_numpy(kinds)).square().sum().backward()
    arginine = 3 * AMINO_ACIDS.index("ARG")
    own = leaf.grad[arginine, 3:].reshape(5, 20, 2)
    assert (own[:4, AMINO_ACIDS.index("ARG")].abs().sum(-1) > 0).all()
    assert (own[:, AMINO_ACIDS.index("LYS")] == 0).all()


def test_errors_are_distances_and_clamped():
    kinds = torch.tensor([AMINO_ACIDS.index("ALA")])
    truth = torch.zeros(1, 14, 3)
    has_atom = torch.arange(14)[None] < 2
    predicted = truth.clone()
    predicted[0, 0, 0], predicted[0, 1, 1] = 3.0, 40.0
    predicted[0, 5] = 1000.0  # not there
    assert float(atom_error(predicted, truth, has_atom, kinds)) == pytest.approx(
        (3 + 5) / 2, 1e-3
    )
    nothing = torch.zeros(1, 14, dtype=torch.bool)
    assert float(atom_error(predicted, truth, nothing, kinds)) == 0


@pytest.mark.parametrize(("name", "pairs"), [("ASP", 1), ("PHE", 2), ("LEU", 0)])
def test_interchangeable_names_cost_nothing(name, pairs):
    residue = residues_of(AMINO_ACIDS)[AMINO_ACIDS.index(name)]
    kinds = torch.tensor([AMINO_ACIDS.index(name)])
    width = geometry_tables().swapped.shape[1]
    torch.manual_seed(0)
    truth = torch.randn(1, width, 3)
    has_atom = torch.arange(width)[None] < len(residue.atoms)
    assert len(residue.swaps) == pairs
    swapped = truth.clone()
    for first, second in residue.swaps or (("CD1", "CD2"),):
        i, j = residue.index(first), residue.index(second)
        swapped[0, [i, j]] = truth[0, [j, i]]
    error = float(atom_error(swapped, truth, has_atom, kinds))
    assert error == pytest.approx(0.01, abs=1e-4) if pairs else error > 0.05
    assert float(atom_error(truth, truth, has_atom, kinds)) == pytest.approx(0.01, abs=1e-4)


def test_one_swapped_pair_of_two_is_an_error():
    residue = residues_of(AMINO_ACIDS)[AMINO_ACIDS.index("PHE")]
    kinds = torch.tensor([AMINO_ACIDS.index("PHE")])
    torch.manual_seed(0)
    truth = torch.randn(1, geometry_tables().swapped.shape[1], 3)
    has_atom = torch.arange(truth.shape[1])[None] < len(residue.atoms)
    half = truth.clone()
    i, j = residue.index("CD1"), residue.index("CD2")
    half[0, [i, j]] = truth[0, [j, i]]
    assert float(atom_error(half, truth, has_atom, kinds)) > 0.05
