"""A short piece of the example structure, as file, as packed file and as an entry."""

import gzip
from pathlib import Path

import gemmi
import numpy as np

from angelo_training.conditions import Conditions
from angelo_training.structures import Entry, PackedStructures, pack_structures

EXAMPLE = Path(__file__).parents[1] / "examples" / "5ni1.cif.gz"
#: Residues of chain A that are kept.
N_RESIDUES = 48


def write_piece(path: Path, *, skip: tuple[int, ...] = (), n: int = N_RESIDUES) -> None:
    """Residues 1 to ``n`` of chain A of 5NI1, but those in ``skip``, as .cif.gz."""
    structure = gemmi.read_structure(str(EXAMPLE))
    structure.setup_entities()
    model = structure[0]
    for name in [chain.name for chain in model if chain.name != "A"]:
        model.remove_chain(name)
    chain = model["A"]
    for i in reversed(range(len(chain))):
        number = chain[i].seqid.num
        if number > n or number in skip or chain[i].het_flag == "H":
            del chain[i]
    with gzip.open(path, "wt") as file:
        file.write(structure.make_mmcif_document().as_string())


def write_folder(folder: Path) -> Path:
    """A folder to pack: the same piece for each split, and once more as a relative."""
    (folder / "cif").mkdir(parents=True)
    rows = ["pie1,train,no", "pie2,val,no", "pie3,val,yes", "none,test,no"]
    lines = ["pdb_id,split,dev_map_relative", *rows]
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    for name in ("pie1", "pie2", "pie3"):
        write_piece(folder / "cif" / f"{name}.cif.gz")
    return folder


def pack_tiny(folder: Path) -> Path:
    """A packed file of such a folder."""
    out = folder / "structures.npz"
    pack_structures(write_folder(folder / "structures"), out, workers=0)
    return out


def tiny_entry(packed: Path) -> tuple[Entry, list[str]]:
    """The piece and the names of its atoms."""
    structures = PackedStructures(packed)
    return structures[0], structures.atom_names


def clean_conditions(**changes: object) -> Conditions:
    """A map without noise, filter, solvent, mask or disorder."""
    perfect = {
        "resolution": 0.5,
        "fsc_width": 0.02,
        "fsc_end": 3.0,
        "noise": 0.0,
        "weighting": False,
        "low_pass": 0.0,
        "b_overall": 0.0,
        "b_scale": 0.0,
        "local_b": 0.0,
        "side_b": 0.0,
        "exposed_b": 0.0,
        "carboxylate": 1.0,
        "polar": 1.0,
        "sulphur": 1.0,
        "hydrogen": 1.0,
        "solvent": 0.0,
        "mask": "loose",
        "mask_radius": 200.0,
        "mask_edge": 1.0,
        "pixel": 0.1,
        "magnification": 1.0,
        "anisotropic_b": (0.0, 0.0),
        "anisotropic_noise": 0.0,
        "unmodelled": 0.0,
        "weakness": 0.0,
    }
    return Conditions(**(perfect | changes))


def cube_turns() -> list[np.ndarray]:
    """All 24 proper rotations of a cube."""
    turns = []
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for signs in np.ndindex(2, 2, 2):
            turn = np.zeros((3, 3), np.int64)
            turn[np.arange(3), list(order)] = 1 - 2 * np.array(signs)
            if np.linalg.det(turn) > 0:
                turns.append(turn)
    return turns
