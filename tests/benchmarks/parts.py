"""How often the rule for one part of a set calls an equally good system regressed, and finds a programme that broke.

    python -m tests.benchmarks.parts [--trials 200]

Fixed set: 1,710 utterances of 90 speakers in 30 programmes at about 12 % word error rate. The new system is as good
over all, and better with some speakers and worse with others, by 15 % (standard deviation); or it makes three times
the errors in one programme. The table comes last.
"""

from __future__ import annotations

import argparse

import numpy as np

from db.evaluation_runs import PredictionRow
from evaluation.night_regression import CERTAIN_P, PART_MARGIN
from evaluation.paired_runs import find_standouts, pair_runs

N_UTTERANCES, N_SPEAKERS, N_PROGRAMMES, N_WORDS = 1_710, 90, 30, 10
RATE = 0.1168
SPEAKERS_DIFFER = 0.5
SYSTEMS_DIFFER = 0.15
BROKEN_FACTOR = 3.0


def trial(generator: np.random.Generator, *, broken: bool) -> tuple[bool, bool]:
    """Whether some programme is called regressed, and whether one is at least worth a look."""
    references = [[f"w{word}" for word in generator.integers(0, 50, N_WORDS)] for _ in range(N_UTTERANCES)]
    rates = RATE * np.exp(generator.normal(0, SPEAKERS_DIFFER, N_SPEAKERS))
    factors = np.exp(generator.normal(0, SYSTEMS_DIFFER, N_SPEAKERS))
    if broken:
        factors[: N_SPEAKERS // N_PROGRAMMES] *= BROKEN_FACTOR

    def run(rates_now: np.ndarray) -> list[PredictionRow]:
        rows = []
        for index, reference in enumerate(references):
            speaker = index % N_SPEAKERS
            wrong = generator.random(N_WORDS) < min(0.95, rates_now[speaker])
            text = " ".join(
                "x" if is_wrong else word for word, is_wrong in zip(reference, wrong, strict=True)
            )
            rows.append(
                PredictionRow(
                    utterance_id=index,
                    key=str(index),
                    audio=str(index),
                    reference=" ".join(reference),
                    text=text,
                    speaker=f"speaker {speaker}",
                    programme=f"programme {speaker * N_PROGRAMMES // N_SPEAKERS}",
                    kind=None,
                    duration_samples=16_000,
                    mean_logprob=None,
                    flags=[],
                    failure_reason=None,
                )
            )
        return rows

    found, _ = find_standouts(pair_runs(run(rates), run(rates * factors)))
    worse = [
        group
        for group in found
        if group.kind != "speaker" and group.difference >= PART_MARGIN.of(group.expected)
    ]
    return any(group.adjusted_p <= CERTAIN_P for group in worse), bool(worse)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.parts", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--trials", type=int, default=200)
    trials = parser.parse_args().trials
    print("| the new system | regressed by a part | worth a look |\n|---|---|---|")
    for broken, name in ((False, "as good over all"), (True, "three times the errors in one programme")):
        generator = np.random.default_rng(0)
        found = [trial(generator, broken=broken) for _ in range(trials)]
        regressed, watched = (100 * float(np.mean(column)) for column in zip(*found, strict=True))
        print(f"| {name} | {regressed:.1f} % | {watched:.1f} % |")


if __name__ == "__main__":
    main()
