"""Word and character error rates with their counts and confidence intervals.

Counts are kept and rates derived: a corpus rate is total errors over total reference words, never a mean of
utterance rates. Intervals are percentile bootstrap over utterances (Bisani & Ney, "Bootstrap estimates for
confidence intervals in ASR performance evaluation", ICASSP 2004), or over clusters of utterances, for example
speakers or programmes, where utterances depend on each other (arXiv 1912.09508).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import numpy.typing as npt
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95

Normalizer = Callable[[str], str]
basic_normalizer: Normalizer = BasicTextNormalizer()
"""The model card's: lower case, NFKC, symbols to spaces, text in brackets dropped; ñ and accents stay."""


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
class Rate:
    """An error rate, the counts behind it, and its interval."""

    counts: Counts
    low: float
    """Lower end of the 95 % interval."""
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


def count_words(reference: str, hypothesis: str) -> Counts:
    """Edit counts in words, of texts that are already normalised."""
    return _count(reference.split(), hypothesis.split())


def count_characters(reference: str, hypothesis: str) -> Counts:
    """Edit counts in characters, spaces included, of texts that are already normalised."""
    return _count(list(reference), list(hypothesis))


def _count(reference: list[str], hypothesis: list[str]) -> Counts:
    if not reference:
        return Counts(0, 0, 0, len(hypothesis))
    if not hypothesis:
        return Counts(0, 0, len(reference), 0)
    # jiwer joins and splits on the delimiter; a unit separator never occurs in text
    joined = jiwer.process_words(
        "\x1f".join(reference),
        "\x1f".join(hypothesis),
        reference_transform=_split_units,
        hypothesis_transform=_split_units,
    )
    return Counts(joined.hits, joined.substitutions, joined.deletions, joined.insertions)


_split_units = jiwer.Compose([jiwer.ReduceToListOfListOfWords(word_delimiter="\x1f")])


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
        clusters: what each utterance belongs to (speaker, programme); None resamples utterances.
        seed: of the bootstrap: the same inputs give the same intervals.

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
    pairs = [(normalizer(ref).strip(), normalizer(hyp).strip()) for ref, hyp in zip(refs, hyps, strict=True)]
    words = [count_words(ref, hyp) for ref, hyp in pairs]
    characters = [count_characters(ref, hyp) for ref, hyp in pairs]
    groups = _group_indices(clusters, len(refs))
    return Score(
        n_utterances=len(refs),
        wer=_rate(words, groups, seed),
        cer=_rate(characters, groups, seed),
        insertions_on_empty=sum(w.insertions for w in words if w.reference_length == 0),
    )


def _group_indices(clusters: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.int64]:
    """For each utterance the number of its cluster, 0.. in order of first appearance."""
    if clusters is None:
        return np.arange(n)
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(cluster, len(numbers)) for cluster in clusters])


def _rate(counts: Sequence[Counts], groups: npt.NDArray[np.int64], seed: int) -> Rate:
    total = sum(counts, Counts(0, 0, 0, 0))
    n_groups = int(groups.max()) + 1
    errors = np.bincount(groups, [c.errors for c in counts], n_groups)
    lengths = np.bincount(groups, [c.reference_length for c in counts], n_groups)
    if total.reference_length == 0 or n_groups < 2:
        # one cluster cannot be resampled: nothing is known about its spread
        return Rate(total, float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    rates = np.empty(BOOTSTRAP_SAMPLES)
    for sample in range(BOOTSTRAP_SAMPLES):
        drawn = generator.integers(0, n_groups, n_groups)
        length = lengths[drawn].sum()
        rates[sample] = errors[drawn].sum() / length if length else np.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(rates, [tail, 1 - tail])
    return Rate(total, float(low), float(high))
