"""Benchmarks: the right maps and references, rows that survive, figures that reach the page."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from tiny_map import CALPHAS, SEQUENCE, write_tiny_inputs
from tiny_structures import write_piece

from angelo.bundle import load_bundle
from angelo.density import read_map
from angelo.errors import MapError
from angelo.evaluate import evaluate, read_structure
from angelo.residues import AMINO_ACIDS
from angelo.sampling import sample_density
from angelo.types import Density
from angelo_training.structures import PackedStructures, pack_structures

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import accuracy  # noqa: E402
import builds  # noqa: E402
import cases  # noqa: E402
import curves  # noqa: E402
import judgement  # noqa: E402
import provenance  # noqa: E402
import report  # noqa: E402
import simulated_maps  # noqa: E402
import speed  # noqa: E402

CONDITIONS = {"bundle": {"name": "tiny", "version": "0", "sha256": "0" * 64}, "device": "cpu"}
MACHINE = {
    "processor": "abacus",
    "cores": 1,
    "memory_gib": 1.0,
    "date": "2000-01-01",
    "versions": {"angelo": "0"},
}
#: A residue of the piece that is left out, so that a bond is missing.
SKIPPED = 30


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """70 residues of chain A of 5NI1, less one, packed as an entry of ``val``."""
    folder = tmp_path_factory.mktemp("structures")
    (folder / "cif").mkdir()
    (folder / "index.csv").write_text("pdb_id,split,dev_map_relative\npie1,val,no\n")
    write_piece(folder / "cif" / "pie1.cif.gz", skip=(SKIPPED,), n=70)
    pack_structures(folder, folder / "structures.npz", workers=0)
    return PackedStructures(folder / "structures.npz")


@pytest.fixture(scope="module")
def case(packed, tmp_path_factory):
    return simulated_maps.write_case(packed, 0, 3.0, tmp_path_factory.mktemp("case"))


def listing(order=range(40)):
    """A packed file of which there is only the list of contents."""
    packed = PackedStructures.__new__(PackedStructures)
    packed.entries = [
        {
            "pdb_id": f"{i:04}",
            "split": "train" if i % 4 == 0 else "val",
            "dev_map_relative": False,
            "residues": [1000, 1000 + 59 + 30 * (i % 21)],
            "sequences": [] if i % 5 == 0 else ["M" * 30],
        }
        for i in order
    ]
    return packed


def ids(packed, n):
    return [packed.entries[i]["pdb_id"] for i in simulated_maps.choose_entries(packed, n)]


def test_choice_takes_val_entries_of_the_right_size_with_sequences():
    able = [i for i in range(40) if i % 4 and i % 5 and 60 <= 59 + 30 * (i % 21) <= 600]
    assert sorted(ids(listing(), 40)) == [f"{i:04}" for i in able]


def test_choice_is_the_same_in_any_order_of_the_file_and_grows_at_its_end():
    assert ids(listing(), 6) == ids(listing(reversed(range(40))), 6)
    assert ids(listing(), 9)[:6] == ids(listing(), 6)
    assert ids(listing(), 20) != sorted(ids(listing(), 20))


def test_density_lies_on_the_reference(case):
    density = read_map(case.map_path)
    np.testing.assert_array_equal(density.origin, simulated_maps.ORIGIN)
    reference = read_structure(case.reference)
    assert len(reference) == 69
    at_calphas = sample_density(density, reference.calphas)
    spread = float(density.values_zyx.std())
    # Seen: 2.9 standard deviations at C-alphas, which a random place of the box has in 2 %.
    assert at_calphas.mean() > 2 * spread
    away = np.roll(reference.calphas, 1, axis=1)  # x, y, z mixed up
    assert abs(sample_density(density, away).mean()) < 0.5 * at_calphas.mean()
    assert sample_density(density, reference.calphas + 9).mean() < 0.5 * at_calphas.mean()


def test_reference_is_the_entry_moved(case, packed):
    entry, reference = packed[0], read_structure(case.reference)
    assert [AMINO_ACIDS[i] for i in reference.residue_type] == [
        AMINO_ACIDS[i] for i in entry.residue_type
    ]
    shift = reference.calphas - entry.backbone[:, 1]
    np.testing.assert_allclose(shift, shift[:1].repeat(69, 0), atol=2e-3)  # 3 decimals
    numbers = reference.sequence_number
    assert list(np.diff(numbers)).index(2) == SKIPPED - 2  # a number left out at the gap
    assert (np.diff(numbers) == 1).sum() == 67
    n_protein = int((entry.atom_residue >= 0).sum())
    assert reference.has_atom.sum() == n_protein
    assert case.n_other_atoms == len(entry.atoms) - n_protein


def test_box_holds_all_atoms_with_space_around(case):
    density, reference = read_map(case.map_path), read_structure(case.reference)
    low = density.origin + simulated_maps.PADDING
    high = density.origin + density.values_zyx.shape[::-1] - 1 - simulated_maps.PADDING
    atoms = reference.positions[reference.has_atom]
    assert (atoms >= low - 1e-2).all()
    assert (atoms <= high + 1e-2).all()


def test_simulation_repeats_and_depends_on_the_resolution(case, packed, tmp_path):
    again = simulated_maps.write_case(packed, 0, 3.0, tmp_path)
    here, there = read_map(case.map_path).values_zyx, read_map(again.map_path).values_zyx
    np.testing.assert_array_equal(here, there)
    other = simulated_maps.write_case(packed, 0, 3.5, tmp_path)
    assert np.abs(read_map(other.map_path).values_zyx - here).max() > 0.1 * here.std()


def test_chain_names_count_on():
    names = [simulated_maps.chain_name(i) for i in (0, 25, 26, 701, 702)]
    assert names == ["A", "Z", "AA", "ZZ", "AAA"]


@pytest.fixture
def tiny(tmp_path, case):
    """A case on the tiny map, whose two rows of C-alphas stand for the reference."""
    map_path, fasta = write_tiny_inputs(tmp_path)
    reference = tmp_path / "rows.pdb"
    lines = [
        f"ATOM  {k + 1:5}  CA  ALA {'AB'[row]}{i + 1:4}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for k, (row, i, (x, y, z)) in enumerate(
            (row, i, CALPHAS[row, i]) for row in (0, 1) for i in range(len(SEQUENCE))
        )
    ]
    reference.write_text("\n".join([*lines, "END"]) + "\n")
    files = cases.MapFiles(map_path, fasta, reference)
    job = {"bundle": write_tiny_bundle(tmp_path / "bundle"), "device": "cpu", "threads": 1}
    return cases.Case("real", "tiny", {}, lambda _: (files, {"n_other_atoms": 0})), job


def run(case_list, out, job, build):
    return accuracy.run_cases(case_list, out, CONDITIONS, MACHINE, job, build)


def test_a_build_is_judged_in_a_process_of_its_own(tiny, tmp_path):
    case, job = tiny
    content = run([case], tmp_path / "out.json", job, builds.measure_in_own_process)
    (row,) = content["rows"]
    assert row["outcome"] in ("built", "nothing matched"), row
    assert row["raw"]["n_deposited"] == 16
    assert row["raw"]["calpha_recall"] == 100  # the tiny bundle finds every blob
    assert row["raw"]["n_built"] == 16
    assert row["shape_zyx"] == [24, 30, 42]
    after = {"chains", "geometry", "validation"}
    assert set(row["stages"]) == {"density", "hand", "c-alphas", "refinement", *after}
    assert 20 < row["peak_memory_mib"] < 4000
    assert json.loads((tmp_path / "out.json").read_text()) == content
    assert content["means"]["real"]["raw"]["calpha_recall"] == 100


def test_nothing_built_is_a_row_of_zeros(tiny, tmp_path):
    case, job = tiny
    job["bundle"] = write_tiny_bundle(tmp_path / "strict", gnn={"min_existence": 1.0})
    (row,) = run([case], tmp_path / "out.json", job, builds.measure_build)["rows"]
    assert row["outcome"] == "nothing built"
    for kind in ("raw", "pruned"):
        assert row[kind]["calpha_recall"] == row[kind]["n_built"] == 0
        assert row[kind]["backbone_rmsd"] is None
        assert row[kind]["n_deposited"] == 16


def test_rows_survive_and_failed_ones_are_done_again(tiny, tmp_path):
    case, job = tiny
    out, called = tmp_path / "out.json", []

    def build(job):
        called.append(job.map_path)
        if len(called) == 1:
            raise MapError("no such luck")
        return builds.MeasuredBuild("nothing built", None, None, 1.0, 1.0, 9, {})

    assert run([case], out, job, build)["rows"][0]["error"] == "no such luck"
    assert run([case], out, job, build)["rows"][0]["outcome"] == "nothing built"
    content = run([case], out, job, build)
    assert len(called) == 2
    assert len(content["rows"]) == 1
    accuracy.run_cases([], out, CONDITIONS | {"device": "cuda"}, MACHINE, job, build)
    other = accuracy.run_cases([case], out, CONDITIONS | {"device": "x"}, MACHINE, job, build)
    assert len(called) == 3
    assert other["conditions"]["device"] == "x"
    assert out.with_name("out.json.stale").is_file()


def test_one_chain_of_a_reference():
    everything = read_structure(ROOT / "examples" / "5ni1.cif.gz")
    one = accuracy.chain_of(everything, "B")
    assert (len(one), one.chain_names) == (146, ("B",))
    judged = evaluate(one, everything)
    assert judged.n_matched == 146
    assert judged.calpha_rmsd == 0
    assert evaluate(everything, one).calpha_precision == pytest.approx(100 * 146 / 574)


def test_real_maps_are_listed_with_all_that_is_needed(tmp_path):
    listed = list(cases.real_cases(tmp_path))
    assert sum(case.group == "real" for case in listed) == 5
    assert len({case.key for case in listed}) == len(listed)
    (other,) = [case for case in listed if case.group == "comparison"]
    assert other.comparison is not None
    row = accuracy.run_case(listed[0], {}, builds.measure_build)
    assert row["outcome"] == "failed"  # the folder is empty
    assert "emd_3488" in row["error"] or "5ni1" in row["error"]


def row_of(name, group, recall, rmsd, outcome="built"):
    metrics = dict.fromkeys(judgement.FIGURES) | dict.fromkeys(judgement.ZERO_WHEN_EMPTY, 0.0)
    metrics |= {
        "n_deposited": 100,
        "n_built": 90 if recall else 0,
        "calpha_recall": recall,
        "calpha_rmsd": rmsd,
        "backbone_rmsd": rmsd,
        "all_atom_rmsd": rmsd,
        "chain_breaks_per_100": None,
    }
    row = {"key": f"{group}/{name}", "group": group, "name": name, "outcome": outcome}
    row |= {"n_deposited": 100, "resolution": 3.0, "pdb": "1XYZ", "what": "a thing"}
    row |= {"seconds": 12.0, "cpu_seconds": 20.0, "peak_memory_mib": 700, "pruned": metrics}
    return row if group == "comparison" else row | {"raw": metrics}


def figures(bundle):
    rows = [
        row_of("1abc", "simulated_3.0", 81.26, 0.5),
        row_of("2abc", "simulated_3.0", 0.0, None, "nothing built"),
        {
            "key": "f",
            "group": "simulated_3.0",
            "name": "3abc",
            "outcome": "failed",
            "error": "x",
        },
        row_of("EMD-1", "real", 61.5, 0.75),
        row_of("EMD-1, Other", "comparison", 98.76, 0.35, "given"),
    ]
    conditions = {"bundle": provenance.bundle_facts(bundle), "device": "cpu"}
    means = accuracy.summarise(rows)
    return {"conditions": conditions, "machine": MACHINE, "means": means, "rows": rows}


def test_means_count_empty_models_with_zero_but_not_failed_ones(tmp_path):
    means = figures(write_tiny_bundle(tmp_path))["means"]
    assert set(means) == {"simulated_3.0", "real"}
    group = means["simulated_3.0"]
    assert (group["n_maps"], group["n_failed"], group["n_nothing_built"]) == (2, 1, 1)
    assert group["raw"]["calpha_recall"] == pytest.approx(81.26 / 2)
    assert group["raw"]["backbone_rmsd"] == 0.5  # of the one that has it


@pytest.fixture
def published(tmp_path):
    """Everything that report.py reads and writes, in one folder."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    shutil.copy(ROOT / "models" / "compact" / "README.md", bundle / "README.md")
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    log = tmp_path / "runs" / "gnn" / "curves.csv"
    log.parent.mkdir(parents=True)
    log.write_text("step,seconds,val_loss,loss\n10,60,2.5,3\n20,,,2.9\n30,180,1.25,2\n")
    (tmp_path / "accuracy.json").write_text(json.dumps(figures(bundle)))
    stages = {"density": 0.1, "chains": 0.2}
    built = builds.MeasuredBuild("built", None, None, 34.5, 60.0, 512, stages)
    density = Density(np.zeros((2, 3, 4), np.float32), *np.ones((2, 3), np.float32))
    rows = [speed.row_of("padded", density, built)]
    timing = {"conditions": CONDITIONS, "machine": MACHINE, "rows": rows}
    (tmp_path / "speed.json").write_text(json.dumps(timing))
    return tmp_path


