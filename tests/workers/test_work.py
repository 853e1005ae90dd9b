"""Splitting and transcribing real media, one piece at a time, and what happens when a piece is bad."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
import torch
from sqlalchemy import text

from db.connect import transaction
from db.settings import Settings
from db.uploads import create_upload
from evaluation.score import score
from speech.decoder import Decoder
from speech.prompting import Prompter
from workers.context import WorkerContext
from workers.queue import GPU_QUEUE, MEDIA_QUEUE
from workers.split import split_one
from workers.sweep import sweep
from workers.transcribe import DeviceLost, Transcriber, transcribe_pending

SAMPLES = Path(__file__).parents[2] / "samples"
ARCHIVE = SAMPLES / "archive"
Query = Callable[..., list[Any]]
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again without waiting; `tests/db/test_queue.py` shows the wait."""
    monkeypatch.setenv("FONOTECA_RETRY_AFTER_S", "0")


def waiting_messages(settings: Settings, queue: str) -> int:
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        return int(client.llen(queue))


def transcribe_all(context: WorkerContext, transcriber: Transcriber) -> None:
    while split_one(context):
        pass
    while transcribe_pending(context, transcriber):
        pass


def test_a_recording_goes_the_whole_way(
    context: WorkerContext, transcriber: Transcriber, make_recording: Make, query: Query, settings: Settings
) -> None:
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    transcribe_all(context, transcriber)
    assert query("SELECT state, failure_reason FROM recordings") == [("completed", None)]
    assert waiting_messages(settings, GPU_QUEUE) >= 1, "splitting wakes a GPU worker"
    said = " ".join(row.text for row in query("SELECT text FROM archive.segments ORDER BY start_s"))
    references = json.loads((SAMPLES / "references.json").read_text(encoding="utf-8"))
    spoken = next(r for r in references if r["file"] == "rua-con-ruido.wav")
    result = score([" ".join(sentence["text"] for sentence in spoken["sentences"])], [said])
    assert result.wer.value < 0.15
    made_by = query(
        "SELECT model, is_demo_model, prompt, decode_settings ->> 'method' AS method, splitter_version, "
        "code_version, transcribed_s + no_speech_s + failed_s - duration_s AS lost_s FROM archive.transcripts"
    )[0]
    assert made_by.model == "fonoteca-demo"
    assert made_by.is_demo_model
    assert made_by.prompt.startswith("<|user|>")
    assert made_by.method == "greedy"
    assert made_by.splitter_version
    assert made_by.code_version
    assert made_by.lost_s == 0


def test_a_batch_is_taken_across_recordings(
    context: WorkerContext, transcriber: Transcriber, make_recording: Make, query: Query
) -> None:
    for _ in range(2):
        make_recording(media=ARCHIVE / "rua-con-ruido.wav")
        assert split_one(context)
    assert transcribe_pending(context, transcriber) == len(query("SELECT id FROM segments"))
    texts = query("SELECT array_agg(text ORDER BY index) AS texts FROM segments GROUP BY recording_id")
    assert len(texts) == 2
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("media", "name", "code", "reason"),
    [
        (b"This is a letter, not a tape.\n" * 50, "carta.mp3", "not_media", "carta.mp3"),
        (ARCHIVE / "cinta-danada.mp4", "cinta.mp4", "truncated_media", "moov"),
    ],
)
def test_bad_media_fails_with_its_reason_and_costs_nobody_else(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    query: Query,
    media: Any,
    name: str,
    code: str,
    reason: str,
) -> None:
    bad = make_recording(media=media, name=name)
    good = make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    transcribe_all(context, transcriber)
    rows = {row.id: row for row in query("SELECT * FROM recordings")}
    assert rows[good.id].state == "completed"
    assert (rows[bad.id].state, rows[bad.id].failure_code, rows[bad.id].attempt) == ("failed", code, 1)
    assert name in rows[bad.id].failure_reason
    assert reason in rows[bad.id].failure_reason
    assert "/tmp" not in rows[bad.id].failure_reason
    assert query("SELECT count(*) FROM segments WHERE recording_id = :id", id=bad.id) == [(0,)]


