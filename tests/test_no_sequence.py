"""A map without sequences: chains with the network's own residue types, and their profiles."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from tiny_bundle import RESIDUE_TYPES
from tiny_job import job_without_sequences
from tiny_map import CALPHAS, SEQUENCE, SHAPE_ZYX, write_volume
from typer.testing import CliRunner

from angelo import pipeline, profiles
from angelo.cli import app
from angelo.pipeline import build_model
from angelo.profiles import HMMER_CODES, read_profiles, with_background
from angelo.residues import NAME_FROM_CODE
from angelo.search import SearchJob, search_database
from angelo.session import CPU, Graph

COMPACT = Path(__file__).parent.parent / "models" / "compact"
#: Probability that the stand-in for the network gives to the right residue type.
SURE = 0.9


@pytest.fixture(autouse=True)
def short_chains_count(monkeypatch):
    """The chains of the tiny map have eight residues."""
    monkeypatch.setattr(profiles, "MIN_PROFILE_LENGTH", 4)


@pytest.fixture
def job(tmp_path):
    return job_without_sequences(tmp_path)


@pytest.fixture
def right_types(monkeypatch):
    """The toy networks cannot tell residue types; tell them from the place along the row."""
    real = pipeline.refine

    def refine(*arguments):
        refinement = real(*arguments)
        along = np.round((refinement.frames.ca[:, 0] - CALPHAS[0, 0, 0]) / 3.8).astype(int)
        right = [RESIDUE_TYPES.index(NAME_FROM_CODE[SEQUENCE[i]]) for i in along]
        logits = np.full_like(refinement.aa_logits, np.log((1 - SURE) / 19))
        logits[np.arange(len(right)), right] = np.log(SURE)
        return replace(refinement, aa_logits=logits)

    monkeypatch.setattr(pipeline, "refine", refine)


def half_of_the_second_row(path):
    """A mask that leaves four residues of the second row."""
    values = np.ones(SHAPE_ZYX, np.float32)
    values[:, 15:, 21:] = 0
    return write_volume(path, values)


def test_there_is_one_model_and_a_profile_for_each_chain(job, right_types):
    result = build_model(job)
    names = sorted(str(p.relative_to(job.out)) for p in job.out.rglob("*") if p.is_file())
    assert [name for name in names if not name.startswith("stages/")] == [
        "angelo.log",
        "chains.csv",
        "hmm/A.hmm",
        "hmm/B.hmm",
        "out.cif",
        "out.cxc",
        "out.hmm",
        "out.html",
        "out_problems.csv",
        "residues.csv",
        "run.json",
        "summary.json",
    ]
    assert set(result.files) < set(names)
    assert not result.nothing_matched
    assert build_model(job).was_done


def test_residue_types_are_the_networks_own(job, right_types):
    build_model(job)
    structure = gemmi.read_structure(str(job.out / "out.cif"))
    assert [gemmi.one_letter_code([r.name for r in chain]) for chain in structure[0]] == [
        SEQUENCE,
        SEQUENCE,
    ]
    assert [[r.seqid.num for r in chain] for chain in structure[0]] == [list(range(1, 9))] * 2
    assert len(structure.entities) == 2
    with (job.out / "residues.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert {row["model"] for row in rows} == {"built"}
    assert {float(row["type_probability"]) for row in rows} == {SURE}
    assert json.loads((job.out / "summary.json").read_text())["mean_type_probability"] == SURE


def test_longer_chains_come_first(job, right_types, tmp_path):
    mask = half_of_the_second_row(tmp_path / "mask.mrc")
    build_model(replace(job, mask_path=mask))
    structure = gemmi.read_structure(str(job.out / "out.cif"))
    assert {chain.name: len(chain) for chain in structure[0]} == {"A": 8, "B": 4}
    built = read_profiles(job.out / "out.hmm")
    assert [(hmm.name, hmm.M) for hmm in built] == [("A", 8), ("B", 4)]


def test_profiles_hold_what_the_network_says(job, right_types):
    build_model(job)
    (hmm,) = read_profiles(job.out / "hmm" / "B.hmm")
    assert (hmm.name, hmm.M) == ("B", 8)
    assert hmm.description == "chain B, 8 residues, unassigned"
    assert hmm.consensus.upper() == SEQUENCE
    rows = [HMMER_CODES.index(letter) for letter in SEQUENCE]
    wanted = with_background((1 - SURE) / 19 + (SURE - (1 - SURE) / 19) * np.eye(20)[rows])
    # The text format has five decimals of each logarithm.
    np.testing.assert_allclose(np.asarray(hmm.match_emissions)[1:], wanted, rtol=2e-5)
    both = (job.out / "out.hmm").read_text()
    assert both == "".join((job.out / "hmm" / f"{name}.hmm").read_text() for name in "AB")
    assert both.count("STATS LOCAL FORWARD") == 2


def test_chains_too_short_for_a_search_get_no_profile(job, monkeypatch):
    monkeypatch.setattr(profiles, "MIN_PROFILE_LENGTH", 9)
    result = build_model(job)
    assert not any(name.endswith(".hmm") for name in result.files)
    assert not (job.out / "hmm").exists()


def test_two_runs_give_the_same_profiles(job, tmp_path):
    build_model(job)
    build_model(replace(job, out=tmp_path / "b" / "out"))
    assert (tmp_path / "b" / "out" / "out.hmm").read_bytes() == (
        job.out / "out.hmm"
    ).read_bytes()


def test_report_and_tables_do_not_speak_of_sequences(job, right_types):
    build_model(job)
    page = (job.out / "out.html").read_text()
    assert "<h2>Sequences" not in page
    assert f"<pre>{SEQUENCE}</pre>" in page
    assert "angelo search" in page
    assert "no sequences given" in page
    # 90 % sure is a capital letter; what is less likely than not is a small one.
    assert not re.search("<pre>[a-z]", page)
    assert "2 of" not in page


def test_profiles_are_there_with_sequences_too(job, right_types, tmp_path):
    fasta = tmp_path / "one.fasta"
    fasta.write_text(f">mine\nGG{SEQUENCE}\n")
    mask = half_of_the_second_row(tmp_path / "mask.mrc")
    build_model(replace(job, fasta_path=fasta, mask_path=mask))
    found = read_profiles(job.out / "out.hmm")
    raw = gemmi.read_structure(str(job.out / "out_raw.cif"))[0]
    assert [(hmm.name, hmm.M) for hmm in found] == [(c.name, len(c)) for c in raw]
    assert found[0].description == "chain A, 8 residues, matches mine"


def test_overwriting_removes_profiles_and_searches_but_nothing_foreign(job, right_types):
    build_model(job)
    search = job.out / "search"
    search.mkdir()
    for name in ("all_hits.csv", "best_hits.csv", "best_hits.fasta", "search.json"):
        (search / name).write_text("old")
    (search / "out_named.cif").write_text("old")
    (search / "notes.txt").write_text("mine")
    (job.out / "hmm" / "old.hmm").write_text("old")
    build_model(replace(job, overwrite=True))
    assert [path.name for path in search.iterdir()] == ["notes.txt"]
    assert sorted(path.name for path in (job.out / "hmm").iterdir()) == ["A.hmm", "B.hmm"]


def test_what_was_built_is_found_and_built_again(job, right_types, tmp_path):
    build_model(job)
    database = tmp_path / "db.fasta"
    database.write_text(f">other\n{'GSPD' * 20}\n>mine\nGGSG{SEQUENCE}GSGG\n")
    found = search_database(SearchJob(job.out, database, threads=1))
    assert [(hit.chain, hit.target.name) for hit in found.named] == [
        ("A", "mine"),
        ("B", "mine"),
    ]
    assert found.named[0].target_range == (5, 12)
    assert found.build_arguments == (str(job.map_path), "--hand", "keep")
    proteins = found.folder / "best_hits.fasta"
    again = build_model(replace(job, fasta_path=proteins, out=tmp_path / "again"))
    assert again.summary["matched_residues"] == 16


def test_the_map_alone_is_a_build(job, right_types, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    result = CliRunner().invoke(
        app,
        [str(job.map_path), "--bundle", str(job.bundle), "--device", "cpu", "--hand", "keep"],
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tiny_angelo" / "tiny_angelo.cif").is_file()
    assert "90% probable" in result.stdout
    assert "no sequences given" in result.stdout
    assert "hmm/ (2 profiles)" in result.stdout


@pytest.mark.parametrize("layer", ["layer_00.onnx", "layer_03.onnx"])
def test_layers_of_the_compact_bundle_take_a_sequence_of_no_residues(layer):
    graph = Graph(COMPACT / layer, CPU, 1)
    rng = np.random.default_rng(0)
    sizes = {"residues": 6, "sequence": 0}
    arrays = {
        name: rng.normal(size=[sizes.get(axis, axis) for axis in shape]).astype(np.float32)
        for name, shape in graph.inputs.items()
    }
    assert arrays["sequence_keys"].shape[0] == 0
    arrays["neighbours"] = np.zeros(arrays["neighbours"].shape, np.int64)
    arrays["rotations"][:] = np.eye(3, dtype=np.float32)
    with_none = graph(**arrays)
    assert all(np.isfinite(values).all() for values in with_none.values())
    five = {
        name: rng.normal(size=(5, *arrays[name].shape[1:])).astype(np.float32)
        for name in ("sequence_keys", "sequence_values")
    }
    with_five = graph(**{**arrays, **five})
    assert np.abs(with_five["aa_logits"] - with_none["aa_logits"]).max() > 1e-3
