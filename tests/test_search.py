"""The chains of a run against a database: reading it, finding them, naming them."""

import csv
import gzip
import json
from dataclasses import replace

import gemmi
import numpy as np
import pytest
from pyhmmer.easel import Alphabet, DigitalSequenceBlock, TextSequence
from pyhmmer.plan7 import Pipeline
from typer.testing import CliRunner

from angelo import database, search
from angelo.cli import app
from angelo.database import Database, Target
from angelo.errors import OutputError, SequenceError
from angelo.hits import Hit, best_hits, find_hits
from angelo.mmcif import ModelMetadata, describe_chains, mmcif_text
from angelo.profiles import (
    HMMER_CODES,
    background_frequencies,
    calibrated,
    hmmer_text,
    profile_hmm,
    read_profiles,
    with_background,
)
from angelo.report.hits import hits_csv, hits_fasta
from angelo.residues import NAME_FROM_CODE
from angelo.run_folder import lock_folder
from angelo.search import SearchJob, search_database
from angelo.sequences import read_fasta
from angelo.types import Model, ModelChain, SequenceRecord

#: The first 50 residues of human haemoglobin alpha, and 45 of ubiquitin.
ALPHA = "VLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSH"
UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIF"


def profile_of(name, letters, sure=0.6):
    rows = [HMMER_CODES.index(letter) for letter in letters]
    rest = (1 - sure) / 19
    return calibrated(
        profile_hmm(name, with_background(rest + (sure - rest) * np.eye(20)[rows]))
    )


def random_proteins(n, seed=0, length=120):
    letters = np.random.default_rng(seed).choice(list(HMMER_CODES), size=(n, length))
    return {f"random_{seed}_{i} of no use": "".join(row) for i, row in enumerate(letters)}


def write_fasta(path, records):
    text = "".join(f">{header}\n{letters}\n" for header, letters in records.items())
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def ignore(*_):
    pass


def targets_of(path):
    return [target for block in Database(path).blocks() for target in block]


def rows_of(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Reading a database


@pytest.mark.parametrize("name", ["x.fasta", "x.fasta.gz"])
def test_database_is_read_as_proteins(tmp_path, name):
    content = {
        "sp|P1 first  one": "mkv lw\n\nA-q.E*",
        "two": "MUOBZJX*MK",
        "dna": "ACGT" * 6,
        "": "GG",
        "empty": "",
    }
    path = write_fasta(tmp_path / name, content)
    found = Database(path)
    blocks = list(found.blocks())
    assert blocks == [
        (
            Target("sp|P1", "first  one", "MKVLWAQE"),
            Target("two", "", "MUOBZJXXMK"),
            Target("unnamed", "", "GG"),
        )
    ]
    assert (found.n_sequences, found.n_residues) == (3, 20)
    assert found.skipped == {"nucleic acid": 1, "no residues": 1}
    assert found.bytes_read == found.n_bytes == path.stat().st_size


def test_line_ends_comments_and_odd_bytes(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_bytes(b"\xef\xbb\xbf>a caf\xe9\r\nMK\r\n; remark 1\r\nVL\r\n>b\rGG\r")
    assert [(t.name, t.residues) for t in targets_of(path)] == [("a", "MKVL"), ("b", "GG")]


def test_blocks_are_bounded_and_lose_nothing(tmp_path, monkeypatch):
    path = write_fasta(tmp_path / "x.fasta", random_proteins(25, length=10))
    whole = targets_of(path)
    monkeypatch.setattr(database, "BLOCK_RESIDUES", 40)
    assert [len(block) for block in Database(path).blocks()] == [4] * 6 + [1]
    monkeypatch.setattr(database, "BLOCK_SEQUENCES", 3)
    assert [len(block) for block in Database(path).blocks()] == [3] * 8 + [1]
    assert targets_of(path) == whole


def test_sequences_too_long_for_hmmer_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "MAX_LENGTH", 10)
    found = Database(write_fasta(tmp_path / "x.fasta", {"a": "M" * 11, "b": "M" * 10}))
    assert [[target.name for target in block] for block in found.blocks()] == [["b"]]
    assert found.skipped == {"over 10 residues": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty"]),
        (b"\n \n", ["is empty"]),
        (b"MKV\n>a\n", ["line 1", "FASTA"]),
        (b">a\nMKV\n>b c\nMK\nM V1K\n", ["'b c'", "'1'", "line 5, column 4"]),
        (b">a\n>b\n\n", ["no protein", "2 left out, no residues"]),
        (b">a\n" + b"ACGU" * 9, ["no protein", "1 left out, nucleic acid"]),
        (gzip.compress(b">a\nMKV\n" * 99)[:-9], ["damaged gzip"]),
        (gzip.compress(b">a\nMKV\n")[:12] + b"\xff" * 9, ["damaged gzip"]),
        (b"\x00\x01\x02", ["line 1", "FASTA"]),
    ],
)
def test_unusable_databases(tmp_path, content, words):
    path = tmp_path / "bad.fasta"
    path.write_bytes(content)
    with pytest.raises(SequenceError) as caught:
        targets_of(path)
    for word in ("bad.fasta", *words):
        assert word in str(caught.value)


