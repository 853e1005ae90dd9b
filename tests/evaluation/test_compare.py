"""Paired comparisons find differences that are there, in the right direction, and few that are not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.compare import Direction, compare, compare_counts
from evaluation.counts import Counts, EditCounts, ScoreError

REFS = [f"a b c d e f g h {index}" for index in range(200)]


def with_errors(every: int) -> list[str]:
    return [ref if index % every else ref.replace("d", "x") for index, ref in enumerate(REFS)]


def test_a_worse_set_is_named_worse_with_its_effect() -> None:
    comparison = compare(REFS, with_errors(10), with_errors(4))
    words = comparison.words
    assert words.direction is Direction.WORSE
    assert words.value == pytest.approx((50 - 20) / (200 * 9))
    assert words.low < words.value < words.high
    assert words.low > 0
    assert words.relative == pytest.approx(1.5)
    assert max(words.p_value, words.p_bootstrap, comparison.segments.p_value) < 0.01
    assert comparison.segments.mean < 0  # sc_stats counts a less b


def test_the_other_way_round_is_better_by_as_much() -> None:
    there, back = (
        compare(REFS, with_errors(10), with_errors(4)),
        compare(REFS, with_errors(4), with_errors(10)),
    )
    assert back.words.direction is Direction.BETTER
    assert back.words.value == -there.words.value
    assert back.segments.z == -there.segments.z


def test_equal_sets_do_not_differ_at_all() -> None:
    words = compare(REFS, with_errors(5), with_errors(5)).words
    assert (words.value, words.low, words.high, words.p_value, words.p_bootstrap) == (0, 0, 0, 1, 1)
    assert words.direction is Direction.UNDECIDED


def test_one_cluster_decides_nothing() -> None:
    words = compare(REFS, with_errors(10), with_errors(2), clusters=["ana"] * 200).words
    assert words.direction is Direction.UNDECIDED
    assert math.isnan(words.low)


def test_a_difference_of_one_speaker_decides_nothing() -> None:
    hyps = [ref.replace("d", "x") if index < 40 else ref for index, ref in enumerate(REFS)]
    by_speaker = compare(REFS, REFS, hyps, clusters=[index // 40 for index in range(200)])
    assert by_speaker.words.direction is Direction.UNDECIDED
    assert compare(REFS, REFS, hyps).words.direction is Direction.WORSE


def test_false_alarms_on_equal_systems_with_dependent_errors_stay_near_the_stated_rate() -> None:
    generator = np.random.default_rng(8)
    alarms = 0
    n_trials, n_speakers, size, n_words = 250, 40, 10, 20
    speakers = np.repeat(np.arange(n_speakers), size)
    for trial in range(n_trials):
        rates = generator.gamma(2, 0.05, (2, n_speakers))[:, speakers]
        errors = generator.binomial(n_words, np.minimum(rates, 1))
        a, b = (EditCounts.of([Counts(n_words - e, e, 0, 0) for e in row]) for row in errors.tolist())
        difference = compare_counts(a, b, clusters=list(speakers), seed=trial)
        alarms += difference.direction is not Direction.UNDECIDED
    assert alarms / n_trials < 0.09


def test_counts_of_other_references_are_refused() -> None:
    with pytest.raises(ScoreError, match="cannot be paired"):
        compare_counts(EditCounts.of([Counts(3, 0, 0, 0)]), EditCounts.of([Counts(4, 0, 0, 0)]))
    with pytest.raises(ScoreError, match="2 references, 1 hypotheses"):
        compare(["a", "b"], ["a", "b"], ["a"])
