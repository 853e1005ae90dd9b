"""What was tried with a recording, by whom, and how it ended."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.states import AttemptOutcome


@dataclass(frozen=True)
class Attempt:
    """One try at splitting a recording, or at transcribing one of its segments."""

    id: int
    segment_index: int | None
    """Of its transcript; None: the recording was split."""
    start_s: float | None
    end_s: float | None
    number: int
    """Counted from 1 for each recording and each segment; one that was given back counts too."""
    worker_id: int
    host: str
    outcome: AttemptOutcome
    error_code: str | None
    error_message: str | None
    started_at: dt.datetime
    finished_at: dt.datetime | None


def list_attempts(
    connection: Connection,
    broadcaster_id: int,
    recording_id: uuid.UUID,
    *,
    limit: int,
    after: int | None = None,
    outcomes: frozenset[AttemptOutcome] = frozenset(AttemptOutcome),
) -> list[Attempt]:
    """Attempts of a recording in the order in which they began, those behind the id `after`."""
    rows = connection.execute(
        text(
            """
            SELECT a.id, s.index AS segment_index, s.start_sample, s.end_sample, a.attempt, a.worker_id, w.host,
                   a.outcome, a.error_code, a.error_message, a.started_at, a.finished_at
            FROM attempts a
            LEFT JOIN segments s ON s.id = a.segment_id
            JOIN workers w ON w.id = a.worker_id
            WHERE a.recording_id = :recording_id AND a.broadcaster_id = :broadcaster_id AND a.id > :after
              AND a.outcome = ANY(:outcomes)
            ORDER BY a.id LIMIT :limit
            """
        ),
        {
            "recording_id": recording_id,
            "broadcaster_id": broadcaster_id,
            "after": after or 0,
            "outcomes": sorted(outcomes),
            "limit": limit,
        },
    )
    return [
        Attempt(
            id=row.id,
            segment_index=row.segment_index,
            start_s=None if row.start_sample is None else round(row.start_sample / SAMPLE_RATE_HZ, 3),
            end_s=None if row.end_sample is None else round(row.end_sample / SAMPLE_RATE_HZ, 3),
            number=row.attempt,
            worker_id=row.worker_id,
            host=row.host,
            outcome=AttemptOutcome(row.outcome),
            error_code=row.error_code,
            error_message=row.error_message,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )
        for row in rows
    ]
