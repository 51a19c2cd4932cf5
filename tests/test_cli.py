"""The command line: what it does by itself, and one plain line for everything that is wrong."""

import errno
import json
import os

import mrcfile
import numpy as np
import pytest
from tiny_bundle import read_manifest, write_manifest, write_tiny_bundle
from tiny_map import tiny_density, write_tiny_inputs, write_volume
from typer.testing import CliRunner

from angelo import __version__
from angelo.cli import app, map_name


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


@pytest.fixture
def inputs(tmp_path):
    """MAP, FASTA and BUNDLE that work."""
    return (*write_tiny_inputs(tmp_path), write_tiny_bundle(tmp_path / "bundle"))


def angelo(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def assert_refused(result, *words, code=2):
    """Exit code, one line on stderr with all of ``words``, and nothing written here."""
    assert result.exit_code == code, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_version():
    assert angelo("--version").output == f"angelo {__version__}\n"


def test_no_arguments_is_help():
    result = angelo()
    assert "MAP FASTA" in result.output and "doctor" in result.output


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/emd_1.map.gz", "emd_1"),
        ("run.2.MRC", "run.2"),
        ("x.ccp4.bz2", "x"),
        ("plain", "plain"),
        (".mrc", ".mrc"),
    ],
)
def test_folder_is_named_after_the_map(tmp_path, path, name):
    assert map_name(tmp_path / path) == name


def test_map_and_fasta_alone_are_a_build(here, inputs):
    map_path, fasta, bundle = inputs
    result = angelo(map_path, fasta, "--bundle", bundle, "--device", "cpu")
    assert result.exit_code in (0, 3), result.output
    assert (here / "tiny_angelo" / "tiny_angelo_raw.cif").is_file()
    assert "16 residues in 2 chains" in result.stdout
    assert "c-alphas: " in result.stderr  # no terminal: a line for each stage


def test_a_negative_seed_is_a_usage_error(here, inputs):
    result = angelo(*inputs[:2], "--seed", "-1")
    assert result.exit_code == 2
    assert "--seed" in result.stderr
    assert not list(here.iterdir())


