"""`python -m training.synthetic`: makes synthetic Galician speech."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from training.synthetic.acoustics import CONDITIONS
from training.synthetic.corpus import SAMPLE_RATE_HZ, Corpus
from training.synthetic.espeak import EspeakMissing, Voice
from training.synthetic.make import Recipe, make_condition, make_corpus
from training.synthetic.manifest_of import MANIFEST, write_flac_and_manifest
from training.synthetic.test_sets import TestSetsChanged, freeze, make_test_sets


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.synthetic", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    corpus = commands.add_parser("corpus", help="make the training corpus")
    corpus.add_argument("--out", type=Path, required=True)
    corpus.add_argument("--hours", type=float, default=Recipe.hours)
    corpus.add_argument("--seed", type=int, default=Recipe.seed)
    corpus.add_argument("--processes", type=int, default=2)
    sets = commands.add_parser(
        "test-sets", help="make the test sets, each as a corpus, FLAC files and a manifest"
    )
    sets.add_argument("--out", type=Path, required=True)
    sets.add_argument(
        "--freeze", action="store_true", help="draw new texts, and note the sets as those to compare with"
    )
    condition = commands.add_parser(
        "condition", help="a voice or a condition to fine-tune on, with a manifest"
    )
    condition.add_argument("--out", type=Path, required=True)
    condition.add_argument(
        "--voice", type=Voice.parse, help="such as pt+m7; left out: voices of the training corpus"
    )
    condition.add_argument("--condition", choices=sorted(CONDITIONS), default="clean")
    condition.add_argument("--minutes", type=float, default=30.0)
    condition.add_argument("--test-minutes", type=float, default=5.0)
    condition.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        {"corpus": _corpus, "test-sets": _test_sets, "condition": _condition}[chosen.command](chosen)
    except (EspeakMissing, TestSetsChanged, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _corpus(chosen: argparse.Namespace) -> None:
    made = make_corpus(
        chosen.out,
        Recipe(hours=chosen.hours, seed=chosen.seed),
        processes=chosen.processes,
        on_progress=lambda hours: print(f"{hours:.1f} of {chosen.hours:g} hours", flush=True),  # noqa: T201
    )
    print(_summary(made))  # noqa: T201


def _test_sets(chosen: argparse.Namespace) -> None:
    made = freeze(chosen.out) if chosen.freeze else make_test_sets(chosen.out)
    for name, corpus in made.items():
        write_flac_and_manifest(corpus, chosen.out / name, dataset=f"synthetic-{name}")
        print(f"{name}: {_summary(corpus)}")  # noqa: T201


def _condition(chosen: argparse.Namespace) -> None:
    made = make_condition(
        chosen.out,
        minutes=chosen.minutes,
        voice=chosen.voice,
        condition=chosen.condition,
        seed=chosen.seed,
        test_minutes=chosen.test_minutes,
    )
    name = "-".join(["synthetic", *([str(chosen.voice)] if chosen.voice else []), chosen.condition])
    write_flac_and_manifest(made, chosen.out, dataset=name)
    print(f"{chosen.out / MANIFEST}: {_summary(made)}")  # noqa: T201


def _summary(corpus: Corpus) -> str:
    n_samples: Counter[str] = Counter()
    for clip in corpus.clips:
        n_samples[f"{clip.split} {clip.part}"] += clip.n_samples
    parts = ", ".join(f"{part} {n / SAMPLE_RATE_HZ / 3600:.2f} h" for part, n in n_samples.most_common())
    return f"{len(corpus.clips)} clips, {corpus.hours():.2f} hours: {parts}"


if __name__ == "__main__":
    sys.exit(main())
