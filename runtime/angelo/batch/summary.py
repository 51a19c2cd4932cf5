"""What a batch came to: one table for people and spreadsheets, JSON, and a page."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from angelo import __version__
from angelo.batch.folder import BatchFolder, Outcome, State
from angelo.batch.page import html_page
from angelo.batch.row import Row
from angelo.run_folder import write_files

TSV, JSON, HTML = "summary.tsv", "summary.json", "summary.html"
#: Figures of a run's own summary that go into the table.
FIGURES = (
    "residues_built",
    "chains_built",
    "residues",
    "chains",
    "matched_residues",
    "sequences",
    "sequences_found",
    "sequence_coverage",
    "mean_confidence",
)
#: The order in which states are told.
STATES: tuple[State, ...] = ("built", "no model", "failed", "stopped", "running", "waiting")


def summarise_batch(
    folder: BatchFolder, rows: Sequence[Row], *, has_ended: bool
) -> list[dict[str, Any]]:
    """One record a row.

    Parameters
    ----------
    folder
        The batch.
    rows
        Its rows.
    has_ended
        Whether no process can be at work any more; rows that say they run were then stopped.
    """
    return [
        _record(folder, row, folder.ended(row) if has_ended else folder.outcome(row))
        for row in rows
    ]


def _record(folder: BatchFolder, row: Row, outcome: Outcome) -> dict[str, Any]:
    run = folder.run_record(row) if outcome.state in ("built", "no model") else {}
    found = run.get("summary") or {}
    files = run.get("files") or []
    named = {ending: f"{row.name}{ending}" for ending in (".cif", "_raw.cif", ".html")}
    return {
        "name": row.name,
        "state": outcome.state,
        **{figure: found.get(figure) for figure in FIGURES},
        "seconds": outcome.seconds if outcome.attempts else None,
        "peak_memory_mib": run.get("peak_memory_mib"),
        "exit_code": outcome.exit_code,
        "attempts": outcome.attempts,
        "message": outcome.message,
        "model": next(
            (f"{row.name}/{n}" for n in (named[".cif"], named["_raw.cif"]) if n in files), None
        ),
        "report": f"{row.name}/{named['.html']}" if named[".html"] in files else None,
        "log": f"batch/{row.name}.log" if folder.log(row).is_file() else None,
        "map": row.files[0],
        "line": row.line,
        "started": outcome.started or None,
        "host": outcome.host or None,
        "device": outcome.device or None,
        "job": outcome.job or None,
    }


def count_states(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many rows there are of each state; only states that occur."""
    counts = Counter(record["state"] for record in records)
    return {state: counts[state] for state in STATES if counts[state]}


def write_summary(folder: BatchFolder, records: Sequence[dict[str, Any]]) -> tuple[Path, ...]:
    """Write table, JSON and page; returns their paths.

    Raises OutputError.
    """
    states = count_states(records)
    content = {"angelo": __version__, "states": states, "rows": list(records)}
    texts = {
        TSV: _tsv(records),
        JSON: json.dumps(content, indent=1) + "\n",
        HTML: html_page(folder.path.name, states, records),
    }
    write_files({folder.path / name: text for name, text in texts.items()})
    return tuple(folder.path / name for name in texts)


def _tsv(records: Sequence[dict[str, Any]]) -> str:
    """Tab-separated text with a header line; what is not known is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    for record in records:
        cells = {key: "" if value is None else value for key, value in record.items()}
        writer.writerow({key: " ".join(str(cell).split()) for key, cell in cells.items()})
    return out.getvalue()
