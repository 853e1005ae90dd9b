"""Which clips are fit to train on. Bounds are wide: what they refuse is wrong, not unusual."""

from __future__ import annotations

from dataclasses import dataclass

from speech.audio import SAMPLE_RATE_HZ
from training.corpora.audio_facts import DECODE_AT_MOST_S, AudioFacts
from training.corpora.reading import ListedRow, Reason, Reject

SILENT_PEAK = 0.001
"""-60 dBFS: below it there is no speech that a person would hear."""
MAX_LOST_S = 0.1
"""Of a clip that may be undecodable. More is a word."""


@dataclass(frozen=True)
class Limits:
    """What a clip must be like."""

    min_s: float = 0.3
    max_s: float = 40.0
    """What the encoder takes in one piece: a longer prompt is cut into parts that do not see each other."""
    min_characters_per_s: float = 1.0
    """Of the whole clip, pauses included. A word read alone in three seconds has about 2."""
    max_characters_per_s: float = 30.0
    """Fast speech has about 20; at 30 the guards of transcription say "too fast"."""
    spare_characters: int = 10
    """Allowed on top of the fastest: in a very short clip, a character or two decide."""


def find_fault(
    row: ListedRow, facts: AudioFacts, limits: Limits, *, may_be_empty: bool = False
) -> Reject | None:
    """Why a row is not fit to train on; None where it is. The first reason of several, from the file to the text."""
    seconds = facts.duration_s
    if facts.missing:
        return row.reject(Reason.MISSING_AUDIO, f"{row.audio}: {facts.problem}")
    if facts.problem:
        return row.reject(Reason.UNDECODABLE, f"{row.audio}: {facts.problem}")
    if seconds > limits.max_s:
        more = "more than " if seconds >= DECODE_AT_MOST_S else ""
        return row.reject(Reason.TOO_LONG, f"{more}{seconds:.1f} s; at most {limits.max_s:g} s")
    if facts.n_lost > MAX_LOST_S * SAMPLE_RATE_HZ:
        lost_s = facts.n_lost / SAMPLE_RATE_HZ
        return row.reject(Reason.DAMAGED, f"{lost_s:.2f} s of {seconds:.2f} s cannot be decoded")
    if seconds < limits.min_s:
        return row.reject(Reason.TOO_SHORT, f"{seconds:.2f} s; at least {limits.min_s:g} s")
    if not row.text:
        return None if may_be_empty else row.reject(Reason.EMPTY_TEXT, "nothing is written for it")
    if facts.peak < SILENT_PEAK:
        return row.reject(Reason.SILENT, f"its loudest sample is {facts.peak:.5f} of full scale")
    return _fault_of_rate(row, seconds, limits)


def _fault_of_rate(row: ListedRow, seconds: float, limits: Limits) -> Reject | None:
    rate = len(row.text) / seconds
    said = f"{rate:.1f} characters a second ({len(row.text)} in {seconds:.1f} s)"
    if len(row.text) > limits.max_characters_per_s * seconds + limits.spare_characters:
        return row.reject(Reason.TOO_FAST, f"{said}; at most {limits.max_characters_per_s:g}")
    if rate < limits.min_characters_per_s:
        return row.reject(Reason.TOO_SLOW, f"{said}; at least {limits.min_characters_per_s:g}")
    return None
