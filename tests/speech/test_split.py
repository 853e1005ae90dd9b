"""A recording becomes segments that hold all its speech, with every sample accounted for, at bounded memory."""

import io
import json
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speech.errors import NotMedia, TruncatedMedia
from speech.mono import to_int16
from speech.split import Span, Split, SplitSettings, check_tiling, split_media, splitter_version
from speech.working_copy import read_span
from tests.speech.media_files import (
    REPOSITORY,
    SAMPLES,
    demo_sentence,
    demo_voices,
    encoded,
    sweep,
    wav,
)

SECOND = 16000
REFERENCES: list[dict[str, Any]] = json.loads((SAMPLES / "references.json").read_text(encoding="utf-8"))
READABLE = [pytest.param(row, id=row["file"]) for row in REFERENCES if row["readable"]]


def mask(duration_samples: int, spans: list[tuple[float, float]]) -> np.ndarray:
    covered = np.zeros(duration_samples, bool)
    for start, end in spans:
        covered[int(start) : int(end)] = True
    return covered


@pytest.mark.parametrize("row", READABLE)
def test_sample_archive(row: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy.flac"
    split = split_media(SAMPLES / "archive" / row["file"], name=row["file"], working_copy=copy)
    check_tiling(split)
    assert split.failed == ()
    assert split.info.title == row["title"]
    assert split.duration_samples == pytest.approx(row["duration_s"] * SECOND, abs=0.1 * SECOND)
    in_segment = mask(split.duration_samples, [(s.start_sample, s.end_sample) for s in split.segments])
    speech = mask(
        split.duration_samples,
        [(said["start_s"] * SECOND, said["end_s"] * SECOND) for said in row["sentences"]],
    )
    assert in_segment[speech].mean() >= 0.99
    boundaries = [at for span in split.segments for at in (span.start_sample, span.end_sample - 1)]
    assert not speech[boundaries].any(), "a cut fell into a sentence though there were pauses"
    assert all(0.3 * SECOND <= span.n_samples <= 30 * SECOND for span in split.segments)
    last = split.segments[-1]
    assert len(read_span(copy, last.start_sample, last.end_sample)) == last.n_samples
    if row["file"].endswith("mp3"):
        far = ~np.convolve(speech[::160], np.ones(201), "same").astype(bool)  # over a second from any speech
        assert in_segment[::160][far].mean() < 0.15, "music and silence were kept"
        assert len(split.segments) >= 6


def test_damaged_tape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TruncatedMedia, match=r"cinta-danada\.mp4"):
        split_media(
            SAMPLES / "archive" / "cinta-danada.mp4",
            name="cinta-danada.mp4",
            working_copy=tmp_path / "a.flac",
        )
    assert list(tmp_path.iterdir()) == []


def test_every_voice_is_found() -> None:
    for voice, numbers in demo_voices().items():
        parts, speech, at = [], [], 0
        for number in numbers[:2]:
            sentence = demo_sentence(number)
            parts += [np.zeros(3 * SECOND, np.float32), sentence * 0.1]
            speech.append((at + 3 * SECOND, at + 3 * SECOND + len(sentence)))
            at += 3 * SECOND + len(sentence)
        split = split_media(io.BytesIO(wav(np.concatenate(parts))), name=voice)
        in_segment = mask(split.duration_samples, [(s.start_sample, s.end_sample) for s in split.segments])
        assert in_segment[mask(split.duration_samples, speech)].mean() > 0.995, voice


def test_silence_has_no_segments() -> None:
    split = split_media(io.BytesIO(wav(np.zeros(70 * SECOND, np.float32))), name="silencio.wav")
    assert split.segments == ()
    assert split.no_speech == (Span(0, 70 * SECOND),)


def test_very_short_media() -> None:
    for n_samples in (1, 100, 512, 3000):
        split = split_media(io.BytesIO(wav(sweep(1)[:n_samples])), name="curto.wav")
        assert split.duration_samples == n_samples


