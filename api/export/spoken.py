"""What is said in a transcript, span by span and word by word. Pure: dataclasses in and out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from db.states import SegmentState
from db.transcripts import Transcript

FAILED_TEXT = "[not transcribed]"
"""Stands where a segment failed, so that a reader sees that something is missing."""


@dataclass(frozen=True)
class Spoken:
    """A span that has something to show, in milliseconds from the start of the recording."""

    start_ms: int
    end_ms: int
    text: str
    """On one line; FAILED_TEXT where the segment failed."""
    confidence: float | None = None
    failed: bool = False


@dataclass(frozen=True)
class Word:
    """A word with its time, which is an estimate: the segment's time shared out by letters."""

    text: str
    start_ms: int
    end_ms: int


def spoken(transcript: Transcript) -> Iterator[Spoken]:
    """Every span that has something to show, in order of time. Segments without text are left out."""
    for segment in sorted(transcript.segments, key=lambda segment: segment.start_s):
        start_ms, end_ms = round(segment.start_s * 1000), round(segment.end_s * 1000)
        text = " ".join((segment.text or "").split())
        if segment.state is SegmentState.DONE and text:
            yield Spoken(start_ms, end_ms, text, segment.confidence)
        elif segment.state is SegmentState.FAILED:
            yield Spoken(start_ms, end_ms, FAILED_TEXT, failed=True)


def words_of(text: str, start_ms: int, end_ms: int) -> list[Word]:
    """A text's words, each with its share of the time by its letters. They touch, and fill the span."""
    texts = text.split()
    n_letters = sum(map(len, texts))
    found = []
    position, behind = start_ms, 0
    for written in texts:
        behind += len(written)
        end = start_ms + round((end_ms - start_ms) * behind / n_letters)
        found.append(Word(written, position, end))
        position = end
    return found
