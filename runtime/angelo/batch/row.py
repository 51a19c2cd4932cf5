"""One row of a manifest, as tasks and summaries know it; loads nothing that reads maps."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from angelo.errors import UserError


class ManifestError(UserError):
    """The manifest of a batch cannot be used."""


@dataclass(frozen=True, slots=True)
class Row:
    """One map to build into."""

    name: str
    """Folder of the run, within that of the batch."""
    line: int
    """Line of the manifest, from 1."""
    arguments: tuple[str, ...]
    """Arguments of ``angelo build`` that are this row's own; paths are absolute."""
    files: tuple[str, ...]
    """Files that it reads, the map first."""

    def fingerprint(self) -> str:
        """Checksum of the arguments and of size and date of the files; cheap, unlike theirs."""
        dates = []
        for file in self.files:
            try:
                found = Path(file).stat()
                dates.append((found.st_size, found.st_mtime_ns))
            except OSError:
                dates.append((-1, -1))
        text = json.dumps([self.arguments, self.files, dates])
        return hashlib.sha256(text.encode()).hexdigest()
