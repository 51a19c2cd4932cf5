"""A batch on one machine: isolation, restart, sharing of GPUs and threads, the summary."""

import csv
import html.parser
import json
import os
import signal
import threading
import time
from pathlib import Path

import onnxruntime
import pytest
from tiny_batch import FakeAngelo, write_manifest_of
from typer.testing import CliRunner

from angelo.batch.build import Builder, Worker
from angelo.batch.folder import BatchFolder, Outcome, read_rows_file
from angelo.batch.workers import plan_workers, trouble_with, visible_gpus
from angelo.child import run_child, stop_signals
from angelo.cli import app
from angelo.errors import DeviceError, OutputError
from angelo.session import CUDA

RUNTIME = Path(__file__).parents[1] / "runtime"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The stand-in, in place of angelo."""
    (tmp_path / "fake").mkdir()
    fake = FakeAngelo(tmp_path / "fake")
    monkeypatch.setattr("angelo.child.angelo_command", lambda: fake.command)
    monkeypatch.setattr("angelo.child.POLL_SECONDS", 0.02)
    return fake


@pytest.fixture
def run(tmp_path, fake):
    """Run the batch of some rows in OUT."""

    def run(names, *options):
        manifest = write_manifest_of(tmp_path, names)
        words = ["batch", manifest, "-o", tmp_path / "out", "--device", "cpu", *options]
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def table(out):
    with (out / "summary.tsv").open() as lines:
        return {row["name"]: row for row in csv.DictReader(lines, delimiter="\t")}


def names_of(calls):
    return sorted(Path(call[1]).stem for call in calls)


def test_a_failure_stays_alone(run, out, fake):
    result = run(["good_1", "bad", "killed", "none", "good_2"], "--workers", "2")
    assert result.exit_code == 2
    assert "error: 2 of 5 maps failed" in result.stderr
    rows = table(out)
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        **{"good_1": "built", "good_2": "built", "none": "no model"},
        **{"bad": "failed", "killed": "failed"},
    }
    assert rows["bad"]["message"] == "the map is bad" and rows["bad"]["exit_code"] == "2"
    assert "SIGKILL" in rows["killed"]["message"] and "memory" in rows["killed"]["message"]
    assert rows["good_1"]["matched_residues"] == "12" and rows["good_1"]["message"] == ""
    assert "2 built, 1 no model, 2 failed" in result.stdout
    assert "5 maps, 5 to build" in result.stderr
    for name in rows:
        assert f"{name}: {states[name]}" in result.stderr  # a line for each as it ends
    assert "error: the map is bad" in (out / "batch" / "bad.log").read_text()


def test_again_only_what_failed_is_tried(run, out, fake):
    names = ["good", "bad", "none"]
    assert run(names).exit_code == 2
    assert names_of(fake.calls()) == ["bad", "good", "none"]
    assert run(names).exit_code == 2
    assert names_of(fake.calls()) == ["bad", "bad", "good", "none"]
    assert table(out)["bad"]["attempts"] == "2"
    assert (out / "batch" / "bad.log").read_text().count("== attempt") == 2
    assert run(["good", "none"]).exit_code == 3  # and bad is no longer in the manifest
    assert run(["good"]).exit_code == 0
    assert len(fake.calls()) == 4
    assert list(table(out)) == ["good"]


def test_a_result_that_is_gone_is_built_again(run, out, fake):
    run(["good"])
    (out / "good" / "run.json").unlink()
    assert run(["good"]).exit_code == 0
    assert len(fake.calls()) == 2


def test_changed_rows_need_a_word(run, out, fake, tmp_path):
    run(["good_1", "good_2"])
    before = (out / "summary.tsv").read_bytes()
    os.utime(tmp_path / "good_2.mrc", (1, 1))
    manifest = tmp_path / "maps.tsv"
    words = [str(w) for w in ("batch", manifest, "-o", out, "--device", "cpu")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "line 3" in result.stderr and "--overwrite" in result.stderr
    assert len(fake.calls()) == 2 and (out / "summary.tsv").read_bytes() == before
    result = CliRunner().invoke(app, [*words, "--overwrite"])
    assert result.exit_code == 0, result.output
    assert names_of(fake.calls()) == ["good_1", "good_2", "good_2"]
    assert "--overwrite" in fake.calls()[-1]


def test_nothing_starts_when_a_row_is_wrong(run, out, fake, tmp_path):
    manifest = write_manifest_of(tmp_path, ["good"])
    with manifest.open("a") as lines:
        lines.write("missing.mrc\ttiny.fasta\n")
    result = CliRunner().invoke(app, ["batch", str(manifest), "-o", str(out)])
    assert result.exit_code == 2 and "line 3" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not out.exists() and not fake.calls()


def test_a_folder_with_other_files_is_not_touched(run, out, fake):
    out.mkdir()
    (out / "thesis.tex").write_text("mine")
    result = run(["good"])
    assert result.exit_code == 2 and "nothing was touched" in result.stderr
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_two_batches_do_not_share_a_folder(run, out, fake, tmp_path):
    run(["good"])
    lock = BatchFolder(out).claim(read_rows_file(out / "batch" / "rows.json"))
    try:
        result = run(["bad"])
        assert result.exit_code == 2 and "another angelo run" in result.stderr
        assert len(fake.calls()) == 1
    finally:
        os.close(lock)


def test_a_dry_run_writes_nothing(run, out, fake):
    result = run(["good", "bad"], "--dry-run", "--threads", "3")
    assert result.exit_code == 0
    assert not out.exists() and not fake.calls()
    commands = result.stdout.splitlines()
    assert len(commands) == 2 and commands[0].startswith(f"{fake.path} build ")
    assert commands[0].endswith(f"--out {out}/good --device cpu --threads 3")


def test_a_launcher_goes_before_angelo(run, fake):
    result = run(["good"], "--dry-run", "--launcher", "env 'A=my image.sif'")
    assert result.stdout.startswith("env 'A=my image.sif' angelo build ")
    result = run(["good"], "--launcher", "nowhere exec")
    assert result.exit_code == 2 and "no program nowhere" in result.stderr


def test_workers_share_the_threads(run, fake):
    run(["good_1", "good_2", "good_3"], "--workers", "2", "--threads", "7")
    assert {call[call.index("--threads") + 1] for call in fake.calls()} == {"3"}
    assert {threads for _, threads in fake.environment()} == {"3"}


def test_one_worker_for_each_gpu(run, fake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-abc")
    monkeypatch.setattr("angelo.batch.workers.trouble_with", lambda gpu: "")
    result = run([f"good_{n}" for n in range(8)], "--device", "cuda")
    assert result.exit_code == 0, result.output
    assert {gpu for gpu, _ in fake.environment()} == {"4", "GPU-abc"}
    assert all(call[call.index("--device") + 1] == "cuda" for call in fake.calls())


def test_plans_of_workers(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setattr("angelo.batch.workers.trouble_with", lambda gpu: "")
    assert plan_workers("auto", 0, 8, 9) == [Worker("cuda", 2, gpu) for gpu in "012"]
    assert plan_workers("cuda:2,0", 0, 8, 9) == [Worker("cuda", 4, gpu) for gpu in "20"]
    assert plan_workers("auto", 0, 8, 1) == [Worker("cuda", 8, "0")]
    assert plan_workers("cpu", 0, 8, 9) == [Worker("cpu", 4)] * 2
    assert plan_workers("cpu", 3, 8, 9) == [Worker("cpu", 2)] * 3
    assert plan_workers("cpu", 3, 2, 9) == [Worker("cpu", 1)] * 3
    assert plan_workers("cpu", 3, 8, 0) == [Worker("cpu", 8)]
    with pytest.raises(DeviceError, match="no GPU 3"):
        plan_workers("cuda:3", 0, 8, 9)
    with pytest.raises(DeviceError, match="--workers is for the processor"):
        plan_workers("cuda", 5, 8, 9)
    with pytest.raises(DeviceError, match="not understood"):
        plan_workers("tpu", 0, 8, 9)


def test_gpus_that_do_not_work(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("angelo.batch.workers.trouble_with", lambda gpu: "no driver")
    assert plan_workers("auto", 0, 4, 1, try_gpus=False) == [Worker("cuda", 4, "0")]
    with pytest.raises(DeviceError, match="no driver"):
        plan_workers("cuda", 0, 4, 1)
    assert plan_workers("auto", 0, 4, 1) == [Worker("cpu", 4)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(DeviceError, match="no GPU is visible"):
        plan_workers("cuda", 0, 4, 1)


def test_a_gpu_is_tried_in_another_process(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(RUNTIME))
    if CUDA in onnxruntime.get_available_providers():
        assert trouble_with("no such GPU")
    else:
        trouble = trouble_with("0")
        assert CUDA in trouble and "--device cpu" in trouble


def test_gpus_are_counted_by_the_driver(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A'\necho '  MIG 1g: x'\necho 'GPU 1: A'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", "")
    assert visible_gpus() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []


def test_stop_and_go_on(run, out, fake):
    def stop():
        while not (out / "slow" / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    result = run(["slow", "good"], "--workers", "1")
    thread.join()
    assert result.exit_code == 130 and "goes on" in result.stderr
    states = {name: row["state"] for name, row in table(out).items()}
    assert states == {"slow": "stopped", "good": "waiting"}
    assert "the queue" in table(out)["slow"]["message"]
    result = run(["slow", "good"], "--workers", "1")
    assert result.exit_code == 0, result.output
    assert [Path(call[1]).stem for call in fake.calls()] == ["slow", "slow", "good"]
    assert table(out)["slow"]["attempts"] == "2"


def test_a_row_whose_process_vanished_was_stopped(run, out, fake):
    run(["bad"])
    folder = BatchFolder(out)
    (row,) = folder.rows()
    folder.write_outcome(row, Outcome(state="running", attempts=1))
    assert CliRunner().invoke(app, ["batch-summary", str(out)]).exit_code == 0
    assert table(out)["bad"]["state"] == "running"
    result = CliRunner().invoke(app, ["batch-summary", str(out), "--ended"])
    assert "1 stopped" in result.stdout
    assert table(out)["bad"]["state"] == "stopped"
    assert folder.to_do([row]) == (row,)


def test_a_stopped_row_goes_on_even_when_rows_are_overwritten(run, out, fake):
    run(["bad"])
    folder = BatchFolder(out)
    (row,) = folder.rows()
    builder, worker = Builder(folder, ("angelo",), overwrite=True), Worker("cpu", 1)
    assert builder.command_of(row, worker)[-1] == "--overwrite"
    folder.write_outcome(
        row, Outcome(state="stopped", attempts=1, fingerprint=row.fingerprint())
    )
    assert "--overwrite" not in builder.command_of(row, worker)
    folder.write_outcome(row, Outcome(state="stopped", attempts=1, fingerprint="other"))
    assert "--overwrite" in builder.command_of(row, worker)


class Links(html.parser.HTMLParser):
    """Targets of the links of a page, and its table's rows."""

    def __init__(self):
        super().__init__()
        self.links, self.rows, self.open = [], [], []

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        if tag == "a":
            self.links.append(facts["href"])
        if tag == "tr":
            self.rows.append(facts.get("class"))
        if tag != "meta" and tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_its_links_lead_somewhere(run, out, fake):
    run(["good", "bad", "none"])
    (out / "good" / "good.cif").write_text("x")
    page = Links()
    text = (out / "summary.html").read_text()
    page.feed(text)
    assert not page.open
    assert page.rows == [None, "built", "failed", "nothing"]
    assert "good/good.cif" in page.links
    assert all((out / link).is_file() for link in page.links)
    assert "75 %" in text and "the map is bad" in text
    assert "http" not in text


