"""How often a programme is named that did not change, and how often one that did.

    python -m tests.benchmarks.standouts

Windows of four programmes in two kinds; recordings differ by a third, 6 corrected segments of 20 words from each. The
table is in docs/evaluation.md.
"""

from __future__ import annotations

import argparse

import numpy as np

from evaluation.production import find_standouts
from tests.evaluation.test_production import made_window

CHANGED = "Diario"
WINDOW_RECORDINGS = 24


def named(
    generator: np.random.Generator, n_reference: int, factor: float, n_trials: int
) -> tuple[float, float]:
    """Shares of trials in which the changed programme is named, and in which another is that did not change."""
    found = others = 0
    for _ in range(n_trials):
        reference = made_window(generator, n_reference)
        current = made_window(generator, WINDOW_RECORDINGS, {CHANGED: factor})
        names = {unit.name for unit in find_standouts(reference, current)[0]}
        found += CHANGED in names
        # the kind of a changed programme did change
        others += bool(names - {CHANGED, "radio"}) if factor != 1 else bool(names)
    return found / n_trials, others / n_trials


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=200)
    n_trials = parser.parse_args().trials
    generator = np.random.default_rng(0)
    print("| recordings in the reference | errors of one programme | it is named | another is named |")
    print("|---|---|---|---|")
    for n_reference in (24, 60, 160):
        for factor in (1.0, 1.5, 2.0, 3.0):
            found, others = named(generator, n_reference, factor, n_trials)
            change = "unchanged" if factor == 1 else f"times {factor:g}"
            hit = "-" if factor == 1 else f"{100 * found:.0f} %"
            print(f"| {n_reference} | {change} | {hit} | {100 * others:.1f} % |")


if __name__ == "__main__":
    main()
