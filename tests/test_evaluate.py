"""Reading models and comparing them: known values, brute force, refusals."""

import gzip
import itertools
import json
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest

from angelo import coordinates as co
from angelo import evaluate as ev
from angelo.atoms import measure_torsions, place_selected_atoms
from angelo.errors import ModelFileError
from angelo.frames import random_rotations
from angelo.residues import AMINO_ACIDS, residue_table
from angelo.types import BackboneFrames


def make_protein(n: int = 40, n_chains: int = 2, seed: int = 0) -> co.ProteinCoordinates:
    """Residues 3.8 Å apart on parallel lines 10 Å apart; C of one lies near N of the next."""
    rng = np.random.default_rng(seed)
    ca = np.zeros((n, 3), np.float32)
    per_chain = n // n_chains
    ca[:, 0] = 3.8 * (np.arange(n) % per_chain)
    ca[:, 1] = 10 * (np.arange(n) // per_chain)
    angle = rng.uniform(-np.pi, np.pi, (n, 8))
    pairs = np.stack([np.sin(angle), np.cos(angle)], -1).astype(np.float32)
    # CA to C along x, so that C to the next N is 1.9 Å (the next N lies 0.5 Å before its CA)
    frames = BackboneFrames(rotation=np.eye(3, dtype=np.float32)[None].repeat(n, 0), ca=ca)
    types = rng.permutation(n) % 20
    positions, has_atom = place_selected_atoms(frames, pairs, types)
    return co.ProteinCoordinates(
        residue_type=types,
        positions=positions,
        has_atom=has_atom,
        chain=np.arange(n) // per_chain,
        chain_names=tuple("ABCDEFGH"[:n_chains]),
        sequence_number=np.arange(n) % per_chain + 1,
    )


def take(protein: co.ProteinCoordinates, rows: np.ndarray) -> co.ProteinCoordinates:
    names = ("residue_type", "positions", "has_atom", "chain", "sequence_number")
    return replace(protein, **{name: getattr(protein, name)[rows] for name in names})


def to_gemmi(protein: co.ProteinCoordinates) -> gemmi.Structure:
    structure, model = gemmi.Structure(), gemmi.Model(1)
    chains = [gemmi.Chain(name) for name in protein.chain_names]
    for row in range(len(protein)):
        residue = gemmi.Residue()
        residue.name = AMINO_ACIDS[protein.residue_type[row]]
        residue.seqid = gemmi.SeqId(int(protein.sequence_number[row]), " ")
        residue.het_flag = "A"
        for slot, name in enumerate(residue_table()[residue.name].atoms):
            if protein.has_atom[row, slot]:
                atom = gemmi.Atom()
                atom.name, atom.element = name, gemmi.Element(name[0])
                atom.pos = gemmi.Position(*map(float, protein.positions[row, slot]))
                residue.add_atom(atom)
        chains[protein.chain[row]].add_residue(residue)
    for chain in chains:
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    return structure


def write_pdb(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def pdb_atom(
    name: str, residue: str, number: int, xyz: tuple, *, alt: str = " ", occ: float = 1.0,
    element: str = "C", record: str = "ATOM", chain: str = "A",
) -> str:  # fmt: skip
    x, y, z = xyz
    return (
        f"{record:<6}{1:>5} {name:^4}{alt}{residue:>3} {chain}{number:>4}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occ:6.2f}{0:6.2f}          {element:>2}"
    )


# Reading


@pytest.mark.parametrize("suffix", ["cif", "pdb", "cif.gz", "pdb.gz"])
def test_a_written_protein_is_read_back(tmp_path, suffix):
    protein = make_protein()
    structure, path = to_gemmi(protein), tmp_path / f"model.{suffix}"
    if "cif" in suffix:
        text = structure.make_mmcif_document().as_string()
    else:
        text = structure.make_pdb_string()
    path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    again = co.read_structure(path)
    np.testing.assert_array_equal(again.residue_type, protein.residue_type)
    np.testing.assert_array_equal(again.has_atom, protein.has_atom)
    np.testing.assert_allclose(again.positions, protein.positions, atol=6e-4)  # 3 decimals
    np.testing.assert_array_equal(again.chain, protein.chain)
    np.testing.assert_array_equal(again.sequence_number, protein.sequence_number)
    assert again.chain_names == ("A", "B")


def test_modified_residues_count_as_their_parents(tmp_path):
    lines = []
    for number, (name, extra) in enumerate([("MSE", "SE"), ("SEP", "P"), ("ALA", "CB")], 1):
        record = "ATOM" if name == "ALA" else "HETATM"
        for k, (atom, element) in enumerate([("N", "N"), ("CA", "C"), ("C", "C")]):
            place = (3.8 * number + k, 0, 0)
            lines.append(pdb_atom(atom, name, number, place, element=element, record=record))
        place = (3.8 * number, 2, 0)
        element = {"CB": "C"}.get(extra, extra)
        lines.append(pdb_atom(extra, name, number, place, element=element, record=record))
    protein = co.read_structure(write_pdb(tmp_path / "m.pdb", lines))
    assert [AMINO_ACIDS[t] for t in protein.residue_type] == ["MET", "SER", "ALA"]
    sd = residue_table()["MET"].index("SD")
    np.testing.assert_allclose(protein.positions[0, sd], [3.8, 2, 0])
    assert protein.has_atom.sum(1).tolist() == [4, 3, 4]  # the phosphorus has no place


def test_the_most_occupied_location_and_the_first_model_are_read(tmp_path):
    lines = [
        "MODEL        1",
        pdb_atom("N", "SER", 1, (0, 0, 0), element="N"),
        pdb_atom("CA", "SER", 1, (1, 0, 0), alt="A", occ=0.4),
        pdb_atom("CA", "SER", 1, (2, 0, 0), alt="B", occ=0.6),
        pdb_atom("CB", "SER", 1, (3, 0, 0), alt="A", occ=0.4),  # only in A
        pdb_atom("CA", "GLY", 2, (5, 0, 0), alt="A", occ=0.5),
        pdb_atom("CA", "GLY", 2, (6, 0, 0), alt="B", occ=0.5),
        "ENDMDL",
        "MODEL        2",
        pdb_atom("CA", "TRP", 1, (9, 9, 9)),
        "ENDMDL",
    ]
    protein = co.read_structure(write_pdb(tmp_path / "m.pdb", lines))
    np.testing.assert_array_equal(protein.calphas, [[2, 0, 0], [5, 0, 0]])
    assert protein.has_atom[0, co.CB]


def test_ligands_water_nucleotides_and_hydrogens_are_left_out(tmp_path):
    protein = make_protein(10, 1)
    lines = to_gemmi(protein).make_pdb_string().splitlines()
    lines = [line for line in lines if line.startswith(("ATOM", "TER"))]
    lines += [
        pdb_atom("CA", "GLU", 501, (50, 0, 0), record="HETATM"),
        pdb_atom("O", "HOH", 601, (52, 0, 0), record="HETATM", element="O"),
        pdb_atom("CA", "CA", 701, (54, 0, 0), record="HETATM", element="CA"),
        pdb_atom("P", "DA", 1, (60, 0, 0), element="P", chain="X"),
        pdb_atom("HA", "ALA", 3, (62, 0, 0), element="H", chain="Y"),
    ]
    again = co.read_structure(write_pdb(tmp_path / "m.pdb", lines))
    np.testing.assert_array_equal(again.residue_type, protein.residue_type)


def test_an_unknown_amino_acid_has_no_type(tmp_path):
    lines = [pdb_atom("CA", "UNK", 1, (0, 0, 0)), pdb_atom("CA", "ALA", 2, (3.8, 0, 0))]
    protein = co.read_structure(write_pdb(tmp_path / "m.pdb", lines))
    assert protein.residue_type.tolist() == [-1, 0]
    assert protein.follows_previous.tolist() == [False, True]  # by C-alpha distance
    result = ev.evaluate(protein, protein)
    assert result.calpha_recall == 100
    assert result.sequence_recall == 50  # unknown is never right


@pytest.mark.parametrize("content", [b"", b"not a model\n", b"\x1f\x8b broken", b"data_x\n"])
@pytest.mark.parametrize("name", ["m.cif", "m.pdb", "m.cif.gz"])
def test_unreadable_files_are_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"m\.(cif|pdb)") as caught:
        co.read_structure(path)
    assert "\n" not in str(caught.value)


def test_missing_and_protein_free_files_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"nowhere\.cif"):
        co.read_structure(tmp_path / "nowhere.cif")
    water = pdb_atom("O", "HOH", 1, (0, 0, 0), record="HETATM", element="O")
    path = write_pdb(tmp_path / "water.pdb", [water])
    with pytest.raises(ModelFileError, match="no amino-acid residue"):
        co.read_structure(path)


