"""The default bundle's residues turn with the map and with where they start.

The graph network sees density in the frame of each residue only, so that a turned map with
turned C-alphas gives the turned model: to rounding where voxels fall on voxels, and elsewhere
to what interpolating the map costs (0.07 Å was seen, and 0.04 Å for residues that the network
is sure of; to rounding, 1e-4 Å).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from angelo import pipeline
from angelo.evaluate import match_calphas
from angelo.job import BuildJob, read_inputs
from angelo.types import Calphas, Density

ROOT = Path(__file__).parents[1]
TINY = ROOT / "packaging" / "self_test"
#: A third of a turn about the cube's diagonal, a quarter about z, and an odd one.
THIRD, QUARTER = (
    Rotation.from_euler("zx", [90, 90], degrees=True),
    Rotation.from_euler("z", 90, degrees=True),
)
ODD = Rotation.from_rotvec([0.4, -0.7, 0.5])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Job, inputs, prepared density in a cubic box, and C-alphas."""
    job = BuildJob(
        TINY / "haemoglobin_alpha.map.gz",
        TINY / "haemoglobin_alpha.fasta",
        tmp_path_factory.mktemp("turned") / "out",
        str(ROOT / "models" / "compact"),
        "cpu",
        threads=1,
    )
    inputs = read_inputs(job)
    density = pipeline.prepare_density(inputs.density, inputs.bundle.map)
    calphas = pipeline._search(job, inputs, density, lambda *_: None)
    side = max(density.values_zyx.shape) + 8  # room for corners
    more = np.array([side - n for n in density.values_zyx.shape])
    padded = np.pad(density.values_zyx, [(n // 2, n - n // 2) for n in more])
    origin = density.origin - (more // 2)[::-1] * density.voxel_size
    return job, inputs, Density(padded, density.voxel_size, origin.astype(np.float32)), calphas


def turned(density: Density, calphas: Calphas, turn: Rotation) -> tuple[Density, Calphas]:
    """Map and C-alphas turned about the middle of the (cubic) box."""
    side = density.values_zyx.shape[0]
    middle = (side - 1) / 2
    z, y, x = np.indices(density.values_zyx.shape)
    here = np.stack([x, y, z], -1).reshape(-1, 3) - middle
    source = turn.inv().apply(here) + middle
    values = map_coordinates(density.values_zyx, source[:, ::-1].T, order=3, mode="nearest")
    values = values.reshape(density.values_zyx.shape).astype(np.float32)
    rotation = turn.as_matrix() @ calphas.rotation
    return replace(density, values_zyx=values), replace(
        calphas,
        positions=places(calphas.positions, density, turn),
        rotation=rotation.astype(np.float32),
    )


def places(positions, density, turn):
    """Positions turned about the middle of the box."""
    middle = density.origin + (density.values_zyx.shape[0] - 1) / 2 * density.voxel_size
    return (turn.apply(positions - middle) + middle).astype(np.float32)


def refined(start, density, calphas):
    job, inputs, *_ = start
    return pipeline._refine(job, inputs, density, calphas, lambda *_: None)


@pytest.fixture(scope="module")
def unturned(start):
    return refined(start, *start[2:])


@pytest.mark.parametrize("turn", [QUARTER, THIRD])
def test_turned_by_right_angles_the_model_turns_to_rounding(start, unturned, turn):
    density = start[2]
    found = refined(start, *turned(*start[2:], turn))
    assert len(found) == len(unturned) > 50
    expected = places(unturned.frames.ca, density, turn)
    assert np.abs(found.frames.ca - expected).max() < 1e-3
    turned_frames = turn.as_matrix() @ unturned.frames.rotation
    assert np.abs(found.frames.rotation - turned_frames).max() < 0.01
    assert np.abs(found.aa_logits - unturned.aa_logits).max() < 0.01


def test_turned_by_any_angle_the_model_turns_to_interpolation(start, unturned):
    density = start[2]
    found = refined(start, *turned(*start[2:], ODD))
    expected = places(unturned.frames.ca, density, ODD)
    mine, theirs = match_calphas(found.frames.ca, expected)
    assert len(mine) > 0.95 * len(unturned)
    away = np.linalg.norm(found.frames.ca[mine] - expected[theirs], axis=1)
    same = found.aa_logits[mine].argmax(1) == unturned.aa_logits[theirs].argmax(1)
    assert np.sqrt((away**2).mean()) < 0.15
    assert same.mean() > 0.9
    # Residues that the network itself is unsure of drift from round to round.
    unsure = np.maximum(found.predicted_error[mine], unturned.predicted_error[theirs])
    is_sure = unsure < 1
    assert is_sure.mean() > 0.85
    assert np.sqrt((away[is_sure] ** 2).mean()) < 0.1
    assert same[is_sure].mean() > 0.9


def test_without_turning_the_start_the_model_is_another(start, unturned):
    density, calphas = start[2:]
    map_only, _ = turned(density, calphas, QUARTER)
    found = refined(start, map_only, calphas)
    assert found.predicted_error.mean() > 3 * unturned.predicted_error.mean()
    expected = places(unturned.frames.ca, density, QUARTER)
    mine, _ = match_calphas(found.frames.ca, expected)
    assert len(mine) < 0.6 * len(unturned)
