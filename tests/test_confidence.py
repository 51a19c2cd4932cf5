"""Calibrated errors and what confidence is made of them."""

from dataclasses import replace

import numpy as np
import pytest
from test_context import Build
from tiny_bundle import write_tiny_bundle

from angelo.bundle import load_bundle
from angelo.confidence import ErrorCalibration, calibrated, confidence_from_error
from angelo.errors import BundleError

CURVE = {"predicted": [0.2, 0.5, 2.5], "expected": [0.3, 0.6, 2.6]}


def test_errors_lie_on_the_curve_and_level_beyond_its_ends():
    curve = ErrorCalibration((0.2, 0.5, 2.5), (0.3, 0.6, 2.6))
    found = curve.expect(np.float32([0.0, 0.2, 0.35, 0.5, 1.5, 2.5, 9.0]))
    np.testing.assert_allclose(found, [0.3, 0.3, 0.45, 0.6, 1.6, 2.6, 2.6], rtol=1e-6)
    assert found.dtype == np.float32


def test_no_order_changes():
    rng = np.random.default_rng(0)
    curve = ErrorCalibration((0.1, 0.4, 0.5, 3.0), (0.2, 0.2, 0.9, 3.0))
    errors = np.sort(rng.uniform(0, 4, 100).astype(np.float32))
    assert (np.diff(curve.expect(errors)) >= 0).all()
    assert (np.diff(confidence_from_error(curve.expect(errors))) <= 0).all()


@pytest.mark.parametrize(
    ("predicted", "expected", "complaint"),
    [
        ((), (), "at least one"),
        ((1.0,), (1.0, 2.0), "as many"),
        ((1.0, 1.0), (1.0, 2.0), "increase"),
        ((1.0, 2.0), (2.0, 1.0), "decrease"),
        ((1.0,), (-0.1,), "negative"),
    ],
)
def test_curves_that_make_no_sense_are_refused(predicted, expected, complaint):
    with pytest.raises(ValueError, match=complaint):
        ErrorCalibration(predicted, expected)


def test_only_the_errors_of_a_refinement_change():
    refinement = Build().add("A", 0, 5).refinement
    raw = replace(refinement, predicted_error=np.float32([0, 0.2, 0.5, 1, 5]))
    assert calibrated(raw, None) is raw
    found = calibrated(raw, ErrorCalibration((0.0, 1.0), (0.5, 1.0)))
    np.testing.assert_allclose(found.predicted_error, [0.5, 0.6, 0.75, 1, 1])
    assert found.frames is raw.frames
    assert found.aa_logits is raw.aa_logits


def test_a_bundle_may_do_without_and_its_curve_is_checked(tmp_path):
    assert load_bundle(write_tiny_bundle(tmp_path / "a")).gnn.error_calibration is None
    with_curve = write_tiny_bundle(tmp_path / "b", gnn={"error_calibration": CURVE})
    curve = load_bundle(with_curve).gnn.error_calibration
    assert curve == ErrorCalibration((0.2, 0.5, 2.5), (0.3, 0.6, 2.6))
    wrong = CURVE | {"predicted": [0.2, 0.1, 2.5]}
    bad = write_tiny_bundle(tmp_path / "c", gnn={"error_calibration": wrong})
    with pytest.raises(BundleError, match=r"gnn.error_calibration.*increase"):
        load_bundle(bad)
    unknown = write_tiny_bundle(tmp_path / "d", gnn={"error_calibration": CURVE | {"x": 1}})
    with pytest.raises(BundleError, match=r"error_calibration.x"):
        load_bundle(unknown)
