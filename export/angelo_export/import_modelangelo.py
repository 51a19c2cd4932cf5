"""An official ModelAngelo bundle -> a bundle of this program: traced, compared, described.

What is finished is kept beside the target, so that a stopped import goes on where it was.
"""

import gc
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from angelo.bundle import MANIFEST, load_bundle
from angelo.errors import OutputError
from angelo.run_folder import sha256_of_file
from angelo_export.modelangelo_files import (
    OfficialFiles,
    Schedule,
    load_state,
    open_official,
    read_schedule,
)
from angelo_export.modelangelo_graphs import Piece, calpha_piece, graph_pieces
from angelo_export.modelangelo_manifest import CARD, manifest_of, versions
from angelo_export.modelangelo_networks import calpha_network, graph_network
from angelo_export.modelangelo_parity import write_compared
from angelo_export.networks.c_alpha import CalphaNetwork
from angelo_export.networks.gnn import GraphNetwork
from angelo_export.weights import CheckpointError, write_whole

log = logging.getLogger(__name__)

#: Told of a file that is about to be written, of how many come before it, and of all.
Progress = Callable[[str, int, int], None]
#: The embedder's file, and what it stands for in the record.
EMBEDDER = "embedder.onnx"
#: What an import has finished, in its working folder.
RECORD = "import.json"
#: What progress says of a file that an earlier run of the same command wrote.
FINISHED = ", finished before"
#: Model card.
CARD_FILE = "README.md"
#: Room on the disk beyond the weights: graphs, and one file that is written twice.
SPARE_BYTES, SPARE_FACTOR = 100_000_000, 1.3


@dataclass(frozen=True, slots=True)
class OfficialNetworks:
    """What an official bundle holds, loaded (mapped into memory, read when used)."""

    files: OfficialFiles
    schedule: Schedule
    calpha: CalphaNetwork
    graph: GraphNetwork

    @property
    def n_bytes(self) -> int:
        """Size of all parameters in single precision."""
        networks = (self.calpha, self.graph)
        return sum(4 * p.numel() for network in networks for p in network.parameters())

    def pieces(self) -> Iterator[Piece]:
        """Graphs to be written."""
        yield calpha_piece(self.calpha, self.schedule.window)
        yield from graph_pieces(self.graph)