def test_missing_database(tmp_path):
    with pytest.raises(SequenceError, match="cannot be read"):
        targets_of(tmp_path / "none.fasta")
    with pytest.raises(SequenceError, match="cannot be read"):
        targets_of(tmp_path)


# Calibration


def test_calibration_keeps_the_profile_and_survives_the_text_format(tmp_path):
    plain = profile_hmm("A", with_background(np.full((20, 20), 0.05)))
    plain.description = "chain A"
    fitted = calibrated(plain)
    assert (fitted.name, fitted.description, fitted.M) == ("A", "chain A", 20)
    for name in ("match_emissions", "insert_emissions", "transition_probabilities"):
        np.testing.assert_allclose(
            np.asarray(getattr(fitted, name)), np.asarray(getattr(plain, name)), rtol=2e-5
        )
    path = tmp_path / "a.hmm"
    path.write_text(hmmer_text([fitted]))
    (back,) = read_profiles(path)
    assert hmmer_text([back]) == path.read_text()
    assert path.read_text().count("\nSTATS LOCAL ") == 3


def test_calibrated_e_values_count_what_chance_finds():
    """Of random sequences, 5 % should have a P-value of at most 0.05: 40 of 800."""
    alphabet = Alphabet.amino()
    letters = np.random.default_rng(1).choice(
        list(HMMER_CODES), size=(800, 100), p=background_frequencies()
    )
    texts = [TextSequence(name="x", sequence="".join(row)) for row in letters]
    block = DigitalSequenceBlock(alphabet, [text.digitize(alphabet) for text in texts])
    pipeline = Pipeline(alphabet, bias_filter=False, null2=False, F1=1, F2=1, F3=1, T=-99)
    hits = pipeline.search_hmm(profile_of("A", ALPHA), block)
    # 55 are found. HMMER fits to 200 sequences, which leaves 15 % of error alone.
    assert 20 <= sum(hit.pvalue <= 0.05 for hit in hits) <= 70


@pytest.mark.parametrize("content", [b"", b"hello\n", b"HMMER3/f [3.4]\nNAME  A\n"])
def test_damaged_profiles(tmp_path, content):
    path = tmp_path / "a.hmm"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=r"a\.hmm: damaged.*--overwrite"):
        read_profiles(path)
    with pytest.raises(OutputError, match="cannot be read"):
        read_profiles(tmp_path / "none.hmm")


# Finding


@pytest.fixture(scope="module")
def chains():
    return profile_of("A", ALPHA), profile_of("B", UBIQUITIN)


#: Alpha with five residues before it and nine of its own changed, 41 of 50 the same.
RELATIVE = "GSHMA" + ALPHA[:20] + "WWW" + ALPHA[23:30] + "YYYYYY" + ALPHA[36:]


def hits_in(tmp_path, chains, records, threads=1):
    path = write_fasta(tmp_path / "db.fasta", records)
    return find_hits(chains, Database(path), threads, ignore)


def test_the_right_sequences_are_found(tmp_path, chains):
    records = {**random_proteins(100), "hba human alpha": RELATIVE, "ubq": UBIQUITIN}
    alpha, ubiquitin = hits_in(tmp_path, chains, {**records, **random_proteins(100, seed=1)})
    assert (alpha.chain, alpha.chain_length) == ("A", 50)
    assert alpha.target == Target("hba", "human alpha", RELATIVE)
    assert (alpha.chain_range, alpha.target_range) == ((1, 50), (6, 55))
    assert (alpha.n_aligned, alpha.n_identical, alpha.identity) == (50, 41, 41 / 50)
    assert alpha.e_value < 1e-10
    assert ubiquitin.target.name == "ubq" and ubiquitin.identity == 1
    assert ubiquitin.score > 50


