"""Plain text."""

from __future__ import annotations

from api.export.spoken import spoken
from api.export.timecode import clock
from db.transcripts import Transcript


def render_txt(transcript: Transcript, offset_ms: int = 0) -> str:
    """The text alone, one segment a line; notices stand in lines that begin with `#`."""
    lines = [f"# {transcript.notice}"] if transcript.notice else []
    lines += [
        f"[{clock(span.start_ms + offset_ms)} not transcribed]" if span.failed else span.text
        for span in spoken(transcript)
    ]
    return "".join(f"{line}\n" for line in lines)
