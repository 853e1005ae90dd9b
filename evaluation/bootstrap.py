"""Bootstrap over clusters: how far a ratio of sums would move with other speakers or programmes.

Utterances of one speaker or programme share errors, so clusters are resampled whole (Liu & Peng, "Statistical
testing on ASR performance via blockwise bootstrap", arXiv 1912.09508). Intervals have the shape of the bootstrap's
percentiles (Bisani & Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004).
Those are too narrow where clusters are few (Hesterberg, "What teachers should know about the bootstrap", The American
Statistician 69(4), 2015) or of very different size, so both ends move away from the estimate by a factor:

* the jackknife's standard error over the bootstrap's (MacKinnon, Nielsen & Webb, "Fast and reliable jackknife and
  bootstrap methods for cluster-robust inference", Journal of Applied Econometrics 38(5), 2023: CV3);
* Student's t over the normal's 1.96, with one less than the effective number of clusters as degrees of freedom
  (after Carter, Schnepel & Steigerwald, "Asymptotic behavior of a t-test robust to cluster heterogeneity", The Review
  of Economics and Statistics 99(4), 2017; the number itself is Kish's, Survey Sampling, 1965, section 11.7).

With 1,000 clusters of like size the factor is below 1.003. `make simulate-drift` measures how often intervals hold the
truth.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from evaluation.counts import FloatArray, IntArray

BOOTSTRAP_SAMPLES = 1_000
CONFIDENCE = 0.95
BLOCK_DRAWS = 1_000_000
"""Weights held at once while resampling: bounds memory at about 30 MB."""


def cluster_sums(groups: IntArray, *columns: npt.ArrayLike) -> FloatArray:
    """Sum each column within its cluster: shape (n_clusters, n_columns)."""
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    return np.stack([np.bincount(groups, np.asarray(c, dtype=float), n_groups) for c in columns], axis=1)


def resample_sums(sums: FloatArray, seed: int, samples: int = BOOTSTRAP_SAMPLES) -> FloatArray:
    """Column sums of `samples` draws of clusters with replacement.

    Args:
        sums: shape (n_clusters, n_columns). All columns see the same draws, so differences stay paired.
        seed: the same inputs and seed give the same draws.

    Returns:
        Shape (samples, n_columns). Exact where the sums are whole numbers.
    """
    generator = np.random.default_rng(seed)
    n_clusters = len(sums)
    drawn = np.empty((samples, sums.shape[1]))
    rows = max(1, BLOCK_DRAWS // max(n_clusters, 1))
    for start in range(0, samples, rows):
        stop = min(start + rows, samples)
        chosen = generator.integers(0, n_clusters, (stop - start, n_clusters))
        chosen += n_clusters * np.arange(stop - start)[:, None]
        weights = np.bincount(chosen.ravel(), minlength=(stop - start) * n_clusters).reshape(-1, n_clusters)
        drawn[start:stop] = weights.astype(float) @ sums
    return drawn


def interval(draws: FloatArray, sums: FloatArray) -> tuple[float, float]:
    """The 95 % interval of a ratio of sums over clusters.

    Args:
        draws: the ratio in each bootstrap draw.
        sums: numerator and denominator of each cluster, shape (n_clusters, 2).

    Returns:
        Lower and upper end; nan below two clusters, or where one of them holds the whole denominator.
    """
    draws = draws[np.isfinite(draws)]
    errors, lengths = sums[:, 0], sums[:, 1]
    widening = _widening(errors, lengths)
    if math.isnan(widening) or not len(draws):
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    value = errors.sum() / lengths.sum()
    return float(value + (low - value) * widening), float(value + (high - value) * widening)


def _widening(errors: FloatArray, lengths: FloatArray) -> float:
    """How much wider than the bootstrap's percentiles an interval has to be; nan where nothing is known of spread."""
    n_clusters = len(errors)
    jackknife = jackknife_standard_error(errors, lengths)
    if math.isnan(jackknife):
        return math.nan
    # the bootstrap's own, without its noise
    bootstrap = ratio_standard_error(errors, lengths) * math.sqrt((n_clusters - 1) / n_clusters)
    if not bootstrap > 0:
        return 1.0
    tail = (1 - CONFIDENCE) / 2
    degrees_of_freedom = max(1.0, effective_clusters(lengths) - 1)
    return jackknife / bootstrap * float(stdtrit(degrees_of_freedom, tail) / ndtri(tail))


