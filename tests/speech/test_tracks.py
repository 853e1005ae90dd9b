"""Files with several sound tracks: the one with the most speech, one by number, or all of them mixed."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import psutil
import pytest

import speech.split
from speech import tracks
from speech.audio import FailedSpan, MediaReader
from speech.errors import TracksApart, UnsupportedCodec
from speech.isolated import DecodeLimits, IsolatedReader
from speech.mono import from_int16, to_int16
from speech.split import split_media
from speech.track_choice import most_speech
from speech.tracks import MixedReader, probe_tracks
from tests.speech.media_files import Floats, demo_sentence, encoded, sweep, wav

SECOND = 16_000
NOTHING = np.zeros(SECOND, np.float32)
BROKEN = np.zeros(0, np.float32)
"""A second whose packet cannot be decoded."""


class Counted(io.BytesIO):
    """A file that counts the bytes that are read of it."""

    n_read_bytes = 0

    def read(self, n_bytes: int | None = -1, /) -> bytes:
        content = super().read(n_bytes)
        self.n_read_bytes += len(content)
        return content


def seconds(samples: Floats) -> list[Floats]:
    """Whole seconds."""
    return [samples[at : at + SECOND] for at in range(0, len(samples) - SECOND + 1, SECOND)]


def matroska(made: Sequence[Sequence[Floats | None]], *, apart: bool = False) -> bytes:
    """Sound tracks, each by its seconds (None: no packet), a packet each. `apart`: one track behind the other."""
    out = io.BytesIO()
    options = {"max_interleave_delta": "1"} if apart else {}
    with av.open(out, "w", format="matroska", options=options) as muxer:
        streams = [muxer.add_stream("pcm_s16le", rate=SECOND, layout="mono") for _ in made]
        places = [
            (number if apart else second, number, second)
            for number, track in enumerate(made)
            for second, samples in enumerate(track)
            if samples is not None
        ]
        for _, number, second in sorted(places):
            samples = made[number][second]
            assert samples is not None
            packet = av.Packet((samples * 32767).astype("<i2").tobytes() or b"\0")
            packet.stream, packet.time_base = streams[number], Fraction(1, SECOND)
            packet.pts = packet.dts = second * SECOND
            packet.duration = SECOND
            muxer.mux(packet)
    return out.getvalue()


def mixed(content: bytes) -> tuple[Floats, tuple[FailedSpan, ...]]:
    with MixedReader(io.BytesIO(content), name="fita") as media:
        samples = np.concatenate([block.samples for block in media.blocks()])
        assert media.n_samples == len(samples)
        return samples, media.failed


@pytest.fixture(scope="module")
def four_tracks() -> bytes:
    """Noise, speech, the same speech again, nothing."""
    voice = seconds(demo_sentence(0))
    noise = seconds((sweep(len(voice)) * 0.3).astype(np.float32))
    return matroska([noise, voice, voice, [NOTHING] * len(voice)])


@pytest.mark.parametrize("limits", [None, DecodeLimits()], ids=["here", "isolated"])
def test_auto_takes_the_first_of_those_with_the_most_speech(four_tracks: bytes, limits: Any) -> None:
    split = split_media(io.BytesIO(four_tracks), name="fita", limits=limits)
    assert (split.info.audio_track, split.info.n_audio_tracks) == (1, 4)
    assert split.segments


def test_a_number_is_obeyed(four_tracks: bytes) -> None:
    split = split_media(io.BytesIO(four_tracks), name="fita", audio_track=3)
    assert (split.info.audio_track, split.segments) == (3, ())


def test_mix_is_of_all_in_a_process_of_its_own_too(four_tracks: bytes) -> None:
    here, failed = mixed(four_tracks)
    with IsolatedReader(io.BytesIO(four_tracks), name="fita", audio_track="mix") as media:
        there = np.concatenate([block.samples for block in media.blocks()])
        np.testing.assert_array_equal(there, from_int16(to_int16(here)))
        assert (media.failed, media.info.tracks_mixed, media.info.audio_track) == (failed, (0, 1, 2, 3), None)


def test_where_nobody_speaks_auto_is_the_containers_best() -> None:
    content = matroska([[NOTHING] * 3, [NOTHING] * 3])
    split = split_media(io.BytesIO(content), name="fita")
    assert (split.info.audio_track, split.segments, split.duration_samples) == (0, (), 3 * SECOND)


def test_one_track_costs_nothing_to_choose() -> None:
    content = wav(sweep(3))
    by_auto, by_number = Counted(content), Counted(content)
    split_media(by_auto, name="fita", audio_track="auto")
    split_media(by_number, name="fita", audio_track=0)
    assert by_auto.n_read_bytes == by_number.n_read_bytes > 0


def test_a_track_without_a_decoder_costs_the_others_nothing(four_tracks: bytes) -> None:
    strange = four_tracks.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT", 1)
    assert split_media(io.BytesIO(strange), name="fita").info.audio_track == 1
    with MixedReader(io.BytesIO(strange), name="fita") as media:
        assert media.info.tracks_mixed == (1, 2, 3)
    with pytest.raises(UnsupportedCodec):
        MediaReader(io.BytesIO(strange), name="fita", audio_track=0)


def test_a_decoder_that_dies_of_comparing_leaves_the_best(
    four_tracks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of a file's tracks it died of cannot be told; the one that is read then has a process of its own."""

    def kill_it(excerpts: Iterator[tuple[int, Floats]]) -> int | None:
        next(excerpts)
        (child,) = (child for child in psutil.Process().children() if "speech.isolated" in child.cmdline())
        child.send_signal(signal.SIGSEGV)
        return most_speech(excerpts)

    monkeypatch.setattr(speech.split, "most_speech", kill_it)
    split = split_media(io.BytesIO(four_tracks), name="fita", limits=DecodeLimits())
    assert (split.info.audio_track, len(split.segments)) == (0, 0)


