"""Splitting waits for the GPUs: by broadcaster and class, so that nobody waits for somebody else's backlog."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from db import splitting
from db.connect import transaction
from db.liveness import WorkerSession
from db.room import deep_flows
from db.states import Priority
from tests.db.queue_work import Make, NewWorker, claim, model, split, store, transcript

HOUR_SEGMENTS = 40
AHEAD_H = HOUR_SEGMENTS / 3600 / 2
"""Half of what one recording of the tests brings: segments of a second."""


def next_to_split(engine: Engine, worker: WorkerSession) -> uuid.UUID | None:
    """Which recording a media worker would take, and give it back."""
    with transaction(engine) as tx:
        found = splitting.claim_recording(tx.connection, worker.worker_id, ahead_h=AHEAD_H)
        tx.connection.rollback()
    return found.recording_id if found else None


def test_who_has_much_waiting_for_a_gpu_waits_with_splitting(
    engine: Engine, new_worker: NewWorker, make_recording: Make, make_broadcaster: Callable[..., Any]
) -> None:
    worker, binding = new_worker(), model(engine)
    make_recording()
    split(engine, worker, transcript(HOUR_SEGMENTS))
    more = make_recording()
    assert next_to_split(engine, worker) is None
    # neither another broadcaster nor another class stands behind it
    newcomer = make_recording(owner=make_broadcaster())
    assert next_to_split(engine, worker) == newcomer.id
    urgent = make_recording(priority=Priority.URGENT)
    assert next_to_split(engine, worker) == urgent.id
    for made in (urgent, newcomer):
        split_now(engine, worker, made.id)
    assert next_to_split(engine, worker) is None
    # the GPU is at work: once little enough waits, splitting goes on
    while next_to_split(engine, worker) is None:
        assert store(engine, worker, claim(engine, worker, binding, limit=10))
    with engine.connect() as connection:
        assert not deep_flows(connection, AHEAD_H)
    assert next_to_split(engine, worker) == more.id


def split_now(engine: Engine, worker: WorkerSession, recording_id: uuid.UUID) -> None:
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id, ahead_h=AHEAD_H)
        assert claimed
        assert claimed.recording_id == recording_id
        splitting.store_split(tx.connection, claimed, worker.worker_id, transcript(1))


def test_weights_do_not_change_how_many_hours_may_wait(
    engine: Engine, new_worker: NewWorker, make_recording: Make, make_broadcaster: Callable[..., Any]
) -> None:
    worker = new_worker()
    heavy = make_broadcaster()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE broadcasters SET weight = 100")
    make_recording(owner=heavy)
    split(engine, worker, transcript(HOUR_SEGMENTS))
    with engine.connect() as connection:
        assert [flow.broadcaster_id for flow in deep_flows(connection, AHEAD_H)] == [heavy.id]
        assert not deep_flows(connection, 2 * HOUR_SEGMENTS / 3600)
