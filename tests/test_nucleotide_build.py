"""Protein, DNA and RNA from a map to files: toy search, and made-up answers of the networks.

Blobs of positive density are C-alphas, and those of negative density phosphorus.
"""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import gemmi
import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from tiny_complex import (
    BACKWARD,
    FIRST,
    FORWARD,
    HAIRPIN,
    PROTEIN,
    RECORDS,
    complex_refinement,
    parts,
)
from tiny_map import ORIGIN, write_volume

from angelo import pipeline
from angelo.bundle import load_bundle
from angelo.errors import NothingBuiltError, SequenceError
from angelo.geometry_models import RegularPositions, protein_from_model
from angelo.job import BuildJob, read_inputs
from angelo.nucleotide_points import MERGE_RADIUS, find_phosphorus, with_nucleotides
from angelo.pipeline import build_model
from angelo.refine import refine, take_residues
from angelo.residues import RESIDUE_TYPES, residue_table
from angelo.session import Networks
from angelo.types import Calphas, Density
from angelo.windows import VoxelPredictions

ALL = (PROTEIN, FORWARD, BACKWARD, HAIRPIN)
#: What gemmi calls each kind of polymer, and of residue.
POLYMERS = {
    "protein": (gemmi.PolymerType.PeptideL, gemmi.ResidueKind.AA),
    "dna": (gemmi.PolymerType.Dna, gemmi.ResidueKind.DNA),
    "rna": (gemmi.PolymerType.Rna, gemmi.ResidueKind.RNA),
}
#: Width of a blob, Å.
SIGMA = 0.9


def write_bundle(folder, rounds=1, crop=None, **points):
    gnn = {"start_features": ["is_protein"], "start_frames": "random", "min_existence": 0.0}
    return write_tiny_bundle(
        folder,
        residue_types=list(RESIDUE_TYPES),
        c_alpha={
            "channels": ["calpha", "phosphorus", "backbone"],
            "points": {"method": "merge", "radius": 1.65, "min_separation": 0.0, **points},
        },
        gnn={**gnn, "rounds": rounds, "crop": crop},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def write_map(folder, wanted):
    """A map of some of the parts, and where it has its centre in the file of parts."""
    rows = np.flatnonzero(np.isin(parts()["part"], wanted))
    places = parts()["places"][rows, 1]
    corner = np.floor(places.min(0)) - 6
    shape = np.ceil(places.max(0) - corner).astype(int) + 6
    axes = [np.arange(n) for n in shape[::-1]]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = np.zeros(shape[::-1], np.float32)
    for row, xyz in zip(rows, places - corner, strict=True):
        sign = 1 if parts()["kind"][row] < 20 else -1
        away = ((grid - xyz[::-1]) ** 2).sum(-1)
        values += sign * np.exp(-away / (2 * SIGMA**2)).astype(np.float32)
    return write_volume(folder / "complex.mrc", values), corner - ORIGIN


def fasta_of(*records):
    return "".join(f">{RECORDS[i].name}\n{RECORDS[i].residues}\n" for i in records)


def make_up(patch, wanted, shift):
    """Let the graph network say the truth, moved, of the points that the search found."""
    truth = complex_refinement(*wanted)
    ca = (truth.frames.ca - shift).astype(np.float32)
    found = {}

    def refine(density, calphas, *_):
        found["calphas"] = calphas
        away = np.linalg.norm(calphas.positions[:, None] - ca[None], axis=-1)
        found["distance"] = away.min(axis=1)
        assert sorted(away.argmin(axis=1)) == list(range(len(truth)))
        if calphas.is_protein is not None:
            is_protein = truth.is_protein[away.argmin(axis=1)]
            np.testing.assert_array_equal(calphas.is_protein, is_protein)
        return replace(truth, frames=replace(truth.frames, ca=ca))

    patch.setattr(pipeline, "refine", refine)
    return found


def prepare(folder, patch, bundle, wanted, text, *, shown=None, **options):
    """A job for a map of the ``shown`` parts, of which the networks see those ``wanted``."""
    map_path, shift = write_map(folder, shown or wanted)
    found = make_up(patch, wanted, shift)
    fasta = None
    if text is not None:
        fasta = folder / "in.fasta"
        fasta.write_text(text)
    out = folder / "out"
    job = BuildJob(map_path, fasta, out, bundle, "cpu", threads=1, hand="keep", **options)
    return job, found, shift


def leave_as_placed(patch):
    """Without the geometry step, which takes seconds and has no part in nucleic acids."""

    def unmoved(raw, pruned, _):
        models = (raw, pruned)
        positions = (None if m is None else protein_from_model(m).positions for m in models)
        return RegularPositions(*positions)

    patch.setattr(pipeline, "regularise_models", unmoved)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, bundle):
    """All four parts, built with the sequences of all of them in one file, in any order."""
    text = fasta_of(HAIRPIN, BACKWARD, PROTEIN, FORWARD).replace("ward\n", "ward DNA\n")
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        leave_as_placed(patch)
        job, found, shift = prepare(folder, patch, bundle, ALL, text)
        result = build_model(job)
    assert found["distance"].max() < 0.5
    structure = gemmi.read_structure(str(result.folder / "out.cif"))
    rows = rows_by_chain(structure, shift)
    return SimpleNamespace(result=result, structure=structure, rows=rows, shift=shift)


