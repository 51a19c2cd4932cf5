"""Masked-residue training: data that does what it says, a run that resumes and that learns."""

import csv
import gzip
import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from angelo.errors import DeviceError, SequenceError
from angelo_export.networks.language import ALPHABET, LanguageConfig, LanguageModel
from angelo_export.weights import CheckpointError, load_weights
from angelo_training.checkpoints import load_checkpoint
from angelo_training.language import LanguageTraining, language_command, score, train_language
from angelo_training.precision import autocast_for, has_fast_bfloat16, torch_device
from angelo_training.schedule import Budget
from angelo_training.sequence_data import (
    AMINO_ACID_TOKENS,
    AMINO_ACIDS,
    BEGIN,
    END,
    MASK,
    NO_TARGET,
    PAD,
    Batch,
    corpus_from_sequences,
    crops_of,
    draw_crops,
    held_out_batches,
    is_held_out,
    mask_residues,
    read_sequences,
    unigram_scores,
)


def text(tokens):
    return "".join(ALPHABET[token] for token in tokens)


def random_sequences(n, seed=0, low=30, high=60):
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(AMINO_ACIDS), rng.integers(low, high))) for _ in range(n)]


@pytest.fixture
def fasta(tmp_path):
    """Repeats of two residues, which context tells and frequencies do not; 2 are held out."""
    pairs = [first + second for first in AMINO_ACIDS for second in AMINO_ACIDS]
    sequences = [pair * 20 for pair in pairs]
    path = tmp_path / "repeats.fasta"
    path.write_text("".join(f">{i}\n{s}\n" for i, s in enumerate(sequences)))
    return path


def tiny(fasta, out, **changes):
    settings = {
        "layers": 1,
        "width": 16,
        "heads": 2,
        "budget": Budget(steps=6),
        "batch_tokens": 256,
        "crop": 32,
        "evaluate_every": 2,
        "log_every": 1,
        "seed": 7,
        "threads": 1,
    }
    return LanguageTraining(sequences=fasta, out=out, **(settings | changes))


# Reading


def test_fasta_is_read_plain_or_gzipped(tmp_path):
    content = ">one\n" + "acd\n" * 10 + ">two words\r\n" + "W" * 30 + "*\n>short\nACD\n"
    (tmp_path / "plain").write_text(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content.encode()))
    assert read_sequences(tmp_path / "plain") == ["acd" * 10, "W" * 30]
    assert read_sequences(tmp_path / "packed") == read_sequences(tmp_path / "plain")


@pytest.mark.parametrize(
    "content",
    [b"", b">a\nACD\n", b"\x1f\x8bno gzip", gzip.compress(b">a")[:-4], b"\xff\xfe\x00"],
)
def test_unusable_fasta_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "bad.fasta"
    path.write_bytes(content)
    with pytest.raises(SequenceError, match=r"bad\.fasta: [^\n]*; give") as caught:
        read_sequences(path)
    assert "\n" not in str(caught.value)


def test_letters_become_the_tokens_the_runtime_gives_them():
    corpus = corpus_from_sequences(["LAgu", "OBJX"])
    assert corpus.tokens[:3].tolist() == [4, 5, 6]  # fair-esm's numbers of L, A, G
    assert text(corpus.tokens) == "LAGCKXXX"
    assert corpus.lengths.tolist() == [4, 4]


def test_about_one_in_a_hundred_is_held_out_whatever_its_case():
    sequences = random_sequences(4000)
    held_out = [is_held_out(sequence) for sequence in sequences]
    assert 20 <= sum(held_out) <= 65  # 40 expected, standard deviation 6.3
    assert held_out == [is_held_out(sequence.lower()) for sequence in sequences]


# Batches


def test_a_crop_is_a_piece_of_its_sequence_between_begin_and_end():
    sequences = random_sequences(20, low=10, high=50)
    corpus = corpus_from_sequences(sequences)
    crops = crops_of(corpus, np.arange(20), np.random.default_rng(0), crop=25)
    for sequence, crop in zip(sequences, crops, strict=True):
        length = min(len(sequence), 25)
        assert text(crop[1 : length + 1]) in sequence
        assert (crop[0], crop[length + 1]) == (BEGIN, END)
        assert (crop[length + 2 :] == PAD).all()


