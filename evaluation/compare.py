"""Paired comparison of two hypothesis sets on the same references: which is better, by how much, how surely.

Everything works on errors of the same utterance, so what is hard for both cancels. The interval and `p_value` rest
on differences summed by cluster; the matched-pairs test (`evaluation.matched_pairs`) takes segments as independent,
which holds within an utterance but not between those of one speaker: with clusters, trust the former.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.bootstrap import (
    BOOTSTRAP_SAMPLES,
    cluster_sums,
    interval,
    known_error,
    ratio_standard_error,
    ratios,
    resample_sums,
    two_sided_p,
    two_sided_t,
)
from evaluation.chart import Residual, student_z
from evaluation.counts import Counts, EditCounts, ScoreError, check_lengths, count_many_words, group_indices
from evaluation.matched_pairs import MatchedPairs, matched_pairs
from evaluation.score import Normalizer, basic_normalizer, normalize_texts

SIGNIFICANCE = 0.05


class Direction(StrEnum):
    """What hypothesis set b is, next to a."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Difference:
    """The word error rate of b less that of a, on the same utterances. Positive: b makes more errors."""

    a: Counts
    b: Counts
    value: float
    low: float
    """Lower end of the 95 % interval; nan where one cluster says nothing about spread."""
    high: float
    standard_error: float
    """By linearisation over clusters."""
    p_value: float
    """Two-sided, of Student's t over clusters: the difference divided by its standard error."""
    p_bootstrap: float
    """Two-sided, from the same draws as the interval; not below 2 / 1,001."""
    n_clusters: int
    n_clusters_changed: int
    """Clusters in which the two differ in errors."""

    @property
    def relative(self) -> float:
        """The difference as a share of a's rate."""
        return self.value / self.a.rate if self.a.rate else math.copysign(math.inf, self.value)

    @property
    def residual(self) -> Residual:
        """For the chart, where a is the accepted baseline.

        All of its error lasts: both runs hear the same utterances every night, and a model that decodes the same
        way every night repeats its luck, too.
        """
        return Residual(
            value=self.value,
            standard_error=self.standard_error,
            lasting_error=self.standard_error,
            z=student_z(self.value, self.standard_error, max(1, self.n_clusters_changed - 1)),
        )

    @property
    def direction(self) -> Direction:
        if not self.p_value < SIGNIFICANCE:
            return Direction.UNDECIDED
        return Direction.WORSE if self.value > 0 else Direction.BETTER


@dataclass(frozen=True)
class Comparison:
    """Two hypothesis sets on the same references."""

    n_utterances: int
    words: Difference
    segments: MatchedPairs


def compare(
    refs: Sequence[str],
    hyps_a: Sequence[str],
    hyps_b: Sequence[str],
    *,
    normalizer: Normalizer = basic_normalizer,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare b with a. Arguments as of `evaluation.score.score`.

    Raises:
        ScoreError: the numbers of texts or clusters differ, there are none, or one is too long for the
            matched-pairs test.
    """
    check_lengths(refs, hyps_a, clusters)
    check_lengths(refs, hyps_b, clusters)
    references = normalize_texts(refs, normalizer)
    first, second = normalize_texts(hyps_a, normalizer), normalize_texts(hyps_b, normalizer)
    return Comparison(
        n_utterances=len(refs),
        words=compare_counts(
            count_many_words(references, first),
            count_many_words(references, second),
            clusters=clusters,
            seed=seed,
        ),
        segments=matched_pairs(references, first, second),
    )


def compare_counts(
    a: EditCounts,
    b: EditCounts,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> Difference:
    """The difference from counts that are already known, utterance by utterance in the same order.

    Args:
        samples: bootstrap draws, for the interval and `p_bootstrap`; nothing else rests on them.

    Raises:
        ScoreError: the counts are not of the same references.
    """
    if len(a) != len(b) or (a.reference_lengths != b.reference_lengths).any():
        raise ScoreError("the two sets of counts are not of the same references: they cannot be paired")
    groups = group_indices(clusters, len(a))
    sums = cluster_sums(groups, b.errors - a.errors, a.reference_lengths)
    value = float(sums[:, 0].sum() / sums[:, 1].sum()) if sums[:, 1].sum() else math.nan
    drawn = resample_sums(sums, seed, samples)
    draws = ratios(drawn[:, 0], drawn[:, 1])
    low, high = interval(draws, sums)
    error = ratio_standard_error(sums[:, 0], sums[:, 1])
    changed = int((sums[:, 0] != 0).sum())
    if changed:
        error = known_error(error, a.total.errors + b.total.errors, float(sums[:, 1].sum()))
    return Difference(
        a=a.total,
        b=b.total,
        value=value,
        low=low,
        high=high,
        standard_error=error,
        p_value=_p_value(value, error, len(sums), changed),
        p_bootstrap=two_sided_p(draws) if len(sums) > 1 else math.nan,
        n_clusters=len(sums),
        n_clusters_changed=changed,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are, in their order.

    The chance that any true null hypothesis is below 5 % is at most 5 %, however the tests depend on each other (Holm,
    "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979). For the one
    group that a change stands out in it asks for less than Benjamini & Yekutieli's correction, which has more power
    where many move at once (`evaluation.history`).
    """
    n = len(p_values)
    adjusted, highest = [1.0] * n, 0.0
    for rank, index in enumerate(sorted(range(n), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, (n - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _p_value(value: float, error: float, n_clusters: int, n_changed: int) -> float:
    if n_clusters < 2 or math.isnan(value):
        return math.nan
    if n_changed == 0:
        return 1.0
    # clusters in which nothing changed tell little of the spread: they must not lend degrees of freedom
    degrees_of_freedom = max(1, min(n_clusters, n_changed) - 1)
    return two_sided_t(value / error, degrees_of_freedom) if error else 0.0
