"""mmCIF files: gemmi reads back what was written, and other programs find what they need."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest

from angelo.mmcif import CONFIDENCE_NOTE, ModelMetadata, mmcif_text, write_mmcif
from angelo.residues import residue_table
from angelo.types import Model, ModelChain, SequenceRecord

RECORDS = (SequenceRecord("sp|P1|it's", "MAGXSW", copies=2), SequenceRecord("lonely", "GGG"))


def make_chain(name, sequence, positions, kinds, seed=0):
    """A chain of random atoms within 100 Å, all atoms of each type present."""
    rng = np.random.default_rng(seed)
    n, width = len(kinds), max(14, *(len(residue_table()[kind].atoms) for kind in kinds))
    has_atom = np.zeros((n, width), bool)
    for row, kind in enumerate(kinds):
        has_atom[row, : len(residue_table()[kind].atoms)] = True
    return ModelChain(
        name,
        sequence,
        np.array(positions, np.int64),
        tuple(kinds),
        rng.uniform(-100, 100, (n, width, 3)).astype(np.float32),
        has_atom,
        rng.uniform(0, 100, n).astype(np.float32),
        rng.uniform(0, 1, n).astype(np.float32),
    )


@pytest.fixture
def model():
    return Model(
        (
            make_chain("A", 0, [1, 2, 5], ["MET", "ALA", "SER"]),
            make_chain("B", 0, [2, 3, 4, 6], ["ALA", "GLY", "SER", "TRP"], seed=1),
            make_chain("Aa", -1, [3, 7], ["ALA", "GLY"], seed=2),
        )
    )


@pytest.fixture
def metadata():
    cell = np.array([50, 60, 70.5], np.float32)
    return ModelMetadata(
        name="out",
        title="A test",
        program_version="0.1.0",
        bundle="tiny 0.0.1",
        bundle_citation="Nobody, 'not' yet",
        map_name="emd_1.map",
        map_sha256="ab" * 32,
        cell=cell,
    )


def read_back(text):
    block = gemmi.cif.read_string(text).sole_block()
    return block, gemmi.make_structure_from_block(block)


def test_atoms_come_back(model, metadata):
    _, structure = read_back(mmcif_text(model, RECORDS, metadata))
    assert [chain.name for chain in structure[0]] == ["A", "B", "Aa"]
    for chain, wanted in zip(structure[0], model.chains, strict=True):
        assert [residue.name for residue in chain] == list(wanted.residue_types)
        for row, residue in enumerate(chain):
            names = residue_table()[residue.name].atoms
            assert tuple(atom.name for atom in residue) == names
            positions = np.array([atom.pos.tolist() for atom in residue])
            # Three decimals are written.
            np.testing.assert_allclose(
                positions, wanted.atom_positions[row, : len(names)], atol=5.1e-4
            )
            assert {atom.b_iso for atom in residue} == {residue[0].b_iso}
            assert residue[0].b_iso == pytest.approx(wanted.confidence[row], abs=5.1e-3)
            assert [atom.element.name for atom in residue] == [name[0] for name in names]


def test_absent_atoms_are_left_out(model, metadata):
    chain = model.chains[0]
    has_atom = chain.has_atom.copy()
    has_atom[1, 3:] = False
    model = Model((replace(chain, has_atom=has_atom),))
    _, structure = read_back(mmcif_text(model, RECORDS, metadata))
    assert [atom.name for atom in structure[0][0][1]] == ["N", "CA", "C"]


def test_numbering_is_that_of_the_sequence(model, metadata):
    _, structure = read_back(mmcif_text(model, RECORDS, metadata))
    numbers = [[(r.seqid.num, r.label_seq) for r in chain] for chain in structure[0]]
    assert numbers == [
        [(1, 1), (2, 2), (5, 5)],
        [(2, 2), (3, 3), (4, 4), (6, 6)],
        [(3, 1), (7, 2)],  # without a sequence the label counts the chain's own residues
    ]


def test_copies_share_an_entity_with_the_full_sequence(model, metadata):
    block, structure = read_back(mmcif_text(model, RECORDS, metadata))
    assert [(list(e.subchains), list(e.full_sequence)) for e in structure.entities] == [
        (["A", "B"], ["MET", "ALA", "GLY", "SER", "SER", "TRP"]),  # X: what was built there
        (["Aa"], ["ALA", "GLY"]),
    ]
    assert all(e.polymer_type == gemmi.PolymerType.PeptideL for e in structure.entities)
    names = [gemmi.cif.as_string(v) for v in block.find_values("_entity.pdbx_description")]
    assert names == ["sp|P1|it's", "unassigned chain"]


def test_unknown_and_unbuilt_residue_is_unk(model, metadata):
    _, structure = read_back(mmcif_text(Model(model.chains[:1]), RECORDS, metadata))
    assert structure.entities[0].full_sequence[3] == "UNK"


def test_label_numbers_fit_the_polymer_sequence(model, metadata):
    """Every atom's (entity, number, type) is a row of entity_poly_seq: what readers check."""
    block, _ = read_back(mmcif_text(model, RECORDS, metadata))
    rows = block.find("_entity_poly_seq.", ["entity_id", "num", "mon_id"])
    known = {tuple(row) for row in rows}
    atoms = block.find("_atom_site.", ["label_entity_id", "label_seq_id", "label_comp_id"])
    assert len(atoms) > 0
    assert {tuple(row) for row in atoms} <= known


