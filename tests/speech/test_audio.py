"""Any container to 16 kHz mono; bad files get a clear error, damaged ones an accounted hole."""

import io
import pickle
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.audio import FailedSpan, MediaReader, MediaSource
from speech.containers import MediaInfo
from speech.errors import (
    DamagedMedia,
    EmptyMedia,
    MediaError,
    NoAudioSamples,
    NoAudioTrack,
    NoSuchTrack,
    NotMedia,
    PlaylistRefused,
    TruncatedMedia,
)
from tests.speech.media_files import (
    Floats,
    encoded,
    lag_samples,
    silent_video,
    sweep,
    video_with_late_sound,
    wav,
)

SECOND = 16000


def decode(source: MediaSource | bytes, **kwargs: Any) -> tuple[Floats, tuple[FailedSpan, ...], MediaInfo]:
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    with MediaReader(source, name="cinta.bin", **kwargs) as media:
        blocks = list(media.blocks())
        at = 0
        for block in blocks:
            assert block.start_sample == at
            assert block.samples.dtype == np.float32
            at += len(block.samples)
        assert media.n_samples == at
        return np.concatenate([block.samples for block in blocks]), media.failed, media.info


CONTAINERS = [
    pytest.param("wav", "pcm_s16le", 48000, "stereo", id="wav"),
    pytest.param("wav", "pcm_u8", 8000, "mono", id="wav-u8"),
    pytest.param("wav", "pcm_s24le", 44100, "5.1", id="wav-5.1"),
    pytest.param("aiff", "pcm_s16be", 44100, "stereo", id="aiff"),
    pytest.param("mp3", "libmp3lame", 44100, "stereo", id="mp3"),
    pytest.param("mp4", "aac", 48000, "stereo", id="m4a"),
    pytest.param("flac", "flac", 44100, "mono", id="flac"),
    pytest.param("ogg", "libopus", 48000, "stereo", id="opus"),
    pytest.param("matroska", "aac", 44100, "mono", id="mkv"),
    pytest.param("mpegts", "mp2", 48000, "stereo", id="ts"),
    pytest.param("avi", "ac3", 48000, "stereo", id="avi"),
]


@pytest.mark.parametrize(("container", "codec", "rate_hz", "layout"), CONTAINERS)
def test_every_container_gives_the_same_audio_at_the_same_time(
    container: str, codec: str, rate_hz: int, layout: str
) -> None:
    original = sweep(6)
    samples, failed, info = decode(
        encoded(
            original,
            container=container,
            codec=codec,
            rate_hz=rate_hz,
            layout=layout,
            tags={"title": "Proba"},
        )
    )
    assert failed == ()
    assert abs(len(samples) - len(original)) < 0.06 * SECOND
    # codecs may delay by their priming where the container cannot say so (TS, AVI); never by a syllable
    slack = 0.035 * SECOND if container in {"mpegts", "avi"} else 16
    assert abs(lag_samples(original[SECOND : 4 * SECOND], samples[SECOND : 4 * SECOND])) <= slack
    assert (info.sample_rate_hz, info.declared_duration_s) == (rate_hz, pytest.approx(6, abs=0.1))


def test_down_mix_is_the_mean_at_full_scale() -> None:
    left, right = sweep(1), sweep(1, seed=1)
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(SECOND)
        file.writeframes((np.stack([left, right], axis=1) * 32767).astype("<i2").tobytes())
    samples, _, _ = decode(data)
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-4)


def test_reads_from_a_path_and_from_a_reader_that_gives_memoryviews(tmp_path: Path) -> None:
    class StoreReader(io.BytesIO):
        def read(self, n_bytes: int | None = -1, /) -> Any:
            return memoryview(super().read(n_bytes))

    data = wav(sweep(1))
    (tmp_path / "a.wav").write_bytes(data)
    from_path, _, _ = decode(tmp_path / "a.wav")
    from_reader, _, _ = decode(StoreReader(data))
    np.testing.assert_array_equal(from_path, from_reader)


def test_block_size_does_not_change_the_samples() -> None:
    data = encoded(sweep(5), container="mp3", codec="libmp3lame", rate_hz=44100)
    whole, _, _ = decode(data)
    with MediaReader(io.BytesIO(data), name="a") as media:
        blocks = [block.samples for block in media.blocks(1000)]
    assert {len(block) for block in blocks[:-1]} == {1000}
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_tags_and_track() -> None:
    data = encoded(
        sweep(1),
        container="mp3",
        codec="libmp3lame",
        tags={"title": "Serán", "date": "1987", "album": "Onda"},
    )
    _, _, info = decode(data, audio_track=0)
    assert (info.title, info.date, info.programme, info.n_audio_tracks) == ("Serán", "1987", "Onda", 1)
    with pytest.raises(NoSuchTrack, match="no track 3"):
        decode(data, audio_track=3)


def test_a_clock_that_starts_late_is_time_0() -> None:
    """MPEG-TS starts at 1.4 s by custom, and at any hour of the day when cut from a broadcast."""
    options = {"output_ts_offset": "40000"}
    samples, failed, _ = decode(encoded(sweep(3), container="mpegts", codec="mp2", options=options))
    assert failed == ()
    assert len(samples) < 3.1 * SECOND


