"""How fast audio becomes text just now, and from that, when a batch will be done.

What stands before a batch is read off turns (`db/turns.py`), not counted: a broadcaster whose work waits has its turns
run on by the work's length over its weight, so that between the turn being served and another one lies the difference
times the weight. Nothing here grows with the number of segments that wait.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.batches import Batch
from db.control import paused_queues
from db.schema import SAMPLE_RATE_HZ
from db.states import NoEta, RecordingState, WorkQueue

WINDOW_S = 600.0
"""Throughput is measured over so long: texts are stored in bursts, and a minute is often one burst or none."""

LEAST_SPAN_S = 60.0
"""Workers that began a moment ago are judged as if it were so long: the first burst alone would promise too much."""


@dataclass(frozen=True)
class Throughput:
    """Of all workers together."""

    audio_s: float
    """Of segments whose text was stored in the window."""
    span_s: float
    """Wall time: the window, or since the first of them where nothing was stored before it."""

    @property
    def rtfx(self) -> float:
        """Seconds of audio transcribed per second of wall time."""
        return self.audio_s / self.span_s


def measure_throughput(connection: Connection) -> Throughput:
    """What was transcribed in the last WINDOW_S. Read off ix_segments_finished_at."""
    # nearly all of the column may be NULL, of which the planner concludes that the index would not help
    connection.execute(text("SET LOCAL enable_seqscan = off"))
    row = connection.execute(
        text(
            """
            SELECT coalesce(sum(end_sample - start_sample), 0) AS samples,
                   extract(epoch FROM now() - min(finished_at)) AS span_s
            FROM segments WHERE finished_at > now() - make_interval(secs => :window_s) AND state = 'done'
            """
        ),
        {"window_s": WINDOW_S},
    ).one()
    connection.execute(text("SET LOCAL enable_seqscan = on"))
    span_s = min(max(float(row.span_s or WINDOW_S), LEAST_SPAN_S), WINDOW_S)
    return Throughput(int(row.samples) / SAMPLE_RATE_HZ, span_s)


@dataclass(frozen=True)
class Eta:
    """When a batch will be done, if all goes on as in the last minutes and nothing more urgent comes."""

    eta_s: float | None
    """From now; None where `reason` says why."""
    reason: NoEta | None
    audio_left_s: float
    """Of the batch, as far as it is split: not transcribed, and not failed."""
    audio_before_s: float
    """Of other work that is served before the batch's last segment."""
    rtfx: float
    """Throughput that it was computed with."""


def estimate_eta(connection: Connection, batch: Batch, throughput: Throughput) -> Eta | None:
    """When a batch will be done; None when it is."""
    if batch.finished:
        return None
    left, before = _work_until_done(connection, batch.id, batch.priority.rank)
    reason = _reason(connection, batch, throughput)
    return Eta(
        eta_s=None if reason else (left + before) / SAMPLE_RATE_HZ / throughput.rtfx,
        reason=reason,
        audio_left_s=left / SAMPLE_RATE_HZ,
        audio_before_s=before / SAMPLE_RATE_HZ,
        rtfx=throughput.rtfx,
    )


def _reason(connection: Connection, batch: Batch, throughput: Throughput) -> NoEta | None:
    counts = batch.recording_counts
    paused = paused_queues(connection)
    waits_for_split = counts[RecordingState.RECEIVED] + counts[RecordingState.SPLITTING]
    if batch.paused or WorkQueue.TRANSCRIBE in paused or (waits_for_split and WorkQueue.SPLIT in paused):
        return NoEta.PAUSED
    if counts[RecordingState.AWAITING_MEDIA]:
        return NoEta.AWAITING_MEDIA
    if waits_for_split:
        return NoEta.NOT_SPLIT
    return None if throughput.audio_s else NoEta.NO_THROUGHPUT


def _work_until_done(connection: Connection, batch_id: uuid.UUID, rank: int) -> tuple[float, float]:
    """Samples of the batch that are left, and those of others' and its own broadcaster's work before its last one."""
    own = connection.execute(
        text(
            """
            SELECT coalesce(sum(n.samples), 0) AS samples, max(n.turn) AS turn
            FROM recordings r
            JOIN broadcasters b ON b.id = r.broadcaster_id
            JOIN transcripts t ON t.recording_id = r.id AND t.finished_at IS NULL
            CROSS JOIN LATERAL (
                -- begun by no model: all of it waits, and turns rise within a recording
                SELECT t.duration_samples - t.no_speech_gap_samples - t.failed_gap_samples AS samples,
                       (SELECT s.turn + (s.end_sample - s.start_sample) / b.weight FROM segments s
                        WHERE s.transcript_id = t.id ORDER BY s.index DESC LIMIT 1) AS turn
                WHERE t.prompt IS NULL AND t.no_speech_gap_samples IS NOT NULL
                UNION ALL
                SELECT coalesce(sum(s.end_sample - s.start_sample), 0),
                       max(s.turn + (s.end_sample - s.start_sample) / b.weight) FILTER (WHERE s.state = 'pending')
                FROM segments s
                WHERE s.transcript_id = t.id AND s.state IN ('pending', 'running')
                  AND (t.prompt IS NOT NULL OR t.no_speech_gap_samples IS NULL)) n
            WHERE r.batch_id = :batch_id AND r.state = 'transcribing'
            """
        ),
        {"batch_id": batch_id},
    ).one()
    left = float(own.samples)
    if own.turn is None:  # all of it is in workers' hands
        return left, 0.0
    until = connection.scalar(
        text(
            """
            SELECT sum(b.weight * greatest(
                       least(t.next_turn, CASE WHEN t.priority = :rank THEN :turn END) - head.turn, 0))
            FROM turns t
            JOIN broadcasters b ON b.id = t.broadcaster_id
            CROSS JOIN LATERAL (
                SELECT s.turn FROM segments s WHERE s.state = 'pending' AND s.priority = t.priority AND s.losses < 2
                ORDER BY s.turn, s.id LIMIT 1) head
            WHERE t.queue = 'transcribe' AND t.priority <= :rank
            """
        ),
        {"rank": rank, "turn": float(own.turn)},
    )
    return left, max(float(until or 0) - left, 0.0)
