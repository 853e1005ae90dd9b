"""Word and character error rates with their counts and confidence intervals.

A corpus rate is total errors over total reference words, never a mean of utterance rates. Counts are jiwer's
(`evaluation.counts`), intervals are bootstrapped over clusters of utterances, for example speakers or programmes,
where utterances depend on each other (`evaluation.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from evaluation.bootstrap import BOOTSTRAP_SAMPLES, CONFIDENCE, ratio_interval
from evaluation.counts import (
    Counts,
    EditCounts,
    IntArray,
    ScoreError,
    TextCounts,
    check_lengths,
    count_characters,
    count_texts,
    count_words,
    group_indices,
)

__all__ = [
    "BOOTSTRAP_SAMPLES",
    "CONFIDENCE",
    "Counts",
    "Normalizer",
    "Rate",
    "Score",
    "ScoreError",
    "basic_normalizer",
    "count_characters",
    "count_pairs",
    "count_words",
    "normalize_texts",
    "score",
    "score_counts",
]

Normalizer = Callable[[str], str]
basic_normalizer: Normalizer = BasicTextNormalizer()
"""The model card's: lower case, NFKC, symbols to spaces, text in brackets dropped; ñ and accents stay."""


@dataclass(frozen=True)
class Rate:
    """An error rate, the counts behind it, and its interval."""

    counts: Counts
    low: float
    """Lower end of the 95 % interval; nan where one cluster says nothing about spread."""
    high: float
    """Upper end of the 95 % interval."""

    @property
    def value(self) -> float:
        return self.counts.rate


@dataclass(frozen=True)
class Score:
    """How a set of hypotheses compares with its references."""

    n_utterances: int
    wer: Rate
    cer: Rate
    insertions_on_empty: int
    """Words written where the reference is empty: text invented on silence."""


def score(
    refs: Sequence[str],
    hyps: Sequence[str],
    *,
    normalizer: Normalizer = basic_normalizer,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Score:
    """Score hypotheses against references.

    Args:
        refs, hyps: raw texts, pair by pair.
        normalizer: applied to both before counting.
        clusters: what each utterance belongs to (speaker, programme; None: not known); None resamples utterances.
        seed: of the bootstrap: the same inputs give the same intervals.

    Raises:
        ScoreError: the numbers of references, hypotheses and clusters differ, or there are none.
    """
    check_lengths(refs, hyps, clusters)
    return score_counts(count_pairs(refs, hyps, normalizer), clusters=clusters, seed=seed)


def count_pairs(
    refs: Sequence[str], hyps: Sequence[str], normalizer: Normalizer = basic_normalizer
) -> TextCounts:
    """Edit counts of each utterance, from raw texts.

    Raises:
        ScoreError: the numbers of references and hypotheses differ, or there are none.
    """
    check_lengths(refs, hyps, None)
    return count_texts(normalize_texts(refs, normalizer), normalize_texts(hyps, normalizer))


def normalize_texts(texts: Sequence[str], normalizer: Normalizer) -> list[str]:
    """Normalised texts without space at their ends."""
    return [normalizer(text).strip() for text in texts]


def score_counts(counts: TextCounts, *, clusters: Sequence[Hashable] | None = None, seed: int = 0) -> Score:
    """The score of utterances whose counts are known."""
    groups = group_indices(clusters, len(counts.words))
    words = counts.words
    return Score(
        n_utterances=len(words),
        wer=_rate(words, groups, seed),
        cer=_rate(counts.characters, groups, seed),
        insertions_on_empty=int(words.insertions[words.reference_lengths == 0].sum()),
    )


def _rate(counts: EditCounts, groups: IntArray, seed: int) -> Rate:
    low, high = ratio_interval(counts.errors, counts.reference_lengths, groups, seed)
    return Rate(counts.total, low, high)
