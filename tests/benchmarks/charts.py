"""False alarms and delays of the chart, beside those of an EWMA with the same guard.

    python -m tests.benchmarks.charts [--trials 1000]

Residuals are normal, one night at a time. A change comes after 50 quiet nights; its delay is counted from there, in
trials that had not alarmed before. "Lasting" is the share of a residual's error that is the same every night, as from
a baseline measured with error; it is drawn anew in each trial. The EWMA's limits were set to the chart's rate of
false alarms. The table comes last.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np

from evaluation.chart import DESIGN, ChartDesign, ChartState, Residual, step

QUIET_NIGHTS = 50
LONGEST = 400
"""Nights after which a trial of a change ends; counted as that many."""

NO_NIGHT = ChartDesign(night_limit=math.inf, clip=math.inf)

Alarms = Callable[[np.ndarray, float], list[int]]
"""Nights on which a chart alarms, restarted after each alarm, from residuals and their lasting share."""


def cusum(design: ChartDesign) -> Alarms:
    """The production chart, upwards."""

    def alarms(z: np.ndarray, lasting: float) -> list[int]:
        state, found = ChartState(), []
        for night, value in enumerate(z):
            state = step(state, Residual(value, 1.0, lasting, value), design)
            if state.up_alarm(design):
                found.append(night)
                state = ChartState()
        return found

    return alarms


def ewma(memory: float, limit: float) -> Alarms:
    """An exponentially weighted mean with exact limits from the first night, upwards."""

    def alarms(z: np.ndarray, lasting: float) -> list[int]:
        mean, nights, found = 0.0, 0, []
        for night, value in enumerate(z - DESIGN.guard * lasting):
            nights += 1
            mean += memory * (value - mean)
            if mean > limit * math.sqrt(memory / (2 - memory) * (1 - (1 - memory) ** (2 * nights))):
                found.append(night)
                mean, nights = 0.0, 0
        return found

    return alarms


CHARTS: dict[str, Alarms] = {
    "CUSUM, as decided": cusum(DESIGN),
    "CUSUM without the limit for one night": cusum(NO_NIGHT),
    "EWMA, memory 0.2": ewma(0.2, 2.55),
    "EWMA, memory 0.1": ewma(0.1, 2.4),
}
CHANGES = (
    ("+0.5", 0.5, 0.0),
    ("+1", 1.0, 0.0),
    ("+2", 2.0, 0.0),
    ("+4", 4.0, 0.0),
    ("+0.1 a night", 0.0, 0.1),
)
"""Name, shift and rise a night in standard errors."""


def residuals(generator: np.random.Generator, nights: int, lasting: float) -> np.ndarray:
    own = generator.standard_normal(nights) * math.sqrt(1 - lasting**2)
    return own + lasting * generator.standard_normal()


def false_alarms(alarms: Alarms, lasting: float, trials: int) -> float:
    """In 1,000 nights without a change."""
    generator = np.random.default_rng(1)
    return sum(len(alarms(residuals(generator, 1_000, lasting), lasting)) for _ in range(trials)) / trials


def delay(alarms: Alarms, shift: float, slope: float, lasting: float, trials: int) -> float:
    """Mean nights from the change to the alarm."""
    generator = np.random.default_rng(2)
    delays = []
    for _ in range(trials):
        z = residuals(generator, QUIET_NIGHTS + LONGEST, lasting)
        z[QUIET_NIGHTS:] += shift + slope * np.arange(1, LONGEST + 1)
        found = alarms(z[: QUIET_NIGHTS + 60], lasting) or alarms(z, lasting) or [QUIET_NIGHTS + LONGEST - 1]
        if found[0] >= QUIET_NIGHTS:
            delays.append(found[0] - QUIET_NIGHTS + 1)
    return float(np.mean(delays))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000)
    trials = parser.parse_args().trials
    names = [name for name, *_ in CHANGES]
    rows = ["| chart | lasting | false alarms in 1,000 nights | " + " | ".join(names) + " |"]
    rows.append("|---" * (3 + len(names)) + "|")
    for lasting in (0.0, 0.2):
        for chart, alarms in CHARTS.items():
            cells = [f"{false_alarms(alarms, lasting, max(10, trials // 5)):.1f}"]
            cells += [f"{delay(alarms, shift, slope, lasting, trials):.1f}" for _, shift, slope in CHANGES]
            rows.append(f"| {chart} | {lasting} | " + " | ".join(cells) + " |")
            print(rows[-1], flush=True)
    print()
    print("\n".join(rows))


if __name__ == "__main__":
    main()
