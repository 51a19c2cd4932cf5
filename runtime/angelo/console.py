"""What a person sees of a run: progress while it lasts, a panel at its end."""

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # loads gemmi and SciPy, which help and usage errors do without
    from angelo.results import BuildResult
    from angelo.search import SearchResult


class StageProgress:
    """Bars with the time remaining on a terminal, one line a stage elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stage = ""
        self._started = 0.0
        self._task: TaskID | None = None
        self._bars: Progress | None = None
        if console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            )

    def update(self, stage: str, done: int, total: int) -> None:
        """Report ``done`` of ``total`` steps of a stage; a new name begins a new stage."""
        if stage != self._stage:
            self._finish()
            self._stage, self._started = stage, time.monotonic()
            if self._bars is not None:
                self._task = self._bars.add_task(stage, total=total)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def _finish(self) -> None:
        """Close the stage at hand: fill its bar, or print its line."""
        if not self._stage:
            return
        if self._bars is not None and self._task is not None:
            total = self._bars.tasks[self._bars.task_ids.index(self._task)].total
            self._bars.update(self._task, completed=total)
        else:
            seconds = time.monotonic() - self._started
            self._console.print(f"{self._stage}: {seconds:.1f} s", highlight=False)
        self._stage = ""

    def __enter__(self) -> "StageProgress":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish()
        if self._bars is not None:
            self._bars.stop()


def summary_panel(result: "BuildResult") -> Panel:
    """Show what was built, and where it is."""
    found = result.summary
    table = Table.grid(padding=(0, 2))
    rows = [("built", f"{found['residues_built']} residues in {found['chains_built']} chains")]
    confidence = found["mean_confidence_built"]
    if "residues" in found:
        confidence = found["mean_confidence"] if found["residues"] else confidence
        n_found, n_sequences = found["sequences_found"], found["sequences"]
        rows += [
            ("matched", f"{found['matched_residues']} residues in {found['chains']} chains"),
            ("sequences", f"{n_found} of {n_sequences} found"),
            ("coverage", f"{found['sequence_coverage']:.1%} of the sequence positions"),
        ]
        if n_undecided := found.get("undecided_chains"):
            chains = "chain" if n_undecided == 1 else "chains"
            where = f"{n_undecided} {chains} that may belong to a sequence: undecided.csv"
            rows.append(("undecided", where))
    else:
        sure = f"{found['mean_type_probability']:.0%} probable on average"
        rows.append(("types", f"the networks' guess, {sure}"))
    rows.append(("confidence", f"{confidence:.0f} of 100 on average"))
    rows += [("notes" if n == 0 else "", note) for n, note in enumerate(result.notes)]
    rows.append(("files", str(result.folder)))
    rows += [("", name) for name in result.files if "/" not in name]
    if profiles := [name for name in result.files if "/" in name]:
        rows.append(("", f"{profiles[0].partition('/')[0]}/ ({len(profiles)} profiles)"))
    for name, value in rows:
        table.add_row(name, Text(value, overflow="fold"))
    title = "done already; --overwrite does it again" if result.was_done else "done"
    if found.get("matched_residues") == 0:
        title += ", but nothing built matches a sequence"
    return Panel(table, title=title, expand=False)


def hits_table(result: "SearchResult") -> Table:
    """Show the best hit of every chain that was looked for."""
    best = {hit.chain: hit for hit in reversed(result.hits)}
    table = Table("chain", "residues", "best hit", "E-value", "bits", "identity")
    for name, length in result.chains.items():
        row: list[str | Text] = [name, str(length)]
        if hit := best.get(name):
            words = f"{hit.target.name} {hit.target.description}".rstrip()
            aligned = f"{hit.identity:.0%} of {hit.n_aligned}"
            row += [Text(words, overflow="ellipsis", no_wrap=True), f"{hit.e_value:.2g}"]
            row += [f"{hit.score:.0f}", aligned]
        else:
            row += ["-", "-", "-", "-"]
        table.add_row(*row)
    table.caption_justify = "left"
    searched = f"{result.n_sequences:,} sequences searched"
    left_out = "".join(f"; {n:,} left out: {why}" for why, n in result.skipped.items())
    table.caption = Text(searched + left_out)
    return table
