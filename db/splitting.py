"""The queue of recordings to be split: claims, and what became of them. The rules are those of `db/queue.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from db.finishing import fail_recordings, finish_transcripts, keep_transcript
from db.room import deep_flows
from db.states import AttemptOutcome, GapKind, WorkQueue
from db.turns import HELD_BACK, Flow, overdue_rank, take_turns
from db.work import RETRY_FACTOR, CoverageError, Failure, NewTranscript, SplitClaim


def claim_recording(
    connection: Connection, worker_id: int, *, ahead_h: float | None = None
) -> SplitClaim | None:
    """Take one received recording to split: of the highest class, by its turn (`db/turns.py`).

    With `ahead_h`, none of a broadcaster and class of which so many hours of segments wait for a GPU.
    """
    rank = overdue_rank(connection, WorkQueue.SPLIT)
    deep = deep_flows(connection, ahead_h) if ahead_h is not None else []
    # where others have all of the overdue class in hand, of any
    row = _take_recording(connection, worker_id, rank, deep) if rank else None
    row = row or _take_recording(connection, worker_id, 0, deep)
    if row is None:
        return None
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
    return SplitClaim(row.id, row.broadcaster_id, row.name, row.media_key, row.attempt, row.audio_track)


def _take_recording(connection: Connection, worker_id: int, from_rank: int, deep: Sequence[Flow]) -> Any:
    return connection.execute(
        text(
            """
            UPDATE recordings r
            SET state = 'splitting', attempt = r.attempt + 1, worker_id = :worker_id, updated_at = now()
            WHERE r.id = (
                SELECT id FROM recordings WHERE state = 'received' AND hold IS NULL AND priority >= :from_rank
                  AND (retry_at IS NULL OR retry_at <= now())
                  AND (broadcaster_id, priority) NOT IN (
                      SELECT * FROM unnest(CAST(:deep_ids AS int[]), CAST(:deep_ranks AS int[])))
                  AND NOT EXISTS (SELECT FROM paused_queues WHERE queue = 'split')
                ORDER BY priority, turn, id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING r.id, r.broadcaster_id, r.name, r.media_key, r.attempt, r.audio_track
            """
        ),
        {
            "worker_id": worker_id,
            "from_rank": from_rank,
            "deep_ids": [flow.broadcaster_id for flow in deep],
            "deep_ranks": [flow.rank for flow in deep],
        },
    ).one_or_none()


def _hold_split(connection: Connection, claim: SplitClaim, worker_id: int) -> bool:
    """Lock the claimed recording. False when the claim is no longer ours."""
    held: int | None = connection.scalar(
        text(
            "SELECT 1 FROM recordings WHERE id = :id AND state = 'splitting' AND attempt = :attempt "
            "AND worker_id = :worker_id FOR NO KEY UPDATE"
        ),
        {"id": claim.recording_id, "attempt": claim.attempt, "worker_id": worker_id},
    )
    return held == 1


def _end_split_attempt(
    connection: Connection,
    claim: SplitClaim,
    outcome: AttemptOutcome,
    failure: Failure | None = None,
) -> None:
    connection.execute(
        text(
            "UPDATE attempts SET outcome = :outcome, error_code = :code, error_message = :message, "
            "finished_at = now() WHERE recording_id = :id AND segment_id IS NULL AND attempt = :attempt"
        ),
        {
            "outcome": outcome.value,
            "code": failure.code if failure else None,
            "message": failure.reason if failure else None,
            "id": claim.recording_id,
            "attempt": claim.attempt,
        },
    )


def check_tiling(transcript: NewTranscript) -> None:
    """Raise CoverageError unless segments and gaps cover [0, duration) once, without hole or overlap."""
    spans = sorted([*transcript.segments, *((gap.start_sample, gap.end_sample) for gap in transcript.gaps)])
    position = 0
    for start_sample, end_sample in spans:
        if start_sample != position or end_sample <= start_sample:
            raise CoverageError(
                f"span {start_sample}..{end_sample} does not start at {position}, where the last one ended"
            )
        position = end_sample
    if position != transcript.duration_samples:
        raise CoverageError(f"spans end at sample {position}, the recording at {transcript.duration_samples}")


def store_split(connection: Connection, claim: SplitClaim, worker_id: int, found: NewTranscript) -> bool:
    """Store a recording's segments and gaps, and put the segments in the queue.

    Returns:
        False when the claim is no longer ours: nothing was stored, and the caller's working copy is an orphan.

    Raises:
        CoverageError: see `check_tiling`.
    """
    check_tiling(found)
    if not _hold_split(connection, claim, worker_id):
        return False
    recording = connection.execute(
        text(
            "UPDATE recordings SET state = 'transcribing', worker_id = NULL, duration_samples = :duration, "
            "working_copy_key = :key, working_copy_expired_at = NULL, media_info = CAST(:info AS jsonb), "
            "updated_at = now(), "
            # the submitter knows better than the file
            "timecode_offset_ms = coalesce(timecode_offset_ms, CAST(:offset_ms AS bigint)), "
            # held back while it was split: its segments are, from the beginning
            "hold = CASE WHEN hold = 'releasing' THEN NULL WHEN hold IS NOT NULL THEN 'held' END "
            "WHERE id = :id RETURNING priority, hold"
        ),
        {
            "id": claim.recording_id,
            "duration": found.duration_samples,
            "key": found.working_copy_key,
            "info": json.dumps(found.media_info),
            "offset_ms": found.media_info.get("timecode_offset_ms"),
        },
    ).one()
    transcript_id = connection.scalar(
        text(
            """
            INSERT INTO transcripts (broadcaster_id, recording_id, is_current, splitter_version,
                                     code_version, duration_samples, no_speech_gap_samples, failed_gap_samples)
            VALUES (:broadcaster_id, :recording_id,
                    NOT EXISTS (SELECT FROM transcripts WHERE recording_id = :recording_id AND is_current),
                    :splitter_version, :code_version, :duration_samples, :no_speech, :failed)
            RETURNING id
            """
        ),
        {
            "broadcaster_id": claim.broadcaster_id,
            "recording_id": claim.recording_id,
            "splitter_version": found.splitter_version,
            "code_version": found.code_version,
            "duration_samples": found.duration_samples,
            "no_speech": found.gap_samples(GapKind.NO_SPEECH),
            "failed": found.gap_samples(GapKind.FAILED),
        },
    )
    owner = {
        "broadcaster_id": claim.broadcaster_id,
        "recording_id": claim.recording_id,
        "transcript_id": transcript_id,
    }
    flow = Flow(WorkQueue.TRANSCRIBE, claim.broadcaster_id, recording.priority)
    connection.execute(
        text(
            """
            INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample,
                                  end_sample, priority, turn)
            SELECT :broadcaster_id, :recording_id, :transcript_id, s.ordinal - 1, s.start_sample, s.end_sample,
                   :rank, s.turn
            FROM unnest(CAST(:starts AS bigint[]), CAST(:ends AS bigint[]), CAST(:turns AS bigint[]))
                 WITH ORDINALITY AS s(start_sample, end_sample, turn, ordinal)
            """
        ),
        owner
        | {
            "rank": recording.priority + (HELD_BACK if recording.hold else 0),
            "starts": [start for start, _ in found.segments],
            "ends": [end for _, end in found.segments],
            "turns": take_turns(connection, flow, [end - start for start, end in found.segments]),
        },
    )
    connection.execute(
        text(
            """
            INSERT INTO gaps (broadcaster_id, transcript_id, kind, start_sample, end_sample, reason)
            SELECT :broadcaster_id, :transcript_id, g.kind, g.start_sample, g.end_sample, g.reason
            FROM unnest(CAST(:kinds AS text[]), CAST(:starts AS bigint[]), CAST(:ends AS bigint[]),
                        CAST(:reasons AS text[])) AS g(kind, start_sample, end_sample, reason)
            """
        ),
        owner
        | {
            "kinds": [gap.kind.value for gap in found.gaps],
            "starts": [gap.start_sample for gap in found.gaps],
            "ends": [gap.end_sample for gap in found.gaps],
            "reasons": [gap.reason for gap in found.gaps],
        },
    )
    _end_split_attempt(connection, claim, AttemptOutcome.DONE)
    assert transcript_id is not None
    finish_transcripts(connection, [transcript_id])
    return True


def fail_split(
    connection: Connection,
    claim: SplitClaim,
    worker_id: int,
    failure: Failure,
    *,
    max_attempts: int,
    retry_after_s: float = 0.0,
) -> bool:
    """Record that splitting failed. A retryable failure puts the recording back until `max_attempts`: for
    `retry_after_s` seconds the first time, RETRY_FACTOR times as long each time after. A recording that was read anew
    and has a finished transcript keeps it, and the state that it had.

    Returns:
        False when the claim is no longer ours and nothing was changed.
    """
    if not _hold_split(connection, claim, worker_id):
        return False
    _end_split_attempt(connection, claim, AttemptOutcome.FAILED, failure)
    if failure.retryable:
        put_back = connection.execute(
            text(
                "UPDATE recordings SET state = 'received', worker_id = NULL, failures = failures + 1, "
                "retry_at = now() + make_interval(secs => :retry_after_s * power(:retry_factor, failures)), "
                "updated_at = now() WHERE id = :id AND failures + 1 < :max_attempts"
            ),
            {
                "id": claim.recording_id,
                "max_attempts": max_attempts,
                "retry_after_s": retry_after_s,
                "retry_factor": RETRY_FACTOR,
            },
        )
        if put_back.rowcount:
            return True
    if not keep_transcript(connection, claim.recording_id, failure.code, failure.reason):
        fail_recordings(connection, [claim.recording_id], failure.code, failure.reason)
    return True
