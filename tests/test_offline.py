"""A run writes nothing outside of its folder, and opens no network connection.

Seen from inside Python (an audit hook) and, where strace is installed, from the system's side,
which includes what compiled libraries do.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import write_tiny_bundle
from tiny_map import write_tiny_inputs

RUNTIME = Path(__file__).parent.parent / "runtime"
#: Runs before the program: notes what it opens to write, changes, starts and connects to.
RECORDER = """
import json, os, sys

seen = []
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link",
           "os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr"}
STARTS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        is_write = set(mode) & set("wax+") if isinstance(mode, str) else flags & WRITES
        if is_write and not isinstance(path, int):
            seen.append(("write", os.path.abspath(os.fsdecode(path))))
    elif event in CHANGES:
        seen.extend(("write", os.path.abspath(os.fsdecode(path)))
                    for path in arguments[:2] if isinstance(path, (str, bytes)))
    elif event.startswith("socket.") and event != "socket.gethostname":
        seen.append((event, repr(arguments[-1])))
    elif event in STARTS:
        seen.append((event, repr(arguments)))

sys.addaudithook(watch)
try:
    exec(compile(sys.argv.pop(1), "watched", "exec"))
finally:
    print(json.dumps(seen), file=sys.stderr)
"""
ANGELO = "from angelo.cli import run; run()"


@pytest.fixture
def places(tmp_path):
    """Folders that a run could write to; "out" is the only one where it may."""
    for name in ("home", "cwd", "tmp", "inputs", "out"):
        (tmp_path / name).mkdir()
    write_tiny_inputs(tmp_path / "inputs")
    write_tiny_bundle(tmp_path / "inputs" / "bundle")
    return tmp_path


@pytest.fixture
def start(places):
    """Call that starts a command in an environment of its own."""

    def start(*command):
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(places / "home"),
            "TMPDIR": str(places / "tmp"),
            "PYTHONPATH": str(RUNTIME),
            "PYTHONDONTWRITEBYTECODE": "1",  # a checkout has no byte code to begin with
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=places / "cwd",
            env=environment,
        )

    return start


def build_arguments(places):
    inputs = places / "inputs"
    words = [
        "build",
        inputs / "tiny.mrc",
        inputs / "tiny.fasta",
        "--out",
        places / "out" / "run",
    ]
    return [*map(str, words), "--bundle", str(inputs / "bundle"), "--device", "cpu"]


def events_of(done):
    return [tuple(event) for event in json.loads(done.stderr.strip().splitlines()[-1])]


def assert_only_out_has_changed(places):
    assert (places / "out" / "run" / "run_raw.cif").is_file()
    for name in ("home", "cwd", "tmp"):
        assert not list((places / name).iterdir()), name


def test_a_build_as_python_sees_it(places, start):
    done = start(sys.executable, "-c", RECORDER, ANGELO, *build_arguments(places))
    assert done.returncode in (0, 3), done.stderr
    events = events_of(done)
    written = {path for event, path in events if event == "write"}
    allowed = (str(places / "out"), str(places / "tmp"))
    assert any(path.startswith(allowed) for path in written)
    assert [path for path in written if not path.startswith((*allowed, os.devnull))] == []
    assert [event for event in events if event[0] != "write"] == []
    assert_only_out_has_changed(places)


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("open('../home/x', 'w')", "write"),
        ("import os; os.open('x', os.O_CREAT | os.O_WRONLY)", "write"),
        ("import os; os.mkdir('x')", "write"),
        ("import os; os.replace('../inputs/tiny.fasta', 'x')", "write"),
        ("import socket; socket.socket().connect_ex(('127.0.0.1', 9))", "socket.connect"),
        ("import socket; socket.getaddrinfo('localhost', 9)", "socket.getaddrinfo"),
        ("import subprocess; subprocess.run('true')", "subprocess.Popen"),
    ],
)
def test_the_recorder_sees(start, code, event):
    assert event in {name for name, _ in events_of(start(sys.executable, "-c", RECORDER, code))}


#: Calls of the system that reach a network, and those that write.
NETWORK = re.compile(r"(?:connect|bind|sendto|sendmsg)\(.*AF_INET|socket\(AF_INET")
WRITE = re.compile(r"open(?:at)?\([^\"]*\"([^\"]*)\", [^)]*O_(?:WRONLY|RDWR|CREAT)")
CHANGE = re.compile(r"(?:creat|mkdir|unlink|rename|link|truncate)\w*\((.*)")
TRACED = "trace=network,open,openat,creat,/^(mkdir|unlink|rename|link|symlink|truncate)"


def trace(start, places, *command):
    """Lines of network calls and all paths that were written to, as the system saw them."""
    log = places / "trace"
    done = start("strace", "-f", "-qq", "--seccomp-bpf", "-s", "4096", "-e", TRACED, "-o",
                 str(log), *command)  # fmt: skip
    if not log.is_file() or "Operation not permitted" in done.stderr:
        pytest.skip(f"strace does not work here: {done.stderr.strip()[:200]}")
    lines = [line for line in log.read_text().splitlines() if " = -1 " not in line]
    written = {found[1] for line in lines if (found := WRITE.search(line))}
    for line in lines:
        if found := CHANGE.search(line):
            written.update(re.findall(r'"([^"]*)"', found[1]))
    return [line for line in lines if NETWORK.search(line)], written


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_a_build_as_the_system_sees_it(places, start):
    command = (sys.executable, "-c", ANGELO, *build_arguments(places))
    connections, written = trace(start, places, *command)
    assert connections == []
    allowed = (str(places / "out"), str(places / "tmp"))
    assert any(path.startswith(allowed) for path in written)
    assert [path for path in written if not path.startswith((*allowed, "/dev/"))] == []
    assert_only_out_has_changed(places)


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_trace_sees(places, start):
    code = (
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
        ".connect(('127.0.0.1', 9)); open('../home/x', 'w').close(); open('../home/y', 'a')"
        ".close(); import os; os.rename('../home/x', '../home/z')"
    )
    connections, written = trace(start, places, sys.executable, "-c", code)
    assert connections
    assert {"../home/x", "../home/y", "../home/z"} <= written


def test_telemetry_is_off_before_the_library_loads(start):
    code = (
        "import os, sys\n"
        "class Look:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime':\n"
        "            print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "sys.meta_path.insert(0, Look())\n"
        "import angelo.session"
    )
    assert start(sys.executable, "-c", code).stdout.splitlines()[0] == "1"
