"""Claims of segments, and what became of them. Reviewed here once for locking.

Rules that all of them keep:

* Rows are the queue. A claim takes rows with FOR UPDATE SKIP LOCKED, so that claimers never wait for each other.
* `attempt` fences. Each claim raises it; a result is stored only `WHERE attempt = <the claim's> AND
  state = 'running'`. A worker that was given up for dead and wakes later finds nothing to update.
* Lock order: segments that are one's own, then all transcripts in order of id, then recordings in order of id.
* Nothing here sends a message: callers do that after the commit.

Recordings to be split are in `db/splitting.py`, what dead workers held in `db/losses.py`, under the same rules.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Connection, text

from db.finishing import finish_transcripts
from db.losses import ISOLATE_AFTER_LOSSES
from db.states import WorkQueue
from db.turns import overdue_rank
from db.work import (
    RETRY_FACTOR,
    Failure,
    ModelBinding,
    SegmentClaim,
    SegmentResult,
    Waiting,
)


class Isolation(Enum):
    """Whether a claim may be for one segment alone that its workers died over."""

    FIRST = "first"
    """Rather than others: they would keep it waiting for as long as anything waits."""
    LAST = "last"
    """Where nothing else waits."""
    NOT_NOW = "not now"
    """Other work is under way, which would die with it."""


# In the order of turns (`db/turns.py`), read off ix_segments_turn: nothing is counted, however many wait. Segments that
# their workers died over are claimed apart, read off ix_segments_suspect.
_PENDING_SQL = """
    SELECT s.id, s.transcript_id FROM segments s
    WHERE s.state = 'pending' AND s.losses {losses} AND s.priority BETWEEN :from_rank AND 99
      -- subqueries and not joins: whatever the statistics say, the plan begins with the head of the queue
      AND (SELECT t.model_id IS NULL OR t.model_id = :model_id FROM transcripts t WHERE t.id = s.transcript_id)
      AND (SELECT r.hold IS NULL AND r.state = 'transcribing' FROM recordings r WHERE r.id = s.recording_id)
      AND (s.retry_at IS NULL OR s.retry_at <= now())
      AND NOT EXISTS (SELECT FROM paused_queues WHERE queue = 'transcribe')
    ORDER BY s.priority, s.turn, s.id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
"""


# Only of transcripts that the model began: few, found by their own index, however many segments wait.
_BEGUN_SQL = """
    SELECT s.id, s.transcript_id FROM transcripts t JOIN segments s ON s.transcript_id = t.id
    WHERE t.model_id = :model_id AND t.finished_at IS NULL AND s.state = 'pending' AND s.losses {losses}
      AND s.priority BETWEEN :from_rank AND 99
      AND (SELECT r.hold IS NULL AND r.state = 'transcribing' FROM recordings r WHERE r.id = s.recording_id)
      AND (s.retry_at IS NULL OR s.retry_at <= now())
      AND NOT EXISTS (SELECT FROM paused_queues WHERE queue = 'transcribe')
    ORDER BY s.priority, s.turn, s.id LIMIT :limit FOR UPDATE OF s SKIP LOCKED
"""


def claim_segments(
    connection: Connection,
    worker_id: int,
    binding: ModelBinding,
    *,
    limit: int,
    isolation: Isolation = Isolation.LAST,
    may_bind: bool = True,
) -> list[SegmentClaim]:
    """Take up to `limit` pending segments of the highest class by their turns, from whichever recordings they come.

    A segment that its workers died over is taken alone, when `isolation` says.

    Transcripts that no model has begun are bound to `binding`; segments of transcripts that another model
    has begun are left to it. Unless `may_bind`, only segments of transcripts that this model has begun are
    taken: it is about to be replaced. Returns the claims in order of length, so that a batch pads little.
    """
    pending_sql = _PENDING_SQL if may_bind else _BEGUN_SQL
    rank = overdue_rank(connection, WorkQueue.TRANSCRIBE)
    parameters = {"model_id": binding.model_id, "from_rank": rank or 0}
    trusted = pending_sql.format(losses=f"< {ISOLATE_AFTER_LOSSES}"), parameters | {"limit": limit}
    suspect = (
        pending_sql.format(losses=f">= {ISOLATE_AFTER_LOSSES}"),
        parameters | {"limit": 1, "from_rank": 0},
    )
    asked = {
        Isolation.FIRST: [suspect, trusted],
        Isolation.LAST: [trusted, suspect],
        Isolation.NOT_NOW: [trusted],
    }[isolation]
    if rank:  # all of the overdue class may be in others' hands
        asked.append((trusted[0], parameters | {"limit": limit, "from_rank": 0}))
    picked: Sequence[Any] = []
    for sql, values in asked:
        picked = connection.execute(text(sql), values).all()
        is_isolated = sql == suspect[0]
        if picked:
            break
    if not picked:
        return []
    # A claim need not be on disk: one that a crash of the server takes back was nobody's any more, as its worker's
    # session ended too. What is stored after it waits for the disk, and all that was written before with it.
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    bound = _bind_transcripts(connection, sorted({row.transcript_id for row in picked}), binding)
    rows = connection.execute(
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
            SELECT c.id, c.attempt, c.recording_id, r.name, r.working_copy_key, c.start_sample, c.end_sample
            FROM claimed c JOIN recordings r ON r.id = c.recording_id
            ORDER BY c.end_sample - c.start_sample, c.id
            """
        ),
        {"worker_id": worker_id, "ids": [row.id for row in picked if row.transcript_id in bound]},
    )
    return [replace(SegmentClaim(*row), is_isolated=is_isolated) for row in rows]


