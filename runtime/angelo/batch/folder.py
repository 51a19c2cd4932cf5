"""The folder of a batch: what became of every row, one small file a row.

Runs lie in ``OUT/<row>/``; ``OUT/batch/`` holds this bookkeeping and the logs. Processes on
other machines write here too, so each file has one writer and is replaced whole.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from angelo.batch.row import ManifestError, Row
from angelo.errors import OutputError
from angelo.run_folder import RUN_RECORD, lock_folder, output_error, write_file

#: What became of a row. "no model" is a result (exit code 3), "stopped" is none.
State = Literal["waiting", "running", "built", "no model", "failed", "stopped"]
#: States that another run of the batch leaves alone.
DONE: tuple[State, ...] = ("built", "no model")
BOOKS = "batch"
ROWS = "rows.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row when it was last tried."""

    state: State = "waiting"
    message: str = ""
    """One line on why there is no model."""
    exit_code: int | None = None
    """Of ``angelo build``; negative: the signal that ended it."""
    seconds: float = 0.0
    """Wall time of the last attempt."""
    attempts: int = 0
    started: str = ""
    """When the last attempt began, ISO 8601, UTC."""
    host: str = ""
    device: str = ""
    job: str = ""
    """Slurm job, as squeue shows it."""
    fingerprint: str = ""
    """Of the row as it was then; see :meth:`Row.fingerprint`."""


class BatchFolder:
    """Output folder of one manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def books(self) -> Path:
        """Where the bookkeeping lies."""
        return self.path / BOOKS

    def check(self) -> None:
        """Raise OutputError if the folder holds anything but a batch; nothing is written."""
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file, not a folder; give another with -o")
        if self.path.is_dir() and any(self.path.iterdir()) and not self.books.is_dir():
            raise OutputError(
                f"{self.path}: exists and holds files that are not an angelo batch; nothing "
                "was touched. Give another folder with -o"
            )

    def claim(self, rows: Sequence[Row]) -> int | None:
        """Make the folder and write down the rows; returns a lock to be closed at the end."""
        self.check()
        try:
            self.books.mkdir(parents=True, exist_ok=True)
            lock = lock_folder(self.books)
        except OSError as error:
            raise output_error(self.books, error) from error
        write_rows(self.books / ROWS, rows)
        return lock

    def rows(self) -> tuple[Row, ...]:
        """Rows of the manifest as it was last read. Raises OutputError."""
        return read_rows_file(self.books / ROWS)

    def run(self, row: Row) -> Path:
        """Run folder of a row."""
        return self.path / row.name

    def log(self, row: Row) -> Path:
        """Log of a row: what ``angelo build`` printed, all attempts."""
        return self.books / f"{row.name}.log"

    def outcome(self, row: Row) -> Outcome:
        """Read what is known of a row."""
        facts = _read_json(self.books / f"{row.name}.json")
        known = {field.name for field in fields(Outcome)}
        return Outcome(**{key: value for key, value in facts.items() if key in known})

    def write_outcome(self, row: Row, outcome: Outcome) -> None:
        """Replace what is known of a row."""
        text = json.dumps(asdict(outcome), indent=2) + "\n"
        write_file(self.books / f"{row.name}.json", text)

    def ended(self, row: Row) -> Outcome:
        """Like :meth:`outcome`, when no process can be at work on the row any more."""
        outcome = self.outcome(row)
        if outcome.state != "running":
            return outcome
        return replace(outcome, state="stopped", message="ended without a word; see its log")

    def run_record(self, row: Row) -> dict[str, Any]:
        """Read what the run says of itself; empty if there is none."""
        return _read_json(self.run(row) / RUN_RECORD)

    def to_do(self, rows: Sequence[Row], *, overwrite: bool = False) -> tuple[Row, ...]:
        """Rows without a result.

        Raises
        ------
        ManifestError
            If a row with a result has other inputs or options than it had then, unless they
            are to be overwritten.
        """
        waiting = []
        for row in rows:
            outcome = self.outcome(row)
            if outcome.state not in DONE or not self.run_record(row):
                waiting.append(row)
            elif outcome.fingerprint != row.fingerprint():
                if not overwrite:
                    raise ManifestError(
                        f"line {row.line}: {self.run(row)} was built from other files or with "
                        "other options. Give the row another name, or --overwrite to build it "
                        "again. Nothing was started"
                    )
                waiting.append(row)
        return tuple(waiting)


def write_rows(path: Path, rows: Sequence[Row], **facts: Any) -> None:
    """Write rows down as JSON, with whatever else belongs to them."""
    content = {**facts, "rows": [asdict(row) for row in rows]}
    write_file(path, json.dumps(content, indent=1) + "\n")


def read_rows_file(path: Path) -> tuple[Row, ...]:
    """Rows that :func:`write_rows` wrote.

    Raises
    ------
    OutputError
        If there is no such file, or it is something else.
    """
    try:
        return tuple(
            Row(row["name"], row["line"], tuple(row["arguments"]), tuple(row["files"]))
            for row in json.loads(path.read_text())["rows"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise OutputError(
            f"{path}: cannot be read; is this the folder of an angelo batch?"
        ) from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
