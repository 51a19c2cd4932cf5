"""A batch under Slurm, without Slurm: scripts, submission, resumption; sbatch is a stand-in."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
from tiny_batch import write_manifest_of
from tiny_bundle import write_tiny_bundle
from typer.testing import CliRunner

from angelo.batch.launcher import LauncherError, launcher_for_nodes, launcher_here
from angelo.cli import app

RUNTIME = Path(__file__).parents[1] / "runtime"

#: Notes what it is given, and answers as --parsable says. A task "runs" when the tests say so.
SBATCH = """#!/bin/sh
if [ -e "{folder}/refuse" ]; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
n=$(cat "{folder}/count" 2>/dev/null || echo 100)
echo $((n + 1)) > "{folder}/count"
echo "$*" >> "{folder}/calls"
echo "$((n + 1));cluster"
"""
SQUEUE = """#!/bin/sh
if [ -e "{folder}/queued" ]; then echo "101_0 gpu"; exit 0; fi
echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1
"""


class FakeSlurm:
    """Stand-ins for sbatch and squeue, first on the PATH."""

    def __init__(self, folder):
        self.folder = folder
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            (folder / name).write_text(text.format(folder=folder))
            (folder / name).chmod(0o755)

    def calls(self):
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def set(self, name, value=True):
        (self.folder / name).touch() if value else (self.folder / name).unlink()


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """No image, and no job around the tests."""
    for name in os.environ:
        if name.startswith(("APPTAINER", "SINGULARITY", "SLURM_")):
            monkeypatch.delenv(name)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return FakeSlurm(tmp_path / "bin")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "my out"  # a space, as folders of users have


@pytest.fixture
def submit(tmp_path, slurm, out):
    """Submit the batch of some rows."""

    def submit(names, *options):
        manifest = write_manifest_of(tmp_path, names)
        words = ["batch", manifest, "-o", out, "--slurm", *options]
        return CliRunner().invoke(app, [str(word) for word in words])

    return submit


def directives(text):
    lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    return dict(line.partition("=")[::2] for line in lines)


def table(out):
    with (out / "summary.tsv").open() as lines:
        return {row["name"]: row for row in csv.DictReader(lines, delimiter="\t")}


def finish(out, name):
    """What a task leaves that built a row."""
    from angelo.batch.folder import BatchFolder, Outcome

    folder = BatchFolder(out)
    (row,) = (row for row in folder.rows() if row.name == name)
    folder.run(row).mkdir()
    (folder.run(row) / "run.json").write_text('{"status": "finished"}')
    folder.write_outcome(row, Outcome("built", attempts=1, fingerprint=row.fingerprint()))


def test_both_scripts_are_printed_and_nothing_is_written(submit, slurm, out):
    result = submit(["a", "b", "c"], "--dry-run", "--max-running", "2")
    assert result.exit_code == 0, result.output
    assert not slurm.calls() and not out.exists()
    assert "--array=0-2%2" in result.stdout
    assert "batch-task" in result.stdout and "batch-summary" in result.stdout
    assert "afterany:" in result.stdout


def test_submission(submit, slurm, out):
    result = submit(
        ["a", "b"],
        *("--partition", "gpu", "--gres", "gpu:1", "--time", "2:00:00", "--mem", "16G"),
        *("--cpus", "4", "--sbatch=--account=lab", "--sbatch=--qos=long"),
    )
    assert result.exit_code == 0, result.output
    folder = out / "batch" / "slurm" / "001"
    array, summary = slurm.calls()
    assert array == f"--parsable {folder}/array.sh"
    assert summary == f"--parsable --dependency=afterany:101 {folder}/summary.sh"
    assert (folder / "jobs").read_text().split() == ["101", "102"]
    assert "array 101 builds 2 maps" in result.stdout
    found = directives((folder / "array.sh").read_text())
    assert found == {
        **{"--job-name": '"angelo-my out"', "--partition": "gpu", "--array": "0-1"},
        **{"--output": f'"{folder}/task-%a.out"', "--gres": "gpu:1", "--time": "2:00:00"},
        **{"--mem": "16G", "--cpus-per-task": "4", "--signal": "B:TERM@60"},
        **{"--requeue": "", "--open-mode": "append", "--account": "lab", "--qos": "long"},
    }
    found = directives((folder / "summary.sh").read_text())
    assert "--gres" not in found and "--array" not in found
    assert found["--partition"] == "gpu" and found["--account"] == "lab"


def test_a_gpu_that_is_asked_for_has_to_be_there(submit, out):
    folder = out / "batch" / "slurm"
    submit(["a"], "--gres", "gpu:1")
    assert "--device cuda " in (folder / "001" / "array.sh").read_text()
    submit(["a"], "--gres", "gpu:1", "--device", "cpu")
    assert "--device cpu " in (folder / "002" / "array.sh").read_text()
    submit(["a"])
    assert "--device auto " in (folder / "003" / "array.sh").read_text()


def test_only_what_is_missing_is_submitted_again(submit, slurm, out):
    submit(["a", "b", "c"])
    finish(out, "b")
    slurm.set("queued")
    result = submit(["a", "b", "c"])
    assert result.exit_code == 2 and "scancel 101" in result.stderr
    assert len(slurm.calls()) == 2
    slurm.set("queued", False)
    result = submit(["a", "b", "c"])
    assert result.exit_code == 0, result.output
    second = out / "batch" / "slurm" / "002"
    assert directives((second / "array.sh").read_text())["--array"] == "0-1"
    from angelo.batch.folder import read_rows_file

    assert [row.name for row in read_rows_file(second / "rows.json")] == ["a", "c"]
    for name in ("a", "c"):
        finish(out, name)
    result = submit(["a", "b", "c"])
    assert result.exit_code == 0 and len(slurm.calls()) == 4
    assert {row["state"] for row in table(out).values()} == {"built"}


def test_a_refusal_is_passed_on_in_one_line(submit, slurm):
    slurm.set("refuse")
    result = submit(["a"], "--partition", "nowhere")
    assert result.exit_code == 2
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error"))
    assert "invalid partition" in line


def test_no_slurm_here(submit, slurm, monkeypatch, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    result = submit(["a"])
    assert result.exit_code == 2 and "sbatch is not on the PATH" in result.stderr


def test_inside_an_image_the_scripts_start_the_image(submit, slurm, out, monkeypatch, tmp_path):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/angelo gpu.sif")
    monkeypatch.setenv("PATH", "/nowhere")
    result = submit(["a"], "--gres", "gpu:1")
    assert result.exit_code == 0, result.output
    folder = out / "batch" / "slurm" / "001"
    assert f"sh '{folder}/submit.sh'" in result.stdout
    start = "exec apptainer exec --nv '/images/angelo gpu.sif' angelo batch-"
    for name in ("array.sh", "summary.sh"):
        assert start in (folder / name).read_text()
    bin_folder = f"{slurm.folder}{os.pathsep}/usr/bin{os.pathsep}/bin"
    answer = subprocess.run(
        ["sh", str(folder / "submit.sh")],
        env={"PATH": bin_folder},
        capture_output=True,
        text=True,
    )
    assert answer.stdout == "array 101, summary 102\n" and len(slurm.calls()) == 2


def test_launchers_for_nodes(monkeypatch):
    here = ("python", "-m", "angelo")

    def launcher(given, gpu=False):
        return launcher_for_nodes(given, here, gpu=gpu)

    assert launcher("") == here
    assert launcher("srun -n1 'a b.sif'") == ("srun", "-n1", "a b.sif", "angelo")
    with pytest.raises(LauncherError, match="--launcher"):
        launcher("a 'b")
    monkeypatch.setenv("SINGULARITY_CONTAINER", "/x.sif")
    assert launcher("") == ("apptainer", "exec", "/x.sif", "angelo")
    assert launcher("", gpu=True) == ("apptainer", "exec", "--nv", "/x.sif", "angelo")
    assert launcher("other") == ("other", "angelo")


def test_launchers_here(monkeypatch):
    monkeypatch.setenv("SINGULARITY_CONTAINER", "/x.sif")
    assert launcher_here("", ("python",)) == ("python",)  # already inside
    assert launcher_here("env A=1", ("python",)) == ("env", "A=1", "angelo")
    with pytest.raises(LauncherError, match="no program nowhere"):
        launcher_here("nowhere x", ("python",))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--partition", "a b"], '#SBATCH --partition="a b"'),
        (["--time", "1:00"], "#SBATCH --time=1:00"),
    ],
)
def test_directives_with_blanks_are_quoted(submit, options, line):
    assert line in submit(["a"], "--dry-run", *options).stdout


def test_a_line_break_cannot_smuggle_a_command_in(submit, out):
    result = submit(["a"], "--partition", "gpu\nrm -rf x")
    assert result.exit_code == 2 and "line break" in result.stderr
    assert not out.exists()


def test_a_percent_sign_in_a_path_stays_one(tmp_path, slurm):
    manifest = write_manifest_of(tmp_path, ["a"])
    words = ["batch", manifest, "-o", tmp_path / "50%a", "--slurm", "--dry-run"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "/50%%a/batch/slurm/001/task-%a.out" in result.stdout


def run_task(folder, number, bundle):
    """Run a task's script as Slurm would; with a small bundle instead of the default."""
    environment = {
        **{"PATH": "/usr/bin:/bin", "PYTHONPATH": str(RUNTIME), "OMP_NUM_THREADS": "1"},
        **{"ANGELO_MODELS": str(bundle.parent), "SLURM_ARRAY_TASK_ID": str(number)},
        **{"SLURM_ARRAY_JOB_ID": "101", "SLURM_CPUS_PER_TASK": "1"},
    }
    script = "summary.sh" if number is None else "array.sh"
    return subprocess.run(
        ["bash", str(folder / script)], env=environment, capture_output=True, text=True
    )