def test_a_mistyped_command_is_not_taken_for_a_map():
    result = angelo("biuld", "x")
    assert result.exit_code == 2
    assert "biuld" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.mrc", "{fasta}"], ["missing.mrc"]),
        (["{map}", "missing.fasta"], ["missing.fasta"]),
        (["{fasta}", "{fasta}"], ["tiny.fasta"]),
        (["{map}", "{map}"], ["tiny.mrc"]),
        (["{map}", "{fasta}", "--mask", "missing.mrc"], ["missing.mrc"]),
        (["{map}", "{fasta}", "--bundle", "missing"], ["missing", "not found"]),
        (["{map}", "{fasta}", "--device", "cuda"], ["cuda", "--device cpu"]),
        (["{map}", "{fasta}", "--device", "tpu"], ["tpu", "not understood"]),
        (["{map}", "{fasta}", "--voxel-size", "0"], ["voxel"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_wrong_arguments(here, inputs, arguments, words):
    map_path, fasta, bundle = inputs
    arguments = [text.format(map=map_path, fasta=fasta) for text in arguments]
    if "--bundle" not in arguments:
        arguments += ["--bundle", bundle]
    if "--device" not in arguments:
        arguments += ["--device", "cpu"]
    assert_refused(angelo("build", *arguments), *words)
    assert not list(here.iterdir())


def spoil_nan(values):
    values[0, 0, 0] = np.nan


def spoil_constant(values):
    values[...] = 3


@pytest.mark.filterwarnings("ignore:Data array contains NaN")
@pytest.mark.parametrize("spoil", [spoil_nan, spoil_constant])
def test_unusable_values(here, tmp_path, inputs, spoil):
    values = tiny_density()
    spoil(values)
    _, fasta, bundle = inputs
    path = write_volume(tmp_path / "bad.mrc", values)
    assert_refused(angelo(path, fasta, "--bundle", bundle, "--device", "cpu"), "bad.mrc")
    assert not list(here.iterdir())


def test_truncated_map(here, inputs):
    map_path, fasta, bundle = inputs
    map_path.write_bytes(map_path.read_bytes()[:5000])
    assert_refused(angelo(map_path, fasta, "--bundle", bundle, "--device", "cpu"), "tiny.mrc")
    assert not list(here.iterdir())


def test_zero_voxel_size_names_the_option_that_helps(here, inputs):
    map_path, fasta, bundle = inputs
    with mrcfile.open(map_path, "r+") as mrc:
        mrc.voxel_size = 0
    result = angelo(map_path, fasta, "--bundle", bundle, "--device", "cpu")
    assert_refused(result, "tiny.mrc", "--voxel-size")
    assert not list(here.iterdir())


def test_mask_on_another_grid(here, tmp_path, inputs):
    map_path, fasta, bundle = inputs
    mask = write_volume(tmp_path / "mask.mrc", np.ones((8, 8, 8), np.float32))
    result = angelo(map_path, fasta, "--mask", mask, "--bundle", bundle, "--device", "cpu")
    assert_refused(result, "mask")
    assert not list(here.iterdir())


@pytest.mark.parametrize("text", ["", "hello\n", ">dna\n" + "ACGT" * 10 + "\n", ">a\nM1V\n"])
def test_unusable_sequences(here, inputs, text):
    map_path, fasta, bundle = inputs
    fasta.write_text(text)
    assert_refused(angelo(map_path, fasta, "--bundle", bundle, "--device", "cpu"), "tiny.fasta")
    assert not list(here.iterdir())


def spoil_version(bundle):
    write_manifest(bundle, {**read_manifest(bundle), "format_version": 2})


def spoil_graph(bundle):
    path = bundle / "heads.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def spoil_manifest(bundle):
    (bundle / "bundle.json").write_text("{")


def lose_graph(bundle):
    (bundle / "heads.onnx").unlink()


@pytest.mark.parametrize("spoil", [spoil_version, spoil_graph, spoil_manifest, lose_graph])
def test_unusable_bundles(here, inputs, spoil):
    map_path, fasta, bundle = inputs
    spoil(bundle)
    assert_refused(angelo(map_path, fasta, "--bundle", bundle, "--device", "cpu"), str(bundle))
    assert not list(here.iterdir())


def test_a_folder_with_other_files_is_not_touched(here, inputs):
    map_path, fasta, bundle = inputs
    out = here / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    before = files_below(here)
    result = angelo(
        map_path, fasta, "-o", out, "--bundle", bundle, "--device", "cpu", "--overwrite"
    )
    assert_refused(result, "nothing was touched")
    assert files_below(here) == before


def test_full_disk(here, inputs, monkeypatch):
    map_path, fasta, bundle = inputs
    real = os.fsync
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr("angelo.run_folder.os.fsync", full)
    result = angelo(map_path, fasta, "-o", "out", "--bundle", bundle, "--device", "cpu")
    assert result.exit_code == 2
    assert "the disk is full" in result.stderr
    assert not list((here / "out").rglob("*partial*"))
    assert not list((here / "out").glob("*.cif"))


def test_nothing_in_the_map(here, tmp_path, inputs):
    _, fasta, bundle = inputs
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    noise[10, 10, 10] = 0.3
    flat = write_volume(tmp_path / "flat.mrc", -np.abs(noise))
    result = angelo(flat, fasta, "--bundle", bundle, "--device", "cpu")
    assert result.exit_code == 3, result.output
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("error: no C-alpha")
    assert "hand" in message and "resolution" in message
    assert "Traceback" not in result.stderr
    # Nothing is lost if the next map takes the same folder.
    better, _ = write_tiny_inputs(tmp_path / "cwd")
    result = angelo(better, fasta, "-o", "flat_angelo", "--bundle", bundle, "--device", "cpu")
    assert "16 residues in 2 chains" in result.stdout


def test_a_bug_is_called_one(inputs, monkeypatch):
    def broken(*_):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("angelo.pipeline.build_model", broken)
    result = angelo(*inputs[:2])
    assert_refused(result, "bug", "--debug", "two lines", code=1)
    result = angelo(*inputs[:2], "--debug")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr and "two" in result.stderr


def test_interrupted_run_says_how_to_go_on(inputs, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("angelo.pipeline.build_model", interrupted)
    assert_refused(angelo(*inputs[:2]), "same command", code=130)


def test_bundles_lists_what_is_there(tmp_path, monkeypatch):
    write_tiny_bundle(tmp_path / "models" / "tiny", accuracy={"recall": 0.5})
    monkeypatch.setenv("ANGELO_MODELS", str(tmp_path / "models"))
    result = angelo("bundles")
    assert result.exit_code == 0
    assert "tiny" in result.output and "MIT" in result.output and "recall" in result.output
    assert str(tmp_path) in result.output.replace("\n", "").replace(" ", "").replace("│", "")
    assert not result.stderr


def test_a_folder_of_bundles_that_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("ANGELO_MODELS", "/no/such")
    result = angelo("bundles")
    assert result.exit_code == 0
    assert "ANGELO_MODELS" in result.stderr and "/no/such" in result.stderr


def test_doctor_exit_code(tmp_path, monkeypatch):
    write_tiny_bundle(tmp_path / "models" / "tiny")
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setattr("angelo.bundle.bundle_folders", lambda: (tmp_path / "models",))
    result = angelo("doctor")
    assert result.exit_code == 0
    assert "pip install './runtime[gpu]'" in result.output
    (tmp_path / "models" / "tiny" / "heads.onnx").unlink()
    result = angelo("doctor")
    assert result.exit_code == 2
    assert "heads.onnx" in result.output


def test_evaluate_a_model_against_itself(tmp_path):
    pdb = tmp_path / "model.pdb"
    pdb.write_text(
        "".join(
            f"ATOM  {i:5d}  CA  GLY A{i:4d}    {3.8 * i:8.3f}{0:8.3f}{0:8.3f}  1.00  0.00"
            "           C\n"
            for i in range(1, 6)
        )
        + "END\n"
    )
    result = angelo("evaluate", pdb, pdb, "--json")
    assert result.exit_code == 0, result.output
    measures = json.loads(result.output)
    assert measures["calpha_recall"] == 100
    assert measures["geometry"]["clashscore"] == 0 and not measures["geometry"]["bond_rmsd"]
    shown = angelo("evaluate", pdb, pdb).output
    assert "calpha recall" in shown and "clashscore" in shown
    assert_refused(angelo("evaluate", pdb, tmp_path / "missing.cif"), "missing.cif")
