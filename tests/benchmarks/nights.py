"""False alarms and power of the nightly verdicts, from nights with a known truth.

    python -m tests.benchmarks.nights [--trials 200]

Fixed set: 1,710 utterances of 90 speakers at 11.68 % word error rate, paired with one accepted run. Drift: 100
corrected segments a night in four strata, against a reference window of 2,800. Tables come last.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from evaluation.bootstrap import BOOTSTRAP_SAMPLES
from evaluation.chart import ChartState, Residual, step
from evaluation.compare import compare_counts
from evaluation.drift import compare_windows
from evaluation.verdict import Measured, Verdict, judge, measured
from tests.evaluation.made_nights import FixedSet, counts_of, window


def verdicts(nights: Iterator[tuple[Residual, Measured]], n: int, *, restart: bool = False) -> list[Verdict]:
    """Verdicts of `n` nights; with `restart` the chart begins anew after each change it reports."""
    state, found = ChartState(), []
    for _ in range(n):
        residual, tonight = next(nights)
        state = step(state, residual)
        found.append(judge("set", state, tonight).verdict)
        if restart and found[-1] in (Verdict.REGRESSED, Verdict.IMPROVED):
            state = ChartState()
    return found


def fixed_nights(
    generator: np.random.Generator,
    changed: float,
    factors: Iterator[float],
    new_system: float = 0.0,
    *,
    share: float = 1.0,
    samples: int = BOOTSTRAP_SAMPLES,
) -> Iterator[tuple[Residual, Measured]]:
    """Nights on one fixed set.

    Args:
        new_system: share of utterances that a change of equal quality decodes anew, once.
        share: of speakers whom the factors hit.
        samples: bootstrap draws; verdicts rest on none.
    """
    made = FixedSet.make(generator)
    accepted = made.decode(generator)
    baseline, system = counts_of(accepted, made.words), made.again(accepted, generator, new_system)
    for seed, factor in enumerate(factors):
        tonight = counts_of(made.again(system, generator, changed, factor, share), made.words)
        difference = compare_counts(baseline, tonight, clusters=made.speakers, seed=seed, samples=samples)
        yield difference.residual, measured(difference)


def drift_nights(
    generator: np.random.Generator,
    factors: Iterator[float],
    mix: tuple[float, ...] = (0.4, 0.2, 0.25, 0.15),
    *,
    n_reference: int = 2_800,
) -> Iterator[tuple[Residual, Measured]]:
    """Nights of 100 corrected segments each, against a reference window of `n_reference`."""
    reference = window(generator, n_reference)
    for factor in factors:
        difference = compare_windows(reference, window(generator, 100, factor, mix))
        yield difference.residual, measured(difference)


def constant(factor: float) -> Iterator[float]:
    while True:
        yield factor


def rising(rate: float) -> Iterator[float]:
    factor = 1.0
    while True:
        factor += rate
        yield factor


def first(found: list[Verdict], wanted: Verdict = Verdict.REGRESSED) -> int:
    """The night, 1.., on which the verdict first came; one more than there are if never."""
    return next((index for index, verdict in enumerate(found, 1) if verdict is wanted), len(found) + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    generator = np.random.default_rng(0)
    rows: list[str] = []

    stable = {
        "fixed set, the same output every night": lambda: fixed_nights(generator, 0, constant(1)),
        "fixed set, 2 % of utterances decoded anew a night": lambda: fixed_nights(
            generator, 0.02, constant(1)
        ),
        "fixed set, all decoded anew a night": lambda: fixed_nights(generator, 1, constant(1)),
        "fixed set, another system of equal quality (20 % anew, once)": lambda: fixed_nights(
            generator, 0, constant(1), 0.2
        ),
        "drift, 100 segments a night": lambda: drift_nights(generator, constant(1)),
        "drift, twice as much talk as in the reference": lambda: drift_nights(
            generator, constant(1), (0.2, 0.4, 0.1, 0.3)
        ),
    }
    rows += ["", "| 1,000 stable nights | regressed | improved | watch |", "|---|---|---|---|"]
    n_sets = max(4, trials // 10)
    for name, make in stable.items():
        found = [verdict for _ in range(n_sets) for verdict in verdicts(make(), 100, restart=True)]
        shares = [
            1_000 * found.count(v) / len(found) for v in (Verdict.REGRESSED, Verdict.IMPROVED, Verdict.WATCH)
        ]
        rows.append(f"| {name} | {shares[0]:.1f} | {shares[1]:.1f} | {shares[2]:.1f} |")
        print(rows[-1], flush=True)

    changes = [
        (
            "fixed set, +1.0 point, 2 % anew",
            lambda: fixed_nights(generator, 0.02, constant(1 + 0.01 / 0.1168)),
            2,
        ),
        (
            "fixed set, +1.0 point, all anew",
            lambda: fixed_nights(generator, 1, constant(1 + 0.01 / 0.1168)),
            2,
        ),
        ("fixed set, +10 %, 2 % anew", lambda: fixed_nights(generator, 0.02, constant(1.1)), 2),
        ("fixed set, +10 %, all anew", lambda: fixed_nights(generator, 1, constant(1.1)), 2),
        ("fixed set, +1 % a night, 2 % anew", lambda: fixed_nights(generator, 0.02, rising(0.01)), 10),
        ("fixed set, +1 % a night, all anew", lambda: fixed_nights(generator, 1, rising(0.01)), 10),
        ("drift, +10 %", lambda: drift_nights(generator, constant(1.1)), 28),
        ("drift, +20 %", lambda: drift_nights(generator, constant(1.2)), 14),
        ("drift, +30 %", lambda: drift_nights(generator, constant(1.3)), 14),
        ("drift, +1 % a night", lambda: drift_nights(generator, rising(0.01)), 40),
    ]
    rows += ["", "| change | nights | found within them | median night |", "|---|---|---|---|"]
    for name, make, nights in changes:
        delays = np.array([first(verdicts(make(), nights)) for _ in range(trials)])
        share = float((delays <= nights).mean())
        median = f"{np.median(delays):.0f}" if share >= 0.5 else "-"
        rows.append(f"| {name} | {nights} | {share:.0%} | {median} |")
        print(rows[-1], flush=True)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
