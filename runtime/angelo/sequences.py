"""FASTA in: clean sequences whose numbering never shifts without a word about it."""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from angelo.errors import SequenceError
from angelo.residues import NAMES_BY_KIND, UNKNOWN_BY_KIND, Kind
from angelo.types import SequenceRecord

#: What stands in for letters that are no standard amino acid: selenocysteine and pyrrolysine
#: are built as their parents; the others say that the residue is not known.
SUBSTITUTES = {"U": "C", "O": "K", "B": "X", "Z": "X", "J": "X", "X": "X"}
#: In nucleic acid T and U are the same base, and letters for one of several bases say nothing.
SEVERAL_BASES = dict.fromkeys("RYSWKMBDHVNXI", "N")
SUBSTITUTES_BY_KIND = {
    "protein": SUBSTITUTES,
    "dna": {"U": "T", **SEVERAL_BASES},
    "rna": {"T": "U", **SEVERAL_BASES},
}
#: A record is nucleic acid above this fraction of A, C, G, T, U and N ...
NUCLEOTIDE_FRACTION = 0.9
#: ... if it is at least this long; shorter records are taken at their word.
NUCLEOTIDE_MIN_LENGTH = 20
#: Letters of nucleic acid.
BASES = "ACGTUN"
#: Records shorter than this are kept, but cannot be found in a map.
SHORT_LENGTH = 3

#: First bytes of a gzip file.
GZIP_MAGIC = b"\x1f\x8b"

#: What a FASTA file holds.
FileKind = Literal["any", "protein", "dna", "rna"]


@dataclass(slots=True)
class _RawRecord:
    """One record as written: header, and letters with the line and column they came from."""

    header: str
    line: int
    letters: list[tuple[str, int, int]] = field(default_factory=list)


def read_fasta(path: Path) -> tuple[tuple[SequenceRecord, ...], tuple[str, ...]]:
    """Read protein sequences; see :func:`read_sequences`. Nucleic acids are skipped."""
    return read_sequences({"any": path}, builds_nucleotides=False)


def read_sequences(
    files: Mapping[FileKind, Path], *, builds_nucleotides: bool
) -> tuple[tuple[SequenceRecord, ...], tuple[str, ...]]:
    """Read sequences from FASTA files, plain or gzipped.

    Gaps ('-' and '.') and a final '*' are removed. In proteins U is read as C and O as K, and
    B, Z, J and an inner '*' become X; in nucleic acids T and U become what DNA or RNA has, and
    letters that stand for several bases N. Identical records are merged, repeated names are
    numbered, and empty records are skipped, nucleic acids too unless they can be built.

    Parameters
    ----------
    files
        By what they hold; a file of "any" is of proteins, DNA and RNA mixed.
    builds_nucleotides
        Whether nucleic acids are of use.

    Returns
    -------
    records
        Distinct sequences in the order of the files, proteins first.
    notes
        One line for a person for everything that was changed, named by record.

    Raises
    ------
    SequenceError
        If a file cannot be read, is not FASTA, holds a character that is no residue, or if
        nothing is left.
    """
    notes: list[str] = []
    kept: list[SequenceRecord] = []
    nucleic: list[str] = []
    for file_kind, path in files.items():
        for number, raw in enumerate(_split_records(path, _read_text(path)), start=1):
            name = _record_name(raw.header)
            if not name:
                name = f"sequence_{number}"
                notes.append(f"record {number} (line {raw.line}) has no name: called {name!r}")
            letters = _drop_gaps(raw, name, notes)
            kind = _kind_of(raw, letters) if file_kind == "any" else file_kind
            if not letters:
                notes.append(f"{name}: no residues (line {raw.line}); record skipped")
            elif kind != "protein" and not builds_nucleotides:
                nucleic.append(name)
                notes.append(f"{name}: nucleic acid, which this bundle does not build; skipped")
            else:
                if file_kind == "any" and builds_nucleotides:
                    notes += _doubts(name, kind, letters)
                residues = _substitute(path, name, kind, letters, notes)
                kept.append(SequenceRecord(name, residues, kind=kind))
    if not kept:
        raise SequenceError(_nothing_left(", ".join(map(str, files.values())), nucleic))
    kept.sort(key=lambda record: record.kind != "protein")
    records = _unique_names(_merge_identical(kept, notes), notes)
    notes += [
        f"{record.name}: only {len(record)} residues; too short to be placed in a map"
        for record in records
        if len(record) < SHORT_LENGTH
    ]
    return tuple(records), tuple(notes)


def _read_text(path: Path) -> str:
    """Whole file as text; gzip is known by its first bytes, not by the file's name."""
    try:
        content = path.read_bytes()
        if content.startswith(GZIP_MAGIC):
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SequenceError(f"{path}: damaged gzip file ({error}); copy it again") from None
    except OSError as error:
        raise SequenceError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SequenceError(
            f"{path}: not a text file (byte {error.start + 1}); "
            "give sequences as FASTA text, after the map (angelo MAP FASTA)"
        ) from None


def _split_records(path: Path, text: str) -> Iterator[_RawRecord]:
    """Yield records with their letters in place; comment lines and blanks are passed over."""
    if not text.strip():
        raise SequenceError(f"{path}: the file is empty; it needs at least one FASTA record")
    record: _RawRecord | None = None
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line.startswith(">"):
            if record is not None:
                yield record
            record = _RawRecord(line[1:].strip(), number)
        elif line.startswith(";") or not line.strip():
            continue
        elif record is None:
            raise SequenceError(
                f"{path}: line {number} comes before any '>' header; "
                "start each sequence with a line such as '>name'"
            )
        else:
            record.letters += [
                (letter, number, column)
                for column, letter in enumerate(line.upper(), start=1)
                if not letter.isspace()
            ]
    if record is None:
        raise SequenceError(f"{path}: no '>' header; start each sequence with '>name'")
    yield record


