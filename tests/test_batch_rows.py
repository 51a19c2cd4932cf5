"""Manifests: every row is checked, and every complaint names its line."""

import enum
import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
import typer
from tiny_bundle import write_tiny_bundle
from tiny_map import write_tiny_inputs

from angelo.batch.columns import Column, columns_of
from angelo.batch.row import ManifestError
from angelo.batch.rows import read_rows
from angelo.cli import app, build, map_name

COLUMNS = columns_of(typer.main.get_command(app).commands["build"], build)


@pytest.fixture
def folder(tmp_path):
    """A folder with tiny.mrc, tiny.fasta and a bundle."""
    write_tiny_inputs(tmp_path)
    write_tiny_bundle(tmp_path / "networks")
    return tmp_path


def rows_of(folder, *lines, **options):
    path = folder / "maps.tsv"
    path.write_text("\n".join(lines) + "\n")
    return read_rows(path, COLUMNS, map_name, **options)


def test_columns_are_the_options_of_a_build():
    assert list(COLUMNS)[:2] == ["map", "fasta"]
    assert COLUMNS["map"].is_required and COLUMNS["map"].kind is Path
    assert COLUMNS["voxel_size"] == Column("voxel_size", float, ("--voxel-size",), False)
    assert COLUMNS["seed"].least == 0
    assert not {"out", "device", "threads", "overwrite", "debug"} & COLUMNS.keys()


class Shape(enum.Enum):
    ROUND = "round"


def test_columns_of_choices_and_switches():
    program = typer.Typer()

    @program.command()
    def command(
        hand: Annotated[Literal["given", "auto"], typer.Option()] = "given",
        shape: Annotated[Shape | None, typer.Option()] = None,
        keep: Annotated[bool, typer.Option("--keep/--drop")] = True,
        fast: Annotated[bool, typer.Option("--fast")] = False,
        many: Annotated[list[str] | None, typer.Option()] = None,
    ) -> None: ...

    columns = columns_of(typer.main.get_command(program), command)
    assert columns["hand"].choices == ("given", "auto") and columns["shape"].choices == (
        "round",
    )
    assert columns["hand"].complaint("left") == "is 'left', wants one of given, auto"
    assert columns["hand"].complaint("auto") is None
    assert columns["hand"].arguments("auto") == ["--hand", "auto"]
    assert columns["keep"].arguments("yes") == ["--keep"]
    assert columns["keep"].arguments("No") == ["--drop"]
    assert columns["fast"].arguments("true") == ["--fast"]
    assert columns["fast"].arguments("false") == []
    assert columns["fast"].complaint("perhaps") == "is 'perhaps', wants yes or no"
    assert "many" not in columns


def test_a_row_becomes_arguments(folder):
    (folder / "mask.mrc").write_bytes((folder / "tiny.mrc").read_bytes())
    (row,) = rows_of(
        folder,
        "voxel_size\tfasta\tmap\tname\tbundle\tmask\tkeep_stages",
        "1.05\ttiny.fasta\ttiny.mrc\tfirst\tnetworks\tmask.mrc\tno",
    )
    assert row.name == "first" and row.line == 2
    assert row.arguments[:2] == (str(folder / "tiny.mrc"), str(folder / "tiny.fasta"))
    assert row.arguments[2:] == (
        *("--bundle", str(folder / "networks"), "--mask", str(folder / "mask.mrc")),
        *("--voxel-size", "1.05", "--no-keep-stages"),
    )
    assert row.files == tuple(str(folder / n) for n in ("tiny.mrc", "tiny.fasta", "mask.mrc"))


def test_comments_blank_lines_and_spreadsheet_line_ends(folder):
    path = folder / "maps.tsv"
    path.write_bytes(
        b"\xef\xbb\xbf# maps of May\r\nmap\tfasta\tseed\r\n\r\n# the first\r\n"
        b"tiny.mrc\ttiny.fasta\t\r\n"
    )
    (row,) = read_rows(path, COLUMNS, map_name)
    assert (row.name, row.line) == ("tiny", 5)
    assert "--seed" not in row.arguments


