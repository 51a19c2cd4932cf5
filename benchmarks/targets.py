"""What we set out to reach, and what is reached: targets.md, from the benchmarks' figures.

python benchmarks/targets.py
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from report import bundle_text, markdown_table

HEAD = """# Targets

Written by `make bench-targets` from `calpha.json` (`make bench-calpha`) and
`accuracy.json` (`make bench-models`); no figure is typed by hand. What was tried, and what the
rest would need, is in [experiments.md](experiments.md#what-is-missing). Figures are compared
before they are rounded for this page.
"""
#: One of the real maps is whole and has another program's model: it has targets of its own.
WHOLE_MAP = "EMD-3488"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and the least or the most that it should be."""

    what: str
    wanted: float
    measured: float
    decimals: int = 1
    at_least: bool = True

    @property
    def is_met(self) -> bool:
        """Whether the figure is as wanted; not rounded, as what is shown is."""
        if self.at_least:
            return self.measured >= self.wanted
        return self.measured <= self.wanted

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        relation = "at least" if self.at_least else "at most"
        numbers = [f"{value:.{self.decimals}f}" for value in (self.wanted, self.measured)]
        return [
            self.what,
            f"{relation} {numbers[0]}",
            numbers[1],
            "yes" if self.is_met else "no",
        ]


def calpha_targets(calpha: Mapping[str, Any]) -> Iterator[Target]:
    """Of the points of the C-alpha network alone (content of calpha.json)."""
    means = calpha["means"]
    for resolution, recall, precision in ((2.5, 99, 98), (3.0, 97, 95), (3.5, 92, 90)):
        found = means[f"simulated_{resolution}"]
        label = f"`val` {resolution} Å"
        yield Target(f"{label}, recall %", recall, found["recall"])
        yield Target(f"{label}, precision %", precision, found["precision"])
    whole = next(row for row in calpha["rows"] if row["name"] == WHOLE_MAP)
    yield Target(f"{WHOLE_MAP}, recall %", 98.5, whole["recall"])
    yield Target(f"{WHOLE_MAP}, precision %", 98, whole["precision"])
    yield Target(f"{WHOLE_MAP}, RMSD Å", 0.45, whole["calpha_rmsd"], 2, at_least=False)
    yield Target("five real maps, recall %", 95, means["real"]["recall"])
    kinds = "amino acids right %"
    yield Target(f"`val` 3.0 Å, {kinds}", 65, means["simulated_3.0"]["amino_acids"])
    yield Target(f"{WHOLE_MAP}, {kinds}", 55, whole["amino_acids"])
    yield Target(f"five real maps, {kinds}", 40, means["real"]["amino_acids"])
    for label, figures in (
        ("`val` 3.0 Å", means["simulated_3.0"]),
        (WHOLE_MAP, whole),
        ("five real maps", means["real"]),
    ):
        yield Target(
            f"{label}, direction to C, °", 20, figures["direction_error"], at_least=False
        )


def model_targets(accuracy: Mapping[str, Any]) -> Iterator[Target]:
    """Of pruned models (content of accuracy.json)."""
    means = accuracy["means"]
    whole = next(row for row in accuracy["rows"] if row["name"] == WHOLE_MAP)["pruned"]
    yield Target(f"{WHOLE_MAP}, sequence recall %", 97, whole["sequence_recall"])
    yield Target(
        f"{WHOLE_MAP}, backbone RMSD Å", 0.45, whole["backbone_rmsd"], 2, at_least=False
    )
    yield Target(f"{WHOLE_MAP}, chains (4 in truth)", 4, whole["n_chains"], 0, at_least=False)
    for resolution, recall, rmsd in ((2.5, 96, 0.45), (3.0, 92, 0.6), (3.5, 75, 0.85)):
        found = means[f"simulated_{resolution}"]["pruned"]
        label = f"`val` {resolution} Å"
        yield Target(f"{label}, sequence recall %", recall, found["sequence_recall"])
        yield Target(
            f"{label}, backbone RMSD Å", rmsd, found["backbone_rmsd"], 2, at_least=False
        )
    rows = [row for row in accuracy["rows"] if row["group"] == "real"]
    built = [row for row in rows if row.get("pruned", {}).get("n_matched")]
    share = wrong_type_of(row["pruned"] for row in built)
    yield Target("all residues on real maps, wrong type %", 2, share, at_least=False)
    for row in built:
        share = wrong_type_of([row["pruned"]])
        yield Target(f"{row['name']}, wrong type %", 2, share, at_least=False)


def wrong_type_of(models: Iterable[Mapping[str, Any]]) -> float:
    """Matched residues of all the models together that have a wrong type, %."""
    counts = [(model["n_matched"], model["wrong_type"]) for model in models]
    return sum(n * share for n, share in counts) / sum(n for n, _ in counts)


def targets_text(calpha: Mapping[str, Any], accuracy: Mapping[str, Any]) -> str:
    """The whole page.

    Raises
    ------
    ValueError
        If the figures are of different bundles.
    """
    measured = [bundle_text(content) for content in (calpha, accuracy)]
    if measured[0] != measured[1]:
        raise ValueError(f"calpha.json is of {measured[0]}, accuracy.json of {measured[1]}")
    parts = [HEAD.rstrip(), f"{measured[0]}."]
    for title, targets in (
        ("Points of the C-alpha network, before the graph network", calpha_targets(calpha)),
        ("Pruned models", model_targets(accuracy)),
    ):
        rows = [target.cells for target in targets]
        parts += [f"{title}:", markdown_table(["what", "wanted", "measured", "met"], rows)]
    return "\n\n".join(parts) + "\n"


def main(
    folder: Annotated[Path, typer.Option(help="Of calpha.json and accuracy.json.")] = Path(
        "benchmarks"
    ),
) -> None:
    """Write targets.md beside the figures."""
    calpha, accuracy = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("calpha.json", "accuracy.json")
    )
    text = targets_text(calpha, accuracy)
    (folder / "targets.md").write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
