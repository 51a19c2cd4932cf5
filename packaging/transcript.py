"""Give every command of the README, as written there, in a fresh clone; write down what comes.

    python3 packaging/transcript.py [--database proteins.fasta.gz] > docs/transcript.md

A test compares the commands below with the README. The commands get the example under the names
that the README uses for a user's own files. Programs that are not here are skipped, and the
transcript says so. Ends with 1 if a command failed.
"""

import argparse
import gzip
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Lines of a command's output that are kept: the first and the last ones.
FIRST, LAST = 12, 28
#: Longest line that is kept whole.
WIDTH = 110
#: Progress of installers and builders.
NOISE = re.compile(
    r"━━━ |^\s*(Looking in|Stored in|Created wheel|Building|Downloading|Collecting)"
    r"|^\s*(Preparing|Getting)"
    r"|^\s*(Found existing|Attempting|Uninstalling|Successfully uninst|Requirement already)"
    r"|^(\[\d+/\d+\] )?(STEP|COMMIT|-->)|^[0-9a-f]{64}$|^(Processing|Installing|INFO|WARNING)"
)
#: User that images run as; their folder of files has to be writable for it.
IMAGE_USER = 1000


@dataclass(frozen=True, slots=True)
class Part:
    """Commands given one after another."""

    heading: str
    commands: tuple[str, ...]
    is_in_clone: bool = False
    """Whether they are given in the clone, or in a new folder with the user's files."""


PARTS = (
    Part(
        "Install",
        (
            "python3 -m venv angelo-env",
            "angelo-env/bin/pip install ./runtime",
            "angelo-env/bin/angelo doctor",
        ),
        is_in_clone=True,
    ),
    Part("The demo", ("make demo",), is_in_clone=True),
    Part("A map and its sequences", ("angelo map.mrc sequences.fasta",)),
    Part(
        "Without sequences",
        (
            "angelo map.mrc",
            "angelo search map_angelo uniprot_sprot.fasta.gz",
            "angelo map.mrc map_angelo/search/best_hits.fasta -o map_named",
        ),
    ),
    Part("Other commands", ("angelo bundles", "angelo batch maps.tsv -o OUT")),
    Part("Images", ("make image", "make sif"), is_in_clone=True),
    Part("Docker", ("docker run -v $PWD:/data angelo:cpu map.mrc sequences.fasta",)),
    Part("Apptainer", ("apptainer run angelo-cpu.sif map.mrc sequences.fasta",)),
    Part(
        "For an NVIDIA GPU",
        ("angelo-env/bin/pip install './runtime[gpu]'", "angelo-env/bin/angelo doctor"),
        is_in_clone=True,
    ),
)
#: What stands in commands that are left out: networks that users bring.
LEFT_OUT = "--bundle nucleotides"
#: Options that a machine needs, and that are not shown (docs/images.md).
FLAGS = ("BUILD_FLAGS", "SIF_FLAGS", "RUN_FLAGS")
#: What `make transcript` passes on to any make that a command starts, a user's shell does not.
OF_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
#: Programs that commands need, by the word that stands for them.
NEEDED = {
    "make image": "docker",
    "docker": "docker",
    "make sif": "apptainer",
    "apptainer": "apptainer",
}


def main() -> int:
    """Print the transcript; return the exit code."""
    parser = argparse.ArgumentParser(description="The commands of the README, given.")
    parser.add_argument("--database", type=Path, default=ROOT / "examples" / "5ni1.fasta")
    parser.add_argument("--note", default="", help="What else the heading is to say.")
    given = parser.parse_args()
    database = given.database.absolute()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="angelo-") as name:
        work = Path(name)
        work.chmod(0o755)
        clone = work / "angelo"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        write(f"{heading_of(clone)} {given.note}".rstrip())
        for number, part in enumerate(PARTS):
            place = clone if part.is_in_clone else work / str(number)
            if not part.is_in_clone:
                lay_out(place, clone, database)
            write(f"\n## {part.heading}\n")
            for command in part.commands:
                text, is_good = answer_to(command, place, clone)
                failed += not is_good
                write(text.replace(str(place), "$PWD").replace(tempfile.gettempdir(), "..."))
    return min(failed, 1)