def publish(folder):
    report.main(
        accuracy=folder / "accuracy.json",
        speed=folder / "speed.json",
        bundle=folder / "bundle",
        readme=folder / "README.md",
        runs=folder / "runs",
        structures=folder / "missing.npz",
    )
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_figures_reach_card_readme_and_manifest(published):
    before = (published / "README.md").read_text()
    files = publish(published)
    for name in ("README.md", "bundle/README.md"):
        page = files[name].decode()
        assert "| 3.0 Å, unpruned | 1 of 2 | 40.6 |" in page
        assert "| EMD-1, Other, as given | 90 / 100 | 98.8 |" in page
        assert "4 × 3 × 2 | 34 | 60 | 512 | 0.1 | 0.2 |" in page
        assert "3abc" in page  # failed
    assert "val loss | 30 | 3 | 2.5 | 1.25 |" in files["bundle/README.md"].decode()
    assert files["bundle/curves_gnn.csv"] == files["runs/gnn/curves.csv"]
    assert files["bundle/curves_gnn.svg"].startswith(b"<svg")
    section = load_bundle(published / "bundle").accuracy
    assert section["simulated_3.0"]["raw"]["calpha_recall"] == 40.6
    assert section["real"]["by_map"]["EMD-1"]["pruned"]["backbone_rmsd"] == 0.75
    begin, end = "<!-- BENCHMARKS: BEGIN", "<!-- BENCHMARKS: END"
    after = files["README.md"].decode()
    assert before.split(begin)[0] == after.split(begin)[0]
    assert before.split(end)[1] == after.split(end)[1]