def import_modelangelo(
    source: Path,
    out: Path,
    esm: Path | None = None,
    *,
    half: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a bundle folder from an official bundle.

    Every size is read off the weights. Each graph is compared with torch before it is kept,
    and the folder appears when all of it is there. The same files give the same bytes.

    Parameters
    ----------
    source
        Folder or zip of an official bundle.
    out
        Folder to make; its name becomes the bundle's.
    esm
        fair-esm checkpoint, for a bundle that uses sequences.
    half
        Store weights in half precision; the loss is measured, and a graph that would lose
        much is left alone.

    Returns
    -------
    dict
        The manifest.

    Raises
    ------
    CheckpointError
        If the source is not a whole official bundle, or the language model does not fit.
    OutputError
        If ``out`` exists, or the disk has too little room.
    BundleError
        If a graph departs from torch.
    """
    if out.exists():
        raise OutputError(f"{out}: exists already; delete it, or give another folder with -o")
    work = out.with_name(f"{out.name}.unfinished")
    unpacked = work / "source"
    try:
        unpacked.mkdir(parents=True, exist_ok=True)
        manifest = _write(work, load_official(source, unpacked), out.name, esm, half, progress)
        _remove_all_but(work, {*manifest["files"], MANIFEST, CARD_FILE})
        work.rename(out)
    except OSError as error:
        raise OutputError(
            f"{work}: cannot be written ({error.strerror or error}); check that folder and "
            "the room on its disk, or give another one with -o. The same command goes on "
            "behind the last finished file"
        ) from error
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
    return manifest


def load_official(source: Path, scratch: Path) -> OfficialNetworks:
    """Both networks of a bundle; a zip is unpacked into ``scratch``. Raises CheckpointError."""
    files = open_official(source, scratch)
    return OfficialNetworks(
        files,
        read_schedule(files),
        calpha_network(files.calpha, load_state(files.calpha)),
        graph_network(files.graph, load_state(files.graph), files.cube_side),
    )


def _write(
    work: Path,
    networks: OfficialNetworks,
    name: str,
    esm: Path | None,
    half: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    """Write everything into the working folder; returns the manifest."""
    files, config = networks.files, networks.graph.config
    n_bytes = networks.n_bytes
    n_bytes += require_language(files, networks.schedule, config.sequence, esm)
    facts = {
        "half_precision": half,
        "checkpoints": {
            "c_alpha": sha256_of_file(files.calpha),
            "gnn": sha256_of_file(files.graph),
            **({} if esm is None else {esm.name: sha256_of_file(esm)}),
        },
    }
    record = Record(work, {**facts, "cube_side": files.cube_side, "versions": versions()})
    _require_room(work, n_bytes // (2 if half else 1), record.n_bytes)
    pieces = list(networks.pieces())
    n_files = len(pieces) + (esm is not None)

    def must_write(name: str, done: int) -> bool:
        """Whether a file is still to be written; tells of it either way."""
        is_done = name in record.pieces
        if progress is not None:
            progress(f"{name}{FINISHED if is_done else ''}", done, n_files)
        return not is_done

    for i, piece in enumerate(pieces):
        if must_write(piece.name, i):
            record.add(piece.name, write_compared(piece, work, half=half))
            gc.collect()  # the exporter leaves cycles that hold a layer's weights
    if esm is not None and must_write(EMBEDDER, len(pieces)):
        record.add(EMBEDDER, _write_embedder(esm, work, half))
    manifest = manifest_of(
        name, files, networks.schedule, networks.calpha.config, config, facts, record.pieces
    )
    text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    write_whole(work / MANIFEST, text.encode())
    load_bundle(work)
    card = CARD.format(source=files.name, **manifest)
    write_whole(work / CARD_FILE, card.encode())
    return manifest


def require_language(
    files: OfficialFiles, schedule: Schedule, width: int | None, esm: Path | None
) -> int:
    """Require a language model of the right width, or none where none is used.

    Returns the size of its embedder in single precision, bytes.

    Raises
    ------
    CheckpointError
        If it is missing, of another width, or not wanted.
    """
    if width is None:
        if esm is not None:
            raise CheckpointError(f"{files.name} uses no sequences; leave --esm out")
        return 0
    wanted = schedule.esm_model or "esm1b_t33_650M_UR50S"
    if esm is None:
        raise CheckpointError(
            f"{files.name} uses sequence embeddings of width {width}: give --esm {wanted}.pt "
            "(docs/weights.md says where it is), or import a bundle without sequences"
        )
    from angelo_export.esm_files import read_esm

    network = read_esm(esm)
    if (found := network.config.width) != width:
        raise CheckpointError(
            f"{esm}: embeddings of width {found}, but {files.name} wants {width}; give "
            f"{wanted}.pt"
        )
    if esm.stem != wanted:
        log.warning("%s was trained on embeddings of %s, not %s", files.name, wanted, esm.stem)
    return sum(4 * value.numel() for value in network.state_dict().values())


def _write_embedder(esm: Path, work: Path, half: bool) -> dict[str, Any]:
    from angelo_export.esm_checkpoints import CITATIONS, export_esm

    export = export_esm(esm, work, half=half)
    facts = {
        "parity": export.parity[EMBEDDER],
        "language": export.language,
        "citation": CITATIONS[export.positions],
    }
    if (lost := export.parity.get("half_precision_storage")) is not None:
        facts["half"] = lost
    return facts


def _remove_all_but(folder: Path, kept: Collection[str]) -> None:
    """Remove the record, unpacked files, and what a killed process left."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def _require_room(work: Path, n_bytes: int, n_done: int) -> None:
    """Raise OutputError if the disk cannot hold what is still to be written."""
    needed = SPARE_BYTES + SPARE_FACTOR * max(0, n_bytes - n_done)
    free = shutil.disk_usage(work).free
    if needed > free:
        raise OutputError(
            f"{work}: the import needs {needed / 1e9:.1f} GB here, {free / 1e9:.1f} GB are "
            "free; free some space, or give another folder with -o"
        )


class Record:
    """What is finished in a working folder; files of other sources are removed."""

    pieces: dict[str, dict[str, Any]]
    """By graph: its ``files`` and what is known of it."""

    def __init__(self, work: Path, key: Mapping[str, Any]) -> None:
        self._work, self._key = work, json.loads(json.dumps(key))
        self.pieces = {}
        try:
            content = json.loads((work / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        if content.get("key") == self._key:
            self.pieces = {
                name: piece
                for name, piece in content["pieces"].items()
                if all(self._is_whole(file, what) for file, what in piece["files"].items())
            }
        kept = {file for piece in self.pieces.values() for file in piece["files"]}
        for path in work.glob("*.onnx*"):
            if path.name not in kept:
                path.unlink()

    @property
    def n_bytes(self) -> int:
        """Size of the finished files."""
        files = [what for piece in self.pieces.values() for what in piece["files"].values()]
        return sum(int(what["bytes"]) for what in files)

    def add(self, name: str, facts: Mapping[str, Any]) -> None:
        """Note a finished graph, with the files whose names start with its name."""
        files = {
            path.name: {"sha256": sha256_of_file(path), "bytes": path.stat().st_size}
            for path in sorted(self._work.glob(f"{name}*"))
        }
        self.pieces[name] = {"files": files, **facts}
        text = json.dumps({"key": self._key, "pieces": self.pieces})
        write_whole(self._work / RECORD, text.encode())

    def _is_whole(self, name: str, what: Mapping[str, Any]) -> bool:
        path = self._work / name
        return (
            path.is_file()
            and path.stat().st_size == what["bytes"]
            and sha256_of_file(path) == what["sha256"]
        )
