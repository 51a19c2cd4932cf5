"""Tables, summary and ChimeraX script: numbers counted by hand."""

import csv
import io
from html.parser import HTMLParser

import numpy as np
import pytest

from angelo.prune import AssignmentReport, SequenceCoverage
from angelo.report.chimerax import chimerax_script
from angelo.report.page import confidence_colour, html_report
from angelo.report.tables import (
    chains_csv,
    csv_text,
    residues_csv,
    sequences_csv,
    summarise,
)
from angelo.report.undecided import UndecidedChain
from angelo.types import Doubt, Model, ModelChain, SequenceRecord

RECORDS = (SequenceRecord("first", "AAAAAAAAAA", copies=2), SequenceRecord("second", "GGGG"))


def make_chain(name, sequence, positions, confidence):
    n = len(positions)
    xyz = np.arange(n * 5 * 3, dtype=np.float32).reshape(n, 5, 3)
    return ModelChain(
        name,
        sequence,
        np.array(positions),
        ("ALA",) * n,
        xyz,
        np.ones((n, 5), bool),
        np.full(n, confidence, np.float32),
        np.full(n, 0.5, np.float32),
    )


@pytest.fixture
def raw():
    return Model(
        (
            make_chain("A", 0, [1, 2, 5], 80),
            make_chain("B", 0, [2, 3], 60),
            make_chain("C", -1, [1], 0),
        )
    )


@pytest.fixture
def pruned(raw):
    return Model(raw.chains[:2])


#: What the pruned model explains: positions 1, 2, 3 and 5 of "first", two of them twice.
REPORT = AssignmentReport(
    6, 5, (SequenceCoverage("first", 10, 2, 5, 0.4), SequenceCoverage("second", 4, 0, 0, 0.0))
)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_fields_with_commas_are_quoted():
    assert csv_text(["a", "b"], [["x,y", 1]]) == 'a,b\n"x,y",1\n'


def test_residue_rows(raw, pruned):
    rows = rows_of(residues_csv({"pruned": pruned, "raw": raw}, RECORDS))
    assert [row["model"] for row in rows] == ["pruned"] * 5 + ["raw"] * 6
    assert rows[2] == {
        "model": "pruned",
        "chain": "A",
        "number": "5",
        "type": "ALA",
        "confidence": "80.00",
        "type_probability": "0.500",
        "number_probability": "",
        "sequence": "first",
        "ca_x": "33.000",  # residue 2 of 15 numbers each, C-alpha is the second atom
        "ca_y": "34.000",
        "ca_z": "35.000",
    }
    assert rows[-1]["sequence"] == ""


def test_chain_rows(raw):
    rows = rows_of(chains_csv({"raw": raw}, RECORDS))
    assert [row["residues"] for row in rows] == ["3", "2", "1"]
    assert [row["breaks"] for row in rows] == ["1", "0", "0"]
    assert (rows[0]["first"], rows[0]["last"]) == ("1", "5")
    assert rows[0]["mean_confidence"] == "80.00"


def test_sequence_rows_count_positions_once(pruned):
    first, second = rows_of(sequences_csv(REPORT, pruned, RECORDS))
    assert (first["residues_built"], first["positions_covered"]) == ("5", "4")  # 1 2 3 5
    assert (first["coverage"], first["chains"]) == ("0.4000", "A B")
    assert (second["chains_built"], second["coverage"]) == ("0", "0.0000")


def test_summary(raw, pruned):
    summary = summarise(raw, pruned, REPORT)
    assert summary["residues_built"] == 6
    assert summary["matched_residues"] == summary["residues"] == 5
    assert summary["mean_confidence"] == pytest.approx((3 * 80 + 2 * 60) / 5)
    assert summary["sequence_coverage"] == pytest.approx(4 / 14, abs=1e-4)
    assert summary["sequences_not_found"] == ["second"]


