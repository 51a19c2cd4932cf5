"""The manifest of a batch: one map a row, every row checked before anything starts."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from angelo.batch.columns import Column
from angelo.batch.row import ManifestError, Row
from angelo.bundle import MANIFEST, find_bundle
from angelo.errors import UserError
from angelo.mrc import check_map_file
from angelo.sequences import FileKind, read_sequences

#: What the name of a row may look like: it names a folder.
ROW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
#: Names in the output folder that are the batch's own.
OWN_NAMES = ("batch", "summary.tsv", "summary.json", "summary.html")
#: The column that names the rows; it may be left out.
NAME = "name"
#: Columns of sequences, and what their files hold.
SEQUENCE_COLUMNS: dict[str, FileKind] = {"fasta": "any", "dna": "dna", "rna": "rna"}


def read_rows(
    path: Path,
    columns: Mapping[str, Column],
    name_of: Callable[[Path], str],
    *,
    look_for_bundles: bool = True,
) -> tuple[Row, ...]:
    """Read a manifest: tab-separated, a header line, ``#`` lines and empty ones passed over.

    Parameters
    ----------
    path
        The manifest; paths in it are relative to its folder.
    columns
        The columns there may be besides ``name``.
    name_of
        Names a row after its map where the manifest does not.
    look_for_bundles
        Whether named bundles must be found on this machine.

    Raises
    ------
    ManifestError
        For the first thing that is wrong, with its line; says how many more lines are wrong.
    """
    lines = _table(path)
    if not lines:
        raise ManifestError(f"{path}: empty; it needs a header line such as: map<TAB>fasta")
    (_, header), *body = lines
    _check_header(path, header, columns)
    rows, complaints = [], []
    taken: dict[str, int] = {}
    for line, cells in body:
        try:
            values = _values(header, cells, columns)
            row = _row(line, values, path.parent, columns, name_of, look_for_bundles)
            if (first := taken.setdefault(row.name.lower(), line)) != line:
                raise ManifestError(f"the name {row.name} is taken by line {first}")
            rows.append(row)
        except UserError as error:
            complaints.append(f"{path}, line {line}: {error}")
    if complaints:
        more = len(complaints) - 1
        also = f" ({more} more line{'s are' if more > 1 else ' is'} wrong)" if more else ""
        raise ManifestError(f"{complaints[0]}{also}. Nothing was started")
    if not rows:
        raise ManifestError(f"{path}: no rows below the header line")
    return tuple(rows)


def _table(path: Path) -> list[tuple[int, list[str]]]:
    """Lines that say something, with their numbers, cells stripped of blanks."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path}: not a text file; give a tab-separated table") from None
    reader = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    return [(n, cells) for n, cells in lines if any(cells) and not cells[0].startswith("#")]


def _check_header(path: Path, header: list[str], columns: Mapping[str, Column]) -> None:
    known = [NAME, *columns]
    for cell in header:
        if cell not in known:
            tabs = "" if len(header) > 1 else " (are the columns separated by tabs?)"
            raise ManifestError(
                f"{path}: the header line names a column {cell!r}{tabs}; columns are "
                f"{', '.join(known)}"
            )
        if header.count(cell) > 1:
            raise ManifestError(f"{path}: the header line names the column {cell} twice")
    for column in columns.values():
        if column.is_required and column.name not in header:
            raise ManifestError(
                f"{path}: no column {column.name}; the first line must be a header line that "
                "names the columns"
            )


def _values(
    header: list[str], cells: list[str], columns: Mapping[str, Column]
) -> dict[str, str]:
    """Cells by column, empty ones left out."""
    if len(cells) > len(header):
        raise ManifestError(f"{len(cells)} cells, but the header line has {len(header)}")
    values = {name: cell for name, cell in zip(header, cells, strict=False) if cell}
    for column in columns.values():
        if column.is_required and column.name not in values:
            raise ManifestError(f"{column.name} is empty")
    return values


def _row(
    line: int,
    values: dict[str, str],
    folder: Path,
    columns: Mapping[str, Column],
    name_of: Callable[[Path], str],
    look_for_bundles: bool,
) -> Row:
    words: list[str] = []
    files: list[str] = []
    for column in columns.values():
        text = values.get(column.name)
        if text is None:
            continue
        if (complaint := column.complaint(text)) is not None:
            raise ManifestError(f"{column.name} {complaint}")
        if column.kind is Path:
            text = str(_file(folder, column.name, text))
            files.append(text)
        elif column.name == "bundle":
            text = _bundle(folder, text, look_for_bundles)
        words += column.arguments(text)
    name = values.get(NAME) or name_of(Path(values["map"]))
    if not ROW_NAME.fullmatch(name) or name.lower() in OWN_NAMES:
        raise ManifestError(
            f"the name {name!r} cannot name a folder here; give another in the column {NAME} "
            "(letters, digits, . _ + -, a letter or digit first)"
        )
    return Row(name, line, tuple(words), tuple(files))


def _file(folder: Path, column: str, text: str) -> Path:
    """Absolute path of a file that is there and begins as it should."""
    path = (folder / Path(text).expanduser()).absolute()
    if not path.is_file():
        raise ManifestError(f"{column} {path} does not exist")
    if column in SEQUENCE_COLUMNS:
        # Whether the bundle builds nucleotides shows when it is opened.
        read_sequences({SEQUENCE_COLUMNS[column]: path}, builds_nucleotides=True)
    else:
        check_map_file(path)
    return path


def _bundle(folder: Path, text: str, look_for_bundles: bool) -> str:
    """Folder of a bundle given by one, relative to the manifest; else its name."""
    beside = folder / Path(text).expanduser()
    if (beside / MANIFEST).is_file():
        return str(beside.absolute())
    if look_for_bundles:
        find_bundle(text)
    return text
