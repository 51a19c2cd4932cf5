"""Protein sequences for masked-residue training: reading, hold-out, batches, masking.

Batches depend on a random generator alone; give each step its own and a resumed run sees
what an unbroken one would have.
"""

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from angelo.errors import SequenceError
from angelo.sequences import SUBSTITUTES
from angelo_export.networks.language import ALPHABET

#: The 20 amino acids, the only residues that are ever masked, scored or put in by chance.
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
BEGIN, PAD, END, MASK = (ALPHABET.index(f"<{name}>") for name in ("cls", "pad", "eos", "mask"))
#: Token of everything that is not one of the 20, as in ``angelo.types.SequenceRecord``.
UNKNOWN = ALPHABET.index("X")
AMINO_ACID_TOKENS = np.array([ALPHABET.index(letter) for letter in AMINO_ACIDS], np.int64)
#: Target of places that are not to be predicted; what torch's cross-entropy leaves out.
NO_TARGET = -100

#: Fraction of residues to predict, and of those the fractions replaced by the mask token
#: and by a random residue; the rest stay as they are (Devlin et al. 2018, as in ESM).
CHOSEN_FRACTION, MASKED_FRACTION, RANDOM_FRACTION = 0.15, 0.8, 0.1
#: One sequence in this many is held out.
HELD_OUT_ONE_IN = 100
#: Sequences of one batch are at least this fraction of its longest.
SHORTEST_FRACTION = 0.9
#: Characters that stand for no residue at all, for ``str.translate``.
GAPS = {ord("-"): None, ord("."): None}
#: Sequences shorter than this say little about context.
MIN_RESIDUES = 30


def _token_of_byte() -> UInt8[np.ndarray, "256"]:
    table = np.full(256, UNKNOWN, np.uint8)
    for letter in (*AMINO_ACIDS, *SUBSTITUTES):
        token = ALPHABET.index(SUBSTITUTES.get(letter, letter))
        table[[ord(letter), ord(letter.lower())]] = token
    return table


@dataclass(frozen=True, slots=True)
class Corpus:
    """Many sequences as one array of tokens."""

    tokens: UInt8[np.ndarray, " n"]
    """Residues of all sequences, one after the other, without special tokens."""
    starts: Int64[np.ndarray, " s1"]
    """Where each sequence starts, and as a last entry where the last one ends."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Int64[np.ndarray, " s"]:
        """Residues of each sequence."""
        return np.diff(self.starts)


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences to complete."""

    inputs: Int64[np.ndarray, "b l"]
    """Tokens with some residues replaced; special tokens and padding included."""
    targets: Int64[np.ndarray, "b l"]
    """The true token where it is to be predicted, else ``NO_TARGET``."""

    @property
    def n_targets(self) -> int:
        """Residues to predict."""
        return int((self.targets != NO_TARGET).sum())