def test_read_coordinates_fit_measure_torsions(tmp_path):
    protein = make_protein()
    _, is_measured = measure_torsions(
        protein.positions, protein.has_atom, protein.residue_type, protein.follows_previous
    )
    assert is_measured[:, 0].tolist() == protein.follows_previous.tolist()


# Matching


def test_more_pairs_win_over_nearer_pairs():
    built = np.float32([[0, 0, 0], [2.5, 0, 0]])
    deposited = np.float32([[-2.5, 0, 0], [0.1, 0, 0]])
    of_built, of_deposited = ev.match_calphas(built, deposited)
    assert list(zip(of_built, of_deposited, strict=True)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("seed", range(20))
def test_matching_is_the_best_of_all_matchings(seed):
    rng = np.random.default_rng(seed)
    n_built, n_deposited = rng.integers(1, 7, 2)
    built = rng.uniform(0, 5, (n_built, 3)).astype(np.float32)
    deposited = rng.uniform(0, 5, (n_deposited, 3)).astype(np.float32)
    distance = np.linalg.norm(built[:, None] - deposited[None], axis=-1)
    best = (0, 0.0)
    slots = [*range(n_deposited)] + [-1] * n_built  # -1: unmatched
    for columns in set(itertools.permutations(slots, int(n_built))):
        pairs = [(r, c) for r, c in enumerate(columns) if c >= 0 and distance[r, c] <= 3]
        best = min(best, (-len(pairs), sum(distance[pair] for pair in pairs)))
    of_built, of_deposited = ev.match_calphas(built, deposited)
    assert len(set(of_built)) == len(of_built) == len(set(of_deposited)) == -best[0]
    assert distance[of_built, of_deposited].sum() == pytest.approx(best[1], abs=1e-4)
    assert (distance[of_built, of_deposited] <= 3).all()


def test_nothing_near_gives_no_pairs():
    far = np.float32([[9, 9, 9]])
    of_built, of_deposited = ev.match_calphas(far, -far)
    assert len(of_built) == len(of_deposited) == 0


# Metrics


def test_a_model_equals_itself():
    protein = make_protein()
    result = ev.evaluate(protein, protein)
    assert (result.n_built, result.n_deposited, result.n_matched) == (40, 40, 40)
    for name in ("calpha_recall", "calpha_precision", "sequence_recall", "sequence_precision"):
        assert getattr(result, name) == 100
    assert result.calpha_rmsd == result.backbone_rmsd == result.all_atom_rmsd == 0
    assert result.calpha_lddt == result.all_atom_lddt == 100
    assert result.n_chain_breaks == result.chain_breaks_per_100 == 0
    assert json.loads(json.dumps(result.as_dict()))["n_matched"] == 40


def test_a_shift_is_the_rmsd_and_keeps_lddt():
    protein = make_protein()
    shift = np.float32([1, 0, 0])
    moved = replace(protein, positions=protein.positions + shift * protein.has_atom[..., None])
    result = ev.evaluate(moved, protein)
    assert result.calpha_recall == 100
    for name in ("calpha_rmsd", "backbone_rmsd", "all_atom_rmsd"):
        assert getattr(result, name) == pytest.approx(1, abs=1e-5)
    assert result.all_atom_lddt == 100


def test_missing_extra_and_mistyped_residues():
    protein = make_protein()
    built = take(protein, np.r_[0:30, 0])  # 10 missing, one built twice
    built.positions[30] += np.float32(0.5) * built.has_atom[30, :, None]
    built.residue_type[:6] = (built.residue_type[:6] + 1) % 20
    result = ev.evaluate(built, protein)
    assert result.n_matched == 30
    assert result.calpha_recall == 75
    assert result.calpha_precision == pytest.approx(100 * 30 / 31)
    assert result.sequence_recall == 60
    assert result.sequence_precision == pytest.approx(100 * 24 / 31)
    assert result.calpha_rmsd == 0


def test_only_common_atoms_are_compared():
    protein = make_protein()
    built = replace(protein, has_atom=protein.has_atom.copy(), positions=protein.positions + 0)
    built.positions[:, co.O] += 10
    built.has_atom[:, co.O] = False
    built.positions[:, co.N, 2] += 2
    result = ev.evaluate(built, protein)
    assert result.calpha_rmsd == 0
    assert result.backbone_rmsd == pytest.approx(np.sqrt(4 / 3), abs=1e-5)
    n_atoms = protein.has_atom.sum() - 40
    assert result.all_atom_rmsd == pytest.approx(np.sqrt(4 * 40 / n_atoms), abs=1e-5)


@pytest.mark.parametrize("name", ["ASP", "GLU", "PHE", "TYR", "ARG"])
def test_symmetric_atoms_may_be_exchanged(name):
    protein = make_protein()
    residue = residue_table()[name]
    rows = np.flatnonzero(protein.residue_type == AMINO_ACIDS.index(name))
    built = replace(protein, positions=protein.positions.copy())
    for first, second in residue.swaps:
        i, j = residue.index(first), residue.index(second)
        built.positions[rows, i] = protein.positions[rows, j]
        built.positions[rows, j] = protein.positions[rows, i]
    assert len(rows) == 2
    result = ev.evaluate(built, protein)
    assert result.all_atom_rmsd == 0
    assert result.all_atom_lddt == 100


def test_exchange_of_atoms_that_differ_counts():
    protein = make_protein()
    leu = residue_table()["LEU"]
    rows = np.flatnonzero(protein.residue_type == AMINO_ACIDS.index("LEU"))
    built = replace(protein, positions=protein.positions.copy())
    one, other = leu.index("CD1"), leu.index("CD2")
    built.positions[rows[:, None], [one, other]] = protein.positions[
        rows[:, None], [other, one]
    ]
    assert ev.evaluate(built, protein).all_atom_rmsd > 0.1


def brute_lddt(reference, model, is_built, residue) -> float:
    kept = []
    for i, j in itertools.combinations(range(len(reference)), 2):
        length = np.linalg.norm(reference[i].astype(float) - reference[j])
        if residue[i] != residue[j] and length <= 15:
            change = abs(np.linalg.norm(model[i].astype(float) - model[j]) - length)
            both = is_built[i] and is_built[j]
            kept += [both and change < limit for limit in (0.5, 1, 2, 4)]
    return 100 * np.mean(kept)


@pytest.mark.parametrize("chunk", [7, 4000])
def test_lddt_against_its_definition(chunk, monkeypatch):
    monkeypatch.setattr(ev, "LDDT_CHUNK", chunk)
    rng = np.random.default_rng(1)
    reference = rng.uniform(0, 25, (60, 3)).astype(np.float32)
    model = (reference + rng.normal(scale=1.5, size=(60, 3))).astype(np.float32)
    is_built, residue = rng.random(60) < 0.9, np.arange(60) // 3
    expected = brute_lddt(reference, model, is_built, residue)
    assert 20 < expected < 80
    assert ev.lddt(reference, model, is_built, residue) == pytest.approx(expected)


def test_lddt_does_not_see_a_turn_and_a_shift():
    protein = make_protein()
    turn = random_rotations(1, np.random.default_rng(2))[0]
    model = protein.calphas @ turn.T + np.float32([100, 0, 0])
    every = np.ones(40, np.bool_)
    assert ev.lddt(protein.calphas, model, every, np.arange(40)) == 100


def test_lddt_of_a_single_residue_is_undefined():
    one = np.zeros((1, 3), np.float32)
    assert ev.lddt(one, one, np.ones(1, np.bool_), np.zeros(1, np.int64)) is None


def test_unbuilt_residues_lower_lddt():
    protein = make_protein()
    half = take(protein, np.arange(20))
    assert ev.evaluate(half, protein).calpha_lddt < 60


def test_chain_breaks():
    protein = make_protein(40, 2)  # 38 bonds
    assert protein.follows_previous.sum() == 38
    renamed = replace(protein, chain=protein.chain + 2 * (np.arange(40) % 20 >= 10))
    assert ev.evaluate(renamed, protein).n_chain_breaks == 2
    backwards = ev.evaluate(take(protein, np.arange(40)[::-1]), protein)
    assert backwards.n_chain_breaks == 38
    assert backwards.chain_breaks_per_100 == pytest.approx(95)
    gapped = take(protein, np.delete(np.arange(40), 5))  # a missing residue is no break
    assert ev.evaluate(gapped, protein).n_chain_breaks == 0
    inserted = take(protein, np.r_[0:6, 5:40])  # residue 5 twice, the copy 0.5 Å up
    inserted.positions[6, :, 2] += 0.5 * inserted.has_atom[6]
    assert ev.evaluate(inserted, protein).n_chain_breaks == 1
    torn = replace(protein, positions=protein.positions + 0)
    torn.positions[7, :, 2] += 2.5 * torn.has_atom[7]  # pulls residue 7 off both neighbours
    assert ev.evaluate(torn, protein).n_chain_breaks == 2


def test_models_apart_have_no_distances():
    protein = make_protein()
    away = replace(protein, positions=protein.positions + np.float32(500))
    result = ev.evaluate(away, protein)
    assert result.n_matched == result.calpha_recall == result.calpha_precision == 0
    assert result.calpha_rmsd is result.all_atom_rmsd is result.chain_breaks_per_100 is None
    assert result.calpha_lddt == 0


def test_files_are_compared(tmp_path):
    protein = make_protein()
    to_gemmi(protein).make_mmcif_document().write_file(str(tmp_path / "deposited.cif"))
    half = take(protein, np.arange(20))
    (tmp_path / "built.pdb").write_text(to_gemmi(half).make_pdb_string())
    result = ev.evaluate_files(tmp_path / "built.pdb", tmp_path / "deposited.cif")
    assert (result.calpha_recall, result.calpha_precision) == (50, 100)
    assert result.sequence_recall == 50
    assert result.all_atom_rmsd == pytest.approx(0, abs=1e-3)
