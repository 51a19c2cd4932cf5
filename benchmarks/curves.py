"""Training curves: read, summarise, draw."""

import csv
import math
from pathlib import Path
from xml.sax.saxutils import escape

#: How columns with figures on held-out data begin.
HELD_OUT = ("val_", "held_out_")
#: Size of one panel and the space around it, pixels.
PANEL, GAP, HEAD = (170, 100), 34, 40
#: Panels in a row of the picture.
PER_ROW = 4

#: Name of a column to its (step, value) pairs, empty cells left out.
Curves = dict[str, list[tuple[float, float]]]


def read_curves(path: Path) -> Curves:
    """Columns of a training log; ``seconds`` is one of them."""
    columns: Curves = {}
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            for name, cell in row.items():
                if name != "step" and cell and math.isfinite(float(cell)):
                    columns.setdefault(name, []).append((float(row["step"]), float(cell)))
    return columns


def held_out(columns: Curves) -> Curves:
    """The columns that tell of held-out data."""
    return {name: points for name, points in columns.items() if name.startswith(HELD_OUT)}


def curve_table(columns: Curves, network: str) -> list[list[str]]:
    """Rows: network, figure, steps, minutes, first value, last value."""
    steps, minutes = columns["seconds"][-1][0], columns["seconds"][-1][1] / 60
    rows = []
    for i, (name, points) in enumerate(held_out(columns).items()):
        size = [f"{steps:,.0f}", f"{minutes:.0f}"] if i == 0 else ["", ""]
        figure = name.replace("_", " ")
        values = [f"{points[0][1]:.4g}", f"{points[-1][1]:.4g}"]
        rows.append([network if i == 0 else "", figure, *size, *values])
    return rows


def curve_svg(columns: Curves, title: str) -> str:
    """A picture with one small panel for each held-out figure, against steps."""
    panels = held_out(columns)
    width, height = PANEL
    n_rows = max(1, math.ceil(len(panels) / PER_ROW))
    size = (PER_ROW * (width + GAP) + GAP, HEAD + n_rows * (height + 2 * GAP))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{GAP}" y="24" font-size="15">Training of the {escape(title)}</text>',
    ]
    for i, (name, points) in enumerate(panels.items()):
        x = GAP + (i % PER_ROW) * (width + GAP)
        y = HEAD + GAP // 2 + (i // PER_ROW) * (height + 2 * GAP)
        parts.append(_panel(x, y, name, points))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(x: int, y: int, name: str, points: list[tuple[float, float]]) -> str:
    width, height = PANEL
    low, high = min(v for _, v in points), max(v for _, v in points)
    last = max(step for step, _ in points)
    span = (high - low) or 1.0
    line = " ".join(
        f"{x + width * step / (last or 1):.1f},{y + height * (1 - (value - low) / span):.1f}"
        for step, value in points
    )
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#bbb"/>\n'
        f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="1.5"/>\n'
        f'<text x="{x}" y="{y - 5}">{escape(name.replace("_", " "))}</text>\n'
        f'<text x="{x + 3}" y="{y + 12}" fill="#666">{high:.4g}</text>\n'
        f'<text x="{x + 3}" y="{y + height - 4}" fill="#666">{low:.4g}</text>\n'
        f'<text x="{x + width}" y="{y + height + 13}" text-anchor="end" fill="#666">'
        f"step {last:,.0f}</text>"
    )
