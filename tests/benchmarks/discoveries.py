"""What a night reports of hundreds of comparisons, under each correction.

    python -m tests.benchmarks.discoveries [--nights 1000]

Sixty programmes of six broadcasters and eight decades, four measures each that move together (correlation 0.6), all
against 28 nights of their own history, in which every fiftieth night was bad. Then three programmes change. The table
comes last.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import false_discovery_control

from evaluation.history import FALSE_DISCOVERY_RATE, HistoryTest, Measurement, against_history

N_PROGRAMMES, N_BROADCASTERS, N_DECADES, N_MEASURES, N_NIGHTS = 60, 6, 8, 4, 28
N_CHANGED = 3
CORRECTIONS = ("none", "Benjamini-Hochberg", "Benjamini-Yekutieli")


def one_night(generator: np.random.Generator, change: float) -> tuple[np.ndarray, np.ndarray]:
    """p of every comparison, and whether its unit changed tonight."""
    shape = (N_MEASURES, N_PROGRAMMES, N_NIGHTS + 1)
    values = np.sqrt(0.6) * generator.standard_normal(shape[1:]) + np.sqrt(0.4) * generator.standard_normal(
        shape
    )
    bad = generator.random(shape[1:]) < 0.02
    bad[:, -1] = False
    values += 8 * bad
    values[:, :N_CHANGED, -1] += change
    decades = generator.integers(0, N_DECADES, N_PROGRAMMES)
    groups = [[index] for index in range(N_PROGRAMMES)]
    groups += [list(range(index, N_PROGRAMMES, N_BROADCASTERS)) for index in range(N_BROADCASTERS)]
    groups += [members for decade in range(N_DECADES) if (members := list(np.flatnonzero(decades == decade)))]
    p_values, changed = [], []
    for measure in values:
        for members in groups:
            series = measure[members].mean(axis=0)
            test = against_history([Measurement(v, 0.0) for v in series[:-1]], Measurement(series[-1], 0.0))
            assert isinstance(test, HistoryTest)
            p_values.append(test.p_value)
            changed.append(change != 0 and min(members) < N_CHANGED)
    return np.array(p_values), np.array(changed)


def reported(p_values: np.ndarray, correction: str) -> np.ndarray:
    if correction == "none":
        return p_values <= FALSE_DISCOVERY_RATE
    method = "bh" if correction == "Benjamini-Hochberg" else "by"
    return false_discovery_control(p_values, method=method) <= FALSE_DISCOVERY_RATE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=1_000)
    nights = parser.parse_args().nights
    rows = [
        "| correction | quiet nights with a report | change | programmes found | reports that are false |"
    ]
    rows.append("|---|---|---|---|---|")
    generator = np.random.default_rng(0)
    quiet = [one_night(generator, 0.0) for _ in range(nights)]
    changes = {
        change: [one_night(generator, change) for _ in range(nights // 4)] for change in (4.0, 6.0, 8.0)
    }
    for correction in CORRECTIONS:
        cried = np.mean([reported(p, correction).any() for p, _ in quiet])
        for change, made in changes.items():
            hits, false = [], []
            for p, changed in made:
                found = reported(p, correction)
                own = found.reshape(N_MEASURES, -1)[:, :N_CHANGED]
                hits.append(own.any(axis=0).mean())
                false.append((found & ~changed).sum() / max(1, found.sum()))
            rows.append(
                f"| {correction} | {cried:.1%} | {change:.0f} standard deviations | {np.mean(hits):.0%} "
                f"| {np.mean(false):.1%} |"
            )
    print("\n".join(rows))


if __name__ == "__main__":
    main()
