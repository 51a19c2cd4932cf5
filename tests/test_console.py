"""Progress and summary as a person sees them."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from angelo.console import StageProgress, summary_panel
from angelo.results import BuildResult


def console_of(is_terminal):
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=100)


def test_without_a_terminal_there_is_a_line_for_each_stage():
    console = console_of(False)
    with StageProgress(console) as progress:
        for done in range(4):
            progress.update("c-alphas", done, 3)
        progress.update("chains", 0, 1)
    lines = console.file.getvalue().splitlines()
    assert [line.split(": ")[0] for line in lines] == ["c-alphas", "chains"]


def test_a_stage_that_fails_is_not_called_finished():
    console = console_of(False)
    with pytest.raises(ValueError), StageProgress(console) as progress:
        progress.update("c-alphas", 1, 3)
        raise ValueError
    assert console.file.getvalue() == ""


def test_a_terminal_has_bars_that_fill():
    console = console_of(True)
    with StageProgress(console) as progress:
        progress.update("c-alphas", 1, 3)
        progress.update("chains", 0, 1)
    assert console.file.getvalue().count("100%") >= 2


@pytest.mark.parametrize("was_done", [False, True])
def test_panel_says_what_was_built_and_where(was_done):
    summary = {
        **{"residues_built": 120, "chains_built": 9, "mean_confidence_built": 50.0},
        **{"matched_residues": 100, "chains": 4, "sequences_found": 2, "sequences": 3},
        **{"sequence_coverage": 0.755, "mean_confidence": 81.4, "residues": 100},
        "undecided_chains": 1,
    }
    result = BuildResult(Path("out"), ("out.cif",), summary, ("[two] changed",), was_done)
    console = console_of(False)
    console.print(summary_panel(result))
    text = console.file.getvalue()
    for words in (
        "120 residues in 9",
        "100 residues in 4",
        "2 of 3",
        "75.5%",
        "81 of 100",
        "1 chain that may",
    ):
        assert words in text
    assert "out.cif" in text
    assert "[two] changed" in text
    assert ("--overwrite" in text) == was_done
