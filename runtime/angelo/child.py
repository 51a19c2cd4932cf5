"""One angelo command as a process of its own, which can be stopped and goes on later."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import IO

#: Seconds between two looks at whether the process is to be stopped.
POLL_SECONDS = 0.5
#: Seconds that a process has to end by itself after SIGINT; then it is killed.
GRACE_SECONDS = 10.0


def angelo_command() -> tuple[str, ...]:
    """Words that start this very program: the same interpreter, the same package."""
    return (sys.executable, "-P", "-m", "angelo")  # -P: not a numpy.py that lies here


def run_child(
    command: Sequence[str],
    is_stopped: Callable[[], bool],
    *,
    log: IO[bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a command to its end, or until ``is_stopped``; then it gets SIGINT.

    Parameters
    ----------
    command
        Program and arguments. It gets a process group of its own, so that Ctrl-C in a terminal
        reaches only this process, which passes it on.
    is_stopped
        Asked every half second.
    log
        Where its output goes; None: where this process writes.
    environment
        Variables added to those of this process.

    Returns
    -------
    int
        Its exit code; -N when signal N ended it.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT if log is not None else None,
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    try:
        while not is_stopped():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(GRACE_SECONDS)
        return -signal.SIGKILL
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Event that is set by Ctrl-C or SIGTERM (a queue that takes its machine back).

    A second signal acts as it did before. Only for the main thread.
    """
    stopped = threading.Event()
    before = {int(n): signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
