"""The runtime stands alone: it works where torch, export and training cannot be imported."""

import subprocess
import sys
from pathlib import Path

import pytest

RUNTIME = Path(__file__).parent.parent / "runtime"
#: Runs before the code of a test: importing what the runtime may not need is an error.
BLOCKER = f"""
import sys
sys.path.insert(0, {str(RUNTIME)!r})
FORBIDDEN = {{"torch", "onnx", "onnxscript", "angelo_export", "angelo_training", "pandas"}}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{{name}} is not for the runtime")
sys.meta_path.insert(0, Blocker())
"""
IMPORT_ALL = """
import importlib, pkgutil, angelo
for module in pkgutil.walk_packages(angelo.__path__, "angelo."):
    importlib.import_module(module.name)
"""


def run_blocked(code, *args):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", BLOCKER + code, *args],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_blocker_blocks():
    assert "not for the runtime" in run_blocked("import torch.nn").stderr


def test_every_module_is_imported_without_torch():
    done = run_blocked(IMPORT_ALL + "print(sum(m.startswith('angelo.') for m in sys.modules))")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["--version"]])
def test_help_without_torch_and_without_loading_networks(arguments):
    code = (
        "import atexit; from angelo.cli import run\n"
        "atexit.register(lambda: print('LOADED', 'onnxruntime' in sys.modules))\nrun()"
    )
    done = run_blocked(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert "angelo" in done.stdout.lower()
    assert "LOADED False" in done.stdout
