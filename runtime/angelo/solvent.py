"""Telling solvent from protein in a map, cheaply and on the safe side."""

import numpy as np
from jaxtyping import Bool, Float32

#: Edge of the blocks in which solvent is told from protein, voxels.
BLOCK = 8
#: The strongest block is the 20th: 19 may be artefacts, and 20 hold 8 kDa at 1 Å.
STRONGEST_RANK = 20
#: A block is flat, hence solvent, below this fraction of the strongest block's deviation.
FLAT_FRACTION = 0.02
#: Percentile of block deviations that stands for the noise of an unmasked map.
NOISE_PERCENTILE = 10.0
#: A block is noise if it deviates less than this many times the noise...
NOISE_FACTOR = 1.5
#: ...and less than this fraction of the strongest block.
SIGNAL_FRACTION = 0.25


def find_solvent_blocks(
    values_zyx: Float32[np.ndarray, "z y x"],
) -> Bool[np.ndarray, "bz by bx"]:
    """Blocks of BLOCK³ voxels that cannot hold protein, from how much their density deviates.

    A block is solvent if it is flat (constant, but for the ripples that filters leave in a
    masked map), or if it deviates both little more than the map's quietest blocks and far less
    than its strongest.
    """
    deviation = block_deviations(values_zyx)
    rank = min(STRONGEST_RANK, -(-deviation.size // STRONGEST_RANK))
    strongest = float(np.sort(deviation, axis=None)[-rank])
    noise = float(np.percentile(deviation, NOISE_PERCENTILE))
    limit = max(
        FLAT_FRACTION * strongest, min(NOISE_FACTOR * noise, SIGNAL_FRACTION * strongest)
    )
    is_solvent: np.ndarray = deviation <= limit
    return is_solvent


def block_deviations(
    values_zyx: Float32[np.ndarray, "z y x"],
) -> Float32[np.ndarray, "bz by bx"]:
    """Return the deviation in blocks of BLOCK³ voxels; exactly 0 where all voxels are equal.

    Blocks at the far faces are filled up with copies of the outermost voxels.
    """
    counts = [-(-n // BLOCK) for n in values_zyx.shape]
    result = np.empty(counts, np.float32)
    pad = [(0, m * BLOCK - n) for m, n in zip(counts, values_zyx.shape, strict=True)]
    for k in range(counts[0]):
        layer = values_zyx[k * BLOCK : (k + 1) * BLOCK]
        fill = [(0, BLOCK - len(layer)), *pad[1:]]
        layer = np.pad(layer, fill, mode="edge")
        blocks = layer.reshape(BLOCK, counts[1], BLOCK, counts[2], BLOCK)
        # Differences from the corner: exact zeros for a constant block of any value.
        blocks = blocks - blocks[:1, :, :1, :, :1]
        result[k] = blocks.std(axis=(0, 2, 4))
    return result