@pytest.fixture(scope="module")
def sixteen_tracks() -> bytes:
    """90 s: a call on track 3 at 0:30 and on track 7 at 0:50; track 15 is heard at once and never seen again."""
    made: list[list[Floats | None]] = [[NOTHING] * 90 for _ in range(15)]
    made[3][30] = made[7][50] = sweep(1)
    return matroska([*made, [sweep(1, seed=1)]])


def test_excerpts_of_sixteen_tracks_are_a_part_of_the_file(
    sixteen_tracks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracks, "EXCERPTS", 4)
    monkeypatch.setattr(tracks, "EXCERPT_S", 2)
    source = Counted(sixteen_tracks)
    heard = dict.fromkeys(range(16), 0)
    for track, samples in probe_tracks(source, name="fita"):
        heard[track] += len(samples)
    assert {heard[track] for track in range(15)} == {4 * 2 * SECOND}
    assert heard[15] == 0
    # of each place, 4 s at most: where the dead track gives nothing, it is not looked for any further
    assert source.n_read_bytes < 0.3 * len(sixteen_tracks)


def test_sixteen_tracks_are_mixed_in_one_reading_at_bounded_memory(
    sixteen_tracks: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracks, "MAX_WAITING_SAMPLES", 16 * 8 * SECOND)
    source = Counted(sixteen_tracks)
    most_waiting = 0
    blocks = []
    with MixedReader(source, name="fita") as media:
        for block in media.blocks():
            blocks.append(block.samples)
            most_waiting = max(most_waiting, sum(lane.n_waiting for lane in media._lanes.values()))
        assert (media.n_samples, media.failed) == (90 * SECOND, ())
    assert 0 < most_waiting <= 16 * 8 * SECOND
    assert source.n_read_bytes < 1.1 * len(sixteen_tracks)
    samples = np.concatenate(blocks)
    # track 15 is heard at once, the second as one of two, the third as one of three
    np.testing.assert_allclose(samples[:SECOND], sweep(1, seed=1), atol=1e-3)
    np.testing.assert_allclose(samples[30 * SECOND :][:SECOND], sweep(1) / 2, atol=1e-3)
    np.testing.assert_allclose(samples[50 * SECOND :][:SECOND], sweep(1) / 3, atol=1e-3)


def test_a_track_that_begins_minutes_late_stays_in_step() -> None:
    late: list[Floats | None] = [*[None] * 100, sweep(1)]
    samples, failed = mixed(matroska([[NOTHING] * 101, late]))
    np.testing.assert_allclose(samples[100 * SECOND :], sweep(1), atol=1e-3)
    assert not samples[: 100 * SECOND].any()
    assert failed == ()


def test_sides_in_opposite_phase_are_heard() -> None:
    samples, _ = mixed(matroska([seconds(sweep(4)), seconds(-sweep(4))]))
    np.testing.assert_allclose(samples, sweep(4), atol=1e-3)


def test_lost_is_what_no_track_has() -> None:
    first, second = seconds(sweep(10)), seconds(sweep(7))
    for lost, track in ((2, first), (2, second), (5, first), (8, first)):
        track[lost] = BROKEN
    samples, failed = mixed(matroska([first, second]))
    assert [(hole.start_sample, hole.end_sample) for hole in failed] == [
        (2 * SECOND, 3 * SECOND),
        (8 * SECOND, 9 * SECOND),  # the second has ended, and says nothing of it
    ]
    assert samples[5 * SECOND : 6 * SECOND].any()
    assert len(samples) == 10 * SECOND


def test_tracks_behind_one_another_are_refused_and_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracks, "MAX_WAITING_SAMPLES", 2 * 8 * SECOND)
    content = matroska([seconds(sweep(20)), seconds(sweep(20))], apart=True)
    with pytest.raises(TracksApart, match="Choose one of its tracks by number"):
        mixed(content)
    with MediaReader(io.BytesIO(content), name="fita", audio_track=1) as media:
        assert sum(len(block.samples) for block in media.blocks()) == 20 * SECOND


def test_a_joined_mp3s_tags_take_no_time() -> None:
    content = encoded(sweep(5), container="mp3", codec="libmp3lame", tags={"title": "Fita"})
    cover = b"ID3\x04\0\0" + bytes([0, 3, 0, 0]) + bytes(3 * 128 * 128)  # a picture's worth of bytes
    with MediaReader(io.BytesIO(content + b"TAG" + bytes(125) + cover + content), name="fita") as media:
        n_samples = sum(len(block.samples) for block in media.blocks())
    assert n_samples == pytest.approx(10 * SECOND, abs=4_000)
