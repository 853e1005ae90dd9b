"""Headers that lie about lengths, files joined to one, copies that broke off: no sound is lost without a word."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from speech.audio import FailedSpan, MediaReader
from speech.errors import DamagedMedia, MediaError
from tests.speech.format_matrix import by_id, made
from tests.speech.media_files import RATE_HZ, Floats, encoded, lag_samples, sweep, wav

LIVE = 0xFFFFFFFF


def decoded(content: bytes) -> tuple[Floats, tuple[FailedSpan, ...]]:
    with MediaReader(io.BytesIO(content), name="fita") as media:
        samples = np.concatenate([block.samples for block in media.blocks()])
    return samples, media.failed


def with_sizes(content: bytes, riff_bytes: int, data_bytes: int) -> bytes:
    patched = bytearray(content)
    patched[4:8] = struct.pack("<I", riff_bytes)
    at = patched.index(b"data") + 4
    patched[at : at + 4] = struct.pack("<I", data_bytes)
    return bytes(patched)


@pytest.mark.parametrize("riff_bytes", [0, 1000, 10**9, LIVE])
@pytest.mark.parametrize("data_bytes", [0, 1, 1000, 64_000, 127_999, 10**9, LIVE - 15, LIVE])
def test_a_wav_is_read_to_its_end_whatever_its_sizes_say(riff_bytes: int, data_bytes: int) -> None:
    original = sweep(4)
    samples, failed = decoded(with_sizes(wav(original), riff_bytes, data_bytes))
    assert failed == ()
    assert abs(len(samples) - len(original)) <= 1
    assert lag_samples(original, samples) == 0


@pytest.mark.parametrize("missing_s", [1, 8])
def test_a_wav_that_lacks_what_its_header_promises(missing_s: int) -> None:
    content = wav(sweep(4))
    samples, failed = decoded(with_sizes(content, LIVE, (4 + missing_s) * 2 * RATE_HZ))
    assert len(samples) == (4 + missing_s) * RATE_HZ
    assert failed == (FailedSpan(4 * RATE_HZ, len(samples), "truncated"),)


@pytest.mark.parametrize("long_bytes", [0, 1000, 2**40, 2**63 - 1])
def test_an_rf64_is_read_to_its_end_whatever_its_sizes_say(long_bytes: int) -> None:
    content = bytearray(made(by_id("rf64")))
    at = content.index(b"ds64") + 8
    content[at + 8 : at + 16] = struct.pack("<Q", long_bytes)
    samples, failed = decoded(bytes(content))
    assert (len(samples), failed) == (2 * RATE_HZ, ())


@pytest.mark.parametrize(
    "tail", [b"LIST" + struct.pack("<I", 9000) + bytes(9000), b"ID3\x04" + b"\xff" * 50_000]
)
def test_tags_behind_the_sound_are_not_heard(tail: bytes) -> None:
    samples, failed = decoded(wav(sweep(2)) + tail)
    assert (len(samples), failed) == (2 * RATE_HZ, ())


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
def test_joined_wavs_are_one_recording(codec: str) -> None:
    """`cat a.wav b.wav c.wav`: players stop after the first. Headers between them are no sound."""
    parts = [sweep(2, seed=number) for number in range(3)]
    files = [encoded(part, container="wav", codec=codec, rate_hz=RATE_HZ) for part in parts]
    samples, failed = decoded(b"".join(files))
    assert failed == ()
    np.testing.assert_allclose(samples, np.concatenate(parts), atol=1e-3)


def test_joined_wavs_of_several_formats_are_told() -> None:
    other = encoded(sweep(3), container="wav", codec="pcm_s16le", rate_hz=48000)
    samples, failed = decoded(wav(sweep(2)) + other)
    assert len(samples) == 5 * RATE_HZ
    assert failed == (FailedSpan(2 * RATE_HZ, 5 * RATE_HZ, "other_format"),)


def test_wrong_bytes_per_second_are_not_believed() -> None:
    content = bytearray(wav(sweep(4)))
    content[28:32] = struct.pack("<I", 16_000)  # half of what it is: the sound would be said to last 8 s
    samples, failed = decoded(bytes(content))
    assert (len(samples), failed) == (4 * RATE_HZ, ())


def flac_of_2_to_the_36_samples() -> bytes:
    content = bytearray(made(by_id("flac")))
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    return bytes(content)


def webm_of_a_billion_seconds() -> bytes:
    content = bytearray(made(by_id("webm")))
    at = content.index(b"\x44\x89\x88") + 3
    content[at : at + 8] = struct.pack(">d", 1e12)
    return bytes(content)


def mp3_of_four_billion_frames() -> bytes:
    content = bytearray(made(by_id("mp3")))
    at = max(content.find(b"Info"), content.find(b"Xing")) + 8
    content[at : at + 4] = b"\xff" * 4
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [flac_of_2_to_the_36_samples, webm_of_a_billion_seconds, mp3_of_four_billion_frames],
    ids=lambda made: made.__name__,
)
def test_a_length_that_the_file_cannot_hold_is_not_believed(content: object) -> None:
    samples, failed = decoded(content())  # type: ignore[operator]
    assert len(samples) == pytest.approx(2 * RATE_HZ, abs=400)
    assert failed == ()


def test_255_channels_are_refused() -> None:
    for name, at in (("wav-16000", b"fmt "), ("aiff", b"COMM")):
        content = bytearray(made(by_id(name)))
        where = content.index(at) + 8 + (2 if name.startswith("wav") else 0)
        content[where : where + 2] = (255).to_bytes(2, "little" if name.startswith("wav") else "big")
        with pytest.raises(DamagedMedia, match="255 channels"):
            decoded(bytes(content))


TELL_THEIR_END = [
    "wav", "rf64", "wav-adpcm-ms", "aiff", "au", "caf", "mp3", "flac", "tta", "wavpack", "mkv", "mkv-pcm", "webm",
    "flv", "mxf", "mxf-opatom", "avi",
]  # fmt: skip
CANNOT_TELL = [
    "mp2",
    "adts",
    "ac3",
    "opus",
    "vorbis",
    "wma2",
    "amr",
    "m4a",
    "mov",
    "ts-mp2",
    "ts-aac",
    "ps-mp2",
]


@pytest.mark.parametrize("name", TELL_THEIR_END + CANNOT_TELL)
def test_cut_at_every_tenth(name: str) -> None:
    """What is there is heard as in the whole file; what is missing is said, where the header knows of it."""
    content = made(by_id(name))
    whole, _ = decoded(content)
    n_read = 0
    for tenth in range(1, 10):
        try:
            samples, failed = decoded(content[: len(content) * tenth // 10])
        except MediaError:  # too little is left
            continue
        n_read += 1
        heard = failed[0].start_sample if failed else len(samples)
        assert len(samples) <= len(whole) + 0.1 * RATE_HZ
        # the resampler's and the decoder's last 60 ms hang on what would have come next
        kept = max(0, min(heard, len(whole)) - RATE_HZ * 6 // 100)
        assert np.abs(samples[:kept] - whole[:kept]).max(initial=0) < 0.05
        if name in TELL_THEIR_END and len(whole) - heard > 0.2 * RATE_HZ:
            assert failed[-1].end_sample == len(samples) == pytest.approx(len(whole), abs=0.1 * RATE_HZ)
            assert failed[-1].reason == "truncated"
    assert n_read >= (0 if name in {"m4a", "mov"} else 3)