def read_sequences(path: Path) -> list[str]:
    """Read a FASTA file, plain or gzipped; headers are dropped, order is kept.

    Unlike ``angelo.sequences.read_fasta``, which reports every odd letter to a person, this
    is made for millions of residues.

    Raises
    ------
    SequenceError
        If the file cannot be read or holds no sequence of at least ``MIN_RESIDUES``.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SequenceError(
            f"{path}: cannot be read as FASTA ({error}); give another file"
        ) from error
    records = (record.partition("\n")[2] for record in ("\n" + text).split("\n>")[1:])
    sequences = ["".join(record.split()).translate(GAPS).rstrip("*") for record in records]
    if not (kept := [sequence for sequence in sequences if len(sequence) >= MIN_RESIDUES]):
        raise SequenceError(
            f"{path}: {len(sequences)} FASTA records, none of {MIN_RESIDUES} residues or more; "
            "give a file of protein sequences"
        )
    return kept


def is_held_out(sequence: str) -> bool:
    """Return whether a sequence is kept from training: the same in every file and run."""
    digest = hashlib.blake2b(sequence.upper().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0


def corpus_from_sequences(sequences: list[str]) -> Corpus:
    """Encode sequences as ``angelo.sequences`` reads them: U as C, O as K, the unknown as X."""
    residues = np.frombuffer("".join(sequences).encode("latin-1", "replace"), np.uint8)
    starts = np.zeros(len(sequences) + 1, np.int64)
    np.cumsum([len(sequence) for sequence in sequences], out=starts[1:])
    return Corpus(_token_of_byte()[residues], starts)


def read_corpora(path: Path) -> tuple[Corpus, Corpus]:
    """Read the sequences to train on and those held out.

    Raises
    ------
    SequenceError
        If the file cannot be used or is too small to hold anything out.
    """
    sequences = read_sequences(path)
    kept_out = [sequence for sequence in sequences if is_held_out(sequence)]
    trained_on = [sequence for sequence in sequences if not is_held_out(sequence)]
    if not (kept_out and trained_on):
        raise SequenceError(
            f"{path}: {len(sequences)} sequences are too few to hold out about 1 % of them; "
            "give a file of several hundred or more"
        )
    return corpus_from_sequences(trained_on), corpus_from_sequences(kept_out)


def draw_crops(
    corpus: Corpus, rng: np.random.Generator, *, tokens: int, crop: int
) -> Int64[np.ndarray, "b l"]:
    """Draw sequences of like length, cropped at random places, to fill a batch.

    Every sequence is about equally likely: a length is drawn in proportion to how many
    residues the corpus has of it (after cropping), then as many sequences of about this length
    as there is room for.

    Parameters
    ----------
    tokens
        Size of the batch, padding and special tokens included; at least one crop is drawn.
    crop
        Longest piece of a sequence, residues.
    """
    lengths = np.minimum(corpus.lengths, crop)
    of_length = np.bincount(lengths, minlength=crop + 1)
    share = of_length * np.arange(crop + 1)
    longest = int(rng.choice(crop + 1, p=share / share.sum()))
    shortest = int(np.ceil(SHORTEST_FRACTION * longest))
    alike = np.flatnonzero((lengths >= shortest) & (lengths <= longest))
    n_crops = max(1, tokens // (longest + 2))
    return crops_of(corpus, rng.choice(alike, n_crops), rng, crop=crop)


def crops_of(
    corpus: Corpus, chosen: Int64[np.ndarray, " b"], rng: np.random.Generator, *, crop: int
) -> Int64[np.ndarray, "b l"]:
    """Cut a random piece from each chosen sequence: begin, residues, end, padding.

    Begin and end tokens mark the ends of the piece, not of the protein, as in ESM.
    """
    lengths = np.minimum(corpus.lengths[chosen], crop)
    starts = corpus.starts[chosen] + rng.integers(corpus.lengths[chosen] - lengths + 1)
    crops = np.full((len(chosen), int(lengths.max()) + 2), PAD, np.int64)
    crops[:, 0] = BEGIN
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        crops[row, 1 : length + 1] = corpus.tokens[start : start + length]
        crops[row, length + 1] = END
    return crops


def mask_residues(tokens: Int64[np.ndarray, "b l"], rng: np.random.Generator) -> Batch:
    """Choose residues to predict and replace most of them."""
    is_chosen = np.isin(tokens, AMINO_ACID_TOKENS) & (
        rng.random(tokens.shape) < CHOSEN_FRACTION
    )
    fate = rng.random(tokens.shape)
    is_masked = is_chosen & (fate < MASKED_FRACTION)
    is_random = is_chosen & ~is_masked & (fate < MASKED_FRACTION + RANDOM_FRACTION)
    inputs = np.where(is_masked, MASK, tokens)
    inputs = np.where(is_random, rng.choice(AMINO_ACID_TOKENS, tokens.shape), inputs)
    return Batch(inputs, np.where(is_chosen, tokens, NO_TARGET))


def held_out_batches(corpus: Corpus, *, seed: int, size: int, crop: int) -> list[Batch]:
    """Every sequence once, in order, with residues to predict; masked ones only.

    What stays visible or was replaced by chance is left out of the targets, since getting it
    right says less. The same seed gives the same crops and masks.
    """
    rng = np.random.default_rng(seed)
    batches = []
    for first in range(0, len(corpus), size):
        chosen = np.arange(first, min(first + size, len(corpus)))
        batch = mask_residues(crops_of(corpus, chosen, rng, crop=crop), rng)
        targets = np.where(batch.inputs == MASK, batch.targets, NO_TARGET)
        batches.append(Batch(batch.inputs, targets))
    return batches


def unigram_scores(training: Corpus, batches: list[Batch]) -> tuple[float, float]:
    """Mean loss, nats, and accuracy of knowing no more than amino-acid frequencies."""
    counts = np.bincount(training.tokens, minlength=len(ALPHABET))[AMINO_ACID_TOKENS]
    frequency = np.zeros(len(ALPHABET))
    frequency[AMINO_ACID_TOKENS] = (counts + 1) / (counts + 1).sum()  # none is impossible
    targets = np.concatenate([batch.targets[batch.targets != NO_TARGET] for batch in batches])
    loss = -np.log(frequency[targets]).mean()
    return float(loss), float((targets == frequency.argmax()).mean())
