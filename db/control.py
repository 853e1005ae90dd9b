"""What people tell the queue: pause and go on, cancel, try again.

Each takes effect with its commit: claims leave alone what a recording's `hold` or state says. What is under way is
finished and stored. Segments that wait are moved out of the claimers' way, and back, in steps (`move_held`): a batch
may have millions, and those at the head of the queue would be looked at by every claim.

Nothing here sends a message: callers do that after the commit.
"""

from __future__ import annotations

import itertools
import operator
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.events import add_events
from db.finishing import finish_transcripts
from db.states import WorkQueue
from db.turns import HELD_BACK, Flow, forget_turns, take_turns

MOVED_AT_ONCE = 200
"""Recordings whose segments one call of `move_held` moves: a second or two where each has hundreds."""


@dataclass(frozen=True)
class Target:
    """What is paused, cancelled or tried again: a batch, one recording, or all of a broadcaster."""

    broadcaster_id: int
    batch_id: uuid.UUID | None = None
    recording_id: uuid.UUID | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return {
            "broadcaster_id": self.broadcaster_id,
            "batch_id": self.batch_id,
            "recording_id": self.recording_id,
        }


_OF_TARGET = """
    r.broadcaster_id = :broadcaster_id
    AND (CAST(:batch_id AS uuid) IS NULL OR r.batch_id = :batch_id)
    AND (CAST(:recording_id AS uuid) IS NULL OR r.id = :recording_id)
"""


@dataclass(frozen=True)
class Retried:
    """What `retry` put back."""

    awaiting_media: int = 0
    """Recordings that have no media: they are to be sent again."""
    split_again: int = 0
    """Recordings that are read anew."""
    transcribed_again: int = 0
    """Recordings whose failed segments, or all that were not transcribed when they were cancelled, are tried again."""


# --- pausing ---------------------------------------------------------------------------------------------


def pause_queue(connection: Connection, queue: WorkQueue) -> None:
    """Claim nothing of a queue, of nobody, until `resume_queue`."""
    connection.execute(
        text("INSERT INTO paused_queues (queue) VALUES (:queue) ON CONFLICT DO NOTHING"),
        {"queue": queue.value},
    )


def resume_queue(connection: Connection, queue: WorkQueue) -> None:
    """Claim again. Callers send the queue's wake-up."""
    connection.execute(text("DELETE FROM paused_queues WHERE queue = :queue"), {"queue": queue.value})


def paused_queues(connection: Connection) -> list[WorkQueue]:
    """Those of which nothing is claimed."""
    return [
        WorkQueue(name) for name in connection.scalars(text("SELECT queue FROM paused_queues ORDER BY queue"))
    ]


def pause(connection: Connection, target: Target) -> bool:
    """Begin no more work of a batch, or of a broadcaster: what is under way is finished.

    Returns:
        False when there is no such batch or broadcaster.
    """
    if not _set_paused(connection, target, "coalesce(paused_at, now())"):
        return False
    connection.execute(
        text(
            f"""
            UPDATE recordings r SET hold = CASE WHEN r.hold = 'releasing' THEN 'held' ELSE 'asked' END
            WHERE {_OF_TARGET} AND r.state IN ('awaiting_media', 'received', 'splitting', 'transcribing')
              AND (r.hold IS NULL OR r.hold = 'releasing')
            """
        ),
        target.parameters,
    )
    return True


def resume(connection: Connection, target: Target) -> bool:
    """Begin a paused batch's or broadcaster's work again; what the other of the two still holds back stays so.

    Returns:
        False when there is no such batch or broadcaster.
    """
    if not _set_paused(connection, target, "NULL"):
        return False
    connection.execute(
        text(
            f"""
            UPDATE recordings r
            SET hold = CASE WHEN r.hold = 'held' AND r.state = 'transcribing' THEN 'releasing' END
            FROM batches b, broadcasters o
            WHERE {_OF_TARGET} AND r.hold IN ('asked', 'held') AND r.state <> 'cancelled'
              AND b.id = r.batch_id AND b.paused_at IS NULL AND o.id = r.broadcaster_id AND o.paused_at IS NULL
            """
        ),
        target.parameters,
    )
    return True


def _set_paused(connection: Connection, target: Target, paused_at: str) -> bool:
    if target.recording_id is not None:
        raise ValueError("a batch or a broadcaster is paused, not one recording")
    table, condition = (
        ("broadcasters", "id = :broadcaster_id")
        if target.batch_id is None
        else ("batches", "id = :batch_id AND broadcaster_id = :broadcaster_id")
    )
    changed = connection.execute(
        text(f"UPDATE {table} SET paused_at = {paused_at} WHERE {condition}"), target.parameters
    )
    return changed.rowcount == 1


