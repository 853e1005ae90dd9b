"""What waits, for an operator: by broadcaster and class. Reads every row that waits: half a second for a million."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.states import Priority
from db.turns import HELD_BACK


@dataclass(frozen=True)
class WaitingWork:
    """Work of one broadcaster in one class."""

    broadcaster: str
    weight: float
    is_paused: bool
    """The broadcaster, as a whole."""
    priority: Priority
    recordings: int
    """Received, to be split."""
    segments: int
    """To be transcribed."""
    audio_s: float
    """Of those segments."""
    held_segments: int
    """Paused or cancelled, besides those."""


def list_waiting(connection: Connection) -> list[WaitingWork]:
    """What waits, most urgent first, then by broadcaster. A paused broadcaster stands in it though nothing waits."""
    rows = connection.execute(
        text(
            f"""
            WITH s AS (
                SELECT broadcaster_id, priority % {HELD_BACK} AS rank,
                       count(*) FILTER (WHERE priority < {HELD_BACK}) AS segments,
                       coalesce(sum(end_sample - start_sample) FILTER (WHERE priority < {HELD_BACK}), 0) AS samples,
                       count(*) FILTER (WHERE priority >= {HELD_BACK}) AS held
                FROM segments WHERE state = 'pending' GROUP BY 1, 2
            ), r AS (
                SELECT broadcaster_id, priority AS rank, count(*) AS recordings
                FROM recordings WHERE state = 'received' AND hold IS NULL GROUP BY 1, 2
            )
            SELECT o.name, o.weight, o.paused_at IS NOT NULL AS is_paused, coalesce(s.rank, r.rank, 1) AS rank,
                   coalesce(r.recordings, 0) AS recordings, coalesce(s.segments, 0) AS segments,
                   coalesce(s.samples, 0) AS samples, coalesce(s.held, 0) AS held
            FROM broadcasters o
            LEFT JOIN (s FULL JOIN r USING (broadcaster_id, rank)) ON broadcaster_id = o.id
            WHERE broadcaster_id IS NOT NULL OR o.paused_at IS NOT NULL
            ORDER BY rank, o.name
            """
        )
    )
    classes = list(Priority)
    return [
        WaitingWork(
            row.name,
            row.weight,
            row.is_paused,
            classes[row.rank],
            row.recordings,
            row.segments,
            int(row.samples) / SAMPLE_RATE_HZ,
            row.held,
        )
        for row in rows
    ]
