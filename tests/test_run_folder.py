"""Run folders: whose they are, whole files only, and stages that come back unchanged."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from angelo.errors import OutputError
from angelo.run_folder import RunFolder, key_of, sha256_of_file, write_file
from angelo.types import BackboneFrames, Calphas, Refinement


@pytest.fixture
def refinement():
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    eye = np.repeat(np.eye(3, dtype=np.float32)[None], 5, axis=0)
    return Refinement(
        BackboneFrames(eye, normal(5, 3)),
        normal(5, 20),
        normal(5, 103, 2),
        normal(5),
        normal(5),
        rng.integers(0, 5, (5, 4)),
        normal(5, 4),
    )


def finish(folder, files=()):
    for name in files:
        write_file(folder.path / name, "x")
    folder.write_record({"status": "finished", "files": list(files)})


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_checksum_of_the_empty_file(tmp_path):
    (tmp_path / "empty").touch()
    # From FIPS 180-4 test vectors.
    assert sha256_of_file(tmp_path / "empty").startswith("e3b0c44298fc1c149afbf4c8996fb924")


def test_key_ignores_order_and_sees_values():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1, "b": 2}) != key_of({"a": 1, "b": 3})


def test_stage_comes_back_unchanged(tmp_path, refinement):
    with RunFolder.claim(tmp_path / "out", "k") as folder:
        folder.save_stage("refinement", refinement)
        again = folder.load_stage("refinement", Refinement)
    np.testing.assert_array_equal(again.frames.ca, refinement.frames.ca)
    for name in ("aa_logits", "torsions", "neighbours", "next_probability"):
        np.testing.assert_array_equal(getattr(again, name), getattr(refinement, name))
        assert getattr(again, name).dtype == getattr(refinement, name).dtype


def test_missing_fields_of_a_stage_stay_none(tmp_path):
    calphas = Calphas(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    with RunFolder.claim(tmp_path / "out", "k") as folder:
        folder.save_stage("calphas", calphas)
        again = folder.load_stage("calphas", Calphas)
    assert again.rotation is None
    assert again.aa_logits is None
    np.testing.assert_array_equal(again.positions, calphas.positions)


def test_stages_of_another_run_or_damaged_are_not_used(tmp_path, refinement, caplog):
    with RunFolder.claim(tmp_path / "out", "k") as folder:
        folder.save_stage("refinement", refinement)
        other = RunFolder(folder.path, "other key", "unfinished")
        assert other.load_stage("refinement", Refinement) is None
        path = folder.path / "stages" / "refinement.npz"
        path.write_bytes(path.read_bytes()[:500])
        assert folder.load_stage("refinement", Refinement) is None
    assert "done again" in caplog.text


def test_states_of_a_run(tmp_path):
    out = tmp_path / "deep" / "out"
    with RunFolder.claim(out, "k") as folder:
        assert (folder.state, folder.name) == ("new", "out")
    with RunFolder.claim(out, "k") as folder:
        assert folder.state == "unfinished"
        finish(folder, ["out.cif"])
    assert RunFolder.claim(out, "k").state == "finished"
    (out / "out.cif").unlink()
    with RunFolder.claim(out, "k") as folder:
        assert folder.state == "unfinished"


def test_another_run_is_kept_unless_overwritten(tmp_path):
    out = tmp_path / "out"
    with RunFolder.claim(out, "k") as folder:
        finish(folder, ["out.cif", "chains.csv"])
    (out / "notes.txt").write_text("mine")
    before = snapshot(out)
    assert len(before) == 4
    with pytest.raises(OutputError, match="--overwrite"):
        RunFolder.claim(out, "other")
    assert snapshot(out) == before
    with RunFolder.claim(out, "other", overwrite=True) as folder:
        assert folder.state == "new"
    assert {path.name for path in out.iterdir()} == {"run.json", "notes.txt"}


@pytest.mark.parametrize(
    ("status", "has_stage", "is_replaced"),
    [("running", False, True), ("running", True, False), ("nothing built", True, True)],
)
def test_a_run_without_anything_to_lose_gives_way(tmp_path, status, has_stage, is_replaced):
    out = tmp_path / "out"
    with RunFolder.claim(out, "k") as folder:
        if has_stage:
            folder.save_stage("calphas", Calphas(np.ones((2, 3), np.float32), np.ones(2, "f4")))
        folder.write_record({"status": status})
    if is_replaced:
        with RunFolder.claim(out, "other") as folder:
            assert folder.state == "new"
            assert not (out / "stages").exists()
    else:
        with pytest.raises(OutputError, match="--overwrite"):
            RunFolder.claim(out, "other")


def test_a_record_cannot_reach_outside_its_folder(tmp_path):
    out, other = tmp_path / "out", tmp_path / "other.txt"
    other.write_text("mine")
    with RunFolder.claim(out, "k") as folder:
        folder.write_record({"status": "finished", "files": ["../other.txt", str(other)]})
    RunFolder.claim(out, "k2", overwrite=True).__exit__()
    assert other.read_text() == "mine"


@pytest.mark.parametrize("name", ["data.csv", "run.json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_folders_are_not_touched(tmp_path, name, overwrite):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text(json.dumps({"status": "finished"}))
    before = snapshot(out)
    with pytest.raises(OutputError, match="nothing was touched"):
        RunFolder.claim(out, "k", overwrite=overwrite)
    assert snapshot(out) == before


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        RunFolder.claim(tmp_path / "out", "k")


def test_a_second_process_is_kept_out(tmp_path):
    with RunFolder.claim(tmp_path / "out", "k"):
        with pytest.raises(OutputError, match="another angelo run"):
            RunFolder.claim(tmp_path / "out", "k")
    RunFolder.claim(tmp_path / "out", "k").__exit__()


@pytest.mark.parametrize("call", ["write", "rename"])
def test_full_disk_keeps_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "model.cif"
    write_file(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "write":
        monkeypatch.setattr("angelo.run_folder.os.fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"model\.cif: the disk is full"):
        write_file(path, "new")
    assert [item.name for item in tmp_path.iterdir()] == ["model.cif"]
    assert path.read_text() == "old"


def test_leftovers_of_a_killed_write_are_not_foreign(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json.angelo-partial").write_text("{")
    with RunFolder.claim(out, "k") as folder:
        assert folder.state == "new"
