"""The module that packaging/module/install.sh makes, of an environment and of an image."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "packaging" / "module"
APPTAINER = '#!/bin/sh\n[ "$4" = --version ] && echo "angelo 1.2.3" || printf "<%s>" "$@"\n'


def install(tmp_path, *options):
    words = ["sh", str(FOLDER / "install.sh"), *map(str, options)]
    words += ["--prefix", str(tmp_path / "apps"), "--modules", str(tmp_path / "modules")]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("ANGELO_MODELS", None)
    return subprocess.run(words, capture_output=True, text=True, env=environment)


@pytest.fixture
def apptainer(tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(APPTAINER)
    program.chmod(0o755)
    return program


@pytest.fixture
def venv(tmp_path):
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("angelo", "relion_angelo", "python"):
        (folder / name).write_text('#!/bin/sh\necho "angelo 1.2.3"\n')
        (folder / name).chmod(0o755)
    return folder.parent


def test_module_of_an_environment(tmp_path, venv):
    result = install(tmp_path, "--venv", venv)
    assert result.returncode == 0, result.stderr
    root = tmp_path / "apps" / "1.2.3"
    assert sorted(path.name for path in (root / "bin").iterdir()) == ["angelo", "relion_angelo"]
    assert (root / "bin" / "angelo").resolve() == venv / "bin" / "angelo"
    lines = (tmp_path / "modules" / "angelo" / "1.2.3").read_text().splitlines()
    assert lines[0] == "#%Module1.0"
    assert f"set root    {root}" in lines and "set version 1.2.3" in lines
    assert "setenv ORT_DISABLE_TELEMETRY 1" in lines
    assert install(tmp_path, "--venv", venv).returncode == 0  # again: nothing in the way


def test_module_of_an_image(tmp_path, apptainer):
    (tmp_path / "a.sif").touch()
    result = install(tmp_path, "--image", tmp_path / "a.sif")
    assert result.returncode == 0, result.stderr
    for name in ("angelo", "relion_angelo"):
        command = tmp_path / "apps" / "1.2.3" / "bin" / name
        environment = {"PATH": f"{apptainer.parent}:/usr/bin:/bin"}
        words = [str(command), "build", "a map.mrc"]
        nv = "<--nv>" if Path("/dev/nvidiactl").exists() else ""
        start = f"{nv}<{tmp_path / 'a.sif'}><{name}><build><a map.mrc>"
        answer = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert answer.stdout == f"<exec>{start}"
        folders = [tmp_path / "bundles of ours", tmp_path / "missing", tmp_path / "bin"]
        folders[0].mkdir(exist_ok=True)
        environment["ANGELO_MODELS"] = ":".join(map(str, folders))
        answer = subprocess.run(words, capture_output=True, text=True, env=environment)
        assert answer.stdout == f"<exec><--bind><{folders[2]}><--bind><{folders[0]}>{start}"


def test_wrong_words(tmp_path, venv):
    for options, complaint in (
        ((), "one of --venv and --image"),
        (("--venv", venv, "--image", "x"), "one of --venv and --image"),
        (("--venv", tmp_path / "missing"), "no such folder"),
        (("--venv", tmp_path), "not installed there"),
        (("--image", tmp_path / "missing.sif"), "no such file"),
        (("--sing", "x"), "--sing is not an option"),
    ):
        result = install(tmp_path, *options)
        assert result.returncode == 2 and complaint in result.stderr, options
    assert not (tmp_path / "modules").exists()


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="no Tcl here")
def test_the_modulefile_is_tcl_that_modules_understand(tmp_path, venv):
    install(tmp_path, "--venv", venv)
    root = tmp_path / "apps" / "1.2.3"
    (root / "models").mkdir()
    script = "foreach c {module-whatis conflict prepend-path setenv} {"
    script += ' proc $c {args} "puts \\"$c \\$args\\"" }\nsource %s\n'
    (tmp_path / "run.tcl").write_text(script % (tmp_path / "modules" / "angelo" / "1.2.3"))
    words = ["tclsh", str(tmp_path / "run.tcl")]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[1:] == [
        "conflict angelo",
        f"prepend-path PATH {root}/bin",
        "setenv ORT_DISABLE_TELEMETRY 1",
        f"prepend-path ANGELO_MODELS {root}/models",
    ]
