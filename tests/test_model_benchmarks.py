"""Benchmarks of models: wrong types, what sequences are worth, reliability of errors."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_benchmarks import figures
from tiny_bundle import write_tiny_bundle
from tiny_map import CALPHAS, SEQUENCE, write_tiny_inputs

from angelo.bundle import load_bundle
from angelo.coordinates import ProteinCoordinates
from angelo.evaluate import read_structure
from angelo.residues import AMINO_ACID_CODES
from angelo.types import SequenceRecord

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import calibrate  # noqa: E402
import cases  # noqa: E402
import judgement  # noqa: E402
import layers  # noqa: E402
import model_tables  # noqa: E402
import reliability  # noqa: E402
import sequence_gain  # noqa: E402
import staged  # noqa: E402
import targets  # noqa: E402

DEPOSITED = read_structure(ROOT / "examples" / "5ni1.cif.gz")
MACHINE = {
    "processor": "abacus",
    "cores": 1,
    "memory_gib": 1.0,
    "date": "2000-01-01",
    "versions": {"angelo": "0"},
}


def with_wrong_types(rows):
    types = DEPOSITED.residue_type.copy()
    types[rows] = (types[rows] + 1) % 20
    return replace(DEPOSITED, residue_type=types)


# ------------------------------------------------------------------------------ judgement


def test_a_right_model_has_no_wrong_types():
    found = judgement.identify(DEPOSITED, DEPOSITED)
    assert (found.n_chains, found.wrong_type) == (4, 0)
    assert (found.n_wrong_stretches, found.n_short_wrong_stretches) == (0, 0)


def test_wrong_types_are_a_share_of_what_is_matched():
    found = judgement.identify(with_wrong_types(np.arange(20)), DEPOSITED)
    assert found.wrong_type == pytest.approx(100 * 20 / 574)
    assert found.n_wrong_stretches == 0  # 20 of a stretch of 141: most are right
    assert found.n_wrong_runs == 1


def test_wrong_runs_are_three_or_more_in_a_row():
    rows = np.r_[4:6, 10:13, 20, 22, 24, 30:36, 140, 141:143]  # chain A ends at 140
    assert judgement.identify(with_wrong_types(rows), DEPOSITED).n_wrong_runs == 2
    assert judgement.identify(DEPOSITED, DEPOSITED).n_wrong_runs == 0


def test_stretches_end_where_bonds_or_numbers_do():
    # Of chain A the first 8 and, after a gap of 5, the next 20 residues; both all wrong.
    rows = np.r_[0:8, 13:33]
    wrong = with_wrong_types(rows)
    names = ("residue_type", "positions", "has_atom", "chain", "sequence_number")
    built = replace(wrong, **{name: getattr(wrong, name)[rows] for name in names})
    found = judgement.identify(built, DEPOSITED)
    assert (found.n_wrong_stretches, found.n_short_wrong_stretches) == (2, 1)
    assert found.wrong_type == 100
    numbers = np.where(np.arange(574) < 5, 1, 50) + np.arange(574)
    jumped = judgement.identify(
        replace(with_wrong_types(np.arange(5)), sequence_number=numbers), DEPOSITED
    )
    assert (jumped.n_wrong_stretches, jumped.n_short_wrong_stretches) == (1, 1)


def test_every_figure_has_a_value_with_and_without_a_model(tmp_path):
    judged = judgement.judge(ROOT / "examples" / "5ni1.cif.gz", DEPOSITED)
    empty = judgement.judge(None, DEPOSITED)
    assert set(judged) == set(empty) == set(judgement.FIGURES)
    assert judged["sequence_recall"] == 100
    assert judged["ramachandran_outliers"] < 2
    assert empty["wrong_type"] is None
    assert empty["n_deposited"] == 574


def test_the_page_has_every_column_and_row(tmp_path):
    page = model_tables.models_text(figures(write_tiny_bundle(tmp_path)))
    for _, title, _ in model_tables.COLUMNS:
        assert f" {title} |" in page
    assert "| 3.0 Å, pruned | 1 of 2 | 40.6 |" in page
    assert "| EMD-1, Other, as given | 90 / 100 | 98.8 |" in page
    geometry = page[page.index("## Geometry") :]
    for _, title, _ in model_tables.GEOMETRY_COLUMNS:
        assert geometry.count(f" {title} |") == 2


# -------------------------------------------------------------------------- sequence gain


def test_other_sequences_share_no_run_with_the_right_ones():
    records = (SequenceRecord("a", "MKVLWAQEGGH"),)
    pool = ["AAKVLWAQAA", "AAKVLWAAAA", "GGGGGGGG", "GGGGGGGG"]
    found = sequence_gain.others(records, pool)
    assert [record.residues for record in found] == ["AAKVLWAAAA", "GGGGGGGG"]


def test_similar_lengths_are_taken_once():
    right = (SequenceRecord("a", "A" * 10), SequenceRecord("b", "C" * 10))
    candidates = tuple(SequenceRecord(f"x{n}", "G" * n) for n in (4, 9, 12, 30))
    found = sequence_gain.of_similar_length(right, candidates)
    assert [len(record) for record in found] == [9, 12]
    with pytest.raises(ValueError, match="1 other"):
        sequence_gain.of_similar_length(right, candidates[:1])


@pytest.fixture
def files(tmp_path):
    map_path, fasta = write_tiny_inputs(tmp_path)
    return cases.MapFiles(map_path, fasta, tmp_path / "none")


def tiny_reference():
    kinds = np.array([AMINO_ACID_CODES.index(letter) for letter in SEQUENCE * 2])
    positions = np.zeros((16, 14, 3), np.float32)
    positions[:, 1] = CALPHAS.reshape(16, 3)
    return ProteinCoordinates(
        residue_type=kinds,
        positions=positions,
        has_atom=np.arange(14)[None] == np.full((16, 1), 1),
        chain=np.repeat([0, 1], 8),
        chain_names=("A", "B"),
        sequence_number=np.tile(np.arange(1, 9), 2),
    )


def test_every_set_of_sequences_is_measured_on_the_same_calphas(tmp_path, files):
    prepared = staged.prepare(files, write_tiny_bundle(tmp_path / "bundle"), "cpu", 1)
    pool = ["G" * 9, "P" * 40, *("P" * n + "G" * 9 for n in range(9, 20))]
    found = sequence_gain.measure(prepared, tiny_reference(), pool)
    assert set(found) == set(sequence_gain.GIVEN)
    for figures_of_set in found.values():
        assert figures_of_set["network"]["n_matched"] == 16
        assert figures_of_set["network"]["n_deposited"] == 16
    assert found["wrong"]["pruned"]["n_right"] == 0
    table = sequence_gain.table_of([{"group": "real", "name": "tiny", "given": found}])
    assert table.count("\n") == 1 + 2 * len(sequence_gain.GIVEN)
    assert "| tiny | the right sequences | 16 |" in table


# --------------------------------------------------------------------------------- layers


def test_fewer_layers_are_the_first_ones(tmp_path, files):
    prepared = staged.prepare(files, write_tiny_bundle(tmp_path / "bundle"), "cpu", 1)
    whole = prepared.inputs.bundle.gnn
    fewer = layers.with_layers(prepared, 1, 3).inputs.bundle.gnn
    assert (fewer.layers, fewer.rounds) == (whole.layers[:1], 3)
    with pytest.raises(ValueError, match="9 layers wanted, the bundle has"):
        layers.with_layers(prepared, 9, 1)
    row = layers.judge(layers.with_layers(prepared, 1, 2), tiny_reference())
    assert (row["n_deposited"], row["n_matched"]) == (16, 16)
    # 8 residues of random types support no sequence.
    assert [row[f"pruned_{kind}"] for kind in ("right", "wrong", "stray")] == [0, 0, 0]
    assert row["squared_error"] < 16 * 0.5**2


def test_layers_are_summed_over_maps():
    row = {
        "group": "real",
        "cpu_seconds": 1.5,
        "n_deposited": 10,
        "n_matched": 8,
        "n_type_right": 4,
        "squared_error": 2.0,
        "pruned_right": 6,
        "pruned_wrong": 1,
        "pruned_stray": 0,
    }
    rows = [
        {**row, "name": name, "layers": n_layers, "rounds": n_rounds}
        for name in ("a", "b")
        for n_layers, n_rounds in layers.VARIANTS
    ]
    bundle = {"name": "compact", "version": "9", "sha256": "0" * 64}
    conditions = {"bundle": bundle, "device": "cpu"}
    page = layers.page_of({"conditions": conditions, "machine": MACHINE, "rows": rows})
    assert "2 maps, real:" in page
    assert "| 4 | 2 | 3.0 | 16 of 20 | 0.50 | 50.0 | 12 / 2 / 0 |" in page


# -------------------------------------------------------------------------------- targets


@pytest.fixture
def measured():
    """The figures that targets are compared with: all right, but for one wrong stretch."""
    point = {"recall": 99.0, "precision": 99.0, "amino_acids": 70.0, "direction_error": 15.0}
    groups = ("simulated_2.5", "simulated_3.0", "simulated_3.5", "real")
    conditions = {"bundle": {"name": "compact", "version": "9", "sha256": "0" * 64}}
    whole = {"name": "EMD-3488", "calpha_rmsd": 0.4, **point}
    calpha = {"conditions": conditions, "means": dict.fromkeys(groups, point), "rows": [whole]}
    pruned = {"sequence_recall": 98.0, "backbone_rmsd": 0.3, "n_chains": 4}
    accuracy = {
        "conditions": conditions,
        "means": {group: {"pruned": pruned} for group in groups},
        "rows": [
            {"name": name, "group": "real", "pruned": pruned | {"n_matched": n} | wrong}
            for name, n, wrong in (
                ("EMD-3488", 900, {"wrong_type": 0.0}),
                ("EMD-1", 100, {"wrong_type": 10.0}),
                ("EMD-2", 0, {"wrong_type": None}),
            )
        ],
    }
    return calpha, accuracy


def test_targets_are_met_or_not(measured):
    page = targets.targets_text(*measured)
    assert page.count("| yes |") == 16 + 11
    assert page.count("| no |") == 1
    assert "| all residues on real maps, wrong type % | at most 2.0 | 1.0 | yes |" in page
    assert "| EMD-1, wrong type % | at most 2.0 | 10.0 | no |" in page
    assert "| EMD-3488, RMSD Å | at most 0.45 | 0.40 | yes |" in page


def test_targets_are_compared_before_rounding():
    assert not targets.Target("wrong types", 2.0, 2.04, at_least=False).is_met
    assert not targets.Target("recall", 98.0, 97.96).is_met
    assert targets.Target("recall", 98.0, 98.0).is_met


def test_targets_of_two_bundles_are_refused(measured):
    calpha, accuracy = measured
    other = {"bundle": {"name": "compact", "version": "8", "sha256": "1" * 64}}
    with pytest.raises(ValueError, match=r"calpha\.json is of Bundle compact 9"):
        targets.targets_text(calpha, accuracy | {"conditions": other})


# ---------------------------------------------------------------------------- reliability


def residues(n, seed=0, factor=2.0, false=0.0):
    """Residues whose true errors are ``factor`` times the predicted ones on average."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.1, 1.0, n).astype(np.float32)
    true = (factor * predicted * rng.uniform(0.5, 1.5, n)).astype(np.float32)
    is_false = rng.random(n) < false
    true[is_false] = 3
    return reliability.Residues(predicted, true, true, is_false)


