"""Do the statistics hold? Intervals, false alarms and power, from errors whose truth is known.

    python -m tests.benchmarks.simulate_drift [--scale 1.0] [--processes 2] [--json FILE] [--pictures FOLDER]

Every figure stands beside what is asked of it, with two standard errors over the trials; the table comes last, and the
exit code is 1 where one misses. The result is the same for any number of processes: each trial has a seed of its own.

Errors are made: an utterance's chance of error is its speaker's difficulty times its own (gamma distributed). For
intervals, speakers are drawn anew in each trial, and the truth is the rate over all speakers there are. For alarms the
set stays what it is, with one accepted run that has its own luck; each trial of 1,000 nights makes a new set and
baseline, or a new reference window.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from evaluation.bootstrap import ratio_interval
from evaluation.chart import ChartState, Residual, step
from evaluation.compare import compare_counts
from evaluation.verdict import Measured, Verdict, judge
from tests.benchmarks.nights import constant, drift_nights, fixed_nights, rising, verdicts
from tests.evaluation.made_nights import Population, counts_of

N_CLUSTERS = (10, 20, 40, 90)
STABLE_NIGHTS = 1_000
MOST_ALARMS = 5
FIXED_EFFECTS = (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.10, 0.12)
FIXED_NIGHTS = 14
DRIFT_EFFECTS = (0.0, 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.40)
DRIFT_NIGHTS = 28

Nights = Callable[[np.random.Generator], Iterator[tuple[Residual, Measured]]]
Trial = Callable[[np.random.Generator], tuple[float, ...]]


# --- one trial each --------------------------------------------------------------------------------------


def covers_rate(generator: np.random.Generator, population: Population, n_clusters: int) -> tuple[float, ...]:
    """Whether the interval of an error rate holds the rate over all speakers."""
    made = population.draw(generator, n_clusters)
    low, high = ratio_interval(made.decode(generator), made.words, np.array(made.speakers), seed=0)
    return (float(low <= population.rate() <= high),)


def covers_difference(
    generator: np.random.Generator, population: Population, n_clusters: int
) -> tuple[float, ...]:
    """Whether the interval of a paired difference holds it, for a system that makes a tenth more errors."""
    made = population.draw(generator, n_clusters)
    a, b = (counts_of(made.decode(generator, factor), made.words) for factor in (1.0, 1.1))
    found = compare_counts(a, b, clusters=made.speakers)
    return (float(found.low <= population.rate(1.1) - population.rate() <= found.high),)


def false_alarms(generator: np.random.Generator, nights: Nights) -> tuple[float, ...]:
    """In 1,000 stable nights, the chart begun anew after each: `regressed`, `improved`."""
    found = verdicts(nights(generator), STABLE_NIGHTS, restart=True)
    return float(found.count(Verdict.REGRESSED)), float(found.count(Verdict.IMPROVED))


def first_alarm(generator: np.random.Generator, nights: Nights, n: int) -> tuple[float, ...]:
    """The night of the first alarm; n + 1 if there is none."""
    state = ChartState()
    for night, (residual, tonight) in enumerate(islice(nights(generator), n), 1):
        state = step(state, residual)
        if judge("set", state, tonight).verdict is Verdict.REGRESSED:
            return (float(night),)
    return (float(n + 1),)


def fixed(
    generator: np.random.Generator,
    changed: float,
    factors: Callable[[], Iterator[float]],
    share: float = 1.0,
) -> Iterator[tuple[Residual, Measured]]:
    return fixed_nights(generator, changed, factors(), share=share, samples=2)


def drift(
    generator: np.random.Generator,
    factor: float = 1.0,
    mix: tuple[float, ...] = (0.4, 0.2, 0.25, 0.15),
    n_reference: int = 2_800,
) -> Iterator[tuple[Residual, Measured]]:
    return drift_nights(generator, constant(factor), mix, n_reference=n_reference)


# --- what is tried, and what is asked of it --------------------------------------------------------------

COVERAGE = {
    "WER, speakers differ by 50 %": (covers_rate, Population(speaker_shape=4)),
    "WER, speakers differ by 70 %": (covers_rate, Population(speaker_shape=2)),
    "paired difference, speakers differ by 50 %": (covers_difference, Population(speaker_shape=4)),
    "paired difference, speakers differ by 70 %": (covers_difference, Population(speaker_shape=2)),
}
STABLE: dict[str, Nights] = {
    "fixed set, same output every night": partial(fixed, changed=0, factors=partial(constant, 1.0)),
    "fixed set, 2 % decoded anew a night": partial(fixed, changed=0.02, factors=partial(constant, 1.0)),
    "fixed set, all decoded anew a night": partial(fixed, changed=1, factors=partial(constant, 1.0)),
    "drift, reference of 2,800 segments": drift,
    "drift, another mix than the reference's": partial(drift, mix=(0.2, 0.4, 0.1, 0.3)),
    "drift, reference of 500 segments": partial(drift, n_reference=500),
}
STEPS: dict[str, tuple[Nights, int, float | None]] = {
    "fixed set, +10 %, 2 % anew a night": (
        partial(fixed, changed=0.02, factors=partial(constant, 1.1)),
        2,
        0.9,
    ),
    "fixed set, +10 %, all anew a night": (partial(fixed, changed=1, factors=partial(constant, 1.1)), 2, 0.9),
    "fixed set, +10 % by a third of the speakers": (
        partial(fixed, changed=0.02, factors=partial(constant, 1.1), share=1 / 3),
        2,
        0.9,
    ),
    "fixed set, +1 % a night, 2 % anew a night": (
        partial(fixed, changed=0.02, factors=partial(rising, 0.01)),
        9,
        0.9,
    ),
    "fixed set, +1 % a night, all anew a night": (
        partial(fixed, changed=1, factors=partial(rising, 0.01)),
        9,
        0.9,
    ),
    "drift, +20 %, reference of 2,800 segments": (partial(drift, factor=1.2), 14, 0.8),
    "drift, +20 %, reference of 2,000 segments": (partial(drift, factor=1.2, n_reference=2_000), 14, None),
    "drift, +20 %, reference of 1,000 segments": (partial(drift, factor=1.2, n_reference=1_000), 14, None),
    "drift, +20 %, reference of 500 segments": (partial(drift, factor=1.2, n_reference=500), 14, None),
}
"""Nights, how many of them count, and the share of trials that must be found. A rise of 1 % a night is 10 % in the
tenth night: found before means by the ninth."""


@dataclass(frozen=True)
class Condition:
    """Something that is tried many times."""

    key: str
    trial: Trial
    trials: int


@dataclass(frozen=True)
class Figure:
    """What came out, beside what is asked."""

    what: str
    value: float
    error: float
    """Standard error of `value` over the trials."""
    unit: str
    trials: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def is_met(self) -> bool | None:
        """None where nothing is asked."""
        if self.at_least is None and self.at_most is None:
            return None
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )


def conditions(scale: float = 1.0) -> list[Condition]:
    """Everything that is tried, the longest trials first."""

    def times(n: int) -> int:
        return max(2, round(n * scale))

    return [
        *(
            # an unlucky reference window alarms often, most never: more trials for the same certainty
            Condition(
                f"stable/{name}", partial(false_alarms, nights=nights), times(36 if "drift" in name else 10)
            )
            for name, nights in STABLE.items()
        ),
        *(
            Condition(
                f"power/drift/{effect}",
                partial(first_alarm, nights=partial(drift, factor=1 + effect), n=DRIFT_NIGHTS),
                times(160),
            )
            for effect in DRIFT_EFFECTS
        ),
        *(
            Condition(
                f"power/fixed/{effect}",
                partial(
                    first_alarm,
                    nights=partial(fixed, changed=1, factors=partial(constant, 1 + effect)),
                    n=FIXED_NIGHTS,
                ),
                times(160),
            )
            for effect in FIXED_EFFECTS
        ),
        *(
            Condition(f"step/{name}", partial(first_alarm, nights=nights, n=n), times(500))
            for name, (nights, n, _) in STEPS.items()
        ),
        *(
            Condition(
                f"coverage/{name}/{n_clusters}",
                partial(covers, population=population, n_clusters=n_clusters),
                times(2_000),
            )
            for name, (covers, population) in COVERAGE.items()
            for n_clusters in N_CLUSTERS
        ),
    ]


Outcomes = dict[str, np.ndarray]
"""By condition, shape (trials, figures of a trial)."""
CHUNK = 60


def _run(piece: tuple[Condition, range]) -> tuple[str, list[tuple[float, ...]]]:
    condition, trials = piece
    name = zlib.crc32(condition.key.encode())
    return condition.key, [condition.trial(np.random.default_rng([name, trial])) for trial in trials]


def simulate(tried: Sequence[Condition], processes: int = 1) -> Outcomes:
    """Outcomes of every trial, in the order of the trials whatever the number of processes."""
    pieces = [
        (condition, range(start, min(start + size, condition.trials)))
        for condition in tried
        for size in [1 if condition.key.startswith("stable") else CHUNK]
        for start in range(0, condition.trials, size)
    ]
    found: dict[str, list[tuple[float, ...]]] = {condition.key: [] for condition in tried}
    started = shown = time.monotonic()
    with ExitStack() as stack:
        outcomes_of = map(_run, pieces)
        if processes > 1:
            outcomes_of = stack.enter_context(get_context("spawn").Pool(processes)).imap(_run, pieces)
        for done, (key, outcomes) in enumerate(outcomes_of, 1):
            found[key] += outcomes
            if time.monotonic() - shown > 10 or done == len(pieces):
                shown = time.monotonic()
                print(f"{done} of {len(pieces)} pieces, {shown - started:.0f} s: {key}", file=sys.stderr)
    return {key: np.array(outcomes) for key, outcomes in found.items()}


def figures(outcomes: Outcomes) -> list[Figure]:
    """Each figure with its bound."""
    found = []
    for name in COVERAGE:
        for n in N_CLUSTERS:
            values = outcomes[f"coverage/{name}/{n}"][:, 0]
            found.append(
                _share(f"intervals hold the truth: {name}, {n} speakers", values, at_least=0.93, at_most=0.97)
            )
    for name in STABLE:
        for column, verdict in enumerate((Verdict.REGRESSED, Verdict.IMPROVED)):
            values = outcomes[f"stable/{name}"][:, column]
            error = float(values.std(ddof=1) / math.sqrt(len(values)))
            found.append(
                Figure(
                    f"false `{verdict}` in 1,000 stable nights: {name}",
                    float(values.mean()),
                    error,
                    "alarms",
                    len(values),
                    at_most=MOST_ALARMS,
                )
            )
        values = (outcomes[f"stable/{name}"][:, 0] > MOST_ALARMS).astype(float)
        found.append(_share(f"sets with more than {MOST_ALARMS} false `regressed`: {name}", values))
    for name, (_, n, asked) in STEPS.items():
        values = (outcomes[f"step/{name}"][:, 0] <= n).astype(float)
        found.append(_share(f"found within {n} nights: {name}", values, at_least=asked))
    return found


def _share(what: str, values: np.ndarray, **bounds: float | None) -> Figure:
    value = float(values.mean())
    return Figure(what, value, math.sqrt(value * (1 - value) / len(values)), "share", len(values), **bounds)


def table(found: Sequence[Figure]) -> str:
    """For a person, as Markdown."""
    rows = ["| figure | trials | measured | asked | |", "|---|---|---|---|---|"]
    for figure in found:
        scale, sign = (100, " %") if figure.unit == "share" else (1, "")
        value = f"{scale * figure.value:.1f} ± {2 * scale * figure.error:.1f}{sign}"
        low, high = (
            None if end is None else f"{scale * end:g}{sign}" for end in (figure.at_least, figure.at_most)
        )
        asked = f"{low} to {high}" if low and high else f"at least {low}" if low else ""
        asked = f"at most {high}" if high and not low else asked
        met = {True: "met", False: "MISSED", None: ""}[figure.is_met]
        rows.append(f"| {figure.what} | {figure.trials:,} | {value} | {asked} | {met} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials, for a quick look")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write figures and curves there")
    parser.add_argument("--pictures", type=Path, help="write the pictures of docs/evaluation.md there")
    arguments = parser.parse_args()
    outcomes = simulate(conditions(arguments.scale), arguments.processes)
    found = figures(outcomes)
    if arguments.pictures:
        from tests.benchmarks.power_pictures import write_pictures

        write_pictures(outcomes, found, arguments.pictures)
    if arguments.json:
        content = [{**asdict(figure), "is_met": figure.is_met} for figure in found]
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    print(table(found))
    print("\n± two standard errors over the trials")
    missed = [figure for figure in found if figure.is_met is False]
    if missed:
        sys.exit(f"{len(missed)} of {len(found)} figures miss what is asked of them")


if __name__ == "__main__":
    main()
