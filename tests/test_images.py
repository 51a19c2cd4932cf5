"""Images: what their recipes and locks promise, as far as no engine is needed to see it."""

import errno
import importlib.util
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import mrcfile
import numpy as np
import onnx
import pytest
from packaging.requirements import Requirement

from angelo import run_folder

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "packaging"
SCRIPTS = sorted(PACKAGING.glob("*.sh"))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DEFINITION = (ROOT / "apptainer.def").read_text()
#: Lower corner in the example map of the map that images test themselves with, voxels.
SELF_TEST_CORNER_ZYX = (42, 11, 24)
#: Operators whose library (cuFFT) the GPU image leaves out.
FFT_OPERATORS = {"Rfft", "Irfft", "DFT", "STFT"}


def read_lock(name):
    """Versions and checksums by package; fails where a line is anything else."""
    entries = (ROOT / "locks" / f"{name}.txt").read_text().replace("\\\n", " ").splitlines()
    locked = {}
    for entry in entries:
        if entry.startswith("#"):
            continue
        pin, *hashes = entry.split("--hash=")
        package, version = pin.strip().split("==")
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), entry
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", h) for h in hashes), entry
        locked[package] = version
    return locked


def project():
    return tomllib.loads((ROOT / "runtime" / "pyproject.toml").read_text())


@pytest.mark.parametrize("name", ["build", "cpu", "gpu"])
def test_locks_have_checksums_and_name_no_host(name):
    locked = read_lock(name)
    assert len(locked) >= 6
    assert not set(locked) & {"torch", "onnx", "pandas", "pip"}
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    assert "//" not in text and "--index" not in text and "--find" not in text


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_locks_agree_with_the_package(name):
    """`make locks` was run after the last change of the requirements."""
    locked = read_lock(name)
    wanted = [Requirement(text) for text in project()["project"]["dependencies"]]
    if name == "gpu":
        wanted = [one for one in wanted if one.name != "onnxruntime"]
        wanted += [
            Requirement(text) for text in project()["project"]["optional-dependencies"]["gpu"]
        ]
    for requirement in wanted:
        assert locked[requirement.name] in requirement.specifier, requirement


def test_the_lock_of_the_build_has_what_builds_the_package():
    locked = read_lock("build")
    for text in project()["build-system"]["requires"]:
        requirement = Requirement(text)
        assert locked[requirement.name] in requirement.specifier


def test_both_images_have_the_same_versions():
    cpu, gpu = read_lock("cpu"), read_lock("gpu")
    assert {cpu.pop("onnxruntime")} == {gpu.pop("onnxruntime-gpu")}
    assert {name: gpu.pop(name) for name in cpu} == cpu
    assert all(name.startswith("nvidia-") for name in gpu)


def test_the_gpu_image_leaves_out_only_what_no_graph_needs():
    assert not {"nvidia-cufft", "nvidia-nvjitlink"} & set(read_lock("gpu"))
    graphs = sorted((ROOT / "models").glob("*/*.onnx"))
    assert graphs
    for path in graphs:
        model = onnx.load(path, load_external_data=False)
        assert not FFT_OPERATORS & {node.op_type for node in model.graph.node}, path


def section(name):
    """Text of one section of the Apptainer definition."""
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION, re.M | re.S)
    assert found, name
    return found[1]


def test_both_recipes_have_the_same_base_and_labels():
    base = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE, re.M)[1]
    assert f"FROM={base}\n" in section("arguments")
    keys = re.findall(r"^(?:LABEL|     ) ([a-z.0-9]+)=", DOCKERFILE, re.M)
    assert {"org.opencontainers.image.version", "angelo.bundle.sha256"} < set(keys)
    assert keys == [line.split()[0] for line in section("labels").strip().splitlines()]


def test_both_recipes_copy_the_same_files():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {line.split()[0] for line in section("files").strip().splitlines()}
    assert kept == copied
    assert all((ROOT / name).exists() for name in kept)


