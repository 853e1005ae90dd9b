"""What the clock showed at a recording's first moment, as BWF, QuickTime and MXF files say it."""

from __future__ import annotations

import re

from av.audio.stream import AudioStream
from av.container.input import InputContainer

DAY_MS = 24 * 3_600_000
USUAL_RATES = (25.0, 30.0, 50.0, 60.0)
"""Frames a second. Where a file does not say, the first that has a frame of that number."""
# hours, minutes, seconds, frames; `;` or `.` before the frames says that numbers are dropped (NTSC)
_FORM = re.compile(r"(\d{2}):(\d{2}):(\d{2})[:;.](\d{2,3})", re.ASCII)


def read_timecode(container: InputContainer, stream: AudioStream) -> tuple[str | None, int | None]:
    """The timecode as it is written, and in milliseconds since midnight.

    (None, None) where there is none, or one of 0, which most recorders write that have no clock. The milliseconds are
    None for what cannot be read. Sources: `bext` (EBU Tech 3285: samples since midnight), QuickTime's `tmcd` track,
    MXF's timecode component.
    """
    since_midnight = container.metadata.get("time_reference", "").strip()
    if since_midnight.isdigit():
        rate_hz = stream.codec_context.sample_rate
        offset_ms = round(int(since_midnight[:20]) * 1000 / rate_hz) if rate_hz else 0
        if not 0 < offset_ms < DAY_MS:
            return None, None
        seconds, milliseconds = divmod(offset_ms, 1000)
        clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"
        return clock, offset_ms
    tags = [*(other.metadata for other in container.streams), container.metadata]
    written = next((tag["timecode"].strip() for tag in tags if tag.get("timecode", "").strip()), None)
    if written is None:
        return None, None
    rates = [float(video.average_rate) for video in container.streams.video if video.average_rate]
    read_ms = timecode_ms(written, next((rate for rate in rates if 10 <= rate <= 120), None))
    return (None, None) if read_ms == 0 else (written[:40], read_ms)


def timecode_ms(written: str, frame_rate: float | None) -> int | None:
    """Milliseconds since midnight of `HH:MM:SS:FF`; None where it is no time of a day.

    Frames are taken at their true rate (29.97 a second), the clock as it shows, dropped numbers or not.
    """
    match = _FORM.fullmatch(written)
    if match is None:
        return None
    hours, minutes, seconds, frames = map(int, match.groups())
    if frame_rate is None:
        frame_rate = next((rate for rate in USUAL_RATES if frames < rate), USUAL_RATES[-1])
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= round(frame_rate):
        return None
    offset_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + round(frames * 1000 / frame_rate)
    return min(offset_ms, DAY_MS - 1)
