"""Checkpoints: exact resume, half-precision weights, refusal of unusable files."""

import numpy as np
import pytest
import torch

from angelo_export.weights import CheckpointError, load_weights, save_weights
from angelo_training.checkpoints import load_checkpoint, save_checkpoint


def new_run():
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    return model, torch.optim.AdamW(model.parameters(), lr=0.1), np.random.default_rng(2)


def train(model, optimizer, rng, steps):
    for _ in range(steps):
        inputs = torch.tensor(rng.normal(size=(4, 3)), dtype=torch.float32) + torch.randn(4, 3)
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    path = tmp_path / "run" / "checkpoint.pt"
    unbroken = new_run()
    train(*unbroken, steps=3)
    model, optimizer, rng = unbroken
    save_checkpoint(
        path, model, optimizer, step=3, config={"width": 3}, rng=rng, extra={"best": 0.5}
    )
    train(*unbroken, steps=3)

    resumed = new_run()
    checkpoint = load_checkpoint(path)
    checkpoint.restore(*resumed)
    train(*resumed, steps=3)

    assert (checkpoint.step, checkpoint.config) == (3, {"width": 3})
    assert checkpoint.extra == {"best": 0.5}
    torch.testing.assert_close(resumed[0].weight, unbroken[0].weight, rtol=0, atol=0)
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.pt"
    model, optimizer, _ = new_run()
    save_checkpoint(path, model, optimizer, step=1, config={})
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, model, optimizer, step=2, config={"bad": lambda: None})
    assert path.read_bytes() == before


def test_weights_come_back_as_their_half_precision_values(tmp_path):
    model = torch.nn.BatchNorm1d(2)  # has an integer buffer
    with torch.no_grad():
        model.weight.copy_(torch.tensor([0.1, 3.0]))
    save_weights(tmp_path / "weights.pt", model, {"layers": 4})
    weights, config = load_weights(tmp_path / "weights.pt")
    assert config == {"layers": 4}
    assert weights["weight"].dtype == torch.float32
    assert weights["weight"].tolist() == [float(np.float16(0.1)), 3.0]
    assert weights["num_batches_tracked"].dtype == torch.int64


def test_the_same_weights_give_the_same_bytes(tmp_path):
    model = new_run()[0]
    save_weights(tmp_path / "a.pt", model, {})
    save_weights(tmp_path / "another.pt", model, {})
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_weights_that_half_precision_cannot_hold_are_named(tmp_path):
    model = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(model.bias, 1e5)
    with pytest.raises(ValueError, match="bias is not finite"):
        save_weights(tmp_path / "weights.pt", model, {})


def test_a_file_too_large_for_git_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"more than 15000000.*a smaller network"):
        save_weights(tmp_path / "weights.pt", torch.nn.Linear(3000, 3000), {})
    assert not list(tmp_path.iterdir())


def test_unusable_files_are_refused_in_one_line(tmp_path):
    model, optimizer, _ = new_run()
    save_weights(tmp_path / "weights.pt", model, {})
    save_checkpoint(tmp_path / "checkpoint.pt", model, optimizer, step=1, config={})
    (tmp_path / "damaged.pt").write_bytes((tmp_path / "checkpoint.pt").read_bytes()[:500])
    for load, name, says in [
        (load_checkpoint, "weights.pt", "not a file of this kind"),
        (load_weights, "checkpoint.pt", "not a file of this kind"),
        (load_checkpoint, "damaged.pt", "not a readable checkpoint"),
        (load_weights, "absent.pt", "no such file"),
    ]:
        with pytest.raises(CheckpointError, match=says) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    model, optimizer, _ = new_run()
    save_checkpoint(tmp_path / "checkpoint.pt", model, optimizer, step=1, config={})
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_checkpoint(tmp_path / "checkpoint.pt").restore(torch.nn.Linear(5, 2))
