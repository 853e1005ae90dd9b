"""How well recordings are split: what is lost of speech, what is kept of the rest, and what the cuts go through.

    python -m tests.benchmarks.split_quality [--hours 6] [--seed 1] [--json FILE] [--keep DIR]

Recordings of 20 minutes are made whose every word is known (`split_material.py` says of what), split as the media
workers do, and compared:

- Lost: the share of the words' samples that lie in no segment.
- Dropped: the share of the samples of pieces without speech, 3 s and longer, that lie in no segment. What is like
  speech without being any (singing without words, babble) and what is behind a passage before and after its words
  (bed) are told apart from music, noise and silence.
- Cut words: the share of boundaries, the start and the end of each segment, that lie inside a word by more than
  0 samples. A cut in the midst of a passage is the end of one segment and the start of the next: it counts as both.
- Fixture clips (tests/data/demo-speech) have no word times: their loss counts apart, and boundaries in them not at
  all.

Needs espeak-ng. The exit code is 1 where an aim is missed; the last table says which. `--levels -46 -52` and
`--backgrounds none "music 10 dB"` draw of other speech. `--keep` leaves the recordings as wav.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from tests.benchmarks.aim import Aim
from tests.benchmarks.split_material import BACKGROUNDS, LEVELS_DBFS, Material
from tests.benchmarks.split_measures import Boundary, Found, FoundPiece, FoundWord, make_and_measure
from tests.benchmarks.split_sounds import RATE_HZ
from training.synthetic.espeak import EspeakMissing, espeak_version

MINUTES = 20.0
AIM_LOST = 0.001
AIM_DROPPED = 0.85
"""Of music, and of silence."""
AIM_CUT = 0.01
LENGTHS_MS = (300.0, 30_000.0)
FULL_MS = (10_000.0, 28_000.0)
N_WORST, N_WORST_VOICES = 25, 5
T = TypeVar("T")


@dataclass(frozen=True)
class SpeechRow:
    """Speech of one level, background, place or voice."""

    by: str
    what: str
    n_words: int
    hours: float
    lost: float
    """Share of the words' samples."""
    n_words_gone: int
    """Words of which nothing is left."""
    n_boundaries: int
    cut: float
    """Share of the boundaries."""


@dataclass(frozen=True)
class PieceRow:
    """Pieces without speech of one kind."""

    group: str
    kind: str
    n_pieces: int
    hours: float
    dropped: float


@dataclass(frozen=True)
class Segments:
    """How long segments are, and how many boundaries cut a word."""

    n_segments: int
    n_without_speech: int
    shortest_s: float
    median_s: float
    longest_s: float
    full_share: float
    """Of 10 to 28 s."""
    n_starts: int
    n_starts_inside: int
    n_ends: int
    n_ends_inside: int
    n_cuts: int
    """Where one segment ends and the next begins at once."""
    n_cuts_inside: int
    n_inside_20_ms: int
    """Of all boundaries, those that lie inside a word by more than 20 ms."""
    n_boundaries_in_clips: int
    clip_hours: float
    clip_lost: float


@dataclass(frozen=True)
class Result:
    """All that a run found."""

    hours: float
    lost: float
    cut: float
    speech: tuple[SpeechRow, ...]
    pieces: tuple[PieceRow, ...]
    segments: Segments


