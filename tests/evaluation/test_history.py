"""A unit against its own history, robustly, and many at once without crying wolf."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.history import MIN_NIGHTS, HistoryTest, Measurement, against_history, findings, qn

N_PROGRAMMES, N_NIGHTS = 60, 28


def test_qn_is_the_standard_deviation_of_normal_values_and_bears_outliers() -> None:
    generator = np.random.default_rng(0)
    for n in (5, 10, 28, 61):
        estimates = [qn(generator.normal(0, 2, n)) for _ in range(2_000)]
        assert np.mean(estimates) == pytest.approx(2, rel=0.06)
    values = generator.normal(0, 1, 40)
    spoilt = np.concatenate([values, np.full(10, 1e6)])
    assert qn(spoilt) < 3
    assert math.isnan(qn(np.array([1.0])))


def test_a_bad_night_in_the_history_does_not_hide_the_next() -> None:
    history = [Measurement(0.1 + 0.01 * (index % 5), 0.005) for index in range(20)]
    spoilt = [*history[:-2], Measurement(3.0, 0.005), Measurement(4.0, 0.005)]
    for known in (history, spoilt):
        test = against_history(known, Measurement(0.5, 0.005))
        assert test is not None
        assert test.p_value < 1e-4


def test_tonights_own_error_counts() -> None:
    history = [Measurement(0.1 + 0.001 * (index % 5), 0.001) for index in range(20)]
    large, small = (against_history(history, Measurement(0.13, error)) for error in (0.001, 0.03))
    assert large is not None
    assert small is not None
    assert large.p_value < 0.001
    assert small.p_value > 0.2


def test_little_history_says_nothing() -> None:
    history = [Measurement(0.1, 0.01)] * (MIN_NIGHTS - 1)
    assert against_history(history, Measurement(0.9, 0.01)) is None
    assert against_history([*history, Measurement(math.nan, 0.1)], Measurement(0.9, 0.01)) is None
    assert against_history([*history, *history], Measurement(math.nan, 0.01)) is None


def test_a_history_without_spread_is_judged_by_tonights_error() -> None:
    test = against_history([Measurement(0.0, 0.0)] * 20, Measurement(0.02, 0.01))
    assert test is not None
    assert 0.02 < test.p_value < 0.2
    still = against_history([Measurement(0.0, 0.0)] * 20, Measurement(0.0, 0.0))
    assert still is not None
    assert still.p_value == 1


def made_tests(generator: np.random.Generator, moved: int) -> dict[str, HistoryTest | None]:
    """Programmes and their broadcasters, which share the programmes' nights; the first `moved` programmes shift."""
    nights = generator.normal(0, 1, (N_PROGRAMMES, N_NIGHTS + 1))
    nights[:moved, -1] += 9
    series = {f"programme {index}": row for index, row in enumerate(nights)}
    series |= {
        f"broadcaster {index}": nights[index * 10 : index * 10 + 10].mean(axis=0) for index in range(6)
    }
    return {
        name: against_history([Measurement(value, 0.0) for value in row[:-1]], Measurement(row[-1], 0.0))
        for name, row in series.items()
    }


def test_quiet_nights_rarely_report_anything() -> None:
    generator = np.random.default_rng(1)
    reported = [bool(findings(made_tests(generator, 0))) for _ in range(300)]
    assert np.mean(reported) <= 0.05


def test_what_moved_is_reported_and_few_others_are() -> None:
    generator = np.random.default_rng(2)
    found = [list(findings(made_tests(generator, 3))) for _ in range(60)]
    moved = {f"programme {index}" for index in range(3)}
    true = moved | {"broadcaster 0"}
    assert np.mean([len(moved & set(names)) / 3 for names in found]) > 0.9
    assert np.mean([len(set(names) - true) / max(1, len(names)) for names in found]) <= 0.05


def test_the_surest_comes_first_and_untested_units_do_not_count() -> None:
    history = [Measurement(value, 0.0) for value in np.random.default_rng(3).normal(0, 1, 30)]
    tests = {
        name: against_history(history, Measurement(value, 0.0)) for name, value in (("a", 20.0), ("b", 40.0))
    }
    found = findings({**tests, "new": None})
    assert list(found) == ["b", "a"]
    assert found["b"].adjusted_p <= found["a"].adjusted_p
    assert findings({"new": None}) == {}
