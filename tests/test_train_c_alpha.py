"""Training of the C-alpha network: known losses, resumed runs equal to unbroken ones."""

import csv

import numpy as np
import pytest
import torch
from tiny_structures import pack_tiny

from angelo.errors import DeviceError
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training import c_alpha
from angelo_training.c_alpha import Batch, CalphaRun, losses, train_calpha
from angelo_training.checkpoints import load_checkpoint
from angelo_training.schedule import Budget

TINY = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_tiny(tmp_path_factory.mktemp("packed"))


@pytest.fixture(autouse=True)
def one_check(monkeypatch):
    monkeypatch.setattr(c_alpha, "CHECK_RESOLUTIONS", (3.0,))
    monkeypatch.setattr(c_alpha, "POOL", 2)


def run_of(packed, out, **changes):
    settings = {
        "structures": packed,
        "out": out,
        "budget": Budget(steps=4),
        "side": 24,
        "batch": 2,
        "workers": 0,
        "check_every": 1,
        "config": TINY,
    }
    return CalphaRun(**(settings | changes))


def test_losses_of_a_known_output(monkeypatch):
    # Cells: on a C-alpha, near one (vectors count, not positive), labelled but too far for
    # vectors, far from all.
    distance = torch.tensor([0.5, 2.2, 3.0, 9.0])
    batch = Batch(
        torch.zeros(1),
        distance,
        torch.tensor([0, 1, 2]),
        torch.zeros(3, 9),
        torch.tensor([4, 4, 0]),
    )
    monkeypatch.setattr(c_alpha, "FEWEST_CELLS", 1)
    output = torch.zeros(4, 30)
    output[0, 1], output[1, 4], output[2, 1:10] = 2.0, 3.0, 50.0
    terms = {name: float(term) for name, term in losses(output, batch).items()}
    assert terms["calpha"] == pytest.approx(4 * np.log(2) / 2)  # four cells, two near
    assert terms["offset"] == pytest.approx((2 - 0.5) / 2)  # smooth L1, two close voxels
    assert terms["direction"] == pytest.approx((3 - 0.5) / 2)
    assert terms["amino_acid"] == pytest.approx(np.log(20))
    output[0, 0], output[1:, 0], output[:2, 14] = 50.0, -50.0, 50.0
    output[:, 1:10] = 0
    assert sum(float(term) for term in losses(output, batch).values()) == pytest.approx(
        0, abs=1e-6
    )


def test_losses_without_calphas_are_finite():
    none = torch.zeros(0, dtype=torch.int64)
    batch = Batch(torch.zeros(1), torch.full((2,), 9.0), none, torch.zeros(0, 9), none)
    terms = losses(torch.ones(2, 30), batch)
    assert float(terms["offset"] + terms["direction"] + terms["amino_acid"]) == 0


class StoppedError(Exception):
    """Stands for a killed process."""


def stopping_after(n, stream):
    def some_batches(*args):
        batches = stream(*args)
        for _ in range(n):
            yield next(batches)
        raise StoppedError

    return some_batches


@pytest.mark.parametrize("n_before", [1, 2])  # within a pool of boxes, and between pools
def test_a_resumed_run_equals_an_unbroken_one(packed, tmp_path, monkeypatch, n_before):
    train_calpha(run_of(packed, tmp_path / "unbroken"))
    with monkeypatch.context() as patched:
        patched.setattr(c_alpha, "_batches", stopping_after(n_before, c_alpha._batches))
        with pytest.raises(StoppedError):
            train_calpha(run_of(packed, tmp_path / "broken"))
    assert load_checkpoint(tmp_path / "broken" / "checkpoint.pt").step == n_before
    train_calpha(run_of(packed, tmp_path / "broken"))
    first, second = (
        load_weights(tmp_path / name / "weights.pt") for name in ("unbroken", "broken")
    )
    assert first[1] == second[1]
    assert CompactCalphaConfig(**first[1]) == TINY
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    with (tmp_path / "broken" / "curves.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert -1 <= float(rows[-1]["val_cosine_c"]) <= 1


def test_runs_start_from_weights_that_fit(packed, tmp_path):
    torch.manual_seed(5)
    network = CompactCalpha(TINY)
    save_weights(tmp_path / "start.pt", network, {})
    run = run_of(
        packed, tmp_path / "run", budget=Budget(steps=1), start_from=tmp_path / "start.pt"
    )
    train_calpha(run)
    weights = load_weights(tmp_path / "run" / "weights.pt")[0]
    start = network.state_dict()["stem.weight"]
    # One step of the warm-up moves a weight by no more than the rate.
    assert (weights["stem.weight"] - start).abs().max() < 1e-3
    other = CompactCalphaConfig((8, 16), (1, 1), (1,), 8)
    run = run_of(packed, tmp_path / "other", start_from=tmp_path / "start.pt", config=other)
    with pytest.raises(CheckpointError, match=r"start\.pt: weights of another network"):
        train_calpha(run)


def test_a_missing_device_is_refused(packed, tmp_path):
    with pytest.raises(DeviceError, match="tpu"):
        train_calpha(run_of(packed, tmp_path, device="tpu"))
