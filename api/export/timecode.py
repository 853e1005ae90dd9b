"""Times as files write them, and where the clock stood at a recording's first sample."""

from __future__ import annotations

import re

OFFSET_FORM = re.compile(r"(\d{2}):([0-5]\d):([0-5]\d)(?:\.(\d{1,3}))?", re.ASCII)
MAX_OFFSET_MS = 24 * 3_600_000 - 1
"""Tapes start at up to 23:59:59.999."""


class BadTimecodeOffset(ValueError):
    """A timecode offset that cannot be read."""

    def __init__(self, written: str) -> None:
        super().__init__(
            f"timecode offset {written[:40]!r} is not a time: write what the clock shows at the recording's first "
            "moment as HH:MM:SS or HH:MM:SS.mmm, up to 23:59:59.999 (frames as thousandths: 12 of 25 are .480), "
            "or 0 for none"
        )


def parse_offset(written: str) -> int:
    """Milliseconds of `HH:MM:SS`, `HH:MM:SS.mmm` or `0`.

    Raises:
        BadTimecodeOffset: anything else.
    """
    if written == "0":
        return 0
    match = OFFSET_FORM.fullmatch(written)
    if match is None:
        raise BadTimecodeOffset(written)
    hours, minutes, seconds, fraction = match.groups()
    offset_ms = ((int(hours) * 60 + int(minutes)) * 60 + int(seconds)) * 1000 + int(
        (fraction or "0").ljust(3, "0")
    )
    if offset_ms > MAX_OFFSET_MS:
        raise BadTimecodeOffset(written)
    return offset_ms


def clock(milliseconds: int, separator: str = ".") -> str:
    """A time as subtitles write it: hh:mm:ss and, behind `separator`, milliseconds. Goes on after 24 hours."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{separator}{milliseconds:03}"
