"""The whole way from map to files, with a bundle of toy networks on a synthetic map."""

import csv
import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from scipy.spatial import cKDTree
from tiny_bundle import RESIDUE_TYPES, write_tiny_bundle
from tiny_map import CALPHAS, ORIGIN, SEQUENCE, SHAPE_ZYX, write_tiny_inputs, write_volume

from angelo import pipeline
from angelo.density import read_map, write_map
from angelo.errors import MapError, NothingBuiltError, OutputError
from angelo.job import BuildJob, read_inputs
from angelo.pipeline import build_model
from angelo.register import LEAST_PROBABILITY
from angelo.residues import AMINO_ACIDS, NAME_FROM_CODE
from angelo.session import CPU

#: Files that may differ between two runs of one job.
DATED = {"run.json", "angelo.log"}


@pytest.fixture
def job(tmp_path):
    map_path, fasta = write_tiny_inputs(tmp_path)
    bundle = write_tiny_bundle(tmp_path / "bundle")
    return BuildJob(map_path, fasta, tmp_path / "a" / "out", bundle, device="cpu", threads=1)


@pytest.fixture
def right_types(monkeypatch):
    """The toy networks cannot tell residue types; tell them from the place along the row."""
    real = pipeline.refine

    def refine(*arguments):
        refinement = real(*arguments)
        along = np.round((refinement.frames.ca[:, 0] - CALPHAS[0, 0, 0]) / 3.8).astype(int)
        names = [NAME_FROM_CODE[SEQUENCE[i]] for i in along]
        logits = np.zeros_like(refinement.aa_logits)
        logits[np.arange(len(names)), [RESIDUE_TYPES.index(name) for name in names]] = 9
        return replace(refinement, aa_logits=logits)

    monkeypatch.setattr(pipeline, "refine", refine)


def calphas_of(path):
    structure = gemmi.read_structure(str(path))
    return np.array([a.atom.pos.tolist() for a in structure[0].all() if a.atom.name == "CA"])


def results_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in DATED
    }


def test_model_lies_where_the_map_does(job, right_types):
    result = build_model(job)
    for name in ("out.cif", "out_raw.cif"):
        found = calphas_of(result.folder / name)
        assert len(found) == 16
        distance, index = cKDTree(found).query(CALPHAS.reshape(-1, 3))
        # Voting is on a grid of 1 Å: half a voxel at most. Then the geometry step bends the
        # row, for no chain is straight.
        assert distance.max() < 0.8
        assert len(set(index)) == 16
    sx, sy, sz = SHAPE_ZYX[::-1]
    cell = gemmi.read_structure(str(result.folder / "out.cif")).cell
    assert (cell.a, cell.b, cell.c) == (sx, sy, sz)


def test_every_residue_has_a_type_where_the_sequence_has_none(job, right_types):
    fasta = job.fasta_path
    text = fasta.read_text()
    fasta.write_text(text.replace(SEQUENCE, f"{SEQUENCE[:3]}X{SEQUENCE[4:]}"))
    assert "X" in fasta.read_text() and "X" not in text
    result = build_model(job)
    for name in ("out.cif", "out_raw.cif"):
        structure = gemmi.read_structure(str(result.folder / name))
        found = [residue.name for chain in structure[0] for residue in chain]
        assert len(found) == 16
        assert set(found) <= set(AMINO_ACIDS)


def test_chains_are_copies_of_the_sequence(job, right_types):
    result = build_model(job)
    structure = gemmi.read_structure(str(result.folder / "out.cif"))
    assert [chain.name for chain in structure[0]] == ["A", "B"]
    for chain in structure[0]:
        assert [r.seqid.num for r in chain] == list(range(1, 9))
        assert gemmi.one_letter_code([r.name for r in chain]) == SEQUENCE
    assert [list(entity.subchains) for entity in structure.entities] == [["A", "B"]]
    assert not result.nothing_matched
    assert result.summary["matched_residues"] == 16
    assert result.summary["sequence_coverage"] == 1


