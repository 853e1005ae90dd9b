"""Transcripts as text and subtitles. Pure: dataclasses in, strings out.

Subtitles keep the habits of broadcasting: at most two lines of at most 42 characters. A longer segment becomes
several cues that share its time by their characters; cues follow each other and never overlap.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from db.states import SegmentState
from db.transcripts import Transcript

LINE_CHARS = 42
CUE_LINES = 2

FAILED_TEXT = "[not transcribed]"
"""Stands where a segment failed, so that a reader sees that something is missing."""


@dataclass(frozen=True)
class Cue:
    """What is shown from one moment to another."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def wrap(text: str, width: int = LINE_CHARS) -> list[str]:
    """Text in lines of at most `width` characters, broken at spaces; longer words are cut."""
    lines: list[str] = []
    line = ""
    for word in text.split():
        while len(word) > width:
            room = width - len(line) - 1 if line else width
            if room <= 0:
                lines.append(line)
                line = ""
                continue
            line = f"{line} {word[:room]}" if line else word[:room]
            word = word[room:]
            lines.append(line)
            line = ""
        if not word:
            continue
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line else lines


def cut_cues(text: str, start_ms: int, end_ms: int) -> Iterator[Cue]:
    """One segment's cues: its time shared out in proportion to the characters of each."""
    lines = wrap(text)
    groups = [tuple(lines[at : at + CUE_LINES]) for at in range(0, len(lines), CUE_LINES)]
    # a cue needs a time of its own, at least a millisecond; speech cannot be denser, a broken model's text can
    while len(groups) > max(1, end_ms - start_ms):
        groups = [*groups[:-2], groups[-2] + groups[-1]]
    weights = [sum(map(len, group)) for group in groups]
    total = sum(weights)
    position = start_ms
    sent = 0
    for number, (group, weight) in enumerate(zip(groups, weights, strict=True), start=1):
        sent += weight
        left = len(groups) - number
        ideal = start_ms + round((end_ms - start_ms) * sent / total)
        end = min(max(ideal, position + 1), end_ms - left) if left else end_ms
        yield Cue(position, end, group)
        position = end


def spoken(transcript: Transcript) -> Iterable[tuple[float, float, str]]:
    """(start_s, end_s, text) of every span that has something to show, in order of time."""
    for segment in transcript.segments:
        if segment.state is SegmentState.DONE and (segment.text or "").strip():
            yield segment.start_s, segment.end_s, segment.text or ""
        elif segment.state is SegmentState.FAILED:
            yield segment.start_s, segment.end_s, FAILED_TEXT


def cues(transcript: Transcript) -> list[Cue]:
    """All cues, in order and without overlap."""
    found: list[Cue] = []
    position = 0
    for start_s, end_s, text in spoken(transcript):
        start_ms = max(position, round(start_s * 1000))
        end_ms = max(start_ms + 1, round(end_s * 1000))
        found += cut_cues(text, start_ms, end_ms)
        position = found[-1].end_ms
    return found


def clock(milliseconds: int, separator: str) -> str:
    """A time as subtitles write it: hh:mm:ss and, behind `separator`, milliseconds."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{milliseconds:03}"


def notice_cues(notice: str, found: list[Cue]) -> list[Cue]:
    """The notice in a cue of its own before the first speech, or in brackets inside the first cues where
    there is no second free: SRT has no comments."""
    lines = wrap(f"[{notice}]")
    if not found or found[0].start_ms >= 1000:
        own = [Cue(0, 1000, tuple(lines))]
        return [*own, *found]
    first, *rest = found
    return [Cue(first.start_ms, first.end_ms, (*lines, *first.lines)), *rest]


def render_txt(transcript: Transcript) -> str:
    """The text alone, one segment a line; notices stand in lines that begin with `#`."""
    lines = [f"# {transcript.notice}"] if transcript.notice else []
    for start_s, _, text in spoken(transcript):
        if text == FAILED_TEXT:
            text = f"[{clock(round(start_s * 1000), '.')} not transcribed]"
        lines.append(" ".join(text.split()))
    return "".join(f"{line}\n" for line in lines)


def render_srt(transcript: Transcript) -> str:
    """SubRip subtitles."""
    found = cues(transcript)
    if transcript.notice:
        found = notice_cues(transcript.notice, found)
    return "".join(
        f"{number}\n{clock(cue.start_ms, ',')} --> {clock(cue.end_ms, ',')}\n" + "\n".join(cue.lines) + "\n\n"
        for number, cue in enumerate(found, start=1)
    )


def render_vtt(transcript: Transcript) -> str:
    """WebVTT subtitles; the notice is a comment."""
    blocks = ["WEBVTT"]
    if transcript.notice:
        blocks.append(f"NOTE {transcript.notice}")
    blocks += [
        f"{clock(cue.start_ms, '.')} --> {clock(cue.end_ms, '.')}\n"
        + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        for cue in cues(transcript)
    ]
    return "".join(f"{block}\n\n" for block in blocks)
