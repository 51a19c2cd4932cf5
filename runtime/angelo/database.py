"""A FASTA database of any size, read in blocks."""

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from angelo.errors import SequenceError
from angelo.residues import AMINO_ACID_CODES
from angelo.sequences import GZIP_MAGIC, SUBSTITUTES, is_nucleic

#: A block ends when it has this many residues or sequences; bounds memory.
BLOCK_RESIDUES, BLOCK_SEQUENCES = 8_000_000, 40_000
#: HMMER searches no longer sequences.
MAX_LENGTH = 100_000

_LETTERS = frozenset((*AMINO_ACID_CODES, *SUBSTITUTES, *"*-."))
_NO_GAPS = str.maketrans("", "", "-.")


@dataclass(frozen=True, slots=True)
class Target:
    """One sequence of a database."""

    name: str
    """First word of its header."""
    description: str
    """The rest of the header."""
    residues: str
    """Upper-case letters, also those that stand for no single amino acid."""


@dataclass(slots=True)
class Database:
    """A FASTA file, plain or gzipped, and what has been read of it."""

    path: Path
    n_sequences: int = 0
    """Proteins read."""
    n_residues: int = 0
    """Residues in them."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Records left out, by the reason."""
    n_bytes: int = 0
    """Size of the file."""
    bytes_read: int = 0
    """Bytes of the file read (of the compressed file, if it is one)."""

    def blocks(self) -> Iterator[tuple[Target, ...]]:
        """Yield all proteins, a bounded number at a time.

        Gaps and a final '*' are removed, an inner '*' becomes X. Nucleic acids, empty records
        and those of more than 100,000 residues are left out and counted.

        Raises
        ------
        SequenceError
            When reading comes to the fault: the file cannot be read, is not FASTA, or holds a
            character that is no residue; at the end, if there was no protein.
        """
        try:
            self.n_bytes = self.path.stat().st_size
            with self.path.open("rb") as source:
                packed = source.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC)
                content = gzip.GzipFile(fileobj=source) if packed else source
                lines = io.TextIOWrapper(content, encoding="utf-8-sig", errors="replace")
                for block in _in_blocks(self._targets(lines)):
                    self.n_sequences += len(block)
                    self.n_residues += sum(len(target.residues) for target in block)
                    self.bytes_read = source.tell()
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise SequenceError(
                f"{self.path}: damaged gzip file ({error}); copy it again"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise SequenceError(f"{self.path}: cannot be read ({reason})") from None
        if not self.n_sequences:
            raise SequenceError(
                f"{self.path}: holds no protein to search"
                + "".join(f"; {n} left out, {why}" for why, n in self.skipped.items())
            )

    def _targets(self, lines: io.TextIOWrapper) -> Iterator[Target]:
        """Yield the proteins among the records."""
        header: str | None = None
        parts: list[str] = []
        for number, line in enumerate(lines, start=1):
            if line.startswith(">"):
                yield from self._proteins(header, parts)
                header, parts = line[1:].strip(), []
            elif line.startswith(";") or line.isspace():
                continue
            elif header is None:
                raise SequenceError(
                    f"{self.path}: line {number} comes before any '>' header; the database has "
                    "to be a FASTA file, plain or gzipped"
                )
            else:
                letters = "".join(line.upper().split())
                if not _LETTERS.issuperset(letters):
                    raise self._bad_letter(header, number, line)
                parts.append(letters)
        if header is None:
            raise SequenceError(f"{self.path}: the file is empty; give a FASTA database")
        yield from self._proteins(header, parts)

    def _proteins(self, header: str | None, parts: list[str]) -> Iterator[Target]:
        """Yield the record if it is a protein that can be searched, else count it."""
        if header is None:
            return
        residues = "".join(parts).translate(_NO_GAPS).rstrip("*").replace("*", "X")
        if not residues:
            self.skipped["no residues"] += 1
        elif len(residues) > MAX_LENGTH:
            self.skipped[f"over {MAX_LENGTH:,} residues"] += 1
        elif is_nucleic(residues):
            self.skipped["nucleic acid"] += 1
        else:
            name, _, description = header.partition(" ")
            yield Target(name or "unnamed", description.strip(), residues)

    def _bad_letter(self, header: str, number: int, line: str) -> SequenceError:
        at = next(i for i, c in enumerate(line) if c.upper() not in _LETTERS and c.strip())
        return SequenceError(
            f"{self.path}: record {header[:60]!r}: {line[at]!r} at line {number}, column "
            f"{at + 1} is not a residue; remove it, or write X for an unknown residue"
        )


def _in_blocks(targets: Iterator[Target]) -> Iterator[tuple[Target, ...]]:
    block: list[Target] = []
    n_residues = 0
    for target in targets:
        block.append(target)
        n_residues += len(target.residues)
        if n_residues >= BLOCK_RESIDUES or len(block) >= BLOCK_SEQUENCES:
            yield tuple(block)
            block, n_residues = [], 0
    if block:
        yield tuple(block)
