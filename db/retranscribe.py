"""Transcribing again: a second transcript beside the current one, which stays readable until the new one is finished.

The new transcript takes over spans and gaps of the current one, so that nothing is decoded again and the two can be
compared segment by segment; `db.finishing` makes it the current one in the transaction that stores its last segment.
Of a recording whose working copy is gone the media are read anew.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.code_version import code_version
from db.control import by_flow
from db.events import add_events
from db.finishing import finish_transcripts
from db.states import WorkQueue
from db.turns import HELD_BACK, take_turns


class ModelUnknown(Exception):
    """No checkpoint of this name has been run."""


@dataclass(frozen=True)
class Selection:
    """Finished recordings of a broadcaster; what is None does not narrow."""

    broadcaster_id: int
    batch_id: uuid.UUID | None = None
    recording_id: uuid.UUID | None = None
    programme: str | None = None
    from_on: dt.date | None = None
    """First day of broadcast."""
    to_on: dt.date | None = None
    transcribed_by: str | None = None
    """Name of the model of the current transcript."""


@dataclass(frozen=True)
class Begun:
    """One step of transcribing again."""

    n_recordings: int
    last: uuid.UUID | None
    """Go on after this one; None: there are no more."""


def transcribe_again(
    connection: Connection,
    selection: Selection,
    *,
    model: str | None = None,
    limit: int = 100,
    after: uuid.UUID | None = None,
) -> Begun:
    """Have up to `limit` completed or partial recordings transcribed again, in the order of their ids.

    Args:
        model: name of the checkpoint that is to do it; None leaves it to the one that is deployed.

    Raises:
        ModelUnknown: no checkpoint of that name has been run.
    """
    model_id = None if model is None else _find_model(connection, model)
    rows = connection.execute(
        text(
            """
            SELECT r.id, r.broadcaster_id, r.batch_id, r.name, r.priority, r.size_bytes,
                   r.working_copy_key IS NOT NULL AS has_copy, t.id AS transcript_id,
                   b.paused_at IS NOT NULL OR o.paused_at IS NOT NULL AS is_paused
            FROM recordings r
            JOIN batches b ON b.id = r.batch_id JOIN broadcasters o ON o.id = r.broadcaster_id
            JOIN transcripts t ON t.recording_id = r.id AND t.is_current LEFT JOIN models m ON m.id = t.model_id
            WHERE r.broadcaster_id = :broadcaster_id AND r.state IN ('completed', 'partial')
              AND (CAST(:batch_id AS uuid) IS NULL OR r.batch_id = :batch_id)
              AND (CAST(:recording_id AS uuid) IS NULL OR r.id = :recording_id)
              AND (CAST(:programme AS text) IS NULL OR r.programme = :programme)
              AND (CAST(:from_on AS date) IS NULL OR r.broadcast_on >= :from_on)
              AND (CAST(:to_on AS date) IS NULL OR r.broadcast_on <= :to_on)
              AND (CAST(:transcribed_by AS text) IS NULL OR m.name = :transcribed_by)
              AND (CAST(:after AS uuid) IS NULL OR r.id > :after)
            ORDER BY r.id LIMIT :limit FOR NO KEY UPDATE OF r
            """
        ),
        vars(selection) | {"limit": limit, "after": after},
    ).all()
    for flow, group in by_flow(WorkQueue.SPLIT, [row for row in rows if not row.has_copy]):
        turns = take_turns(connection, flow, [row.size_bytes for row in group])
        connection.execute(
            text(
                "UPDATE recordings r SET state = 'received', failures = 0, losses = 0, retry_at = NULL, turn = g.turn, "
                "hold = g.hold, finished_at = NULL, updated_at = now() FROM unnest(CAST(:ids AS uuid[]), "
                "CAST(:turns AS bigint[]), CAST(:holds AS text[])) AS g (id, turn, hold) WHERE r.id = g.id"
            ),
            {
                "ids": [row.id for row in group],
                "turns": turns,
                "holds": ["held" if row.is_paused else None for row in group],
            },
        )
    made = []
    for flow, group in by_flow(WorkQueue.TRANSCRIBE, [row for row in rows if row.has_copy]):
        for row in group:
            copied = _copy_transcript(connection, row.transcript_id, model_id)
            made.append(copied)
            lengths = connection.scalars(
                text(
                    "SELECT end_sample - start_sample FROM segments WHERE transcript_id = :id ORDER BY index"
                ),
                {"id": row.transcript_id},
            ).all()
            connection.execute(
                text(
                    """
                    INSERT INTO segments (broadcaster_id, recording_id, transcript_id, index, start_sample, end_sample,
                                          priority, turn)
                    SELECT s.broadcaster_id, s.recording_id, :new, s.index, s.start_sample, s.end_sample, :rank, g.turn
                    FROM (SELECT *, row_number() OVER (ORDER BY index) AS place
                          FROM segments WHERE transcript_id = :old) s
                    JOIN unnest(CAST(:turns AS bigint[])) WITH ORDINALITY AS g (turn, place) USING (place)
                    """
                ),
                {
                    "old": row.transcript_id,
                    "new": copied,
                    "rank": flow.rank + (HELD_BACK if row.is_paused else 0),
                    "turns": take_turns(connection, flow, lengths),
                },
            )
        connection.execute(
            text(
                "UPDATE recordings r SET state = 'transcribing', hold = g.hold, finished_at = NULL, updated_at = now() "
                "FROM unnest(CAST(:ids AS uuid[]), CAST(:holds AS text[])) AS g (id, hold) WHERE r.id = g.id"
            ),
            {"ids": [row.id for row in group], "holds": ["held" if row.is_paused else None for row in group]},
        )
    finish_transcripts(connection, made)  # those without speech have nothing to wait for
    add_events(
        connection,
        [
            (row.broadcaster_id, row.batch_id, row.id, "recording.transcribed_again", {"name": row.name})
            for row in rows
        ],
    )
    return Begun(len(rows), rows[-1].id if len(rows) == limit else None)


def _copy_transcript(connection: Connection, transcript_id: uuid.UUID, model_id: int | None) -> uuid.UUID:
    """A new transcript with the spans of an old one, its gaps copied; its id."""
    copied: uuid.UUID = connection.execute(
        text(
            """
            WITH made AS (
                INSERT INTO transcripts (broadcaster_id, recording_id, is_current, model_id, splitter_version,
                                         code_version, duration_samples, no_speech_gap_samples, failed_gap_samples)
                SELECT t.broadcaster_id, t.recording_id, false, :model_id, t.splitter_version, :code_version,
                       t.duration_samples, g.no_speech, g.failed
                FROM transcripts t CROSS JOIN LATERAL (
                    SELECT coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'no_speech'), 0) AS no_speech,
                           coalesce(sum(end_sample - start_sample) FILTER (WHERE kind = 'failed'), 0) AS failed
                    FROM gaps WHERE transcript_id = t.id) g
                WHERE t.id = :id
                RETURNING id
            ), copied AS (
                INSERT INTO gaps (broadcaster_id, transcript_id, kind, start_sample, end_sample, reason)
                SELECT g.broadcaster_id, made.id, g.kind, g.start_sample, g.end_sample, g.reason
                FROM gaps g, made WHERE g.transcript_id = :id
            )
            SELECT id FROM made
            """
        ),
        {"id": transcript_id, "model_id": model_id, "code_version": code_version()},
    ).scalar_one()
    return copied


def _find_model(connection: Connection, name: str) -> int:
    """The newest checkpoint of a name."""
    model_id: int | None = connection.scalar(
        text("SELECT id FROM models WHERE name = :name ORDER BY id DESC LIMIT 1"), {"name": name}
    )
    if model_id is None:
        raise ModelUnknown(
            f"no model named {name!r} has been run: `SELECT model FROM archive.models` lists them"
        )
    return model_id