def measure_all(hours: float, seed: int, material: Material, keep: Path | None) -> list[Found]:
    """Each recording in a process of its own, two at a time."""
    n_recordings = max(1, round(hours * 60 / MINUTES))
    minutes = hours * 60 / n_recordings
    os.environ["OMP_NUM_THREADS"] = "1"  # as the workers set it
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as pool:
        waiting = [
            pool.submit(make_and_measure, seed, index, minutes, material, keep)
            for index in range(n_recordings)
        ]
        return [one.result() for one in waiting]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _grouped(rows: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    groups: dict[str, list[T]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def speech_rows(words: Sequence[FoundWord], boundaries: Sequence[Boundary]) -> list[SpeechRow]:
    """By level and background; by place and voice, of which boundaries are not told."""
    keys: tuple[tuple[str, Callable[[FoundWord | Boundary], str]], ...] = (
        ("level", lambda one: f"{one.level_dbfs:.0f} dBFS"),
        ("background", lambda one: one.background),
        ("both", lambda one: f"{one.level_dbfs:.0f} dBFS, {one.background}"),
    )
    rows = []
    for by, key in keys:
        ends = _grouped(boundaries, key)
        rows += [_speech_row(by, what, of, ends.get(what, [])) for what, of in _grouped(words, key).items()]
    for by, of_word in (("place", lambda word: word.place), ("voice", lambda word: word.voice)):
        rows += [_speech_row(by, what, of, []) for what, of in _grouped(words, of_word).items()]
    return sorted(rows, key=lambda row: (row.by, row.what))


def _speech_row(by: str, what: str, words: Sequence[FoundWord], boundaries: Sequence[Boundary]) -> SpeechRow:
    n_samples = sum(word.n_samples for word in words)
    return SpeechRow(
        by,
        what,
        len(words),
        n_samples / RATE_HZ / 3600,
        _share(sum(word.n_lost for word in words), n_samples),
        sum(word.n_lost == word.n_samples for word in words),
        len(boundaries),
        _share(sum(one.inside_ms > 0 for one in boundaries), len(boundaries)),
    )


def piece_rows(pieces: Sequence[FoundPiece]) -> list[PieceRow]:
    """Each kind of each group, after the group as a whole."""
    rows = []
    for group, all_of_group in sorted(_grouped(pieces, lambda piece: piece.group).items()):
        kinds = _grouped(all_of_group, lambda piece: piece.kind)
        for kind, some in [("all", all_of_group), *sorted(kinds.items())]:
            n_samples = sum(piece.n_samples for piece in some)
            dropped = _share(sum(piece.n_dropped for piece in some), n_samples)
            rows.append(PieceRow(group, kind, len(some), n_samples / RATE_HZ / 3600, dropped))
    return rows


def segments_of(found: Sequence[Found], boundaries: Sequence[Boundary]) -> Segments:
    lengths_ms = sorted(length for one in found for length in one.segment_ms) or [0.0]
    starts = [one for one in boundaries if one.edge == "start"]
    ends = [one for one in boundaries if one.edge == "end"]
    cuts = [one for one in starts if one.is_shared]
    n_clip_samples = sum(one.n_clip_samples for one in found)
    return Segments(
        n_segments=sum(len(one.segment_ms) for one in found),
        n_without_speech=sum(one.n_without_speech for one in found),
        shortest_s=lengths_ms[0] / 1000,
        median_s=lengths_ms[len(lengths_ms) // 2] / 1000,
        longest_s=lengths_ms[-1] / 1000,
        full_share=_share(sum(FULL_MS[0] <= one <= FULL_MS[1] for one in lengths_ms), len(lengths_ms)),
        n_starts=len(starts),
        n_starts_inside=sum(one.inside_ms > 0 for one in starts),
        n_ends=len(ends),
        n_ends_inside=sum(one.inside_ms > 0 for one in ends),
        n_cuts=len(cuts),
        n_cuts_inside=sum(one.inside_ms > 0 for one in cuts),
        n_inside_20_ms=sum(one.inside_ms > 20 for one in boundaries),
        n_boundaries_in_clips=sum(one.n_boundaries_in_clips for one in found),
        clip_hours=n_clip_samples / RATE_HZ / 3600,
        clip_lost=_share(sum(one.n_clip_lost for one in found), n_clip_samples),
    )


def summed_up(found: Sequence[Found]) -> Result:
    words = [word for one in found for word in one.words]
    boundaries = [boundary for one in found for boundary in one.boundaries]
    whole = _speech_row("", "all", words, boundaries)
    return Result(
        hours=sum(one.n_samples for one in found) / RATE_HZ / 3600,
        lost=whole.lost,
        cut=whole.cut,
        speech=(whole, *speech_rows(words, boundaries)),
        pieces=tuple(piece_rows([piece for one in found for piece in one.pieces])),
        segments=segments_of(found, boundaries),
    )


def check_aims(result: Result) -> list[Aim]:
    """What was aimed at, of what was there."""
    aims = [Aim("speech lost", f"<= {AIM_LOST:.1%}", f"{result.lost:.3%}", result.lost <= AIM_LOST)]
    for row in result.pieces:
        if row.group in ("music", "silence") and row.kind == "all":
            found = f"{row.dropped:.1%}"
            aims.append(
                Aim(f"{row.group} dropped", f">= {AIM_DROPPED:.0%}", found, row.dropped >= AIM_DROPPED)
            )
    aims.append(
        Aim("boundaries inside words", f"<= {AIM_CUT:.0%}", f"{result.cut:.2%}", result.cut <= AIM_CUT)
    )
    shortest_s, longest_s = (bound / 1000 for bound in LENGTHS_MS)
    segments = result.segments
    aims.append(
        Aim(
            "shortest segment",
            f">= {shortest_s:g} s",
            f"{segments.shortest_s:.2f} s",
            segments.shortest_s >= shortest_s,
        )
    )
    aims.append(
        Aim(
            "longest segment",
            f"<= {longest_s:g} s",
            f"{segments.longest_s:.2f} s",
            segments.longest_s <= longest_s,
        )
    )
    return aims


def print_tables(result: Result, aims: Sequence[Aim]) -> None:
    print(f"{'speech':<34}{'words':>8}{'hours':>8}{'lost %':>9}{'gone':>6}{'bounds':>8}{'cut %':>8}")
    voices = sorted((row for row in result.speech if row.by == "voice"), key=lambda row: -row.lost)
    for row in [*(row for row in result.speech if row.by not in ("both", "voice")), *voices[:N_WORST_VOICES]]:
        ends = f"{row.n_boundaries:>8}{100 * row.cut:>8.2f}" if row.n_boundaries else ""
        what = f"{row.by}: {row.what}" if row.by else row.what
        print(f"{what:<34}{row.n_words:>8}{row.hours:>8.2f}{100 * row.lost:>9.3f}{row.n_words_gone:>6}{ends}")
    segments = result.segments
    print(f"{'fixture clips':<34}{'':>8}{segments.clip_hours:>8.2f}{100 * segments.clip_lost:>9.3f}")
    print(f"\n{'without speech':<34}{'pieces':>8}{'hours':>8}{'dropped %':>11}")
    for piece in result.pieces:
        what = piece.group if piece.kind == "all" else f"  {piece.kind}"
        print(f"{what:<34}{piece.n_pieces:>8}{piece.hours:>8.2f}{100 * piece.dropped:>11.1f}")
    print(
        f"\n{segments.n_segments} segments of {result.hours:.2f} h, {segments.n_without_speech} without any speech: "
        f"{segments.shortest_s:.2f} to {segments.longest_s:.2f} s, median {segments.median_s:.1f} s, "
        f"{segments.full_share:.0%} of 10 to 28 s"
    )
    print(
        f"inside words: {segments.n_starts_inside} of {segments.n_starts} starts, {segments.n_ends_inside} of "
        f"{segments.n_ends} ends, among them {segments.n_cuts_inside} of {segments.n_cuts} cuts in the midst of a "
        f"passage; by more than 20 ms {segments.n_inside_20_ms}. In fixture clips, not counted: "
        f"{segments.n_boundaries_in_clips}"
    )
    print(f"\n{'aim':<26}{'wanted':>10}{'found':>10}  met")
    for aim in aims:
        print(f"{aim.what:<26}{aim.wanted:>10}{aim.found:>10}  {'yes' if aim.met else 'NO'}")


def worst_of(found: Sequence[Found]) -> dict[str, list[dict[str, object]]]:
    """Where to look: the words that lost most, the pieces of which most was kept, the deepest cuts."""
    words = sorted((w for one in found for w in one.words), key=lambda word: -word.n_lost)
    pieces = sorted(
        (p for one in found for p in one.pieces), key=lambda piece: piece.n_dropped - piece.n_samples
    )
    cuts = sorted((b for one in found for b in one.boundaries), key=lambda boundary: -boundary.inside_ms)
    return {
        "words": [asdict(word) for word in words[:N_WORST] if word.n_lost],
        "pieces": [asdict(piece) for piece in pieces[:N_WORST] if piece.n_dropped < piece.n_samples],
        "cuts": [asdict(cut) for cut in cuts[:N_WORST] if cut.inside_ms],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS_DBFS, help="of speech, in dBFS")
    parser.add_argument("--backgrounds", nargs="+", default=BACKGROUNDS, help='such as none, "noise 15 dB"')
    parser.add_argument("--keep", type=Path, help="folder to leave the recordings in")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    arguments = parser.parse_args()
    try:
        espeak_version()
    except EspeakMissing as error:
        parser.exit(2, f"{error}\n")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    material = Material(tuple(arguments.levels), tuple(arguments.backgrounds))
    found = measure_all(arguments.hours, arguments.seed, material, arguments.keep)
    result = summed_up(found)
    aims = check_aims(result)
    if arguments.json:
        content = {
            "seed": arguments.seed,
            "material": asdict(material),
            **asdict(result),
            "aims": [asdict(aim) for aim in aims],
            "worst": worst_of(found),
        }
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    print_tables(result, aims)
    return 0 if all(aim.met for aim in aims) else 1


if __name__ == "__main__":
    sys.exit(main())
