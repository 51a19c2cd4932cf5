"""Read the protein of a coordinate file into arrays. Å, file coordinates."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Bool, Float32, Int64

from angelo.errors import ModelFileError, NoProteinError
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE, residues_of

logger = logging.getLogger(__name__)

#: Most heavy atoms of an amino acid residue (tryptophan).
MAX_ATOMS = 14
#: Columns of N, CA, C, O and CB, the same for every amino acid.
N, CA, C, O, CB = range(5)  # noqa: E741 (the atom's name)
#: Longest C-N distance that counts as a peptide bond, Å; the longest that tracing accepts.
MAX_PEPTIDE_BOND = 2.6
#: Longest C-alpha distance of neighbours in a chain, Å, for models without N or C.
MAX_CALPHA_STEP = 4.5
#: Amino acids beyond the 20 that a table of parent residues lists under their own letter.
PARENTS = {"SEC": "CYS", "PYL": "LYS"}
#: Atoms of modified residues that stand for an atom of the parent.
RENAMED_ATOMS = {("MET", "SE"): "SD", ("CYS", "SE"): "SG"}


@dataclass(frozen=True, slots=True)
class ProteinCoordinates:
    """The amino-acid residues of a coordinate file that have a C-alpha, in file order."""

    residue_type: Int64[np.ndarray, " r"]
    """Index into ``angelo.residues.AMINO_ACIDS``, modified residues as their parents; -1 for
    an amino acid without one."""
    positions: Float32[np.ndarray, "r 14 3"]
    """Å; atoms in the order of ``angelo.residues`` (type -1: of alanine), 0 where missing."""
    has_atom: Bool[np.ndarray, "r 14"]
    """Which atoms the file holds."""
    chain: Int64[np.ndarray, " r"]
    """Index into ``chain_names``."""
    chain_names: tuple[str, ...]
    """Author chain names."""
    sequence_number: Int64[np.ndarray, " r"]
    """Author residue numbers, insertion codes left out."""

    def __len__(self) -> int:
        return len(self.residue_type)

    @property
    def calphas(self) -> Float32[np.ndarray, "r 3"]:
        """C-alpha positions, Å."""
        return self.positions[:, CA]

    @property
    def follows_previous(self) -> Bool[np.ndarray, " r"]:
        """Whether a residue is bonded to the one before it.

        True within a chain when C-N is at most ``MAX_PEPTIDE_BOND``; where either atom is
        missing, when the C-alphas are at most ``MAX_CALPHA_STEP`` apart.
        """
        before, here = self.positions[:-1], self.positions[1:]
        has_bond_atoms = self.has_atom[:-1, C] & self.has_atom[1:, N]
        bond = np.linalg.norm(here[:, N] - before[:, C], axis=-1)
        step = np.linalg.norm(here[:, CA] - before[:, CA], axis=-1)
        is_near = np.where(has_bond_atoms, bond <= MAX_PEPTIDE_BOND, step <= MAX_CALPHA_STEP)
        follows = np.zeros(len(self), dtype=np.bool_)
        follows[1:] = (self.chain[1:] == self.chain[:-1]) & is_near
        return follows


def read_structure(path: Path) -> ProteinCoordinates:
    """Read the protein of an mmCIF or PDB file (also .gz); of several models, the first.

    Of a residue's alternative locations the one with the highest mean occupancy is read (the
    first of equals), and of alternative residues at one place the first. Free
    amino acids (ligands), nucleotides, water and hydrogens are left out. Modified residues
    count as their parents: MSE is MET.

    Raises
    ------
    ModelFileError
        If the file cannot be read, or no amino-acid residue in it has a C-alpha.
    """
    model = read_model(path)
    rows, chain_names = list(_residues(model)), [chain.name for chain in model]
    if not rows:
        raise NoProteinError(
            f"{path}: no amino-acid residue has a C-alpha; give a file with a protein model"
        )
    type_of_row, atoms_of_row, chain_of_row, number_of_row = zip(*rows, strict=True)
    logger.debug("%s: %d residues in %d chains", path, len(rows), len(set(chain_of_row)))
    positions = np.zeros((len(rows), MAX_ATOMS, 3), dtype=np.float32)
    has_atom = np.zeros((len(rows), MAX_ATOMS), dtype=np.bool_)
    row_of_atom = np.repeat(np.arange(len(rows)), [len(atoms) for atoms in atoms_of_row])
    slots = np.array([slot for atoms in atoms_of_row for slot in atoms], dtype=np.int64)
    positions[row_of_atom, slots] = [
        place for atoms in atoms_of_row for place in atoms.values()
    ]
    has_atom[row_of_atom, slots] = True
    used = {index: rank for rank, index in enumerate(dict.fromkeys(chain_of_row))}
    return ProteinCoordinates(
        residue_type=np.array(type_of_row, dtype=np.int64),
        positions=positions,
        has_atom=has_atom,
        chain=np.array([used[index] for index in chain_of_row], dtype=np.int64),
        chain_names=tuple(chain_names[index] for index in used),
        sequence_number=np.array(number_of_row, dtype=np.int64),
    )


def read_model(path: Path) -> gemmi.Model:
    """Read the first model of a coordinate file. Raises ModelFileError if there is none."""
    try:
        structure = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(
            f"{path}: cannot be read as mmCIF or PDB ({reason}); give a coordinate file"
        ) from None
    if len(structure) == 0:
        raise ModelFileError(
            f"{path}: holds no atoms; give an mmCIF or PDB coordinate file with a model"
        )
    structure.setup_entities()
    return structure[0]


def _residues(
    model: gemmi.Model,
) -> Iterator[tuple[int, dict[int, list[float]], int, int]]:
    """Type, atoms by slot, chain and number of each residue that counts."""
    slots = [
        {atom: slot for slot, atom in enumerate(residue.atoms)}
        for residue in residues_of(AMINO_ACIDS)
    ]
    number_of_type = {name: number for number, name in enumerate(AMINO_ACIDS)}
    for chain_index, chain in enumerate(model):
        for residue in chain.first_conformer():
            if not _is_in_polymer(residue):
                continue
            parent = _parent(residue.name)
            slot_of_atom = slots[number_of_type[parent or "ALA"]]
            atoms: dict[int, list[float]] = {}
            for atom in _one_location(residue):
                name = RENAMED_ATOMS.get((parent or "", atom.name), atom.name)
                place = atom.pos.tolist()
                if (slot := slot_of_atom.get(name)) is not None and np.isfinite(place).all():
                    atoms.setdefault(slot, place)
            if CA in atoms:
                number = number_of_type[parent] if parent else -1
                yield number, atoms, chain_index, residue.seqid.num or 0


def _is_in_polymer(residue: gemmi.Residue) -> bool:
    """Whether the residue is an amino acid of a chain rather than a ligand."""
    known = gemmi.find_tabulated_residue(residue.name)
    is_polymer = residue.entity_type == gemmi.EntityType.Polymer
    if known.is_amino_acid():  # one alone, or without neighbours: only HETATM is a ligand
        return is_polymer or residue.het_flag != "H"
    if known.is_nucleic_acid() or known.is_water():
        return False
    return is_polymer and {"N", "CA", "C"} <= {atom.name for atom in residue}


def _parent(name: str) -> str | None:
    """Amino acid that a residue is, or is a modification of."""
    code = gemmi.find_tabulated_residue(name).one_letter_code.upper()
    return PARENTS.get(name, NAME_FROM_CODE.get(code))


def _one_location(residue: gemmi.Residue) -> list[gemmi.Atom]:
    """Atoms of the most occupied alternative location, and those that have only one."""
    atoms = [atom for atom in residue if not atom.is_hydrogen()]
    occupancies: dict[str, list[float]] = {}
    for atom in atoms:
        if atom.has_altloc():
            occupancies.setdefault(atom.altloc, []).append(atom.occ)
    if not occupancies:
        return atoms
    # max takes the first of equals
    best = max(occupancies, key=lambda altloc: float(np.mean(occupancies[altloc])))
    chosen = [atom for atom in atoms if not atom.has_altloc() or atom.altloc == best]
    present = {atom.name for atom in chosen}  # some atoms lack the best location
    return chosen + [atom for atom in atoms if atom.name not in present]
