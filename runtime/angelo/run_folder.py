"""The folder of a run: whose it is, what is finished in it, and whole files only."""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import logging
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_type_hints

import numpy as np

from angelo.errors import OutputError
from angelo.gpus import OCI_MARKERS

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Marks the run record of a folder as written by this program.
PROGRAM = "angelo"
RUN_RECORD = "run.json"
LOG_FILE = "angelo.log"
STAGES = "stages"
#: Folders with profiles of chains, and with what a search for them found.
PROFILES, SEARCH = "hmm", "search"
#: Files of a search.
SEARCH_FILES = ("all_hits.*", "best_hits.*", "search.json*", "*_named.cif*")
#: Ending of a file that is still being written.
PARTIAL = ".angelo-partial"

#: What a folder holds for a given key: nothing yet, an unfinished run, a finished one.
State = Literal["new", "unfinished", "finished"]
#: What run.json says of a run; "nothing built" leaves nothing worth keeping.
Status = Literal["running", "finished", "nothing built"]


def write_file(path: Path, content: str | bytes) -> None:
    """Write a whole file or none; see :func:`write_files`."""
    write_files({path: content})


def write_files(contents: Mapping[Path, str | bytes]) -> None:
    """Write files, all of them or none: to names beside them first, then renamed.

    Raises
    ------
    OutputError
        If the disk is full or a folder cannot be written to; older files stay as they were.
    """
    partial = {path: path.with_name(path.name + PARTIAL) for path in contents}
    path = Path()
    try:
        for path, content in contents.items():
            with partial[path].open("wb") as out:
                out.write(content.encode() if isinstance(content, str) else content)
                out.flush()
                os.fsync(out.fileno())
        for path in contents:
            partial[path].replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        for leftover in partial.values():
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make a folder and those above it; one that is there is left alone. OutputError if not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def output_error(path: Path, error: OSError) -> OutputError:
    """Say in one line why a file could not be written and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(
            f"{path}: the disk is full ({error.strerror}). Free some space or give another "
            "folder with -o; the same command continues from the last finished stage"
        )
    reason = error.strerror or str(error)
    if error.errno == errno.EACCES and any(marker.exists() for marker in OCI_MARKERS):
        return OutputError(
            f"{path}: cannot be written ({reason}) by user {os.geteuid()} of this container; "
            "start it with --user $(id -u):$(id -g), or give another folder with -o"
        )
    return OutputError(f"{path}: cannot be written ({reason}). Give another folder with -o")


def sha256_of_file(path: Path) -> str:
    """Checksum of a file, hexadecimal."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def key_of(facts: dict[str, Any]) -> str:
    """Checksum of everything that decides a result (inputs, settings, bundle)."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """One output folder, held by one process at a time.

    Made by :meth:`claim`, which touches nothing before it knows that the folder is empty or
    this program's own. Leaving the ``with`` block lets go of it.
    """

    def __init__(self, path: Path, key: str, state: State, lock: int | None = None) -> None:
        self.path = path
        self.key = key
        self.state = state
        self._lock = lock

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @classmethod
    def claim(cls, path: Path, key: str, *, overwrite: bool = False) -> "RunFolder":
        """Take a folder for the run that ``key`` stands for.

        Parameters
        ----------
        path
            The folder; made if it does not exist.
        key
            See :func:`key_of`. A folder with the same key is continued, or is finished.
        overwrite
            Remove what an earlier run left (only files this program writes) and start anew.

        Raises
        ------
        OutputError
            If the folder holds foreign files, a run with another key, is in use by another
            process, or cannot be written.
        """
        record = _read_record(path)
        same = record is not None and record.get("key") == key
        if record is not None and same and not overwrite and _is_finished(path, record):
            return cls(path, key, "finished")
        if record is not None and not (same or overwrite or _is_worthless(path, record)):
            raise OutputError(
                f"{path}: holds a run with other inputs or settings. Give another folder with "
                "-o, or --overwrite to replace that run"
            )
        make_folder(path)
        state: State = "unfinished" if same and not overwrite else "new"
        folder = cls(path, key, state, lock_folder(path))
        if folder.state == "new":
            if record is not None:
                _remove_run(path, record)
            folder.write_record({"status": "running"})
        return folder

    @property
    def name(self) -> str:
        """Name of the folder; result files start with it."""
        return self.path.resolve().name

    def record(self) -> dict[str, Any]:
        """Read the run record back."""
        return _read_record(self.path) or {}

    def write_record(self, facts: dict[str, Any]) -> None:
        """Write run.json: ``facts`` and what marks the folder as this run's."""
        record = {"program": PROGRAM, "key": self.key, **facts}
        write_file(self.path / RUN_RECORD, json.dumps(record, indent=2) + "\n")

    def save_stage(self, name: str, result: object) -> None:
        """Keep a finished stage, a dataclass of arrays, for a later run to continue from."""
        buffer = io.BytesIO()
        arrays = {"run key": np.array(self.key), **_flatten(result)}
        np.savez(buffer, allow_pickle=False, **arrays)
        make_folder(self.path / STAGES)
        write_file(self.path / STAGES / f"{name}.npz", buffer.getvalue())

    def load_stage(self, name: str, kind: type[T]) -> T | None:
        """Return what a finished stage of this run gave; None if there is nothing to be had."""
        path = self.path / STAGES / f"{name}.npz"
        if not path.is_file():
            return None
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                if str(arrays["run key"]) != self.key:
                    return None
                return _rebuild(kind, dict(arrays.items()))
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            log.warning("%s cannot be read (%s); the stage is done again", path, error)
            return None

    def remove_stages(self) -> None:
        """Delete the stage results."""
        _remove_folder_of_files(self.path / STAGES, "*.npz*")


