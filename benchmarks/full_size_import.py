"""What it takes to import ModelAngelo's weights at their full size: time, memory, parity.

The published files cannot be shipped with this repository. Random weights of exactly their
names and shapes cost the same and are compared as strictly.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import options
import torch
import typer
from provenance import machine_facts, write_results
from report import markdown_table

from angelo_export.networks.c_alpha import CalphaConfig, CalphaNetwork
from angelo_export.networks.gnn import GraphConfig, GraphNetwork
from angelo_export.networks.language import ESM1B, LanguageConfig, LanguageEmbedder

#: ``config.json`` as published.
CONFIG = {
    "standardize_mrc_args": {"target_voxel_size": 1.5},
    "ca_infer_args": {
        "model_checkpoint": "chkpt.torch",
        "batch_size": 4,
        "box_size": 64,
        "stride": 16,
        "threshold": 0.05,
        "crop": 6,
    },
    "gnn_infer_args": {
        "num_rounds": 3,
        "crop_length": 200,
        "repeat_per_residue": 3,
        "esm_model": "esm1b_t33_650M_UR50S",
        "seq_attention_batch_size": 200,
    },
}
HEAD = """# Import of random weights of ModelAngelo's full sizes

Written by `python benchmarks/full_size_import.py --scratch FOLDER{option}`, on {cores}
cores of a machine called {machine}. The C-alpha network is as far from double
precision as torch in single precision is, which is what its difference comes from.

"""
#: For a check of this program in seconds.
SMALL = (
    CalphaConfig(features=2, blocks=(1, 2, 1, 1)),
    GraphConfig(sequence=12, hidden=8, layers=2, heads=2, points=2, density=4),
    LanguageConfig(layers=1, width=12, heads=2, positions="learned"),
)


def write_random(
    folder: Path, calpha: CalphaConfig, graph: GraphConfig, language: LanguageConfig
) -> tuple[Path, Path]:
    """Write an official bundle and its language model; what is there already stays."""
    bundle, esm = folder / "official", folder / "esm.pt"
    torch.manual_seed(0)
    for path, make in (
        (bundle / "c_alpha/chkpt.torch", lambda: CalphaNetwork(calpha)),
        (bundle / "gnn/chkpt_100.torch", lambda: GraphNetwork(graph)),
    ):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(make().state_dict(), path)
    (bundle / "config.json").write_text(json.dumps(CONFIG))
    if not esm.exists():
        settings = argparse.Namespace(arch="roberta_large", attention_heads=language.heads)
        model = LanguageEmbedder(language).state_dict()
        torch.save({"args": settings, "model": model}, esm)
    return bundle, esm


def measured(command: list[str]) -> dict[str, float]:
    """Run a command; its wall time, processor time and peak memory.

    Raises
    ------
    SystemExit
        With the command's exit code, if it fails.
    """
    started = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mib": usage.ru_maxrss // 1024,
    }


def rows_of(bundle: Path) -> list[list[str]]:
    """Size and worst difference from torch of every graph of a bundle."""
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    rows = []
    for name, record in manifest["files"].items():
        off = manifest["parity"].get(name)
        shown = "" if off is None else f"{off:.1e}"
        rows.append([name, f"{record['bytes'] / 1e6:,.1f}", shown])
    return rows


def main(
    scratch: Annotated[Path, typer.Option(help="Folder of 12 GB at most; used again.")],
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write; the table goes beside it.")
    ] = None,
    half: Annotated[
        bool, typer.Option("--half-precision", help="Store in half precision.")
    ] = False,
    small: Annotated[bool, typer.Option("--small", help="Reduced widths: a check.")] = False,
    machine: options.Machine = "",
) -> None:
    """Import random weights of full size."""
    sizes = SMALL if small else (CalphaConfig(), GraphConfig(), ESM1B)
    folder = scratch / ("small" if small else "full")
    official, esm = write_random(folder, *sizes)
    bundle = folder / ("half" if half else "bundle")
    if bundle.exists():
        raise SystemExit(f"{bundle}: is there already; remove it to measure again")
    command = [sys.executable, "-m", "angelo_export", "import-modelangelo", str(official)]
    command += ["--esm", str(esm), "-o", str(bundle), *(["--half-precision"] if half else [])]
    cost = measured(command)
    rows = rows_of(bundle)
    facts: dict[str, Any] = machine_facts(machine) | {"torch": torch.__version__, "half": half}
    total = sum(path.stat().st_size for path in bundle.iterdir()) / 1e9
    text = (
        f"{cost['seconds']} s, {cost['cpu_seconds']} CPU s, peak memory "
        f"{cost['peak_memory_mib']} MiB; the bundle has {total:.2f} GB\n\n"
    )
    text += markdown_table(["file", "MB", "worst difference from torch"], rows)
    if out is None:
        typer.echo(text)
        return
    head = HEAD.format(option=" --half-precision" if half else "", **facts)
    content = {"machine": facts, "cost": cost, "gigabytes": total, "rows": rows}
    write_results(out, content, f"{head}{text}\n")


if __name__ == "__main__":
    typer.run(main)
