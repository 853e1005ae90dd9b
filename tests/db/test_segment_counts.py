"""Counts of segments: the same numbers as plain counting, whatever stands in a transcript's row."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from db.batches import find_batch, list_batches, list_newest_recordings, list_recordings
from db.connect import transaction
from db.schema import SAMPLE_RATE_HZ
from db.segment_counts import fill_counts
from db.settings import Settings
from tests.conftest import Said
from workers.sweep import sweep

STATES = ("pending", "running", "done", "failed")

PLAIN_SQL = """
    SELECT r.id AS recording_id, r.batch_id, t.id AS transcript_id,
           (SELECT jsonb_object_agg(state, n) FROM (SELECT state, count(*) AS n FROM segments
            WHERE transcript_id = t.id GROUP BY state) s) AS segments,
           (SELECT jsonb_object_agg(state, n) FROM (SELECT state, sum(end_sample - start_sample) AS n FROM segments
            WHERE transcript_id = t.id GROUP BY state) s) AS samples,
           (SELECT jsonb_object_agg(kind, n) FROM (SELECT kind, sum(end_sample - start_sample) AS n FROM gaps
            WHERE transcript_id = t.id GROUP BY kind) g) AS gaps
    FROM recordings r LEFT JOIN transcripts t ON t.recording_id = r.id AND t.is_current
