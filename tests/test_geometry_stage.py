"""The geometry step as a stage of a run: kept, done alone, and seen in what is written."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_job import job_without_sequences

from angelo import geometry, pipeline
from angelo.coordinates import read_structure
from angelo.pipeline import build_model
from angelo.validate import validate


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """How far the minimiser gets does not matter here."""
    monkeypatch.setattr(geometry, "STEPS", 15)


@pytest.fixture
def job(tmp_path):
    return job_without_sequences(tmp_path)


def killed(*_):
    raise KeyboardInterrupt


def test_models_are_regular_and_their_problems_written(job, monkeypatch):
    result = build_model(job)
    model = read_structure(job.out / "out.cif")
    check = validate(model)
    said = result.summary["geometry"]["built"]
    for name, value in check.as_dict().items():  # the file has a thousandth of an ångström
        assert said[name] == pytest.approx(value, abs=0.01)
    assert said["calpha_shift"] > 0
    with (job.out / "out_problems.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(check.problems)
    assert "Stereochemistry" in (job.out / "out.html").read_text()
    as_built = replace(job, out=job.out.parent / "as_built")
    monkeypatch.setattr(pipeline, "_moved", lambda models, _: models)
    build_model(as_built)
    before = validate(read_structure(as_built.out / "as_built.cif"))
    # The C-alphas of the toy map lie on a straight line, which nothing makes ideal.
    assert check.bond_rmsd < 0.3 * before.bond_rmsd
    assert check.n_bond_outliers == 0 < before.n_bond_outliers


def test_the_stage_is_kept_and_can_be_done_alone(job, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            build_model(job)
    kept = job.out / "stages" / "geometry.npz"
    with np.load(kept) as arrays:
        assert arrays["raw"].shape[1:] == (14, 3)
    kept_bytes = kept.read_bytes()
    kept.unlink()
    for stage in ("run_windows", "predict_points", "refine"):
        monkeypatch.setattr(pipeline, stage, killed, raising=False)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "validate", killed)
        with pytest.raises(KeyboardInterrupt):
            build_model(job)
    assert kept.read_bytes() == kept_bytes  # the same again, from the stages before it
    monkeypatch.setattr(pipeline, "regularise_models", killed)
    assert build_model(job).summary["geometry"]["built"]["calpha_shift"] > 0


def test_only_positions_change(job, monkeypatch):
    build_model(job)
    first = json.loads((job.out / "summary.json").read_text())
    monkeypatch.setattr(pipeline, "_moved", lambda models, _: models)
    build_model(replace(job, overwrite=True))
    second = json.loads((job.out / "summary.json").read_text())
    first.pop("geometry"), second.pop("geometry")
    assert first == second