def move_held(connection: Connection, *, limit: int = MOVED_AT_ONCE) -> int:
    """Move the waiting segments of up to `limit` recordings out of the claimers' way, or back.

    Back in the queue they get new turns: what was paused for a week is not served for a week before all others. Safe
    run twice at once.

    Returns:
        How many recordings were seen to; 0 when nothing is left to be moved.
    """
    moving = connection.execute(
        text(
            "SELECT id, broadcaster_id, hold, priority, state FROM recordings WHERE hold IN ('asked', 'releasing') "
            "ORDER BY id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED"
        ),
        {"limit": limit},
    ).all()
    asked = [row.id for row in moving if row.hold == "asked"]
    if asked:
        connection.execute(
            text(
                f"UPDATE segments SET priority = priority + {HELD_BACK} "
                f"WHERE recording_id = ANY(:ids) AND state = 'pending' AND priority < {HELD_BACK}"
            ),
            {"ids": asked},
        )
        connection.execute(text("UPDATE recordings SET hold = 'held' WHERE id = ANY(:ids)"), {"ids": asked})
        # looks at all that waits of the class: once, when the last of them is moved
        if not connection.scalar(text("SELECT EXISTS (SELECT FROM recordings WHERE hold = 'asked')")):
            for flow, _ in by_flow(WorkQueue.TRANSCRIBE, moving):
                forget_turns(connection, flow)
    releasing = [row for row in moving if row.hold == "releasing"]
    for flow, rows in by_flow(WorkQueue.TRANSCRIBE, releasing):
        ids = [row.id for row in rows]
        _enter_queue(connection, flow, f"s.recording_id = ANY(:ids) AND s.priority >= {HELD_BACK}", ids)
        connection.execute(text("UPDATE recordings SET hold = NULL WHERE id = ANY(:ids)"), {"ids": ids})
    return len(moving)


def by_flow(queue: WorkQueue, rows: Sequence[Any]) -> Iterator[tuple[Flow, list[Any]]]:
    """Rows of recordings by broadcaster and class, each in the order of their ids."""
    key = operator.attrgetter("broadcaster_id", "priority")
    for (broadcaster_id, rank), group in itertools.groupby(sorted(rows, key=lambda r: (key(r), r.id)), key):
        yield Flow(queue, broadcaster_id, rank), list(group)


def _enter_queue(connection: Connection, flow: Flow, condition: str, ids: Sequence[uuid.UUID]) -> None:
    """Have the pending segments of which `condition` on `ids` holds be claimed, with turns of now."""
    found = connection.execute(
        text(
            f"SELECT s.id, s.end_sample - s.start_sample AS length FROM segments s "
            f"WHERE s.state = 'pending' AND {condition} ORDER BY s.recording_id, s.index FOR UPDATE OF s"
        ),
        {"ids": list(ids)},
    ).all()
    if not found:
        return
    connection.execute(
        text(
            """
            UPDATE segments s SET priority = :rank, turn = g.turn
            FROM unnest(CAST(:ids AS bigint[]), CAST(:turns AS bigint[])) AS g (id, turn)
            WHERE s.id = g.id
            """
        ),
        {
            "rank": flow.rank,
            "ids": [row.id for row in found],
            "turns": take_turns(connection, flow, [row.length for row in found]),
        },
    )


# --- cancelling and trying again ------------------------------------------------------------------------


def cancel(connection: Connection, target: Target) -> list[uuid.UUID]:
    """Stop all unfinished recordings of a target. What is under way is finished, and kept should it be tried again.

    Returns:
        The recordings that were stopped.
    """
    rows = connection.execute(
        text(
            f"""
            UPDATE recordings r
            SET state = 'cancelled', worker_id = NULL, failure_code = 'cancelled',
                failure_reason = 'stopped on request', finished_at = now(), updated_at = now(),
                hold = CASE WHEN r.state = 'transcribing' AND r.hold IS DISTINCT FROM 'held' THEN 'asked'
                            ELSE r.hold END
            WHERE {_OF_TARGET} AND r.state IN ('awaiting_media', 'received', 'splitting', 'transcribing')
            RETURNING r.id, r.batch_id, r.broadcaster_id, r.name
            """
        ),
        target.parameters,
    ).all()
    connection.execute(
        text("DELETE FROM uploads WHERE recording_id = ANY(:ids)"), {"ids": [row.id for row in rows]}
    )
    connection.execute(
        text(
            "UPDATE attempts SET outcome = 'returned', finished_at = now() "
            "WHERE recording_id = ANY(:ids) AND segment_id IS NULL AND outcome = 'running'"
        ),
        {"ids": [row.id for row in rows]},
    )
    add_events(
        connection,
        [
            (row.broadcaster_id, row.batch_id, row.id, "recording.cancelled", {"name": row.name})
            for row in rows
        ],
    )
    return [row.id for row in rows]


