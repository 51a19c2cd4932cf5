"""Boxes: atoms where the density is, labels of what is there, repeatable numbers."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from tiny_structures import clean_conditions, pack_tiny, tiny_entry

from angelo.spectrum import contrast
from angelo_training import boxes
from angelo_training.box_stream import StreamSettings, make_numbered_box, stream_numbered
from angelo_training.boxes import make_box, normalise, place_in_box
from angelo_training.profile import load_spectrum
from angelo_training.structures import StructuresError

SIDE = 28


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack_tiny(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def entry(packed):
    return tiny_entry(packed)[0]


def test_places_turn_about_the_centre():
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # x to y
    placed = place_in_box(np.array([[6.0, 5, 5], [5, 5, 9]]), quarter, np.full(3, 5), 2.0, 10.0)
    np.testing.assert_allclose(placed, [[10, 12, 10], [10, 10, 18]])


@pytest.mark.parametrize("seed", range(3))
def test_calphas_lie_in_density(entry, seed):
    rng = np.random.default_rng(seed)
    box = make_box(entry, SIDE, load_spectrum(), rng, clean_conditions(resolution=2.5))
    at = np.rint(box.backbone[:, 1]).astype(int)
    values = box.density.values_zyx[at[:, 2], at[:, 1], at[:, 0]]
    assert len(at) > 5
    assert values.mean() > 0.4  # contrast is 1
    # Read with x and z exchanged, the same positions are nothing special.
    assert values.mean() > 3 * abs(box.density.values_zyx[tuple(at.T)].mean())


def test_boxes_never_lose_all_their_atoms(entry, monkeypatch):
    monkeypatch.setattr(
        boxes, "_present", lambda entry, rng: np.zeros(len(entry.backbone), bool)
    )
    box = make_box(entry, SIDE, load_spectrum(), np.random.default_rng(1))
    assert len(box.backbone) > 0
    assert contrast(box.density.values_zyx) > 0


def test_labels_are_those_of_the_entry(entry):
    box = make_box(entry, SIDE, None, np.random.default_rng(5))
    np.testing.assert_array_equal(box.residue_type, entry.residue_type[box.entry_residue])
    chosen = entry.backbone[box.entry_residue].astype(np.float64)
    placed = box.scale * (chosen - box.centre) @ box.rotation.T + (SIDE - 1) / 2
    np.testing.assert_allclose(box.backbone, placed, atol=1e-3)
    np.testing.assert_allclose(np.linalg.det(box.rotation), 1, atol=1e-5)
    calphas = box.backbone[:, 1]
    assert ((calphas > 0) & (calphas < SIDE - 1)).all()


def test_normalised_density_has_contrast_one():
    values = np.random.default_rng(0).normal(3, 7, (20, 20, 20)).astype(np.float32)
    assert contrast(normalise(values, None)) == pytest.approx(1, abs=1e-4)
    assert contrast(normalise(values, load_spectrum())) == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(normalise(np.zeros((8, 8, 8), np.float32), None), 0)


def test_box_numbers_repeat(packed):
    settings = StreamSettings(packed, SIDE, seed=4)
    first, again = make_numbered_box(settings, 3), make_numbered_box(settings, 3)
    np.testing.assert_array_equal(first.density.values_zyx, again.density.values_zyx)
    np.testing.assert_array_equal(first.backbone, again.backbone)
    other = make_numbered_box(settings, 4)
    assert not np.array_equal(first.rotation, other.rotation)
    assert make_numbered_box(settings, 0, 3.3).resolution == 3.3


def test_a_split_without_protein_is_refused(packed):
    settings = StreamSettings(packed, SIDE, split="test")
    with pytest.raises(StructuresError, match="no protein in its test split"):
        make_numbered_box(settings, 0)


def test_streams_are_in_order_with_and_without_workers():
    in_process = stream_numbered(abs, -3, workers=0, ahead=2)
    assert [next(in_process) for _ in range(5)] == [3, 2, 1, 0, 1]
    by_worker = stream_numbered(abs, -3, workers=1, ahead=2)
    assert [next(by_worker) for _ in range(5)] == [3, 2, 1, 0, 1]
    by_worker.close()


def test_workers_of_a_killed_training_end(tmp_path):
    # Killed while its worker, which tells its process number, is at work on the next example.
    (tmp_path / "training.py").write_text(
        "import os, signal, time\n"
        "from angelo_training.box_stream import stream_numbered\n"
        "def which(number):\n"
        "    time.sleep(number)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    stream = stream_numbered(which, 0, workers=1, ahead=2)\n"
        "    print(next(stream), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    # The worker has the same output: it is read to its end, which is the end of both.
    try:
        subprocess.run(
            [sys.executable, "training.py"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        os.kill(int(late.stdout), signal.SIGKILL)
        pytest.fail("the worker still ran")