def test_crops_reach_both_ends_of_a_long_sequence():
    corpus = corpus_from_sequences(["A" + "C" * 8 + "D"])
    crops = crops_of(corpus, np.zeros(200, np.int64), np.random.default_rng(0), crop=5)
    assert (crops[:, 1] == ALPHABET.index("A")).any()
    assert (crops[:, 5] == ALPHABET.index("D")).any()


def test_batches_are_full_and_every_sequence_is_about_equally_likely():
    corpus = corpus_from_sequences(
        [letter * n for letter, n in zip("ACDE", (10, 20, 80, 300), strict=True)]
    )
    rng = np.random.default_rng(0)
    drawn = np.zeros(len(ALPHABET))
    for _ in range(600):
        crops = draw_crops(corpus, rng, tokens=1000, crop=100)
        assert 1000 - crops.shape[1] < crops.size <= 1000
        drawn += np.bincount(crops[:, 1], minlength=len(ALPHABET))
    share = drawn[corpus.tokens[corpus.starts[:-1]]] / drawn.sum()
    # Special tokens weigh on short ones; over 30 seeds the shares stayed within 0.18 and 0.31.
    assert (share > 0.15).all() and (share < 0.35).all()


def test_masking_fractions_and_what_may_be_masked():
    rng = np.random.default_rng(0)
    corpus = corpus_from_sequences([*random_sequences(600), "X" * 40])
    tokens = crops_of(corpus, np.arange(601), rng, crop=60)
    batch = mask_residues(tokens, rng)
    is_chosen = batch.targets != NO_TARGET
    is_residue = np.isin(tokens, AMINO_ACID_TOKENS)
    n_chosen = is_chosen.sum()  # 27,000 residues: 4,000 chosen
    assert not is_chosen[~is_residue].any()
    np.testing.assert_array_equal(batch.targets[is_chosen], tokens[is_chosen])
    np.testing.assert_array_equal(batch.inputs[~is_chosen], tokens[~is_chosen])
    # Standard deviations: 0.002, 0.006 and, for a random residue that differs, 0.005.
    assert n_chosen / is_residue.sum() == pytest.approx(0.15, abs=0.01)
    assert (batch.inputs == MASK).sum() / n_chosen == pytest.approx(0.8, abs=0.03)
    is_replaced = is_chosen & (batch.inputs != tokens) & (batch.inputs != MASK)
    assert is_replaced.sum() / n_chosen == pytest.approx(0.1 * 19 / 20, abs=0.025)
    assert np.isin(batch.inputs[is_replaced], AMINO_ACID_TOKENS).all()


def test_held_out_targets_are_masked_and_always_the_same():
    corpus = corpus_from_sequences(random_sequences(10))
    first, again = (held_out_batches(corpus, seed=1, size=4, crop=40) for _ in range(2))
    assert [len(batch.inputs) for batch in first] == [4, 4, 2]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.targets != NO_TARGET, one.inputs == MASK)


def test_unigram_scores_of_known_frequencies():
    corpus = corpus_from_sequences(
        ["A" * 299 + "C" * 99]
    )  # with one more each: 300, 100, 18 x 1
    targets = np.array([[ALPHABET.index("A"), ALPHABET.index("C"), NO_TARGET]])
    loss, accuracy = unigram_scores(corpus, [Batch(np.full((1, 3), MASK), targets)])
    assert loss == pytest.approx(-(np.log(300 / 418) + np.log(100 / 418)) / 2)
    assert accuracy == 0.5


# Runs


def test_batches_without_a_target_do_not_count():
    model = LanguageModel(LanguageConfig(1, 16, 2))
    tokens = np.array([[BEGIN, 4, 5, END]])
    nothing = Batch(tokens, np.full_like(tokens, NO_TARGET))
    something = Batch(np.where(tokens == 4, MASK, tokens), np.where(tokens == 4, 4, NO_TARGET))
    assert score(model, [nothing, something]) == score(model, [something])
    assert score(model, [something]).n_targets == 1


