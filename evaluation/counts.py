"""Edit counts per utterance, in words and characters, as jiwer aligns them.

Counts are kept and rates derived: every rate, interval and test of this room starts from these arrays.
Alignment is jiwer's (Levenshtein distance by rapidfuzz, all edits weighing the same).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

BLOCK_UTTERANCES = 1_000
"""Utterances aligned in one call: jiwer keeps every alignment of a call in memory."""


class ScoreError(ValueError):
    """References and hypotheses that cannot be scored together."""


@dataclass(frozen=True)
class Counts:
    """Edit counts against a reference, in words or characters."""

    hits: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def reference_length(self) -> int:
        return self.hits + self.substitutions + self.deletions

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per unit of reference. Over an empty reference: 0 without insertions, else infinite."""
        if self.reference_length == 0:
            return 0.0 if self.errors == 0 else float("inf")
        return self.errors / self.reference_length

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


@dataclass(frozen=True)
class EditCounts:
    """Edit counts of each utterance: four int64 arrays of shape (n_utterances,)."""

    hits: IntArray
    substitutions: IntArray
    deletions: IntArray
    insertions: IntArray

    @classmethod
    def of(cls, rows: Sequence[Counts]) -> EditCounts:
        """From one `Counts` an utterance."""
        table = np.array(
            [(row.hits, row.substitutions, row.deletions, row.insertions) for row in rows], dtype=np.int64
        ).reshape(-1, 4)
        return cls(*table.T)

    def __len__(self) -> int:
        return len(self.hits)

    @property
    def errors(self) -> IntArray:
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_lengths(self) -> IntArray:
        return self.hits + self.substitutions + self.deletions

    @property
    def total(self) -> Counts:
        return Counts(
            int(self.hits.sum()),
            int(self.substitutions.sum()),
            int(self.deletions.sum()),
            int(self.insertions.sum()),
        )

    def take(self, chosen: npt.NDArray[Any]) -> EditCounts:
        """The counts of some utterances, by index or by mask."""
        return EditCounts(
            self.hits[chosen], self.substitutions[chosen], self.deletions[chosen], self.insertions[chosen]
        )


@dataclass(frozen=True)
class TextCounts:
    """What is known of each utterance after alignment: enough for every rate, interval and test."""

    words: EditCounts
    characters: EditCounts
    """Spaces included, as jiwer counts."""


def count_words(reference: str, hypothesis: str) -> Counts:
    """Edit counts in words, of texts that are already normalised."""
    return count_many_words([reference], [hypothesis]).total


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Edit counts in characters, spaces included, of texts that are already normalised."""
    return count_many_characters([reference], [hypothesis]).total


def count_many_words(refs: Sequence[str], hyps: Sequence[str]) -> EditCounts:
    """Edit counts in words for each pair of normalised texts."""
    return _count_many(refs, hyps, jiwer.process_words, lambda text: len(text.split()))


def count_many_characters(refs: Sequence[str], hyps: Sequence[str]) -> EditCounts:
    """Edit counts in characters for each pair of normalised texts."""
    return _count_many(refs, hyps, jiwer.process_characters, lambda text: len(text.strip()))


def count_texts(refs: Sequence[str], hyps: Sequence[str]) -> TextCounts:
    """Word and character counts for each pair of normalised texts."""
    return TextCounts(count_many_words(refs, hyps), count_many_characters(refs, hyps))


def check_lengths(refs: Sequence[str], hyps: Sequence[str], clusters: Sequence[Hashable] | None) -> None:
    """Refuse what cannot be paired.

    Raises:
        ScoreError: the numbers of references, hypotheses and clusters differ, or there are none.
    """
    if len(refs) != len(hyps) or (clusters is not None and len(clusters) != len(refs)):
        raise ScoreError(
            f"{len(refs)} references, {len(hyps)} hypotheses"
            + (f" and {len(clusters)} clusters" if clusters is not None else "")
            + ": each reference needs one of each"
        )
    if not refs:
        raise ScoreError("there is nothing to score: no references")


def group_indices(clusters: Sequence[Hashable] | None, n: int) -> IntArray:
    """For each utterance the number of its cluster, 0.. in order of first appearance.

    An utterance whose cluster is None (its speaker or programme is not known) is a cluster of its own.
    """
    if clusters is None:
        return np.arange(n)
    named = [object() if cluster is None else cluster for cluster in clusters]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(named))}
    return np.fromiter(map(numbers.__getitem__, named), np.int64, len(named))


def _count_many(
    refs: Sequence[str],
    hyps: Sequence[str],
    align: Callable[[list[str], list[str]], Any],
    length: Callable[[str], int],
) -> EditCounts:
    table = np.zeros((len(refs), 4), dtype=np.int64)
    different = []
    for index, (ref, hyp) in enumerate(zip(refs, hyps, strict=True)):
        if ref == hyp:
            table[index, 0] = length(ref)  # what alignment would find, without aligning
        else:
            different.append(index)
    for start in range(0, len(different), BLOCK_UTTERANCES):
        block = different[start : start + BLOCK_UTTERANCES]
        aligned = align([refs[index] for index in block], [hyps[index] for index in block])
        for index, chunks in zip(block, aligned.alignments, strict=True):
            table[index] = _count_chunks(chunks)
    return EditCounts(*table.T.copy())


def _count_chunks(chunks: Sequence[Any]) -> tuple[int, int, int, int]:
    hits = substitutions = deletions = insertions = 0
    for chunk in chunks:
        if chunk.type == "equal":
            hits += chunk.ref_end_idx - chunk.ref_start_idx
        elif chunk.type == "substitute":
            substitutions += chunk.ref_end_idx - chunk.ref_start_idx
        elif chunk.type == "delete":
            deletions += chunk.ref_end_idx - chunk.ref_start_idx
        else:
            insertions += chunk.hyp_end_idx - chunk.hyp_start_idx
    return hits, substitutions, deletions, insertions
