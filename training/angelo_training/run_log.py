"""Training curves as a CSV file that a stopped and resumed run goes on with."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

#: Columns that every row has; ``seconds`` is training time, pauses between runs left out.
KEY_COLUMNS = ("step", "seconds")


class CurveLog:
    """Rows of named numbers, each with its step and the seconds spent so far.

    A row may leave columns out (their cells stay empty) or bring new ones (the file is
    rewritten with a wider header). Every row is on disk when ``append`` returns.
    """

    def __init__(self, path: Path, *, step: int | None = None) -> None:
        """Open or continue a log.

        Parameters
        ----------
        path
            CSV file, made if missing.
        step
            Step of the checkpoint that the run resumes from: later rows are dropped, because
            the run will write them again. None keeps all rows, 0 starts afresh.
        """
        self.path = path
        self._columns: list[str] = list(KEY_COLUMNS)
        self._rows: list[dict[str, str]] = []
        if path.exists() and path.stat().st_size:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            # A killed run can leave half a line.
            reader = csv.DictReader(line for line in lines if line.endswith("\n"))
            self._columns = list(reader.fieldnames or KEY_COLUMNS)
            self._rows = list(reader)
            if tuple(self._columns[:2]) != KEY_COLUMNS:
                raise ValueError(f"{path}: not a training log (columns {self._columns})")
            if step is not None:
                self._rows = [row for row in self._rows if int(row["step"]) <= step]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._start = time.monotonic() - self._last_seconds()
        self._file: TextIO = self._rewritten()

    @property
    def seconds(self) -> float:
        """Training time so far, the runs before a resume included."""
        return time.monotonic() - self._start

    def append(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row.

        Raises
        ------
        ValueError
            If a value is named like a key column.
        """
        if taken := set(values) & set(KEY_COLUMNS):
            raise ValueError(f"{sorted(taken)} are the log's own columns")
        row = {"step": str(step), "seconds": f"{self.seconds:.3f}"}
        row |= {name: _cell(value) for name, value in values.items()}
        self._rows.append(row)
        if new := [name for name in values if name not in self._columns]:
            self._columns += new
            self._file.close()
            self._file = self._rewritten()
        else:
            self._writer(self._file).writerow(row)
            self._file.flush()

    def close(self) -> None:
        """Close the file; further rows are an error."""
        self._file.close()

    def __enter__(self) -> "CurveLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _last_seconds(self) -> float:
        return float(self._rows[-1]["seconds"]) if self._rows else 0.0

    def _writer(self, file: TextIO) -> "csv.DictWriter[str]":
        return csv.DictWriter(file, self._columns, restval="", lineterminator="\n")

    def _rewritten(self) -> TextIO:
        """Write the whole file anew, in one move, and return it open for appending."""
        unfinished = self.path.with_name(self.path.name + ".part")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            self._writer(file).writeheader()
            self._writer(file).writerows(self._rows)
        unfinished.replace(self.path)
        return self.path.open("a", newline="", encoding="utf-8")


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