def effective_clusters(lengths: npt.ArrayLike) -> float:
    """How many clusters of equal size would tell as much: (sum of sizes)^2 / sum of squared sizes."""
    n = np.asarray(lengths, dtype=float)
    squares = float((n**2).sum())
    return float(n.sum()) ** 2 / squares if squares else 0.0


def ratio_interval(
    errors: npt.ArrayLike, lengths: npt.ArrayLike, groups: IntArray, seed: int
) -> tuple[float, float]:
    """The 95 % interval of a rate: the sum of errors over the sum of lengths, resampling clusters."""
    sums = cluster_sums(groups, errors, lengths)
    if len(sums) < 2 or sums[:, 1].sum() == 0:
        return math.nan, math.nan  # one cluster cannot be resampled: nothing is known about its spread
    drawn = resample_sums(sums, seed)
    low, high = interval(ratios(drawn[:, 0], drawn[:, 1]), sums)
    return (math.nan if math.isnan(low) else max(0.0, low)), high


def ratios(numerators: FloatArray, denominators: FloatArray) -> FloatArray:
    """Element by element; nan where the denominator is 0."""
    quotients = np.full(len(numerators), np.nan)
    np.divide(numerators, denominators, out=quotients, where=denominators != 0)
    return quotients


def two_sided_p(values: FloatArray) -> float:
    """Share of bootstrap differences on the other side of 0, doubled; never 0 (Davison & Hinkley 1997, 4.2.3).

    1 where no draw differs from 0.
    """
    values = values[np.isfinite(values)]
    below, above = int((values <= 0).sum()), int((values >= 0).sum())
    return min(1.0, 2 * (min(below, above) + 1) / (len(values) + 1))


def ratio_standard_error(errors: npt.ArrayLike, lengths: npt.ArrayLike) -> float:
    """Standard error of sum(errors) / sum(lengths) over clusters, by linearisation.

    The ratio estimator of cluster sampling (Cochran, Sampling Techniques, 3rd edition 1977, section 6.4). Also
    for differences: `errors` may be negative. nan below two clusters or without length.
    """
    e, n = np.asarray(errors, dtype=float), np.asarray(lengths, dtype=float)
    total, m = n.sum(), len(n)
    if m < 2 or total == 0:
        return math.nan
    residuals = e - e.sum() / total * n
    return float(math.sqrt(m / (m - 1) * float((residuals**2).sum())) / total)


def jackknife_standard_error(errors: npt.ArrayLike, lengths: npt.ArrayLike) -> float:
    """Standard error of sum(errors) / sum(lengths) over clusters, leaving out one at a time.

    Larger than `ratio_standard_error` where clusters are few or one of them holds much, and nearer the truth there.
    nan below two clusters, or where one of them holds the whole length.
    """
    e, n = np.asarray(errors, dtype=float), np.asarray(lengths, dtype=float)
    m, total = len(e), float(n.sum())
    rest = total - n
    if m < 2 or total == 0 or (rest <= 0).any():
        return math.nan
    without = (e.sum() - e) / rest
    return float(math.sqrt((m - 1) / m * float(((without - e.sum() / total) ** 2).sum())))


def known_error(error: float, n_errors: int, n_words: float) -> float:
    """A standard error that is 0 although there is a difference, replaced by that of the errors' own number.

    Clusters that all change alike show no spread, and a total collapse is such a change: dividing by 0 must not make
    it unknown. nan (one cluster) stays nan.
    """
    return error if error != 0 or not n_words else math.sqrt(max(1, n_errors)) / n_words


def two_sided_t(statistic: float, degrees_of_freedom: float) -> float:
    """Two-sided p of Student's t; the normal's where the degrees of freedom are infinite."""
    if math.isnan(statistic):
        return math.nan
    tail = (
        ndtr(-abs(statistic))
        if math.isinf(degrees_of_freedom)
        else stdtr(degrees_of_freedom, -abs(statistic))
    )
    return float(2 * tail)
