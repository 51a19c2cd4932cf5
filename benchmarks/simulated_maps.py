"""Simulated maps of whole deposited entries that no network was trained on, with references.

A map is what ``angelo_training.simulate`` makes of all atoms of an entry, ligands and nucleic
acid included, under conditions that depend on the entry and the resolution alone. It is not
normalised: that is the runtime's task.
"""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import gemmi
import numpy as np
import scipy.fft
from jaxtyping import Float32

from angelo.density import write_map
from angelo.residues import AMINO_ACIDS
from angelo.types import Density
from angelo_training.conditions import DrawConditions, draw_conditions
from angelo_training.simulate import simulate_density
from angelo_training.structures import Entry, PackedStructures

#: Of the choice of entries and of the conditions of every map.
SEED = 20240
#: Protein residues of an entry that is chosen, fewest and most.
RESIDUES = (60, 600)
#: Voxel edge of the map, Å.
VOXEL = 1.0
#: Space around the atoms, Å.
PADDING = 12.0
#: Odd on purpose, Å: a build that loses the origin matches nothing.
ORIGIN = np.array([-31.7, 18.3, 55.9], np.float32)


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Files of one simulated map."""

    map_path: Path
    fasta_path: Path
    reference: Path
    """The entry's amino-acid residues, in the frame of the map."""
    n_other_atoms: int
    """Atoms in the map that belong to no residue of the reference: ligands, nucleic acid,
    amino acids beyond the 20 and those without a complete backbone."""


def choose_entries(packed: PackedStructures, n: int) -> list[int]:
    """Indices of ``n`` entries of the ``val`` split, by a fixed draw.

    Those with 60 to 600 protein residues and known sequences take part. A smaller ``n`` gives
    the first ones of a larger; the order of the file does not matter.
    """
    low, high = RESIDUES
    able = [
        i
        for i in packed.select("val")
        if low <= np.subtract(*packed.entries[i]["residues"][::-1]) <= high
        and packed.entries[i]["sequences"]
    ]
    able.sort(key=lambda i: str(packed.entries[i]["pdb_id"]))
    drawn = np.random.default_rng(SEED).permutation(len(able))
    return [able[k] for k in drawn[:n]]


def write_case(
    packed: PackedStructures,
    index: int,
    resolution: float,
    folder: Path,
    draw: DrawConditions = draw_conditions,
) -> SimulatedCase:
    """Simulate the map of an entry and write it with sequences and reference."""
    entry = packed[index]
    name = entry.pdb_id
    in_box = entry.positions - entry.positions.min(axis=0) + np.float32(PADDING)
    density = simulate_entry(entry, in_box, resolution, draw=draw)
    case = SimulatedCase(
        map_path=folder / f"{name}.mrc",
        fasta_path=folder / f"{name}.fasta",
        reference=folder / f"{name}_deposited.cif",
        n_other_atoms=int((entry.atom_residue < 0).sum()),
    )
    write_map(case.map_path, density)
    records = (f">{name}_{i}\n{text}\n" for i, text in enumerate(entry.sequences, 1))
    case.fasta_path.write_text("".join(records), encoding="utf-8")
    write_reference(case.reference, entry, in_box + ORIGIN, packed.atom_names)
    return case


def simulate_entry(
    entry: Entry,
    in_box: Float32[np.ndarray, "a 3"],
    resolution: float,
    *,
    mask: str = "loose",
    padding: float = PADDING,
    draw: DrawConditions = draw_conditions,
) -> Density:
    """Map of an entry; ``in_box`` is Å from the centre of voxel (0, 0, 0).

    Beyond the last atoms there are ``padding`` Å. The pixel of the deposited map is that of
    the grid, so that the resolution is in the map. ``draw`` draws what else becomes of it.
    """
    rng = np.random.default_rng(
        [SEED, zlib.crc32(entry.pdb_id.encode()), round(100 * resolution)]
    )
    conditions = draw(rng, resolution, mask=mask)
    conditions = replace(conditions, magnification=1.0, pixel=VOXEL)
    extent_zyx = (in_box.max(axis=0)[::-1] + padding) / VOXEL
    z, y, x = (int(scipy.fft.next_fast_len(int(np.ceil(n)) + 1)) for n in extent_zyx)
    values = simulate_density(entry.atoms.at(in_box), (z, y, x), VOXEL, conditions, rng)
    return Density(np.asarray(values, np.float32), np.full(3, VOXEL, np.float32), ORIGIN)


def write_reference(
    path: Path, entry: Entry, positions: Float32[np.ndarray, "a 3"], atom_names: list[str]
) -> None:
    """Write the amino-acid residues of an entry as mmCIF, one chain for each of its chains.

    Residues are numbered from 1 in each chain; one number is left out where a bond is missing.
    """
    model = gemmi.Model(1)
    residues: list[gemmi.Residue] = []
    number = 0
    for r, kind in enumerate(entry.residue_type.tolist()):
        if r == 0 or entry.chain[r] != entry.chain[r - 1]:
            number = 0
        elif entry.follows[r - 1] != r:
            number += 1
        number += 1
        residue = gemmi.Residue()
        residue.name, residue.het_flag = AMINO_ACIDS[kind], "A"
        residue.seqid = gemmi.SeqId(number, " ")
        residues.append(residue)
    for a in np.flatnonzero(entry.atom_residue >= 0):
        if entry.atom_name[a] >= len(atom_names):  # a name too rare to be packed
            continue
        atom = gemmi.Atom()
        atom.name = atom_names[entry.atom_name[a]]
        atom.element = gemmi.Element(int(entry.atoms.elements[a]))
        atom.pos = gemmi.Position(*positions[a].tolist())
        atom.b_iso, atom.occ = float(entry.atoms.b_factors[a]), 1.0
        residues[entry.atom_residue[a]].add_atom(atom)
    for rank, index in enumerate(dict.fromkeys(entry.chain.tolist())):
        chain = gemmi.Chain(chain_name(rank))
        for r in np.flatnonzero(entry.chain == index).tolist():
            chain.add_residue(residues[r])
        model.add_chain(chain)
    structure = gemmi.Structure()
    structure.name = entry.pdb_id
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))


def chain_name(rank: int) -> str:
    """A, B, ... Z, AA, AB, ..."""
    letters = ""
    rank += 1
    while rank:
        rank, letter = divmod(rank - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters
