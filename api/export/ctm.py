"""CTM, the form in which NIST's scoring tools (sclite) read words with times."""

from __future__ import annotations

import re

from api.export.spoken import spoken, words_of
from api.export.timecode import clock
from db.transcripts import Transcript

CHANNEL = "1"
UNSAFE = re.compile(r"[^\w.-]+")


def render_ctm(transcript: Transcript, offset_ms: int = 0) -> str:
    """A line per word: file, channel, start and duration in seconds, word, confidence (that of its segment).

    Times count from the start of the recording whatever `offset_ms` is, which a comment tells: they are compared with
    references that do. They are in order of time, and lines that begin with `;;` are comments.
    """
    name = file_name(transcript.recording)
    lines = [
        f";; recording {transcript.recording_id}: {' '.join(transcript.recording.split())}",
        ";; start and duration are estimates: each segment's time shared out by the letters of its words",
        ";; confidence is that of the segment that the word stands in",
    ]
    if offset_ms:
        lines.append(f";; the clock showed {clock(offset_ms)} at the start")
    if transcript.notice:
        lines.append(f";; {transcript.notice}")
    for span in spoken(transcript):
        if span.failed:
            lines.append(f";; not transcribed: {span.start_ms / 1000:.3f} to {span.end_ms / 1000:.3f}")
            continue
        confidence = "NA" if span.confidence is None else f"{span.confidence:.3f}"
        lines += [
            f"{name} {CHANNEL} {word.start_ms / 1000:.3f} {(word.end_ms - word.start_ms) / 1000:.3f} "
            f"{word.text} {confidence}"
            for word in words_of(span.text, span.start_ms, span.end_ms)
        ]
    return "".join(f"{line}\n" for line in lines)


def file_name(recording: str) -> str:
    """A recording's name as CTM's first column can hold it: no spaces, no extension, `/` as `_`."""
    stem = recording.rsplit("/", 1)
    stem[-1] = stem[-1].rsplit(".", 1)[0] or stem[-1]
    return UNSAFE.sub("_", "/".join(stem)).strip("_") or "recording"
