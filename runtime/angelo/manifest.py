"""``bundle.json`` as frozen dataclasses: read, and checked for sense.

The contract is docs/bundle.md, format version 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from angelo.calpha import PointSettings
from angelo.confidence import ErrorCalibration
from angelo.density import MapSettings
from angelo.residues import NUCLEOTIDES
from angelo.trace import TraceSettings
from angelo.typed_json import expect_keys, keys_of, read_value, require
from angelo.window_plan import WindowSettings

FORMAT, FORMAT_VERSION = "angelo-bundle", 1
#: Channel of the C-alpha network that finds nucleotides.
PHOSPHORUS = "phosphorus"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What a file of the bundle must be."""

    sha256: str
    """Hexadecimal, lower case."""
    bytes: int
    """Size."""


@dataclass(frozen=True, slots=True)
class CAlphaNetwork:
    """The C-alpha network and how it is applied."""

    graph: str
    """ONNX file: ``windows`` (b, c, D, D, D) to ``logits`` (b, K, d, d, d)."""
    voxel_size: float
    """Nominal voxel edge, Å."""
    windows: WindowSettings
    """Channels and geometry."""
    points: PointSettings
    """How voxels become C-alphas."""


@dataclass(frozen=True, slots=True)
class LanguageNetwork:
    """The sequence embedder and its alphabet."""

    graph: str
    """ONNX file: ``tokens`` (1, l) to ``embedding`` (1, l, e)."""
    tokens: dict[str, int]
    """Token of each one-letter code."""
    begin: int | None
    """Token before a sequence, if any."""
    end: int | None
    """Token after a sequence, if any."""
    unknown: int
    """Token of any other letter."""
    max_length: int
    """Longest run of residues in one call, special tokens not counted."""
    overlap: int
    """Residues that neighbouring windows of a longer chain share at least."""


@dataclass(frozen=True, slots=True)
class CubeSettings:
    """Density cube of a residue."""

    side: int
    """Points along an edge."""
    spacing: float
    """Distance between points, Å."""


@dataclass(frozen=True, slots=True)
class RectangleSettings:
    """Density box of an edge of the graph."""

    length: int
    """Points along the edge."""
    side: int
    """Points across it."""
    spacing: float
    """Distance between points across, Å."""
    method: Literal["axis", "modelangelo"]
    """Which sampler, see ``angelo.sampling``."""


@dataclass(frozen=True, slots=True)
class CropSettings:
    """Refinement in overlapping crops instead of in one piece."""

    size: int
    """Residues in a crop: those nearest to its centre."""
    keep: int
    """Residues whose results are kept: those nearest of all."""
    repeats: int
    """Results that every residue gets at least."""


@dataclass(frozen=True, slots=True)
class GnnNetwork:
    """The graph network and its loop."""

    start: str | None
    """ONNX file: ``start_features`` (r, f) to ``features`` (r, h); None: zeros."""
    start_features: tuple[Literal["aa_logits", "probability", "is_protein"], ...]
    """Fields of ``Calphas``, concatenated in this order; ``is_protein`` as 1 or 0."""
    sequence: str | None
    """ONNX file: ``embedding`` (l, e) to ``keys`` and ``values`` (layers, l, heads, c)."""
    layers: tuple[str, ...]
    """ONNX files, in the order in which they run."""
    heads: str
    """ONNX file: ``features`` (r, h) to ``torsions`` (r, s, 2)."""
    hidden: int
    """Width h of the features."""
    neighbours: int
    """Neighbours k of every residue."""
    cube: CubeSettings
    rectangle: RectangleSettings
    frames: Literal["alphafold", "modelangelo"]
    """Whether ``shifts`` are displacements from the ideal backbone, or places of the atoms."""
    start_frames: Literal["predicted", "random", "modelangelo"]
    """Frames before the first layer; see ``angelo.refine``."""
    iterations: int
    """Passes through all layers in one round."""
    rounds: int
    """Rounds, each from the C-alphas of the one before."""
    crop: CropSettings | None
    """None: all residues in one piece."""
    min_existence: float
    """Residues that exist with a lower probability are not traced."""
    error_calibration: ErrorCalibration | None = None
    """What the predicted errors mean; None: they are taken at their word."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated ``bundle.json`` and the folder it lies in."""

    folder: Path
    name: str
    version: str
    licence: str
    citation: str
    made_by: Mapping[str, Any]
    """Free form: training run or imported checkpoint."""
    accuracy: Mapping[str, Any]
    """Free form: measured."""
    parity: Mapping[str, Any]
    """Worst |torch - ONNX| of each graph, relative to the array's scale."""
    files: Mapping[str, FileRecord]
    """Every ONNX file by name."""
    residue_types: tuple[str, ...]
    """Three-letter codes: the columns of every amino-acid output."""
    map: MapSettings
    c_alpha: CAlphaNetwork
    language: LanguageNetwork | None
    """None: the graph network takes no sequence."""
    gnn: GnnNetwork
    chains: TraceSettings

    @property
    def builds_nucleotides(self) -> bool:
        """Whether the networks find phosphorus and know nucleotides.

        Nucleotides start without predicted directions and types, so the graph network must
        not want these.
        """
        wants_more = self.gnn.start_frames == "predicted" or (
            "aa_logits" in self.gnn.start_features
        )
        is_known = set(NUCLEOTIDES) <= set(self.residue_types)
        return is_known and PHOSPHORUS in self.c_alpha.windows.channels and not wants_more


