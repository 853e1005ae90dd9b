"""Throughput, and when a batch will be done: compared with what a look at every segment says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.batches import find_batch
from db.connect import transaction
from db.control import Target, pause, pause_queue, resume_queue
from db.states import NoEta, Priority, WorkQueue
from db.throughput import LEAST_SPAN_S, WINDOW_S, Eta, Throughput, estimate_eta, measure_throughput
from tests.conftest import MadeRecording
from tests.db.queue_work import NewWorker, claim, model, rows, split, store, transcript

Make = Callable[..., Any]
TEN_FOLD = Throughput(6000.0, 600.0)


def throughput(engine: Engine) -> Throughput:
    with transaction(engine) as tx:
        return measure_throughput(tx.connection)


def eta(engine: Engine, made: MadeRecording, at: Throughput = TEN_FOLD) -> Eta | None:
    with transaction(engine) as tx:
        batch = find_batch(tx.connection, made.owner.id, made.batch_id)
        assert batch is not None
        return estimate_eta(tx.connection, batch, at)


def test_throughput_is_that_of_the_last_minutes(
    engine: Engine, new_worker: NewWorker, make_recording: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    assert throughput(engine) == Throughput(0, WINDOW_S)
    make_recording()
    split(engine, worker, transcript(12))
    store(engine, worker, claim(engine, worker, binding, 8))
    assert throughput(engine) == Throughput(8, LEAST_SPAN_S), "one burst is no rate of 8 s in a moment"

    def finished(n: int, seconds_ago: int) -> None:
        with transaction(engine) as tx:
            tx.connection.execute(
                text(
                    "UPDATE segments SET finished_at = now() - make_interval(secs => :ago) WHERE id IN ("
                    "SELECT id FROM segments WHERE state = 'done' ORDER BY id LIMIT :n)"
                ),
                {"n": n, "ago": seconds_ago},
            )

    finished(4, 200)
    measured = throughput(engine)
    assert measured.audio_s == 8
    assert 200 <= measured.span_s < 260, "since the first of them"
    finished(3, 700)
    assert throughput(engine).audio_s == 5, "what is older than the window does not count"


def test_what_comes_before_a_batch_is_what_the_turns_say(
    engine: Engine, new_worker: NewWorker, make_recording: Make, make_broadcaster: Make
) -> None:
    worker, binding = new_worker(), model(engine)
    big, heavy, small = make_broadcaster(), make_broadcaster(), make_broadcaster()
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE broadcasters SET weight = 3 WHERE id = :id"), {"id": heavy.id})

    def submit(n_segments: int, **recording: Any) -> MadeRecording:
        made: MadeRecording = make_recording(**recording)
        split(engine, worker, transcript(n_segments))
        return made

    backlog = submit(200, owner=big)
    weighed = submit(90, owner=heavy)
    store(engine, worker, claim(engine, worker, binding, 40))
    newcomer = submit(20, owner=small)
    behind = submit(10, owner=big)
    urgent = submit(15, owner=big, priority=Priority.URGENT)
    archive = submit(5, owner=small, priority=Priority.ARCHIVE)
    held = claim(engine, worker, binding, 6)  # of the urgent one: in hand, still to be done
    assert len(held) == 6

    def brute_force(made: MadeRecording) -> tuple[float, float]:
        """(left of the batch, all that is claimed before its last one is done), in seconds of one segment each."""
        (found,) = rows(
            engine,
            "WITH last AS (SELECT s.priority, max(s.turn) AS turn FROM segments s JOIN recordings r "
            "ON r.id = s.recording_id WHERE r.batch_id = :batch AND s.state = 'pending' GROUP BY 1) "
            "SELECT (SELECT count(*) FROM segments s JOIN recordings r ON r.id = s.recording_id "
            "        WHERE r.batch_id = :batch AND s.state IN ('pending', 'running')) AS own, count(*) AS before "
            "FROM segments s, last WHERE s.state = 'pending' AND (s.priority, s.turn) <= (last.priority, last.turn)",
            batch=made.batch_id,
        )
        return found.own, found.before

    for made in (backlog, weighed, newcomer, behind, urgent, archive):
        found = eta(engine, made)
        assert found is not None
        own, before = brute_force(made)
        assert found.reason is None
        assert found.audio_left_s == own
        # a segment or so per broadcaster: what was begun of the turns that are being served
        assert found.audio_left_s + found.audio_before_s == pytest.approx(max(before, own), abs=6)
        assert found.eta_s == pytest.approx((found.audio_left_s + found.audio_before_s) / 10)
    order = [eta(engine, made).eta_s for made in (urgent, newcomer, behind, archive)]  # type: ignore[union-attr]
    assert order == sorted(order)


def test_why_nobody_can_say(engine: Engine, new_worker: NewWorker, make_recording: Make) -> None:
    worker, binding = new_worker(), model(engine)

    def reason(made: MadeRecording, at: Throughput = TEN_FOLD) -> NoEta | None:
        found = eta(engine, made, at)
        assert found is not None
        assert (found.eta_s is None) == (found.reason is not None)
        return found.reason

    assert reason(make_recording(received=False)) is NoEta.AWAITING_MEDIA
    made = make_recording()
    assert reason(made) is NoEta.NOT_SPLIT
    split(engine, worker, transcript(3))
    assert reason(made) is None
    assert reason(made, Throughput(0, 600)) is NoEta.NO_THROUGHPUT
    with transaction(engine) as tx:
        pause_queue(tx.connection, WorkQueue.SPLIT)
    assert reason(made) is None, "it is split"
    with transaction(engine) as tx:
        resume_queue(tx.connection, WorkQueue.SPLIT)
        pause_queue(tx.connection, WorkQueue.TRANSCRIBE)
    assert reason(made) is NoEta.PAUSED
    with transaction(engine) as tx:
        resume_queue(tx.connection, WorkQueue.TRANSCRIBE)
    claims = claim(engine, worker, binding)
    found = eta(engine, made)
    assert found is not None
    assert (found.audio_left_s, found.audio_before_s, found.eta_s) == (3, 0, 0.3), "in a worker's hands"
    with transaction(engine) as tx:
        pause(tx.connection, Target(made.owner.id, batch_id=made.batch_id))
    assert reason(made) is NoEta.PAUSED
    store(engine, worker, claims)
    assert eta(engine, made) is None, "it is done"
