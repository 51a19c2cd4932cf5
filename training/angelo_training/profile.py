"""The radial amplitude profile that every map is brought to, from the training structures."""

import json
from importlib import resources

import numpy as np

from angelo.spectrum import Spectrum, shell_amplitudes, spatial_frequencies
from angelo_training.boxes import place_in_box
from angelo_training.simulate import SHELL_WIDTH, structure_factors
from angelo_training.structures import PackedStructures, StructuresError

#: Blurring of the target, Å²: details stand out, noise at 4 Å does not.
TARGET_B = 25.0
#: The profile ends at the Nyquist frequency of 1 Å voxels, 1/Å.
LAST_FREQUENCY = 0.5
#: Shells whose mean is set equal in map and target: 30 to 8 Å, protein rather than box.
REFERENCE_SHELLS = (3, 12)
#: No shell is amplified more than this.
MAX_GAIN = 8.0
#: Smaller structures do not count.
FEWEST_RESIDUES = 100


def measure_profile(
    packed: PackedStructures, rng: np.random.Generator, *, n_entries: int = 60, side: int = 96
) -> Spectrum:
    """Mean shell amplitudes of noise-free protein, blurred by ``TARGET_B``.

    Raises
    ------
    StructuresError
        If no training structure has ``FEWEST_RESIDUES``.
    """
    n_shells = round(LAST_FREQUENCY / SHELL_WIDTH)
    shape = (side, side, side)
    s = spatial_frequencies(shape, np.ones(3, np.float32))
    shells = (s / SHELL_WIDTH).astype(np.int64)
    first, last = REFERENCE_SHELLS
    rows = []
    chosen = rng.permutation(packed.select("train"))
    for index in chosen:
        entry = packed[int(index)]
        if len(entry.backbone) < FEWEST_RESIDUES:
            continue
        centre = entry.positions.mean(0)
        at = place_in_box(entry.positions, np.eye(3, dtype=np.float32), centre, 1.0, side / 2)
        inside = np.asarray(((at > 4) & (at < side - 4)).all(1))
        atoms = entry.atoms.at(at).only(inside)
        every = np.ones(len(atoms))
        factors = structure_factors(atoms, TARGET_B * every, every, shape, 1.0)
        row = shell_amplitudes(factors, shells, n_shells)
        rows.append(row / row[first:last].mean())
        if len(rows) == n_entries:
            break
    if not rows:
        raise StructuresError(
            f"no training structure has {FEWEST_RESIDUES} residues; pack more structures"
        )
    return Spectrum(
        SHELL_WIDTH, np.mean(rows, 0).astype(np.float32), REFERENCE_SHELLS, MAX_GAIN
    )


def spectrum_as_json(spectrum: Spectrum) -> dict[str, object]:
    """Return the ``spectrum`` section of a bundle manifest."""
    return {
        "shell_width": spectrum.shell_width,
        "amplitudes": [round(float(a), 5) for a in spectrum.amplitudes],
        "reference_shells": list(spectrum.reference_shells),
        "max_gain": spectrum.max_gain,
    }


def load_spectrum() -> Spectrum:
    """Read the profile in use, ``spectrum.json`` beside this module."""
    text = (resources.files("angelo_training") / "spectrum.json").read_text()
    stored = json.loads(text)
    return Spectrum(
        stored["shell_width"],
        np.array(stored["amplitudes"], np.float32),
        tuple(stored["reference_shells"]),
        stored["max_gain"],
    )
