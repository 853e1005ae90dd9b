"""The statements of a worker of release 0002, frozen: during a rolling upgrade they meet newer tables.

Copied from db/queue.py and db/finishing.py as they stood when revision 0002 was the newest. Not to be brought up to
date: what is tested with them is that a worker which has not been replaced yet still works.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Engine, text

from db.connect import transaction

DURATION_SAMPLES = 640_000
SPANS = [(0, 160_000), (160_000, 400_000), (400_000, 600_000)]
"""Segments of every recording; the rest of it is a gap."""


def submit(connection: Connection, broadcaster_id: int, name: str) -> None:
    """A batch with one recording whose media has arrived."""
    batch_id = connection.scalar(
        text(
            "INSERT INTO batches (broadcaster_id, name, priority, request_sha256) "
            "VALUES (:broadcaster_id, :name, 'normal', 'x') RETURNING id"
        ),
        {"broadcaster_id": broadcaster_id, "name": name},
    )
    recording_id = connection.scalar(
        text(
            "INSERT INTO recordings (broadcaster_id, batch_id, name, size_bytes, priority) "
            "VALUES (:broadcaster_id, :batch_id, :name, 1000, 1) RETURNING id"
        ),
        {"broadcaster_id": broadcaster_id, "batch_id": batch_id, "name": name},
    )
    connection.execute(
        text(
            "UPDATE recordings SET state = 'received', media_key = :key, received_at = now(), updated_at = now() "
            "WHERE id = :id"
        ),
        {"id": recording_id, "key": f"{broadcaster_id}/{recording_id}/original"},
    )


def register(connection: Connection) -> int:
    """A worker's id."""
    worker_id: int | None = connection.scalar(
        text(
            "INSERT INTO workers (role, host, pid, code_version, lease_until) "
            "VALUES ('gpu', 'test', 1, '0.1.0', now() + interval '1 hour') RETURNING id"
        )
    )
    assert worker_id is not None
    return worker_id


def a_model(connection: Connection) -> int:
    """A model's id."""
    model_id: int | None = connection.scalar(
        text(
            "INSERT INTO models (name, weights_sha256, is_demo, config) VALUES ('demo', 'd', true, '{}') "
            "ON CONFLICT (name, weights_sha256) DO UPDATE SET is_demo = excluded.is_demo RETURNING id"
        )
    )
    assert model_id is not None
    return model_id


def claim_recording(connection: Connection, worker_id: int) -> Any | None:
    row = connection.execute(
        text(
            """
            UPDATE recordings r
            SET state = 'splitting', attempt = r.attempt + 1, worker_id = :worker_id, updated_at = now()
            WHERE r.id = (
                SELECT id FROM recordings WHERE state = 'received'
                ORDER BY priority, received_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING r.id, r.broadcaster_id, r.name, r.media_key, r.attempt
            """
        ),
        {"worker_id": worker_id},
    ).one_or_none()
    if row is not None:
        connection.execute(
            text(
                "INSERT INTO attempts (broadcaster_id, recording_id, attempt, worker_id) "
                "VALUES (:broadcaster_id, :recording_id, :attempt, :worker_id)"
            ),
            {
                "broadcaster_id": row.broadcaster_id,
                "recording_id": row.id,
                "attempt": row.attempt,
                "worker_id": worker_id,
            },
        )
    return row


