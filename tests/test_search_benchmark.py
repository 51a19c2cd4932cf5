"""The benchmark of searches: the truth of every chain, the database, the rank."""

import sys
from pathlib import Path

import pytest
from tiny_map import SEQUENCE

from angelo.database import Database, Target
from angelo.hits import Hit
from angelo.sequences import read_fasta
from angelo.types import SequenceRecord

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import search as benchmark  # noqa: E402

RECORDS = (SequenceRecord("A", SEQUENCE), SequenceRecord("B", "GGPP"))


def made_hit(name, score):
    return Hit("A", 8, Target(name, "", "MKV"), 10.0**-score, score, (1, 3), (1, 3), 3, 2)


@pytest.mark.parametrize(("step", "truth"), [(1, SEQUENCE), (-1, SEQUENCE[::-1])])
def test_database_is_the_first_sequences_and_the_truth(tmp_path, step, truth):
    (tmp_path / "many.fasta").write_text("".join(f">p{i}\nMKA\n" for i in range(9)))
    path = tmp_path / "db.fasta.gz"
    benchmark.write_database(path, tmp_path / "many.fasta", 3, RECORDS, step)
    targets = [target for block in Database(path).blocks() for target in block]
    assert [target.name for target in targets] == ["p0", "p1", "p2", "truth|A", "truth|B"]
    assert targets[3].residues == truth


def test_deposited_chains_are_their_own_truth():
    model = ROOT / "examples" / "5ni1.cif.gz"
    records, _ = read_fasta(ROOT / "examples" / "5ni1.fasta")
    truth = benchmark.true_chains(model, model, records)
    assert {name: found.name for name, found in truth.items()} == {n: n for n in "ABCD"}
    assert [found.record.name for found in truth.values()] == ["A", "B", "A", "B"]
    assert [found.n_right for found in truth.values()] == [141, 146, 141, 146]


def test_rank_counts_better_hits_only():
    truth = benchmark.TrueChain("A", RECORDS[0], 8, 6)
    hits = [made_hit("x", 9.0), made_hit("y", 8.0), made_hit("truth|A", 8.0)]
    row = benchmark.row_of("A", 8, hits, truth)
    assert (row["rank"], row["e_value"], row["best_hit"]) == (2, 1e-8, "x")
    assert benchmark.cells_of(row) == ["A", "A", "8", "6 of 8", "2, tied", "1.0e-08", "8"]
    alone = benchmark.row_of("A", 8, hits[::2], truth)
    assert benchmark.cells_of(alone)[4] == "2"
    missing = benchmark.row_of("A", 8, hits[:2], truth)
    assert missing["rank"] is None
    assert benchmark.cells_of(missing)[4:] == ["not found", "–", "–"]
    unknown = benchmark.row_of("A", 8, [], benchmark.TrueChain("", None, 0, 0))
    assert benchmark.cells_of(unknown)[:5] == ["A", "–", "8", "–", "not found"]