def test_a_protein_dna_rna_complex_comes_back_from_its_mmcif(whole):
    parts_of, rows = parts()["part"], whole.rows
    for entity in whole.structure.entities:
        (name,) = entity.subchains
        chain = whole.structure[0][name]
        part = int(parts_of[rows[name][0]])
        record = RECORDS[part]
        assert entity.polymer_type == POLYMERS[record.kind][0]
        names = gemmi.expand_one_letter_sequence(record.residues, POLYMERS[record.kind][1])
        assert list(entity.full_sequence) == names
        numbers = [residue.seqid.num for residue in chain]
        first = int(np.flatnonzero(parts_of == part)[0])
        assert numbers == [FIRST[part] + row - first + 1 for row in rows[name]]
        assert [r.name for r in chain] == [names[n - 1] for n in numbers]
        assert [r.label_seq for r in chain] == numbers
        for residue in chain:
            assert {a.name for a in residue} == set(residue_table()[residue.name].atoms)
    built = {int(parts_of[rows[chain.name][0]]): len(chain) for chain in whole.structure[0]}
    assert built == {PROTEIN: 28, FORWARD: 10, BACKWARD: 10, HAIRPIN: 14}


def rows_by_chain(structure, shift):
    """Row of the file of parts for every residue of each chain, by CA or P."""
    truth = parts()["places"][:, 1] - shift
    rows = {}
    for chain in structure[0]:
        centre = "CA" if chain[0].find_atom("CA", "*") else "P"
        places = np.array([residue[centre][0].pos.tolist() for residue in chain])
        away = np.linalg.norm(places[:, None] - truth[None], axis=-1)
        assert away.min(axis=1).max() < 0.01
        rows[chain.name] = away.argmin(axis=1)
    return rows


def test_polymer_types_and_components_of_the_file(whole):
    block = gemmi.cif.read(str(whole.result.folder / "out.cif")).sole_block()
    assert sorted(gemmi.cif.as_string(t) for t in block.find_values("_entity_poly.type")) == [
        "polydeoxyribonucleotide",
        "polydeoxyribonucleotide",
        "polypeptide(L)",
        "polyribonucleotide",
    ]
    types = {
        row[0]: gemmi.cif.as_string(row[1]) for row in block.find("_chem_comp.", ["id", "type"])
    }
    assert types["DA"] == types["DT"] == "DNA linking"
    assert types["A"] == types["U"] == "RNA linking"
    assert types["ARG"] == "L-peptide linking"
    described = block.find_values("_entity.pdbx_description")
    assert {gemmi.cif.as_string(name) for name in described} == {r.name for r in RECORDS}


def test_bonds_of_strands_and_their_atoms_are_where_they_were(whole):
    for chain in whole.structure[0]:
        if chain[0].name not in RESIDUE_TYPES[20:]:
            continue
        o3, p = (
            np.array([residue[name][0].pos.tolist() for residue in chain])
            for name in ("O3'", "P")
        )
        bonds = np.linalg.norm(p[1:] - o3[:-1], axis=1)
        assert np.median(bonds) < 2 and bonds.max() < 5
        places = parts()["places"][whole.rows[chain.name]] - whole.shift
        for slot, name in enumerate(("OP1", "P", "OP2")):
            built = np.array([residue[name][0].pos.tolist() for residue in chain])
            # Frames of ideal geometry, on real places.
            np.testing.assert_allclose(built, places[:, slot], atol=0.2)


