"""What figures were measured with: bundle, code, machine, versions."""

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

import angelo
from angelo.processors import usable_cpus
from angelo.run_record import versions

ROOT = Path(__file__).resolve().parents[1]
#: Sections of bundle.json that do not change what the bundle builds.
WRITTEN_LATER = ("accuracy",)
#: Files outside the runtime that decide a figure.
DECIDING = (
    "training/angelo_training/conditions.py",
    "training/angelo_training/simulate.py",
    "training/angelo_training/scatterers.py",
    "training/angelo_training/structures.py",
    "benchmarks/builds.py",
    "benchmarks/judgement.py",
    "benchmarks/simulated_maps.py",
    "benchmarks/real_maps.json",
)


def bundle_facts(folder: Path) -> dict[str, str]:
    """Name, version and checksum of a bundle; the checksum leaves the accuracy out."""
    manifest = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    decisive = {key: manifest[key] for key in sorted(manifest) if key not in WRITTEN_LATER}
    text = json.dumps(decisive, sort_keys=True)
    return {
        "name": manifest["name"],
        "version": manifest["version"],
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def build_conditions(bundle: Path, device: str, threads: int) -> dict[str, Any]:
    """What a figure of builds depends on; figures of other conditions are not mixed with it."""
    return {
        "bundle": bundle_facts(bundle),
        "code_sha256": code_sha256(),
        "device": device,
        "threads": threads,
    }


def run_facts(
    bundle: Path, device: str, *, threads: int = 0, machine: str = ""
) -> dict[str, Any]:
    """Conditions and machine, as the files of figures begin with them."""
    return {
        "conditions": build_conditions(bundle, device, threads),
        "machine": machine_facts(machine),
    }


def code_sha256() -> str:
    """Checksum of the code that decides a figure: the runtime, the simulation, the maps."""
    runtime = Path(angelo.__file__).parent.rglob("*.py")
    return _sha256_of_files([*runtime, *(ROOT / name for name in DECIDING)])


def _sha256_of_files(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def machine_facts(name: str = "") -> dict[str, Any]:
    """Processor, cores, memory, versions, date; ``name`` is what people call the machine."""
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "machine": name or platform.machine(),
        "processor": _processor(),
        "cores": usable_cpus(),
        "memory_gib": round(gib, 1),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def write_json(path: Path, content: Any) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    unfinished.replace(path)


def write_results(out: Path, content: Any, page: str) -> None:
    """Write figures to ``out`` and their page (markdown) beside it, and print the page."""
    write_json(out, content)
    out.with_suffix(".md").write_text(page, encoding="utf-8")
    typer.echo(page)
