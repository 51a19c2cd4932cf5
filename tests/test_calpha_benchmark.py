"""The benchmark of the C-alpha network: figures of points, costs, tables, tuning."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_bundle import write_tiny_bundle
from tiny_map import CALPHAS, ORIGIN, write_tiny_inputs

from angelo.bundle import load_bundle
from angelo.calpha import PointSettings
from angelo.coordinates import CA, C, ProteinCoordinates
from angelo.density import read_map
from angelo.residues import AMINO_ACIDS
from angelo.types import Calphas
from angelo.windows import VoxelPredictions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import calpha
import calpha_judge
import calpha_search
import calpha_tables
import calpha_tune
import hand
from cases import Case, MapFiles

TYPES = tuple(AMINO_ACIDS)
FACTS = {
    "command": "calpha.py --entries 1",
    "conditions": {
        "bundle": {"name": "tiny", "version": "0", "sha256": "0" * 64},
        "weights": None,
        "device": "cpu",
        "threads": 1,
    },
    "machine": {
        "processor": "abacus",
        "cores": 1,
        "memory_gib": 1.0,
        "date": "2000-01-01",
        "versions": {"angelo": "0"},
    },
}


def row_of_residues(n):
    """Deposited residues 3.8 Å apart along x, C straight above each C-alpha."""
    positions = np.zeros((n, 14, 3), np.float32)
    positions[:, CA, 0] = 3.8 * np.arange(n)
    positions[:, C] = positions[:, CA] + np.float32([0, 0, 1.5])
    has_atom = np.zeros((n, 14), bool)
    has_atom[:, [CA, C]] = True
    kinds, chain = np.arange(n) % 20, np.zeros(n, np.int64)
    return ProteinCoordinates(kinds, positions, has_atom, chain, ("A",), np.arange(n))


def found_at(positions, e1, kinds):
    """Points with a CA->C direction (e1) and a most likely type each."""
    n = len(positions)
    e1 = np.broadcast_to(np.float32(e1) / np.linalg.norm(e1), (n, 3))
    e2 = np.cross(e1, np.float32([0, 1, 0]))
    e2 = e2 / np.linalg.norm(e2, axis=-1, keepdims=True)
    rotation = np.stack([e1, e2, np.cross(e1, e2)], axis=-1).astype(np.float32)
    logits = np.eye(20, dtype=np.float32)[kinds]
    return Calphas(np.float32(positions), np.ones(n, np.float32), rotation, logits)


def test_figures_of_points_that_are_a_little_off():
    true = row_of_residues(10)
    moved = true.calphas + np.float32([0, 0.6, 0])
    extra = np.float32([[50, 50, 50], [60, 60, 60]])
    positions = np.concatenate([moved[:8], extra])
    kinds = [0, 1, 2, 3, 4, 5, 19, 19, 0, 0]  # two of the matched eight are wrong
    points = found_at(positions, [1, 0, np.sqrt(3)], kinds)  # 30 degrees from z
    figures = calpha_judge.judge_calphas(points, true, TYPES)
    assert (figures["n_deposited"], figures["n_points"], figures["n_matched"]) == (10, 10, 8)
    assert (figures["recall"], figures["precision"]) == (80, 80)
    assert figures["calpha_rmsd"] == pytest.approx(0.6, abs=1e-3)
    assert figures["direction_error"] == pytest.approx(30, abs=0.01)
    assert figures["amino_acids"] == 75


def test_order_of_the_points_does_not_matter():
    true, rng = row_of_residues(20), np.random.default_rng(0)
    positions = true.calphas + rng.normal(size=(20, 3)).astype(np.float32)
    points = found_at(positions, [1, 1, 1], rng.integers(0, 20, 20))
    order = rng.permutation(20)
    mixed = Calphas(
        positions[order], points.probability[order], points.rotation[order],
        points.aa_logits[order],
    )  # fmt: skip
    judge = calpha_judge.judge_calphas
    assert judge(mixed, true, TYPES) == pytest.approx(judge(points, true, TYPES))


def test_residues_without_c_or_type_do_not_count():
    true = row_of_residues(4)
    true.has_atom[1:, C] = False
    true.residue_type[0] = -1
    points = found_at(true.calphas, [0, 0, 1], [0, 1, 2, 0])
    points.rotation[1:, :, 0] = (0, 0, -1)
    figures = calpha_judge.judge_calphas(points, true, TYPES)
    assert figures["direction_error"] == pytest.approx(0, abs=0.1)
    assert figures["amino_acids"] == pytest.approx(200 / 3, abs=1e-3)


def test_bundle_order_of_types_is_respected():
    true = row_of_residues(5)
    points = found_at(true.calphas, [0, 0, 1], [19 - k for k in range(5)])
    reversed_types = tuple(reversed(TYPES))
    assert calpha_judge.judge_calphas(points, true, reversed_types)["amino_acids"] == 100
    assert calpha_judge.judge_calphas(points, true, TYPES)["amino_acids"] == 0


def test_no_points_and_no_directions():
    true = row_of_residues(3)
    none = Calphas(np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    figures = calpha_judge.judge_calphas(none, true, TYPES)
    assert (figures["recall"], figures["precision"]) == (0, 0)
    assert figures["calpha_rmsd"] is None
    plain = Calphas(true.calphas, np.ones(3, np.float32))
    figures = calpha_judge.judge_calphas(plain, true, TYPES)
    assert figures["recall"] == 100
    assert figures["direction_error"] is figures["amino_acids"] is None


@pytest.fixture
def bundle(tmp_path):
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def case(tmp_path):
    """The tiny map; the reference is one of its two rows of C-alphas."""
    map_path, fasta = write_tiny_inputs(tmp_path)
    lines = [
        f"ATOM  {i + 1:5}  CA  ALA A{i + 1:4}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
        "           C"
        for i, (x, y, z) in enumerate(CALPHAS[0])
    ]
    reference = tmp_path / "row.pdb"
    reference.write_text("\n".join([*lines, "END"]) + "\n")
    files = MapFiles(map_path, fasta, reference)
    return Case("real", "tiny", {"resolution": 3.0}, lambda _: (files, {}))


def test_search_of_a_bundle_is_judged(bundle, case, tmp_path):
    loaded = load_bundle(bundle)
    graph = calpha_search.open_graph(loaded, "cpu", 1)
    out = tmp_path / "calpha.json"
    content = calpha.run_cases([case], loaded, graph, FACTS, out)
    (row,) = content["rows"]
    assert (row["recall"], row["precision"]) == (100, 50)
    assert row["calpha_rmsd"] < 0.5  # votes are on a grid of 1 Å
    assert row["direction_error"] is None  # the reference holds no C
    assert json.loads(out.read_text()) == content
    assert content["means"]["real"]["recall"] == 100

    def refuse(_):
        raise AssertionError("a row that is there was done again")

    again = calpha.run_cases([replace(case, make=refuse)], loaded, graph, FACTS, out)
    assert again["rows"] == [row]


def test_cost_is_measured_in_a_process_of_its_own(bundle, tmp_path):
    map_path, _ = write_tiny_inputs(tmp_path)
    cost = calpha_search.measure_search_in_own_process(bundle, map_path, "cpu", 1)
    assert cost["n_points"] == 16
    assert 20 < cost["map_peak_memory_mib"] <= cost["peak_memory_mib"] < 4000
    assert cost["seconds"] == pytest.approx(
        cost["network_seconds"] + cost["points_seconds"], abs=0.02
    )


def test_tiles_repeat_the_map(tmp_path):
    map_path, _ = write_tiny_inputs(tmp_path)
    one = read_map(map_path)
    eight = calpha_search.tiled(one, 2)
    z, y, x = one.values_zyx.shape
    assert eight.values_zyx.shape == (2 * z, 2 * y, 2 * x)
    np.testing.assert_array_equal(eight.values_zyx[z:, :y, x:], one.values_zyx)
    np.testing.assert_allclose(eight.origin, ORIGIN, atol=1e-5)


def test_another_network_takes_the_place_of_the_bundles(bundle, tmp_path, monkeypatch):
    """Any network that says where its outputs lie; here every second voxel's own density."""
    torch = pytest.importorskip("torch")
    from angelo_export import calpha_networks

    channels = json.loads((bundle / "bundle.json").read_text())["c_alpha"]["channels"]

    class EverySecond(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(1, len(channels), 1, stride=2)
            torch.nn.init.zeros_(self.conv.weight)
            torch.nn.init.zeros_(self.conv.bias)
            with torch.no_grad():
                self.conv.weight[0] = 4
                self.conv.bias[0] = -4

        def forward(self, windows):
            return self.conv(windows)

    geometry = {"window": 12, "step": 2, "start": 0.0, "margin": 2, "stride": 8, "batch": 3}
    monkeypatch.setattr(calpha_networks, "load_calpha", lambda _: EverySecond().eval())
    monkeypatch.setattr(calpha_networks, "window_geometry", lambda _: geometry)
    folder = calpha_search.bundle_with_network(bundle, tmp_path / "w.pt", tmp_path / "copy")
    changed = load_bundle(folder)
    assert (changed.c_alpha.windows.step, changed.c_alpha.windows.batch) == (2, 3)
    assert changed.map.spectrum is not None  # the one that networks are trained on
    assert load_bundle(bundle).c_alpha.windows.step == 1  # the bundle is as it was

    map_path, _ = write_tiny_inputs(tmp_path)
    density = read_map(map_path)
    graph = calpha_search.open_graph(changed, "cpu", 1)
    voxels = calpha_search.predict_voxels(density, changed, graph, 0.0)
    on_grid_zyx = np.rint(voxels.positions - ORIGIN).astype(int)[:, ::-1]
    # Outputs are 2 Å apart and may stick out of the map, where there are zeros.
    around = np.pad(density.values_zyx, 2)
    own = around[tuple((on_grid_zyx + 2).T)]
    assert len(own) >= density.values_zyx.size / 8
    np.testing.assert_allclose(voxels.probability, 1 / (1 + np.exp(4 - 4 * own)), atol=1e-5)


def predicted(group, n=30, seed=0):
    """Every true C-alpha votes with probability 0.8, and as many false ones with 0.2."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0, 60, (n, 3)).astype(np.float32)
    false = true + np.float32([100, 0, 0])
    probability = np.repeat(np.float32([0.8, 0.2]), n)
    channels = np.zeros((2 * n, 3), np.float32)
    names = ("offset_x", "offset_y", "offset_z")
    voxels = VoxelPredictions(np.concatenate([true, false]), probability, channels, names)
    return calpha_tune.PredictedMap(group, voxels, true)


START = PointSettings("votes", 0.05, 1.0, 0.5, 0.05)


def test_tuning_drops_what_lowers_precision():
    scores = calpha_tune.Scores(
        [predicted("simulated_3.0"), predicted("simulated_2.0", seed=1)]
    )
    choice = calpha_tune.choose_settings(scores, START)
    assert choice.f1_before == pytest.approx(200 / 3, abs=3)
    assert choice.f1 > 95
    best = choice.settings
    assert best.threshold >= 0.2 or best.min_support > 0.2
    alone = calpha_tune.choose_settings(scores, best, "simulated_3.0")
    assert alone.f1 >= alone.f1_before


def test_tuning_keeps_settings_that_nothing_beats():
    flat = calpha_tune.Scores([predicted("simulated_3.0")], score=lambda *_: 50.0)
    assert calpha_tune.choose_settings(flat, START).settings == START


def test_tables_hold_every_group(bundle, case, tmp_path):
    row = {"group": "simulated_2.5", "key": "s/1abc", "name": "1abc", "resolution": 2.5}
    row |= calpha_judge.judge_calphas(
        found_at(row_of_residues(4).calphas, [0, 0, 1], [0, 1, 2, 3]), row_of_residues(4), TYPES
    )
    real = row | {"group": "real", "name": "EMD-1", "direction_error": None}
    cost = {name: 1.0 for name, _, _ in calpha_tables.COSTS}
    costs = [{"name": "box", "shape_zyx": [1, 2, 3], **cost}]
    means = calpha_judge.summarise([row, real])
    text = calpha_tables.report_text(
        {**FACTS, "rows": [row, real], "means": means, "costs": costs}
    )
    assert "| val, simulated at 2.5 Å | 1 maps | 100.0 | 100.0 | 0.00 | 0.0 | 100.0 |" in text
    assert "| EMD-1 | 4 / 4 | 100.0 | 100.0 | 0.00 | – | 100.0 |" in text
    assert "| **mean of 1 real maps** |" in text
    assert "| box | 3 × 2 × 1 |" in text
    choice = calpha_tune.Choice(START, 99.0, 98.0, 7)
    tuned = calpha_tables.tuning_table({"all": choice}, START)
    assert "| all | 7 | 0.05 | 1 | 0.5 | 0.05 | 98.00 | 99.00 |" in tuned


def test_hand_of_a_map_is_judged_both_ways(bundle, case):
    loaded = load_bundle(bundle)
    graph = calpha_search.open_graph(loaded, "cpu", 1)
    row = hand.judge_case(case, loaded, graph)
    assert row["given"]["n_points"] == [16, 16]
    assert row["given"]["verdict"] == row["flipped"]["verdict"] == "undecided"
    assert row["n_windows_of_rounds"][0] <= 2 * row["n_windows"]
    assert row["given"]["n_links"] == row["flipped"]["n_links"][::-1]


def hand_row(name, given, flipped):
    def found(score, verdict):
        counts = {name: [9, 1] for name in ("n_points", "n_links", "n_right_turns")}
        more = {
            "n_left_turns": [0, 2],
            "turns": [11, 1],
            "mean_probability": [0.7, 0.6],
            "cpu_seconds": 1.0,
        }
        return {"score": score, "verdict": verdict} | counts | more

    row = {"key": f"real/{name}", "group": "real", "name": name, "n_windows": 20}
    row["n_windows_of_rounds"] = [4, 4]
    return row | {"given": found(*given), "flipped": found(*flipped)}


def test_verdicts_are_counted_over_both_images():
    rows = [
        hand_row("EMD-1", (5.0, "as given"), (-6.0, "mirrored")),
        hand_row("EMD-2", (-4.0, "mirrored"), (1.0, "undecided")),
    ]
    means = hand.means_of(rows)
    assert means["real"] == {
        "n_images": 4,
        "n_right": 2,
        "n_undecided": 1,
        "n_wrong": 1,
        "lowest_score": -4.0,
        "median_score": 2.0,
    }
    text = hand.report_text({**FACTS, "means": means, "rows": rows})
    assert "| real | 4 | 2 | 1 | 1 | -4.0 | 2.0 |" in text
    assert "| EMD-1 | as given / mirrored | 5.0 | -6.0 | 11 : 1 | 9 : 1 |" in text
    assert "| 4 + 4 of 20 | 1.0 |" in text
