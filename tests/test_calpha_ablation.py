"""Outputs of the C-alpha network taken away one at a time; the tables."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from angelo.calpha import PointSettings
from angelo.residues import AMINO_ACIDS
from angelo.windows import VoxelPredictions

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from calpha_ablation import OUTPUTS, WINDOWS, points_without, report_text

NAMES = (
    *(f"{kind}_{axis}" for kind in ("offset", "n", "c") for axis in "xyz"),
    *(f"aa_{name}" for name in AMINO_ACIDS),
)


@pytest.fixture
def found():
    """Two voxels, one residue each, and what ``staged.prepare`` would say of their bundle."""
    channels = np.zeros((2, len(NAMES)), np.float32)
    channels[:, :9] = 0.4, -0.2, 0.1, 0, 1.46, 0, 1.5, -0.3, 0
    channels[:, 9 + AMINO_ACIDS.index("TRP")] = 5
    positions = np.array([[10, 10, 10], [20, 10, 10]], np.float32)
    voxels = VoxelPredictions(positions, np.full(2, 0.9, np.float32), channels, NAMES)
    points = PointSettings("votes", 0.15, 1.2, 1.8, 0.25)
    bundle = SimpleNamespace(c_alpha=SimpleNamespace(points=points), residue_types=AMINO_ACIDS)
    return voxels, SimpleNamespace(inputs=SimpleNamespace(bundle=bundle))


def without(output, found):
    voxels, prepared = found
    return points_without(output, voxels, prepared, np.random.default_rng(0))


def test_each_output_is_taken_away_alone(found):
    whole = without("nothing", found)
    assert len(whole) == 2
    for output, changed in (
        ("offset", "positions"),
        ("direction", "rotation"),
        ("amino acids", "aa_logits"),
    ):
        less = without(output, found)
        for name in ("positions", "rotation", "aa_logits"):
            same = np.allclose(getattr(less, name), getattr(whole, name), atol=1e-5)
            assert same is (name != changed), (output, name)


def test_without_offsets_points_are_voxels_and_types_are_unknown(found):
    less = without("all three", found)
    np.testing.assert_allclose(np.sort(less.positions, axis=0), found[0].positions, atol=1e-4)
    np.testing.assert_array_equal(less.aa_logits, 0)
    voxels = replace(found[0])
    np.testing.assert_array_equal(voxels.channels[:, 0], np.float32(0.4))  # left as they were


def test_tables_are_means_over_maps_of_a_kind():
    kinds = ("recall", "precision", "sequence_recall")
    built = (*(f"unpruned_{kind}" for kind in kinds), "pruned_sequence_recall")
    rows = [
        {"group": group, "without": output, **dict.fromkeys(built, figure + 10.0 * number)}
        for group, figure in (("real", 40.0), ("real", 60.0), ("simulated_3.0", 90.0))
        for number, output in enumerate(OUTPUTS)
    ]
    rows += [
        {"group": "real", "windows": kind, "recall": 80.0, "precision": 70.0, "cpu_seconds": 7}
        for kind in WINDOWS
    ]
    facts = {"bundle": {"name": "compact", "version": "9"}}
    machine = {"date": "today", "processor": "fast"}
    content = {"conditions": facts, "machine": machine, "entries": 1, "rows": rows}
    text = report_text(content)
    assert "| nothing | 50.0 | 50.0 | 50.0 | 50.0 | 90.0 | 90.0 | 90.0 | 90.0 |" in text
    assert "| offset | 60.0 |" in text
    assert "| 16 | 80.0 | 70.0 | 7.0 | – | – | – |" in text