def test_e_value_grows_with_the_database_and_score_does_not(tmp_path, chains):
    records = {"hba": RELATIVE, **random_proteins(49)}
    (small,) = hits_in(tmp_path, chains[:1], records)
    (large,) = hits_in(tmp_path, chains[:1], {**records, **random_proteins(150, seed=2)})
    assert large.score == small.score
    assert large.e_value == pytest.approx(4 * small.e_value)


def test_blocks_and_threads_change_nothing(tmp_path, chains, monkeypatch):
    records = {**random_proteins(150), "hba": RELATIVE, "ubq": UBIQUITIN, "hba2": ALPHA}
    whole = hits_in(tmp_path, chains, records)
    assert [hit.target.name for hit in whole] == ["hba2", "hba", "ubq"]
    monkeypatch.setattr(database, "BLOCK_SEQUENCES", 20)
    assert hits_in(tmp_path, chains, records, threads=2) == whole


def test_hits_too_weak_for_the_whole_database_are_dropped(tmp_path, chains, monkeypatch):
    """In a block of its own a short piece looks good; among all the others it does not."""
    monkeypatch.setattr(database, "BLOCK_SEQUENCES", 1)
    piece = {"piece": ALPHA[10:19]}
    (alone,) = hits_in(tmp_path, chains[:1], piece)
    monkeypatch.setattr("angelo.hits.MAX_E_VALUE", 3 * alone.e_value)
    assert hits_in(tmp_path, chains[:1], {**piece, "a": "GG", "b": "PP"}) != ()
    assert hits_in(tmp_path, chains[:1], {**piece, "a": "GG", "b": "PP", "c": "DD"}) == ()


def test_hits_of_a_chain_are_limited_to_the_best(tmp_path, chains, monkeypatch):
    monkeypatch.setattr(database, "BLOCK_SEQUENCES", 2)
    records = {f"hba_{n}": ALPHA[:n] for n in (20, 30, 40, 35, 25)}
    every = hits_in(tmp_path, chains[:1], records)
    assert [hit.target.name for hit in every] == [f"hba_{n}" for n in (40, 35, 30, 25, 20)]
    monkeypatch.setattr("angelo.hits.MAX_HITS", 2)
    assert hits_in(tmp_path, chains[:1], records) == every[:2]


def test_twice_the_chain_is_no_better_than_once(tmp_path, chains):
    records = {"once": ALPHA + "GSGSG", "twice": ALPHA + "GSGSG" + ALPHA}
    once, twice = hits_in(tmp_path, chains[:1], records)
    assert (once.target.name, twice.target.name) == ("once", "twice")
    # A longer sequence has more places where a chain could lie: it scores a little less.
    assert once.score - 5 < twice.score < once.score


def test_progress_ends_at_the_end(tmp_path, chains, monkeypatch):
    monkeypatch.setattr(database, "BLOCK_SEQUENCES", 4)
    path = write_fasta(tmp_path / "x.fasta", random_proteins(10))
    told = []
    find_hits(chains, Database(path), 1, lambda *what: told.append(what))
    size = path.stat().st_size
    assert [total for _, total in told] == [size] * 3
    assert told[-1][0] == size
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# Tables and names


def made_hit(chain="A", name="hba", e_value=1e-9, residues=ALPHA):
    target = Target(name, "haemoglobin alpha", residues)
    return Hit(chain, 50, target, e_value, 40.0, (2, 5), (12, 15), 4, 3)


def test_best_hits_are_the_first_of_each_chain_if_good_enough():
    hits = (made_hit(), made_hit(name="b"), made_hit("B", e_value=0.5))
    assert best_hits(hits) == (hits[0], hits[2])
    assert best_hits(hits, 0.1) == hits[:1]


def test_table_of_hits_has_the_numbers_of_the_model():
    text = hits_csv((made_hit(), made_hit(name="b")), {"A": [10, 11, 14, 15, 16]})
    first, second = csv.DictReader(text.splitlines())
    assert (first["rank"], second["rank"]) == ("1", "2")
    assert (first["chain_first"], first["chain_last"]) == ("11", "16")
    assert (first["target_first"], first["target_last"]) == ("12", "15")
    assert (first["identity"], first["e_value"], first["target_length"]) == (
        *("0.750", "1e-09", "50"),
    )
    assert first["description"] == "haemoglobin alpha"


def test_sequences_of_hits_are_there_once_and_can_be_read(tmp_path):
    long = made_hit("C", "long", residues=ALPHA * 3)
    path = tmp_path / "hits.fasta"
    path.write_text(hits_fasta((made_hit(), made_hit("B"), long)))
    records, notes = read_fasta(path)
    assert records == (SequenceRecord("hba", ALPHA), SequenceRecord("long", ALPHA * 3))
    assert not notes
    assert max(len(line) for line in path.read_text().splitlines()) == 60


