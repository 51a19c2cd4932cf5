"""Training curves: what the file holds, and how a resumed run goes on with it."""

import csv

import pytest

from angelo_training.run_log import CurveLog


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_are_on_disk_at_once(tmp_path):
    log = CurveLog(tmp_path / "run" / "curves.csv")
    log.append(1, {"loss": 2.5})
    assert [(row["step"], row["loss"]) for row in rows(log.path)] == [("1", "2.5")]
    log.close()


def test_columns_may_come_late_and_stay_away(tmp_path):
    with CurveLog(tmp_path / "curves.csv") as log:
        log.append(1, {"loss": 2.5})
        log.append(2, {"loss": 2.0, "perplexity": 17.0})
        log.append(3, {"perplexity": 16.0})
    assert [(row["loss"], row["perplexity"]) for row in rows(log.path)] == [
        ("2.5", ""),
        ("2", "17"),
        ("", "16"),
    ]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    path = tmp_path / "curves.csv"
    with CurveLog(path) as log:
        for step in (1, 2, 3):
            log.append(step, {"loss": float(step)})
    with CurveLog(path, step=2) as log:
        log.append(3, {"loss": 30.0})
    assert [row["loss"] for row in rows(path)] == ["1", "2", "30"]


def test_seconds_go_on_from_the_last_row(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("step,seconds,loss\n1,100.000,2\n")
    with CurveLog(path) as log:
        log.append(2, {"loss": 1.0})
        assert 100 <= log.seconds < 160
    assert 100 <= float(rows(path)[1]["seconds"]) < 160


def test_half_a_line_left_by_a_killed_run_is_dropped(tmp_path):
    path = tmp_path / "curves.csv"
    path.write_text("step,seconds,loss\n1,1.000,2.5\n2,2.000,2.")
    with CurveLog(path) as log:
        log.append(2, {"loss": 2.25})
    assert [row["loss"] for row in rows(path)] == ["2.5", "2.25"]


def test_another_file_is_refused_and_kept(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("name,length\nA,1\n")
    with pytest.raises(ValueError, match="not a training log"):
        CurveLog(path)
    assert path.read_text() == "name,length\nA,1\n"


def test_key_columns_cannot_be_given_as_values(tmp_path):
    with CurveLog(tmp_path / "curves.csv") as log, pytest.raises(ValueError, match="step"):
        log.append(1, {"step": 2.0})
