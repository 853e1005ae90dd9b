"""Build the demo model from nothing: speech, tokenizer, training, measuring, card.

    python -m training.scratch [--minutes 100] [--seed 1] [--out build/demo-model] [--install]

About 100 minutes on two cores; on a GPU the same command, in less. Stopped or killed, it goes on when it is given
again. `models/demo` is left as it is unless --install is given, and then only replaced by a model that is at least as
good on every test set. Needs Debian's espeak-ng.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

DEFAULT_OUT = Path("build/demo-model")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build as the command line says; 0 when it went well."""
    parser = argparse.ArgumentParser(
        prog="python -m training.scratch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes", type=float, default=100.0, help="on two cores; sets hours of speech and steps"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--until", type=int, help="stop the training after so many steps; measure nothing")
    parser.add_argument(
        "--shorten",
        metavar="FIRST:END",
        help="from step FIRST on run through the rest of the schedule by step END, on a machine that is slower than "
        "planned; FIRST is at or after the newest checkpoint",
    )
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        help="a finished build of another seed, for the card",
    )
    parser.add_argument(
        "--measure",
        type=Path,
        metavar="MODEL",
        help="build nothing: measure another model on the test sets, which are made under --out where they are missing",
    )
    parser.add_argument("--install", action="store_true", help="replace models/demo, if better everywhere")
    wanted = parser.parse_args(arguments)

    # torch and transformers take seconds: not for --help
    from training.scratch.build import (
        Build,
        BuildError,
        build,
        install,
        make_card,
        measure_model,
        read_measured,
    )
    from training.scratch.loop import TrainingFailed
    from training.scratch.settings import HOURS_PER_MINUTE, Settings

    try:
        if wanted.measure:
            for name, one in measure_model(wanted.measure, wanted.out, device=wanted.device).items():
                print(f"{name:14} {one.in_words()}")  # noqa: T201
            return 0
        settings = Settings.of_minutes(wanted.minutes, seed=wanted.seed)
        if wanted.shorten:
            settings = replace(settings, shortened=_steps(wanted.shorten))
        hours = wanted.minutes * HOURS_PER_MINUTE
        found = build(Build(wanted.out, settings, hours, wanted.device, wanted.dtype, wanted.until))
        if wanted.beside and found:
            others = dict(read_measured(folder) for folder in wanted.beside)
            make_card(wanted.out, settings, found, beside=others)
        if wanted.install:
            install(wanted.out, device=wanted.device)
    except (BuildError, TrainingFailed, ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _steps(text: str) -> tuple[int, int]:
    try:
        first, end = (int(part) for part in text.split(":"))
    except ValueError as error:
        raise ValueError(f"--shorten {text}: give two steps as FIRST:END, such as 1000:3000") from error
    return first, end


if __name__ == "__main__":
    sys.exit(main())
