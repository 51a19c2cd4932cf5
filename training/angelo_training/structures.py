"""Deposited structures, parsed once and packed into one file of plain arrays."""

import csv
import json
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import gemmi
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from angelo.errors import UserError
from angelo.residues import AMINO_ACIDS, CODE_FROM_NAME
from angelo_training.scatterers import Scatterers, chemistry_tables

#: Residues counted as one of the 20 (side chains differ by few atoms).
COUNTS_AS = {
    "MSE": "MET",
    "SEC": "CYS",
    "PYL": "LYS",
    "HYP": "PRO",
    "SEP": "SER",
    "TPO": "THR",
    "PTR": "TYR",
    "CSO": "CYS",
    "MLY": "LYS",
    "KCX": "LYS",
    "LLP": "LYS",
    "CME": "CYS",
}
#: Longest C-N distance that is still a peptide bond, Å.
LONGEST_PEPTIDE_BOND = 1.7
#: Coordinates are packed as multiples of this from the entry's middle, in 16 bits, Å.
COORDINATE_STEP = 0.01
#: Smaller entries teach nothing.
FEWEST_ATOMS = 200


class StructuresError(UserError):
    """The folder of structures, or the file that they are packed in, cannot be used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One structure: all its atoms, and the amino-acid residues among them."""

    pdb_id: str
    """Four-letter code."""
    split: str
    """'train' or 'val'."""
    dev_map_relative: bool
    """Homologous to one of the development maps."""
    atoms: Scatterers
    """Every atom but hydrogens, Å from the entry's middle (ligands and nucleic acid included,
    waters not)."""
    atom_name: UInt8[np.ndarray, " a"]
    """Index into ``PackedStructures.atom_names``."""
    residue_type: UInt8[np.ndarray, " r"]
    """Index into ``AMINO_ACIDS``."""
    backbone: Float32[np.ndarray, "r 3 3"]
    """N, CA, C of each residue, Å."""
    follows: Int32[np.ndarray, " r"]
    """Index of the residue bonded at C, or -1."""
    chain: Int32[np.ndarray, " r"]
    """Index of the chain; residues of a chain are in order."""
    sequences: tuple[str, ...]
    """Distinct protein sequences of the entry."""

    @property
    def positions(self) -> Float32[np.ndarray, "a 3"]:
        """Of every atom, Å."""
        return self.atoms.positions

    @property
    def atom_residue(self) -> Int32[np.ndarray, " a"]:
        """Index of the amino-acid residue that each atom belongs to, or -1."""
        return self.atoms.residue


class PackedStructures:
    """All entries of a packed file; arrays are sliced on demand."""

    def __init__(self, path: Path) -> None:
        """Read a packed file.

        Raises
        ------
        StructuresError
            If it is missing or was not written by ``pack_structures``.
        """
        try:
            with np.load(path) as packed:
                self._arrays = {name: packed[name] for name in packed.files}
            meta = json.loads(str(self._arrays.pop("meta")))
        except FileNotFoundError:
            raise StructuresError(
                f"{path}: no such file; make it with python -m angelo_training pack"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile) as error:
            raise StructuresError(
                f"{path}: not a file of packed structures ({type(error).__name__}); "
                "make it again with python -m angelo_training pack"
            ) from error
        self.atom_names: list[str] = meta["atom_names"]
        self.entries: list[dict[str, Any]] = meta["entries"]
        self._chemistry = chemistry_tables(self.atom_names)

    def __len__(self) -> int:
        return len(self.entries)

    def select(self, split: str, *, with_relatives: bool = True) -> list[int]:
        """Return the indices of the entries of a split."""
        return [
            i
            for i, entry in enumerate(self.entries)
            if entry["split"] == split and (with_relatives or not entry["dev_map_relative"])
        ]

    def __getitem__(self, index: int) -> Entry:
        entry = self.entries[index]
        atoms, residues = slice(*entry["atoms"]), slice(*entry["residues"])
        part = {
            name: array[residues if name in RESIDUE_ARRAYS else atoms]
            for name, array in self._arrays.items()
        }
        part["b_factors"] = part["b_factors"].astype(np.float32)
        for name in COORDINATE_ARRAYS:
            part[name] = part[name] * np.float32(COORDINATE_STEP)
        return Entry(
            pdb_id=entry["pdb_id"],
            split=entry["split"],
            dev_map_relative=entry["dev_map_relative"],
            sequences=tuple(entry["sequences"]),
            atoms=self._scatterers(part),
            **{name: part[name] for name in (*RESIDUE_ARRAYS, "atom_name")},
        )

    def _scatterers(self, part: dict[str, Any]) -> Scatterers:
        kinds = np.append(part["residue_type"], len(AMINO_ACIDS))[part["atom_residue"]]
        at = (kinds, part["atom_name"])
        return Scatterers(
            positions=part["positions"],
            elements=part["elements"],
            b_factors=part["b_factors"],
            hydrogens=self._chemistry.hydrogens[at],
            depth=self._chemistry.depth[at],
            volume=self._chemistry.volume[at],
            group=self._chemistry.group[at],
            residue=part["atom_residue"],
        )


