"""How often a candidate passes, by what it is: the error rates of `fonoteca model promote` on one fixed set.

    python -m tests.benchmarks.promotion [--trials 1000]

The set of 1,710 utterances of 90 speakers at 11.68 %; "anew" is the share of utterances that the candidate decodes
differently at all. The table comes last.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np

from evaluation.promotion import Outcome, judge_harm
from tests.evaluation.made_nights import FixedSet, counts_of

CANDIDATES = (
    ("the same texts", 0.0, 1.0),
    ("as good, 20 % anew", 0.2, 1.0),
    ("as good, all anew", 1.0, 1.0),
    ("10 % better, all anew", 1.0, 0.9),
    ("2 % worse, 20 % anew", 0.2, 1.02),
    ("5 % worse (the margin), 20 % anew", 0.2, 1.05),
    ("5 % worse (the margin), all anew", 1.0, 1.05),
    ("10 % worse, 20 % anew", 0.2, 1.1),
    ("10 % worse, all anew", 1.0, 1.1),
)
"""Name, share decoded anew, and the candidate's true rate as a multiple of the deployed model's."""


def outcome(generator: np.random.Generator, changed: float, factor: float) -> Outcome:
    """Of one candidate on a new set."""
    made = FixedSet.make(generator)
    deployed = made.decode(generator)
    better = factor < 1  # words go wrong in `again`, none comes right
    candidate = made.decode(generator, factor) if better else made.again(deployed, generator, changed, factor)
    return judge_harm(
        counts_of(deployed, made.words), counts_of(candidate, made.words), made.speakers
    ).outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1_000)
    trials = parser.parse_args().trials
    rows = ["| candidate | harmless | undecided | harmful |", "|---|---|---|---|"]
    for index, (name, changed, factor) in enumerate(CANDIDATES):
        found = Counter(
            outcome(np.random.default_rng([index, trial]), changed, factor) for trial in range(trials)
        )
        shares = [found[kind] / trials for kind in (Outcome.HARMLESS, Outcome.UNDECIDED, Outcome.HARMFUL)]
        rows.append(f"| {name} | {shares[0]:.1%} | {shares[1]:.1%} | {shares[2]:.1%} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
