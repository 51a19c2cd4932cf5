"""The report: one self-contained HTML page without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np

from angelo.report.undecided import UndecidedChain
from angelo.residues import residue_table
from angelo.types import Model, ModelChain, SequenceRecord

#: Confidences with a colour of their own, and those colours (red, green, blue).
STOPS = (0.0, 50.0, 100.0)
COLOURS = np.array([[220, 70, 50], [240, 200, 60], [40, 90, 200]])
#: Width of a strip, pixels, and height of one.
STRIP_WIDTH, STRIP_HEIGHT = 900, 14
#: Probability from which a guessed residue type is a capital letter; letters of a line.
SURE, GUESS_WIDTH = 0.5, 100
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; color: #222 }
table { border-collapse: collapse } td, th { padding: 0.15em 0.9em 0.15em 0; text-align: left }
svg { background: #eee; display: block; margin: 0.1em 0 0.7em; max-width: 100% }
code { background: #f3f3f3 }
"""


def html_report(
    title: str,
    summary: Mapping[str, Any],
    models: Mapping[str, Model],
    records: Sequence[SequenceRecord],
    notes: Sequence[str],
    undecided: Sequence[UndecidedChain] = (),
) -> str:
    """Summary, sequences with what covers them, chains with their confidence.

    The first of ``models`` is shown. Without ``records`` the networks' guess of each chain's
    sequence is written out.
    """
    named = next(iter(models.values()))
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        _table([(_words(key), _plain(summary[key])) for key in summary if key != "geometry"]),
    ]
    if notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Notes</h2><ul>{items}</ul>")
    if records:
        parts.append("<h2>Sequences</h2>")
        parts += [_sequence(i, record, named) for i, record in enumerate(records)]
    if undecided:
        parts += ["<h2>Undecided</h2>", _undecided(undecided, records)]
    if "geometry" in summary:
        parts += ["<h2>Stereochemistry</h2>", _geometry(summary["geometry"])]
    parts.append("<h2>Chains</h2>")
    if not records:
        parts.append(
            "<p>Residue types are the networks' guess, in small letters where they give it "
            f"less than {SURE:.0%}. <code>angelo search</code> looks for the proteins.</p>"
        )
    parts += [_chain(chain) + ("" if records else _guess(chain)) for chain in named.chains]
    parts.append(
        "<p>Colour is confidence: red 0, yellow 50, blue 100 (as in the B-factor column). "
        "It is the networks' own guess of their error; look at the model in the map.</p>"
        "</body></html>"
    )
    return "\n".join(parts) + "\n"


def confidence_colour(confidence: float) -> str:
    """CSS colour of a confidence, 0 to 100; beyond that the nearest end."""
    red, green, blue = (round(np.interp(confidence, STOPS, shade)) for shade in COLOURS.T)
    return f"rgb({red},{green},{blue})"


def _sequence(index: int, record: SequenceRecord, model: Model) -> str:
    """Draw a strip for each chain that lies on the sequence."""
    chains = [chain for chain in model.chains if chain.sequence == index]
    covered = {int(p) for chain in chains for p in chain.sequence_positions}
    head = f"<h3>{escape(record.name)}: {len(covered)} of {len(record)} positions built</h3>"
    return head + "".join(
        f"chain {escape(chain.name)}" + _strip(chain, len(record)) for chain in chains
    )


def _undecided(chains: Sequence[UndecidedChain], records: Sequence[SequenceRecord]) -> str:
    """One row a chain: where it fits best, and what keeps it from being placed there."""
    rows = [("chain", "residues", "fits best", "why it was left open")]
    for chain in chains:
        doubt = chain.doubt
        place = f"{records[doubt.sequence].name} {doubt.first}-{doubt.last}"
        if doubt.rival is None:
            why = f"chance gives {doubt.e_value:.2g} matches as good"
        else:
            record, first, score = doubt.rival
            why = f"{records[record].name} from {first} fits nearly as well"
            why += f" ({score:.1f} bits against {doubt.score:.1f})"
        rows.append((chain.name, str(chain.n_residues), place, why))
    return _table(rows) + (
        "<p>Chains of the unpruned model that may belong to a sequence; the pruned model is "
        "without them. More in <code>undecided.csv</code>.</p>"
    )


def _chain(chain: ModelChain) -> str:
    mean = float(chain.confidence.mean()) if len(chain) else 0.0
    head = f"<p><b>{escape(chain.name)}</b>: {len(chain)} residues, confidence {mean:.0f}</p>"
    return head + _strip(chain, int(chain.sequence_positions.max(initial=1)))


def _guess(chain: ModelChain) -> str:
    """Write the built residue types in one-letter codes."""
    codes = (
        code if probability >= SURE else code.lower()
        for code, probability in zip(_codes(chain), chain.aa_probability, strict=True)
    )
    return "<pre>" + "\n".join(wrap("".join(codes), GUESS_WIDTH)) + "</pre>"


def _codes(chain: ModelChain) -> list[str]:
    return [residue_table()[kind].code for kind in chain.residue_types]


def _strip(chain: ModelChain, length: int) -> str:
    """Residues at their places along a sequence of ``length``."""
    width = STRIP_WIDTH / length
    cells = "".join(
        f'<rect x="{(int(position) - 1) * width:.2f}" width="{width + 0.2:.2f}" '
        f'height="{STRIP_HEIGHT}" fill="{confidence_colour(float(confidence))}">'
        f"<title>{escape(kind)} {int(position)}: {float(confidence):.0f}</title></rect>"
        for position, kind, confidence in zip(
            chain.sequence_positions, chain.residue_types, chain.confidence, strict=True
        )
    )
    size = f'width="{STRIP_WIDTH}" height="{STRIP_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{cells}</svg>'


def _geometry(models: Mapping[str, Mapping[str, Any]]) -> str:
    """One column a model; what the figures mean is in ``angelo.validate.Validation``."""
    measures = dict.fromkeys(name for found in models.values() for name in found)
    rows = [("", *models)]
    rows += [
        (_words(name), *(_plain(found.get(name)) for found in models.values()))
        for name in measures
    ]
    return _table(rows) + (
        "<p>Of protein alone, and counted in the models themselves, without the map: lengths "
        "in Å, angles in degrees, rmsz in standard deviations of good structures, Ramachandran "
        "and rotamer figures in %, clashes for each 1000 atoms. The table of problems "
        "(<code>_problems.csv</code>) names the residues to look at.</p>"
    )


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of a name and one or more texts."""
    lines = (
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(t)}</td>' for t in texts)}</tr>"
        for name, *texts in rows
    )
    return f"<table>{''.join(lines)}</table>"


def _words(key: str) -> str:
    return key.removeprefix("n_").replace("_", " ")


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
