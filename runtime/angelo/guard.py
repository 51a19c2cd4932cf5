"""What a command may end with: one line on stderr and an exit code, whatever goes wrong."""

import logging
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from angelo.errors import NothingBuiltError, UserError

#: Exit codes: a bug; the user's input or machine; nothing could be built; stopped by Ctrl-C.
EXIT_BUG, EXIT_USER, EXIT_NOTHING, EXIT_STOPPED = 1, 2, 3, 130


class Guard:
    """Turns what can go wrong in a command into one line on stderr and an exit code."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self.console = Console(stderr=True)
        level = logging.DEBUG if debug else logging.WARNING
        self._handler = RichHandler(level, self.console, show_time=False, show_path=False)
        self._logger = logging.getLogger("angelo")

    def __enter__(self) -> "Guard":
        self._logger.addHandler(self._handler)
        if self.debug:
            self._logger.setLevel(logging.DEBUG)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None and not isinstance(error, typer.Exit):
            self._logger.debug("the command ended early", exc_info=error)
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(logging.NOTSET)
        if error is None or isinstance(error, typer.Exit):
            return
        if isinstance(error, KeyboardInterrupt):
            complain("stopped; the same command goes on from the last finished stage")
            raise typer.Exit(EXIT_STOPPED) from None
        if isinstance(error, UserError):
            complain(str(error))
            raise typer.Exit(EXIT_USER) from None
        if isinstance(error, MemoryError):
            complain("not enough memory; use a machine with more, or a smaller map")
            raise typer.Exit(EXIT_USER) from None
        if isinstance(error, NothingBuiltError):
            complain(str(error))
            raise typer.Exit(EXIT_NOTHING) from None
        if isinstance(error, Exception):
            complain(
                f"this is a bug in angelo ({type(error).__name__}: {error}). Run again with "
                "--debug and send us the output"
            )
            raise typer.Exit(EXIT_BUG) from None


def complain(message: str) -> None:
    """One line on stderr, whatever the message contains."""
    typer.secho("error: " + " ".join(message.split()), fg="red", err=True)