def test_both_recipes_switch_telemetry_off_and_users_modules_too():
    for text in (DOCKERFILE, section("environment")):
        assert "ORT_DISABLE_TELEMETRY=1" in text
        assert "PYTHONSAFEPATH=1" in text


def test_the_dockerfile_has_two_targets_and_no_root():
    targets = re.findall(r"^FROM common AS (\w+)$", DOCKERFILE, re.M)
    assert targets == ["gpu", "cpu"]  # the last is what a plain `docker build .` makes
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.M)
    assert 'ENTRYPOINT ["angelo"]' in DOCKERFILE and "WORKDIR /data" in DOCKERFILE


@pytest.mark.parametrize("app", ["build", "search", "evaluate", "doctor"])
def test_apps_of_the_definition(app):
    assert section(f"apprun {app}").split() == ["exec", "angelo", app, '"$@"']


def test_the_self_test_map_is_cut_from_the_example():
    with mrcfile.open(PACKAGING / "self_test" / "haemoglobin_alpha.map.gz") as small:
        values, origin, voxel = small.data, small.header.origin, small.voxel_size
        with mrcfile.open(ROOT / "examples" / "emd_3488.map.gz") as whole:
            cut = whole.data[
                tuple(
                    slice(start, start + size)
                    for start, size in zip(SELF_TEST_CORNER_ZYX, values.shape, strict=True)
                )
            ]
            step = float(np.abs(whole.data).max()) / 127  # stored in 8 bits
            assert voxel == whole.voxel_size
        np.testing.assert_allclose(values * step, cut, atol=0.5001 * step)
        corner = [origin[axis] / voxel[axis] for axis in "zyx"]
        np.testing.assert_allclose(corner, SELF_TEST_CORNER_ZYX, rtol=1e-5)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse(script):
    shell = script.read_text().splitlines()[0].split("/")[-1].split()[-1]
    assert shell in ("sh", "bash")
    done = subprocess.run([shell, "-n", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_tools_the_image_test_skips_and_says_so(tmp_path):
    for name in ("bash", "sh", "dirname", "sed", "paste"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [shutil.which("bash"), PACKAGING / "image_test.sh"],
        env={"PATH": str(tmp_path), "TARGETS": "cpu", "APPTAINER": "apptainer", "HADOLINT": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["SKIPPED"] * 3
    assert "docker is not installed;podman is not installed" in done.stdout


def test_a_container_that_may_not_write_says_how_to_start_it(tmp_path, monkeypatch):
    denied = PermissionError(errno.EACCES, "Permission denied")
    marker = tmp_path / "containerenv"
    monkeypatch.setattr(run_folder, "OCI_MARKERS", (marker,))
    assert "--user" not in str(run_folder.output_error(Path("out"), denied))
    marker.touch()
    assert "--user $(id -u):$(id -g)" in str(run_folder.output_error(Path("out"), denied))


def test_without_slurm_its_test_skips_and_says_so(tmp_path):
    for name in ("bash", "sh", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run(
        [shutil.which("bash"), PACKAGING / "slurm_test.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("SKIPPED: batches under Slurm: no munged here")


@pytest.fixture
def transcript():
    """The script that writes the transcript."""
    spec = importlib.util.spec_from_file_location("transcript", PACKAGING / "transcript.py")
    transcript = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(transcript)
    return transcript


def test_the_transcript_gives_every_command_of_the_readme(transcript):
    given = [command for part in transcript.PARTS for command in part.commands]
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^    (\S.*)$", readme, re.M)
    assert len(shown) >= 8
    assert {line for line in shown if transcript.LEFT_OUT not in line} <= set(given)
    assert [command for command in given if command not in readme] == []


def test_the_transcript_gives_commands_as_a_shell_does(transcript, monkeypatch, tmp_path):
    monkeypatch.setenv("MAKEFLAGS", "w")
    text, is_good = transcript.answer_to("echo [$MAKEFLAGS]; false", tmp_path, tmp_path)
    assert text.splitlines()[1] == "    []" and not is_good