def store_split(connection: Connection, claim: Any, worker_id: int) -> None:
    held = connection.scalar(
        text(
            "SELECT 1 FROM recordings WHERE id = :id AND state = 'splitting' AND attempt = :attempt "
            "AND worker_id = :worker_id FOR NO KEY UPDATE"
        ),
        {"id": claim.id, "attempt": claim.attempt, "worker_id": worker_id},
    )
    assert held == 1, "somebody took a claim whose worker lives"
    connection.execute(
        text(
            "UPDATE recordings SET state = 'transcribing', worker_id = NULL, duration_samples = :duration, "
            "working_copy_key = :key, media_info = CAST(:info AS jsonb), updated_at = now() WHERE id = :id"
        ),
        {"id": claim.id, "duration": DURATION_SAMPLES, "key": f"{claim.id}/working-1.flac", "info": "{}"},
    )
    owner = {"broadcaster_id": claim.broadcaster_id, "recording_id": claim.id}
    transcript_id = connection.scalar(
        text(
            """
            INSERT INTO transcripts (broadcaster_id, recording_id, is_current, splitter_version,
                                     code_version, duration_samples)
            VALUES (:broadcaster_id, :recording_id,
                    NOT EXISTS (SELECT FROM transcripts WHERE recording_id = :recording_id AND is_current),
                    'energy-1', '0.1.0', :duration)
            RETURNING id
            """
        ),
        owner | {"duration": DURATION_SAMPLES},
    )
    connection.execute(
        text(
            """
            INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample,
                                  end_sample, priority)
            SELECT :broadcaster_id, :recording_id, :transcript_id, s.ordinal - 1, s.start_sample, s.end_sample,
                   (SELECT priority FROM recordings WHERE id = :recording_id)
            FROM unnest(CAST(:starts AS bigint[]), CAST(:ends AS bigint[]))
                 WITH ORDINALITY AS s(start_sample, end_sample, ordinal)
            """
        ),
        owner
        | {"transcript_id": transcript_id, "starts": [s for s, _ in SPANS], "ends": [e for _, e in SPANS]},
    )
    connection.execute(
        text(
            "INSERT INTO gaps (broadcaster_id, transcript_id, kind, start_sample, end_sample) "
            "VALUES (:broadcaster_id, :transcript_id, 'no_speech', :start, :end)"
        ),
        {
            "broadcaster_id": claim.broadcaster_id,
            "transcript_id": transcript_id,
            "start": SPANS[-1][1],
            "end": DURATION_SAMPLES,
        },
    )
    connection.execute(
        text(
            "UPDATE attempts SET outcome = 'done', finished_at = now() "
            "WHERE recording_id = :id AND segment_id IS NULL AND attempt = :attempt"
        ),
        {"id": claim.id, "attempt": claim.attempt},
    )


def claim_segments(connection: Connection, worker_id: int, model_id: int, limit: int) -> list[Any]:
    picked = connection.execute(
        text(
            """
            SELECT s.id, s.transcript_id FROM segments s JOIN transcripts t ON t.id = s.transcript_id
            WHERE s.state = 'pending' AND (t.model_id IS NULL OR t.model_id = :model_id) AND s.losses < 2
            ORDER BY s.priority, s.id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
            """
        ),
        {"model_id": model_id, "limit": limit},
    ).all()
    transcript_ids = sorted({row.transcript_id for row in picked})
    unbound = connection.scalars(
        text(
            "SELECT id FROM transcripts WHERE id = ANY(:ids) AND model_id IS NULL ORDER BY id FOR NO KEY UPDATE"
        ),
        {"ids": transcript_ids},
    ).all()
    connection.execute(
        text(
            "UPDATE transcripts SET model_id = :model_id, prompt = 'Transcribe.', decode_settings = '{}' "
            "WHERE id = ANY(:ids)"
        ),
        {"ids": list(unbound), "model_id": model_id},
    )
    return list(
        connection.execute(
            text(
                """
                WITH claimed AS (
                    UPDATE segments SET state = 'running', attempt = attempt + 1, worker_id = :worker_id
                    WHERE id = ANY(:ids)
                    RETURNING id, attempt, broadcaster_id, recording_id, start_sample, end_sample
                ), noted AS (
                    INSERT INTO attempts (broadcaster_id, recording_id, segment_id, attempt, worker_id)
                    SELECT broadcaster_id, recording_id, id, attempt, :worker_id FROM claimed
                )
                SELECT c.id, c.attempt, r.name FROM claimed c JOIN recordings r ON r.id = c.recording_id
                ORDER BY c.end_sample - c.start_sample, c.id
                """
            ),
            {"worker_id": worker_id, "ids": [row.id for row in picked]},
        )
    )


