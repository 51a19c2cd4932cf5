"""Profiles against a database: which proteins the chains may be."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyhmmer
from pyhmmer.easel import Alphabet, DigitalSequenceBlock, TextSequence
from pyhmmer.plan7 import Domain

from angelo.database import Database, Target
from angelo.profiles import ProfileHmm

#: Hits up to this E-value are reported; HMMER's default.
MAX_E_VALUE = 10.0
#: Hits of a chain that are kept; with the size of a block, bounds memory.
MAX_HITS = 10_000
#: Told of what is done and all there is to do.
Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chain's profile found in a sequence of the database, where it fits best."""

    chain: str
    """Name of the chain."""
    chain_length: int
    """Residues in the chain."""
    target: Target
    """The sequence."""
    e_value: float
    """Stretches of sequence in the whole database that would by chance score as high."""
    score: float
    """Bits."""
    chain_range: tuple[int, int]
    """First and last aligned residue of the chain, counted from 1 along it."""
    target_range: tuple[int, int]
    """First and last aligned residue of the sequence, from 1."""
    n_aligned: int
    """Residues of the chain aligned to one of the sequence."""
    n_identical: int
    """Those among them whose likeliest type is the sequence's."""

    @property
    def identity(self) -> float:
        """Part of the aligned residues whose likeliest type is the sequence's, 0 to 1."""
        return self.n_identical / self.n_aligned


def find_hits(
    profiles: Sequence[ProfileHmm], database: Database, threads: int, progress: Tell
) -> tuple[Hit, ...]:
    """Search a database with all profiles, block by block.

    A sequence is judged by the stretch that fits best: one that holds the chain twice is no
    better than one that holds it once.

    Parameters
    ----------
    profiles
        Of chains, calibrated.
    database
        Is read to its end.
    threads
        CPU threads.
    progress
        Told the bytes of the database that are searched, and all.

    Returns
    -------
    tuple of Hit
        In the order of the profiles, best first for each, 10,000 at most; the same for any
        number of threads.

    Raises
    ------
    SequenceError
        If the database cannot be used.
    """
    found: list[list[Hit]] = [[] for _ in profiles]
    for block in database.blocks():
        for hits, new in zip(found, _search_block(profiles, block, threads), strict=True):
            # E-values are still those for one sequence. The database only grows, so a hit
            # that is too weak now stays so; those that become so are dropped at the end.
            hits += [hit for hit in new if hit.e_value * database.n_sequences <= MAX_E_VALUE]
            hits.sort(key=lambda hit: (-hit.score, hit.target.name))
            del hits[MAX_HITS:]
        progress(database.bytes_read, database.n_bytes)
    n = database.n_sequences
    every = (replace(hit, e_value=hit.e_value * n) for hits in found for hit in hits)
    return tuple(hit for hit in every if hit.e_value <= MAX_E_VALUE)


def best_hits(hits: Sequence[Hit], max_e_value: float = MAX_E_VALUE) -> tuple[Hit, ...]:
    """Best hit of every chain that has one with at most this E-value."""
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.chain, hit)
    return tuple(hit for hit in first.values() if hit.e_value <= max_e_value)


def _search_block(
    profiles: Sequence[ProfileHmm], block: Sequence[Target], threads: int
) -> Iterator[list[Hit]]:
    """Hits of each profile; their E-values are for a database of one sequence."""
    alphabet = Alphabet.amino()
    texts = [
        TextSequence(name=str(index), sequence=target.residues)
        for index, target in enumerate(block)
    ]
    sequences: Any = DigitalSequenceBlock(alphabet, [text.digitize(alphabet) for text in texts])
    searches = pyhmmer.hmmsearch(profiles, sequences, cpus=threads, E=MAX_E_VALUE)
    for profile, hits in zip(profiles, searches, strict=True):
        yield [
            _hit(profile, max(hit.domains, key=lambda domain: domain.score), block)
            for hit in hits.reported
        ]


def _hit(profile: ProfileHmm, domain: Domain, block: Sequence[Target]) -> Hit:
    found = domain.alignment
    pairs = [
        (mine, letter)
        for mine, letter in zip(
            found.hmm_sequence.upper(), found.target_sequence.upper(), strict=True
        )
        if mine != "." and letter != "-"
    ]
    return Hit(
        chain=profile.name,
        chain_length=profile.M,
        target=block[int(domain.hit.name)],
        e_value=domain.pvalue,
        score=domain.score,
        chain_range=(found.hmm_from, found.hmm_to),
        target_range=(found.target_from, found.target_to),
        n_aligned=len(pairs),
        n_identical=sum(mine == letter for mine, letter in pairs),
    )
