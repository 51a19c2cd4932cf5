"""RELION's contract: marker files, abort, names of results, ModelAngelo's flags."""

import json
import os
import signal
import stat
import threading
import time
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle
from tiny_map import write_tiny_inputs

from angelo import relion

RUNTIME = Path(relion.__file__).parents[1]

#: Stands in for angelo: notes its words, then does what the map's or database's name says.
SCRIPT = """#!/bin/sh
printf '%s\\n' "$@" > "{words}"
case "$*" in *bad*) echo "error: bad" >&2; exit 2 ;; *none*) exit 3 ;; esac
case "$1-$*" in
  *slow*)
    touch "{begun}"; trap 'exit 130' INT
    n=0; while [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done ;;
  build*)
    while [ "$1" != --out ]; do shift; done
    name=$(basename "$2")
    mkdir -p "$2/hmm"
    for file in "$name.cif" "${{name}}_raw.cif" "$name.cxc" hmm/A.hmm; do
      echo "$file" > "$2/$file"
    done
    echo '{{"files": ["'$name'.cif", "'$name'_raw.cif", "'$name'.cxc", "hmm/A.hmm"]}}' \\
      > "$2/run.json" ;;
esac
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A RELION project with job folder ModelAngelo/job012, in which RELION's files lie."""
    job = tmp_path / "ModelAngelo" / "job012"
    job.mkdir(parents=True)
    (job / "job.star").write_text("data_job\n")
    (job / "run.out").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(project):
    return project / "ModelAngelo" / "job012"


@pytest.fixture
def words(project, monkeypatch):
    """Put the stand-in in angelo's place; call to read the words of its last call."""
    script, noted = project / "angelo", project / "words"
    script.write_text(SCRIPT.format(words=noted, begun=project / "begun"))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr("angelo.relion.angelo_command", lambda: (str(script),))
    monkeypatch.setattr("angelo.child.POLL_SECONDS", 0.02)
    return lambda: noted.read_text().splitlines() if noted.exists() else None


def call(text):
    return relion.main(text.split())


def markers(job):
    return sorted(path.name for path in job.glob("RELION_JOB_*"))


JOB = "ModelAngelo/job012/"
BUILD = f"build -pf p.fasta -v map.mrc -o {JOB} -d 0 --pipeline-control {JOB}"


def test_build_as_relion_5_calls_it(words, job):
    assert call(BUILD) == 0
    assert words() == [
        *("build", "map.mrc", "p.fasta", "--out", "ModelAngelo/job012/job012"),
        *("--device", "cuda:0"),
    ]
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]
    assert (job / "job012.cif").read_text() == "job012.cif\n"
    assert (job / "job012_raw.cif").is_file()
    assert not (job / "job012.cxc").exists()  # has paths relative to its own folder
    assert (job / "job.star").read_text() == "data_job\n"
    assert not (job / relion.NODES).exists()  # RELION knows the results of its own job type


def test_build_without_sequences(words, job):
    assert call(f"build_no_seq -v map.mrc -o {JOB} -d  --pipeline-control {JOB}") == 0
    assert words() == ["build", "map.mrc", "--out", f"{JOB}job012", "--device", "auto"]
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]


def test_search(words, job):
    command = f"hmm_search -i {JOB} -f db.fasta -o {JOB} -a amino --F1 0.02 --F2 0.001"
    assert call(f"{command} --F3 1e-05 --E 10 --pipeline-control {JOB}") == 0
    assert words() == [
        *("search", "ModelAngelo/job012/job012", "db.fasta"),
        *("--out", "ModelAngelo/job012/search", "--overwrite"),
    ]
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]


def test_search_of_a_run_that_relion_did_not_make(words, project):
    (project / "mine").mkdir()
    (project / "mine" / "run.json").write_text("{}")
    assert call("hmm_search -i mine -f db.fasta -o found") == 0
    assert words()[:3] == ["search", "mine", "db.fasta"]
    assert words()[3:5] == ["--out", "found/search"]


def test_a_search_that_finds_nothing_has_its_answer(words, job):
    assert call(f"hmm_search -i {JOB} -f none.fasta -o {JOB} --pipeline-control {JOB}") == 0
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.parametrize(("name", "code"), [("bad", 2), ("none", 3)])
def test_a_build_without_a_model_is_a_failure(words, job, name, code):
    assert call(BUILD.replace("map.mrc", f"{name}.mrc")) == code
    assert markers(job) == ["RELION_JOB_EXIT_FAILURE"]


def test_markers_of_the_run_before_are_removed(words, job):
    for ending in ("SUCCESS", "FAILURE", "ABORTED"):
        (job / f"RELION_JOB_EXIT_{ending}").touch()
    call(BUILD.replace("map.mrc", "bad.mrc"))
    assert markers(job) == ["RELION_JOB_EXIT_FAILURE"]