def _bind_transcripts(
    connection: Connection, transcript_ids: Sequence[uuid.UUID], binding: ModelBinding
) -> set[uuid.UUID]:
    """Bind the unbound among these transcripts to a model; return those that are this model's afterwards."""
    bound = _bound_to(connection, transcript_ids, binding.model_id)
    unbound = sorted(set(transcript_ids) - bound)
    if not unbound:
        return bound
    connection.execute(
        text(
            # whoever comes second finds it bound. One that was asked for of this very model has no prompt so far
            "UPDATE transcripts SET model_id = :model_id, prompt = :prompt, "
            "decode_settings = CAST(:settings AS jsonb) WHERE id IN ("
            "SELECT id FROM transcripts WHERE id = ANY(:ids) AND prompt IS NULL "
            "AND (model_id IS NULL OR model_id = :model_id) ORDER BY id FOR NO KEY UPDATE)"
        ),
        {
            "ids": unbound,
            "model_id": binding.model_id,
            "prompt": binding.prompt,
            "settings": json.dumps(binding.decode_settings),
        },
    )
    return _bound_to(connection, transcript_ids, binding.model_id)


def _bound_to(connection: Connection, transcript_ids: Sequence[uuid.UUID], model_id: int) -> set[uuid.UUID]:
    """Those of the transcripts that the model has begun."""
    return set(
        connection.scalars(
            text(
                "SELECT id FROM transcripts WHERE id = ANY(:ids) AND model_id = :model_id AND prompt IS NOT NULL"
            ),
            {"ids": list(transcript_ids), "model_id": model_id},
        )
    )


def store_results(
    connection: Connection,
    worker_id: int,
    results: Iterable[SegmentResult],
    failures: Iterable[tuple[SegmentClaim, Failure]] = (),
    *,
    max_attempts: int,
    retry_after_s: float = 0.0,
    index_later: bool = False,
) -> int:
    """Store what became of claimed segments, and finish the transcripts whose last segment this was.

    With `index_later` the texts are found by search a moment later: `db.search.index_pending` is called by others, and
    the caller tells them after the commit. Without, they are indexed here, which takes several times as long.

    A retryable failure puts its segment back until it has failed `max_attempts` times: for `retry_after_s` seconds
    the first time, RETRY_FACTOR times as long each time after.

    Returns:
        How many of the results and failures were stored. Fewer than given means that some claims had been taken
        back meanwhile: those are dropped, another worker's stand.
    """
    connection.execute(
        text("SELECT set_config('fonoteca.index_later', :later, true)"),
        {"later": "on" if index_later else "off"},
    )
    # all of one's own segments first, then transcripts: see the lock order above
    done = _store_done(connection, worker_id, results)
    failed = [
        transcript_id
        for claim, failure in failures
        for transcript_id in _store_failure(
            connection, worker_id, claim, failure, max_attempts, retry_after_s
        )
    ]
    finish_transcripts(connection, {*done, *failed})
    return len(done) + len(failed)


