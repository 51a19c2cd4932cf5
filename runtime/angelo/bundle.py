"""Bundles: find them, list them, load one and check its files."""

import hashlib
import importlib.resources
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from angelo.errors import BundleError
from angelo.manifest import Bundle, FileRecord, read_manifest
from angelo.typed_json import ManifestValueError

__all__ = [
    "Bundle",
    "BundleListing",
    "bundle_folders",
    "find_bundle",
    "list_bundles",
    "load_bundle",
    "missing_folders",
]

MANIFEST = "bundle.json"
#: Folders that hold bundles, separated like PATH.
MODELS_VARIABLE = "ANGELO_MODELS"


@dataclass(frozen=True, slots=True)
class BundleListing:
    """One line of ``list_bundles``; a broken bundle has an error and little else."""

    name: str
    folder: Path
    version: str = ""
    licence: str = ""
    n_bytes: int = 0
    """Size of its files."""
    accuracy: Mapping[str, Any] | None = None
    """As measured; None for a broken bundle."""
    error: str | None = None
    """Why it cannot be used; None for a sound one."""
    is_hidden: bool = False
    """Whether an earlier folder has one of the same name: then only its folder finds this."""

    @property
    def row(self) -> tuple[str, str, str, str, str, str]:
        """Name, version, licence, size in MB, accuracy (or the error), folder for a table."""
        name = f"{self.name} (hidden)" if self.is_hidden else self.name
        if self.error is not None:
            return (name, "", "", "", self.error, str(self.folder))
        accuracy = _headline(self.accuracy) if self.accuracy else "not measured"
        size = f"{self.n_bytes / 1e6:.1f}"
        return (name, self.version, self.licence, size, accuracy, str(self.folder))

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.name} (unusable): {self.error}"
        size = f"{self.n_bytes / 1e6:.1f} MB"
        return f"{self.name} {self.version} ({self.licence}, {size}) in {self.folder}"


def _headline(accuracy: Mapping[str, Any]) -> str:
    """Sequence recall of the pruned model in each group of maps; else all there is."""
    recalls = {}
    for group, part in accuracy.items():
        pruned = part.get("pruned") if isinstance(part, Mapping) else None
        if isinstance(pruned, Mapping) and pruned.get("sequence_recall") is not None:
            recalls[group] = f"{group} {pruned['sequence_recall']:.0f} %"
    if not recalls:
        return json.dumps(accuracy)
    return "sequence recall: " + ", ".join(recalls.values())


def find_bundle(name_or_folder: str | Path) -> Path:
    """Folder of a bundle, given as a folder or by name.

    A name is looked for in the ``ANGELO_MODELS`` folders, then with the installed package,
    then in the checkout that the package runs from.

    Raises
    ------
    BundleError
        If there is none; says where it was looked for and what there is.
    """
    folder = _expanded(str(name_or_folder))
    if (folder / MANIFEST).is_file():
        return folder
    if len(folder.parts) != 1:
        raise BundleError(
            f"{folder}: no {MANIFEST} there; give the folder of a bundle or the name of one "
            f"of these: {_known_names()}"
        )
    for place in bundle_folders():
        if (place / folder / MANIFEST).is_file():
            return place / folder
    places = ", ".join(map(str, bundle_folders())) or "nowhere: there is no models folder"
    raise BundleError(
        f"bundle {str(folder)!r} not found (looked in {places}); bundles found: "
        f"{_known_names()}. Give a folder, or set {MODELS_VARIABLE} to where bundles lie"
    )


def bundle_folders() -> tuple[Path, ...]:
    """Existing folders in which bundles are looked for, in order."""
    places = _named_folders()
    places.append(Path(str(importlib.resources.files("angelo"))) / "models")
    package = Path(__file__).resolve().parent
    if package.parent.name == "runtime":  # a checkout, not an environment in one
        places.append(package.parents[1] / "models")
    return tuple(dict.fromkeys(place for place in places if place.is_dir()))


def missing_folders() -> tuple[Path, ...]:
    """Folders that ``ANGELO_MODELS`` names and that are not there."""
    return tuple(place for place in _named_folders() if not place.is_dir())


def _named_folders() -> list[Path]:
    """Return what ``ANGELO_MODELS`` names, there or not."""
    texts = os.environ.get(MODELS_VARIABLE, "").split(os.pathsep)
    return [_expanded(text) for text in texts if text]


def _expanded(text: str) -> Path:
    """Path with a leading ~ replaced, where there is a home folder to put there."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # a container may run as a user without one
        return Path(text)


def list_bundles() -> tuple[BundleListing, ...]:
    """Every bundle in ``bundle_folders``, broken ones with their error; checksums unread."""
    found = []
    for place in bundle_folders():
        for manifest in sorted(place.glob(f"*/{MANIFEST}")):
            folder = manifest.parent
            try:
                bundle = load_bundle(folder, verify=False)
            except BundleError as error:
                found.append(BundleListing(folder.name, folder, error=str(error)))
                continue
            size = sum(record.bytes for record in bundle.files.values())
            found.append(
                BundleListing(
                    folder.name, folder, bundle.version, bundle.licence, size, bundle.accuracy
                )
            )
    first = {listing.name: listing.folder for listing in reversed(found)}
    return tuple(
        replace(listing, is_hidden=first[listing.name] != listing.folder) for listing in found
    )


def load_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Read and check a bundle.

    Parameters
    ----------
    folder
        Where ``bundle.json`` lies (see ``find_bundle``).
    verify
        Compare every file with its checksum; if not, only its presence and size.

    Raises
    ------
    BundleError
        If anything departs from docs/bundle.md or a file is missing or damaged; one line that
        names the file and key and says what to do.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); give the folder of a bundle"
        ) from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); fetch the bundle again") from error
    try:
        bundle = read_manifest(folder, manifest)
    except ManifestValueError as error:
        raise BundleError(
            f"{path}: {error}; correct it, or fetch or export the bundle again"
        ) from error
    for name, record in bundle.files.items():
        _check_file(folder / name, record, verify)
    return bundle


def _known_names() -> str:
    names = dict.fromkeys(
        manifest.parent.name
        for place in bundle_folders()
        for manifest in sorted(place.glob(f"*/{MANIFEST}"))
    )
    return ", ".join(names) or "none"


def _check_file(path: Path, record: FileRecord, verify: bool) -> None:
    remedy = "fetch or export the bundle again"
    try:
        size = path.stat().st_size
        if size != record.bytes:
            raise BundleError(
                f"{path}: {size} bytes, but {MANIFEST} says {record.bytes}; {remedy}"
            )
        if verify:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != record.sha256:
                raise BundleError(
                    f"{path}: sha256 is {digest}, but {MANIFEST} says {record.sha256}; {remedy}"
                )
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error
