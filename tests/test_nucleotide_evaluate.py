"""Nucleotides compared by P atoms, with and without protein beside them."""

import json

import gemmi
import numpy as np
import pytest
from typer.testing import CliRunner

from angelo.cli import app
from angelo.errors import ModelFileError
from angelo.nucleotide_evaluate import (
    NucleotideCoordinates,
    evaluate_nucleotide_files,
    evaluate_nucleotides,
    read_nucleotides,
)

PLACES = np.float32([[0, 0, 0], [6, 0, 0], [12, 0, 0], [18, 0, 0]])


def write_model(path, names, places=PLACES, *, shift=0.0, protein=False):
    structure = gemmi.Structure()
    model = gemmi.Model(1)
    chain = gemmi.Chain("N")
    for number, (name, xyz) in enumerate(zip(names, places, strict=False), start=1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = name, gemmi.SeqId(number, " ")
        for atom_name, dz in (("P", 0), ("C1'", 4)):
            atom = gemmi.Atom()
            atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
            atom.pos = gemmi.Position(xyz[0] + shift, xyz[1], xyz[2] + dz)
            residue.add_atom(atom)
        chain.add_residue(residue)
    if names:
        model.add_chain(chain)
    if protein:
        chain = gemmi.Chain("A")
        for number in (1, 2):
            residue = gemmi.Residue()
            residue.name, residue.seqid = "ALA", gemmi.SeqId(number, " ")
            for atom_name, x in (("N", 0.0), ("CA", 1.4), ("C", 2.4)):
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
                atom.pos = gemmi.Position(x + 3.8 * number, 40.0 + (atom_name == "CA"), 0.0)
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))
    return path


def test_counts_and_distance():
    deposited = NucleotideCoordinates(PLACES, tuple("AGCT"))
    built = NucleotideCoordinates(
        PLACES[:3] + np.float32([[0.3, 0, 0], [0, 0.4, 0], [9, 9, 0]]), tuple("AAC")
    )
    found = evaluate_nucleotides(built, deposited)
    counts = (found.n_deposited_nucleotides, found.n_built_nucleotides)
    assert (*counts, found.n_matched_nucleotides) == (4, 3, 2)
    assert (found.phosphorus_recall, found.base_recall) == (50, 25)
    assert found.phosphorus_precision == pytest.approx(200 / 3)
    assert found.base_precision == pytest.approx(100 / 3)
    assert found.phosphorus_rmsd == pytest.approx(np.sqrt(0.125), rel=1e-5)
    again = evaluate_nucleotides(deposited, deposited)
    assert (again.base_recall, again.base_precision, again.phosphorus_rmsd) == (100, 100, 0)


def test_one_side_without_nucleotides():
    some = NucleotideCoordinates(PLACES, tuple("AGCT"))
    none = NucleotideCoordinates(np.zeros((0, 3), np.float32), ())
    for pair in ((some, none), (none, some)):
        found = evaluate_nucleotides(*pair)
        assert found.n_matched_nucleotides == 0
        assert found.phosphorus_rmsd is None
        assert found.phosphorus_recall == found.base_precision == 0


def test_thymine_and_uracil_are_one_base(tmp_path):
    found = read_nucleotides(write_model(tmp_path / "a.cif", ["DA", "DT", "G", "U"]))
    assert found.bases == ("A", "T", "G", "T")
    np.testing.assert_allclose(found.phosphorus, PLACES)


def test_files_without_nucleic_acid_say_nothing_of_it(tmp_path):
    path = write_model(tmp_path / "p.cif", [], protein=True)
    assert evaluate_nucleotide_files(path, path) is None


def evaluate(*words):
    return CliRunner().invoke(app, ["evaluate", *map(str, words)])


def test_nucleic_acid_alone_on_the_command_line(tmp_path):
    built = write_model(tmp_path / "b.cif", ["DA", "DG", "DC"], shift=1)
    deposited = write_model(tmp_path / "d.cif", ["DA", "DG", "DT", "DT"])
    result = evaluate(built, deposited, "--json")
    assert result.exit_code == 0, result.output
    measures = json.loads(result.output)
    assert measures["phosphorus_recall"] == 75
    assert measures["base_recall"] == 50
    assert measures["phosphorus_rmsd"] == pytest.approx(1, abs=1e-3)
    assert "calpha_recall" not in measures
    assert "phosphorus recall" in evaluate(built, deposited).output


def test_protein_and_nucleic_acid_on_the_command_line(tmp_path):
    path = write_model(tmp_path / "b.cif", ["DA", "DG"], protein=True)
    measures = json.loads(evaluate(path, path, "--json").output)
    assert measures["calpha_recall"] == measures["base_recall"] == 100
    assert measures["n_built"] == measures["n_built_nucleotides"] == 2


def test_a_file_with_neither_is_refused(tmp_path):
    path = write_model(tmp_path / "p.cif", [], protein=True)
    broken = tmp_path / "x.cif"
    broken.write_text("data_x\n")
    with pytest.raises(ModelFileError, match=r"x\.cif: cannot be read"):
        read_nucleotides(broken)
    result = evaluate(path, broken)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