def model_of(**chains):
    """C-alphas in a row; a chain's number is its sequence."""
    made = []
    for name, (letters, sequence) in chains.items():
        n = len(letters)
        xyz = np.zeros((n, 14, 3), np.float32)
        xyz[:, 1, 0] = 3.8 * np.arange(n)
        has_atom = np.zeros((n, 14), bool)
        has_atom[:, 1] = True
        made.append(
            ModelChain(
                name,
                sequence,
                np.arange(1, n + 1),
                tuple(NAME_FROM_CODE[letter] for letter in letters),
                xyz,
                has_atom,
                np.full(n, 80, np.float32),
                np.full(n, 0.6, np.float32),
            )
        )
    return Model(tuple(made))


METADATA = ModelMetadata(
    *("run", "title", "0", "tiny 0", "none", "x.mrc", "0" * 64), np.full(3, 50, np.float32)
)


def entities_of(text):
    block = gemmi.cif.read_string(text).sole_block()
    rows = block.find("_entity.", ["pdbx_description", "details"])
    return [tuple(gemmi.cif.as_string(value) for value in row) for row in rows]


def test_chains_are_described_unless_their_sequence_is_known():
    records = (SequenceRecord("mine", ALPHA),)
    model = model_of(A=(ALPHA, 0), B=(UBIQUITIN, -1), C=("MKV", -1))
    text = mmcif_text(model, records, METADATA)
    named = describe_chains(text, {"A": ("no", "no"), "B": ("ubiquitin of 'man'", "E 1e-9")})
    assert entities_of(named) == [
        ("mine", ""),
        ("ubiquitin of 'man'", "E 1e-9"),
        ("unassigned chain", ""),
    ]
    untouched = [
        [
            line
            for line in content.splitlines()
            if line.startswith(("ATOM", "# B_iso", "# Conf"))
        ]
        for content in (text, named)
    ]
    assert untouched[0] == untouched[1]
    assert len(untouched[0]) == 2 + 50 + 45 + 3


# The whole search


