"""SubRip and WebVTT."""

from __future__ import annotations

import html

from api.export.cues import Cue, cut_cues
from api.export.spoken import spoken
from api.export.timecode import clock
from db.transcripts import Transcript


def cues_of(transcript: Transcript, *, show_notice: bool) -> list[Cue]:
    """A transcript's cues, the notice as the first one where it is to be shown."""
    notice = f"[{transcript.notice}]" if show_notice and transcript.notice else ""
    return cut_cues(spoken(transcript), round(transcript.duration_s * 1000), notice=notice)


def render_srt(transcript: Transcript, offset_ms: int = 0) -> str:
    """SubRip subtitles, the notice as the first: SRT has no comments."""
    return "".join(
        f"{number}\n{times(cue, offset_ms, ',')}\n" + "\n".join(cue.lines) + "\n\n"
        for number, cue in enumerate(cues_of(transcript, show_notice=True), start=1)
    )


def render_vtt(transcript: Transcript, offset_ms: int = 0) -> str:
    """WebVTT subtitles; the notice is a comment."""
    blocks = ["WEBVTT"]
    if transcript.notice:
        blocks.append(f"NOTE {transcript.notice}")
    blocks += [
        f"{times(cue, offset_ms, '.')}\n" + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        for cue in cues_of(transcript, show_notice=False)
    ]
    return "".join(f"{block}\n\n" for block in blocks)


def times(cue: Cue, offset_ms: int, separator: str) -> str:
    """The line that says when a cue is shown."""
    return f"{clock(cue.start_ms + offset_ms, separator)} --> {clock(cue.end_ms + offset_ms, separator)}"
