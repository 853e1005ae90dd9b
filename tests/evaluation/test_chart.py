"""The chart alarms for lasting change and not for noise; nights may be missing, and a new baseline starts it anew."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pytest

from evaluation.chart import DESIGN, ChartState, Night, Residual, run, step, student_z


def residual(z: float, error: float = 0.01, lasting: float = 0.0) -> Residual:
    return Residual(z * error, error, lasting * error, z)


def nights(values: list[float | None], baseline: str = "first") -> list[Night]:
    return [
        Night(date(2026, 1, 1) + timedelta(index), baseline, None if z is None else residual(z))
        for index, z in enumerate(values)
    ]


def test_one_plain_night_alarms_alone_and_a_small_shift_after_some() -> None:
    assert run(nights([3.4]))[-1].up_alarm()
    shifted = [state.up_alarm() for state in run(nights([1.5] * 6))]
    assert shifted == [False, False, False, True, True, True]
    assert [state.down_alarm() for state in run(nights([-1.5] * 5))] == [False] * 3 + [True, True]


def test_the_sum_knows_since_when_and_how_much() -> None:
    state = run(nights([0.1, -0.5, 1.5, 1.7, 1.9, 1.6]))[-1]
    assert state.up.nights == 4
    assert state.up.effect == pytest.approx(0.01 * (1.5 + 1.7 + 1.9 + 1.6) / 4)


def test_larger_nights_weigh_more_in_the_effect() -> None:
    state = step(ChartState(), residual(2, error=0.01))
    state = step(state, residual(2, error=0.03))
    assert 0.02 < state.up.effect < 0.03


def test_missing_nights_change_no_sum_and_are_counted() -> None:
    with_gaps, without = run(nights([1.5, None, None, 1.5, None]))[-1], run(nights([1.5, 1.5]))[-1]
    assert (with_gaps.up, with_gaps.down) == (without.up, without.down)
    assert (with_gaps.n_missing, with_gaps.n_nights, with_gaps.z) == (1, 2, None)
    unknown = step(without, Residual(0.01, math.nan, 0.0, math.nan))
    assert (unknown.up, unknown.n_missing) == (without.up, 1)


def test_a_new_baseline_restarts_the_chart() -> None:
    before, after = nights([2.0] * 4), nights([0.2], baseline="second")
    states = run([*before, *after])
    assert states[3].up_alarm()
    assert states[4].n_nights == 1
    assert states[4].up.total == 0


def test_waiting_makes_no_evidence_of_an_error_that_lasts() -> None:
    state = ChartState()
    for _ in range(500):
        state = step(state, residual(2.0, lasting=1.0))
    assert not state.up_alarm()
    for _ in range(30):
        state = step(state, residual(2.6, lasting=1.0))
    assert state.up_alarm()


def test_one_odd_night_is_over_the_next_and_trouble_ends_within_a_few() -> None:
    states = run(nights([40.0, 0.0, 0.0]))
    assert [state.up_alarm() for state in states] == [True, False, False]
    states = run(nights([3.5] * 50 + [0.0] * 9))
    assert states[49].up.total == DESIGN.ceiling
    assert not states[-1].up_alarm()


def test_no_difference_at_all_is_no_evidence() -> None:
    state = run([Night(date(2026, 1, 1), "first", Residual(0.0, 0.0, 0.0, 0.0))] * 5)[-1]
    assert (state.up.total, state.down.total, state.z) == (0, 0, 0)


@pytest.mark.parametrize("lasting", [0.0, 0.2, 1.0])
def test_false_alarms_stay_below_the_stated_rate(lasting: float) -> None:
    generator = np.random.default_rng(3)
    alarms = 0
    for _ in range(12):
        state, offset = ChartState(), lasting * generator.standard_normal()
        for noise in generator.standard_normal(1_000) * math.sqrt(1 - lasting**2):
            state = step(state, residual(float(noise + offset), lasting=lasting))
            if state.up_alarm():
                alarms += 1
                state = ChartState()
    assert alarms / 12 <= 5


def test_students_tails_become_the_normals() -> None:
    assert student_z(2.2281389, 1, 10) == pytest.approx(1.959964, abs=1e-5)
    assert student_z(-2.2281389, 1, 10) == pytest.approx(-1.959964, abs=1e-5)
    assert student_z(1.5, 1, math.inf) == 1.5
    assert student_z(0.0, 0.0, 5) == 0
    assert math.isnan(student_z(0.1, 0.0, 5))
