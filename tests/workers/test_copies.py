"""Working copies and peaks, from the split that makes them to the sweep that removes them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from db.connect import transaction
from db.integrity import check_media
from db.media_store import MediaStore, original_key, peaks_key, working_copy_key
from db.retranscribe import Selection, transcribe_again
from db.settings import Settings
from workers.context import WorkerContext
from workers.split import split_one
from workers.sweep import sweep
from workers.transcribe import Transcriber, transcribe_pending

ARCHIVE = Path(__file__).parents[2] / "samples/archive"
Make = Callable[..., Any]
Query = Callable[..., list[Any]]


def stored(context: WorkerContext) -> set[str]:
    """Names of what the object store holds of the one recording."""
    folder = Path(context.store.url.removeprefix("file://"))
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_peaks_come_with_the_working_copy_and_go_with_it(
    context: WorkerContext, make_recording: Make, query: Query, tmp_path: Path
) -> None:
    made = make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    # what an attempt left whose worker died
    (tmp_path / "left").write_bytes(b"left")
    dead = working_copy_key(made.owner.id, made.id, 1)
    for key in (dead, peaks_key(dead)):
        context.store.put_file(key, tmp_path / "left")
    with context.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE recordings SET attempt = 1")
    assert split_one(context)
    ((key, duration_samples),) = query("SELECT working_copy_key, duration_samples FROM recordings")
    assert stored(context) == {"original", "working-2.flac", "working-2.dat"}
    with closing(context.store.open(peaks_key(key))) as reader:
        header = reader.read(24)
    assert struct.unpack("<iIiiIi", bytes(header)) == (2, 1, 16_000, 320, -(-duration_samples // 320), 1)


def age(context: WorkerContext, days: float) -> None:
    """Let all that is finished have been finished so many days ago."""
    with context.engine.begin() as connection:
        connection.execute(
            text("UPDATE recordings SET finished_at = now() - make_interval(days => :days)"), {"days": days}
        )


def test_it_expires_and_is_made_again_by_transcribing_again(
    context: WorkerContext,
    transcriber: Transcriber,
    settings: Settings,
    make_recording: Make,
    query: Query,
    client: httpx.Client,
) -> None:
    made = make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    settings.require_upload_dir()
    audio, transcript = (f"/v1/recordings/{made.id}/{what}" for what in ("audio", "transcript"))

    def transcribe_all() -> None:
        while split_one(context) or transcribe_pending(context, transcriber):
            pass

    def texts() -> list[Any]:
        return query(
            "SELECT start_sample, end_sample, s.text FROM segments s JOIN transcripts t ON t.id = transcript_id "
            "WHERE t.is_current ORDER BY index"
        )

    transcribe_all()
    said = texts()
    age(context, 40)
    sweep(context.engine, settings)
    assert client.get(audio, headers=made.owner.headers).status_code == 200, (
        "kept for ever unless told otherwise"
    )
    settings.working_copy_expiry_days = 30
    sweep(context.engine, settings)
    assert stored(context) == {"original"}
    assert query("SELECT * FROM object_removals") == []
    for url in (audio, f"/v1/recordings/{made.id}/peaks"):
        gone = client.get(url, headers=made.owner.headers)
        assert (gone.status_code, gone.json()["code"]) == (410, "audio_expired")
        assert gone.json()["type"] == "/docs#audio_expired"
        assert f"fonoteca transcribe-again {made.id}" in gone.json()["detail"]
        assert gone.json()["has_original"]
    assert client.get(transcript, headers=made.owner.headers).status_code == 200
    with context.engine.connect() as connection:
        assert list(check_media(connection, context.store)) == []

    with transaction(context.engine) as tx:
        assert transcribe_again(tx.connection, Selection(made.owner.id)).n_recordings == 1
    early = client.get(audio, headers=made.owner.headers)
    assert (early.status_code, early.json()["code"]) == (409, "audio_not_ready")
    assert texts() == said, "the old transcript is there meanwhile"
    transcribe_all()
    assert texts() == said, "the same splitter and model say the same"
    assert query("SELECT count(*) FROM transcripts") == [(2,)]
    assert query(
        "SELECT sum(lost) FROM (SELECT transcribed_s + no_speech_s + failed_s - duration_s AS lost "
        "FROM archive.transcripts) t"
    ) == [(0,)]
    assert stored(context) == {"original", "working-2.flac", "working-2.dat"}
    assert client.get(audio, headers=made.owner.headers).status_code == 200


def test_without_its_original_an_expired_recording_says_so_and_keeps_its_transcript(
    context: WorkerContext, settings: Settings, make_transcript: Make, query: Query, client: httpx.Client
) -> None:
    made = make_transcript()
    settings.require_upload_dir()
    age(context, 40)
    settings.working_copy_expiry_days = 30
    sweep(context.engine, settings)
    context.store.delete(original_key(made.owner.id, made.id))
    gone = client.get(f"/v1/recordings/{made.id}/audio", headers=made.owner.headers)
    assert (gone.status_code, gone.json()["has_original"]) == (410, False)
    assert "cannot be made again" in gone.json()["detail"]
    with transaction(context.engine) as tx:
        assert transcribe_again(tx.connection, Selection(made.owner.id)).n_recordings == 1
    context.settings.max_attempts = 1
    assert split_one(context)
    assert query("SELECT state FROM recordings") == [("completed",)]
    ((code, reason),) = query("SELECT error_code, error_message FROM attempts WHERE outcome = 'failed'")
    assert code == "original_missing"
    assert "Put it back there" in reason
    answer = client.get(f"/v1/recordings/{made.id}/transcript", headers=made.owner.headers)
    assert answer.json()["segments"][0]["text"] == "Boas noites, isto é o telexornal."


def test_a_sweep_that_dies_in_between_leaves_the_rest_to_the_next(
    context: WorkerContext,
    settings: Settings,
    make_transcript: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    made = make_transcript()
    key = working_copy_key(made.owner.id, made.id, 1)
    (tmp_path / "sound").write_bytes(b"sound")
    for each in (key, peaks_key(key)):
        context.store.put_file(each, tmp_path / "sound")
    settings.require_upload_dir()
    settings.working_copy_expiry_days = 30
    age(context, 40)

    class Killed(BaseException):
        """What nothing catches, as a kill."""

    def die(self: MediaStore, key: str) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(MediaStore, "delete", die)
        with pytest.raises(Killed):
            sweep(context.engine, settings)
    assert query("SELECT working_copy_key FROM recordings") == [(None,)], "no row names what may be gone"
    assert {"working-1.flac", "working-1.dat"} <= stored(context)
    with ThreadPoolExecutor(2) as beats:
        list(beats.map(lambda _: sweep(context.engine, settings), range(2)))
    assert stored(context) == {"original"}
    assert query("SELECT key FROM object_removals") == []
