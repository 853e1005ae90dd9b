"""How long working copies live: which are due, and what is still to be removed from the object store.

A row forgets its copy first, and in the same transaction the keys are written down as removals; objects are removed
after that, and then their removals. So no row ever names an object that was removed on purpose, and a crash between two
steps leaves a removal, which the next sweep sees to. Keys hold the number of the split attempt and are never used
again: whatever is made meanwhile, a removal done late or twice cannot strike it.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.batches import RecordingUnknown
from db.media_store import peaks_key
from db.states import RECORDING_FINISHED, RecordingState


@dataclass(frozen=True)
class WorkingCopy:
    """What there is of a recording's audio."""

    name: str
    state: RecordingState
    key: str | None
    """In the object store; None before it is split, and after it expired."""
    expired_at: dt.datetime | None
    """None unless it expired."""
    media_key: str | None
    """Of the original, from which it can be made again."""
    duration_samples: int | None


def find_working_copy(connection: Connection, broadcaster_id: int, recording_id: uuid.UUID) -> WorkingCopy:
    """A recording's working copy.

    Raises:
        RecordingUnknown: the broadcaster has no such recording.
    """
    row = connection.execute(
        text(
            "SELECT name, state, working_copy_key, working_copy_expired_at, media_key, duration_samples "
            "FROM recordings WHERE id = :id AND broadcaster_id = :broadcaster_id"
        ),
        {"id": recording_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    if row is None:
        raise RecordingUnknown(f"there is no recording {recording_id}")
    name, state, key, expired_at, media_key, duration_samples = row
    return WorkingCopy(
        name, RecordingState(state), key, None if key else expired_at, media_key, duration_samples
    )


# What is unfinished may still be read: a transcript being made again, or one of a cancelled recording, whose segments
# may even be under way. Beginning anything locks the recording first, so nothing begins between look and update.
_EXPIRE_SQL = """
    UPDATE recordings r SET working_copy_key = NULL, working_copy_expired_at = now()
    FROM (SELECT id, working_copy_key FROM recordings c
          WHERE working_copy_key IS NOT NULL AND finished_at < now() - make_interval(secs => :after_s)
            AND state = ANY(:finished)
            AND NOT EXISTS (SELECT FROM transcripts t WHERE t.recording_id = c.id AND t.finished_at IS NULL)
          ORDER BY finished_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) due
    WHERE r.id = due.id RETURNING due.working_copy_key
"""


def expire_copies(connection: Connection, *, after_days: float, limit: int = 100) -> int:
    """Have up to `limit` working copies expire, of recordings that have been finished for `after_days`; how many did.

    The oldest first. Their objects become removals. Safe to run twice at once.
    """
    keys = connection.scalars(
        text(_EXPIRE_SQL),
        {
            "after_s": after_days * 86_400,
            "limit": limit,
            "finished": [state.value for state in RECORDING_FINISHED],
        },
    ).all()
    connection.execute(
        text("INSERT INTO object_removals (key) SELECT unnest(CAST(:keys AS text[])) ON CONFLICT DO NOTHING"),
        {"keys": [made for key in keys for made in (key, peaks_key(key))]},
    )
    return len(keys)


def list_removals(connection: Connection, *, limit: int = 200) -> list[str]:
    """Keys of objects that no row names any more, and that are still to be removed from the object store."""
    return list(
        connection.scalars(
            text("SELECT key FROM object_removals ORDER BY asked_at, key LIMIT :limit"), {"limit": limit}
        )
    )


def forget_removals(connection: Connection, keys: Sequence[str]) -> None:
    """These objects are removed."""
    connection.execute(text("DELETE FROM object_removals WHERE key = ANY(:keys)"), {"keys": list(keys)})