def test_tasks_do_what_their_scripts_say(tmp_path, slurm, out, monkeypatch):
    bundle = write_tiny_bundle(tmp_path / "models" / "small")
    monkeypatch.setenv("ANGELO_MODELS", str(bundle.parent))
    manifest = write_manifest_of(tmp_path, ["whole", "cut"])
    (tmp_path / "cut.mrc").write_bytes((tmp_path / "cut.mrc").read_bytes()[:5000])
    manifest.write_text("map\tbundle\nwhole.mrc\tsmall\ncut.mrc\tsmall\n")
    words = ["batch", manifest, "-o", out, "--slurm", "--device", "cpu"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    folder = out / "batch" / "slurm" / "001"
    first, second = (run_task(folder, number, bundle) for number in (0, 1))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "whole: built" in first.stdout
    assert second.returncode == 2 and "cut short" in second.stdout
    assert run_task(folder, 0, bundle).stdout == "whole: has a result already\n"
    assert run_task(folder, None, bundle).returncode == 0
    rows = table(out)
    assert (rows["whole"]["state"], rows["cut"]["state"]) == ("built", "failed")
    assert rows["whole"]["job"] == "101_0"
    assert (out / rows["whole"]["model"]).is_file() and (
        out / rows["whole"]["report"]
    ).is_file()