def test_tables_and_report_count_nucleotides(whole):
    result = whole.result
    assert result.summary["matched_residues"] == 62
    assert (result.summary["nucleotides"], result.summary["nucleotides_built"]) == (34, 34)
    with (result.folder / "residues.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "pruned"]
    assert len(rows) == 62
    assert {row["sequence"] for row in rows if row["type"] in ("DA", "DT")} <= {
        "forward",
        "backward",
    }
    with (result.folder / "sequences.csv").open() as file:
        found = {row["sequence"]: row for row in csv.DictReader(file)}
    assert list(found) == ["zif268", "hairpin", "backward", "forward"]  # proteins first
    assert found["hairpin"]["residues_built"] == "14"
    assert "hairpin" in (result.folder / "out.html").read_text()
    assert {path.stem for path in (result.folder / "hmm").iterdir()} == {"A"}
    record = json.loads((result.folder / "run.json").read_text())
    assert "dna" not in record


@pytest.mark.parametrize("how", ["one file", "options"])
def test_nucleic_acid_alone(tmp_path, monkeypatch, bundle, how):
    wanted = (FORWARD, BACKWARD, HAIRPIN)
    files = {"dna": tmp_path / "dna.fasta", "rna": tmp_path / "rna.fasta"}
    files["dna"].write_text(fasta_of(FORWARD, BACKWARD))
    files["rna"].write_text(fasta_of(HAIRPIN).replace("U", "T"))  # as some databases write it
    text, options = None, {f"{kind}_path": path for kind, path in files.items()}
    if how == "one file":
        text, options = fasta_of(HAIRPIN) + fasta_of(FORWARD, BACKWARD), {}
        text = text.replace("ward\n", "ward DNA\n")
    job, _, _ = prepare(tmp_path, monkeypatch, bundle, wanted, text, **options)
    result = build_model(job)
    structure = gemmi.read_structure(str(result.folder / "out.cif"))
    assert sorted(len(chain) for chain in structure[0]) == [10, 10, 14]
    assert not result.nothing_matched
    assert not (result.folder / "hmm").exists()
    if how == "options":
        assert any("'T' read as U" in note for note in result.notes)
        record = json.loads((result.folder / "run.json").read_text())
        assert record["dna"] == str(files["dna"].resolve())
        assert len(record["inputs"]["rna_sha256"]) == 64


def test_without_sequences_bases_are_the_networks_guess(tmp_path, monkeypatch, bundle):
    leave_as_placed(monkeypatch)
    job, _, _ = prepare(tmp_path, monkeypatch, bundle, ALL, None)
    result = build_model(job)
    structure = gemmi.read_structure(str(result.folder / "out.cif"))
    codes = [gemmi.one_letter_code([r.name for r in chain]) for chain in structure[0]]
    assert sorted(codes[1:]) == sorted(["CUGGUAUUGCAGUA", "GCGTGGGCGT", "ACGCCCACGC"])
    kinds = [entity.polymer_type for entity in structure.entities]
    assert kinds.count(gemmi.PolymerType.Dna) == 2
    assert kinds.count(gemmi.PolymerType.Rna) == 1
    assert "<pre>CUGGUAUUGCAGUA</pre>" in (result.folder / "out.html").read_text()


def test_sequences_of_proteins_alone_leave_nucleotides_out(tmp_path, monkeypatch, bundle):
    leave_as_placed(monkeypatch)
    text = fasta_of(PROTEIN)
    job, found, _ = prepare(tmp_path, monkeypatch, bundle, (PROTEIN,), text, shown=ALL)
    result = build_model(job)
    assert len(found["calphas"]) == 28
    assert any("nucleotides are left out" in note for note in result.notes)
    assert "nucleotides" not in result.summary


def test_a_bundle_without_phosphorus_skips_nucleic_acid(tmp_path, monkeypatch, bundle):
    plain = write_tiny_bundle(tmp_path / "plain")
    assert load_bundle(bundle).builds_nucleotides
    assert not load_bundle(plain).builds_nucleotides
    dna = tmp_path / "dna.fasta"
    dna.write_text(fasta_of(FORWARD))
    job, _, _ = prepare(tmp_path, monkeypatch, plain, (PROTEIN,), None, dna_path=dna)
    with pytest.raises(SequenceError, match=r"nothing but nucleic acid \(forward\).*--bundle"):
        build_model(job)
    protein = tmp_path / "protein.fasta"
    protein.write_text(fasta_of(PROTEIN))
    notes = read_inputs(replace(job, fasta_path=protein)).notes
    assert notes == ("forward: nucleic acid, which this bundle does not build; skipped",)


def test_nothing_found_says_what_was_looked_for(tmp_path, monkeypatch):
    blind = write_bundle(tmp_path / "blind", threshold=1.0)
    job, _, _ = prepare(tmp_path, monkeypatch, blind, (FORWARD,), None)
    with pytest.raises(NothingBuiltError, match="no C-alpha or P was found"):
        build_model(job)


# ---------------------------------------------------------------- points


def voxels_around(points, per_point=5, seed=0):
    rng = np.random.default_rng(seed)
    positions = np.repeat(points, per_point, axis=0)
    positions = positions + rng.uniform(-0.5, 0.5, positions.shape)
    probability = rng.uniform(0.2, 0.9, len(positions))
    return VoxelPredictions(
        positions.astype(np.float32),
        probability.astype(np.float32),
        np.zeros((len(positions), 0), np.float32),
        (),
    )


def test_phosphorus_points_are_weighted_means_of_their_voxels():
    true = np.array([[0, 0, 0], [6, 0, 0], [12, 1, 0], [40, 0, 0]], np.float64)
    voxels = voxels_around(true)
    found = find_phosphorus(voxels, 0.05)
    assert len(found) == 3  # the one far away stands alone
    assert not found.is_protein.any()
    order = np.argsort(found.positions[:, 0])
    for i, row in enumerate(order):
        part = slice(5 * i, 5 * i + 5)
        weights = voxels.probability[part]
        mean = np.average(voxels.positions[part], axis=0, weights=weights)
        np.testing.assert_allclose(found.positions[row], mean, atol=1e-5)
        assert found.probability[row] == pytest.approx(
            np.average(weights, weights=weights), rel=1e-5
        )
    assert len(find_phosphorus(voxels, 1.0)) == 0
    close = voxels_around(np.array([[0, 0, 0], [MERGE_RADIUS - 1.2, 0, 0], [9.0, 0, 0]]))
    assert len(find_phosphorus(close, 0.05)) == 2


@pytest.mark.parametrize("crop", [None, {"size": 12, "keep": 5, "repeats": 2}])
def test_kinds_stay_with_their_residues_through_rounds(tmp_path, crop):
    """Two points run together, so that the rows behind them move up."""
    bundle = load_bundle(write_bundle(tmp_path, rounds=2, crop=crop))
    rng = np.random.default_rng(3)
    positions = (6 * rng.permutation(64)[:30, None] // [16, 4, 1] % 24).astype(np.float32)
    positions[7] = positions[4] + 0.5
    is_protein = rng.random(30) < 0.5
    density = Density(np.ones((24, 24, 24), "f4"), np.ones(3, "f4"), np.zeros(3, "f4"))
    calphas = Calphas(positions, np.ones(30, np.float32), is_protein=is_protein)
    with Networks(bundle.folder, threads=1) as networks:
        found = refine(density, calphas, bundle, networks, None, rng)
    assert len(found) == 29
    row = np.linalg.norm(found.frames.ca[:, None] - positions[None], axis=-1).argmin(axis=1)
    assert (np.diff(row) > 0).all()
    np.testing.assert_array_equal(found.is_protein, is_protein[row])
    part = take_residues(found, np.array([3, 20]))
    np.testing.assert_array_equal(part.is_protein, found.is_protein[[3, 20]])


def test_nucleotides_come_after_residues():
    calphas = Calphas(np.zeros((2, 3), np.float32), np.ones(2, np.float32))
    phosphorus = Calphas(np.ones((3, 3), np.float32), np.full(3, 0.5, np.float32))
    both = with_nucleotides(calphas, phosphorus)
    np.testing.assert_array_equal(both.is_protein, [True, True, False, False, False])
    np.testing.assert_array_equal(both.positions[2:], phosphorus.positions)
    assert both.probability.tolist() == [1, 1, 0.5, 0.5, 0.5]