@pytest.fixture
def run(tmp_path, chains):
    """A finished run of two chains, as a build without sequences leaves it."""
    folder = tmp_path / "run"
    folder.mkdir()
    model = model_of(A=(ALPHA, -1), B=(UBIQUITIN, -1))
    (folder / "run.cif").write_text(mmcif_text(model, (), METADATA))
    (folder / "run.hmm").write_text(hmmer_text(chains))
    record = {"program": "angelo", "status": "finished", "files": ["run.cif", "run.hmm"]}
    record |= {"map": "/some/where/my map.mrc", "mask": None, "inputs": {"hand": "auto"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def proteins(tmp_path):
    records = {**random_proteins(30), "hba human alpha": "GSHM" + ALPHA, "ubq": UBIQUITIN}
    return write_fasta(tmp_path / "db.fasta.gz", records)


def test_search_writes_tables_sequences_and_a_named_model(run, proteins):
    result = search_database(SearchJob(run, proteins, threads=1))
    assert sorted(path.name for path in (run / "search").iterdir()) == [
        "all_hits.csv",
        "best_hits.csv",
        "best_hits.fasta",
        "run_named.cif",
        "search.json",
    ]
    best = rows_of(run / "search" / "best_hits.csv")
    assert [(row["chain"], row["target"]) for row in best] == [("A", "hba"), ("B", "ubq")]
    assert best == [
        row for row in rows_of(run / "search" / "all_hits.csv") if row["rank"] == "1"
    ]
    records, _ = read_fasta(run / "search" / "best_hits.fasta")
    assert [record.name for record in records] == ["hba", "ubq"]
    described = entities_of((run / "search" / "run_named.cif").read_text())
    assert [name for name, _ in described] == ["hba human alpha", "ubq"]
    assert "50 of 50" in described[0][1]
    facts = json.loads((run / "search" / "search.json").read_text())
    assert facts["sequences"] == result.n_sequences == 32
    assert facts["chains"] == {"A": "hba", "B": "ubq"}


def test_chains_are_named_after_good_hits_only(run, proteins):
    result = search_database(SearchJob(run, proteins, max_e_value=1e-300, threads=1))
    assert result.named == ()
    assert len(rows_of(run / "search" / "best_hits.csv")) == 2
    assert (run / "search" / "best_hits.fasta").read_text() == ""
    assert (
        entities_of((run / "search" / "run_named.cif").read_text())
        == [("unassigned chain", "")] * 2
    )


def test_the_raw_model_is_the_one_that_has_the_profiles(run, proteins):
    """Also in a folder whose own name ends like that of a raw model."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.cif").rename(run / "my_raw_raw.cif")
    (run / "my_raw.cif").write_text("something else")
    record["files"] = ["my_raw.cif", "my_raw_raw.cif", "run.hmm"]
    (run / "run.json").write_text(json.dumps(record))
    result = search_database(SearchJob(run, proteins, threads=1))
    assert "my_raw_raw_named.cif" in result.files


def test_a_search_is_replaced_on_request_only(run, proteins, tmp_path):
    job = SearchJob(run, proteins, threads=1)
    search_database(job)
    before = files_below(run)
    with pytest.raises(OutputError, match=r"all_hits\.csv already.*--overwrite"):
        search_database(job)
    assert files_below(run) == before
    search_database(replace(job, overwrite=True, max_e_value=1e-300))
    assert files_below(run) != before
    search_database(replace(job, out=tmp_path / "new" / "er"))
    mine = {path.name: text for path, text in before.items() if path.parent.name == "search"}
    assert {p.name: text for p, text in files_below(tmp_path / "new").items()} == mine


def test_a_run_in_use_is_left_alone(run, proteins):
    pytest.importorskip("fcntl")
    held = lock_folder(run)
    with pytest.raises(OutputError, match="another angelo run"):
        search_database(SearchJob(run, proteins))
    search.os.close(held)
    assert search_database(SearchJob(run, proteins, threads=1)).named


def spoil_record(**changes):
    def spoil(run):
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, **changes}))

    return spoil


def other_chains(run):
    (run / "run.hmm").write_text(hmmer_text([profile_of("A", ALPHA[:-1])]))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "run.json").unlink(), ["not a run of angelo"]),
        (lambda run: (run / "run.json").write_text("{"), ["not a run of angelo"]),
        (spoil_record(program="other"), ["not a run of angelo"]),
        (spoil_record(status="running"), ["not finished"]),
        (spoil_record(files=["run.cif"]), ["no profiles", "--overwrite"]),
        (lambda run: (run / "run.hmm").unlink(), ["run.hmm", "cannot be read"]),
        (lambda run: (run / "run.hmm").write_text("x"), ["run.hmm", "damaged"]),
        (lambda run: (run / "run.cif").unlink(), ["run.cif", "cannot be read"]),
        (lambda run: (run / "run.cif").write_text("x"), ["run.cif", "cannot be read"]),
        (other_chains, ["run.hmm does not fit run.cif (chain A)"]),
    ],
)
def test_unusable_runs(run, proteins, spoil, words):
    spoil(run)
    before = files_below(run)
    result = CliRunner().invoke(app, ["search", str(run), str(proteins), "--threads", "1"])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    for word in ("error: ", *words):
        assert word in line
    assert files_below(run) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", "{database}"], ["nowhere", "does not exist"]),
        (["{database}", "{run}"], ["is a file", "angelo build"]),
        (["{run}", "nowhere.fasta"], ["nowhere.fasta", "cannot be read"]),
        (["{run}", "{run}/run.hmm"], ["run.hmm", "FASTA"]),
    ],
)
def test_wrong_arguments(run, proteins, arguments, words):
    arguments = [text.format(run=run, database=proteins) for text in arguments]
    result = CliRunner().invoke(app, ["search", *arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    for word in ("error: ", *words):
        assert word in line
    assert not (run / "search").exists()


def test_command_shows_best_hits_and_the_next_step(run, proteins, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = CliRunner().invoke(app, ["search", str(run), str(proteins), "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert "hba human alpha" in result.stdout
    assert "100% of 50" in result.stdout
    assert "32 sequences searched" in result.stdout
    found = run / "search" / "best_hits.fasta"
    again = f"angelo '/some/where/my map.mrc' {found} --hand auto -o {run}_hits"
    assert again in result.stdout


def test_nothing_found_is_exit_code_3_with_tables(run, tmp_path):
    path = write_fasta(tmp_path / "db.fasta", {**random_proteins(20), "empty": ""})
    result = CliRunner().invoke(app, ["search", str(run), str(path), "--threads", "1"])
    assert result.exit_code == 3
    assert "no chain resembles" in result.stderr
    assert "1 left out: no residues" in result.stdout
    assert (run / "search" / "all_hits.csv").is_file()