def test_a_track_later_than_its_picture_keeps_its_place() -> None:
    original = sweep(3)
    samples, failed, _ = decode(video_with_late_sound(original, late_s=2))
    assert failed == ()
    assert not samples[: int(1.9 * SECOND)].any()
    assert lag_samples(original[:SECOND], samples[: 4 * SECOND]) == pytest.approx(2 * SECOND, abs=16)


BAD = [
    pytest.param(b"", EmptyMedia, "empty_file", "0 bytes", id="empty"),
    pytest.param(b"Estimados compa\xc3\xb1eiros:\n" * 200, NotMedia, "not_media", "text file", id="text"),
    pytest.param(
        b"#EXTM3U\n#EXTINF:3,\nhttp://10.0.0.1/a.mp3\n",
        PlaylistRefused,
        "playlist_refused",
        "playlist",
        id="m3u8",
    ),
    pytest.param(
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        PlaylistRefused,
        "playlist_refused",
        "playlist",
        id="concat",
    ),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(500), NotMedia, "not_media", "not a sound", id="picture"),
    pytest.param(
        b"fLaC" + bytes(200), DamagedMedia, "damaged_media", "cannot be read|none of its", id="broken-flac"
    ),
]


@pytest.mark.parametrize(("data", "error", "code", "words"), BAD)
def test_what_is_not_media_is_refused_by_name_and_reason(
    data: bytes, error: type[MediaError], code: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "upload-8f3a.mp3"
    path.write_bytes(data)
    with pytest.raises(error, match=words) as caught:
        decode(path)
    assert caught.value.code == code
    assert "cinta.bin" in str(caught.value)
    assert "8f3a" not in str(caught.value)
    assert type(pickle.loads(pickle.dumps(caught.value))) is error


@pytest.mark.parametrize("seed", range(6))
def test_random_bytes_are_refused(seed: int) -> None:
    with pytest.raises(MediaError) as caught:
        decode(np.random.default_rng(seed).bytes(60_000))
    assert caught.value.code in {"not_media", "damaged_media"}


def test_video_without_sound() -> None:
    with pytest.raises(NoAudioTrack, match="pictures but no sound"):
        decode(silent_video())


def test_wav_without_samples() -> None:
    with pytest.raises((NoAudioSamples, DamagedMedia)):
        decode(wav(sweep(1))[:44])


def test_mp4_cut_before_its_index_is_refused() -> None:
    data = encoded(sweep(5), container="mp4", codec="aac")
    with pytest.raises(TruncatedMedia, match="moov"):
        decode(data[: len(data) * 6 // 10])


FASTSTART = {"movflags": "faststart"}


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [("mp4", "aac", FASTSTART), ("wav", "pcm_s16le", {}), ("flac", "flac", {}), ("matroska", "aac", {})],
)
def test_a_missing_end_is_a_failed_span(
    container: str, codec: str, options: dict[str, str], tmp_path: Path
) -> None:
    data = encoded(sweep(10), container=container, codec=codec, options=options)
    samples, failed, _ = decode(data[: len(data) * 6 // 10])
    assert [span.reason for span in failed] == ["truncated"]
    assert failed[0].end_sample == len(samples)
    assert len(samples) == pytest.approx(10 * SECOND, abs=0.1 * SECOND)
    assert failed[0].start_sample == pytest.approx(6 * SECOND, abs=0.7 * SECOND)


def test_an_absurd_claim_is_ignored() -> None:
    data = bytearray(wav(sweep(2)))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    data[28:32] = struct.pack("<I", 2)  # bytes per second: the claim becomes 68 years
    samples, failed, _ = decode(bytes(data))
    assert failed == ()
    assert len(samples) == 2 * SECOND


@pytest.mark.parametrize("filler", ["random", "zeros"])
@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp3", "libmp3lame"),
        ("mp4", "aac"),
        ("flac", "flac"),
        ("matroska", "aac"),
        ("ogg", "libopus"),
        ("mpegts", "mp2"),
        ("adts", "aac"),
        ("mp2", "mp2"),
        ("ac3", "ac3"),
    ],
)
def test_after_damage_in_the_middle_times_stay_right(container: str, codec: str, filler: str) -> None:
    original = sweep(20)
    rate_hz = 48000 if codec == "libopus" else 44100
    data = encoded(original, container=container, codec=codec, rate_hz=rate_hz, options=FASTSTART)
    middle, n_bytes = len(data) // 2, len(data) // 20
    filling = np.random.default_rng(7).bytes(n_bytes) if filler == "random" else bytes(n_bytes)
    samples, failed, _ = decode(data[:middle] + filling + data[middle + n_bytes :])
    whole, _, _ = decode(data)
    assert failed
    assert all(9 * SECOND < span.start_sample < span.end_sample < 16 * SECOND for span in failed)
    for span in failed:
        assert not samples[span.start_sample : span.end_sample].any()
    part = slice(16 * SECOND, 18 * SECOND)
    assert abs(lag_samples(whole[part], samples[part])) < 0.05 * SECOND
    assert len(samples) == pytest.approx(len(whole), abs=0.06 * SECOND)


def test_errors_of_the_source_are_not_taken_for_damage() -> None:
    class LostConnection(io.BytesIO):
        reads = 0

        def read(self, n_bytes: int | None = -1, /) -> bytes:
            self.reads += 1
            if self.reads > 4:
                raise ConnectionResetError("the store hung up")
            return super().read(n_bytes)

    with pytest.raises(ConnectionResetError):
        decode(LostConnection(wav(sweep(60))))
