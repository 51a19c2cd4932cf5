"""What of a bundle is chosen rather than trained: ``settings.json`` beside the bundle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angelo.calpha import PointSettings
from angelo.errors import BundleError
from angelo.typed_json import ManifestValueError, read_value


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """Settings of a compact bundle; names as in docs/bundle.md."""

    name: str
    version: str
    licence: str
    citation: str
    made_by: Mapping[str, Any]
    """Free form: data and training runs."""
    points: PointSettings
    """How voxels become C-alphas."""
    chains: Mapping[str, float]
    """Which links are allowed."""
    rounds: int
    """Rounds of graph refinement."""
    min_existence: float
    """Residues that exist with a lower probability are not traced."""
    reads_sequences: bool
    """Show the sequences to the graph network too, not to the matching of chains alone."""
    half_precision_storage: bool
    """Store weights in half precision (see ``angelo_export.storage``)."""


def read_settings(path: Path) -> BundleSettings:
    """Read settings from a JSON file.

    Raises
    ------
    BundleError
        If it cannot be read, or a key is missing, unknown or wrong.
    """
    try:
        settings: BundleSettings = read_value(BundleSettings, read_json(path), "settings")
    except ManifestValueError as error:
        raise BundleError(f"{path}: {error}; correct it") from error
    return settings


def read_json(path: Path) -> Any:
    """Content of a JSON file. Raises BundleError if there is none or it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}); check the path"
        ) from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON ({error}); correct it") from error
