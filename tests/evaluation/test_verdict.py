"""Verdicts on nights with a known truth: few false alarms, true changes found, and a sentence that says which."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from evaluation.chart import ChartDesign, ChartState, Residual, step
from evaluation.compare import Difference, compare_counts
from evaluation.verdict import Cause, Judgement, Margin, Measured, Verdict, judge, measured
from tests.benchmarks.nights import constant, drift_nights, first, fixed_nights, rising, verdicts

TONIGHT = Measured(0.0, -0.002, 0.002, 1.0, 0.1, is_paired=True)


def judged(z: float, value: float, n_nights: int = 1, *, lasting: float = 0.0) -> Judgement:
    error = abs(value / z) if z else 0.01
    state = ChartState()
    for _ in range(n_nights):
        state = step(state, residual=_residual(value, error, lasting, z))
    return judge("Transcrispeech", state, replace(TONIGHT, difference=value))


def _residual(value: float, error: float, lasting: float, z: float) -> Residual:
    return Residual(value, error, lasting * error, z)


def test_no_change_is_ok() -> None:
    judgement = judged(0.3, 0.0005)
    assert (judgement.verdict, judgement.cause) == (Verdict.OK, Cause.NOTHING)
    assert judgement.sentence.startswith(
        "Transcrispeech: as good as the baseline (10.00 % word error rate); tonight"
    )


def test_a_large_sure_change_is_named_in_one_night() -> None:
    worse, better = judged(6, 0.01), judged(-6, -0.01)
    assert (worse.verdict, worse.cause, worse.effect) == (Verdict.REGRESSED, Cause.ONE_NIGHT, 0.01)
    assert (
        "regressed: 1.00 points above the baseline's 10.00 % word error rate; tonight alone shows it"
        in worse.sentence
    )
    assert (better.verdict, better.effect) == (Verdict.IMPROVED, -0.01)
    assert "1.00 points below" in better.sentence


def test_a_lasting_change_is_named_with_its_nights() -> None:
    judgement = judged(1.5, 0.004, n_nights=6)
    assert (judgement.verdict, judgement.cause, judgement.nights) == (Verdict.REGRESSED, Cause.CHART, 6)
    assert judgement.effect == pytest.approx(0.004)
    assert "over 6 nights; the nights together show it" in judgement.sentence


def test_a_sure_but_small_change_is_watched_only() -> None:
    judgement = judged(6, 0.0006)
    assert (judgement.verdict, judgement.cause) == (Verdict.WATCH, Cause.BELOW_MARGIN)
    assert "less than the 0.20 that matter" in judgement.sentence
    assert judge("x", judgement.state, TONIGHT, margin=Margin(0.001, 0.0001)).verdict is Verdict.REGRESSED


def test_a_first_sign_is_watched() -> None:
    assert judged(2.5, 0.005).verdict is Verdict.WATCH
    assert judged(1.5, 0.005, n_nights=3).cause is Cause.CHART
    assert "a first sign that errors rise" in judged(2.5, 0.005).sentence
    assert judged(-2.5, -0.005).verdict is Verdict.OK


def test_silence_is_never_ok() -> None:
    state = step(step(judged(0.3, 0.0005).state, None), None)
    judgement = judge("Transcrispeech", state, None, baseline_rate=0.1)
    assert (judgement.verdict, judgement.cause) == (Verdict.WATCH, Cause.NOT_MEASURED)
    assert judgement.sentence == "Transcrispeech: not measured for 2 nights; nothing is known"


def test_a_regression_that_is_not_measured_any_more_stays_one() -> None:
    state = step(judged(3, 0.01, n_nights=4).state, None)
    judgement = judge("Transcrispeech", state, None, baseline_rate=0.1)
    assert (judgement.verdict, judgement.cause) == (Verdict.REGRESSED, Cause.CHART)


def test_after_trouble_a_night_far_below_the_baseline_is_an_improvement() -> None:
    state = step(judged(3, 0.01, n_nights=4).state, _residual(-0.02, 0.004, 0.0, -5.0))
    assert judge("x", state, TONIGHT).verdict is Verdict.IMPROVED
    slow = ChartDesign(ceiling=100)
    state = judged(3, 0.01, n_nights=4).state
    for _ in range(9):
        state = step(state, _residual(0.01, 0.0033, 0.0, 3.0), slow)
    state = step(state, _residual(-0.02, 0.004, 0.0, -5.0), slow)
    assert state.up_alarm(slow)
    assert state.down_alarm(slow)
    assert judge("x", state, TONIGHT, design=slow).verdict is Verdict.IMPROVED


def test_the_same_output_every_night_is_ok_for_ever() -> None:
    nights = fixed_nights(np.random.default_rng(1), 0, constant(1))
    assert set(verdicts(nights, 5)) == {Verdict.OK}
    _, tonight = next(nights)
    assert tonight.difference == 0
    assert tonight.is_paired


@pytest.mark.slow
@pytest.mark.parametrize("changed", [0.02, 1.0])
def test_a_thousand_stable_nights_on_a_fixed_set_raise_at_most_five_alarms(changed: float) -> None:
    generator = np.random.default_rng(2)
    found: Counter[Verdict] = Counter()
    for _ in range(10):
        found.update(verdicts(fixed_nights(generator, changed, constant(1)), 100, restart=True))
    assert found[Verdict.REGRESSED] <= 5
    assert found[Verdict.IMPROVED] <= 5
    assert found[Verdict.OK] >= 950


@pytest.mark.slow
def test_a_thousand_stable_nights_of_new_material_raise_at_most_five_alarms() -> None:
    generator = np.random.default_rng(3)
    found: Counter[Verdict] = Counter()
    for _ in range(10):
        found.update(verdicts(drift_nights(generator, constant(1)), 100, restart=True))
    assert found[Verdict.REGRESSED] <= 5
    assert found[Verdict.OK] >= 950


@pytest.mark.slow
def test_changes_that_leave_the_quality_as_it_was_rarely_alarm() -> None:
    """A system that writes a fifth of the utterances differently, and as well, every night from now on."""
    generator = np.random.default_rng(4)
    alarms = sum(
        Verdict.REGRESSED in verdicts(fixed_nights(generator, 0, itertools.repeat(1.0), 0.2), 20)
        for _ in range(60)
    )
    assert alarms <= 3


@pytest.mark.slow
@pytest.mark.parametrize("changed", [0.02, 1.0])
def test_one_point_more_on_a_fixed_set_is_found_within_two_nights(changed: float) -> None:
    generator = np.random.default_rng(5)
    delays = [
        first(verdicts(fixed_nights(generator, changed, constant(1 + 0.01 / 0.1168)), 2)) for _ in range(60)
    ]
    assert np.mean(np.array(delays) <= 2) >= 0.9


@pytest.mark.slow
def test_a_slow_rise_is_found_before_it_is_ten_percent() -> None:
    generator = np.random.default_rng(6)
    delays = [first(verdicts(fixed_nights(generator, 1.0, rising(0.01)), 10)) for _ in range(40)]
    assert np.mean(np.array(delays) < 10) >= 0.9


@pytest.mark.slow
def test_a_fifth_more_errors_in_new_material_are_found_within_two_weeks() -> None:
    generator = np.random.default_rng(7)
    delays = [first(verdicts(drift_nights(generator, constant(1.2)), 14)) for _ in range(100)]
    assert np.mean(np.array(delays) <= 14) >= 0.75


def test_evidence_of_both_kinds_of_comparison_reads_alike() -> None:
    generator = np.random.default_rng(8)
    _, paired = next(fixed_nights(generator, 0.02, constant(1.1)))
    _, unpaired = next(drift_nights(generator, constant(1.1)))
    assert (paired.is_paired, unpaired.is_paired) == (True, False)
    for evidence in (paired, unpaired):
        assert evidence.low < evidence.difference < evidence.high
        assert 0.05 < evidence.baseline_rate < 0.2


def test_the_same_seed_gives_the_same_verdict() -> None:
    def once() -> list[Measured]:
        return [
            evidence
            for _, evidence in itertools.islice(fixed_nights(np.random.default_rng(9), 0.5, constant(1)), 3)
        ]

    assert once() == once()
    assert isinstance(_difference(), Difference)
    assert measured(_difference()) == measured(_difference())


def _difference() -> Difference:
    from tests.evaluation.made_nights import counts_of

    words = np.full(30, 20)
    errors = np.arange(30) % 4
    return compare_counts(counts_of(errors, words), counts_of(errors[::-1], words))
