"""What production did: hours, waiting, speed, the model in service; and how a night's rows are found."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from db.connect import transaction
from db.production import corrected_segments, finished_recordings, model_in_service, production_figures
from tests.conftest import Said
from tests.made_archive import Spoken, add_model, add_recording

UNTIL = dt.datetime(2026, 3, 10, 1, 30, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
FROM = UNTIL - DAY
ONE = [Spoken("un")]


def test_the_model_in_service_is_the_one_of_most_audio(engine: Engine, owner: Any) -> None:
    with transaction(engine) as tx:
        connection = tx.connection
        assert model_in_service(connection, UNTIL) is None
        old, new = add_model(connection, "old"), add_model(connection, "new")
        add_recording(connection, owner.id, old, ONE * 3, at=FROM)
        add_recording(connection, owner.id, new, ONE * 2, at=UNTIL - HOUR)
        assert model_in_service(connection, UNTIL) == old
        assert model_in_service(connection, UNTIL, from_at=FROM + HOUR) == new
        assert model_in_service(connection, FROM) is None
        # a window without production: the model of the last one before
        assert model_in_service(connection, UNTIL + 9 * DAY) == new


def test_hours_done_waiting_and_failed(
    engine: Engine, make_recording: Callable[..., Any], make_transcript: Callable[..., Any], owner: Any
) -> None:
    make_transcript([Said(0, 30, "a"), Said(40, 50, None)], duration_s=90.0)
    waiting = make_recording()
    with transaction(engine) as tx:
        now = tx.connection.execute(text("SELECT now()")).scalar_one()
        found = production_figures(tx.connection, now - HOUR, now + HOUR)
        assert list(found.by_broadcaster) == [owner.name]
        assert found.by_broadcaster[owner.name] == found.total
        total = found.total
        hours = (total.audio_h, total.transcribed_h, total.no_speech_h, total.failed_h)
        assert hours == pytest.approx((90 / 3600, 30 / 3600, 50 / 3600, 10 / 3600))
        assert total.share(total.failed_h) == pytest.approx(1 / 9)
        assert (total.n_recordings, total.n_waiting, total.waiting_h) == (1, 1, 0)
        assert found.transcribed_audio_s == 30
        for state in ("splitting", "transcribing"):
            tx.connection.execute(
                text(
                    "UPDATE recordings SET state = :state, duration_samples = 57600000, worker_id = "
                    "CASE WHEN :state = 'splitting' THEN (SELECT max(id) FROM workers) END WHERE id = :id"
                ),
                {"id": waiting.id, "state": state},
            )
        assert production_figures(tx.connection, now - HOUR, now + HOUR).total.waiting_h == 1
        before = production_figures(tx.connection, now - 2 * HOUR, now - HOUR)
        assert (before.total.n_recordings, before.total.audio_h, before.rtfx) == (0, 0, None)
        assert before.total.share(1) is None


def test_a_workers_busy_time_is_the_union_of_what_it_held(engine: Engine, owner: Any) -> None:
    with transaction(engine) as tx:
        connection = tx.connection
        model_id = add_model(connection)
        recording_id, segment_ids = add_recording(connection, owner.id, model_id, ONE * 6, at=FROM)
        workers = [
            connection.scalar(
                text(
                    "INSERT INTO workers (role, host, pid, code_version, lease_until) "
                    "VALUES ('gpu', 'made', 1, 'made', now()) RETURNING id"
                )
            )
            for _ in range(2)
        ]
        # seconds after the window's beginning: overlapping claims, a hole, and two that reach over the window's ends
        spans = [(0, -60, 10, "done"), (0, 5, 30, "done"), (0, 40, 50, "returned"), (1, 0, 20, "done")]
        spans += [(1, 86_000, 86_410, "done"), (1, 500, 600, "lost")]
        for segment_id, (worker, start_s, end_s, outcome) in zip(segment_ids, spans, strict=True):
            connection.execute(
                text(
                    "INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id, outcome, "
                    "started_at, finished_at) VALUES (:owner, :recording, :segment, 1, :worker, :outcome, :a, :b)"
                ),
                {
                    "owner": owner.id,
                    "recording": recording_id,
                    "segment": segment_id,
                    "worker": workers[worker],
                    "outcome": outcome,
                    "a": FROM + dt.timedelta(seconds=start_s),
                    "b": FROM + dt.timedelta(seconds=end_s),
                },
            )
        found = production_figures(connection, FROM, UNTIL)
    assert found.transcribed_audio_s == 30
    assert found.busy_s == pytest.approx(30 + 10 + 20)
    assert found.rtfx == pytest.approx(0.5)


def make_many(connection: Connection, owner_id: int, model_id: int) -> None:
    """800 recordings of 50 segments, an attempt each, over 80 days."""
    add_recording(connection, owner_id, model_id, ONE * 50, at=UNTIL - 80 * DAY)
    connection.execute(
        text(
            """
            INSERT INTO recordings (broadcaster_id, batch_id, name, priority, state, size_bytes)
            SELECT broadcaster_id, batch_id, 'r' || n, 1, 'completed', 1 FROM recordings, generate_series(1, 800) n
            """
        )
    )
    connection.execute(
        text(
            """
            INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version,
                code_version, duration_samples, transcribed_samples, no_speech_samples, failed_samples, finished_at)
            SELECT broadcaster_id, id, true, :model_id, 'made', 'made', 1, 1, 0, 0,
                   :until - substr(name, 2)::int * interval '0.1 day'
            FROM recordings WHERE name LIKE 'r%'
            """
        ),
        {"model_id": model_id, "until": UNTIL},
    )
    connection.execute(
        text(
            """
            INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                  state, priority, text)
            SELECT t.broadcaster_id, t.recording_id, t.id, n, n, n + 1, 'done', 1, 'un'
            FROM transcripts t, generate_series(0, 49) n WHERE t.duration_samples = 1
            """
        )
    )


def test_a_nights_rows_are_found_without_reading_all_segments(engine: Engine, owner: Any) -> None:
    run: list[tuple[str, Any]] = []
    with transaction(engine) as tx:
        connection = tx.connection
        model_id = add_model(connection)
        make_many(connection, owner.id, model_id)
        for table in ("recordings", "transcripts", "segments"):
            connection.execute(text(f"ANALYZE {table}"))
        event.listen(connection, "before_cursor_execute", lambda *call: run.append((call[2], call[3])))
        found = finished_recordings(connection, model_id, FROM, UNTIL)
        corrected_segments(connection, model_id, FROM, UNTIL)
        plans = [
            "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars())
            for statement, parameters in list(run)
        ]
    assert len(found) == 10
    assert sum(each.n_segments for each in found) == 500
    assert len(plans) == 2
    assert "ix_transcripts_finished_at" in plans[0]
    for plan in plans:
        assert "Seq Scan on segments" not in plan, plan