def test_damage_and_a_missing_end_are_accounted(tmp_path: Path) -> None:
    speech = np.concatenate([demo_sentence(number) for number in (0, 1, 2, 4, 8, 9)])
    data = encoded(speech, container="mp4", codec="aac", rate_hz=44100, options={"movflags": "faststart"})
    middle = len(data) // 3
    broken = (data[:middle] + bytes(len(data) // 15) + data[middle + len(data) // 15 :])[
        : len(data) * 8 // 10
    ]
    copy = tmp_path / "copy.flac"
    split = split_media(io.BytesIO(broken), name="rota.m4a", working_copy=copy)
    assert [span.reason for span in split.failed] == ["decode_error", "truncated"]
    hole = split.failed[0]
    assert not read_span(copy, hole.start_sample, hole.end_sample).any()
    assert split.duration_samples == pytest.approx(len(speech), abs=SECOND // 10)


def test_working_copy_holds_what_was_split(tmp_path: Path) -> None:
    original = sweep(5)
    split_media(io.BytesIO(wav(original)), name="a.wav", working_copy=tmp_path / "a.flac")
    found = read_span(tmp_path / "a.flac", 0, len(original))
    np.testing.assert_allclose(found, to_int16(original).astype(np.float32) / 32768, atol=2 / 32768)


def test_errors_leave_no_copy(tmp_path: Path) -> None:
    with pytest.raises(NotMedia):
        split_media(io.BytesIO(b"non son audio" * 99), name="x.mp3", working_copy=tmp_path / "a.flac")
    assert list(tmp_path.iterdir()) == []


def test_version_names_the_settings() -> None:
    assert splitter_version(SplitSettings()) == splitter_version(SplitSettings())
    assert splitter_version(SplitSettings()) != splitter_version(SplitSettings(pad_after_ms=250))


def test_a_split_that_does_not_tile_is_caught() -> None:
    split = split_media(io.BytesIO(wav(sweep(2))), name="a.wav")
    broken: Split = replace(split, no_speech=(*split.no_speech, Span(10, 20)))
    with pytest.raises(RuntimeError, match="wrong at sample"):
        check_tiling(broken)


@pytest.mark.parametrize("number", [0, 50])
def test_faint_speech_after_loud_noise_is_heard(number: int) -> None:
    """At -40 dBFS with noise 10 dB below it, a second after half a minute at -20: two seconds of one sentence and more
    of the other. A detector that remembers the noise hears less, and nothing at all of one."""
    voice = demo_sentence(number)
    voice = voice * np.float32(10 ** (-40 / 20) / np.sqrt(np.mean(voice**2)))
    levels = np.full(40 * SECOND, 10 ** (-50 / 20))
    levels[: 29 * SECOND] = 10 ** (-20 / 20)
    sound = (np.random.default_rng(number).normal(size=len(levels)) * levels).astype(np.float32)
    start = 30 * SECOND
    sound[start : start + len(voice)] += voice
    found = split_media(io.BytesIO(wav(sound)), name="a.wav")
    covered = mask(found.duration_samples, [(span.start_sample, span.end_sample) for span in found.segments])
    assert covered[start : start + len(voice)].mean() > 0.8
    assert covered[: 25 * SECOND].mean() < 0.1


MEASURE = """
import resource, sys
from speech.split import split_media
from speech.vad import SpeechDetector
import numpy as np
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
SpeechDetector().finish()
before = peak()
split = split_media(sys.argv[1], name="longa.wav")
print(split.duration_samples, peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    """An hour, most of it digital silence to be fast; the audio alone would take 230 MB."""
    speech = np.concatenate([demo_sentence(number) for number in range(12)])
    path = tmp_path / "longa.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SECOND)
        file.writeframes(to_int16(speech).tobytes())
        for _ in range(59):
            file.writeframes(bytes(2 * 60 * SECOND))
        file.writeframes(bytes(2 * (60 * SECOND - len(speech))))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    duration_samples, grown_mb = run.stdout.split()
    assert int(duration_samples) == 3600 * SECOND
    assert float(grown_mb) < 120