def test_silence_is_accounted_for_without_a_segment(
    context: WorkerContext, make_recording: Make, query: Query, tmp_path: Path
) -> None:
    import wave

    with wave.open(str(tmp_path / "silencio.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(2 * 16_000 * 5))
    make_recording(media=tmp_path / "silencio.wav")
    assert split_one(context)
    assert query("SELECT state FROM recordings") == [("completed",)]
    assert query("SELECT transcribed_s, no_speech_s, failed_s FROM archive.transcripts") == [(0, 5, 0)]


def test_a_missing_working_copy_fails_its_own_segments_only(
    context: WorkerContext, transcriber: Transcriber, make_recording: Make, query: Query
) -> None:
    gone, there = (make_recording(media=ARCHIVE / "rua-con-ruido.wav") for _ in range(2))
    while split_one(context):
        pass
    key = query("SELECT working_copy_key FROM recordings WHERE id = :id", id=gone.id)[0][0]
    context.store.delete(key)
    transcribe_all(context, transcriber)
    rows = {row.id: row for row in query("SELECT * FROM recordings")}
    assert rows[there.id].state == "completed"
    assert rows[gone.id].state == "failed"
    reasons = query("SELECT failure_reason, failures FROM segments WHERE recording_id = :id", id=gone.id)
    assert all("working copy cannot be read" in reason and tries == 3 for reason, tries in reasons)


def test_one_segment_that_the_engine_refuses_does_not_take_the_batch_along(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    bad = query("SELECT end_sample - start_sample FROM segments ORDER BY index LIMIT 1")[0][0]
    embed = Prompter.embed

    def refuse_one(self: Prompter, clips: list[np.ndarray]) -> Any:
        if any(len(clip) == bad for clip in clips):
            raise RuntimeError("this one is bad")
        return embed(self, clips)

    monkeypatch.setattr(Prompter, "embed", refuse_one)
    transcribe_all(context, transcriber)
    assert query("SELECT state FROM recordings") == [("partial",)]
    failed = query("SELECT failure_code, failures FROM segments WHERE state = 'failed'")
    assert failed == [("engine_error", 3)]


def test_what_breaks_off_goes_back_at_once(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    assert split_one(context)

    def no_room(*_: Any, **__: Any) -> int:
        raise OSError("no room on the device")

    with monkeypatch.context() as patched:
        patched.setattr("workers.transcribe.store_results", no_room)
        with pytest.raises(OSError, match="no room"):
            transcribe_pending(context, transcriber)
    assert query("SELECT DISTINCT state, losses FROM segments") == [("pending", 1)]
    assert transcribe_pending(context, transcriber) == 1
    assert query("SELECT state FROM recordings") == [("completed",)]


def test_a_lost_device_gives_the_claims_back_and_fails_no_segment(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    assert split_one(context)

    def broken(*_: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Decoder, "step", broken)
    with pytest.raises(DeviceLost, match="illegal memory access"):
        transcribe_pending(context, transcriber)
    assert query("SELECT DISTINCT state, failures, losses FROM segments") == [("pending", 0, 1)]


def test_asked_to_stop_it_finishes_what_is_begun_and_gives_the_rest_back(
    context: WorkerContext, make_recording: Make, query: Query
) -> None:
    context.settings.gpu_slots = context.settings.gpu_batch_segments = 2
    transcriber = Transcriber.open(context)
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    total = query("SELECT count(*) FROM segments")[0][0]
    is_begun = False

    def once_begun() -> bool:
        nonlocal is_begun
        is_begun = is_begun or bool(transcriber.engine._generation.in_flight)
        return is_begun

    transcribe_pending(context, transcriber, is_stopping=once_begun)
    states = dict(query("SELECT state, count(*) FROM segments GROUP BY state"))
    assert states == {"done": 2, "pending": total - 2}
    outcomes = {
        row.outcome for row in query("SELECT DISTINCT outcome FROM attempts WHERE segment_id IS NOT NULL")
    }
    assert outcomes == {"done", "returned"}
    assert transcribe_pending(context, transcriber) == total - 2, "claim after claim in one run"
    assert query("SELECT state FROM recordings") == [("completed",)]
    assert query("SELECT DISTINCT losses, failures FROM segments") == [(0, 0)]


def test_a_segment_that_workers_died_over_is_taken_with_nothing_beside_it(
    context: WorkerContext, transcriber: Transcriber, make_recording: Make, query: Query
) -> None:
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    total = query("SELECT count(*) FROM segments")[0][0]
    with context.engine.begin() as connection:
        connection.execute(text("UPDATE segments SET losses = 2 WHERE index < 2"))
    runs = []
    while n_claimed := transcribe_pending(context, transcriber):
        runs.append(n_claimed)
    assert sorted(runs) == [1, 1, total - 2], "alone, each of them"
    assert 1 in runs[:2], "and not kept waiting for as long as anything else waits"
    assert query("SELECT state FROM recordings") == [("completed",)]


def test_when_storing_fails_in_the_middle_the_next_run_mixes_nothing_up(
    context: WorkerContext,
    make_recording: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context.settings.gpu_slots = 3
    transcriber = Transcriber.open(context)
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    monkeypatch.setattr("workers.transcribe.STORE_SEGMENTS", 1)
    with monkeypatch.context() as patched:
        patched.setattr("workers.transcribe.store_results", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError) as broken:
            transcribe_pending(context, transcriber)
    transcribe_pending(context, transcriber)
    assert broken.tb is not None, "the traceback, and with it the broken run, is still there"
    spoken = [row.text for row in query("SELECT text FROM segments ORDER BY index")]
    lone = Transcriber.open(context)
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    transcribe_pending(context, lone)
    again = query("SELECT text FROM segments ORDER BY recording_id, index")
    assert [row.text for row in again] == spoken * 2


def test_when_no_audio_can_be_read_the_run_ends_after_what_it_holds(
    context: WorkerContext, transcriber: Transcriber, make_recording: Make, query: Query
) -> None:
    """The store may be away for a minute: that must not cost the whole backlog its attempts."""
    context.settings.gpu_batch_segments = 1
    make_recording(media=ARCHIVE / "noticias-2026-11-20.mp3")
    assert split_one(context)
    context.store.delete(query("SELECT working_copy_key FROM recordings")[0][0])
    with redis.Redis.from_url(context.settings.require_redis_url()) as client:
        client.flushall()
    assert transcribe_pending(context, transcriber) <= 2
    assert waiting_messages(context.settings, GPU_QUEUE) == 0, "the sweep wakes, at its own pace"
    assert query("SELECT max(failures) FROM segments") == [(1,)]


def test_scores_that_are_not_finite_fail_their_segment_with_the_reason(
    context: WorkerContext,
    transcriber: Transcriber,
    make_recording: Make,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    assert split_one(context)
    weight = transcriber.engine.model.model.norm.weight
    monkeypatch.setattr(weight, "data", weight.data * float("nan"))
    for _ in range(context.settings.max_attempts):
        transcribe_pending(context, transcriber)
    reasons = query("SELECT state, failure_reason FROM segments")
    assert reasons[0].state == "failed"
    assert "not finite" in reasons[0].failure_reason


def test_a_backlog_keeps_one_wake_up_waiting_however_much_is_split(
    context: WorkerContext, make_recording: Make, settings: Settings
) -> None:
    for _ in range(4):
        make_recording(media=b"no media at all")  # made without a wake-up each, as if they had been lost
    waiting = []
    while split_one(context):
        waiting.append(waiting_messages(settings, MEDIA_QUEUE))
    assert waiting == [1, 1, 1, 1]


def test_the_sweep_sends_lost_wake_ups_again_and_only_where_work_waits(
    context: WorkerContext, make_recording: Make, settings: Settings
) -> None:
    sweep(context.engine, settings)
    assert (waiting_messages(settings, MEDIA_QUEUE), waiting_messages(settings, GPU_QUEUE)) == (0, 0)
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    for _ in range(3):
        sweep(context.engine, settings)
    assert waiting_messages(settings, MEDIA_QUEUE) == 1, "once is enough"
    assert split_one(context)
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        client.flushall()  # the broker lost everything
    sweep(context.engine, settings)
    assert (waiting_messages(settings, MEDIA_QUEUE), waiting_messages(settings, GPU_QUEUE)) == (0, 1)


def test_the_sweep_removes_staged_files_that_no_upload_has(
    context: WorkerContext, make_recording: Make, settings: Settings
) -> None:
    made = make_recording(received=False, media=b"audio")
    with transaction(context.engine) as tx:
        upload = create_upload(tx.connection, made.owner.id, made.id, 5)
    folder = settings.require_upload_dir()
    kept = {str(upload.id), "a person's notes.txt"}
    for name in {*kept, str(uuid.uuid4())}:
        (folder / name).write_bytes(b"au")
    sweep(context.engine, settings)
    assert {file.name for file in folder.iterdir()} == kept


def test_a_broker_that_is_down_does_not_fail_the_work(
    context: WorkerContext, make_recording: Make, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import queue

    monkeypatch.setenv("FONOTECA_REDIS_URL", "redis://127.0.0.1:1/0")
    queue._sender.cache_clear()
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    assert split_one(context)
    assert query("SELECT state FROM recordings") == [("transcribing",)]
    queue._sender.cache_clear()


def test_nothing_is_split_while_the_disk_is_nearly_full(
    context: WorkerContext, make_recording: Make, settings: Settings, query: Query
) -> None:
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    context.settings.free_disk_min_bytes = 2**60
    assert not split_one(context)
    assert query("SELECT state, attempt FROM recordings") == [("received", 0)], "no attempt is spent on it"
    context.settings.free_disk_min_bytes = 1
    assert split_one(context)