def retry(connection: Connection, target: Target) -> Retried:
    """Try again what failed or was cancelled: the failed segments alone, where there are any.

    A recording that failed before it had segments is read anew, as is one of which only seconds are missing that could
    not be decoded, and one whose working copy expired; one without media awaits them again. What was transcribed stays.
    Counts of failures begin anew.
    """
    rows = connection.execute(
        text(
            f"""
            SELECT r.id, r.broadcaster_id, r.batch_id, r.name, r.priority, r.state, r.media_key, r.size_bytes, r.hold,
                   r.working_copy_key IS NOT NULL AS has_copy,
                   b.paused_at IS NOT NULL OR o.paused_at IS NOT NULL AS is_paused,
                   t.id AS transcript_id, t.finished_at IS NULL AS is_open,
                   EXISTS (SELECT FROM segments s WHERE s.transcript_id = t.id AND s.state = 'failed') AS has_failed
            FROM recordings r
            JOIN batches b ON b.id = r.batch_id JOIN broadcasters o ON o.id = r.broadcaster_id
            LEFT JOIN LATERAL (SELECT t.id, t.finished_at FROM transcripts t WHERE t.recording_id = r.id
                               ORDER BY t.created_at DESC, t.id DESC LIMIT 1) t ON true
            WHERE {_OF_TARGET} AND r.state IN ('failed', 'partial', 'cancelled')
            ORDER BY r.id FOR NO KEY UPDATE OF r
            """
        ),
        target.parameters,
    ).all()
    awaiting = [row for row in rows if row.media_key is None]
    again = [
        row
        for row in rows
        if row.media_key is not None
        and row.transcript_id
        and ((row.has_failed and row.has_copy) or row.is_open)
    ]
    done = {row.id for row in [*awaiting, *again]}
    anew = [row for row in rows if row.id not in done]
    _await_media(connection, awaiting)
    for flow, group in by_flow(WorkQueue.SPLIT, anew):
        _split_again(connection, flow, group)
    for flow, group in by_flow(WorkQueue.TRANSCRIBE, again):
        _transcribe_again(connection, flow, group)
    # those of which nothing was left to do
    finish_transcripts(connection, [row.transcript_id for row in again])
    add_events(
        connection,
        [(row.broadcaster_id, row.batch_id, row.id, "recording.retried", {"name": row.name}) for row in rows],
    )
    return Retried(len(awaiting), len(anew), len(again))


_BEGIN_ANEW = "failure_code = NULL, failure_reason = NULL, finished_at = NULL, updated_at = now()"


def _await_media(connection: Connection, rows: Sequence[Any]) -> None:
    connection.execute(
        text(f"UPDATE recordings SET state = 'awaiting_media', {_BEGIN_ANEW} WHERE id = ANY(:ids)"),
        {"ids": [row.id for row in rows]},
    )


def _split_again(connection: Connection, flow: Flow, rows: Sequence[Any]) -> None:
    connection.execute(
        text(
            f"""
            UPDATE recordings r SET state = 'received', failures = 0, losses = 0, retry_at = NULL, turn = g.turn,
                   hold = CASE WHEN g.is_paused THEN 'asked' END, {_BEGIN_ANEW}
            FROM unnest(CAST(:ids AS uuid[]), CAST(:turns AS bigint[]), CAST(:paused AS boolean[]))
                 AS g (id, turn, is_paused)
            WHERE r.id = g.id
            """
        ),
        {
            "ids": [row.id for row in rows],
            "turns": take_turns(connection, flow, [row.size_bytes for row in rows]),
            "paused": [row.is_paused for row in rows],
        },
    )


def _transcribe_again(connection: Connection, flow: Flow, rows: Sequence[Any]) -> None:
    """Put what is missing of recordings into the queue; of paused ones it is held back at once."""
    transcripts = [row.transcript_id for row in rows]
    connection.execute(
        text(
            "UPDATE transcripts SET finished_at = NULL, transcribed_samples = NULL, no_speech_samples = NULL, "
            "failed_samples = NULL, done_segments = NULL, failed_segments = NULL WHERE id = ANY(:ids)"
        ),
        {"ids": transcripts},
    )
    connection.execute(
        text(
            "UPDATE segments SET state = 'pending', failures = 0, losses = 0, retry_at = NULL, failure_code = NULL, "
            "failure_reason = NULL, finished_at = NULL WHERE transcript_id = ANY(:ids) AND state = 'failed'"
        ),
        {"ids": transcripts},
    )
    _enter_queue(connection, flow, "s.transcript_id = ANY(:ids)", transcripts)
    connection.execute(
        text(
            f"""
            UPDATE recordings r SET state = 'transcribing', hold = CASE WHEN g.is_paused THEN 'asked' END, {_BEGIN_ANEW}
            FROM unnest(CAST(:ids AS uuid[]), CAST(:paused AS boolean[])) AS g (id, is_paused)
            WHERE r.id = g.id
            """
        ),
        {"ids": [row.id for row in rows], "paused": [row.is_paused for row in rows]},
    )
