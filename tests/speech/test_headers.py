"""What a file's header says is believed where it is exact and plausible, and held against what is there."""

from __future__ import annotations

import io
import struct

import pytest

from speech.audio import MediaReader
from speech.containers import mp3_declared_s
from speech.errors import DamagedMedia, MediaError
from tests.speech.media_files import encoded, sweep, wav

RATE_AT, CHANNELS_AT = 24, 22


class Sized(io.BytesIO):
    size_bytes = 0

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.size_bytes = len(content)


def read_all(content: bytes) -> MediaReader:
    with MediaReader(io.BytesIO(content), name="fita") as media:
        for _ in media.blocks():
            pass
    return media


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1])
def test_an_mp3_that_broke_off_lacks_its_tail(share: float) -> None:
    content = encoded(sweep(20), container="mp3", codec="libmp3lame")
    whole = read_all(content)
    assert whole.failed == ()
    cut = read_all(content[: int(len(content) * share)])
    assert cut.n_samples == pytest.approx(whole.n_samples, abs=3_200)
    assert [span.reason for span in cut.failed] == ["truncated"]
    n_failed = cut.failed[0].end_sample - cut.failed[0].start_sample
    assert n_failed == pytest.approx(whole.n_samples * (1 - share), abs=8_000)


def test_the_info_header_is_found_behind_tags_and_only_in_mp3() -> None:
    content = encoded(sweep(5), container="mp3", codec="libmp3lame", tags={"title": "Fita"})
    declared_s = mp3_declared_s(Sized(content))
    assert declared_s == pytest.approx(5, abs=0.2)
    bare = content[10 + sum((b & 0x7F) << s for b, s in zip(content[6:10], (21, 14, 7, 0), strict=True)) :]
    assert mp3_declared_s(Sized(bare if content[:3] == b"ID3" else content)) == declared_s
    assert mp3_declared_s(Sized(wav(sweep(1)))) is None
    assert mp3_declared_s(Sized(b"ID3")) is None
    assert mp3_declared_s(Sized(b"")) is None


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (RATE_AT, struct.pack("<I", 1), "sample rate of 1 Hz"),
        (RATE_AT, struct.pack("<I", 0x7FFFFFFF), "sample rate of 2147483647 Hz"),
    ],
)
def test_figures_that_no_recorder_writes_are_refused(at: int, value: bytes, reason: str) -> None:
    content = bytearray(wav(sweep(2)))
    content[at : at + len(value)] = value
    with pytest.raises(DamagedMedia, match=reason):
        read_all(bytes(content))


def test_absurd_channel_counts_end_in_a_media_error() -> None:
    content = bytearray(wav(sweep(2)))
    content[CHANNELS_AT : CHANNELS_AT + 2] = struct.pack("<H", 255)
    with pytest.raises(MediaError, match="fita"):
        read_all(bytes(content))