def test_summary_without_sequences_and_without_chains(raw):
    assert "sequences" not in summarise(raw, None, None)
    nothing = AssignmentReport(6, 0, (SequenceCoverage("first", 10, 0, 0, 0.0),))
    empty = summarise(raw, Model(()), nothing)
    assert (empty["residues"], empty["mean_confidence"], empty["sequences_found"]) == (0, 0, 0)


def test_script_opens_map_and_models_by_relative_paths(tmp_path):
    lines = chimerax_script(
        tmp_path / "out", tmp_path / "my map.mrc", ["out.cif", "out_raw.cif"]
    ).splitlines()
    assert lines[:3] == ['open "../my map.mrc"', 'open "out.cif"', 'open "out_raw.cif"']
    assert any(line.startswith("color byattribute bfactor #2-3 ") for line in lines)
    assert "hide #3 models" in lines and "hide #2 models" not in lines


def test_script_quotes_paths(tmp_path):
    text = chimerax_script(tmp_path, tmp_path / 'a"b.mrc', [])
    assert text.startswith("open 'a\"b.mrc'\n")
    assert "#2" not in text


class Reader(HTMLParser):
    """Collects opened and closed tags, and what is written."""

    def __init__(self):
        super().__init__()
        self.open, self.rects, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        if tag == "rect":
            self.rects.append(dict(attrs))
        if tag not in ("meta", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_page_shows_where_residues_lie_and_nothing_is_markup():
    records = (SequenceRecord("<b>first", "AAAAAAAAAA"),)
    chain = make_chain("A", 0, [2, 3, 7], 100)
    models = {"raw": Model((chain,)), "pruned": Model((chain,))}
    summary = {"residues_built": 3, "mean_confidence": 99.987}
    geometry = {"n_bond_outliers": 17, "clashscore": None}
    page = Reader()
    page.feed(html_report("a & b", summary, models, records, ("C: <merged>",)))
    assert page.open == [] and "Stereochemistry" not in page.text
    assert "<b>first: 3 of 10 positions built" in page.text
    assert "a & b" in page.text and "C: <merged>" in page.text and "100" in page.text
    starts = [float(rect["x"]) for rect in page.rects[:3]]
    np.testing.assert_allclose(starts, [90, 180, 540], atol=0.01)  # of 900 pixels
    page = Reader()
    summary |= {"geometry": {"raw": geometry, "pruned": {"n_bond_outliers": 4}}}
    page.feed(html_report("a", summary, models, records, ()))
    assert page.open == []
    assert "Stereochemistry\nrawprunedbond outliers174clashscore--" in page.text


def test_page_names_chains_that_were_left_open_and_why():
    chain = make_chain("A", 0, [2, 3, 7], 100)
    weak = UndecidedChain("B", 8, Doubt(1, 5, 12, 6.25, 3.0))
    tie = UndecidedChain("<C>", 9, Doubt(0, 1, 9, 20.0, 1e-3, rival=(1, 42, 18.5)))
    page = Reader()
    page.feed(html_report("a", {}, {"raw": Model((chain,))}, RECORDS, (), (weak, tie)))
    assert page.open == []
    assert "B8second 5-12chance gives 3 matches as good" in page.text
    assert (
        "<C>9first 1-9second from 42 fits nearly as well (18.5 bits against 20.0)" in page.text
    )
    page = Reader()
    page.feed(html_report("a", {}, {"raw": Model((chain,))}, RECORDS, ()))
    assert "Undecided" not in page.text


@pytest.mark.parametrize(
    ("confidence", "colour"),
    [
        (0.0, "rgb(220,70,50)"),
        (-5.0, "rgb(220,70,50)"),
        (50.0, "rgb(240,200,60)"),
        (100.0, "rgb(40,90,200)"),
    ],
)
def test_confidence_has_the_colours_that_the_page_names(confidence, colour):
    assert confidence_colour(confidence) == colour
