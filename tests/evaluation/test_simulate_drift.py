"""`make simulate-drift` in small: the same figures from few trials, with bounds as wide as chance makes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.power_pictures import write_pictures
from tests.benchmarks.simulate_drift import (
    COVERAGE,
    STABLE,
    STEPS,
    Condition,
    Figure,
    Outcomes,
    conditions,
    figures,
    simulate,
    table,
)
from tests.evaluation.made_nights import ERROR_RATE, Population

SMALL = {"coverage": 200, "step": 40}


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """Coverage at 10 speakers, and every step that something is asked of."""
    asked = {f"step/{name}" for name, (_, _, share) in STEPS.items() if share}
    asked |= {f"coverage/{name}/10" for name in COVERAGE}
    return simulate(
        [
            Condition(condition.key, condition.trial, SMALL[condition.key.split("/")[0]])
            for condition in conditions()
            if condition.key in asked
        ]
    )


def test_intervals_over_ten_speakers_hold_the_truth(outcomes: Outcomes) -> None:
    for name in COVERAGE:
        # 95 % of 200, give or take 3.5 standard errors
        assert 0.895 <= outcomes[f"coverage/{name}/10"].mean() <= 1


def test_changes_are_found_in_time(outcomes: Outcomes) -> None:
    for name, (_, nights, share) in STEPS.items():
        if share:
            found = float((outcomes[f"step/{name}"] <= nights).mean())
            assert found >= share - 3 * (share * (1 - share) / SMALL["step"]) ** 0.5, name


def test_the_number_of_processes_changes_nothing() -> None:
    tried = [
        Condition(c.key, c.trial, 7) for c in conditions() if c.key.startswith("coverage") and "/10" in c.key
    ]
    one, two = simulate(tried), simulate(tried, processes=2)
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert len({tuple(values[:, 0]) for values in one.values()} | {()}) > 1


def test_the_truth_is_the_rate_over_all_speakers() -> None:
    generator = np.random.default_rng(0)
    population = Population(speaker_shape=4)
    made = population.draw(generator, 20_000)
    rate = float((np.minimum(made.rates, 1) * made.words).sum() / made.words.sum())
    assert population.rate() == pytest.approx(rate, rel=0.02)
    assert 0.99 * ERROR_RATE < population.rate() <= ERROR_RATE
    few = [population.draw(generator, 10) for _ in range(50)]
    assert np.std([made.rates.mean() for made in few]) > 0.1 * ERROR_RATE  # sets differ from the truth


def test_a_figure_that_misses_is_named() -> None:
    met = Figure("a", 0.95, 0.01, "share", 10, at_least=0.93, at_most=0.97)
    missed = Figure("b", 5.5, 0.4, "alarms", 10, at_most=5)
    free = Figure("c", 0.4, 0.1, "share", 10)
    assert [figure.is_met for figure in (met, missed, free)] == [True, False, None]
    rows = table([met, missed, free]).splitlines()[2:]
    assert rows[0] == "| a | 10 | 95.0 ± 2.0 % | 93 % to 97 % | met |"
    assert rows[1] == "| b | 10 | 5.5 ± 0.8 | at most 5 | MISSED |"
    assert rows[2] == "| c | 10 | 40.0 ± 20.0 % |  |  |"


def test_pictures_are_small_and_the_same_every_time(tmp_path: Path) -> None:
    made: Outcomes = {
        condition.key: np.full((4, 2 if condition.key.startswith("stable") else 1), 1.0)
        for condition in conditions(scale=0.001)
    }
    found = figures(made)
    assert len(found) == 4 * len(COVERAGE) + 3 * len(STABLE) + len(STEPS)
    files = [write_pictures(made, found, tmp_path / name) for name in ("once", "again")]
    assert [file.name for file in files[0]] == [
        "power-fixed-set.svg",
        "power-drift.svg",
        "false-alarms.svg",
        "coverage.svg",
    ]
    for once, again in zip(*files, strict=True):
        assert once.read_bytes() == again.read_bytes()
        assert once.stat().st_size < 60_000