def test_a_curve_finds_what_errors_mean():
    curve = reliability.fit_calibration(residues(20_000))
    np.testing.assert_allclose(
        curve.expect(np.float32([0.2, 0.5, 0.8])), [0.4, 1.0, 1.6], rtol=0.05
    )
    assert (curve.predicted[-1], curve.expected[-1]) == (3, 3)
    assert reliability.departure(residues(9000, seed=1)) > 0.4
    assert reliability.departure(reliability.calibrated(residues(9000, seed=1), curve)) < 0.02


def test_a_curve_never_falls():
    noisy = residues(60, factor=0.01)
    curve = reliability.fit_calibration(replace(noisy, backbone=noisy.backbone[::-1].copy()))
    assert (np.diff(curve.expected) >= 0).all()


def test_entries_are_judged_by_the_curve_of_others():
    # Odd and even entries need different curves: each is judged by the wrong one.
    entries = [residues(2000, seed, factor=1 + seed % 2) for seed in range(4)]
    crossed = reliability.cross_calibrated(entries)
    own = reliability.calibrated(
        reliability.together(entries[::2]),
        reliability.fit_calibration(reliability.together(entries[::2])),
    )
    assert len(crossed) == 8000
    assert reliability.departure(own) < 0.02
    assert reliability.departure(crossed) > 0.2


