"""`python -m training.synthetic`: makes synthetic Galician speech."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from training.synthetic.corpus import SAMPLE_RATE_HZ, Corpus
from training.synthetic.espeak import EspeakMissing
from training.synthetic.make import Recipe, make_corpus


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.synthetic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="make the training corpus")
    corpus.add_argument("--out", type=Path, required=True)
    corpus.add_argument("--hours", type=float, default=Recipe.hours)
    corpus.add_argument("--seed", type=int, default=Recipe.seed)
    corpus.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    try:
        made = make_corpus(
            chosen.out,
            Recipe(hours=chosen.hours, seed=chosen.seed),
            processes=chosen.processes,
            on_progress=lambda hours: print(f"{hours:.1f} of {chosen.hours:g} hours", flush=True),  # noqa: T201
        )
    except EspeakMissing as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    print(_summary(made))  # noqa: T201
    return 0


def _summary(corpus: Corpus) -> str:
    n_samples: Counter[str] = Counter()
    for clip in corpus.clips:
        n_samples[clip.part] += clip.n_samples
    parts = ", ".join(f"{part} {n / SAMPLE_RATE_HZ / 3600:.2f} h" for part, n in n_samples.most_common())
    return f"{len(corpus.clips)} clips, {corpus.hours():.2f} hours: {parts}"


if __name__ == "__main__":
    sys.exit(main())
