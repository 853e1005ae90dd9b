"""What Prometheus is told of the queue and the workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from api import recent
from api.metrics_queue import QueueCollector
from api.recent import Recent
from db.connect import transaction
from db.control import Target, pause, pause_queue
from db.liveness import WorkerSession
from db.losses import take_back_dead_claims
from db.queue import store_results
from db.states import GapKind, Priority, WorkQueue
from db.work import Failure, NewGap
from tests.db.queue_work import SECOND, claim, kill, model, split, store, transcript

Make = Callable[..., Any]


def queue_metrics(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("fonoteca_")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def new_worker(engine: Engine, role: str = "gpu") -> WorkerSession:
    return WorkerSession(engine, role=role, code_version="t", lease_s=60, claim_limit_s=60).start()


def test_an_empty_system_has_a_value_for_every_class(client: httpx.Client) -> None:
    found = queue_metrics(client)
    assert found["fonoteca_database_up"] == 1
    for queue in WorkQueue:
        assert found[f'fonoteca_queue_paused{{queue="{queue}"}}'] == 0
        for priority in Priority:
            for name in ("waiting", "held", "oldest_age_seconds"):
                assert found[f'fonoteca_queue_{name}{{class="{priority}",queue="{queue}"}}'] == 0
    assert found['fonoteca_attempts_recent{outcome="lost",queue="transcribe"}'] == 0
    assert found['fonoteca_workers{role="gpu"}'] == 0
    assert found["fonoteca_rtfx"] == 0


def test_what_waits_what_was_done_and_what_went_wrong(
    client: httpx.Client, engine: Engine, make_recording: Make, make_broadcaster: Make
) -> None:
    media, gpu, doomed = new_worker(engine, "media"), new_worker(engine), new_worker(engine)
    other = make_broadcaster("outra")
    done = make_recording(priority=Priority.URGENT)
    split(engine, media, transcript(3, [NewGap(GapKind.NO_SPEECH, 3 * SECOND, 10 * SECOND)]))
    binding = model(engine)
    claims = claim(engine, gpu, binding, 3)
    store(engine, gpu, claims[:2])
    with transaction(engine) as tx:
        broken = Failure("engine_error", "no", retryable=False)
        store_results(tx.connection, gpu.worker_id, [], [(claims[2], broken)], max_attempts=3)
    waits = make_recording(owner=other, priority=Priority.ARCHIVE)
    split(engine, media, transcript(4))
    make_recording(owner=other, media=b"twelve bytes")  # to be split
    held = make_recording()
    with transaction(engine) as tx:
        pause(tx.connection, Target(held.owner.id, batch_id=held.batch_id))
        pause_queue(tx.connection, WorkQueue.SPLIT)
        tx.connection.execute(
            text("UPDATE transcripts SET created_at = now() - interval '90 s' WHERE recording_id = :id"),
            {"id": waits.id},
        )
    claim(engine, doomed, binding, 1)
    kill(doomed)
    with transaction(engine) as tx:
        take_back_dead_claims(tx.connection)
    gpu.counters.claims, gpu.counters.claim_s = 7, 0.25
    gpu.counters.busy_s, gpu.counters.transcribed_samples = 12.5, 32_000
    gpu.ensure_alive()
    found = queue_metrics(client)
    assert found['fonoteca_queue_waiting{class="archive",queue="transcribe"}'] == 4
    assert found['fonoteca_queue_waiting{class="urgent",queue="transcribe"}'] == 0
    assert found['fonoteca_queue_waiting{class="normal",queue="split"}'] == 1
    assert found['fonoteca_queue_held{class="normal",queue="split"}'] == 1
    assert found['fonoteca_queue_paused{queue="split"}'] == 1
    assert 90 <= found['fonoteca_queue_oldest_age_seconds{class="archive",queue="transcribe"}'] < 600
    assert found['fonoteca_audio_waiting_seconds{broadcaster="outra",state="waiting"}'] == 4
    assert found['fonoteca_media_waiting_bytes{broadcaster="outra",state="waiting"}'] == len(b"twelve bytes")
    mine = f'broadcaster="{done.owner.name}"'
    assert found[f'fonoteca_audio_done_seconds{{{mine},outcome="transcribed"}}'] == 2
    assert found[f'fonoteca_audio_done_seconds{{{mine},outcome="no_speech"}}'] == 7
    assert found[f'fonoteca_audio_done_seconds{{{mine},outcome="failed"}}'] == 1
    assert found['fonoteca_attempts_recent{outcome="done",queue="transcribe"}'] == 2
    assert found['fonoteca_attempts_recent{outcome="done",queue="split"}'] == 2
    assert found['fonoteca_failures_recent{error="engine_error",queue="transcribe"}'] == 1
    assert found['fonoteca_failures_recent{error="worker_died",queue="transcribe"}'] == 1
    assert found["fonoteca_rtfx"] == pytest.approx(2 / 60), "a minute at least, although it took less"
    assert found['fonoteca_workers{role="gpu"}'] == 2, "the killed one's lease is not over yet"
    label = next(name for name in found if name.startswith("fonoteca_worker_claims_total")).partition("{")[2]
    assert f'worker="{gpu.worker_id}"' in label
    assert found[f"fonoteca_worker_claims_total{{{label}"] == 7
    assert found[f"fonoteca_worker_claim_seconds_total{{{label}"] == 0.25
    assert found[f"fonoteca_worker_busy_seconds_total{{{label}"] == 12.5
    assert found[f"fonoteca_worker_transcribed_audio_seconds_total{{{label}"] == 2
    gpu.stop()
    media.stop()


def test_scrapes_that_come_fast_ask_the_database_once(engine: Engine) -> None:
    asked: list[int] = []
    begun = threading.Barrier(4)

    def read(connection: Connection) -> int:
        asked.append(1)
        return len(asked)

    figures = Recent(engine, read, keep_s=60)
    answers: list[int] = []

    def scrape() -> None:
        begun.wait()
        answers.append(figures.get())

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [1, 1, 1, 1]
    expired = Recent(engine, read, keep_s=0)
    assert (expired.get(), expired.get()) == (2, 3)


def test_a_slow_database_costs_a_scrape_seconds_and_is_not_asked_again_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "STATEMENT_TIMEOUT_S", 0.05)
    asked: list[int] = []

    def read(connection: Connection) -> None:
        asked.append(1)
        connection.execute(text("SELECT pg_sleep(30)"))

    figures = Recent(engine, read, keep_s=60)
    for _ in range(2):
        with pytest.raises(SQLAlchemyError, match="statement timeout"):
            figures.get()
    assert len(asked) == 1


def test_without_a_database_it_says_so_and_nothing_else() -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:9/none")
    (up,) = QueueCollector(nowhere).collect()
    assert [sample.value for sample in up.samples] == [0]
