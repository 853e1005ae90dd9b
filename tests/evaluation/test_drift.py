"""Windows are compared stratum by stratum: a changed mix is no drift, and harder material of one kind is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.counts import ScoreError
from evaluation.drift import Window, compare_windows
from tests.evaluation.made_nights import counts_of, window


def plain(rates: dict[str, float], n_recordings: int, clusters: bool = True) -> Window:
    """Recordings of 100 words, each with its stratum's rate to the word, give or take one error."""
    strata = [name for name in rates for _ in range(n_recordings)]
    errors = np.array([round(100 * rates[name]) + index % 3 - 1 for index, name in enumerate(strata)])
    numbers = list(range(len(strata))) if clusters else None
    return Window(counts_of(errors, np.full(len(strata), 100)), strata, numbers)


def test_a_changed_mix_alone_is_no_drift() -> None:
    generator = np.random.default_rng(2)
    reference = window(generator, 2_800)
    found = [compare_windows(reference, window(generator, 400, mix=(0.1, 0.5, 0.1, 0.3))) for _ in range(60)]
    assert np.mean([difference.crude_value for difference in found]) > 0.02
    assert abs(np.mean([difference.z for difference in found])) < 0.5
    assert np.mean([difference.p_value < 0.05 for difference in found]) < 0.15


def test_harder_material_is_found_with_its_size() -> None:
    generator = np.random.default_rng(2)
    found = [compare_windows(window(generator, 2_800), window(generator, 1_400, 1.3)) for _ in range(20)]
    assert np.mean([difference.relative for difference in found]) == pytest.approx(0.3, abs=0.04)
    assert np.mean([difference.p_value < 0.01 for difference in found]) > 0.9


def test_residuals_of_unchanged_nights_are_standard_normal() -> None:
    generator = np.random.default_rng(4)
    z = np.array(
        [
            compare_windows(reference, window(generator, 100)).z
            for reference in (window(generator, 2_800) for _ in range(30))
            for _ in range(30)
        ]
    )
    assert abs(z.mean()) < 0.12
    assert z.std() == pytest.approx(1, abs=0.12)
    assert (np.abs(z) > 3).mean() < 0.008


def test_intervals_cover_the_true_difference() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for _ in range(300):
        reference, current = window(generator, 2_800), window(generator, 700, 1.2)
        difference = compare_windows(reference, current)
        true = sum(
            {"radio news": 0.06, "radio talk": 0.16, "television news": 0.08, "television talk": 0.2}[
                str(stratum.name)
            ]
            * 0.2
            * stratum.weight
            for stratum in difference.strata
        )
        covered += difference.low <= true <= difference.high
    assert 0.91 <= covered / 300 <= 0.99


def test_recordings_that_share_errors_make_the_error_larger() -> None:
    generator = np.random.default_rng(6)
    reference, current = window(generator, 2_800), window(generator, 400)
    apart = compare_windows(Window(reference.words, reference.strata), Window(current.words, current.strata))
    assert compare_windows(reference, current).standard_error > 1.2 * apart.standard_error


def test_strata_that_the_reference_does_not_know_are_left_out_and_named() -> None:
    reference = plain({"news": 0.1, "talk": 0.2}, 20)
    difference = compare_windows(reference, plain({"news": 0.1, "sport": 0.5}, 10))
    assert difference.left_out == ("sport",)
    assert difference.coverage == pytest.approx(0.5)
    assert [stratum.name for stratum in difference.strata] == ["news"]
    assert abs(difference.value) < 0.01


def test_one_recording_of_a_stratum_is_enough_tonight() -> None:
    reference = plain({"news": 0.1, "talk": 0.2}, 20)
    difference = compare_windows(reference, plain({"news": 0.1, "talk": 0.3}, 1))
    assert difference.coverage == 1
    assert difference.standard_error > 0
    assert difference.residual.lasting_share < 1


def test_what_cannot_be_compared_is_refused() -> None:
    reference = plain({"news": 0.1}, 20)
    with pytest.raises(ScoreError, match="the reference window knows no stratum"):
        compare_windows(reference, plain({"talk": 0.1}, 20))
    with pytest.raises(ScoreError, match="the current window is empty"):
        compare_windows(reference, Window(counts_of(np.zeros(0, int), np.zeros(0, int)), []))
    with pytest.raises(ScoreError, match="needs a stratum and a cluster"):
        compare_windows(reference, Window(reference.words, ["news"]))


def test_material_without_errors_is_no_division_by_zero() -> None:
    perfect = Window(counts_of(np.zeros(9, int), np.full(9, 50)), ["news"] * 9)
    difference = compare_windows(perfect, perfect)
    assert (difference.value, difference.z, difference.p_value) == (0, 0, 1)
    worse = Window(counts_of(np.ones(9, int), np.full(9, 50)), ["news"] * 9)
    assert compare_windows(perfect, worse).z == pytest.approx(3), "9 errors are known to 3"
    collapsed = Window(counts_of(np.full(9, 50), np.full(9, 50)), ["news"] * 9)
    assert compare_windows(perfect, collapsed).z > 20
    assert compare_windows(perfect, worse).relative == math.inf
