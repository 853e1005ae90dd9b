"""Intervals cover, also where clusters are few or dependent; everything is repeatable by its seed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.bootstrap import (
    cluster_sums,
    effective_clusters,
    interval,
    jackknife_standard_error,
    ratio_interval,
    ratio_standard_error,
    resample_sums,
    two_sided_p,
    two_sided_t,
)


def made_clusters(
    generator: np.random.Generator, n_clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors, words and cluster of utterances whose speakers differ; the true rate is 0.1."""
    sizes = generator.integers(1, 12, n_clusters)
    groups = np.repeat(np.arange(n_clusters), sizes)
    speaker_rates = generator.gamma(4, 0.1 / 4, n_clusters)[groups]
    words = generator.integers(5, 30, len(groups))
    return generator.binomial(words, np.minimum(speaker_rates, 1)), words, groups


@pytest.mark.parametrize("n_clusters", [10, 20, 100])
def test_intervals_cover_the_truth_under_clustered_errors(n_clusters: int) -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(400):
        errors, words, groups = made_clusters(generator, n_clusters)
        low, high = ratio_interval(errors, words, groups, seed=trial)
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_intervals_over_utterances_would_not_cover() -> None:
    generator = np.random.default_rng(6)
    covered = 0
    for trial in range(150):
        errors, words, _ = made_clusters(generator, 60)
        low, high = ratio_interval(errors, words, np.arange(len(errors)), seed=trial)
        covered += low <= 0.1 <= high
    assert covered / 150 < 0.9


def test_the_same_seed_gives_the_same_draws_and_another_others() -> None:
    sums = cluster_sums(np.array([0, 0, 1, 2]), [1, 0, 2, 0], [5, 5, 5, 5])
    assert sums.tolist() == [[1, 10], [2, 5], [0, 5]]
    assert np.array_equal(resample_sums(sums, 1), resample_sums(sums, 1))
    assert not np.array_equal(resample_sums(sums, 1), resample_sums(sums, 2))


def test_draws_are_as_many_clusters_with_replacement() -> None:
    drawn = resample_sums(np.ones((7, 1)), 0)
    assert (drawn == 7).all()


def test_one_cluster_tells_nothing_about_spread() -> None:
    assert all(math.isnan(end) for end in ratio_interval([3], [10], np.array([0]), 0))
    assert all(math.isnan(end) for end in interval(np.array([0.3, 0.3]), np.array([[3.0, 10.0]])))
    assert math.isnan(ratio_standard_error([3], [10]))
    assert math.isnan(jackknife_standard_error([3], [10]))


def test_a_cluster_with_all_the_words_tells_nothing_about_spread() -> None:
    assert all(math.isnan(end) for end in ratio_interval([3, 1], [10, 0], np.array([0, 1]), 0))
    assert math.isnan(jackknife_standard_error([3, 1], [10, 0]))


def test_the_jackknife_leaves_out_one_cluster_at_a_time() -> None:
    without = np.array([5 / 50, 4 / 30, 3 / 40])  # of errors 1, 2, 3 in 10, 30, 20 words
    expected = math.sqrt(2 / 3 * ((without - 6 / 60) ** 2).sum())
    assert jackknife_standard_error([1, 2, 3], [10, 30, 20]) == pytest.approx(expected)
    assert jackknife_standard_error([1, 2, 3, 4] * 50, [20] * 200) == pytest.approx(
        ratio_standard_error([1, 2, 3, 4] * 50, [20] * 200), rel=0.01
    )


def test_clusters_of_different_size_count_as_fewer() -> None:
    assert effective_clusters([7] * 12) == pytest.approx(12)
    assert effective_clusters([1, 1, 1, 97]) == pytest.approx(100**2 / (97**2 + 3))
    assert effective_clusters([0, 0]) == 0


def test_few_or_unequal_clusters_widen_the_interval_and_many_equal_ones_hardly() -> None:
    generator = np.random.default_rng(3)

    def width(sizes: np.ndarray) -> float:
        """Of the interval, as a share of 3.92 standard errors of the bootstrap itself."""
        sums = np.stack([generator.binomial(sizes, 0.1), sizes], axis=1).astype(float)
        drawn = resample_sums(sums, 0, samples=4_000)
        draws = drawn[:, 0] / drawn[:, 1]
        low, high = interval(draws, sums)
        return (high - low) / (3.92 * float(draws.std()))

    assert 1.1 < width(np.full(10, 500)) < 1.35
    assert width(np.array([4_000] + [111] * 9)) > 2
    assert width(np.full(1_000, 50)) == pytest.approx(1, abs=0.06)


def test_no_rate_is_below_nothing() -> None:
    low, high = ratio_interval([0, 0, 0, 0, 6], [20, 20, 20, 20, 20], np.arange(5), 0)
    assert low == 0 < high


def test_standard_error_by_linearisation_is_the_bootstraps() -> None:
    errors, words, groups = made_clusters(np.random.default_rng(1), 300)
    sums = cluster_sums(groups, errors, words)
    drawn = resample_sums(sums, 0, samples=4_000)
    spread = (drawn[:, 0] / drawn[:, 1]).std()
    assert ratio_standard_error(sums[:, 0], sums[:, 1]) == pytest.approx(spread, rel=0.05)


def test_p_of_differences() -> None:
    assert two_sided_p(np.zeros(999)) == 1
    assert two_sided_p(np.ones(999)) == pytest.approx(0.002)
    assert two_sided_t(1.959964, math.inf) == pytest.approx(0.05, abs=1e-6)
    assert two_sided_t(2.2281389, 10) == pytest.approx(0.05, abs=1e-6)
