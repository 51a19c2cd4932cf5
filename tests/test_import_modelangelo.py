"""Official bundles of reduced widths: from their files to a model, and what is refused."""

import argparse
import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gemmi
import numpy as np
import onnx
import pytest
import torch
from official_bundle import (
    CALPHA,
    CONFIG,
    GRAPH,
    random_calpha,
    random_graph,
    write_esm,
    write_official,
)
from tiny_map import tiny_density, write_tiny_inputs, write_volume
from typer.testing import CliRunner

from angelo.bundle import load_bundle
from angelo.cli import app as angelo
from angelo.errors import BundleError, OutputError
from angelo.job import NO_PROTEIN, BuildJob, read_inputs
from angelo.pipeline import build_model
from angelo.residues import AMINO_ACIDS, NUCLEOTIDES, RESIDUE_TYPES
from angelo.session import CPU
from angelo_export import import_modelangelo as module
from angelo_export import modelangelo_parity as parity
from angelo_export.__main__ import app
from angelo_export.import_modelangelo import RECORD, import_modelangelo, load_official
from angelo_export.modelangelo_files import PUBLISHED, cube_side_of, load_state, open_official
from angelo_export.modelangelo_graphs import Piece, random_inputs
from angelo_export.modelangelo_networks import calpha_network, graph_config
from angelo_export.trace import TracedGraph
from angelo_export.weights import CheckpointError

