"""The table of models.md: everything that accuracy.py measured of the built models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from judgement import RUN, SHORT
from report import accuracy_text, real_table, simulated_table

#: Figures of the tables: name in the file, head of the column, decimals.
COLUMNS = (
    ("calpha_recall", "Cα recall %", 1),
    ("calpha_precision", "Cα precision %", 1),
    ("sequence_recall", "sequence recall %", 1),
    ("sequence_precision", "sequence precision %", 1),
    ("wrong_type", "wrong type %", 1),
    ("n_wrong_runs", "wrong runs", 1),
    ("n_short_wrong_stretches", "short wrong stretches", 1),
    ("n_wrong_stretches", "all wrong stretches", 1),
    ("backbone_rmsd", "backbone RMSD Å", 2),
    ("all_atom_rmsd", "all-atom RMSD Å", 2),
    ("all_atom_lddt", "lDDT", 1),
    ("n_chains", "chains", 0),
    ("chain_breaks_per_100", "chain breaks / 100", 1),
    ("ramachandran_outliers", "Ramachandran outliers %", 1),
)
#: Those of the second tables.
GEOMETRY_COLUMNS = (
    ("ramachandran_outliers", "Ramachandran outliers %", 1),
    ("rotamer_outliers", "rotamer outliers %", 1),
    ("clashscore", "clashes / 1000 atoms", 1),
    ("n_bond_outliers", "bond outliers", 1),
    ("n_angle_outliers", "angle outliers", 1),
    ("n_twisted_peptides", "twisted peptides", 1),
    ("n_cis_prolines", "cis prolines", 1),
    ("n_cis_others", "cis, not proline", 1),
)
HEAD = f"""# Built models

Written by `make bench-models` from the rows of `accuracy.json`; no figure is typed by hand.

Without superposition, against the deposited models. *Unpruned* is all that was built, *pruned*
what the sequences support. Matches are of C-alphas within 3 Å, one to one. *Recall* is of the
deposited residues, *precision* of the built ones; *sequence* asks for the right residue type as
well. *Wrong type* is the share of matched residues with another type than the deposited one;
a *wrong run* has {RUN} or more of them in a row: in placed chains a slip. A *wrong stretch*
is a run of bonded residues, numbered without a gap, with fewer right than wrong types; *short*
ones have fewer than {SHORT} residues. RMSDs are over matched residues; lDDT counts what is
missing as lost. *As given* is a model that others built into the same map.
"""
GEOMETRY_HEAD = """## Geometry

As `angelo.validate` finds it, of all residues: clashes are pairs of heavy atoms that overlap by
more than 0.4 Å; bonds and angles more than four standard deviations off are outliers; twisted
peptides are more than 30° from flat; rotamers are judged by chi1 and chi2 alone. Outliers are
counted; in means, for each map.
"""


def models_text(accuracy: Mapping[str, Any]) -> str:
    """The whole page."""
    tables = geometry_text(accuracy, GEOMETRY_COLUMNS)
    return f"{HEAD}\n{accuracy_text(accuracy, COLUMNS)}\n\n{GEOMETRY_HEAD}\n{tables}\n"


def geometry_text(accuracy: Mapping[str, Any], columns: Sequence[tuple[str, str, int]]) -> str:
    """The same rows with other columns."""
    groups = accuracy["means"]
    simulated = any(group.startswith("simulated") for group in groups)
    parts = [simulated_table(accuracy, columns)] if simulated else []
    parts += [real_table(accuracy, columns)] if "real" in groups else []
    return "\n\n".join(parts)


def main(
    accuracy: Annotated[Path, typer.Option(help="Of accuracy.py.")] = Path(
        "benchmarks/accuracy.json"
    ),
    out: Annotated[Path, typer.Option(help="Page to write.")] = Path("benchmarks/models.md"),
) -> None:
    """Write the tables of all figures."""
    out.write_text(models_text(json.loads(accuracy.read_text(encoding="utf-8"))), "utf-8")
    typer.echo(out)


if __name__ == "__main__":
    typer.run(main)
