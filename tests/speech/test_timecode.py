"""Timecodes and tags, as BWF, QuickTime and MXF files carry them."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import pytest

from speech.audio import MediaReader
from speech.containers import MAX_TAG_CHARACTERS, MediaInfo
from speech.timecode import timecode_ms
from tests.speech.media_files import encoded, sweep, video_file


def info_of(content: bytes) -> MediaInfo:
    with MediaReader(io.BytesIO(content), name="fita") as media:
        return media.info


def test_bwf_says_samples_since_midnight() -> None:
    since_midnight = (10 * 3600 + 90) * 48_000 + 24
    content = encoded(
        sweep(1),
        container="wav",
        codec="pcm_s16le",
        rate_hz=48_000,
        options={"write_bext": "1"},
        tags={
            "time_reference": str(since_midnight),
            "origination_date": "1987-11-21",
            "description": "Xornal",
        },
    )
    info = info_of(content)
    assert (info.timecode, info.timecode_offset_ms) == ("10:01:30.000", 36_090_000)
    assert (info.date, info.title) == ("1987-11-21", "Xornal")


@pytest.mark.parametrize(
    ("container", "more"),
    [("mov", {}), ("mxf", {"video": "mpeg2video", "audio": "pcm_s24le", "size": (720, 576)})],
)
def test_quicktime_and_mxf_say_a_timecode(container: str, more: dict[str, Any]) -> None:
    content = video_file([sweep(1)], container=container, tags={"timecode": "09:59:30:12"}, **more)
    info = info_of(content)
    assert (info.timecode, info.timecode_offset_ms) == ("09:59:30:12", 35_970_480)


def test_ntsc_with_dropped_numbers() -> None:
    content = video_file(
        [sweep(1)], container="mov", rate=Fraction(30_000, 1001), tags={"timecode": "01:00:00;15"}
    )
    info = info_of(content)
    assert (info.timecode, info.timecode_offset_ms) == ("01:00:00;15", 3_600_500)


def test_a_clock_at_zero_is_none() -> None:
    assert info_of(video_file([sweep(1)], container="mov", tags={"timecode": "00:00:00:00"})).timecode is None
    assert info_of(encoded(sweep(1), container="mp3", codec="libmp3lame")).timecode_offset_ms is None


@pytest.mark.parametrize(
    ("written", "rate", "milliseconds"),
    [
        ("10:00:00:00", 25.0, 36_000_000),
        ("23:59:59:24", 25.0, 86_399_960),
        ("24:00:00:00", 25.0, None),
        ("10:00:00:25", 25.0, None),
        ("10:00:00:29", 30_000 / 1001, 36_000_968),
        ("10:00:00:12", None, 36_000_480),
        ("10:00:00:27", None, 36_000_900),
        ("10:00", 25.0, None),
        ("99:99:99:99", None, None),
    ],
)
def test_timecodes_that_are_times_of_a_day(
    written: str, rate: float | None, milliseconds: int | None
) -> None:
    assert timecode_ms(written, rate) == milliseconds


def test_a_tag_is_kept_to_what_a_list_can_show() -> None:
    content = encoded(sweep(1), container="mp3", codec="libmp3lame", tags={"title": "x" * 100_000})
    assert info_of(content).title == "x" * MAX_TAG_CHARACTERS