def test_confidence_is_a_category_of_its_own(model, metadata):
    text = mmcif_text(model, RECORDS, metadata)
    block, _ = read_back(text)
    metrics = block.find("_ma_qa_metric.", ["id", "name", "type", "mode"])
    assert [list(row)[::3] for row in metrics] == [["1", "local"], ["2", "local"]]
    columns = ["label_asym_id", "label_seq_id", "label_comp_id", "metric_id", "metric_value"]
    rows = [list(row) for row in block.find("_ma_qa_metric_local.", columns)]
    assert len(rows) == 2 * model.n_residues
    assert rows[2][:4] == ["A", "5", "SER", "1"]
    assert float(rows[2][4]) == pytest.approx(model.chains[0].confidence[2], abs=5.1e-3)
    assert rows[-1][:4] == ["Aa", "2", "GLY", "2"]
    assert float(rows[-1][4]) == pytest.approx(model.chains[2].aa_probability[1], abs=5.1e-4)
    assert CONFIDENCE_NOTE in text.split("_entry.id")[0]


def test_software_citation_and_cell(model, metadata):
    block, structure = read_back(mmcif_text(model, RECORDS, metadata))
    assert list(block.find_values("_software.name")) == ["angelo", "tiny"]
    assert list(block.find_values("_software.version")) == ["0.1.0", "0.0.1"]
    titles = [gemmi.cif.as_string(v) for v in block.find_values("_citation.title")]
    assert titles[1] == "Nobody, 'not' yet"
    assert structure.cell.parameters == (50, 60, 70.5, 90, 90, 90)
    assert structure.spacegroup_hm == "P 1"


def test_a_category_is_in_one_piece(model, metadata):
    block, _ = read_back(mmcif_text(model, RECORDS, metadata))
    seen = []
    for item in block:
        tag = item.pair[0] if item.pair else item.loop.tags[0]
        if not seen or seen[-1] != tag.split(".")[0]:
            seen.append(tag.split(".")[0])
    assert len(seen) == len(set(seen))


def test_same_model_same_bytes(tmp_path, model, metadata):
    for name in ("a.cif", "b.cif"):
        write_mmcif(tmp_path / name, model, RECORDS, metadata)
    assert (tmp_path / "a.cif").read_bytes() == (tmp_path / "b.cif").read_bytes()
    assert (tmp_path / "a.cif").read_text().isascii()


def test_accents_go_and_other_letters_are_replaced(model, metadata):
    records = (replace(RECORDS[0], name="Käse"), RECORDS[1])
    block, _ = read_back(mmcif_text(model, records, replace(metadata, map_name="größe.mrc")))
    assert block.find_values("_entity.pdbx_description")[0] == "Kase"


@pytest.mark.parametrize(
    ("positions", "kinds", "message"),
    [([1], ["GLY"], "residue 1 is GLY, but MET"), ([7], ["MET"], "no residue 7")],
)
def test_contradicting_sequences_are_refused(metadata, positions, kinds, message):
    model = Model((make_chain("A", 0, positions, kinds),))
    with pytest.raises(ValueError, match=message):
        mmcif_text(model, RECORDS, metadata)


def test_nucleic_acids_have_their_own_polymer_types_and_unknown_names(metadata):
    records = (
        SequenceRecord("prot", "MXA"),
        SequenceRecord("dna", "ANGT", kind="dna"),
        SequenceRecord("rna", "ANGU", kind="rna"),
    )
    chains = (
        make_chain("A", 1, [1, 3, 4], ["DA", "DG", "DT"]),
        make_chain("B", 2, [2, 3], ["C", "G"]),
        make_chain("C", -1, [1, 2], ["U", "A"]),
    )
    block, structure = read_back(mmcif_text(Model(chains), records, metadata))
    kinds = gemmi.PolymerType
    assert [entity.polymer_type for entity in structure.entities] == [
        *(kinds.Dna, kinds.Rna, kinds.Rna)
    ]
    assert [list(entity.full_sequence) for entity in structure.entities] == [
        ["DA", "DN", "DG", "DT"],
        ["A", "C", "G", "U"],
        ["U", "A"],
    ]
    types = {row[0]: row.str(1) for row in block.find("_chem_comp.", ["id", "type"])}
    assert types["DG"] == types["DN"] == "DNA linking"
    assert types["G"] == "RNA linking"
    assert structure[0]["A"][2].seqid.num == 4
    with pytest.raises(ValueError, match="residue 1 is DA, but A in rna"):
        wrong = (make_chain("A", 2, [1], ["DA"]),)
        mmcif_text(Model(wrong), records, metadata)
