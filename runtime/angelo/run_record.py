"""What a run remembers while it goes: finished stages, times, memory, its log."""

import contextlib
import importlib.metadata
import logging
import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

from angelo import __version__
from angelo.run_folder import LOG_FILE, RunFolder, Status

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Packages whose version may change a result.
PACKAGES = ("numpy", "scipy", "onnxruntime", "onnxruntime-gpu", "gemmi", "mrcfile", "pyhmmer")


class Stages:
    """Runs stages one after another, and skips those that an earlier run finished.

    ``facts`` are written to run.json together with the time that each stage took.
    """

    def __init__(
        self,
        folder: RunFolder,
        facts: dict[str, Any],
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._folder = folder
        self._progress = progress
        before = folder.record()
        self._record = {
            "versions": versions(),
            **facts,
            "started": before.get("started", _now()),
            "stages": before.get("stages", {}),
        }

    def run(self, name: str, make: Callable[[Callable[[int, int], None]], T]) -> T:
        """Do a stage and note its time; ``make`` gets a callback for (done, total)."""
        log.info("%s: begins", name)
        self._tell(name, 0, 1)
        started = time.perf_counter()
        result = make(lambda done, total: self._tell(name, done, total))
        seconds = time.perf_counter() - started
        log.info("%s: %.2f s", name, seconds)
        self._record["stages"][name] = {"seconds": round(seconds, 3)}
        return result

    def run_saved(
        self, name: str, kind: type[T], make: Callable[[Callable[[int, int], None]], T]
    ) -> T:
        """Do a stage whose result (a ``kind``, a dataclass of arrays) is kept, or load it."""
        if (result := self._folder.load_stage(name, kind)) is not None:
            log.info("%s: finished by an earlier run", name)
            self._tell(name, 1, 1)
            return result
        result = self.run(name, make)
        self._folder.save_stage(name, result)
        self._folder.write_record({"status": "running", **self._record})
        return result

    def finish(self, status: Status = "finished", **facts: Any) -> None:
        """Write the record of a run that has come to its end."""
        memory = {"peak_memory_mib": peak_memory_mib(), "ended": _now()}
        self._folder.write_record({"status": status, **self._record, **memory, **facts})

    def _tell(self, name: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(name, done, total)


class _QuietFileHandler(logging.FileHandler):
    """A log that goes on without a word when the disk is full; the results say it."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Do nothing."""


@contextlib.contextmanager
def log_to(folder: RunFolder) -> Iterator[None]:
    """Append what the program logs to the log file of the folder."""
    logger = logging.getLogger("angelo")
    level = logger.level
    handler = _QuietFileHandler(folder.path / LOG_FILE, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    except Exception:
        # For the file only: whoever called prints what a person needs to know.
        log.info("the run ended early", exc_info=True)
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        with contextlib.suppress(OSError):
            handler.close()


def versions() -> dict[str, str]:
    """Versions of this program, Python, and the packages that may change a result."""
    found = {"angelo": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def peak_memory_mib() -> int | None:
    """Most memory this process has held, MiB; None where the system does not say."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 2**20 if sys.platform == "darwin" else peak // 2**10  # bytes there, KiB here


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
