"""What a predicted error means: the error to expect, measured, and a confidence from it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from angelo.types import Refinement

#: Error, Å, at which confidence is 0, and how much less makes it 100: ModelAngelo's scale, kept
#: so that models compare.
NO_CONFIDENCE_ERROR = 1.2
CONFIDENCE_RANGE = 0.7


@dataclass(frozen=True, slots=True)
class ErrorCalibration:
    """A curve through measured points from the network's figure to the error to expect.

    Straight between its points, level beyond them; bundle.json, ``gnn.error_calibration``.
    """

    predicted: tuple[float, ...]
    """The network's figure, Å, strictly increasing."""
    expected: tuple[float, ...]
    """Mean error of residues with that figure, Å: distance of N, CA and C from their true
    places, 3 Å for a residue that is none. Never decreasing, so that no order changes."""

    def __post_init__(self) -> None:
        if not 0 < len(self.predicted) == len(self.expected):
            raise ValueError(
                f"{len(self.predicted)} predicted and {len(self.expected)} expected errors, "
                "must be as many, and at least one"
            )
        if (np.diff(self.predicted) <= 0).any():
            raise ValueError("predicted errors do not increase strictly")
        if min(self.expected) < 0 or (np.diff(self.expected) < 0).any():
            raise ValueError("expected errors are negative or decrease")

    def expect(self, predicted_error: Float32[np.ndarray, " r"]) -> Float32[np.ndarray, " r"]:
        """Errors to expect, Å."""
        expected = np.interp(predicted_error, self.predicted, self.expected)
        return np.asarray(expected, np.float32)


def calibrated(refinement: Refinement, calibration: ErrorCalibration | None) -> Refinement:
    """Replace predicted errors by those to expect; None changes nothing."""
    if calibration is None:
        return refinement
    expected = calibration.expect(refinement.predicted_error)
    return replace(refinement, predicted_error=expected)


def confidence_from_error(
    predicted_error: Float32[np.ndarray, " c"],
) -> Float32[np.ndarray, " c"]:
    """0 to 100, high is good, from a predicted backbone error in Å."""
    fraction = (NO_CONFIDENCE_ERROR - predicted_error) / CONFIDENCE_RANGE
    clipped: np.ndarray = 100 * np.clip(fraction, 0, 1)
    return clipped.astype(np.float32)