def test_rows_of_confidence_hold_every_residue_once():
    rows = reliability.reliability(residues(500, false=0.3))
    assert sum(row["residues"] for row in rows) == 500
    assert [row["confidence"][0] for row in rows] == sorted(r["confidence"][0] for r in rows)
    assert all(row["false"] <= 100 - row["good"] for row in rows)


def test_errors_of_a_refinement_are_those_of_its_atoms(tmp_path, files):
    prepared = staged.prepare(files, write_tiny_bundle(tmp_path / "bundle"), "cpu", 1)
    refinement = staged.refined(prepared)
    found = reliability.residues_of(refinement, 0.0, tiny_reference())
    assert len(found) == len(refinement)
    assert not found.is_false.any()
    np.testing.assert_allclose(found.backbone, found.calpha, atol=1e-5)  # CA is all there is
    nowhere = replace(tiny_reference(), positions=tiny_reference().positions + np.float32(99))
    lost = reliability.residues_of(refinement, 0.0, nowhere)
    assert lost.is_false.all()
    assert (lost.backbone == 3).all()


def test_the_calibration_reaches_bundle_and_card(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle")
    curve = reliability.fit_calibration(residues(400))
    calibrate.write_calibration(bundle, curve)
    assert load_bundle(bundle).gnn.error_calibration == curve
    shown = reliability.figures_of(residues(400))
    content = {
        "conditions": {"entries": 2, "resolutions": [3.0]},
        "machine": MACHINE,
        "predicted": shown,
        "calibrated": shown,
        "real": shown,
    }
    text = calibrate.card_text(json.loads(json.dumps(content)), "x.svg")
    assert "Confidence 80 stands for an expected error of 0.64 Å" in text
    assert text.count("| confidence |") == 2
    shutil.copy(ROOT / "models" / "compact" / "README.md", bundle)
    calibrate.replace_blocks(bundle / "README.md", {"CONFIDENCE": text})
    picture = calibrate.curve_svg({"as predicted": shown["curve"], "b": shown["curve"]})
    assert picture.count("<polyline") == 2
