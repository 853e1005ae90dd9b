"""Finishing transcripts and their recordings, in the transaction that stored their last segment.

Keeps the queue's lock order (`db/queue.py`): all transcripts in order of id, then recordings in order of id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, text

from db.events import add_events
from db.schema import SAMPLE_RATE_HZ


def finish_transcripts(connection: Connection, transcript_ids: Iterable[uuid.UUID]) -> list[uuid.UUID]:
    """Finish those of the given transcripts that have no open segment left; return their recordings.

    Coverage is summed from the segments and gaps themselves, and a constraint refuses a finished transcript
    whose sums do not make its duration. The recording becomes `completed` only with 0 failed samples.
    """
    # Two workers may store the last two segments at once: the lock makes the second see the first's.
    locked = connection.execute(
        text(
            "SELECT t.id, t.recording_id FROM transcripts t JOIN recordings r ON r.id = t.recording_id "
            # a cancelled one stays as it is until it is tried again
            "WHERE t.id = ANY(:ids) AND t.finished_at IS NULL AND r.state <> 'cancelled' "
            "ORDER BY t.id FOR NO KEY UPDATE OF t"
        ),
        {"ids": list(transcript_ids)},
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
    finished = sorted((row.recording_id, row.id) for row in locked if row.id not in still_open)
    for recording_id, transcript_id in finished:
        _finish_recording(connection, recording_id, _sum_up(connection, recording_id, transcript_id))
    return [recording_id for recording_id, _ in finished]


def _sum_up(connection: Connection, recording_id: uuid.UUID, transcript_id: uuid.UUID) -> Any:
    """Sum a transcript's segments and seconds by kind and make it the current one; the row of sums.

    Readers trust the sums from then on (`db/segment_counts.py`): who opens a segment again must take back
    `finished_at` as well.
    """
    connection.execute(
        text(
            "UPDATE transcripts SET is_current = false "
            "WHERE recording_id = :id AND is_current AND id <> :transcript_id"
        ),
        {"id": recording_id, "transcript_id": transcript_id},
    )
    return connection.execute(
        text(
            """
            UPDATE transcripts t
            SET transcribed_samples = s.done, no_speech_samples = g.no_speech,
                failed_samples = s.failed + g.failed, done_segments = s.n_done, failed_segments = s.n_failed,
                finished_at = now(), is_current = true
            FROM (SELECT count(*) AS segments,
                         count(*) FILTER (WHERE state = 'done') AS n_done,
                         count(*) FILTER (WHERE state = 'failed') AS n_failed,
                         coalesce(sum(end_sample - start_sample) FILTER (WHERE state = 'done'), 0) AS done,
                         coalesce(sum(end_sample - start_sample) FILTER (WHERE state = 'failed'), 0) AS failed
                  FROM segments WHERE transcript_id = :id) s,
                 (SELECT coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'no_speech'), 0)
                             AS no_speech,
                         coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'failed'), 0) AS failed
                  FROM gaps WHERE transcript_id = :id) g
            WHERE t.id = :id
            RETURNING t.id AS transcript_id, s.segments, t.transcribed_samples, t.no_speech_samples,
                      t.failed_samples, t.duration_samples
            """
        ),
        {"id": transcript_id},
    ).one()


def _verdict(sums: Any) -> tuple[str, str | None, str | None]:
    """State, code and reason of a recording whose transcript has these sums."""
    something_known = sums.transcribed_samples > 0 or (sums.segments == 0 and sums.no_speech_samples > 0)
    if sums.failed_samples > 0 and something_known:
        failed_s = sums.failed_samples / SAMPLE_RATE_HZ
        return (
            "partial",
            "seconds_failed",
            f"{failed_s:.2f} s could not be transcribed; the coverage lists them",
        )
    if sums.failed_samples > 0:
        return (
            "failed",
            "nothing_transcribed",
            "no second of it could be transcribed: its coverage lists the reasons",
        )
    return "completed", None, None


def _finish_recording(connection: Connection, recording_id: uuid.UUID, sums: Any) -> None:
    state, code, reason = _verdict(sums)
    row = connection.execute(
        text(
            """
            UPDATE recordings SET state = :state, failure_code = :code, failure_reason = :reason,
                   updated_at = now(), finished_at = now()
            WHERE id = :id AND state <> 'cancelled' RETURNING broadcaster_id, batch_id, name
            """
        ),
        {"id": recording_id, "state": state, "code": code, "reason": reason},
    ).one_or_none()
    if row is None:
        return  # cancelled just now: its transcript is there when it is tried again
    payload = {
        "name": row.name,
        "transcript_id": str(sums.transcript_id),
        "transcribed_samples": int(sums.transcribed_samples),
        "no_speech_samples": int(sums.no_speech_samples),
        "failed_samples": int(sums.failed_samples),
        "duration_samples": int(sums.duration_samples),
    }
    add_events(connection, [(row.broadcaster_id, row.batch_id, recording_id, f"recording.{state}", payload)])


def keep_transcript(connection: Connection, recording_id: uuid.UUID, code: str, reason: str) -> bool:
    """Put a recording that could not be read anew back to where its finished transcript left it.

    Why it could not be read is in its attempts and in an event. False where it has no finished transcript: nothing was
    changed.
    """
    sums = connection.execute(
        text(
            "SELECT transcribed_samples, no_speech_samples, failed_samples, finished_at, "
            "(SELECT count(*) FROM segments s WHERE s.transcript_id = t.id) AS segments "
            "FROM transcripts t WHERE recording_id = :id AND is_current AND finished_at IS NOT NULL"
        ),
        {"id": recording_id},
    ).one_or_none()
    if sums is None:
        return False
    state, old_code, old_reason = _verdict(sums)
    # by way of `transcribing`: no other state leads to all that a recording can be finished as
    connection.execute(
        text("UPDATE recordings SET state = 'transcribing', worker_id = NULL WHERE id = :id"),
        {"id": recording_id},
    )
    row = connection.execute(
        text(
            "UPDATE recordings SET state = :state, failure_code = :code, failure_reason = :reason, updated_at = now(), "
            "finished_at = :finished_at WHERE id = :id RETURNING broadcaster_id, batch_id, name"
        ),
        {
            "id": recording_id,
            "state": state,
            "code": old_code,
            "reason": old_reason,
            "finished_at": sums.finished_at,
        },
    ).one()
    payload = {"name": row.name, "code": code, "reason": reason}
    add_events(
        connection, [(row.broadcaster_id, row.batch_id, recording_id, "recording.not_read_anew", payload)]
    )
    return True


def fail_recordings(
    connection: Connection, recording_ids: Sequence[uuid.UUID], code: str, reason: str
) -> None:
    """Mark recordings failed, with the reason a person reads, and write their events."""
    rows = connection.execute(
        text(
            """
            UPDATE recordings SET state = 'failed', worker_id = NULL, failure_code = :code,
                   failure_reason = :reason, updated_at = now(), finished_at = now()
            WHERE id = ANY(:ids) RETURNING id, batch_id, broadcaster_id, name
            """
        ),
        {"ids": list(recording_ids), "code": code, "reason": reason},
    ).all()
    add_events(
        connection,
        [
            (row.broadcaster_id, row.batch_id, row.id, "recording.failed", {"name": row.name, "code": code})
            for row in rows
        ],
    )