def test_files_of_a_run(job, right_types):
    result = build_model(job)
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "angelo.log",
        "chains.csv",
        "out.cif",
        "out.cxc",
        "out.html",
        "out_problems.csv",
        "out_raw.cif",
        "residues.csv",
        "run.json",
        "sequences.csv",
        "stages",
        "summary.json",
        "undecided.csv",
    ]
    with (result.folder / "residues.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32
    sure = [float(r["number_probability"]) for r in rows if r["model"] == "pruned"]
    assert sure
    assert min(sure) >= LEAST_PROBABILITY
    record = json.loads((result.folder / "run.json").read_text())
    assert record["status"] == "finished"
    assert list(record["stages"]) == [
        *("density", "hand", "c-alphas", "refinement"),
        *("chains", "geometry", "validation"),
    ]
    assert set(record["summary"]["geometry"]) == {"pruned", "raw"}
    assert record["peak_memory_mib"] > 10
    assert record["devices"] == ["cpu"]
    assert len(record["inputs"]["map_sha256"]) == 64
    assert record["versions"]["onnxruntime"]
    assert json.loads((result.folder / "summary.json").read_text()) == result.summary
    assert "refinement" in (result.folder / "angelo.log").read_text()
    assert "../../tiny.mrc" in (result.folder / "out.cxc").read_text()


def test_two_runs_give_the_same_bytes(job, right_types, tmp_path):
    build_model(job)
    build_model(replace(job, out=tmp_path / "b" / "out"))
    first, second = results_of(tmp_path / "a"), results_of(tmp_path / "b")
    assert first == second
    assert len(first) == 14


@pytest.mark.parametrize("stage", ["predict_points", "refine", "trace_chains", "write_results"])
def test_a_killed_run_continues_to_the_same_files(
    job, right_types, tmp_path, monkeypatch, stage
):
    build_model(replace(job, out=tmp_path / "b" / "out"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, stage, killed)
        with pytest.raises(KeyboardInterrupt):
            build_model(job)
    assert not list(job.out.glob("*.cif"))
    build_model(job)
    assert results_of(tmp_path / "a") == results_of(tmp_path / "b")


def test_finished_stages_are_not_done_again(job, right_types, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "trace_chains", killed)
        with pytest.raises(KeyboardInterrupt):
            build_model(job)
    monkeypatch.setattr(pipeline, "predict_points", killed)
    monkeypatch.setattr(pipeline, "refine", killed)
    assert build_model(job).summary["matched_residues"] == 16


def test_a_finished_run_is_left_alone(job, right_types, monkeypatch):
    first = build_model(job)
    before = results_of(job.out)
    again = build_model(job)
    assert (first.was_done, again.was_done) == (False, True)
    assert (again.summary, again.files) == (first.summary, first.files)
    assert results_of(job.out) == before
    assert not build_model(replace(job, overwrite=True)).was_done


def test_other_inputs_in_a_used_folder_are_refused(job, right_types):
    build_model(job)
    before = results_of(job.out)
    job.fasta_path.write_text(f">other\n{SEQUENCE}{SEQUENCE}\n")
    for changed in (job, replace(job, seed=1), replace(job, voxel_size=1.01)):
        with pytest.raises(OutputError, match="--overwrite"):
            build_model(changed)
    assert results_of(job.out) == before
    assert not build_model(replace(job, overwrite=True)).was_done


def test_stages_can_be_dropped(job, right_types):
    result = build_model(replace(job, keep_stages=False))
    assert not (result.folder / "stages").exists()
    assert build_model(job).was_done


def test_without_sequences_there_are_chains_only(job):
    result = build_model(replace(job, fasta_path=None))
    assert not (result.folder / "out_raw.cif").exists()
    assert len(calphas_of(result.folder / "out.cif")) == 16
    assert "matched_residues" not in result.summary
    assert not result.nothing_matched


def test_sequences_that_do_not_fit(job, right_types):
    job.fasta_path.write_text(">wrong\n" + "GGGGPPPPGGGG" * 3 + "\n")
    result = build_model(job)
    assert result.nothing_matched
    assert not (result.folder / "out.cif").exists()
    assert (result.folder / "out_raw.cif").exists()
    assert build_model(job).nothing_matched
    assert "--hand auto" in result.why_nothing_matched
    known = replace(result, summary=result.summary | {"hand": "as given"})
    assert known.why_nothing_matched.startswith("the sample has other sequences")
    assert "hand" not in known.why_nothing_matched


def test_map_smaller_than_a_window(job, tmp_path):
    """A cut of 10 x 12 x 14 Å around two residues, windows being 16 Å wide."""
    z, y, x = (4, 4, 2)
    with_rows = read_map(job.map_path)
    small = with_rows.values_zyx[z : z + 12, y : y + 12, x : x + 14]
    path = write_volume(tmp_path / "small.mrc", np.ascontiguousarray(small))
    result = build_model(replace(job, map_path=path, fasta_path=None))
    found = calphas_of(result.folder / "out.cif")
    inside = CALPHAS.reshape(-1, 3) - np.array([x, y, z])
    inside = inside[((inside > ORIGIN) & (inside < ORIGIN + np.array([13, 11, 11]))).all(1)]
    assert len(inside) > 1
    assert cKDTree(found).query(inside)[0].max() < 0.8  # see above


def test_two_halves_give_what_their_mean_gives(job, tmp_path):
    whole = read_map(job.map_path)
    noise = np.random.default_rng(3).normal(size=whole.values_zyx.shape).astype(np.float32)
    paths = [tmp_path / "half_1.mrc", tmp_path / "half_2.mrc"]
    for path, sign in zip(paths, (1, -1), strict=True):
        write_map(path, replace(whole, values_zyx=whole.values_zyx + np.float32(sign) * noise))
    mean = read_inputs(replace(job, map_path=paths[0], half_map_path=paths[1])).density
    np.testing.assert_allclose(mean.values_zyx, whole.values_zyx, atol=1e-6)
    one = read_inputs(replace(job, map_path=paths[0])).density
    assert np.abs(one.values_zyx - whole.values_zyx).max() > 1


def test_one_half_map_twice_is_refused(job):
    with pytest.raises(MapError, match=r"the same map as .*; give the other half-map"):
        read_inputs(replace(job, half_map_path=job.map_path))


@pytest.mark.parametrize("name", ["half_map_path", "mask_path"])
def test_other_grids_are_refused_with_the_files_name(job, tmp_path, name):
    path = write_volume(tmp_path / "other.mrc", np.eye(9, dtype=np.float32)[None].repeat(9, 0))
    with pytest.raises(MapError, match=r"other\.mrc: it has 9 x 9 x 9 voxels, the map"):
        read_inputs(replace(job, **{name: path}))


def test_mask_leaves_out_what_it_covers(job, tmp_path):
    values = np.ones(SHAPE_ZYX, np.float32)
    values[:, 15:] = 0  # the second row
    mask = write_volume(tmp_path / "mask.mrc", values)
    result = build_model(replace(job, mask_path=mask, fasta_path=None))
    found = calphas_of(result.folder / "out.cif")
    assert len(found) == 8
    assert found[:, 1].max() < ORIGIN[1] + 15


def test_nothing_built_leaves_no_model(job, tmp_path):
    bundle = write_tiny_bundle(tmp_path / "blind", c_alpha={"points": {"threshold": 0.999}})
    with pytest.raises(NothingBuiltError, match="resolution"):
        build_model(replace(job, bundle=bundle))
    assert not list(job.out.glob("*.cif"))


def test_devices_share_the_windows(job, right_types, tmp_path, monkeypatch):
    one = build_model(job)
    monkeypatch.setattr("angelo.job.find_devices", lambda _: (CPU, CPU, CPU))
    three = build_model(replace(job, out=tmp_path / "b" / "out"))
    assert (one.folder / "out.cif").read_bytes() == (three.folder / "out.cif").read_bytes()


def test_progress_names_stages_in_order(job, right_types):
    told = []
    build_model(job, lambda *what: told.append(what))
    names = list(dict.fromkeys(name for name, _, _ in told))
    assert names[:4] == ["density", "hand", "c-alphas", "refinement"]
    assert names[4:] == ["chains", "geometry", "validation"]
    assert all(0 <= done <= total for _, done, total in told)
    steps = [done for name, done, _ in told if name == "refinement"]
    assert steps == sorted(steps)