RESIDUE_ARRAYS = ("residue_type", "backbone", "follows", "chain")
COORDINATE_ARRAYS = ("positions", "backbone")


def parse_entry(path: Path) -> dict[str, Any] | None:
    """Arrays of one mmCIF file; None when it is too small.

    Nucleic acid alone has no residues.

    Raises
    ------
    StructuresError
        If the file cannot be read.
    """
    try:
        block = gemmi.cif.read(str(path)).sole_block()
        structure = gemmi.make_structure_from_block(block)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise StructuresError(f"{path}: not a readable mmCIF file ({reason})") from None
    structure.remove_hydrogens()
    structure.remove_waters()
    atoms: list[tuple[list[float], int, float, int, str]] = []
    residues: list[tuple[int, list[list[float]], int]] = []
    for chain_index, chain in enumerate(structure[0]):
        for residue in chain:
            chosen = {a.name: a for a in residue if a.altloc in ("\0", "A", "1")}
            name = COUNTS_AS.get(residue.name, residue.name)
            backbone = [chosen.get(n) for n in ("N", "CA", "C")]
            index = -1
            if name in AMINO_ACIDS and all(a is not None for a in backbone):
                index = len(residues)
                residues.append(
                    (
                        AMINO_ACIDS.index(name),
                        [a.pos.tolist() for a in backbone if a],
                        chain_index,
                    )
                )
            atoms += [
                (a.pos.tolist(), a.element.atomic_number, a.b_iso, index, a.name)
                for a in chosen.values()
                if a.occ > 0
            ]
    if len(atoms) < FEWEST_ATOMS:
        return None
    backbone_xyz = np.array([r[1] for r in residues], np.float32).reshape(-1, 3, 3)
    chains = np.array([r[2] for r in residues], np.int32)
    bond = np.linalg.norm(backbone_xyz[1:, 0] - backbone_xyz[:-1, 2], axis=-1)
    bonded = (bond < LONGEST_PEPTIDE_BOND) & (chains[1:] == chains[:-1])
    follows = np.full(len(residues), -1, np.int32)
    follows[:-1][bonded] = np.flatnonzero(bonded) + 1
    return {
        "positions": np.array([a[0] for a in atoms], np.float32),
        "elements": np.array([a[1] for a in atoms], np.uint8),
        "b_factors": np.array([min(a[2], 1000.0) for a in atoms], np.float16),
        "atom_residue": np.array([a[3] for a in atoms], np.int32),
        "atom_name": [a[4] for a in atoms],
        "residue_type": np.array([r[0] for r in residues], np.uint8),
        "backbone": backbone_xyz,
        "follows": follows,
        "chain": chains,
        "sequences": _sequences(block, structure),
    }


def _sequences(block: gemmi.cif.Block, structure: gemmi.Structure) -> list[str]:
    """Distinct protein sequences: as deposited, or else as built."""
    table = block.find("_entity_poly.", ["type", "pdbx_seq_one_letter_code"])
    found = [
        _plain_letters(gemmi.cif.as_string(row[1]))
        for row in table
        if "polypeptide" in gemmi.cif.as_string(row[0])
    ]
    if not any(found):  # there is no table, or it does not say
        for chain in structure[0]:
            names = [COUNTS_AS.get(r.name, r.name) for r in chain.get_polymer()]
            letters = [gemmi.find_tabulated_residue(name) for name in names]
            found.append(
                "".join(i.one_letter_code.upper() for i in letters if i.is_amino_acid())
            )
    clean = ["".join(c if c in "ACDEFGHIKLMNPQRSTVWY" else "X" for c in s) for s in found]
    return sorted({s for s in clean if len(s) >= 10})


