"""Unpaired comparison of two windows of corrected segments: is newer material harder to transcribe than it was?

Windows hold different material, so each segment is compared with the reference rate of its own stratum (for example
broadcaster and kind of programme): the current window's errors against those that the reference's rates let expect
at the current mix. A mix with more interviews in it does not alarm; interviews that became worse do. (Indirect
standardisation, as of standardised mortality ratios: Breslow & Day, Statistical Methods in Cancer Research, volume II,
1987, chapter 2.)

A night has few recordings, often one of a stratum, and their own spread says little. So the spread of recordings is
estimated in the reference window, stratum by stratum, and tested for as if nothing had changed. Sums of errors are
skewed; the cube root of their ratio to expectation is nearly normal (Wilson & Hilferty, "The distribution of
chi-square", PNAS 17, 1931, for the gamma distribution).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from evaluation.bootstrap import CONFIDENCE, cluster_sums, known_error, ratio_standard_error, two_sided_t
from evaluation.chart import Residual, student_z
from evaluation.counts import EditCounts, FloatArray, ScoreError, group_indices

MIN_REFERENCE_CLUSTERS = 5
"""Clusters that a stratum needs in the reference window, for its spread to be known."""


@dataclass(frozen=True)
class Window:
    """Corrected segments of some days: counts, and what each segment belongs to."""

    words: EditCounts
    strata: Sequence[Hashable]
    clusters: Sequence[Hashable] | None = None
    """Recording, speaker or programme of each segment; None where it is not known."""

    @cached_property
    def by_stratum(self) -> dict[Hashable, FloatArray]:
        """Errors and words by cluster, shape (n_clusters, 2), for each stratum in order of appearance."""
        numbers = {stratum: number for number, stratum in enumerate(dict.fromkeys(self.strata))}
        members = np.array([numbers[stratum] for stratum in self.strata])
        groups = group_indices(self.clusters, len(self.words))
        found: dict[Hashable, FloatArray] = {}
        for stratum, number in numbers.items():
            chosen = members == number
            _, within = np.unique(groups[chosen], return_inverse=True)
            counts = self.words.take(chosen)
            sums = cluster_sums(within.astype(np.int64), counts.errors, counts.reference_lengths)
            found[stratum] = sums[(sums > 0).any(axis=1)]
        return found


@dataclass(frozen=True)
class Stratum:
    """One stratum in both windows."""

    name: Hashable
    weight: float
    """Its share of the current window's words, among the strata that are compared."""
    reference_rate: float
    current_rate: float
    n_reference_words: int
    n_current_words: int


@dataclass(frozen=True)
class WindowDifference:
    """The current window's word error rate less what the reference lets expect at the same mix."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    standard_error: float
    """If nothing changed: the spread that the reference's recordings let expect of this window."""
    reference_error: float
    """The part of the standard error that comes from the reference window: the same every night."""
    z: float
    """As a standard normal value, if nothing changed."""
    p_value: float
    """Two-sided, of z."""
    reference_rate: float
    """Expected: the reference's rates at the current mix."""
    crude_value: float
    """Difference of the windows' rates over all words: what a changed mix alone also moves."""
    strata: tuple[Stratum, ...]
    left_out: tuple[Hashable, ...]
    """Strata of the current window of which the reference has too few clusters."""
    coverage: float
    """Share of the current window's words in the strata that were compared."""

    @property
    def relative(self) -> float:
        """The difference as a share of the expected rate."""
        return (
            self.value / self.reference_rate if self.reference_rate else math.copysign(math.inf, self.value)
        )

    @property
    def residual(self) -> Residual:
        """For the chart. Nights must not share segments: give the chart each night's new ones."""
        return Residual(self.value, self.standard_error, self.reference_error, self.z)


