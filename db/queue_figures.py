"""What Prometheus is told of the queue. Read every few seconds, so nothing here grows with the segments that wait:
they are summed from the rows of their transcripts, a few thousand for a million segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from sqlalchemy import Connection, text

from db.control import paused_queues
from db.schema import SAMPLE_RATE_HZ
from db.segment_counts import COUNTS_SQL
from db.states import AttemptOutcome, Priority, WorkQueue
from db.throughput import Throughput, measure_throughput

RECENT_S = 600.0
RECENT_ATTEMPTS = 50_000
"""Attempts are looked at that began so recently, and the newest of them at most: a bounded piece of the table's end."""


@dataclass(frozen=True)
class Depth:
    """Work of one broadcaster in one class of a queue."""

    queue: WorkQueue
    broadcaster: str
    priority: Priority
    is_held: bool
    n_waiting: int
    """Recordings to be split, or segments to be transcribed."""
    size_bytes: int
    """Of those recordings."""
    audio_s: float
    """Of those segments, and of the ones that workers hold."""
    age_s: float
    """Since the oldest came: its recording was received, or split. 0 where nothing waits."""


@dataclass(frozen=True)
class Done:
    """Seconds of one broadcaster's finished current transcripts."""

    broadcaster: str
    transcribed_s: float
    no_speech_s: float
    failed_s: float


@dataclass(frozen=True)
class RecentAttempts:
    """Attempts that began in the last RECENT_S and ended alike."""

    queue: WorkQueue
    outcome: AttemptOutcome
    error_code: str | None
    n: int


@dataclass(frozen=True)
class LiveWorker:
    """A worker whose lease is not over, and what it counted since it registered."""

    id: int
    host: str
    role: str
    claims: int
    claim_s: float
    busy_s: float
    transcribed_s: float


@dataclass(frozen=True)
class QueueFigures:
    """All of them, of one moment."""

    depths: Sequence[Depth]
    attempts: Sequence[RecentAttempts]
    workers: Sequence[LiveWorker]
    paused: frozenset[WorkQueue]
    throughput: Throughput


def queue_figures(connection: Connection) -> QueueFigures:
    """What waits, who works, and what became of it lately."""
    return QueueFigures(
        depths=[
            *_depths(connection, WorkQueue.SPLIT, _RECORDINGS_SQL),
            *_depths(connection, WorkQueue.TRANSCRIBE, _SEGMENTS_SQL),
        ],
        attempts=_attempts(connection),
        workers=_workers(connection),
        paused=frozenset(paused_queues(connection)),
        throughput=measure_throughput(connection),
    )


_RECORDINGS_SQL: LiteralString = """
    SELECT o.name AS broadcaster, r.priority AS rank, r.hold IS NOT NULL AS is_held, count(*) AS n,
           sum(r.size_bytes) AS size_bytes, 0 AS samples, extract(epoch FROM now() - min(r.received_at)) AS age_s
    FROM broadcasters o JOIN recordings r ON r.broadcaster_id = o.id AND r.state = 'received'
    GROUP BY 1, 2, 3
"""

_SEGMENTS_SQL: LiteralString = f"""
    SELECT o.name AS broadcaster, r.priority AS rank, r.hold IS NOT NULL AS is_held, sum(n.pending) AS n,
           0 AS size_bytes,
           sum(t.duration_samples - n.transcribed_samples - n.no_speech_samples - n.failed_samples) AS samples,
           extract(epoch FROM now() - min(t.created_at) FILTER (WHERE n.pending > 0)) AS age_s
    FROM transcripts t
    JOIN recordings r ON r.id = t.recording_id AND r.state = 'transcribing'
    JOIN broadcasters o ON o.id = t.broadcaster_id
    CROSS JOIN LATERAL ({COUNTS_SQL}) n
    WHERE t.finished_at IS NULL
    GROUP BY 1, 2, 3
"""


def _depths(connection: Connection, queue: WorkQueue, sql: LiteralString) -> list[Depth]:
    classes = list(Priority)
    return [
        Depth(
            queue,
            row.broadcaster,
            classes[row.rank],
            row.is_held,
            int(row.n),
            int(row.size_bytes),
            int(row.samples) / SAMPLE_RATE_HZ,
            max(float(row.age_s or 0), 0.0),
        )
        for row in connection.execute(text(sql))
    ]


def done_by_broadcaster(connection: Connection) -> list[Done]:
    """What the archive holds. Reads every finished transcript's row: to be asked once a minute, not more."""
    rows = connection.execute(
        text(
            """
            SELECT o.name, coalesce(sum(t.transcribed_samples), 0) AS transcribed,
                   coalesce(sum(t.no_speech_samples), 0) AS no_speech, coalesce(sum(t.failed_samples), 0) AS failed
            FROM broadcasters o
            LEFT JOIN transcripts t ON t.broadcaster_id = o.id AND t.is_current AND t.finished_at IS NOT NULL
            GROUP BY o.name
            """
        )
    )
    return [
        Done(row.name, *(int(n) / SAMPLE_RATE_HZ for n in (row.transcribed, row.no_speech, row.failed)))
        for row in rows
    ]


def _attempts(connection: Connection) -> list[RecentAttempts]:
    rows = connection.execute(
        text(
            """
            SELECT CASE WHEN segment_id IS NULL THEN 'split' ELSE 'transcribe' END AS queue, outcome, error_code,
                   count(*) AS n
            FROM (SELECT * FROM attempts ORDER BY id DESC LIMIT :most) a
            WHERE started_at > now() - make_interval(secs => :recent_s)
            GROUP BY 1, 2, 3
            """
        ),
        {"most": RECENT_ATTEMPTS, "recent_s": RECENT_S},
    )
    return [
        RecentAttempts(WorkQueue(row.queue), AttemptOutcome(row.outcome), row.error_code, row.n)
        for row in rows
    ]


def _workers(connection: Connection) -> list[LiveWorker]:
    rows = connection.execute(
        text(
            """
            SELECT id, host, role, claims, claim_s, busy_s, transcribed_samples FROM workers
            WHERE stopped_at IS NULL AND lease_until > now() ORDER BY id
            """
        )
    )
    return [
        LiveWorker(
            row.id,
            row.host,
            row.role,
            row.claims,
            row.claim_s,
            row.busy_s,
            row.transcribed_samples / SAMPLE_RATE_HZ,
        )
        for row in rows
    ]
