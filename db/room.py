"""How much is on its way in: what the bounds on disks and queues are compared with. Each answer costs the same
however much waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.states import Priority, WorkQueue
from db.turns import Flow, stands_at

ROOM_LOCK = 0x464F4E4F_524F4F4D  # "FONOROOM"
"""Key of the advisory lock under which room is given away."""


@dataclass(frozen=True)
class Incoming:
    """Media that are announced as uploads, or wait to be split."""

    missing_bytes: int
    """Of all unfinished uploads: what is still to come."""
    longest_bytes: int
    """Of the longest unfinished upload: its file is stored before the gathered one is removed."""
    own_bytes: int
    """Of one broadcaster: its unfinished uploads and its recordings that wait to be split, whole."""


def lock_room(connection: Connection) -> None:
    """Have room given away by one transaction at a time: two must not both take the last of it."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ROOM_LOCK})


def incoming(connection: Connection, broadcaster_id: int) -> Incoming:
    """What is on its way, and how much of it is one broadcaster's."""
    row = connection.execute(
        text(
            """
            SELECT coalesce(sum(length_bytes - offset_bytes), 0) AS missing, coalesce(max(length_bytes), 0) AS longest,
                   coalesce(sum(length_bytes) FILTER (WHERE broadcaster_id = :id), 0)
                   + (SELECT coalesce(sum(size_bytes), 0) FROM recordings
                      WHERE state IN ('received', 'splitting') AND broadcaster_id = :id) AS own
            FROM uploads
            """
        ),
        {"id": broadcaster_id},
    ).one()
    return Incoming(int(row.missing), int(row.longest), int(row.own))


def deep_flows(connection: Connection, ahead_h: float) -> Sequence[Flow]:
    """Broadcasters and classes of which more than `ahead_h` hours of segments wait for a GPU.

    Told by turns (`db/turns.py`), which count samples: how far a broadcaster's next piece lies behind the one that is
    being served, times its weight. Nothing is summed up.
    """
    stands = {
        priority.rank: at
        for priority in Priority
        if (at := stands_at(connection, WorkQueue.TRANSCRIBE, priority.rank)) is not None
    }
    if not stands:
        return []
    rows = connection.execute(
        text(
            """
            SELECT t.broadcaster_id, t.priority FROM turns t JOIN broadcasters b ON b.id = t.broadcaster_id
            JOIN unnest(CAST(:ranks AS int[]), CAST(:stands AS bigint[])) AS s(rank, turn) ON s.rank = t.priority
            WHERE t.queue = 'transcribe' AND (t.next_turn - s.turn) * b.weight > :ahead_samples
            """
        ),
        {
            "ranks": list(stands),
            "stands": list(stands.values()),
            "ahead_samples": ahead_h * 3600 * SAMPLE_RATE_HZ,
        },
    )
    return [Flow(WorkQueue.TRANSCRIBE, row.broadcaster_id, row.priority) for row in rows]
