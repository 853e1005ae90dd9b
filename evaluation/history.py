"""One unit's measure tonight against its own history, and many such comparisons at once.

For what has no references: mean log-probability, words a second, loop and empty rates, share of speech, for each
broadcaster, programme and decade. Centre and spread are robust, so a bad night in the history does not hide the next
one: the median, and the Qn estimator (Rousseeuw & Croux, "Alternatives to the median absolute deviation", JASA 88,
1993, section 3), which has 82 % of the standard deviation's efficiency where the median absolute deviation has 37 %.

Hundreds of comparisons a night are corrected with Benjamini & Yekutieli ("The control of the false discovery rate in
multiple testing under dependency", Annals of Statistics 29, 2001, theorem 1.3): it holds under any dependence, and a
programme, its broadcaster and its decade share segments, while measures rise and fall together.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.stats import false_discovery_control

from evaluation.bootstrap import two_sided_t
from evaluation.counts import FloatArray

MIN_NIGHTS = 10
"""Fewer measured nights than this are no history."""
FALSE_DISCOVERY_RATE = 0.05
QN_CONSTANT = 2.21914
"""Makes Qn the standard deviation of normal values."""
QN_SMALL = (0.399, 0.994, 0.512, 0.844, 0.611, 0.857, 0.669, 0.872)
"""Corrections for 2 to 9 values (Croux & Rousseeuw, "Time-efficient algorithms", COMPSTAT 1992, section 4)."""
QN_EFFICIENCY = 0.82
MEDIAN_INFLATION = math.pi / 2
"""Variance of the median over that of the mean, of normal values."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Measurement:
    """One night's mean of a measure, and its standard error (over clusters of that night's segments)."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class HistoryTest:
    """Tonight against the unit's own history."""

    value: float
    centre: float
    spread: float
    """Standard deviation between nights, beyond what their own errors explain."""
    t: float
    degrees_of_freedom: float
    p_value: float
    """Two-sided."""
    n_nights: int


@dataclass(frozen=True)
class Finding:
    """A comparison that stays remarkable after correction for how many were made."""

    test: HistoryTest
    adjusted_p: float


def qn(values: FloatArray) -> float:
    """Robust standard deviation: a quartile of the distances between all pairs of values."""
    n = len(values)
    if n < 2:
        return math.nan
    distances = np.abs(values[:, None] - values[None, :])[np.triu_indices(n, 1)]
    half = n // 2 + 1
    rank = half * (half - 1) // 2
    correction = QN_SMALL[n - 2] if n < 10 else n / (n + (1.4 if n % 2 else 3.8))
    return QN_CONSTANT * correction * float(np.partition(distances, rank - 1)[rank - 1])


def against_history(history: Sequence[Measurement], tonight: Measurement) -> HistoryTest | None:
    """Tonight's deviation from the median of earlier nights; None without enough history, or without any error known.

    Its error is made of the spread between nights, tonight's own error, and the median's. A history without any
    spread (every night exactly alike) leaves tonight's own error alone to judge by.
    """
    known = [night for night in history if math.isfinite(night.value)]
    n = len(known)
    if n < MIN_NIGHTS or not math.isfinite(tonight.value):
        return None
    values = np.array([night.value for night in known])
    own = np.array([night.standard_error for night in known])
    typical = float(np.median(own[np.isfinite(own)] ** 2)) if np.isfinite(own).any() else 0.0
    # a rate that is 0 on most nights has no robust spread: its ordinary one, or each night with any would be a finding
    centre, total = float(np.median(values)), (qn(values) or float(values.std(ddof=1))) ** 2
    between = max(0.0, total - typical)
    tonights = tonight.standard_error**2 if math.isfinite(tonight.standard_error) else typical
    error = math.sqrt(between + tonights + MEDIAN_INFLATION * (between + typical) / n)
    deviation = tonight.value - centre
    if not error and deviation:
        return None  # neither the nights nor tonight say how exact they are
    t = deviation / error if error else 0.0
    degrees = QN_EFFICIENCY * (n - 1)
    return HistoryTest(
        value=tonight.value,
        centre=centre,
        spread=math.sqrt(between),
        t=t,
        degrees_of_freedom=degrees,
        p_value=two_sided_t(t, degrees),
        n_nights=n,
    )


def findings(
    tests: Mapping[Key, HistoryTest | None], rate: float = FALSE_DISCOVERY_RATE
) -> dict[Key, Finding]:
    """Of all comparisons made tonight those that remain after correction, the most certain first.

    Args:
        tests: by unit and measure; None (no history) is not counted as made.
        rate: expected share of false ones among what is returned; on a night without any change, at most the
            chance that anything is returned.
    """
    made = {key: test for key, test in tests.items() if test is not None}
    if not made:
        return {}
    adjusted = false_discovery_control([test.p_value for test in made.values()], method="by")
    kept = [
        (key, Finding(test, float(p)))
        for (key, test), p in zip(made.items(), adjusted, strict=True)
        if p <= rate
    ]
    return dict(sorted(kept, key=lambda item: item[1].adjusted_p))