def _is_worthless(path: Path, record: dict[str, Any]) -> bool:
    """Whether a run failed before it had anything to lose, so that another may replace it."""
    if record.get("status") == "nothing built":
        return True
    return record.get("status") == "running" and not (path / STAGES).exists()


def lock_folder(path: Path) -> int | None:
    """Keep other processes of this program out of a folder, where the system can do that.

    Returns a handle to be closed at the end.

    Raises
    ------
    OutputError
        If another process has it.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OutputError(
            f"{path}: another angelo run is writing here. Wait for it, or give another folder "
            "with -o"
        ) from None
    except OSError as error:  # some network file systems lock no folders
        log.debug("%s is not locked: %s", path, error)
    return handle


def _is_finished(path: Path, record: dict[str, Any]) -> bool:
    """Whether a run came to its end and all its files are still there."""
    files = record.get("files", [])
    return record.get("status") == "finished" and all((path / name).is_file() for name in files)


def _read_record(path: Path) -> dict[str, Any] | None:
    """Return the run record of a folder; None if the folder is empty or does not exist.

    Raises OutputError when there is anything that is not a run of this program.
    """
    foreign = OutputError(
        f"{path}: exists and holds files that are not an angelo run; nothing was touched. "
        "Give another folder with -o"
    )
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: is a file, not a folder; give another folder with -o")
    try:
        names = [item.name for item in path.iterdir()] if path.is_dir() else []
    except OSError as error:
        raise output_error(path, error) from error
    if RUN_RECORD not in names:
        if any(not name.endswith(PARTIAL) for name in names):
            raise foreign
        return None
    try:
        record = json.loads((path / RUN_RECORD).read_text())
    except (OSError, ValueError):
        raise foreign from None
    if not isinstance(record, dict) or record.get("program") != PROGRAM:
        raise foreign
    return record


def _remove_run(path: Path, record: dict[str, Any]) -> None:
    """Delete what a run left in its folder and nothing else; the record goes last."""
    base = path.resolve().name
    endings = (".cif", "_raw.cif", ".cxc", ".html", ".hmm", "_mirrored.mrc")
    usual = {LOG_FILE, *(f"{base}{ending}" for ending in endings)}
    try:
        for name in sorted(usual.union(record.get("files", []))):
            if Path(name).name == name:  # a record edited by hand must not reach other folders
                (path / name).unlink(missing_ok=True)
        _remove_folder_of_files(path / STAGES, "*.npz*")
        _remove_folder_of_files(path / PROFILES, "*.hmm*")
        for pattern in SEARCH_FILES:
            _remove_folder_of_files(path / SEARCH, pattern)
        (path / RUN_RECORD).unlink()
    except OSError as error:
        raise output_error(path, error) from error


def _remove_folder_of_files(folder: Path, pattern: str) -> None:
    if not folder.is_dir():
        return
    for item in folder.glob(pattern):
        item.unlink()
    with contextlib.suppress(OSError):  # something foreign is in there: leave it
        folder.rmdir()


def _flatten(value: object, prefix: str = "") -> dict[str, np.ndarray]:
    """Arrays of a dataclass under dotted names; a field that is None is left out."""
    if not dataclasses.is_dataclass(value):
        return {prefix.removesuffix("."): np.asarray(value)}
    arrays: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if inner is not None:
            arrays |= _flatten(inner, f"{prefix}{field.name}.")
    return arrays


def _rebuild(kind: type[T], arrays: dict[str, np.ndarray], prefix: str = "") -> T:
    """Make a dataclass from what :func:`_flatten` gave."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # T is a dataclass here
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(hint):
            values[field.name] = _rebuild(hint, arrays, f"{name}.")  # type: ignore[arg-type]
        elif name in arrays:
            values[field.name] = arrays[name]
        else:
            values[field.name] = None
    return kind(**values)
