"""Clips over HTTP: the span that was asked for, as a file with a name, without reading the rest of the recording."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
from sqlalchemy import Engine, text

import api.clip
from api.clip import clip_name
from db.media_store import MediaStore, working_copy_key
from db.settings import Settings
from speech.working_copy import WorkingCopyWriter
from tests.conftest import Said

RATE_HZ = 16_000
STEP_S = 10
DURATION_S = 400
NAME = "radio/1987/Día a día: ó vivo.wav"


def pitch_hz(second: float) -> int:
    """What sounds at a second of the recording: each ten seconds have a pitch of their own."""
    return 200 + 50 * int(second // STEP_S)


@dataclass(frozen=True)
class Made:
    """A recording with sound."""

    url: str
    key: str
    headers: dict[str, str]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy of `DURATION_S`, noise beneath it so that it is as big as real ones."""
    path = tmp_path_factory.mktemp("sound") / "working.flac"
    at = np.arange(STEP_S * RATE_HZ) / RATE_HZ
    noise = np.random.default_rng(0).normal(0, 0.01, len(at))
    with WorkingCopyWriter(path) as writer:
        for second in range(0, DURATION_S, STEP_S):
            writer.write((0.05 * np.sin(2 * np.pi * pitch_hz(second) * at) + noise).astype(np.float32))
    return path


@pytest.fixture
def made(owner: Any, make_transcript: Callable[..., Any], media_store: MediaStore, sound: Path) -> Made:
    recording = make_transcript([Said(1, 4, "Boas noites.")], duration_s=DURATION_S, name=NAME)
    key = working_copy_key(owner.id, recording.id, 1)
    media_store.put_file(key, sound)
    return Made(f"/v1/recordings/{recording.id}/clip", key, owner.headers)


def heard(content: bytes) -> np.ndarray:
    """What a player plays, mono at 16 kHz, shape (n,)."""
    with av.open(io.BytesIO(content)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE_HZ)
        return np.concatenate(
            [out.to_ndarray()[0] for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        )


def pitch_of(samples: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(samples)).argmax() * RATE_HZ / len(samples))


class Counting:
    """A reader that counts what it is asked for."""

    n_bytes = 0

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def read(self, n_bytes: int) -> bytes:
        content = bytes(self._reader.read(n_bytes))
        Counting.n_bytes += len(content)
        return content

    def seek(self, *at: int) -> Any:
        return self._reader.seek(*at)

    def tell(self) -> Any:
        return self._reader.tell()

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    """Counts bytes read of objects by spans."""
    Counting.n_bytes = 0
    plain = MediaStore.open
    monkeypatch.setattr(MediaStore, "open", lambda self, key: Counting(plain(self, key)))
    return Counting


def test_the_span_is_cut_levelled_and_named(
    client: httpx.Client, made: Made, sound: Path, counting: type[Counting]
) -> None:
    for form, media_type in (("mp3", "audio/mpeg"), ("opus", "audio/ogg")):
        span = {"from": 372.5, "to": 377.5, "format": form}
        answer = client.get(made.url, params=span, headers=made.headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, media_type)
        samples = heard(answer.content)
        assert len(samples) / RATE_HZ == pytest.approx(5, abs=0.1)
        middle = samples[RATE_HZ : 4 * RATE_HZ]
        assert pitch_of(middle) == pytest.approx(pitch_hz(372), abs=2)
        assert 20 * np.log10(np.sqrt(np.mean(middle**2))) == pytest.approx(-20, abs=1)
        assert np.abs(samples[:80]).max() < np.abs(middle).max() / 2, "it does not begin with a click"
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith(f'attachment; filename="clip.{form}"')
        assert disposition.endswith(f"D%C3%ADa%20a%20d%C3%ADa%3A%20%C3%B3%20vivo_00-06-12_00-06-17.{form}")
        known = client.get(
            made.url, params=span, headers=made.headers | {"If-None-Match": answer.headers["ETag"]}
        )
        assert (known.status_code, known.content) == (304, b"")
    assert counting.n_bytes < sound.stat().st_size / 4, "both together read little of the recording"