"""
"""Every segment and gap counted, as nobody could afford at a poll."""


def plain_counts(connection: Connection) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """(segments by state of every recording; segments by state and seconds of every batch), by plain counting."""
    recordings: dict[uuid.UUID, dict[str, int]] = {}
    batches: dict[uuid.UUID, tuple[dict[str, int], list[int]]] = {}
    for row in connection.execute(text(PLAIN_SQL)):
        counts = {state: int((row.segments or {}).get(state, 0)) for state in STATES}
        recordings[row.recording_id] = counts
        total, samples = batches.setdefault(row.batch_id, (dict.fromkeys(STATES, 0), [0, 0, 0]))
        for state in STATES:
            total[state] += counts[state]
        spoken, gaps = row.samples or {}, row.gaps or {}
        samples[0] += spoken.get("done", 0)
        samples[1] += gaps.get("no_speech", 0)
        samples[2] += spoken.get("failed", 0) + gaps.get("failed", 0)
    seconds = {
        batch_id: (total, [round(n / SAMPLE_RATE_HZ, 3) for n in samples])
        for batch_id, (total, samples) in batches.items()
    }
    return recordings, seconds


def read_counts(connection: Connection, owner_id: int) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """The same as the API reads it."""
    listed = list_batches(connection, owner_id, limit=100)
    assert listed == [find_batch(connection, owner_id, batch.id) for batch in listed]
    found = [each for batch in listed for each in list_recordings(connection, owner_id, batch.id, limit=100)]
    newest = list_newest_recordings(connection, owner_id, limit=1000)
    assert sorted(newest, key=lambda each: each.id) == sorted(found, key=lambda each: each.id)
    batches = {
        batch.id: (
            batch.segment_counts,
            [batch.audio_s.transcribed, batch.audio_s.no_speech, batch.audio_s.failed],
        )
        for batch in listed
    }
    return {each.id: each.segment_counts for each in found}, batches


def sum_of(spans: list[tuple[str, int, int]], kind: str) -> int:
    """Samples of the spans of one kind."""
    return sum(end - start for what, start, end in spans if what == kind)


def store_random(
    connection: Connection, rng: random.Random, owner_id: int, recording_id: uuid.UUID, *, current: bool
) -> None:
    """A transcript in any state the queue can leave it in, its tiles of random lengths."""
    kind = rng.choice(("waiting", "waiting before counts", "begun", "finished", "finished before counts"))
    segments, gaps, position = [], [], 0
    for _ in range(rng.randrange(8)):
        end = position + rng.randrange(1, 400_000)
        if rng.random() < 0.4:
            gaps.append((rng.choice(("no_speech", "failed")), position, end))
        else:
            states = {"waiting": STATES[:1], "begun": STATES}.get(kind.split()[0], STATES[2:])
            segments.append((rng.choice(states), position, end))
        position = end
    finished = kind.startswith("finished")
    length = {key: sum_of([*segments, *gaps], key) for key in ("done", "no_speech", "failed")}
    transcript_id = connection.scalar(
        text(
            """
            INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version,
                code_version, duration_samples, transcribed_samples, no_speech_samples, failed_samples,
                no_speech_gap_samples, failed_gap_samples, done_segments, failed_segments, finished_at)
            VALUES (:owner, :recording, :current, :model, 'energy-1', 'test', :duration, :done, :no_speech, :failed,
                    :gap_no_speech, :gap_failed, :n_done, :n_failed, CASE WHEN :finished THEN now() END)
            RETURNING id
            """
        ),
        {
            "owner": owner_id,
            "recording": recording_id,
            "current": current,
            "model": None if kind.startswith("waiting") else 1,
            "gap_no_speech": None if "before" in kind else sum_of(gaps, "no_speech"),
            "gap_failed": None if "before" in kind else sum_of(gaps, "failed"),
            "duration": position,
            **{key: value if finished else None for key, value in length.items()},
            "n_done": sum(s == "done" for s, *_ in segments) if kind == "finished" else None,
            "n_failed": sum(s == "failed" for s, *_ in segments) if kind == "finished" else None,
            "finished": finished,
        },
    )
    for index, (state, start, end) in enumerate(segments):
        connection.execute(
            text(
                "INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,"
                " state, priority, worker_id, text, failure_reason) VALUES (:owner, :recording, :transcript, :index,"
                " :start, :end, :state, 1, :worker, :text, :reason)"
            ),
            {
                "owner": owner_id,
                "recording": recording_id,
                "transcript": transcript_id,
                "index": index,
                "start": start,
                "end": end,
                "state": state,
                "worker": 1 if state == "running" else None,
                "text": "ola" if state == "done" else None,
                "reason": "failed" if state == "failed" else None,
            },
        )
    for kind_of_gap, start, end in gaps:
        connection.execute(
            text("INSERT INTO gaps VALUES (:transcript, :start, :end, :owner, :kind, :reason)"),
            {
                "transcript": transcript_id,
                "start": start,
                "end": end,
                "owner": owner_id,
                "kind": kind_of_gap,
                "reason": "broken" if kind_of_gap == "failed" else None,
            },
        )


@pytest.fixture
def random_archive(engine: Engine, owner: Any) -> Any:
    """45 recordings in 5 batches with random transcripts, older ones among them; the owner."""
    rng = random.Random(5)
    with transaction(engine) as tx:
        tx.connection.execute(
            text("INSERT INTO models (name, weights_sha256, is_demo, config) VALUES ('m', 'x', true, '{}')")
        )
        tx.connection.execute(
            text(
                "INSERT INTO workers (role, host, pid, code_version, lease_until) VALUES ('gpu', 'h', 1, 'v', now())"
            )
        )
        for batch in range(5):
            batch_id = tx.connection.scalar(
                text(
                    "INSERT INTO batches (broadcaster_id, name, request_sha256) VALUES (:owner, :name, '') "
                    "RETURNING id"
                ),
                {"owner": owner.id, "name": f"batch {batch}"},
            )
            for number in range(1 + 4 * batch):
                recording_id = tx.connection.scalar(
                    text(
                        "INSERT INTO recordings (broadcaster_id, batch_id, name, priority, size_bytes) "
                        "VALUES (:owner, :batch, :name, 1, 1) RETURNING id"
                    ),
                    {"owner": owner.id, "batch": batch_id, "name": f"{number}.wav"},
                )
                if rng.random() < 0.3:
                    store_random(tx.connection, rng, owner.id, recording_id, current=False)
                if rng.random() < 0.9:
                    store_random(tx.connection, rng, owner.id, recording_id, current=True)
    return owner


def uncounted(connection: Connection) -> int:
    """Finished transcripts without counts."""
    found: int = connection.execute(
        text("SELECT count(*) FROM transcripts WHERE finished_at IS NOT NULL AND done_segments IS NULL")
    ).scalar_one()
    return found


def test_counts_are_those_of_plain_counting(engine: Engine, random_archive: Any) -> None:
    with engine.connect() as connection:
        expected = plain_counts(connection)
        assert all(sum(counts[state] for counts in expected[0].values()) for state in STATES)
        assert read_counts(connection, random_archive.id) == expected
        missing = uncounted(connection)
    assert missing > 6
    # in steps; right in between as well
    for done in range(0, missing, 6):
        with transaction(engine) as tx:
            assert fill_counts(tx.connection, limit=6) == min(6, missing - done)
            assert read_counts(tx.connection, random_archive.id) == expected
    with transaction(engine) as tx:
        assert fill_counts(tx.connection, limit=6) == 0


def test_counts_stand_in_the_row_of_a_finished_transcript(
    engine: Engine, make_transcript: Callable[..., Any]
) -> None:
    made = make_transcript([Said(0, 1, "unha"), Said(1, 2, "dúas"), Said(2, 3, None)])
    with transaction(engine) as tx:
        stored = tx.connection.execute(
            text(
                "SELECT done_segments, failed_segments, no_speech_gap_samples, failed_gap_samples FROM transcripts"
            )
        ).one()
        assert tuple(stored) == (2, 1, SAMPLE_RATE_HZ, 0)
        # the row is what is read: a finished transcript's segments are not looked at
        tx.connection.execute(text("UPDATE transcripts SET done_segments = 7"))
        batch = find_batch(tx.connection, made.owner.id, made.batch_id)
        assert batch is not None
        assert batch.segment_counts["done"] == 7
        assert asdict(batch.audio_s) == {"total": 4.0, "transcribed": 2.0, "no_speech": 1.0, "failed": 1.0}


def test_the_sweep_fills_in_what_finished_before(
    engine: Engine, random_archive: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for wake in ("wake_split", "wake_transcribe"):
        monkeypatch.setattr(f"workers.sweep.{wake}", lambda: None)
    settings.require_upload_dir().mkdir(parents=True, exist_ok=True)
    sweep(engine, settings)
    with engine.connect() as connection:
        assert uncounted(connection) == 0
