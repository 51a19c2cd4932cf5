"""The page of a batch: one self-contained HTML file without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; color: #222;
  padding: 0 1em }
table { border-collapse: collapse; width: 100% }
td, th { padding: 0.2em 0.8em 0.2em 0; text-align: left; border-bottom: 1px solid #ddd }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums }
td.state { font-weight: 600 }
tr.built td.state { color: #1f6f3f } tr.failed td.state { color: #b3261e }
tr.stopped td.state { color: #b3261e } tr.nothing td.state { color: #8a5a00 }
.bar { background: #e6e6e6; width: 6em; height: 0.7em; display: inline-block }
.bar span { background: #285ac8; height: 100%; display: block }
"""
#: Columns with figures: key of the record, heading.
FIGURES = (
    ("matched_residues", "residues matched"),
    ("residues_built", "built"),
    ("chains", "chains"),
    ("mean_confidence", "confidence"),
    ("seconds", "s"),
    ("peak_memory_mib", "MiB"),
)


def html_page(
    title: str, states: Mapping[str, int], records: Sequence[Mapping[str, Any]]
) -> str:
    """Table of all rows with links to their reports, models and logs.

    Parameters
    ----------
    title
        Name of the batch.
    states
        How many rows there are of each state.
    records
        See ``angelo.batch.summary.summarise_batch``; links in them are relative to the page.
    """
    totals = ", ".join(f"{n} {state}" for state, n in states.items())
    heads = "".join(f'<th class="figure">{escape(head)}</th>' for _, head in FIGURES)
    rows = "\n".join(_row(record) for record in records)
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: angelo</title>\n'
        f"<style>{STYLE}</style></head><body>\n"
        f"<h1>{escape(title)}</h1>\n<p>{len(records)} maps: {totals}</p>\n"
        f"<table><thead><tr><th>map</th><th>state</th><th>sequence covered</th>{heads}"
        f"<th>files</th></tr></thead><tbody>\n{rows}\n</tbody></table>\n</body></html>\n"
    )


def _row(record: Mapping[str, Any]) -> str:
    state = str(record["state"])
    kind = "nothing" if state == "no model" else state
    name = escape(str(record["name"]))
    if record["report"]:
        name = _link(record["report"], str(record["name"]))
    if record["message"]:
        name += f"<br><small>{escape(str(record['message']))}</small>"
    figures = "".join(f'<td class="figure">{_figure(record[key])}</td>' for key, _ in FIGURES)
    links = ", ".join(_link(record[key], key) for key in ("model", "log") if record[key])
    return (
        f'<tr class="{kind}"><td>{name}</td><td class="state">{escape(state)}</td>'
        f"<td>{_bar(record['sequence_coverage'])}</td>{figures}<td>{links}</td></tr>"
    )


def _link(path: str, text: str) -> str:
    return f'<a href="{escape(quote(path))}">{escape(text)}</a>'


def _figure(value: int | float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return ""
    percent = f"{100 * fraction:.0f}"
    return f'<span class="bar"><span style="width:{percent}%"></span></span> {percent} %'