def test_json_says_what_the_table_says(run, out, fake):
    run(["good", "bad"])
    found = json.loads((out / "summary.json").read_text())
    assert found["states"] == {"built": 1, "failed": 1}
    rows = table(out)
    for record in found["rows"]:
        row = rows[record["name"]]
        assert row == {
            key: "" if value is None else str(value) for key, value in record.items()
        }


def test_no_batch_here(tmp_path):
    result = CliRunner().invoke(app, ["batch-summary", str(tmp_path)])
    assert result.exit_code == 2 and "is this the folder of an angelo batch?" in result.stderr
    with pytest.raises(OutputError):
        read_rows_file(tmp_path / "rows.json")


def test_a_child_that_will_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("angelo.child.POLL_SECONDS", 0.02)
    monkeypatch.setattr("angelo.child.GRACE_SECONDS", 0.05)
    begun = tmp_path / "begun"
    script = f"trap '' INT; touch {begun}; while :; do sleep 0.05; done"
    with (tmp_path / "log").open("wb") as log:
        code = run_child(["sh", "-c", script], begun.exists, log=log)
    assert code == -signal.SIGKILL


def test_only_the_first_signal_is_held():
    before, before_int = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stop_signals() as stopped:
        assert not stopped.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopped.wait(1)
        assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGINT) == before_int