def test_publishing_twice_changes_nothing(published):
    assert publish(published) == publish(published)


def test_figures_of_another_bundle_are_refused(published, capsys):
    write_tiny_bundle(published / "bundle", gnn={"rounds": 3})
    before = (published / "README.md").read_bytes()
    with pytest.raises(report.typer.Exit):
        publish(published)
    assert "another bundle" in capsys.readouterr().err
    assert (published / "README.md").read_bytes() == before


@pytest.mark.parametrize("text", ["no block", "<!-- X: BEGIN -->\n<!-- X: END -->\n" * 2])
def test_a_block_must_be_there_once(text):
    with pytest.raises(ValueError, match="must be one"):
        report.replace_block(text, "X", "body")


def test_block_keeps_its_comment_and_takes_any_text():
    text = "a\n<!-- X: BEGIN (why) -->\nold\n<!-- X: END -->\nb\n"
    body = r"new \1 \g<0>"
    assert report.replace_block(text, "X", body) == text.replace("old", body)


def test_curve_panel_spans_its_values():
    columns = {"val_a": [(0.0, 4.0), (10.0, 2.0)], "loss": [(0.0, 1.0)]}
    picture = curves.curve_svg(columns, "x < y")
    assert picture.count("<polyline") == 1
    assert "x &lt; y" in picture
    assert ">4</text>" in picture
    assert ">2</text>" in picture


def test_padding_moves_nothing():
    rng = np.random.default_rng(0)
    origin = np.float32([3, -4, 5])
    voxel = np.float32([1, 1.5, 2])
    density = Density(rng.random((3, 4, 5), dtype=np.float32), voxel, origin)
    larger = speed.padded(density, 9)
    assert larger.values_zyx.shape == (9, 9, 9)
    assert larger.values_zyx.sum() == pytest.approx(density.values_zyx.sum())
    for z, y, x in ((0, 0, 0), (2, 3, 4)):
        place = origin + np.float32([x, y, z]) * voxel
        index = np.rint((place - larger.origin) / voxel).astype(int)[::-1]
        np.testing.assert_allclose(larger.origin + index[::-1] * voxel, place, atol=1e-5)
        assert larger.values_zyx[tuple(index)] == density.values_zyx[z, y, x]
    with pytest.raises(ValueError, match="does not fit"):
        speed.padded(density, 4)