def compare_windows(reference: Window, current: Window) -> WindowDifference:
    """Compare two windows that share no audio.

    Clusters of the current window are supposed to spread as the reference's do; where they are longer, their errors
    are taken to depend on each other fully, which errs on the quiet side.

    Raises:
        ScoreError: a window is empty, its parts differ in length, or no stratum can be compared.
    """
    before, now = _cluster_strata(reference, "reference"), _cluster_strata(current, "current")
    usable = [
        name for name in now if name in before and _is_known(before[name]) and now[name][:, 1].sum() > 0
    ]
    if not usable:
        raise ScoreError("the reference window knows no stratum of the current one well enough to compare")
    errors = {name: float(now[name][:, 0].sum()) for name in usable}
    lengths = {name: float(now[name][:, 1].sum()) for name in usable}
    rates = {name: float(before[name][:, 0].sum() / before[name][:, 1].sum()) for name in usable}
    n_words = sum(lengths.values())
    observed, expected = sum(errors.values()) / n_words, sum(rates[n] * lengths[n] for n in usable) / n_words
    lasting = math.sqrt(
        sum((lengths[name] / n_words * ratio_standard_error(*before[name].T)) ** 2 for name in usable)
    )
    own = math.sqrt(sum(_variance(before[name], now[name]) for name in usable)) / n_words
    error = known_error(math.hypot(own, lasting), round(max(observed, expected) * n_words), n_words)
    z = _z(observed, expected, error)
    degrees = max(1, sum(len(before[name]) - 1 for name in usable))
    # errors vary with their rate: what the interval is about has tonight's rate, not the reference's
    margin = error * math.sqrt(max(1.0, observed / expected)) if expected else error
    margin *= -float(stdtrit(degrees, (1 - CONFIDENCE) / 2))
    return WindowDifference(
        value=observed - expected,
        low=observed - expected - margin,
        high=observed - expected + margin,
        standard_error=error,
        reference_error=lasting,
        z=z,
        p_value=two_sided_t(z, math.inf),
        reference_rate=expected,
        crude_value=current.words.total.rate - reference.words.total.rate,
        strata=tuple(
            Stratum(
                name=name,
                weight=lengths[name] / n_words,
                reference_rate=rates[name],
                current_rate=errors[name] / lengths[name],
                n_reference_words=int(before[name][:, 1].sum()),
                n_current_words=int(lengths[name]),
            )
            for name in usable
        ),
        left_out=tuple(name for name in now if name not in lengths),
        coverage=n_words / max(1, current.words.total.reference_length),
    )


def _is_known(sums: FloatArray) -> bool:
    return len(sums) >= MIN_REFERENCE_CLUSTERS and float(sums[:, 1].sum()) > 0


def _cluster_strata(window: Window, name: str) -> dict[Hashable, FloatArray]:
    """Errors and words by cluster, shape (n_clusters, 2), for each stratum in order of appearance."""
    n = len(window.words)
    if n == 0:
        raise ScoreError(f"the {name} window is empty")
    if len(window.strata) != n or (window.clusters is not None and len(window.clusters) != n):
        raise ScoreError(f"the {name} window needs a stratum and a cluster for each of its {n:,} segments")
    return window.by_stratum


def _variance(before: FloatArray, now: FloatArray) -> float:
    """Variance of a stratum's errors tonight, from the spread of the reference's clusters."""
    n_clusters, words = len(before), before[:, 1]
    residuals = before[:, 0] - before[:, 0].sum() / words.sum() * words
    per_word = n_clusters / (n_clusters - 1) * float((residuals**2).sum() / words.sum())
    # mean cluster as a word of it sees it: the size that dependence within clusters works with
    typical, tonights = (float((sums[:, 1] ** 2).sum() / sums[:, 1].sum()) for sums in (before, now))
    return per_word * max(1.0, tonights / typical) * float(now[:, 1].sum())


def _z(observed: float, expected: float, error: float) -> float:
    if observed == expected:
        return 0.0
    if not error > 0:
        return math.nan
    if not expected:
        return student_z(observed, error, math.inf)
    variation = error / expected
    return float((np.cbrt(observed / expected) - (1 - variation**2 / 9)) / (variation / 3))
