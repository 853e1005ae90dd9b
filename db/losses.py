"""What dead workers held goes back to the queue, and what kills its workers is found out.

That a worker died says little about any one thing that it held: it may have been killed, or its host. So a segment is
believed guilty by and by. Twice it may die in company; from then on it is run alone. When its worker dies the third
time, it fails with that reason, unless something else explains the death:

* The database server was started anew after the claim. All sessions ended, and no worker need have died: that does not
  count at all.
* Workers that never held the segment died at about the same time: somebody, or a lack of memory, kills them whatever
  they do. Then it gets further chances, up to GIVE_UP_AFTER_LOSSES, each a while later.

A recording in splitting is always alone in its process, and is judged likewise.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from db.finishing import fail_recordings, finish_transcripts
from db.liveness import DEAD_WORKERS_SQL
from db.work import Swept

ISOLATE_AFTER_LOSSES = 2
"""A segment whose worker died so often is claimed alone from then on: if it kills again, it kills only itself."""

FAIL_AFTER_LOSSES = 3
"""It fails when its worker dies so often, and nothing else explains the last time."""

GIVE_UP_AFTER_LOSSES = 6
"""It fails whatever explains the last time."""

SAME_TIME_S = 60.0
"""Deaths so close to each other may have one cause."""

PAUSE_S = 5.0
"""Before the first of the further chances; before each other one twice as long."""

# Which of the dead claims in `dead` (id, recording_id, segment_id, attempt, worker_id, losses) count, and condemn. A
# worker that died has a lease that was good not long ago.
_JUDGED_SQL = f"""
    judged AS (
        SELECT d.id, d.losses + c.counts::int AS losses,
               c.counts AND (d.losses + 1 >= :give_up_after OR d.losses + 1 >= :fail_after AND NOT EXISTS (
                   SELECT FROM workers o
                   WHERE o.stopped_at IS NULL AND o.lease_until > now() - make_interval(secs => :same_time_s)
                     AND o.id IN ({DEAD_WORKERS_SQL})
                     AND o.id NOT IN (
                         SELECT m.worker_id FROM attempts m
                         WHERE m.recording_id = d.recording_id AND m.segment_id IS NOT DISTINCT FROM d.segment_id)
               )) AS condemned
        FROM dead d
        CROSS JOIN LATERAL (
            SELECT NOT coalesce(bool_or(m.started_at < pg_postmaster_start_time()), false) AS counts
            FROM attempts m
            WHERE m.recording_id = d.recording_id AND m.segment_id IS NOT DISTINCT FROM d.segment_id
              AND m.attempt = d.attempt) AS c
    )
"""

_SEGMENTS_SQL = """
    WITH dead AS (
        SELECT id, recording_id, id AS segment_id, attempt, worker_id, losses FROM segments
        WHERE state = 'running' AND worker_id IN ({workers})
        FOR UPDATE SKIP LOCKED
    ), {judged}, taken AS (
        UPDATE segments s
        SET losses = j.losses, worker_id = NULL,
            retry_at = CASE WHEN j.losses >= :fail_after
                THEN now() + make_interval(secs => :pause_s * power(2, j.losses - :fail_after)) END,
            state = CASE WHEN j.condemned THEN 'failed' ELSE 'pending' END,
            failure_code = CASE WHEN j.condemned THEN 'worker_died' ELSE s.failure_code END,
            failure_reason = CASE WHEN j.condemned
                THEN format('its worker died %s times while transcribing it, the last time with nothing else in hand',
                            j.losses)
                ELSE s.failure_reason END,
            finished_at = CASE WHEN j.condemned THEN now() END
        FROM judged j WHERE s.id = j.id
        RETURNING s.id, s.attempt, s.recording_id, s.transcript_id, s.state
    ), noted AS (
        UPDATE attempts a SET outcome = 'lost', finished_at = now()
        FROM taken t
        WHERE a.recording_id = t.recording_id AND a.segment_id = t.id AND a.attempt = t.attempt
    )
    SELECT transcript_id, state FROM taken
"""

_RECORDINGS_SQL = """
    WITH dead AS (
        SELECT id, id AS recording_id, CAST(NULL AS bigint) AS segment_id, attempt, worker_id, losses FROM recordings
        WHERE state = 'splitting' AND worker_id IN ({workers})
        FOR UPDATE SKIP LOCKED
    ), {judged}, taken AS (
        UPDATE recordings r
        SET losses = j.losses, worker_id = NULL, state = 'received', updated_at = now(),
            retry_at = CASE WHEN j.losses >= :fail_after
                THEN now() + make_interval(secs => :pause_s * power(2, j.losses - :fail_after)) END
        FROM judged j WHERE r.id = j.id
        RETURNING r.id, r.attempt, j.condemned
    ), noted AS (
        UPDATE attempts a SET outcome = 'lost', finished_at = now()
        FROM taken t WHERE a.recording_id = t.id AND a.segment_id IS NULL AND a.attempt = t.attempt
    )
    SELECT id, condemned FROM taken
"""


def take_back_dead_claims(connection: Connection) -> Swept:
    """Return the claims of dead workers to the queue. Safe to run twice at once: SKIP LOCKED shares them out."""
    return _take_back(connection, DEAD_WORKERS_SQL, {})


def lose_claims(connection: Connection, worker_id: int) -> Swept:
    """Return the claims of one worker whose work broke off, as if it had died over them."""
    return _take_back(connection, "SELECT :worker_id", {"worker_id": worker_id})


def _take_back(connection: Connection, workers_sql: str, parameters: dict[str, Any]) -> Swept:
    """Return the claims of the workers that `workers_sql` selects, but for those that are condemned."""
    parameters = parameters | {
        "fail_after": FAIL_AFTER_LOSSES,
        "give_up_after": GIVE_UP_AFTER_LOSSES,
        "same_time_s": SAME_TIME_S,
        "pause_s": PAUSE_S,
    }
    segments = connection.execute(
        text(_SEGMENTS_SQL.format(workers=workers_sql, judged=_JUDGED_SQL)), parameters
    ).all()
    failed = [row.transcript_id for row in segments if row.state == "failed"]
    finish_transcripts(connection, set(failed))
    recordings = connection.execute(
        text(_RECORDINGS_SQL.format(workers=workers_sql, judged=_JUDGED_SQL)), parameters
    ).all()
    hopeless = [row.id for row in recordings if row.condemned]
    if hopeless:
        fail_recordings(
            connection,
            hopeless,
            "worker_died",
            f"reading it broke off {FAIL_AFTER_LOSSES} times: its worker died, or took longer than "
            "FONOTECA_CLAIM_LIMIT_S. If the file makes the decoder crash, convert it with another tool and submit "
            "it again",
        )
    return Swept(len(segments) - len(failed), len(failed), len(recordings) - len(hopeless), len(hopeless))
