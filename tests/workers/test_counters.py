"""What a worker's row says of its work, for Prometheus to compute rates from."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from workers.busy import BusyClock
from workers.context import WorkerContext
from workers.split import split_one
from workers.transcribe import Transcriber, transcribe_pending

ARCHIVE = Path(__file__).parents[2] / "samples" / "archive"
COUNTERS_SQL = "SELECT claims, claim_s, busy_s, transcribed_samples FROM workers ORDER BY id"
Query = Callable[..., list[Any]]


def test_a_workers_row_tells_what_it_did(
    context: WorkerContext, transcriber: Transcriber, make_recording: Callable[..., Any], query: Query
) -> None:
    assert query(COUNTERS_SQL) == [(0, 0, 0, 0)]
    make_recording(media=ARCHIVE / "rua-con-ruido.wav")
    assert split_one(context)
    started_at = time.monotonic()
    with capture_logs() as logs:
        assert transcribe_pending(context, transcriber)
    took_s = time.monotonic() - started_at
    context.session.ensure_alive()  # as the lease's renewal does
    (row,) = query(COUNTERS_SQL)
    assert row.claims >= 2, "the last one found nothing"
    assert row.claim_s > 0
    assert row.busy_s > 0
    assert row.claim_s + row.busy_s < took_s, "waiting for the queue is not work"
    done = query("SELECT sum(end_sample - start_sample) AS samples FROM segments WHERE state = 'done'")
    assert row.transcribed_samples == done[0].samples
    stored = [event for event in logs if event["event"] == "segments_stored"]
    (recording,) = query("SELECT id FROM recordings")
    assert all(event["recording_ids"] == [str(recording.id)] for event in stored)
    segments = query("SELECT id FROM segments ORDER BY id")
    assert sorted(key for event in stored for key in event["segment_ids"]) == [row.id for row in segments]
    # the connection is lost: the worker registers anew, and its new row counts from zero
    context.session.abandon()
    context.session.ensure_alive()
    context.session.ensure_alive()
    assert query(COUNTERS_SQL) == [row, (0, 0, 0, 0)]


def test_what_the_engine_waits_for_is_not_its_work(
    context: WorkerContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("workers.busy.time.monotonic", lambda: now[0])
    clock = BusyClock(context.session)
    with clock.working():
        now[0] += 5
        with clock.waiting():
            with clock.claiming():
                now[0] += 2
            now[0] += 1
        now[0] += 4
    with clock.working():
        now[0] += 1
    counters = context.session.counters
    assert (counters.claims, counters.claim_s, counters.busy_s) == (1, 2, 10)