def test_a_span_ends_with_the_recording(client: httpx.Client, made: Made) -> None:
    answer = client.get(made.url, params={"from": DURATION_S - 2, "to": DURATION_S + 9}, headers=made.headers)
    assert answer.status_code == 200
    assert len(heard(answer.content)) / RATE_HZ == pytest.approx(2, abs=0.1)
    assert "_00-06-38_00-06-40.mp3" in answer.headers["Content-Disposition"]


def test_what_is_no_span_is_refused(client: httpx.Client, made: Made, counting: type[Counting]) -> None:
    for span, code in (
        ({"from": 10, "to": 10}, "clip_outside"),
        ({"from": 20, "to": 10}, "clip_outside"),
        ({"from": DURATION_S, "to": DURATION_S + 1}, "clip_outside"),
        ({"from": 0, "to": 301}, "clip_too_long"),
        ({"from": -1, "to": 10}, "validation_failed"),
        ({"from": "nan", "to": 10}, "validation_failed"),
        ({"from": 0, "to": "inf"}, "validation_failed"),
        ({"from": 0, "to": 5, "format": "exe"}, "validation_failed"),
        ({"to": 5}, "validation_failed"),
    ):
        answer = client.get(made.url, params=span, headers=made.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, code), span
    assert counting.n_bytes == 0


def test_how_long_it_may_be_is_a_setting(client: httpx.Client, made: Made, settings: Settings) -> None:
    settings.clip_max_s = 5
    asked = {"from": 0, "to": 5.1}
    refused = client.get(made.url, params=asked, headers=made.headers)
    assert (refused.status_code, refused.json()["max_s"]) == (422, 5)
    assert "/audio" in refused.json()["detail"]
    assert client.get(made.url, params=asked | {"to": 5}, headers=made.headers).status_code == 200


def test_others_get_none(
    client: httpx.Client, made: Made, make_broadcaster: Callable[..., Any], counting: type[Counting]
) -> None:
    span = {"from": 0, "to": 5}
    stranger = client.get(made.url, params=span, headers=make_broadcaster().headers)
    assert (stranger.status_code, stranger.json()["code"]) == (404, "recording_not_found")
    assert client.get(made.url, params=span).status_code == 401
    assert counting.n_bytes == 0


def test_sound_that_is_not_there(
    client: httpx.Client, made: Made, engine: Engine, media_store: MediaStore, tmp_path: Path
) -> None:
    def ask() -> tuple[int, str]:
        answer = client.get(made.url, params={"from": 0, "to": 5}, headers=made.headers)
        return answer.status_code, answer.json()["code"]

    (tmp_path / "broken").write_bytes(b"fLaC" + bytes(1000))
    media_store.put_file(made.key, tmp_path / "broken")
    assert ask() == (500, "audio_damaged")
    media_store.delete(made.key)
    assert ask() == (404, "audio_missing")
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE recordings SET working_copy_key = NULL, working_copy_expired_at = now()")
        )
    assert ask() == (410, "audio_expired")


def test_no_more_are_made_at_once_than_there_is_memory_for(
    client: httpx.Client, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(api.clip, "_turns", turns)
    monkeypatch.setattr(api.clip, "PATIENCE_S", 0.05)
    with turns:
        busy = client.get(made.url, params={"from": 0, "to": 5}, headers=made.headers)
        assert (busy.status_code, busy.json()["code"]) == (503, "clips_busy")
        assert busy.headers["Retry-After"]
    for to in (5, 0, 5):  # what fails gives its turn back
        client.get(made.url, params={"from": 0, "to": to}, headers=made.headers)
    assert client.get(made.url, params={"from": 0, "to": 5}, headers=made.headers).status_code == 200


def test_names() -> None:
    assert clip_name("a/b/noticias.2026.mp3", 3723.9, 3753, "opus") == "noticias.2026_01-02-03_01-02-33.opus"
    assert clip_name("cinta", 0, 0.5, "mp3") == "cinta_00-00-00_00-00-00.mp3"
