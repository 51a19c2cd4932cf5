"""Tables of a run as CSV text, and its summary as plain data."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from angelo.geometry import calpha_shift
from angelo.geometry_models import protein_from_model
from angelo.prune import AssignmentReport
from angelo.residues import AMINO_ACIDS, residue_table
from angelo.types import Model, ModelChain, SequenceRecord
from angelo.validate import PROBLEMS, Validation


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated text with a header line, LF line ends."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


def residues_csv(models: Mapping[str, Model], records: Sequence[SequenceRecord]) -> str:
    """One row a residue: where it is, and how sure the networks are of it.

    ``models`` are named ("pruned" and "raw", or "built"); the name is the first column.
    C-alpha positions (of nucleotides: those of P) are in Å, map coordinates; confidence is 0
    to 100, the probability of the type 0 to 1, and so is that of the number in the sequence:
    0 for residues that match no place in it, empty in chains that are not placed.
    """
    rows = []
    for name, model in models.items():
        for chain in model.chains:
            matched = _sequence_name(chain, records)
            centre = "CA" if chain.kind == "protein" else "P"
            sure = chain.number_probability
            for row, kind in enumerate(chain.residue_types):
                x, y, z = chain.atom_positions[row, residue_table()[kind].index(centre)]
                rows.append(
                    [
                        *(name, chain.name, chain.sequence_positions[row], kind),
                        *(f"{chain.confidence[row]:.2f}", f"{chain.aa_probability[row]:.3f}"),
                        "" if sure is None else f"{sure[row]:.3f}",
                        *(matched, f"{x:.3f}", f"{y:.3f}", f"{z:.3f}"),
                    ]
                )
    columns = ["model", "chain", "number", "type", "confidence", "type_probability"]
    columns += ["number_probability", "sequence", "ca_x", "ca_y", "ca_z"]
    return csv_text(columns, rows)


def chains_csv(models: Mapping[str, Model], records: Sequence[SequenceRecord]) -> str:
    """One row a chain: its length, sequence, breaks and mean confidence."""
    rows = []
    for name, model in models.items():
        for chain in model.chains:
            numbers = chain.sequence_positions
            breaks = int((np.diff(numbers) > 1).sum())
            rows.append(
                [
                    *(name, chain.name, _sequence_name(chain, records), len(chain)),
                    *(numbers[0], numbers[-1], breaks, f"{_mean(chain.confidence):.2f}"),
                    f"{_mean(chain.aa_probability):.3f}",
                ]
            )
    columns = ["model", "chain", "sequence", "residues", "first", "last", "breaks"]
    return csv_text([*columns, "mean_confidence", "mean_type_probability"], rows)


def sequences_csv(
    report: AssignmentReport, model: Model, records: Sequence[SequenceRecord]
) -> str:
    """One row a sequence: how much of it the model covers, in all its copies together."""
    rows = []
    for index, (found, record) in enumerate(zip(report.sequences, records, strict=True)):
        names = [chain.name for chain in model.chains if chain.sequence == index]
        covered = round(found.fraction * found.length)
        rows.append(
            [
                *(found.name, found.length, record.copies, found.n_chains, found.n_residues),
                *(covered, f"{found.fraction:.4f}", " ".join(names)),
            ]
        )
    columns = ["sequence", "length", "copies_in_fasta", "chains_built", "residues_built"]
    return csv_text([*columns, "positions_covered", "coverage", "chains"], rows)


def problems_csv(models: Mapping[str, Model], checks: Mapping[str, Validation]) -> str:
    """One row a problem of stereochemistry: where it is, and the values that show it.

    ``checks`` are the validations of ``models``; what the problems are, and which values belong
    to each, say ``angelo.validate.PROBLEMS`` and ``Problem``.
    """
    rows = []
    for name, model in models.items():
        protein = protein_from_model(model)
        for problem in checks[name].problems:
            row = problem.residue
            rows.append(
                [
                    *(name, protein.chain_names[protein.chain[row]]),
                    *(protein.sequence_number[row], AMINO_ACIDS[protein.residue_type[row]]),
                    *(problem.what, problem.atoms),
                    *(" ".join(f"{value:.2f}" for value in problem.values),),
                    PROBLEMS[problem.what],
                ]
            )
    columns = ["model", "chain", "number", "type", "problem", "atoms", "value", "unit"]
    return csv_text(columns, rows)


def summarise_geometry(
    placed: Mapping[str, Model], built: Mapping[str, Model], checks: Mapping[str, Validation]
) -> dict[str, dict[str, int | float | None]]:
    """Stereochemistry of each model, and how far the geometry step moved its C-alphas, Å.

    ``placed`` are the models before that step, ``built`` those after it.
    """
    found: dict[str, dict[str, int | float | None]] = {}
    for name, model in built.items():
        before, after = protein_from_model(placed[name]), protein_from_model(model)
        shift = calpha_shift(before.calphas, after.calphas)
        measures = {"calpha_shift": shift, **checks[name].as_dict()}
        found[name] = {
            measure: round(value, 4) if isinstance(value, float) else value
            for measure, value in measures.items()
        }
    return found


def summarise(
    raw: Model, pruned: Model | None, report: AssignmentReport | None
) -> dict[str, Any]:
    """Summarise what was built; ``pruned`` and ``report`` are None without sequences.

    ``sequence_coverage`` is the fraction of all sequence positions built at least once. Where
    the residue types are the networks' guess, ``mean_type_probability`` says how sure they are.
    Nucleotides are residues too; where there are any they are also counted by themselves.
    """
    summary: dict[str, Any] = {
        "residues_built": raw.n_residues,
        "chains_built": len(raw.chains),
        "mean_confidence_built": _model_confidence(raw),
    }
    if any(chain.kind != "protein" for chain in raw.chains):
        summary["nucleotides_built"] = _n_nucleotides(raw)
        if pruned is not None:
            summary["nucleotides"] = _n_nucleotides(pruned)
    if pruned is None or report is None:
        types = [chain.aa_probability for chain in raw.chains]
        return summary | {"mean_type_probability": round(_mean(np.concatenate(types)), 4)}
    length = sum(found.length for found in report.sequences)
    covered = sum(found.fraction * found.length for found in report.sequences)
    return summary | {
        "residues": pruned.n_residues,
        "chains": len(pruned.chains),
        "matched_residues": report.n_assigned,
        "unmatched_residues": report.n_left_over,
        "mean_confidence": _model_confidence(pruned),
        "sequences": len(report.sequences),
        "sequences_found": len(report.sequences) - len(report.not_found),
        "sequences_not_found": list(report.not_found),
        "sequence_coverage": round(covered / length, 4) if length else 0.0,
    }


def _n_nucleotides(model: Model) -> int:
    return sum(len(chain) for chain in model.chains if chain.kind != "protein")


def _sequence_name(chain: ModelChain, records: Sequence[SequenceRecord]) -> str:
    return records[chain.sequence].name if chain.sequence >= 0 else ""


def _model_confidence(model: Model) -> float:
    if not model.chains:
        return 0.0
    return round(_mean(np.concatenate([chain.confidence for chain in model.chains])), 2)


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))
