"""Official ModelAngelo bundles as they are published: a folder, or a zip of one.

``config.json``; ``c_alpha/chkpt.torch``; ``gnn/chkpt_<step>.torch``, of which the highest step
counts; in older ones ``gnn/model.py``, which is read as text and never run.
"""

import ast
import hashlib
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from angelo.errors import OutputError
from angelo_export.foreign import load_foreign
from angelo_export.weights import CheckpointError

log = logging.getLogger(__name__)

#: MD5 of the published zips (Zenodo records 7733060 and 7942241), and where each is from.
PUBLISHED = {
    "7ff5832808020555eb6c82723a755866": ("original", "7733060"),
    "f37623da299dbde4e86f3160c726057a": ("original_no_seq", "7733060"),
    "d7d8b530adf6ed8771dec24cf628ec03": ("small_gpu", "7733060"),
    "ce568d75b24f8a4654f1fa2f7a89cb27": ("nucleotides", "7942241"),
    "4fcbeba1fe469943d51e5cbb492c072e": ("nucleotides_no_seq", "7942241"),
}
CALPHA_FILE = "c_alpha/chkpt.torch"
STEP_OF_CHECKPOINT = re.compile(r"gnn/chkpt_(\d+)\.torch")
#: Side of the density cube where ``gnn/model.py`` leaves it to the default of its time, and
#: where there is no such file (bundles whose definition ships with the program), voxels.
DEFAULT_CUBE_SIDE, PUBLISHED_CUBE_SIDE = 17, 23
#: What to give instead.
WANTED = "give the folder or zip of an official bundle, such as original.zip (docs/weights.md)"


@dataclass(frozen=True, slots=True)
class OfficialFiles:
    """An official bundle on disk."""

    name: str
    """Of the folder or zip."""
    calpha: Path
    graph: Path
    config: Mapping[str, Any]
    """Content of ``config.json``."""
    cube_side: int
    """Voxels along a density cube: the one size that no weight shows."""
    origin: Mapping[str, str]
    """What is known of the source: checksum, publication."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What ``config.json`` says of how the networks are used."""

    window: int
    margin: int
    stride: int
    threshold: float
    rounds: int
    crop_size: int
    repeats: int
    voxel_size: float
    """Of the density that the graph network sees, Å."""
    esm_model: str | None
    """Name of the language model, where there is one."""


def open_official(source: Path, scratch: Path) -> OfficialFiles:
    """Find the files of a bundle; those of a zip are unpacked into ``scratch``.

    Raises
    ------
    CheckpointError
        If the source is neither, is damaged, or lacks a file; one line that says which.
    OutputError
        If there is no room to unpack.
    """
    if source.is_dir():
        names = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        parts = _choose(source, names)
        return _described(source, {part: source / name for part, name in parts.items()}, {})
    if not source.is_file():
        raise CheckpointError(f"{source}: no such file or folder; {WANTED}")
    if not zipfile.is_zipfile(source):
        raise CheckpointError(f"{source}: neither a folder nor a zip; {WANTED}")
    try:
        with zipfile.ZipFile(source) as archive:
            parts = _choose(source, archive.namelist())
            paths = {part: _unpack(archive, name, scratch) for part, name in parts.items()}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise CheckpointError(f"{source}: damaged zip ({error}); fetch it again") from error
    return _described(source, paths, _origin(source))


def _choose(source: Path, names: list[str]) -> dict[str, str]:
    """Names of the parts of a bundle, relative to its source."""
    roots = [PurePosixPath(name).parent.parent for name in names if _ends(name, CALPHA_FILE)]
    if len(roots) != 1:
        how_many = f"{len(roots)} files" if roots else "no file"
        raise CheckpointError(f"{source}: holds {how_many} {CALPHA_FILE}; {WANTED}")
    inside = {name: _below(name, roots[0]) for name in names}
    steps = {
        name: int(match[1])
        for name, place in inside.items()
        if (match := STEP_OF_CHECKPOINT.fullmatch(place))
    }
    if not steps:
        raise CheckpointError(f"{source}: holds no file gnn/chkpt_<step>.torch; {WANTED}")
    chosen = {"graph": max(steps, key=lambda name: steps[name])}
    places = {place: name for name, place in inside.items()}
    for part, place in (("calpha", CALPHA_FILE), ("config", "config.json")):
        if place not in places:
            raise CheckpointError(f"{source}: holds no file {place}; {WANTED}")
        chosen[part] = places[place]
    if "gnn/model.py" in places:
        chosen["definition"] = places["gnn/model.py"]
    return chosen