def write(text: str) -> None:
    """Print a piece of the transcript at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def heading_of(clone: Path) -> str:
    """Say what was run, when and where."""
    text = (clone / "runtime" / "angelo" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "(.*)"$', text, re.M)
    bundle = json.loads((clone / "models" / "compact" / "bundle.json").read_text())
    what = f"angelo {version[1] if version else ''}, bundle compact {bundle['version']}"
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    cpu = model[1] if model else platform.machine()
    machine = f"{os.cpu_count()} cores ({cpu}), Python {platform.python_version()}"
    return f"""# The commands of the README, given

Written by `packaging/transcript.py`, not by hand: each command as the README has it, in a fresh
clone ({what}) on {datetime.now(UTC):%Y-%m-%d}.
Machine: {machine}; load of other work at the start: {os.getloadavg()[0]:.1f}.

`map.mrc` and `sequences.fasta` are the example (EMD-3488), `uniprot_sprot.fasta.gz` stands for
any database, and `maps.tsv` names the example once with sequences and once without. The folder
belongs to user {IMAGE_USER}, as whom images run. Progress
of installers is left out, so is the middle of long outputs, and so are commands with
`{LEFT_OUT}`: these networks come from users."""


def lay_out(place: Path, clone: Path, database: Path) -> None:
    """Make a folder with the files that the README's commands name."""
    place.mkdir()
    packed = clone / "examples" / "emd_3488.map.gz"
    (place / "map.mrc").write_bytes(gzip.decompress(packed.read_bytes()))
    shutil.copy(clone / "examples" / "5ni1.fasta", place / "sequences.fasta")
    unpacked = database.read_bytes()
    is_packed = database.suffix == ".gz"
    name = "uniprot_sprot.fasta.gz"
    (place / name).write_bytes(unpacked if is_packed else gzip.compress(unpacked))
    rows = "name\tmap\tfasta\nwith\tmap.mrc\tsequences.fasta\nwithout\tmap.mrc\t\n"
    (place / "maps.tsv").write_text(rows)
    image = clone / "angelo-cpu.sif"
    if image.exists():
        (place / image.name).hardlink_to(image)
    if os.geteuid() == 0:  # as on a machine whose first user builds models
        os.chown(place, IMAGE_USER, IMAGE_USER)


def answer_to(command: str, place: Path, clone: Path) -> tuple[str, bool]:
    """Give a command; return it with what it printed, and whether that went well."""
    for word, program in NEEDED.items():
        if command.startswith(word) and shutil.which(program) is None:
            return f"    $ {command}\n    SKIPPED: no {program} here", True
    programs = f"{clone / 'angelo-env' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    environment |= {"PATH": programs, "COLUMNS": "100", "NO_COLOR": "1"}
    started = time.monotonic()
    flags = [environment[name] for name in FLAGS if environment.get(name)]
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - started
    end = f"[exit code {done.returncode}, {seconds:.1f} s]"
    output = done.stdout
    for words in flags:
        output = output.replace(words, "...")
    lines = [f"$ {command}", *kept(output), end]
    return "\n".join(f"    {line}".rstrip() for line in lines), done.returncode == 0


def kept(output: str) -> Iterator[str]:
    """First and last lines of an output, without what a terminal would have written over."""
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in output.splitlines()]
    lines = [line for line in lines if line and not NOISE.search(line)]
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]}..." for line in lines]
    if len(lines) > FIRST + LAST:
        lines[FIRST:-LAST] = ["..."]
    yield from lines


if __name__ == "__main__":
    sys.exit(main())
