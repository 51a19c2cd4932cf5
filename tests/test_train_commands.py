"""The training command line: one line for bad input, files where they were asked for."""

import json

import numpy as np
import pytest
from tiny_structures import pack_tiny, write_folder
from typer.testing import CliRunner

from angelo_export.language_networks import load_language
from angelo_export.networks.compact_c_alpha import CompactCalpha, CompactCalphaConfig
from angelo_export.networks.sequence_context import SequenceContextConfig
from angelo_export.weights import save_weights
from angelo_training import profile
from angelo_training.__main__ import app
from angelo_training.profile import load_spectrum, measure_profile, spectrum_as_json
from angelo_training.structures import PackedStructures, StructuresError


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def assert_one_line(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


def test_structures_are_packed(tmp_path):
    out = tmp_path / "sub" / "packed.npz"
    result = call("pack", write_folder(tmp_path / "in"), "--out", out, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "3 structures" in result.stdout
    assert len(PackedStructures(out)) == 3


def test_bad_input_is_one_line(tmp_path):
    assert_one_line(
        call("pack", tmp_path, "--out", tmp_path / "x"), "index.csv", "no such file"
    )
    absent = tmp_path / "absent.npz"
    command = ("c-alpha", "--structures", absent, "--out", tmp_path / "run", "--steps", 1)
    assert_one_line(call(*command), "absent.npz", "pack")
    assert_one_line(call(*command, "--device", "tpu"), "tpu")
    assert_one_line(call(*command, "--start-from", tmp_path / "no.pt"), "no.pt", "no such file")
    assert not (tmp_path / "run").exists()
    graph = (
        "gnn",
        "--structures",
        absent,
        "--language-weights",
        tmp_path / "lm.pt",
        "--steps",
        1,
    )
    assert_one_line(call(*graph, "--out", tmp_path / "run"), "lm.pt", "no such file")


def test_weights_of_another_network_are_one_line(tmp_path):
    config = CompactCalphaConfig((8, 12), (1, 1), (1,), 8)
    save_weights(tmp_path / "w.pt", CompactCalpha(config), {"layers": 3, "width": 8})
    command = (
        "c-alpha",
        "--steps",
        1,
        "--start-from",
        tmp_path / "w.pt",
        "--out",
        tmp_path / "r",
    )
    assert_one_line(call(*command), "w.pt", "another kind of network")


def test_the_embedder_of_letters_is_written(tmp_path):
    out = tmp_path / "language.pt"
    result = call("context", "--reach", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert "105 channels" in result.stdout
    assert load_language(out).config == SequenceContextConfig(2)


def test_a_run_without_a_budget_is_refused(tmp_path):
    result = call("c-alpha", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--minutes" in result.stderr


@pytest.mark.parametrize(
    "command", ["pack", "profile", "c-alpha", "context", "language", "gnn"]
)
def test_every_command_has_help(command):
    result = call(command, "--help")
    assert result.exit_code == 0
    assert "--out" in result.stdout


def test_the_profile_in_use_is_what_was_written(tmp_path):
    spectrum = load_spectrum()
    assert len(spectrum.amplitudes) == 50  # shells of 0.01 up to 0.5 1/Å
    stored = json.loads(json.dumps(spectrum_as_json(spectrum)))
    np.testing.assert_allclose(stored["amplitudes"], spectrum.amplitudes, atol=1e-5)
    assert stored["reference_shells"] == list(spectrum.reference_shells)


def test_profiles_are_measured_on_training_structures(tmp_path, monkeypatch):
    packed = PackedStructures(pack_tiny(tmp_path))
    rng = np.random.default_rng(0)
    with pytest.raises(StructuresError, match="100 residues"):
        measure_profile(packed, rng)
    monkeypatch.setattr(profile, "FEWEST_RESIDUES", 20)
    spectrum = measure_profile(packed, rng, side=48)
    first, last = spectrum.reference_shells
    assert spectrum.amplitudes[first:last].mean() == pytest.approx(1, abs=1e-5)
    # Beyond the reference shells amplitudes fall, with the blurring that was asked for.
    assert (spectrum.amplitudes[-10:] < 0.5 * spectrum.amplitudes[first:last].mean()).all()
