"""Damage small files of every format and read them: no crash, no hang, no growth, every outcome accounted.

    python -m tests.fuzz_media --n 2000 --seed 1

Decoding runs in this process, so that a crash is a crash. With `--worker` each file goes the whole way of a media
worker instead: decoding in a process of its own, speech, cuts, working copy and peaks. `damaged` and the outcomes are
what `make test` runs a few of.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from speech.audio import MediaReader
from speech.errors import DecoderCrashed, MediaError
from speech.split import DecodeLimits, split_media
from speech.working_copy import read_span
from tests.speech.format_matrix import FORMATS, made

MAX_SECONDS = 20.0
"""For a file of two seconds, on a busy machine; a hang is for ever."""
MAX_GROWTH_MB = 200
KINDS = ("truncated", "flipped", "spliced", "header", "zeroed", "repeated")
SOURCES = tuple(
    candidate
    for candidate in FORMATS
    if candidate.picture != "dvvideo" and candidate.id not in {"gxf", "wav-176400", "wav-192000"}
)


def damaged(number: int, seed: int) -> tuple[str, bytes]:
    """File `number` of the run `seed`: what was done to it, and its bytes."""
    rng = random.Random(f"{seed}-{number}")
    wanted = SOURCES[number % len(SOURCES)]
    kind = KINDS[number // len(SOURCES) % len(KINDS)]
    content = bytearray(made(wanted))
    if kind == "truncated":
        content = content[: rng.randrange(len(content))]
    elif kind == "flipped":
        for _ in range(rng.choice((1, 10, 100, 1000))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "spliced":
        other = made(rng.choice(SOURCES))
        at, start = rng.randrange(len(content)), rng.randrange(len(other))
        content[at : at + rng.choice((0, 1000))] = other[start : start + rng.randrange(1, 20_000)]
    elif kind == "header":
        for _ in range(rng.choice((1, 3, 10))):
            at = rng.randrange(min(len(content) - 8, 600))
            value = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            content[at : at + rng.choice((1, 2, 4))] = bytes([value]) * rng.choice((1, 2, 4))
    elif kind == "zeroed":
        at = rng.randrange(len(content))
        n_bytes = rng.randrange(1, len(content) // 4 + 2)
        content[at : at + n_bytes] = bytes(min(n_bytes, len(content) - at))
    else:
        at = rng.randrange(len(content))
        content[at:at] = content[at // 2 : at // 2 + rng.randrange(1, 50_000)]
    return f"{wanted.id} {kind}", bytes(content)


def outcome(content: bytes) -> str:
    """Read a file; its outcome in a word. Raises AssertionError where audio and holes do not add up."""
    code = ""
    try:
        with MediaReader(io.BytesIO(content), name="fita") as media:
            at = 0
            for block in media.blocks():
                assert block.start_sample == at, "blocks do not follow on one another"
                at += len(block.samples)
            assert media.n_samples == at, "the count is not what was given"
            end = 0
            for hole in media.failed:
                assert end <= hole.start_sample < hole.end_sample <= at, f"the hole {hole} is out of place"
                end = hole.end_sample
            return "with holes" if media.failed else "whole"
    except MediaError as error:
        code = error.code if str(error).startswith("fita: ") else ""
    assert code, "the error does not name the file"
    return code


def worker_outcome(content: bytes) -> str:
    """The same of a media worker's whole way. A decoder that died is an AssertionError, though a worker outlives it."""
    with tempfile.TemporaryDirectory() as folder:
        copy, peaks = Path(folder) / "copy.flac", Path(folder) / "peaks.dat"
        source = io.BytesIO(content)
        try:
            split = split_media(source, name="fita", working_copy=copy, peaks=peaks, limits=DecodeLimits())
        except MediaError as error:
            code = error.code if str(error).startswith("fita: ") else ""
            reason = error.reason
        else:
            assert len(read_span(copy, 0, split.duration_samples)) == split.duration_samples
            assert peaks.exists(), "peaks are missing"
            return "with holes" if split.failed else "whole"
        assert code, "the error does not name the file"
        assert code != DecoderCrashed.code, f"the decoder crashed: {reason}"
        assert not list(Path(folder).iterdir()), "something of a file that failed was left"
        return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000, help="how many files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="begin at this file, to see one again")
    parser.add_argument(
        "--worker", action="store_true", help="a media worker's whole way, with a process for each"
    )
    arguments = parser.parse_args()
    read = worker_outcome if arguments.worker else outcome
    faulthandler.enable()
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    slowest = (0.0, "")
    warm_mb = 0.0
    for number in range(arguments.first, arguments.first + arguments.n):
        what, content = damaged(number, arguments.seed)
        faulthandler.dump_traceback_later(120, exit=True)
        began = time.monotonic()
        try:
            outcomes[read(content)] += 1
        except Exception as error:
            bad.append(f"{number} {what}: {type(error).__name__}: {error}")
        took_s = time.monotonic() - began
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, (took_s, f"{number} {what}"))
        if took_s > MAX_SECONDS:
            bad.append(f"{number} {what}: took {took_s:.1f} s")
        if number == arguments.first + min(len(SOURCES), arguments.n // 2):
            warm_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    grown_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - warm_mb
    for name, count in outcomes.most_common():
        print(f"{count:6} {name}")
    print(
        f"slowest {slowest[0]:.2f} s ({slowest[1]}); peak memory grew by {grown_mb:.0f} MB after the first round"
    )
    if grown_mb > MAX_GROWTH_MB:
        bad.append(f"memory grew by {grown_mb:.0f} MB")
    for line in bad:
        print(f"BAD {line}")
    print(f"{arguments.n} files, seed {arguments.seed}: {len(bad)} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