def _plain_letters(sequence: str) -> str:
    """One letter a residue: "(MSE)" and its like count as they do elsewhere."""
    letters: list[str] = []
    for part in re.split(r"(\([^)]*\))", "".join(sequence.split())):
        if part.startswith("("):
            letters.append(CODE_FROM_NAME.get(COUNTS_AS.get(part[1:-1], part[1:-1]), "X"))
        else:
            letters.append(part)
    return "".join(letters)


def pack_structures(folder: Path, out: Path, *, workers: int = 2) -> int:
    """Parse ``folder/cif/*.cif.gz`` listed in ``folder/index.csv``; returns the entries kept.

    Columns of the index: ``pdb_id``; ``split``, 'train' or 'val' (any other is left out);
    ``dev_map_relative``, 'yes' or 'no'.

    Raises
    ------
    StructuresError
        If the index or a structure is missing, or nothing is left.
    """
    rows = _index(folder)
    paths = [folder / "cif" / f"{row['pdb_id']}.cif.gz" for row in rows]
    names: dict[str, int] = {}
    columns: dict[str, list[np.ndarray]] = {}
    entries: list[dict[str, Any]] = []
    n_atoms = n_residues = 0
    for row, parsed in zip(rows, _parsed(paths, workers), strict=True):
        if parsed is None:
            continue
        codes = [names.setdefault(n, len(names)) for n in parsed.pop("atom_name")]
        parsed["atom_name"] = np.minimum(codes, 255).astype(np.uint8)
        sequences = parsed.pop("sequences")
        parsed |= _quantised(parsed, row["pdb_id"])
        for name, array in parsed.items():
            columns.setdefault(name, []).append(array)
        a, r = len(parsed["elements"]), len(parsed["residue_type"])
        entries.append(
            {
                "pdb_id": row["pdb_id"],
                "split": row["split"],
                "dev_map_relative": row["dev_map_relative"] == "yes",
                "atoms": [n_atoms, n_atoms + a],
                "residues": [n_residues, n_residues + r],
                "sequences": sequences,
            }
        )
        n_atoms, n_residues = n_atoms + a, n_residues + r
    if not entries:
        raise StructuresError(f"{folder}: no structure of at least {FEWEST_ATOMS} atoms")
    meta = json.dumps({"atom_names": list(names)[:255], "entries": entries})
    out.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    unfinished = out.with_name(out.name + ".part")
    with unfinished.open("wb") as file:
        np.savez_compressed(file, meta=np.array(meta), **arrays)
    unfinished.replace(out)
    return len(entries)


def _quantised(parsed: dict[str, Any], pdb_id: str) -> dict[str, np.ndarray]:
    """Coordinates as 16-bit multiples of ``COORDINATE_STEP`` from the middle of the entry."""
    middle = (parsed["positions"].max(0) + parsed["positions"].min(0)) / 2
    steps = {n: np.rint((parsed[n] - middle) / COORDINATE_STEP) for n in COORDINATE_ARRAYS}
    if np.abs(steps["positions"]).max() > np.iinfo(np.int16).max:
        raise StructuresError(f"{pdb_id}: wider than 655 Å; take it off index.csv")
    return {name: array.astype(np.int16) for name, array in steps.items()}


def _parsed(paths: list[Path], workers: int) -> Iterator[dict[str, Any] | None]:
    """Parse files in order; no workers means this process."""
    if workers == 0:
        yield from map(parse_entry, paths)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(parse_entry, paths, chunksize=8)


def _index(folder: Path) -> list[dict[str, str]]:
    """Rows of the index that name a structure to pack."""
    index, wanted = folder / "index.csv", {"pdb_id", "split", "dev_map_relative"}
    if not index.is_file():
        raise StructuresError(
            f"{index}: no such file; it lists the structures of the folder, with columns "
            f"{', '.join(sorted(wanted))}"
        )
    with index.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        if missing := wanted - set(table.fieldnames or ()):
            raise StructuresError(f"{index}: has no column {', '.join(sorted(missing))}")
        rows = [row for row in table if row["split"] in ("train", "val")]
    paths = [folder / "cif" / f"{row['pdb_id']}.cif.gz" for row in rows]
    if absent := [path for path in paths if not path.is_file()]:
        raise StructuresError(
            f"{absent[0]}: no such file (and {len(absent) - 1} more); "
            "fetch the structures that index.csv lists, or take them off it"
        )
    return rows