def test_without_control_there_are_no_markers(words, job):
    assert call(f"build --f p.fasta --v map.mrc --o {JOB} --d cpu") == 0
    assert words()[-2:] == ["--device", "cpu"]
    assert markers(job) == []
    assert call(f"build --f p.fasta --v bad.mrc --o {JOB}") == 2
    assert markers(job) == []


def test_the_flag_of_control_may_stand_alone(words, job):
    assert call(f"build -v map.mrc -pf p.fasta -o {JOB} --pipeline_control") == 0
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]


def abort(job, begun, how):
    def wait_and_abort():
        while not begun.exists():
            time.sleep(0.01)
        how()

    thread = threading.Thread(target=wait_and_abort)
    thread.start()
    started = time.monotonic()
    code = call(BUILD.replace("map.mrc", "slow.mrc"))
    thread.join()
    assert time.monotonic() - started < 30
    return code


def test_abort_on_request(words, job, project):
    code = abort(job, project / "begun", (job / "RELION_JOB_ABORT_NOW").touch)
    assert code != 0
    assert markers(job) == ["RELION_JOB_EXIT_ABORTED"]  # and the request is gone


def test_abort_by_the_queue(words, job, project):
    code = abort(job, project / "begun", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert code != 0
    assert markers(job) == ["RELION_JOB_EXIT_ABORTED"]


def test_an_abort_that_came_before_the_start(words, job):
    (job / "RELION_JOB_ABORT_NOW").touch()
    assert call(BUILD) != 0
    assert words() is None
    assert markers(job) == ["RELION_JOB_EXIT_ABORTED"]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (f"build -pf p.fasta -o {JOB} --pipeline-control {JOB}", "-v"),
        (f"build -v m.mrc -o {JOB} --pipeline-control {JOB}", "no sequences"),
        (f"sing -o {JOB} --pipeline-control {JOB}", "sing"),
        (f"hmm_search -i x -f y -a RNA -o {JOB} --pipeline-control {JOB}", "RNA"),
    ],
)
def test_relion_hears_of_a_wrong_command_line(words, job, capsys, command, complaint):
    assert call(command) == 2
    assert words() is None
    assert markers(job) == ["RELION_JOB_EXIT_FAILURE"]
    error = capsys.readouterr().err
    assert error.startswith("error: ") and complaint in error and error.count("\n") == 1


def test_nucleic_acids_with_and_without_proteins(words, job):
    nucleic = ["--dna", "d.fasta", "--rna", "r.fasta"]
    assert call(BUILD + " -df d.fasta -rf r.fasta") == 0
    assert words()[:7] == ["build", "map.mrc", "p.fasta", *nucleic]
    assert call(BUILD.replace("-pf p.fasta", "-rf r.fasta")) == 0
    assert words()[:4] == ["build", "map.mrc", *nucleic[2:]]


def test_other_options_go_to_the_build(words):
    assert call(BUILD + " -m mask.mrc --seed 3 --model-bundle-name other") == 0
    assert words()[-6:] == ["--mask", "mask.mrc", "--bundle", "other", "--seed", "3"]


def test_an_external_job_names_its_results(words, project):
    job = project / "External" / "job007"
    command = "build --o External/job007/ --in_3dref map.mrc --in_mask mask.mrc --pf p.fasta"
    assert call(f"{command} --j 4 --pipeline_control External/job007/") == 0
    assert words()[1:3] == ["map.mrc", "p.fasta"]
    assert words()[-4:] == ["--mask", "mask.mrc", "--threads", "4"]
    lines = (job / "RELION_OUTPUT_NODES.star").read_text().splitlines()
    assert lines[0] == "data_output_nodes"
    assert lines[-2] == "External/job007/job007.cif AtomCoords.cif"
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]


@pytest.mark.parametrize(
    ("given", "device"),
    [("", "auto"), ("0", "cuda:0"), ("0,1", "cuda:0,1"), ("cpu", "cpu"), ("cuda:1", "cuda:1")],
)
def test_devices(given, device):
    assert relion.device_of(given) == device


def test_help_marks_nothing(job, capsys):
    assert call("--help") == 0
    assert "hmm_search" in capsys.readouterr().out
    assert markers(job) == []


def test_a_bug_is_a_failure_too(words, job, monkeypatch):
    def broken(*_):
        raise RuntimeError("bug")

    monkeypatch.setattr("angelo.relion.run_child", broken)
    with pytest.raises(RuntimeError):
        call(BUILD)
    assert markers(job) == ["RELION_JOB_EXIT_FAILURE"]


def test_a_real_build(project, job, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RUNTIME))
    map_path, _ = write_tiny_inputs(project)
    bundle = write_tiny_bundle(project / "networks")
    options = f"-d cpu --bundle {bundle} --pipeline-control {JOB}"
    assert call(f"build_no_seq -v {map_path.name} -o {JOB} {options}") == 0
    assert markers(job) == ["RELION_JOB_EXIT_SUCCESS"]
    assert "_atom_site" in (job / "job012.cif").read_text()
    assert json.loads((job / "job012" / "run.json").read_text())["status"] == "finished"
