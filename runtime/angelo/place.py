"""Chains onto the protein sequences: by themselves, by what is around them, and once more.

The residues that the first pass places tell what the amino-acid logits of this map are worth
(`angelo.type_calibration`); the second one places all chains by logits that are so corrected.
"""

from collections.abc import Sequence

from angelo.align import align_chains
from angelo.context import place_by_context
from angelo.type_calibration import calibrate_by_placed, usual_calibration, with_calibration
from angelo.types import Assignment, Chain, Refinement, SequenceRecord


def place_proteins(
    chains: Sequence[Chain],
    refinement: Refinement,
    records: Sequence[SequenceRecord],
    residue_types: Sequence[str],
) -> tuple[tuple[Assignment, ...], Refinement]:
    """Place protein chains on their sequences.

    Parameters
    ----------
    chains
        Residues in N-to-C order.
    refinement, residue_types
        Where the network's own logits are, and what their columns are.
    records
        Candidate sequences.

    Returns
    -------
    tuple
        The assignments, as `angelo.align.align_chains` returns them, and the refinement with
        the calibrated logits by which they were made.
    """

    def place(by: Refinement) -> tuple[Assignment, ...]:
        alone = align_chains(chains, by, records, residue_types)
        return place_by_context(alone, by, records, residue_types)

    usual = with_calibration(refinement, usual_calibration(), residue_types)
    placed = place(usual)
    calibration = calibrate_by_placed(refinement, placed, records, residue_types)
    if calibration is None:
        return placed, usual
    calibrated = with_calibration(refinement, calibration, residue_types)
    return place(calibrated), calibrated