def _ends(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f"/{ending}")


def _below(name: str, root: PurePosixPath) -> str:
    path = PurePosixPath(name)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else ""


def _unpack(archive: zipfile.ZipFile, name: str, scratch: Path) -> Path:
    """Unpack one member under a name of its own; nothing is written outside ``scratch``."""
    target = scratch / "-".join(PurePosixPath(name).parts[-2:]).replace("..", "")
    size, free = archive.getinfo(name).file_size, shutil.disk_usage(scratch).free
    if size > free:
        raise OutputError(
            f"{scratch}: {size / 1e9:.1f} GB are needed to unpack {name}, {free / 1e9:.1f} GB "
            "are free; free some space, or give another folder with -o"
        )
    with archive.open(name) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, 1 << 20)
    return target


def _origin(source: Path) -> dict[str, str]:
    """Checksum of a zip, and which publication it is; a warning if it is none."""
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "md5").hexdigest()
    facts = {"zip": source.name, "zip_md5": digest}
    if digest in PUBLISHED:
        name, record = PUBLISHED[digest]
        facts |= {"published_as": name, "zenodo_record": record}
    else:
        log.warning(
            "%s: MD5 %s is that of no published bundle; it is read as it is, if it fits",
            source,
            digest,
        )
    return facts


def _described(
    source: Path, paths: Mapping[str, Path], origin: dict[str, str]
) -> OfficialFiles:
    try:
        config = json.loads(paths["config"].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: config.json cannot be read ({error})") from error
    side = PUBLISHED_CUBE_SIDE
    if (path := paths.get("definition")) is not None:
        side = cube_side_of(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(config, dict):
        raise CheckpointError(f"{source}: config.json is not an object; {WANTED}")
    name = source.resolve().name.removesuffix(".zip")
    return OfficialFiles(
        name, paths["calpha"], paths["graph"], config, side, {"bundle": name, **origin}
    )


def cube_side_of(definition: str) -> int:
    """Side of the density cube in a network's definition, which is parsed and not run."""
    try:
        tree = ast.parse(definition)
    except SyntaxError:
        return DEFAULT_CUBE_SIDE
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "p_context":
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            if isinstance(value, int) and value > 0:
                return value
    return DEFAULT_CUBE_SIDE


def read_schedule(files: OfficialFiles) -> Schedule:
    """Schedule of a bundle; what ``config.json`` leaves out is as published.

    Raises
    ------
    CheckpointError
        If a value is not a positive number (a margin may be 0).
    """
    parts = {}
    for key in ("ca_infer_args", "gnn_infer_args"):
        parts[key] = files.config.get(key, {})
        if not isinstance(parts[key], dict):
            raise CheckpointError(f"{files.name}: {key} of config.json is not an object")

    def number(part: str, key: str, default: float, *, may_be_zero: bool = False) -> float:
        value = parts[part].get(key, default)
        is_number = type(value) in (int, float)
        if not is_number or not (value > 0 or (may_be_zero and value == 0)):
            raise CheckpointError(
                f"{files.name}: {part}.{key} of config.json is {value!r}, which is no positive "
                "number"
            )
        return float(value)

    calpha, graph = "ca_infer_args", "gnn_infer_args"
    esm_model = parts[graph].get("esm_model")
    return Schedule(
        window=int(number(calpha, "box_size", 64)),
        margin=int(number(calpha, "crop", 6, may_be_zero=True)),
        stride=int(number(calpha, "stride", 16)),
        threshold=number(calpha, "threshold", 0.05),
        rounds=int(number(graph, "num_rounds", 3)),
        crop_size=int(number(graph, "crop_length", 200)),
        repeats=int(number(graph, "repeat_per_residue", 3)),
        voxel_size=number(graph, "voxel_size", 1.0),
        esm_model=esm_model if isinstance(esm_model, str) else None,
    )


def load_state(path: Path) -> dict[str, Tensor]:
    """Parameters of an official checkpoint, in single precision; no code of it is run.

    Settings beside them are left alone. Weights are read when they are used.

    Raises
    ------
    CheckpointError
        If the file cannot be read, holds code or objects, or no parameters.
    """
    content = load_foreign(path)
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{path}: holds no parameters; {WANTED}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: entry {name!r} is not a parameter; {WANTED}")
    return {name: v.float() if v.is_floating_point() else v for name, v in state.items()}
