"""How `nucleic_complex.npz` was made: parts of PDB entries as frames and torsions.

    python tests/data/nucleic_complex.py 1aay.cif.gz 1a9n.cif.gz

The DNA of 1AAY (Zif268 bound to its site), 28 residues of its protein, and, moved beside them,
14 nucleotides of an RNA hairpin of 1A9N. The first nucleotide of a strand has no phosphate
and is left out. Coordinates of the PDB are in the public domain (CC0).
"""

import sys
from pathlib import Path

import gemmi
import numpy as np

from angelo.atoms import measure_torsions
from angelo.frames import rotation_from_backbone
from angelo.residues import NUCLEOTIDES, RESIDUE_TYPES, residue_table

#: Chain of each part, and its residues.
PARTS = (
    ("1aay", "A", range(103, 131)),
    ("1aay", "B", range(2, 12)),
    ("1aay", "C", range(52, 62)),
    ("1a9n", "Q", range(1, 15)),
)
#: Centre of the RNA, as seen from that of the protein, Å.
RNA_CENTRE = (45, 0, 0)


def main() -> None:
    """Write the arrays."""
    found = {Path(name).name[:4]: gemmi.read_structure(name)[0] for name in sys.argv[1:]}
    arrays: dict[str, list] = {name: [] for name in ("part", "kind", "places", "torsions")}
    for part, (entry, chain, numbers) in enumerate(PARTS):
        residues = [r for r in found[entry][chain].first_conformer() if r.seqid.num in numbers]
        n = len(residues)
        positions = np.zeros((n, 23, 3), np.float32)
        has_atom = np.zeros((n, 23), np.bool_)
        kinds = np.array([RESIDUE_TYPES.index(residue.name) for residue in residues])
        for row, residue in enumerate(residues):
            atoms = {atom.name: atom.pos.tolist() for atom in residue}
            for slot, name in enumerate(residue_table()[residue.name].atoms):
                if name in atoms:
                    positions[row, slot], has_atom[row, slot] = atoms[name], True
        torsions, _ = measure_torsions(
            positions, has_atom, kinds, np.arange(n) > 0, RESIDUE_TYPES
        )
        names = ("OP1", "P", "OP2") if residues[0].name in NUCLEOTIDES else ("N", "CA", "C")
        slots = [[residue_table()[r.name].index(name) for name in names] for r in residues]
        places = np.take_along_axis(positions, np.array(slots)[..., None], axis=1)
        rotation_from_backbone(*np.moveaxis(places, 1, 0))  # none is collinear
        if part == 3:
            places -= places.mean((0, 1)) - arrays["places"][0].mean((0, 1)) - RNA_CENTRE
        for name, value in zip(
            arrays, (np.full(n, part), kinds, places, torsions), strict=True
        ):
            arrays[name].append(value)
    joined = {name: np.concatenate(values) for name, values in arrays.items()}
    joined["part"], joined["kind"] = joined["part"].astype("i1"), joined["kind"].astype("i1")
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **joined)


if __name__ == "__main__":
    main()
