"""Which sound track of a file is transcribed: the one with the most speech, one by number, or all of them mixed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from speech.mono import Samples
from speech.vad import SpeechDetector

TrackChoice = Literal["auto", "mix"] | int
"""`auto`: the track with the most speech. `mix`: all of them. A number counts from 0."""

SPEECH_PROBABILITY = 0.5
ALIKE = 0.95
"""Tracks with at least this share of the most speech are alike: left and right of one programme. The first is taken."""


def parse_track_choice(written: str) -> TrackChoice:
    """`auto`, `mix` or a number, as people write it. Raises ValueError for anything else."""
    if written == "auto":
        return "auto"
    if written == "mix":
        return "mix"
    if written.isascii() and written.isdigit():
        return int(written)
    raise ValueError(f"{written!r} is neither auto nor mix nor a number counted from 0")


def most_speech(excerpts: Iterable[tuple[int, Samples]]) -> int | None:
    """The track with the most speech, by excerpts of all (track, samples); None where there is none in any."""
    detectors: dict[int, SpeechDetector] = {}
    speech_windows: dict[int, int] = {}
    for track, samples in excerpts:
        detector = detectors.setdefault(track, SpeechDetector())
        count = int((detector.feed(samples) >= SPEECH_PROBABILITY).sum())
        speech_windows[track] = speech_windows.get(track, 0) + count
    for track, detector in detectors.items():
        speech_windows[track] += int((detector.finish() >= SPEECH_PROBABILITY).sum())
    most = max(speech_windows.values(), default=0)
    if not most:
        return None
    return min(track for track, count in speech_windows.items() if count >= ALIKE * most)
