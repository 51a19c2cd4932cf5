"""Structures: parsed and packed without loss, broken chains seen, bad folders refused."""

import gemmi
import numpy as np
import pytest
from tiny_structures import EXAMPLE, N_RESIDUES, pack_tiny, write_folder, write_piece

from angelo.residues import AMINO_ACIDS
from angelo_training.structures import (
    COORDINATE_STEP,
    PackedStructures,
    StructuresError,
    _sequences,
    pack_structures,
    parse_entry,
)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return PackedStructures(pack_tiny(tmp_path_factory.mktemp("packed")))


def test_the_example_has_its_atoms_chains_and_sequences():
    parsed = parse_entry(EXAMPLE)
    structure = gemmi.read_structure(str(EXAMPLE))
    structure.remove_hydrogens()
    structure.remove_waters()
    assert len(parsed["positions"]) == structure[0].count_atom_sites()
    assert len(parsed["residue_type"]) == 574
    assert len(np.unique(parsed["chain"])) == 4
    assert (parsed["follows"] == -1).sum() == 4  # the ends of four unbroken chains
    assert {len(sequence) for sequence in parsed["sequences"]} == {141, 146}
    iron = parsed["elements"] == 26
    assert iron.sum() == 4
    assert (parsed["atom_residue"][iron] == -1).all()


def test_an_entry_comes_back_as_it_was_parsed(packed, tmp_path):
    write_piece(tmp_path / "piece.cif.gz")
    parsed = parse_entry(tmp_path / "piece.cif.gz")
    for index, (name, split, is_relative) in enumerate(
        [("pie1", "train", False), ("pie2", "val", False), ("pie3", "val", True)]
    ):
        entry = packed[index]
        assert (entry.pdb_id, entry.split, entry.dev_map_relative) == (name, split, is_relative)
        for column in ("follows", "chain"):
            np.testing.assert_array_equal(getattr(entry, column), parsed[column])
        for column in ("elements", "b_factors"):
            np.testing.assert_array_equal(getattr(entry.atoms, column), parsed[column])
        middle = (parsed["positions"].max(0) + parsed["positions"].min(0)) / 2
        for column in ("positions", "backbone"):
            packed_error = getattr(entry, column) - (parsed[column] - middle)
            assert np.abs(packed_error).max() < 0.51 * COORDINATE_STEP
        assert [packed.atom_names[i] for i in entry.atom_name] == parsed["atom_name"]
        assert entry.sequences == tuple(parsed["sequences"])


def test_residues_are_those_of_haemoglobin(packed):
    entry = packed[0]
    first = [AMINO_ACIDS[kind] for kind in entry.residue_type[:6]]
    assert first == ["VAL", "LEU", "SER", "PRO", "ALA", "ASP"]
    assert len(entry.residue_type) == N_RESIDUES
    calphas = np.array([packed.atom_names[i] == "CA" for i in entry.atom_name])
    np.testing.assert_array_equal(entry.positions[calphas], entry.backbone[:, 1])
    np.testing.assert_array_equal(entry.atom_residue[calphas], np.arange(N_RESIDUES))


def test_a_missing_residue_breaks_the_chain(tmp_path):
    write_piece(tmp_path / "broken.cif.gz", skip=(20,))
    follows = parse_entry(tmp_path / "broken.cif.gz")["follows"]
    assert len(follows) == N_RESIDUES - 1
    np.testing.assert_array_equal(np.flatnonzero(follows < 0), [18, N_RESIDUES - 2])
    np.testing.assert_array_equal(follows[:18], np.arange(1, 19))


def test_tiny_entries_are_left_out(tmp_path):
    write_piece(tmp_path / "tiny.cif.gz", n=5)
    assert parse_entry(tmp_path / "tiny.cif.gz") is None


def test_splits_are_selected_with_or_without_relatives(packed):
    assert packed.select("train") == [0]
    assert packed.select("val") == [1, 2]
    assert packed.select("val", with_relatives=False) == [1]


def test_folders_that_cannot_be_packed_are_refused(tmp_path):
    out = tmp_path / "out.npz"
    with pytest.raises(StructuresError, match=r"index\.csv: no such file"):
        pack_structures(tmp_path, out, workers=0)
    (tmp_path / "index.csv").write_text("pdb_id,split\nxxxx,train\n")
    with pytest.raises(StructuresError, match="has no column dev_map_relative"):
        pack_structures(tmp_path, out, workers=0)
    folder = write_folder(tmp_path / "folder")
    (folder / "cif" / "pie2.cif.gz").write_bytes(b"")
    with pytest.raises(StructuresError, match=r"pie2\.cif\.gz: not a readable mmCIF"):
        pack_structures(folder, out, workers=0)
    (folder / "cif" / "pie2.cif.gz").unlink()
    with pytest.raises(StructuresError, match=r"pie2\.cif\.gz: no such file"):
        pack_structures(folder, out, workers=0)
    assert not out.exists()


def test_files_that_are_not_packed_structures_are_refused(tmp_path):
    with pytest.raises(StructuresError, match="no such file"):
        PackedStructures(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not at all")
    with pytest.raises(StructuresError, match="not a file of packed structures"):
        PackedStructures(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(StructuresError, match="not a file of packed structures"):
        PackedStructures(tmp_path / "other.npz")


SEQUENCES = """
loop_
_entity_poly.entity_id
_entity_poly.type
_entity_poly.pdbx_seq_one_letter_code
1 'polypeptide(L)' {}
"""


@pytest.mark.parametrize(
    ("deposited", "expected"),
    [
        ("'(MSE)KVLW AQE(UNK)U(TPO)K'", "MKVLWAQEXXTK"),
        ("?", "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDL"),  # as built
    ],
)
def test_sequences_are_as_deposited_or_as_built(deposited, expected):
    structure = gemmi.read_structure(str(EXAMPLE))
    block = gemmi.cif.read_string("data_x\n" + SEQUENCES.format(deposited)).sole_block()
    found = _sequences(block, structure)
    assert any(sequence.startswith(expected) for sequence in found)
