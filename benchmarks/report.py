"""Figures and curves into the model card, the README and bundle.json; none typed by hand."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from curves import curve_svg, curve_table, read_curves
from provenance import bundle_facts, write_json

#: Networks of the compact bundle: name of the run folder, and what people call it.
NETWORKS = {
    "c_alpha": "C-alpha network",
    "gnn": "graph network",
}
#: Metrics of the tables: name in the file, head of the column, decimals.
METRICS = (
    ("calpha_recall", "Cα recall %", 1),
    ("calpha_precision", "Cα precision %", 1),
    ("sequence_recall", "sequence recall %", 1),
    ("backbone_rmsd", "backbone RMSD Å", 2),
    ("all_atom_rmsd", "all-atom RMSD Å", 2),
    ("all_atom_lddt", "lDDT", 1),
    ("chain_breaks_per_100", "chain breaks / 100", 1),
)
#: The metrics that the README and bundle.json have room for.
MAIN_METRICS = METRICS[:4]
#: How the kinds of model are called.
KINDS = {"raw": "unpruned", "pruned": "pruned"}


def replace_block(text: str, name: str, body: str) -> str:
    """Text with ``body`` between the comments ``NAME: BEGIN`` and ``NAME: END``.

    Raises
    ------
    ValueError
        Unless there is one such pair of comments.
    """
    pattern = re.compile(rf"(<!-- {name}: BEGIN\b.*?-->\n).*?(<!-- {name}: END -->)", re.DOTALL)
    changed, n = pattern.subn(lambda found: f"{found[1]}{body.strip()}\n{found[2]}", text)
    if n != 1:
        raise ValueError(f"{n} blocks between <!-- {name}: BEGIN --> and END, must be one")
    return changed


def replace_blocks(path: Path, blocks: Mapping[str, str]) -> None:
    """Replace each block of a file; the file stays as it was if one is missing."""
    text = path.read_text(encoding="utf-8")
    for name, body in blocks.items():
        try:
            text = replace_block(text, name, body)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    path.write_text(text, encoding="utf-8")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose third and later columns are numbers."""
    rule = ["---" if i < 2 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def accuracy_text(
    accuracy: Mapping[str, Any], metrics: Sequence[tuple[str, str, int]] = METRICS
) -> str:
    """All tables of accuracy.json, with what they were measured on."""
    parts = [measured_text(accuracy)]
    if any(group.startswith("simulated") for group in accuracy["means"]):
        parts += [SIMULATED_NOTE, simulated_table(accuracy, metrics)]
    if "real" in accuracy["means"]:
        parts += [REAL_NOTE, real_table(accuracy, metrics), _map_notes(accuracy)]
    failed = [row["name"] for row in accuracy["rows"] if row["outcome"] == "failed"]
    if failed:
        parts.append(f"Not measured, because the build failed: {', '.join(failed)}.")
    return "\n\n".join(parts)


SIMULATED_NOTE = (
    "Simulated maps of deposited entries that were kept out of training, means over the maps "
    "(each counts the same; where nothing was built it counts with zeros):"
)
REAL_NOTE = "Real maps:"


def simulated_table(
    accuracy: Mapping[str, Any], metrics: Sequence[tuple[str, str, int]]
) -> str:
    """Means by resolution."""
    rows = []
    for group, means in accuracy["means"].items():
        if not group.startswith("simulated"):
            continue
        counts = f"{means['n_maps'] - means['n_nothing_built']} of {means['n_maps']}"
        for kind, called in KINDS.items():
            label = f"{group.removeprefix('simulated_')} Å, {called}"
            cost = [_number(means["seconds"], 0), _number(means["peak_memory_mib"], 0)]
            rows.append([label, counts, *_figures(means[kind], metrics), *cost])
    head = ["simulated maps", "maps built", *(title for _, title, _ in metrics), "s", "MiB"]
    return markdown_table(head, rows)


def real_table(accuracy: Mapping[str, Any], metrics: Sequence[tuple[str, str, int]]) -> str:
    """One or two rows a map, other people's builds among them; then the mean."""
    rows = []
    chosen = [row for row in accuracy["rows"] if row["group"] in ("real", "comparison")]
    for row in sorted(
        chosen, key=lambda row: (row["name"].split(",")[0], row["group"] != "real")
    ):
        if row["outcome"] == "failed":
            continue
        cost = [_number(row.get(name), 0) for name in ("seconds", "peak_memory_mib")]
        for kind in (kind for kind in KINDS if kind in row):
            called = KINDS[kind] if row["group"] == "real" else "as given"
            label = f"{row['name']}, {called}"
            if not row[kind]["n_built"]:
                label += f" ({row['outcome']})"
            count = f"{row[kind]['n_built']} / {row['n_deposited']}"
            rows.append([label, count, *_figures(row[kind], metrics), *cost])
    means = accuracy["means"]["real"]
    for kind, called in KINDS.items():
        cost = [_number(means[name], 0) for name in ("seconds", "peak_memory_mib")]
        label = f"**mean of {means['n_maps']}, {called}**"
        rows.append([label, "", *_figures(means[kind], metrics), *cost])
    titles = [title for _, title, _ in metrics]
    return markdown_table(["real maps", "built / deposited", *titles, "s", "MiB"], rows)


def _map_notes(accuracy: Mapping[str, Any]) -> str:
    lines = []
    for row in accuracy["rows"]:
        if row["group"] == "real":
            stated = "" if row["resolution"] is None else f", {row['resolution']:g} Å"
            lines.append(f"- {row['name']} (PDB {row['pdb']}{stated}): {row['what']}.")
    return "\n".join(lines)


def _figures(figures: Mapping[str, Any], metrics: Sequence[tuple[str, str, int]]) -> list[str]:
    return [_number(figures[name], decimals) for name, _, decimals in metrics]


def _number(value: float | None, decimals: int) -> str:
    return "–" if value is None else f"{value:.{decimals}f}"


def speed_text(speed: Mapping[str, Any]) -> str:
    """The table of speed.json."""
    stages = list(dict.fromkeys(stage for row in speed["rows"] for stage in row["stages"]))
    rows = []
    for row in speed["rows"]:
        shape = " × ".join(map(str, row["shape_zyx"][::-1]))
        cost = [_number(row[name], 0) for name in ("seconds", "cpu_seconds", "peak_memory_mib")]
        times = [_number(row["stages"].get(stage), 1) for stage in stages]
        rows.append([row["name"], shape, *cost, *times])
    head = ["map", "voxels", "s", "CPU s", "MiB", *(f"{stage}, s" for stage in stages)]
    device = speed["conditions"]["device"]
    where = f"Time and memory, device {device}: {machine_text(speed['machine'])}."
    return f"{where}\n\n{markdown_table(head, rows)}"


def measured_text(content: Mapping[str, Any]) -> str:
    """With what the figures of a file were measured."""
    conditions, machine = content["conditions"], content["machine"]
    return (
        f"{bundle_text(content)}, angelo {machine['versions']['angelo']}, {machine['date']}. "
        f"Device {conditions['device']}: {machine_text(machine)}."
    )


def bundle_text(content: Mapping[str, Any]) -> str:
    """Of which bundle the figures of a file are."""
    bundle = content["conditions"]["bundle"]
    return f"Bundle {bundle['name']} {bundle['version']} (checksum {bundle['sha256'][:12]})"


def machine_text(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:g} GiB"


def manifest_accuracy(accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Section ``accuracy`` of bundle.json: the main metrics of every group and real map."""
    section: dict[str, Any] = {"measured": accuracy["machine"]["date"]}
    for group, means in accuracy["means"].items():
        counts = {"maps": means["n_maps"], "nothing_built": means["n_nothing_built"]}
        section[group] = counts | {kind: _main(means[kind]) for kind in KINDS}
    maps = [row for row in accuracy["rows"] if row["group"] == "real" and "raw" in row]
    if maps:
        section["real"]["by_map"] = {
            row["name"]: {kind: _main(row[kind]) for kind in KINDS} for row in maps
        }
    return section


def _main(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        name: None if figures[name] is None else round(figures[name], decimals)
        for name, _, decimals in MAIN_METRICS
    }


def write_manifest_accuracy(bundle: Path, accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """Put the figures into bundle.json and return them.

    Raises
    ------
    ValueError
        If they were measured with another bundle.
    """
    now, then = bundle_facts(bundle)["sha256"], accuracy["conditions"]["bundle"]["sha256"]
    if now != then:
        raise ValueError(
            f"{bundle}: the figures are of another bundle ({then[:12]}, this one is "
            f"{now[:12]}); run benchmarks/accuracy.py again"
        )
    path = bundle / "bundle.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["accuracy"] = manifest_accuracy(accuracy)
    write_json(path, manifest)
    return dict(manifest["accuracy"])


def facts_text(bundle: Path) -> str:
    """What bundle.json says of itself: version, how it was made, files, parity."""
    manifest = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    lines = [f"- {name}: {manifest[name]}" for name in ("name", "version", "licence")]
    lines += _bullets(manifest["made_by"])
    rows = [
        [name, f"{record['bytes']:,}", _parity(manifest["parity"], name)]
        for name, record in manifest["files"].items()
    ]
    table = markdown_table(["file", "bytes", "worst difference from torch"], rows)
    return "\n".join(lines) + "\n\n" + table


def _parity(parity: Mapping[str, float], file: str) -> str:
    return f"{parity[file]:.1e}" if file in parity else "–"


def _bullets(values: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in values.items():
        called = name.replace("_", " ")
        if isinstance(value, Mapping):
            lines += [f"{indent}- {called}:", *_bullets(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            lines.append(f"{indent}- {called}: {shown}")
    return lines


def training_text(runs: Path, bundle: Path) -> str:
    """Copy curves into the bundle, draw them, and tell how long each network was trained."""
    rows, pictures = [], []
    for network, called in NETWORKS.items():
        source = runs / network / "curves.csv"
        kept = bundle / f"curves_{network}.csv"
        if source.is_file():
            shutil.copyfile(source, kept)
        if not kept.is_file():
            continue
        columns = read_curves(kept)
        picture = bundle / f"curves_{network}.svg"
        picture.write_text(curve_svg(columns, called), encoding="utf-8")
        pictures.append(f"![Training of the {called}]({picture.name})")
        rows += curve_table(columns, called)
    if not rows:
        return "*No curves.*"
    head = ["network", "validation figure", "steps", "minutes", "first", "last"]
    return markdown_table(head, rows) + "\n\n" + "\n\n".join(pictures)


def data_text(structures: Path) -> str:
    """How much there is of each split."""
    from angelo_training.structures import PackedStructures

    packed = PackedStructures(structures)
    rows = []
    for split in ("train", "val"):
        for relatives in (False, True):
            chosen = [
                packed.entries[i]
                for i in packed.select(split)
                if packed.entries[i]["dev_map_relative"] is relatives
            ]
            residues = sum(entry["residues"][1] - entry["residues"][0] for entry in chosen)
            about = "yes" if relatives else "no"
            rows.append([split, about, f"{len(chosen):,}", f"{residues:,}"])
    head = ["split", "homologous to a real benchmark map", "entries", "residues"]
    return markdown_table(head, rows)


def main(
    accuracy: Annotated[Path, typer.Option(help="Of accuracy.py.")] = Path(
        "benchmarks/accuracy.json"
    ),
    speed: Annotated[Path, typer.Option(help="Of speed.py; left out if missing.")] = Path(
        "benchmarks/speed.json"
    ),
    bundle: Annotated[Path, typer.Option(help="The bundle's folder.")] = Path("models/compact"),
    readme: Annotated[Path, typer.Option(help="README of the repository.")] = Path("README.md"),
    runs: Annotated[Path, typer.Option(help="Folder of the training runs.")] = Path("runs"),
    structures: Annotated[Path, typer.Option(help="Packed structures.")] = Path(
        "data/structures.npz"
    ),
) -> None:
    """Write every figure to where it is read."""
    figures = json.loads(accuracy.read_text(encoding="utf-8"))
    try:
        section = write_manifest_accuracy(bundle, figures)
        timing = "*Not measured.*"
        if speed.is_file():
            timing = speed_text(json.loads(speed.read_text(encoding="utf-8")))
        card = {
            "FACTS": facts_text(bundle),
            "TRAINING": training_text(runs, bundle),
            "ACCURACY": accuracy_text(figures),
            "SPEED": timing,
        }
        if structures.is_file():
            card["DATA"] = data_text(structures)
        replace_blocks(bundle / "README.md", card)
        replace_blocks(
            readme, {"BENCHMARKS": f"{accuracy_text(figures, MAIN_METRICS)}\n\n{timing}"}
        )
    except ValueError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None
    typer.echo(json.dumps({"accuracy": section}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    typer.run(main)