def read_manifest(folder: Path, manifest: Any) -> Bundle:
    """Bundle in ``folder`` from the content of its manifest.

    Raises
    ------
    ManifestValueError
        If anything departs from docs/bundle.md; the message starts with the key.
    """
    _require_format(manifest)
    content = {key: manifest[key] for key in manifest.keys() - {"format", "format_version"}}
    hints = {key: kind for key, kind in get_type_hints(Bundle).items() if key != "folder"}
    expect_keys(content, list(hints), "")
    expect_keys(content["chains"], ["min_next_probability", "max_bond"], "chains")
    plain = hints.keys() - {"c_alpha", "chains"}
    sections = {key: read_value(hints[key], content[key], key) for key in plain}
    # Tracing needs the existence threshold too, which the manifest keeps with the network.
    chains = {**content["chains"], "min_existence": sections["gnn"].min_existence}
    bundle = Bundle(
        folder=folder,
        c_alpha=_read_c_alpha(content["c_alpha"]),
        chains=read_value(TraceSettings, chains, "chains"),
        **sections,
    )
    _require_consistency(bundle)
    return bundle


def _require_format(manifest: Any) -> None:
    require(isinstance(manifest, dict), "", "is not an object")
    require(manifest.get("format") == FORMAT, "format", f"is not {FORMAT!r}")
    version = manifest.get("format_version")
    require(
        version == FORMAT_VERSION,
        "format_version",
        f"is {version!r}, but this angelo reads {FORMAT_VERSION}: use a matching angelo",
    )


def _read_c_alpha(value: Any) -> CAlphaNetwork:
    """Section ``c_alpha``; the keys of ``WindowSettings`` lie beside the others."""
    window_keys = keys_of(WindowSettings, value)
    expect_keys(value, ["graph", "voxel_size", "points", *window_keys], "c_alpha")
    return CAlphaNetwork(
        graph=read_value(str, value["graph"], "c_alpha.graph"),
        voxel_size=read_value(float, value["voxel_size"], "c_alpha.voxel_size"),
        windows=read_value(WindowSettings, {key: value[key] for key in window_keys}, "c_alpha"),
        points=read_value(PointSettings, value["points"], "c_alpha.points"),
    )


def _require_consistency(bundle: Bundle) -> None:
    """Values that are of the right type but make no sense, alone or together."""
    _require_files(bundle)
    _require_c_alpha(bundle)
    _require_language(bundle)
    _require_gnn(bundle.gnn)
    require(bundle.map.voxel_size > 0, "map.voxel_size", "is not positive")
    types = bundle.residue_types
    require(0 < len(types) == len(set(types)), "residue_types", "is empty or repeats a type")


def _require_files(bundle: Bundle) -> None:
    for name in bundle.files:
        plain = Path(name).name == name and name not in ("", ".", "..") and "\\" not in name
        require(plain, f"files.{name}", "is not a plain file name")
    for key, name in _graphs(bundle):
        require(name in bundle.files, key, f"names {name!r}, which is not among files")


def _graphs(bundle: Bundle) -> Iterator[tuple[str, str]]:
    yield "c_alpha.graph", bundle.c_alpha.graph
    if bundle.language is not None:
        yield "language.graph", bundle.language.graph
    if bundle.gnn.start is not None:
        yield "gnn.start", bundle.gnn.start
    if bundle.gnn.sequence is not None:
        yield "gnn.sequence", bundle.gnn.sequence
    for i, name in enumerate(bundle.gnn.layers):
        yield f"gnn.layers[{i}]", name
    yield "gnn.heads", bundle.gnn.heads


def _require_c_alpha(bundle: Bundle) -> None:
    channels = bundle.c_alpha.windows.channels
    require(bundle.c_alpha.voxel_size > 0, "c_alpha.voxel_size", "is not positive")
    wanted: list[str] = []
    if bundle.gnn.start_frames == "predicted":
        wanted += [f"{atom}_{axis}" for atom in "nc" for axis in "xyz"]
    if "aa_logits" in bundle.gnn.start_features:
        wanted += [f"aa_{name}" for name in bundle.residue_types]
    lacking = [name for name in wanted if name not in channels]
    require(not lacking, "c_alpha.channels", f"lacks {', '.join(lacking)}, which gnn wants")


def _require_language(bundle: Bundle) -> None:
    language = bundle.language
    require(
        (language is None) == (bundle.gnn.sequence is None),
        "gnn.sequence",
        "must be null where language is null, and nowhere else",
    )
    if language is not None:
        single = all(len(letter) == 1 for letter in language.tokens)
        require(single and len(language.tokens) > 0, "language.tokens", "wants single letters")
        require(
            0 <= language.overlap < language.max_length,
            "language.overlap",
            "is not in [0, max_length)",
        )


def _require_gnn(gnn: GnnNetwork) -> None:
    for key in ("hidden", "neighbours", "iterations", "rounds"):
        require(getattr(gnn, key) > 0, f"gnn.{key}", "is not positive")
    box, cube = gnn.rectangle, gnn.cube
    require(cube.side > 0 and cube.spacing > 0, "gnn.cube", "has a size that is not positive")
    require(
        box.length > 1 and box.side > 0 and box.spacing > 0,
        "gnn.rectangle",
        "has a size that is not positive (length: not over 1)",
    )
    require(len(gnn.layers) > 0, "gnn.layers", "is empty")
    require(
        gnn.start is not None or len(gnn.start_features) == 0,
        "gnn.start_features",
        "must be empty where start is null",
    )
    require(0 <= gnn.min_existence <= 1, "gnn.min_existence", "is not in [0, 1]")
    if gnn.crop is not None:
        fits = 0 < gnn.crop.keep <= gnn.crop.size and gnn.crop.repeats > 0
        require(fits, "gnn.crop", "wants 0 < keep <= size and repeats > 0")