def _record_name(header: str) -> str:
    """First word of a header, without the '|Chains' that follows a PDB entity's name."""
    words = header.split(maxsplit=1)
    return re.sub(r"\|Chains?$", "", words[0]) if words else ""


def _drop_gaps(raw: _RawRecord, name: str, notes: list[str]) -> list[tuple[str, int, int]]:
    """Letters without gaps and without stops at the end."""
    letters = [entry for entry in raw.letters if entry[0] not in "-."]
    if n_gaps := len(raw.letters) - len(letters):
        notes.append(
            f"{name}: {n_gaps} gap characters removed; residues are numbered without them"
        )
    n_stops = 0
    while letters and letters[-1][0] == "*":
        letters.pop()
        n_stops += 1
    if n_stops:
        notes.append(f"{name}: '*' at the end removed")
    return letters


def is_nucleic(residues: str) -> bool:
    """Whether upper-case letters read as DNA or RNA."""
    n_bases = sum(map(residues.count, BASES))
    return len(residues) >= NUCLEOTIDE_MIN_LENGTH and n_bases > NUCLEOTIDE_FRACTION * len(
        residues
    )


def _kind_of(raw: _RawRecord, letters: list[tuple[str, int, int]]) -> Kind:
    """Protein, DNA or RNA: by the letters, and where these leave it open by the header."""
    residues = "".join(letter for letter, _, _ in letters)
    named = re.search(r"\b(DNA|RNA)\b", raw.header, re.IGNORECASE)
    is_short_nucleic = named is not None and set(residues) <= set(BASES)
    if not is_nucleic(residues) and not is_short_nucleic:
        return "protein"
    n_dna, n_rna = residues.count("T"), residues.count("U")
    if n_dna == n_rna:
        return "rna" if named is not None and named[1].upper() == "RNA" else "dna"
    return "dna" if n_dna > n_rna else "rna"


def _doubts(name: str, kind: Kind, letters: list[tuple[str, int, int]]) -> list[str]:
    """Tell what a person may have to put right about the kind of a record."""
    found = {letter for letter, _, _ in letters}
    if not found <= set(BASES):
        return []
    if kind == "protein":
        return [f"{name}: read as protein; if it is DNA or RNA, give it with --dna or --rna"]
    if not found & {"T", "U"}:
        return [f"{name}: read as {kind.upper()}; if that is wrong use --dna or --rna"]
    return []


def _substitute(
    path: Path, name: str, kind: Kind, letters: list[tuple[str, int, int]], notes: list[str]
) -> str:
    """Read each letter as one of the residues of the kind, or as unknown."""
    residues: list[str] = []
    changed: Counter[tuple[str, str]] = Counter()
    unknown, _ = UNKNOWN_BY_KIND[kind]
    for letter, line, column in letters:
        if letter in NAMES_BY_KIND[kind]:
            residues.append(letter)
            continue
        substitute = unknown if letter == "*" else SUBSTITUTES_BY_KIND[kind].get(letter)
        if substitute is None:
            what = "a residue" if kind == "protein" else f"a nucleotide of {kind.upper()}"
            raise SequenceError(
                f"{path}: record {name!r}: {letter!r} at line {line}, column {column} is not "
                f"{what}; remove it, or write {unknown} for an unknown residue"
            )
        residues.append(substitute)
        if substitute != letter:
            changed[letter, substitute] += 1
    notes += [
        f"{name}: {count} x {letter!r} read as {substitute}"
        for (letter, substitute), count in sorted(changed.items())
    ]
    return "".join(residues)


def _merge_identical(records: list[SequenceRecord], notes: list[str]) -> list[SequenceRecord]:
    """One record for each distinct sequence, under the first of its names."""
    merged: dict[tuple[str, str], SequenceRecord] = {}
    for record in records:
        key = record.kind, record.residues
        first = merged.setdefault(key, replace(record, copies=0))
        merged[key] = replace(first, copies=first.copies + 1)
        if first.copies:
            notes.append(
                f"{record.name}: same sequence as {first.name}; merged "
                f"(copy {first.copies + 1})"
            )
    return list(merged.values())


def _unique_names(records: list[SequenceRecord], notes: list[str]) -> list[SequenceRecord]:
    """Give the second and later records of one name a number: name_2, name_3."""
    taken = {record.name for record in records}
    seen: set[str] = set()
    unique: list[SequenceRecord] = []
    for record in records:
        name, suffix = record.name, 2
        if name in seen:
            while (name := f"{record.name}_{suffix}") in taken:
                suffix += 1
            notes.append(f"{record.name}: name already taken by another sequence; now {name}")
        taken.add(name)
        seen.add(name)
        unique.append(replace(record, name=name))
    return unique


def _nothing_left(paths: str, nucleic: list[str]) -> str:
    """Why files with records hold nothing to build."""
    if nucleic:
        return (
            f"{paths}: nothing but nucleic acid ({', '.join(nucleic[:3])}"
            f"{', ...' if len(nucleic) > 3 else ''}); this bundle builds protein, so give "
            "amino-acid sequences, or a bundle that knows nucleotides (--bundle)"
        )
    return f"{paths}: no record holds a residue; add the sequences below their '>' headers"
