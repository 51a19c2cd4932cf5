"""FASTA in: what is kept, what is changed and said, what is refused."""

import gzip

import pytest

from angelo.errors import SequenceError
from angelo.residues import AMINO_ACID_CODES
from angelo.sequences import read_fasta, read_sequences
from angelo.types import SequenceRecord

HBA = "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMF"
DNA = ">dna\n" + "ACGTN" * 5 + "\n"


@pytest.fixture
def fasta(tmp_path):
    def write(content, name="input.fasta"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_plain_file_reads_as_written_without_notes(fasta):
    text = f">5NI1_1|Chains A, C|Hemoglobin subunit alpha\n{HBA[:20]}\n{HBA[20:]}\n>b x\nMKV\n"
    records, notes = read_fasta(fasta(text))
    assert records == (SequenceRecord("5NI1_1", HBA), SequenceRecord("b", "MKV"))
    assert notes == ()


@pytest.mark.parametrize(
    "content",
    [
        f">a\r\n{HBA[:9]}\r\n{HBA[9:]}\r\n",
        f">a\r{HBA[:9]}\r{HBA[9:]}",
        f"\ufeff>a\n{HBA.lower()}",
        f"; comment\n>a\n\n {HBA[:10]} {HBA[10:]}\t\n",
        gzip.compress(f">a\n{HBA}\n".encode()),
    ],
    ids=["windows", "old mac", "byte-order mark, lower case", "spaces", "gzip"],
)
def test_the_same_record_in_other_spellings(fasta, content):
    assert read_fasta(fasta(content)) == ((SequenceRecord("a", HBA),), ())


@pytest.mark.parametrize(
    ("written", "residues", "note"),
    [
        (
            "MK-VL..A",
            "MKVLA",
            "a: 3 gap characters removed; residues are numbered without them",
        ),
        ("MKVL*", "MKVL", "a: '*' at the end removed"),
        ("MKVL*--", "MKVL", "a: '*' at the end removed"),
        ("MK*VL", "MKXVL", "a: 1 x '*' read as X"),
        ("MUUK", "MCCK", "a: 2 x 'U' read as C"),
        ("MOK", "MKK", "a: 1 x 'O' read as K"),
        ("MBBJ", "MXXX", "a: 2 x 'B' read as X"),
        ("MXK", "MXK", None),
        ("MK", "MK", "a: only 2 residues; too short to be placed in a map"),
    ],
)
def test_every_change_is_said(fasta, written, residues, note):
    (record,), notes = read_fasta(fasta(f">a\n{written}\n"))
    assert record.residues == residues
    assert (note in notes) if note else (notes == ())


def test_substitution_never_shifts_a_residue(fasta):
    written = AMINO_ACID_CODES + "UOBZJX" + AMINO_ACID_CODES
    (record,), _ = read_fasta(fasta(f">a\n{written}\n"))
    assert len(record) == len(written)
    assert all(
        r == w for r, w in zip(record.residues, written, strict=True) if w in AMINO_ACID_CODES
    )


def test_identical_records_are_merged_and_counted(fasta):
    records, notes = read_fasta(fasta(f">a\n{HBA}\n>b\nMKV\n>c\n{HBA.lower()}\n>d\n{HBA}\n"))
    assert [(r.name, r.copies) for r in records] == [("a", 3), ("b", 1)]
    assert notes == (
        "c: same sequence as a; merged (copy 2)",
        "d: same sequence as a; merged (copy 3)",
    )


def test_repeated_names_become_unique(fasta):
    records, notes = read_fasta(fasta(">a\nMKV\n>a\nMKL\n>a_2\nMKI\n>a\nMKF\n"))
    assert [r.name for r in records] == ["a", "a_3", "a_2", "a_4"]
    assert notes[0] == "a: name already taken by another sequence; now a_3"


def test_unnamed_records_are_numbered(fasta):
    records, notes = read_fasta(fasta(">\nMKV\n>b\nMKL\n>  \nMKI\n"))
    assert [r.name for r in records] == ["sequence_1", "b", "sequence_3"]
    assert notes[1] == "record 3 (line 5) has no name: called 'sequence_3'"


def test_nucleic_acid_among_proteins_is_skipped(fasta):
    records, notes = read_fasta(fasta(f"{DNA}>a\n{HBA}\n>empty\n"))
    assert [r.name for r in records] == ["a"]
    assert notes == (
        "dna: nucleic acid, which this bundle does not build; skipped",
        "empty: no residues (line 5); record skipped",
    )


def test_a_short_record_of_the_letters_acgt_is_a_protein(fasta):
    (record,), _ = read_fasta(fasta(">a\nACGTTGCAACGTTGCAACG\n"))
    assert len(record) == 19


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        (f"{HBA}\n", "line 1 comes before any '>' header"),
        ("; only a comment\n", "no '>' header"),
        (">a\n>b\n", "no record holds a residue"),
        (
            f">a\n{HBA}\n>b\nMKV\nM 1K\n",
            r"record 'b': '1' at line 5, column 3 is not a residue",
        ),
        (">a\nMKÅV\n", "'Å' at line 2, column 3"),
        (DNA, r"nothing but nucleic acid \(dna\)"),
        (DNA.replace("T", "u").replace("C", "c"), "nothing but nucleic acid"),
        (b"\x00\xff\xfe\x80", "not a text file"),
        (gzip.compress(b">a\nMKV\n" * 99)[:30], "damaged gzip"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(fasta, content, message):
    with pytest.raises(SequenceError, match=message) as caught:
        read_fasta(fasta(content))
    assert "\n" not in str(caught.value)
    assert "input.fasta" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SequenceError, match=r"nowhere\.fasta: cannot be read"):
        read_fasta(tmp_path / "nowhere.fasta")


# ---------------------------------------------------------------- nucleic acids

SITE = "AGCGTGGGCGTCCATTAAGT"
HAIRPIN = SITE.replace("T", "U")


def read_mixed(path):
    return read_sequences({"any": path}, builds_nucleotides=True)


def test_proteins_come_first_and_nucleic_acids_are_told_by_their_letters(fasta):
    records, notes = read_mixed(fasta(f">d\n{SITE}\n>p\n{HBA}\n>r\n{HAIRPIN.lower()}\n"))
    assert records == (
        SequenceRecord("p", HBA),
        SequenceRecord("d", SITE, kind="dna"),
        SequenceRecord("r", HAIRPIN, kind="rna"),
    )
    assert notes == ()


@pytest.mark.parametrize(
    ("header", "letters", "kind", "note"),
    [
        ("x", "ACG" * 9, "dna", "x: read as DNA; if that is wrong use --dna or --rna"),
        ("x|Chain B|RNA (27-MER)", "ACG" * 9, "rna", "read as RNA"),
        ("x DNA (5'-D(*CP*GP*CP*G)-3')", "CGCGAATTCGCG", "dna", None),
        ("x", "CGCGAATTCGCG", "protein", "x: read as protein; if it is DNA or RNA, give it"),
        ("DNA-binding protein", "MKVLACGT", "protein", None),
        ("x", "ACGU" * 6 + "T", "rna", "1 x 'T' read as U"),
    ],
)
def test_where_letters_leave_it_open(fasta, header, letters, kind, note):
    (record,), notes = read_mixed(fasta(f">{header}\n{letters}\n"))
    assert record.kind == kind and len(record) == len(letters)
    assert any(note in line for line in notes) if note else notes == ()


@pytest.mark.parametrize(
    ("kind", "written", "residues", "note"),
    [
        ("dna", "ACGU", "ACGT", "a: 1 x 'U' read as T"),
        ("rna", "ACGT", "ACGU", "a: 1 x 'T' read as U"),
        ("dna", "AC-RYN*GT", "ACNNNNGT", "a: 1 x 'R' read as N"),
        ("rna", "CCAI", "CCAN", "a: 1 x 'I' read as N"),
    ],
)
def test_letters_of_files_of_one_kind(fasta, kind, written, residues, note):
    (record,), notes = read_sequences(
        {kind: fasta(f">a\n{written}\n")}, builds_nucleotides=True
    )
    assert (record.residues, record.kind) == (residues, kind)
    assert note in notes


def test_records_of_several_files_have_names_of_their_own(fasta):
    files = {
        "any": fasta(f">a\n{HBA}\n", "p.fasta"),
        "dna": fasta(f">a\n{SITE}\n>b\n{SITE}\n", "d.fasta"),
        "rna": fasta(">a\nACGACG\n", "r.fasta"),
    }
    records, notes = read_sequences(files, builds_nucleotides=True)
    assert [(r.name, r.kind, r.copies) for r in records] == [
        ("a", "protein", 1),
        ("a_2", "dna", 2),
        ("a_3", "rna", 1),
    ]
    assert "b: same sequence as a; merged (copy 2)" in notes


def test_what_is_no_nucleotide_is_refused(fasta):
    with pytest.raises(SequenceError, match="'E' at line 2, column 3 is not a nucleotide"):
        read_sequences({"dna": fasta(">a\nACE\n")}, builds_nucleotides=True)


def test_files_of_nucleic_acid_are_skipped_by_a_bundle_that_builds_none(fasta):
    files = {"any": fasta(f">a\n{HBA}\n", "p.fasta"), "rna": fasta(">r\nACGU\n", "r.fasta")}
    records, notes = read_sequences(files, builds_nucleotides=False)
    assert [record.name for record in records] == ["a"]
    assert notes == ("r: nucleic acid, which this bundle does not build; skipped",)
    with pytest.raises(SequenceError, match=r"r\.fasta: nothing but nucleic acid \(r\)"):
        read_sequences({"rna": files["rna"]}, builds_nucleotides=False)