NO_SEQUENCE = replace(GRAPH, sequence=None)
DNA_TYPES, RNA_TYPES = set(NUCLEOTIDES[:4]), set(NUCLEOTIDES[4:])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle with sequences, imported from its folder."""
    place = tmp_path_factory.mktemp("official")
    source = write_official(place / "original")
    esm = write_esm(place / "tiny.pt")
    told = []
    out = place / "models" / "imported"
    manifest = import_modelangelo(source, out, esm, progress=lambda *what: told.append(what))
    return SimpleNamespace(source=source, esm=esm, folder=out, manifest=manifest, told=told)


@pytest.fixture
def quick(monkeypatch):
    """Pieces are one byte each instead of traced; returns the names in the order written."""
    written = []

    def write(piece, folder, *, half):
        (folder / piece.name).write_bytes(b"x")
        written.append(piece.name)
        return {"parity": 0.0}

    monkeypatch.setattr(module, "write_compared", write)
    monkeypatch.setattr(module, "load_bundle", lambda folder: None)
    return written


def test_manifest_has_the_published_schedule(made):
    bundle = load_bundle(made.folder)
    assert (bundle.name, bundle.version) == ("imported", "1.0-100")
    assert "10.1038/s41586-024-07215-4" in bundle.citation
    assert bundle.residue_types == RESIDUE_TYPES
    assert (bundle.map.voxel_size, bundle.map.spectrum) == (1.0, None)
    windows = bundle.c_alpha.windows
    assert (bundle.c_alpha.voxel_size, windows.window, windows.stride) == (1.5, 32, 16)
    assert windows.channels == ("calpha", "phosphorus", "backbone")
    assert bundle.c_alpha.points.threshold == 0.05
    gnn = bundle.gnn
    assert (gnn.rounds, gnn.iterations, gnn.hidden, gnn.neighbours) == (2, 2, 8, 4)
    assert (gnn.cube.side, gnn.rectangle.length, gnn.rectangle.side) == (23, 7, 3)
    assert {gnn.rectangle.method, gnn.frames, gnn.start_frames} == {"modelangelo"}
    assert (gnn.crop.size, gnn.crop.keep, gnn.crop.repeats) == (12, 12, 1)
    assert bundle.language.graph == "embedder.onnx"
    assert max(bundle.parity.values()) <= 1e-4
    assert set(bundle.parity) | {"embedder.onnx.data"} == set(bundle.files)
    checkpoints = bundle.made_by["checkpoints"]
    path = made.source / "gnn" / "chkpt_100.torch"
    assert checkpoints["gnn"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "# imported" in (made.folder / "README.md").read_text()


def test_every_file_is_told_once_and_nothing_else_is_left(made):
    names = ["c_alpha", "start", "seq_kv", "layer_00", "layer_01", "heads", "embedder"]
    assert made.told == [(f"{name}.onnx", i, 7) for i, name in enumerate(names)]
    assert [path.name for path in made.folder.parent.iterdir()] == ["imported"]
    files = {path.name for path in made.folder.iterdir()}
    assert files == {*made.manifest["files"], "bundle.json", "README.md"}


def test_heads_and_edges_are_left_out_where_nothing_reads_them(made):
    def weights(name):
        model = onnx.load(made.folder / name)
        return sum(np.prod(array.dims) for array in model.graph.initializer)

    assert weights("layer_00.onnx") < weights("layer_01.onnx")
    ports = [port.name for port in onnx.load(made.folder / "layer_00.onnx").graph.output]
    assert ports == ["features_out", "shifts"]


@pytest.fixture
def job(made, tmp_path):
    map_path, fasta = write_tiny_inputs(tmp_path)
    return BuildJob(map_path, fasta, tmp_path / "a" / "out", made.folder, "cpu", threads=1)


def test_a_map_is_built_end_to_end(job, tmp_path, monkeypatch):
    result = build_model(job)
    structure = gemmi.read_structure(str(result.folder / "out_raw.cif"))
    n = sum(len(chain) for chain in structure[0])
    assert n > 12  # more than one crop
    assert {residue.name for chain in structure[0] for residue in chain} <= set(AMINO_ACIDS)
    # Several devices share windows and crops, and the result stays the same.
    monkeypatch.setattr("angelo.job.find_devices", lambda _: (CPU, CPU))
    other = build_model(replace(job, out=tmp_path / "b" / "out"))
    for name in ("out_raw.cif", "residues.csv"):
        first, second = ((r.folder / name).read_bytes() for r in (result, other))
        assert first == second


@pytest.mark.parametrize(("option", "found"), [("--dna", DNA_TYPES), ("--rna", RNA_TYPES)])
def test_nucleotides_with_and_without_proteins(made, tmp_path, option, found):
    _, fasta = write_tiny_inputs(tmp_path)
    small = np.ascontiguousarray(tiny_density()[:14, :16, :16])
    map_path = write_volume(tmp_path / "small.mrc", small)
    nucleic = tmp_path / "nucleic.fasta"
    nucleic.write_text(">site\nAGCGTGGGCGTCCATTAAGT\n")
    words = [str(map_path), option, str(nucleic), "--bundle", str(made.folder)]
    if option == "--dna":
        words.insert(1, str(fasta))
    words += ["-o", str(tmp_path / "out"), "--hand", "keep"]
    words += ["--device", "cpu", "--threads", "1"]
    result = CliRunner().invoke(angelo, words)
    # Random networks match nothing; 3 says so, in one line.
    assert result.exit_code == 3, result.output
    assert "nucleic.fasta" in result.output
    structure = gemmi.read_structure(str(tmp_path / "out" / "out_raw.cif"))
    kinds = {frozenset(residue.name for residue in chain) for chain in structure[0]}
    assert any(kind <= set(AMINO_ACIDS) for kind in kinds)
    assert any(kind <= found for kind in kinds)
    assert all(kind <= set(AMINO_ACIDS) or kind <= found for kind in kinds)


def test_without_sequences_from_a_zip_in_half_precision(tmp_path, caplog):
    sizes = replace(NO_SEQUENCE, layers=1)
    source = write_official(tmp_path / "original_no_seq", sizes=sizes)
    (source / "gnn" / "model.py").write_text("net = Net(256, p_context=17)\nraise SystemExit\n")
    archive = Path(shutil.make_archive(str(tmp_path / "no_seq"), "zip", tmp_path, source.name))
    out = tmp_path / "models" / "half"
    manifest = import_modelangelo(archive, out, half=True)
    assert "that of no published bundle" in caplog.text
    bundle = load_bundle(out)
    assert bundle.language is None and bundle.gnn.sequence is None
    assert bundle.gnn.cube.side == 17
    assert 0 < bundle.parity["half_precision_storage"] < parity.HALF_LIMIT
    assert manifest["made_by"]["imported"]["zip"] == "no_seq.zip"
    assert not list(out.parent.glob("*.unfinished"))


def test_known_zips_are_named(tmp_path, monkeypatch, caplog):
    source = write_official(tmp_path / "any")
    archive = Path(shutil.make_archive(str(tmp_path / "renamed"), "zip", source))
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(PUBLISHED, digest, ("original", "7733060"))
    (tmp_path / "scratch").mkdir()
    files = open_official(archive, tmp_path / "scratch")
    assert files.origin["published_as"] == "original"
    assert not caplog.text
    assert load_state(files.graph).keys() == random_graph(GRAPH).keys()


def test_five_zips_are_known():
    assert sorted(name for name, _ in PUBLISHED.values()) == [
        "nucleotides",
        "nucleotides_no_seq",
        "original",
        "original_no_seq",
        "small_gpu",
    ]


def test_nothing_is_unpacked_outside(tmp_path):
    source = write_official(tmp_path / "any")
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("config.json", "c_alpha/chkpt.torch", "gnn/chkpt_100.torch"):
            archive.write(source / name, f"../../outside/{name}")
    (tmp_path / "deep" / "scratch").mkdir(parents=True)
    open_official(path, tmp_path / "deep" / "scratch")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["any", "deep", "evil.zip"]


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("super().__init__(Net(8, p_context=23))", 23),
        ("Net(q_length=7)", 17),
        ("Net(p_context=side)", 17),
        ("not python at all", 17),
    ],
)
def test_cube_side_of_a_definition(text, side):
    assert cube_side_of(text) == side


def test_a_stopped_import_goes_on(tmp_path, quick, monkeypatch):
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE)
    write = module.write_compared

    def stop_at_heads(piece, folder, *, half):
        if piece.name == "heads.onnx":
            raise KeyboardInterrupt
        return write(piece, folder, half=half)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_compared", stop_at_heads)
        with pytest.raises(KeyboardInterrupt):
            import_modelangelo(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    work = tmp_path / "out.unfinished"
    assert len(json.loads((work / RECORD).read_text())["pieces"]) == 4
    (work / "layer_01.onnx").write_bytes(b"damaged")
    (work / "stale.onnx").write_bytes(b"of another source")
    quick.clear()
    told = []
    import_modelangelo(source, tmp_path / "out", progress=lambda name, *_: told.append(name))
    assert quick == ["layer_01.onnx", "heads.onnx"]
    assert [name for name in told if "finished before" not in name] == quick
    assert len(told) == 5
    assert not work.exists()
    assert not (tmp_path / "out" / "stale.onnx").exists()


def test_other_settings_start_anew(tmp_path, quick, monkeypatch):
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE)
    with monkeypatch.context() as patch:
        patch.setattr(module, "manifest_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            import_modelangelo(source, tmp_path / "out")
    quick.clear()
    import_modelangelo(source, tmp_path / "out", half=True)
    assert len(quick) == 5


def test_sequences_that_are_missing_are_said_to_be(made, tmp_path):
    map_path, fasta = write_tiny_inputs(tmp_path)
    rna = tmp_path / "rna.fasta"
    rna.write_text(">r\nGGACUUCGGUCC\n")
    job = BuildJob(map_path, None, tmp_path / "out", bundle=made.folder, device="cpu")
    assert NO_PROTEIN in read_inputs(job).notes
    assert NO_PROTEIN in read_inputs(replace(job, rna_path=rna)).notes
    assert NO_PROTEIN not in read_inputs(replace(job, rna_path=rna, fasta_path=fasta)).notes


def test_what_exists_is_not_overwritten(made, tmp_path):
    before = (made.folder / "bundle.json").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        import_modelangelo(made.source, made.folder, made.esm)
    assert (made.folder / "bundle.json").read_bytes() == before


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    with pytest.raises(OutputError, match=r"needs 0\.1 GB here, 0\.0 GB are free"):
        import_modelangelo(source, tmp_path / "out")


def test_sequences_need_their_language_model(tmp_path, made):
    with pytest.raises(CheckpointError, match=r"width 12: give --esm tiny\.pt"):
        import_modelangelo(made.source, tmp_path / "out")
    other = write_esm(tmp_path / "other.pt", width=8)
    with pytest.raises(CheckpointError, match=r"width 8, but original wants 12"):
        import_modelangelo(made.source, tmp_path / "out", other)
    without = write_official(tmp_path / "without", sizes=NO_SEQUENCE)
    with pytest.raises(CheckpointError, match="leave --esm out"):
        import_modelangelo(without, tmp_path / "out", made.esm)
    assert not list(tmp_path.glob("out*"))


class Evil:
    def __reduce__(self):
        return (print, ("code from a checkpoint",))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda p: shutil.rmtree(p), "no such file or folder"),
        (lambda p: (p / "config.json").unlink(), r"no file config\.json"),
        (lambda p: (p / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda p: (p / "c_alpha" / "chkpt.torch").unlink(), r"no file c_alpha/chkpt\.torch"),
        (lambda p: shutil.copytree(p, p / "again"), r"holds 2 files c_alpha/chkpt\.torch"),
        (lambda p: [f.unlink() for f in (p / "gnn").iterdir()], "no file gnn/chkpt_<step>"),
        (lambda p: torch.save(Evil(), p / "c_alpha" / "chkpt.torch"), "could run any code"),
        (lambda p: torch.save([1], p / "c_alpha" / "chkpt.torch"), "holds no parameters"),
        (lambda p: torch.save({"a": 1}, p / "c_alpha" / "chkpt.torch"), "not a parameter"),
        (lambda p: (p / "c_alpha" / "chkpt.torch").write_bytes(b"x"), "truncated"),
        (lambda p: torch.save(random_graph(GRAPH), p / "c_alpha" / "chkpt.torch"), "exchanged"),
        (lambda p: torch.save(random_calpha(), p / "gnn" / "chkpt_101.torch"), "exchanged"),
    ],
)
def test_wrong_sources_are_refused_in_one_line(tmp_path, capfd, spoil, said):
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE)
    spoil(source)
    with pytest.raises(CheckpointError, match=said) as caught:
        import_modelangelo(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "code from a checkpoint" not in capfd.readouterr().out
    assert not list(tmp_path.glob("out*"))


def test_settings_beside_the_weights_are_let_in_and_not_used(tmp_path):
    path, state = tmp_path / "chkpt.torch", random_calpha()
    args = argparse.Namespace(box_size=64, name="c_alpha", loss=np.float64(0.3))
    content = {"model": state, "args": args, "best": np.float32(2), "step": np.int64(7)}
    torch.save(content, path)
    loaded = load_state(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)
    whole = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match="damaged or truncated"):
            load_state(path)


def test_room_for_the_language_model_is_foreseen(tmp_path, monkeypatch):
    source = write_official(tmp_path / "source")
    esm = write_esm(tmp_path / "tiny.pt")
    usage = shutil.disk_usage(tmp_path)
    graphs = load_official(source, tmp_path).n_bytes
    monkeypatch.setattr("angelo_export.import_modelangelo.SPARE_BYTES", 0)
    monkeypatch.setattr("angelo_export.import_modelangelo.SPARE_FACTOR", 1.0)
    free = usage._replace(free=graphs + 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    told = []
    with pytest.raises(OutputError, match="the import needs"):
        import_modelangelo(source, tmp_path / "out", esm, progress=lambda *a: told.append(a))
    assert told == []


def test_a_margin_may_be_zero(tmp_path):
    calpha = CONFIG["ca_infer_args"]
    config = CONFIG | {"ca_infer_args": calpha | {"crop": 0}}
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE, config=config)
    assert load_official(source, tmp_path).schedule.margin == 0
    config = CONFIG | {"ca_infer_args": calpha | {"stride": 0}}
    source = write_official(tmp_path / "other", sizes=NO_SEQUENCE, config=config)
    with pytest.raises(CheckpointError, match=r"ca_infer_args\.stride .* is 0"):
        load_official(source, tmp_path)


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b"no zip"])
def test_damaged_zips_are_refused(tmp_path, content):
    path = tmp_path / "original.zip"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="neither a folder nor a zip"):
        import_modelangelo(path, tmp_path / "out")


def test_a_wrong_schedule_is_named(tmp_path):
    config = CONFIG | {"gnn_infer_args": {"num_rounds": "three"}}
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE, config=config)
    with pytest.raises(CheckpointError, match=r"gnn_infer_args\.num_rounds .* is 'three'"):
        import_modelangelo(source, tmp_path / "out")


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_parameters_load_strictly(tmp_path, change):
    state = random_calpha()
    name = "net.modules_dict.downsample2.bn.bias"
    value = state.pop(name)
    if change == "extra":
        state |= {name: value, "net.other": value}
    if change == "shape":
        state[name] = value[:-1]
    with pytest.raises(CheckpointError, match="does not fit its own sizes") as caught:
        calpha_network(tmp_path, state)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("case", "sequence"), [("gnn", 1280), ("gnn_no_seq", None), ("c_alpha", None)]
)
def test_full_sizes_are_read_off_the_shapes(case, sequence):
    path = Path(__file__).parent / "golden" / "modelangelo_state_dict_shapes.json"
    shapes = json.loads(path.read_text())[case]
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    if case == "c_alpha":
        config = calpha_network(path, state).config
        assert (config.features, config.blocks) == (64, (10, 50, 20, 2))
        assert (config.n_in, config.n_out) == (2, 3)
        return
    config = graph_config(path, state, 23)
    assert config == replace(type(config)(), sequence=sequence)


def test_twenty_residue_types_are_the_amino_acids(tmp_path):
    sizes = replace(NO_SEQUENCE, residue_types=20)
    assert graph_config(tmp_path, random_graph(sizes), 23) == sizes
    with pytest.raises(CheckpointError, match="21 residue types"):
        odd = replace(NO_SEQUENCE, residue_types=21)
        graph_config(tmp_path, random_graph(odd), 23)


def linear_piece() -> Piece:
    """A graph that is traced in no time, with weights enough to be stored in half."""
    generator = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(64, 32)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    rows = ((torch.randn(7, 64, generator=generator),),)
    graph = TracedGraph("linear.onnx", layer, rows, ("x",), ("y",), {"x": {0: "rows"}})
    return Piece("linear.onnx", lambda: graph)


def test_a_graph_that_departs_from_torch_is_refused(tmp_path, monkeypatch):
    piece = linear_piece()
    real = parity.file_outputs

    def noisy(graph, path):
        return [{n: v + 0.01 * v.std() for n, v in out.items()} for out in real(graph, path)]

    monkeypatch.setattr(parity, "file_outputs", noisy)
    with pytest.raises(BundleError, match=r"linear\.onnx: 1\.0e-02 of its deviation"):
        parity.write_compared(piece, tmp_path, half=False)


def test_rounding_that_grows_is_judged_in_double_precision(tmp_path, monkeypatch):
    piece = linear_piece()
    real = parity.file_outputs

    def rounded_otherwise(graph, path):
        up = np.float32(np.inf)
        return [{n: np.nextafter(v, up) for n, v in o.items()} for o in real(graph, path)]

    monkeypatch.setattr(parity, "file_outputs", rounded_otherwise)
    monkeypatch.setattr(parity, "PARITY_LIMIT", 1e-9)  # as if all of it were too much
    assert 0 < parity.write_compared(piece, tmp_path, half=False)["parity"] < 1e-4


def test_half_precision_that_costs_too_much_is_left_out(tmp_path, monkeypatch, caplog):
    piece = linear_piece()
    single = parity.write_compared(piece, tmp_path, half=False)
    before = (tmp_path / piece.name).read_bytes()
    monkeypatch.setattr(parity, "HALF_LIMIT", 1e-9)
    assert parity.write_compared(piece, tmp_path, half=True) == single
    assert (tmp_path / piece.name).read_bytes() == before
    assert "stays in single precision" in caplog.text


def test_inputs_of_layers_fit_their_names():
    generator = torch.Generator().manual_seed(0)
    assert len(random_inputs(GRAPH, 5, 3, generator)) == 9
    assert len(random_inputs(NO_SEQUENCE, 5, 3, generator)) == 7
    assert CALPHA.n_out == 3


def test_command(tmp_path, quick):
    source = write_official(tmp_path / "source", sizes=NO_SEQUENCE)
    arguments = ["import-modelangelo", str(source), "-o", str(tmp_path / "models" / "new")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "[1/5] c_alpha.onnx" in result.stderr
    assert "5 files" in result.stdout
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
    assert "exists already" in again.stderr and len(again.stderr.strip().splitlines()) == 1