def _store_done(
    connection: Connection, worker_id: int, results: Iterable[SegmentResult]
) -> Sequence[uuid.UUID]:
    """Store texts; the transcript of each segment that was still ours."""
    payload = [
        {
            "id": result.segment_id,
            "attempt": result.attempt,
            "text": result.text,
            "token_ids": list(result.token_ids),
            "token_logprobs": list(result.token_logprobs),
            "mean_logprob": result.mean_logprob,
            "flags": list(result.flags),
        }
        for result in results
    ]
    return connection.scalars(
        text(
            """
            WITH given AS (
                SELECT * FROM json_to_recordset(CAST(:payload AS json)) AS g(
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
        {
            # five times as fast as the standard library's, and this is done for every segment. What is no number (nan,
            # infinities) is written as such, and refused by PostgreSQL
            "payload": to_json(payload, inf_nan_mode="constants").decode(),
            "worker_id": worker_id,
        },
    ).all()


def _store_failure(
    connection: Connection,
    worker_id: int,
    claim: SegmentClaim,
    failure: Failure,
    max_attempts: int,
    retry_after_s: float,
) -> Sequence[uuid.UUID]:
    """Store one failure; the segment's transcript, or nothing when the claim was no longer ours."""
    return connection.scalars(
        text(
            """
            WITH failed AS (
                UPDATE segments
                SET failures = failures + 1, worker_id = NULL,
                    state = CASE WHEN :retryable AND failures + 1 < :max_attempts
                            THEN 'pending' ELSE 'failed' END,
                    failure_code = :code, failure_reason = :reason,
                    retry_at = now() + make_interval(secs => :retry_after_s * power(:retry_factor, failures)),
                    finished_at = CASE WHEN :retryable AND failures + 1 < :max_attempts
                                  THEN NULL ELSE now() END
                WHERE id = :id AND attempt = :attempt AND state = 'running' AND worker_id = :worker_id
                RETURNING id, attempt, recording_id, transcript_id
            ), noted AS (
                UPDATE attempts a SET outcome = 'failed', error_code = :code, error_message = :reason,
                       finished_at = now()
                FROM failed f
                WHERE a.recording_id = f.recording_id AND a.segment_id = f.id AND a.attempt = f.attempt
            )
            SELECT transcript_id FROM failed
            """
        ),
        {
            "id": claim.segment_id,
            "attempt": claim.attempt,
            "worker_id": worker_id,
            "retryable": failure.retryable,
            "max_attempts": max_attempts,
            "retry_after_s": retry_after_s,
            "retry_factor": RETRY_FACTOR,
            "code": failure.code,
            "reason": failure.reason,
        },
    ).all()


def return_claims(connection: Connection, worker_id: int) -> int:
    """Give back everything this worker holds, unfinished, without counting it against the work.

    Returns:
        How many recordings and segments went back.
    """
    segments = connection.execute(
        text(
            "UPDATE segments SET state = 'pending', worker_id = NULL WHERE state = 'running' AND worker_id = :id"
        ),
        {"id": worker_id},
    )
    recordings = connection.execute(
        text(
            "UPDATE recordings SET state = 'received', worker_id = NULL, updated_at = now() "
            "WHERE state = 'splitting' AND worker_id = :id"
        ),
        {"id": worker_id},
    )
    connection.execute(
        text(
            "UPDATE attempts SET outcome = 'returned', finished_at = now() "
            "WHERE outcome = 'running' AND worker_id = :id"
        ),
        {"id": worker_id},
    )
    return segments.rowcount + recordings.rowcount


def count_waiting(connection: Connection, *, cap: int = 1000) -> Waiting:
    """How many recordings may be split and segments transcribed, counted up to `cap`; without what is held back or is
    to be tried again later."""
    row = connection.execute(
        text(
            """
            SELECT (SELECT count(*) FROM (SELECT FROM recordings WHERE state = 'received' AND hold IS NULL
                                            AND (retry_at IS NULL OR retry_at <= now()) LIMIT :cap) r) AS recordings,
                   (SELECT count(*) FROM (SELECT FROM segments WHERE state = 'pending' AND priority < 100
                                            AND (retry_at IS NULL OR retry_at <= now()) LIMIT :cap) s) AS segments
            """
        ),
        {"cap": cap},
    ).one()
    return Waiting(row.recordings, row.segments)


def waiting_rank(connection: Connection, model_id: int) -> int | None:
    """Rank of the most urgent segment that waits and that this model may claim (`Priority.rank`); None without one."""
    rank: int | None = connection.scalar(
        text(
            """
            SELECT s.priority FROM segments s JOIN transcripts t ON t.id = s.transcript_id
            WHERE s.state = 'pending' AND (t.model_id IS NULL OR t.model_id = :model_id) AND s.priority < 100
            ORDER BY s.priority, s.turn, s.id LIMIT 1
            """
        ),
        {"model_id": model_id},
    )
    return rank
