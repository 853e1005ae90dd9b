"""The format matrix: each container, codec, rate and layout gives the right sound at the right time."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from speech.audio import MediaReader
from speech.containers import MediaInfo
from tests.speech.format_matrix import FORMATS, Format, made, make, source_speech
from tests.speech.media_files import RATE_HZ, Floats, lag_samples, sweep

LAG_SLACK_SAMPLES = 1
"""At 16 kHz: the rounding of a delay that is whole samples at another rate."""


def decoded(content: bytes, audio_track: int | None = None) -> tuple[Floats, MediaInfo]:
    with MediaReader(io.BytesIO(content), name="fita", audio_track=audio_track) as media:
        samples = np.concatenate([block.samples for block in media.blocks()])
    assert media.failed == ()
    return samples, media.info


def likeness(wanted: Floats, found: Floats, lag: int) -> float:
    """Correlation of `found`, taken `lag` samples later, with `wanted`."""
    n_samples = min(len(wanted) + min(lag, 0), len(found) - max(lag, 0))
    wanted, found = wanted[max(-lag, 0) :][:n_samples], found[max(lag, 0) :][:n_samples]
    return float(np.corrcoef(wanted, found)[0, 1])


@pytest.mark.parametrize("wanted", FORMATS, ids=lambda wanted: wanted.id)
def test_the_right_sound_at_the_right_time(wanted: Format) -> None:
    source = source_speech()
    samples, info = decoded(made(wanted))
    lag = lag_samples(source, samples)
    assert lag == pytest.approx(wanted.delay_samples * RATE_HZ / wanted.rate_hz, abs=LAG_SLACK_SAMPLES)
    assert likeness(source, samples, lag) >= wanted.quality
    surplus = (len(samples) - len(source)) * wanted.rate_hz / RATE_HZ
    assert -1 <= surplus <= wanted.frame_samples + 1
    if wanted.codec != "libopus":  # which is always 48 kHz within
        assert info.sample_rate_hz == wanted.rate_hz
    assert info.declared_duration_s is None or info.declared_duration_s == pytest.approx(
        len(source) / RATE_HZ, abs=wanted.frame_samples / wanted.rate_hz + 0.05
    )


def tracks_file(container: str, codec: str, tracks: list[Floats], *, picture: bool = True) -> bytes:
    """Mono tracks side by side, as cameras and studios record them."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as muxer:
        packets = []
        if picture:
            video = muxer.add_stream("mpeg2video", rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [muxer.add_stream(codec, rate=48000, layout="mono") for _ in tracks]
        if picture:
            grey = VideoFrame.from_ndarray(np.zeros((64, 64), np.uint8), format="gray")
            for number in range(len(tracks[0]) * 25 // RATE_HZ):
                frame = grey.reformat(format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                packets += video.encode(frame)
            packets += video.encode(None)
        for stream, track in zip(streams, tracks, strict=True):
            resampler = av.AudioResampler(format=stream.format, layout="mono", rate=48000)
            sound = AudioFrame.from_ndarray(
                (track * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            sound.sample_rate, sound.time_base, sound.pts = RATE_HZ, Fraction(1, RATE_HZ), 0
            for resampled in [*resampler.resample(sound), *resampler.resample(None)]:
                packets += stream.encode(resampled)
            packets += stream.encode(None)
        packets.sort(key=lambda packet: float((packet.dts or 0) * packet.time_base))
        muxer.mux(packets)
    return out.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "n_tracks"),
    [("mxf", "pcm_s24le", 8), ("mov", "pcm_s16le", 4), ("matroska", "flac", 3), ("mpegts", "mp2", 2)],
)
def test_each_mono_track_is_read_by_its_number(container: str, codec: str, n_tracks: int) -> None:
    tracks = [sweep(2, seed=number) for number in range(n_tracks)]
    content = tracks_file(container, codec, tracks)
    for number in (0, n_tracks - 1):
        samples, info = decoded(content, audio_track=number)
        assert (info.n_audio_tracks, info.audio_track) == (n_tracks, number)
        lag = lag_samples(tracks[number], samples)
        assert lag == (160 if codec == "mp2" else 0)
        assert likeness(tracks[number], samples, lag) > 0.97


def test_dual_mono_keeps_both_sides() -> None:
    """Two languages or two microphones on one stereo track: neither may be lost."""
    left, right = sweep(2), sweep(2, seed=1)
    interleaved = np.stack([left, right], axis=1).reshape(1, -1)
    out = io.BytesIO()
    with av.open(out, "w", format="wav") as muxer:
        stream = muxer.add_stream("pcm_s16le", rate=RATE_HZ, layout="stereo")
        frame = AudioFrame.from_ndarray((interleaved * 32767).astype(np.int16), format="s16", layout="stereo")
        frame.sample_rate = RATE_HZ
        muxer.mux([*stream.encode(frame), *stream.encode(None)])
    samples, _ = decoded(out.getvalue())
    for side in (left, right):
        assert lag_samples(side, samples) == 0
        assert likeness(side, samples, 0) > 0.65


def test_bwf_and_rf64_are_what_they_say() -> None:
    bwf, rf64 = (made(wanted) for wanted in FORMATS if wanted.id in {"bwf", "rf64"})
    assert b"bext" in bwf[:64]
    assert rf64[:4] == b"RF64"
    assert b"ds64" in rf64[:64]


def test_a_wav_beyond_4_gb_is_read_to_its_end(tmp_path: Path) -> None:
    """RF64 with 64-bit sizes; a sparse file, so that it takes no disk and no time to write."""
    head = bytearray(make(Format("wav", "pcm_s16le", options=(("rf64", "always"),)), sweep(1)))
    data_at = head.index(b"data") + 8
    n_bytes = 192_000 * 24_000  # 6 h 40 min of 48 kHz stereo: 4.6 GB
    at = head.index(b"ds64") + 8
    head[at : at + 8] = (n_bytes + data_at - 8).to_bytes(8, "little")
    head[at + 8 : at + 16] = n_bytes.to_bytes(8, "little")
    path = tmp_path / "longa.wav"
    with path.open("wb") as file:
        file.write(head[:data_at])
        file.truncate(data_at + n_bytes)
    with MediaReader(path, name="longa.wav") as media:
        assert media.info.declared_duration_s == 24_000
        next(media.blocks())