def test_paths_are_relative_to_the_manifest(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    (folder / "maps.tsv").write_text("map\tfasta\ntiny.mrc\ttiny.fasta\n")
    (row,) = read_rows(Path("../maps.tsv"), COLUMNS, map_name)
    assert all(Path(file).is_absolute() and Path(file).is_file() for file in row.files)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("missing.mrc\ttiny.fasta\t\t", ["map", "missing.mrc", "does not exist"]),
        ("tiny.mrc\tmissing.fasta\t\t", ["fasta", "missing.fasta"]),
        ("\ttiny.fasta\t\t", ["map is empty"]),
        ("tiny.fasta\ttiny.mrc\t\t", ["tiny.fasta", "not an MRC"]),
        ("tiny.mrc\ttiny.mrc\t\t", ["tiny.mrc", "not a text file"]),
        ("tiny.mrc\ttiny.fasta\tbig\t", ["voxel_size is 'big', wants a number"]),
        ("tiny.mrc\ttiny.fasta\tnan\t", ["voxel_size"]),
        ("tiny.mrc\ttiny.fasta\t\t-1", ["seed is -1", "at least 0"]),
        ("tiny.mrc\ttiny.fasta\t\t1.5", ["seed is '1.5', wants a whole number"]),
        ("tiny.mrc\ttiny.fasta\t\t1\tx", ["5 cells", "4"]),
    ],
)
def test_a_wrong_row_is_named_by_its_line(folder, line, words):
    with pytest.raises(ManifestError, match=r"maps\.tsv, line 3: ") as caught:
        rows_of(folder, "map\tfasta\tvoxel_size\tseed", "tiny.mrc\ttiny.fasta", line)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_wrong_rows_are_counted(folder):
    with pytest.raises(ManifestError, match=r"line 2: .*\(2 more lines are wrong\)"):
        rows_of(folder, "map\tfasta", "a.mrc\ttiny.fasta", "tiny.mrc\tb", "c.mrc\ttiny.fasta")


@pytest.mark.parametrize(
    "name", ["../x", "a b", ".hidden", "-x", "batch", "Summary.tsv", "a/b"]
)
def test_names_that_cannot_name_a_folder(folder, name):
    with pytest.raises(ManifestError, match="line 2: the name"):
        rows_of(folder, "name\tmap\tfasta", f"{name}\ttiny.mrc\ttiny.fasta")


def test_names_are_taken_once_whatever_their_case(folder):
    with pytest.raises(ManifestError, match="line 3: the name TINY is taken by line 2"):
        rows_of(
            folder, "name\tmap\tfasta", "\ttiny.mrc\ttiny.fasta", "TINY\ttiny.mrc\ttiny.fasta"
        )


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([""], "empty"),
        (["map\tfasta"], "no rows"),
        (["map\tfasta\tmap", "a\tb\tc"], "column map twice"),
        (["map\tfasta\tmsk", "a\tb\tc"], "'msk'"),
        (["map fasta", "a b"], "tabs"),
        (["fasta", "tiny.fasta"], "no column map"),
        (["tiny.mrc\ttiny.fasta"], "'tiny.mrc'"),
    ],
)
def test_wrong_tables(folder, lines, words):
    with pytest.raises(ManifestError, match=words):
        rows_of(folder, *lines)


def test_a_manifest_that_is_no_text(folder):
    for name, words in (("tiny.mrc", "not a text file"), ("missing.tsv", "cannot be read")):
        with pytest.raises(ManifestError, match=words):
            read_rows(folder / name, COLUMNS, map_name)


def test_bundles_are_looked_for_unless_they_are_elsewhere(folder):
    lines = ["map\tfasta\tbundle", "tiny.mrc\ttiny.fasta\tin-the-image"]
    with pytest.raises(ManifestError, match=r"line 2: .*in-the-image"):
        rows_of(folder, *lines)
    (row,) = rows_of(folder, *lines, look_for_bundles=False)
    assert row.arguments[-2:] == ("--bundle", "in-the-image")


def test_fingerprints_follow_arguments_and_files(folder):
    table = ["map\tfasta\tseed", "tiny.mrc\ttiny.fasta\t1"]
    (row,) = rows_of(folder, *table)
    assert row.fingerprint() == rows_of(folder, *table)[0].fingerprint()
    (other,) = rows_of(folder, table[0], "tiny.mrc\ttiny.fasta\t2")
    assert other.fingerprint() != row.fingerprint()
    before = row.fingerprint()
    found = (folder / "tiny.fasta").stat()
    os.utime(folder / "tiny.fasta", ns=(found.st_atime_ns, found.st_mtime_ns + 10))
    assert row.fingerprint() != before
    (folder / "tiny.fasta").unlink()
    assert row.fingerprint() != before


def test_sequences_of_nucleic_acids_are_columns(folder):
    (folder / "dna.fasta").write_text(">d\nACGTACGT\n")
    (row,) = rows_of(folder, "map\tdna\tbundle", "tiny.mrc\tdna.fasta\tnetworks")
    at = row.arguments.index("--dna")
    assert row.arguments[at + 1] == str(folder / "dna.fasta")
    (folder / "dna.fasta").write_text(">d\nACQT\n")
    with pytest.raises(ManifestError, match="'Q' at line 2, column 3 is not a nucleotide"):
        rows_of(folder, "map\tdna", "tiny.mrc\tdna.fasta")