def store_results(connection: Connection, worker_id: int, claims: list[Any], said: str) -> None:
    payload = [
        {
            "id": claim.id,
            "attempt": claim.attempt,
            "text": f"{said} {claim.id}",
            "token_ids": [1, 2],
            "token_logprobs": [-0.5, -0.25],
            "mean_logprob": -0.375,
            "flags": [],
        }
        for claim in claims
    ]
    stored = connection.scalars(
        text(
            """
            WITH given AS (
                SELECT * FROM jsonb_to_recordset(CAST(:payload AS jsonb)) AS g(
                    id bigint, attempt int, text text, token_ids int[], token_logprobs real[],
                    mean_logprob real, flags text[])
            ), stored AS (
                UPDATE segments s
                SET state = 'done', worker_id = NULL, text = g.text, token_ids = g.token_ids,
                    token_logprobs = g.token_logprobs, mean_logprob = g.mean_logprob, flags = g.flags,
                    finished_at = now()
                FROM given g
                WHERE s.id = g.id AND s.attempt = g.attempt AND s.state = 'running' AND s.worker_id = :worker_id
                RETURNING s.id, s.attempt, s.recording_id, s.transcript_id
            ), noted AS (
                UPDATE attempts a SET outcome = 'done', finished_at = now()
                FROM stored s
                WHERE a.recording_id = s.recording_id AND a.segment_id = s.id AND a.attempt = s.attempt
            )
            SELECT transcript_id FROM stored
            """
        ),
        {"payload": json.dumps(payload), "worker_id": worker_id},
    ).all()
    assert len(stored) == len(claims), "somebody took a claim whose worker lives"
    finish(connection, sorted(set(stored)))


def finish(connection: Connection, transcript_ids: list[Any]) -> None:
    locked = connection.execute(
        text(
            "SELECT id, recording_id FROM transcripts WHERE id = ANY(:ids) AND finished_at IS NULL "
            "ORDER BY id FOR NO KEY UPDATE"
        ),
        {"ids": transcript_ids},
    ).all()
    still_open = set(
        connection.scalars(
            text(
                "SELECT t.id FROM unnest(CAST(:ids AS uuid[])) AS t(id) WHERE EXISTS (SELECT FROM segments s "
                "WHERE s.transcript_id = t.id AND s.state IN ('pending', 'running'))"
            ),
            {"ids": [row.id for row in locked]},
        )
    )
    for recording_id, transcript_id in sorted(
        (r.recording_id, r.id) for r in locked if r.id not in still_open
    ):
        connection.execute(
            text("UPDATE transcripts SET is_current = false WHERE recording_id = :id AND is_current"),
            {"id": recording_id},
        )
        connection.execute(
            text(
                """
                UPDATE transcripts t
                SET transcribed_samples = s.done, no_speech_samples = g.no_speech,
                    failed_samples = s.failed + g.failed, finished_at = now(), is_current = true
                FROM (SELECT coalesce(sum(end_sample - start_sample) FILTER (WHERE state = 'done'), 0) AS done,
                             coalesce(sum(end_sample - start_sample) FILTER (WHERE state = 'failed'), 0) AS failed
                      FROM segments WHERE transcript_id = :id) s,
                     (SELECT coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'no_speech'), 0)
                                 AS no_speech,
                             coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'failed'), 0) AS failed
                      FROM gaps WHERE transcript_id = :id) g
                WHERE t.id = :id
                """
            ),
            {"id": transcript_id},
        )
        row = connection.execute(
            text(
                "UPDATE recordings SET state = 'completed', updated_at = now(), finished_at = now() "
                "WHERE id = :id RETURNING broadcaster_id, batch_id, name"
            ),
            {"id": recording_id},
        ).one()
        connection.execute(
            text(
                "INSERT INTO events (broadcaster_id, batch_id, recording_id, kind, payload) "
                "VALUES (:broadcaster_id, :batch_id, :recording_id, 'recording.completed', '{}')"
            ),
            {"broadcaster_id": row.broadcaster_id, "batch_id": row.batch_id, "recording_id": recording_id},
        )


def work_once(engine: Engine, worker_id: int, model_id: int, said: str) -> int:
    """Split one waiting recording and transcribe up to five segments, in the released transactions; segments stored."""
    with transaction(engine) as tx:
        split = claim_recording(tx.connection, worker_id)
    if split is not None:
        with transaction(engine) as tx:
            store_split(tx.connection, split, worker_id)
    with transaction(engine) as tx:
        claims = claim_segments(tx.connection, worker_id, model_id, limit=5)
    with transaction(engine) as tx:
        store_results(tx.connection, worker_id, claims, said)
    return len(claims)