class Stop(Exception):  # noqa: N818
    """What a test stops a run with."""


def stop_at(step):
    def on_step(now, _):
        if now == step:
            raise Stop

    return on_step


def test_a_stopped_and_resumed_run_equals_an_unbroken_one(fasta, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train_language(tiny(fasta, whole))
    with pytest.raises(Stop):
        train_language(tiny(fasta, broken), on_step=stop_at(5))  # the last checkpoint is of 4
    assert load_checkpoint(broken / "checkpoint.pt").step == 4
    train_language(tiny(fasta, broken))

    assert (broken / "weights.pt").read_bytes() == (whole / "weights.pt").read_bytes()
    curves = []
    for folder in (whole, broken):
        with (folder / "curves.csv").open(newline="") as file:
            curves.append([row | {"seconds": ""} for row in csv.DictReader(file)])
    assert curves[0] == curves[1]
    assert [row["step"] for row in curves[0]] == list("123456")


def test_another_seed_gives_another_network(fasta, tmp_path):
    for seed in (1, 2):
        train_language(tiny(fasta, tmp_path / str(seed), seed=seed, budget=Budget(steps=1)))
    assert (tmp_path / "1/weights.pt").read_bytes() != (tmp_path / "2/weights.pt").read_bytes()


def test_a_run_learns_what_frequencies_do_not_tell(fasta, tmp_path):
    changes = {"budget": Budget(steps=200), "learning_rate": 1e-2, "evaluate_every": 200}
    train_language(tiny(fasta, tmp_path, **changes, log_every=100, width=32))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["unigram_perplexity"] > 15  # 20 residues, equally frequent
    assert summary["held_out_perplexity"] < 10
    weights, config = load_weights(tmp_path / "weights.pt")
    model = LanguageModel(LanguageConfig(**config))
    model.load_state_dict(weights)
    assert model(torch.tensor([[BEGIN, 4, 5, END]])).shape == (1, 4, 32)


def test_a_time_budget_ends_a_run(fasta, tmp_path):
    train_language(tiny(fasta, tmp_path, budget=Budget(steps=10**6, minutes=0.5 / 60)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert 0 < summary["steps"] < 10**6
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == summary["steps"]


def test_a_run_folder_of_other_settings_is_refused(fasta, tmp_path):
    train_language(tiny(fasta, tmp_path, budget=Budget(steps=1)))
    with pytest.raises(CheckpointError, match="another width, seed; give the same settings"):
        train_language(tiny(fasta, tmp_path, width=32, seed=8))


def test_too_few_sequences_are_refused(tmp_path):
    path = tmp_path / "few.fasta"
    path.write_text(f">a\n{'ACDEF' * 10}\n")
    with pytest.raises(SequenceError, match="too few to hold out"):
        train_language(tiny(path, tmp_path / "run"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "needs steps or minutes"),
        (["--steps", "1", "--heads", "3"], "3 heads do not divide"),
    ],
)
def test_command_refuses_what_cannot_be_trained(fasta, tmp_path, options, says):
    app = typer.Typer()
    app.command()(language_command)
    paths = ["--sequences", str(fasta), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, paths + options)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_command_trains_with_the_given_settings(fasta, tmp_path):
    app = typer.Typer()
    app.command()(language_command)
    given = {"layers": 1, "width": 16, "heads": 2, "steps": 2, "seed": 5, "threads": 1}
    options = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    paths = ["--sequences", str(fasta), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(app, paths + options)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    settings = summary["settings"] | {"steps": summary["steps"], "threads": 1}
    assert given.items() <= settings.items()


# Precision


def test_matrices_are_multiplied_in_bfloat16_where_that_is_fast():
    cpu = torch.device("cpu")
    ones = torch.ones(2, 2)
    with autocast_for(cpu):
        product = ones @ ones
    assert product.dtype == (torch.bfloat16 if has_fast_bfloat16(cpu) else torch.float32)
    assert (ones @ ones).dtype == torch.float32


@pytest.mark.parametrize("name", ["tpu9", "meta", "cuda:99"])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(DeviceError, match="use cpu"):
        torch_device(name)
