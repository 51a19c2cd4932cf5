"""The tables of calpha.json, as markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from calpha_tune import GRID, Choice
from report import markdown_table

from angelo.calpha import PointSettings

#: Figures of the table: name in a row, head of the column, decimals.
FIGURES = (
    ("recall", "recall %", 1),
    ("precision", "precision %", 1),
    ("calpha_rmsd", "Cα RMSD Å", 2),
    ("direction_error", "direction to C, °", 1),
    ("amino_acids", "amino acids %", 1),
)
#: Figures of a search's cost: name in a row, head of the column, decimals.
COSTS = (
    ("seconds", "search, s", 1),
    ("network_seconds", "network, s", 1),
    ("points_seconds", "points, s", 1),
    ("cpu_seconds", "CPU s", 0),
    ("peak_memory_mib", "peak MiB", 0),
    ("map_seconds", "preparing the map, s", 1),
    ("map_peak_memory_mib", "peak MiB before the search", 0),
)
NOTE = (
    "Points of the C-alpha network alone, before the graph network, one to one within 3 Å of "
    "deposited C-alphas. *Direction*: mean angle between the predicted and the true CA→C. "
    "*Amino acids*: matched residues whose most likely type is right. Each map counts the same "
    "in a mean."
)


def report_text(content: Mapping[str, Any]) -> str:
    """All tables as markdown."""
    conditions, machine = content["conditions"], content["machine"]
    bundle = conditions["bundle"]
    what = f"bundle {bundle['name']} {bundle['version']} (checksum {bundle['sha256'][:12]})"
    if conditions["weights"] is not None:
        weights = conditions["weights"]
        what += f", C-alpha network of {weights['file']} (checksum {weights['sha256'][:12]})"
    where = (
        f"`{content['command']}`: {what}, angelo {machine['versions']['angelo']}, "
        f"{machine['date']}; device {conditions['device']}, {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']:g} GiB."
    )
    parts = ["# The C-alpha network alone", where, NOTE, accuracy_table(content)]
    if content["costs"]:
        parts += [COST_NOTE, cost_table(content["costs"], conditions["threads"])]
    return "\n\n".join(parts) + "\n"


COST_NOTE = (
    "Time and memory of the search, each map in a process of its own: the network over all "
    "windows that hold more than solvent, and the points."
)


def accuracy_table(content: Mapping[str, Any]) -> str:
    """A row for each resolution of simulated maps, one for each real map, and their mean."""
    rows = []
    for group, means in content["means"].items():
        if group.startswith("simulated"):
            label = f"val, simulated at {group.removeprefix('simulated_')} Å"
            rows.append([label, f"{means['n_maps']} maps", *_cells(means, FIGURES)])
    for row in content["rows"]:
        if row["group"] == "real":
            count = f"{row['n_points']} / {row['n_deposited']}"
            rows.append([row["name"], count, *_cells(row, FIGURES)])
    if "real" in content["means"]:
        means = content["means"]["real"]
        label = f"**mean of {means['n_maps']} real maps**"
        rows.append([label, "", *_cells(means, FIGURES)])
    head = ["map", "points / deposited", *(title for _, title, _ in FIGURES)]
    return markdown_table(head, rows)


def cost_table(costs: Sequence[Mapping[str, Any]], threads: int) -> str:
    """A row for each timed map."""
    rows = [
        [row["name"], " × ".join(map(str, row["shape_zyx"][::-1])), *_cells(row, COSTS)]
        for row in costs
    ]
    of = f"{threads} threads" if threads else "all cores"
    head = [f"map ({of})", "voxels", *(title for _, title, _ in COSTS)]
    return markdown_table(head, rows)


def _cells(figures: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> list[str]:
    values = ((figures[name], decimals) for name, _, decimals in columns)
    return ["–" if value is None else f"{value:.{n}f}" for value, n in values]


def tuning_table(choices: Mapping[str, Choice], start: PointSettings) -> str:
    """The settings in use, and the best ones, with their F1."""
    names = list(GRID)
    in_use = asdict(start)
    before = ["in use", "", *(f"{in_use[name]:g}" for name in names), "", ""]
    rows = [before]
    for group, choice in choices.items():
        values = [f"{asdict(choice.settings)[name]:g}" for name in names]
        f1 = [f"{choice.f1_before:.2f}", f"{choice.f1:.2f}"]
        rows.append([group, str(choice.n_tried), *values, *f1])
    return markdown_table(["val maps", "tried", *names, "F1 in use %", "F1 best %"], rows)
