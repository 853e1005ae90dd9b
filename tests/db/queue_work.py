"""What tests of the queue do with it: workers that come and die, splits, claims, results."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Engine, text

from db import queue, splitting
from db.connect import transaction
from db.liveness import WORKER_LOCK_CLASS, WorkerSession
from db.work import ModelBinding, NewGap, NewTranscript, SegmentClaim, SegmentResult

SECOND = 16_000
NewWorker = Callable[..., WorkerSession]
Make = Callable[..., Any]


def kill(worker: WorkerSession) -> None:
    """What kill -9 does to a worker: its connection closes without a word, and nothing renews its lease.

    Returns once the server has noticed, which takes it a moment on a busy machine.
    """
    worker._stop.set()
    worker._thread.join()
    worker._drop_connection()
    deadline = time.monotonic() + 30
    with worker._engine.connect() as connection:
        held = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :class AND objid = :id "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        while connection.scalar(held, {"class": WORKER_LOCK_CLASS, "id": worker.worker_id}):
            assert time.monotonic() < deadline, "the server keeps a dead worker's lock"
            time.sleep(0.002)


def model(engine: Engine, name: str = "m") -> ModelBinding:
    with transaction(engine) as tx:
        model_id = tx.connection.scalar(
            text(
                "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES (:name, 'x', true, '{}') "
                "ON CONFLICT (name, weights_sha256) DO UPDATE SET name = :name RETURNING id"
            ),
            {"name": name},
        )
    return ModelBinding(model_id, "prompt", {"method": "greedy"})


def transcript(n_segments: int, gaps: Sequence[NewGap] = (), duration_s: int | None = None) -> NewTranscript:
    """One-second segments from the start, then the gaps."""
    end = max([n_segments * SECOND, *(gap.end_sample for gap in gaps)])
    return NewTranscript(
        splitter_version="s1",
        code_version="test",
        duration_samples=duration_s * SECOND if duration_s else end,
        working_copy_key="k",
        media_info={},
        segments=[(k * SECOND, (k + 1) * SECOND) for k in range(n_segments)],
        gaps=gaps,
    )


def split(engine: Engine, worker: WorkerSession, found: NewTranscript) -> uuid.UUID:
    """Split the next received recording into `found`; its id."""
    with transaction(engine) as tx:
        claim = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claim is not None
        assert splitting.store_split(tx.connection, claim, worker.worker_id, found)
    return claim.recording_id


def claim(
    engine: Engine, worker: WorkerSession, binding: ModelBinding, limit: int = 16
) -> list[SegmentClaim]:
    with transaction(engine) as tx:
        return queue.claim_segments(tx.connection, worker.worker_id, binding, limit=limit)


def result(claimed: SegmentClaim, words: str = "texto") -> SegmentResult:
    return SegmentResult(claimed.segment_id, claimed.attempt, words, [7, 8], [-0.1, -0.2], -0.15, [])


def store(engine: Engine, worker: WorkerSession, claims: Sequence[SegmentClaim], words: str = "texto") -> int:
    with transaction(engine) as tx:
        results = [result(c, words) for c in claims]
        return queue.store_results(tx.connection, worker.worker_id, results, max_attempts=3)


def rows(engine: Engine, query: str, **values: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query), values).all())


def state_of(engine: Engine, recording_id: uuid.UUID) -> Any:
    return rows(engine, "SELECT * FROM recordings WHERE id = :id", id=recording_id)[0]
