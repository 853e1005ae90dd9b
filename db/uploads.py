"""Unfinished uploads (tus 1.0). The truth about how far one has come is `uploads.offset_bytes`.

The offset counts bytes that are on disk for good and, where the client sent a checksum, verified. The staged
file may hold more (bytes whose commit never came) and is cut back to the offset before anything is written.
The offset never reaches the length: the transaction in which the last bytes count is `finish_upload`, which
removes the row. A crash at any point before it leaves an upload that the client can resume.

Lock order: uploads, then recordings.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.events import add_events
from db.finishing import fail_recordings
from db.states import RecordingState, WorkQueue
from db.turns import Flow, take_turns

MEDIA_NEVER_ARRIVED = "media_never_arrived"


@dataclass(frozen=True)
class Upload:
    """An unfinished upload and the recording it is for."""

    id: uuid.UUID
    broadcaster_id: int
    recording_id: uuid.UUID
    batch_id: uuid.UUID
    recording_name: str
    announced_sha256: bytes | None
    length_bytes: int
    offset_bytes: int
    updated_at: dt.datetime


class RecordingUnknown(Exception):
    """The broadcaster has no such recording."""


class MediaNotAwaited(Exception):
    """The recording's state is past `awaiting_media`."""

    def __init__(self, name: str, state: RecordingState) -> None:
        super().__init__(f"{name} is {state.value} and takes no media")
        self.name = name
        self.state = state


class UploadExists(Exception):
    """The recording has an unfinished upload."""

    def __init__(self, name: str, upload_id: uuid.UUID) -> None:
        super().__init__(f"{name} has an unfinished upload, {upload_id}")
        self.name = name
        self.upload_id = upload_id


class UploadLengthDiffers(Exception):
    """An upload's length is not the size announced with the recording."""

    def __init__(self, name: str, length_bytes: int, size_bytes: int) -> None:
        super().__init__(f"{name} was announced with {size_bytes} bytes, the upload has {length_bytes}")
        self.name = name
        self.length_bytes = length_bytes
        self.size_bytes = size_bytes


_UPLOAD_SQL = """
    SELECT u.id, u.broadcaster_id, u.recording_id, r.batch_id, r.name, r.sha256, u.length_bytes, u.offset_bytes,
           u.updated_at
    FROM uploads u JOIN recordings r ON r.id = u.recording_id
    WHERE u.id = :id AND u.broadcaster_id = :broadcaster_id
"""


def _upload(row: Any) -> Upload:
    return Upload(
        id=row.id,
        broadcaster_id=row.broadcaster_id,
        recording_id=row.recording_id,
        batch_id=row.batch_id,
        recording_name=row.name,
        announced_sha256=None if row.sha256 is None else bytes(row.sha256),
        length_bytes=row.length_bytes,
        offset_bytes=row.offset_bytes,
        updated_at=row.updated_at,
    )


def create_upload(
    connection: Connection, broadcaster_id: int, recording_id: uuid.UUID, length_bytes: int
) -> Upload:
    """Begin the upload of a recording's media.

    A recording that failed because its media never came awaits it again.

    Raises:
        RecordingUnknown: the broadcaster has no such recording.
        MediaNotAwaited: it has its media, or was cancelled.
        UploadLengthDiffers: not the size that was announced.
        UploadExists: it has an unfinished upload.
    """
    recording = connection.execute(
        text(
            "SELECT name, state, size_bytes, failure_code FROM recordings "
            "WHERE id = :id AND broadcaster_id = :broadcaster_id"
        ),
        {"id": recording_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    if recording is None:
        raise RecordingUnknown(f"there is no recording {recording_id}")
    never_arrived = recording.state == "failed" and recording.failure_code == MEDIA_NEVER_ARRIVED
    if recording.state != "awaiting_media" and not never_arrived:
        raise MediaNotAwaited(recording.name, RecordingState(recording.state))
    if recording.size_bytes != length_bytes:
        raise UploadLengthDiffers(recording.name, length_bytes, recording.size_bytes)
    upload_id = connection.scalar(
        text(
            """
            INSERT INTO uploads (broadcaster_id, recording_id, length_bytes)
            VALUES (:broadcaster_id, :recording_id, :length_bytes)
            ON CONFLICT (recording_id) DO NOTHING RETURNING id
            """
        ),
        {"broadcaster_id": broadcaster_id, "recording_id": recording_id, "length_bytes": length_bytes},
    )
    if upload_id is None:
        existing = connection.scalar(
            text("SELECT id FROM uploads WHERE recording_id = :id"), {"id": recording_id}
        )
        if existing is None:  # it finished, or was ended, between the two statements
            raise MediaNotAwaited(recording.name, RecordingState.RECEIVED)
        raise UploadExists(recording.name, existing)
    awaits = connection.execute(
        text(
            """
            UPDATE recordings
            SET state = 'awaiting_media', failure_code = NULL, failure_reason = NULL, finished_at = NULL,
                updated_at = now()
            WHERE id = :id AND (state = 'awaiting_media' OR state = 'failed' AND failure_code = :never_arrived)
            """
        ),
        {"id": recording_id, "never_arrived": MEDIA_NEVER_ARRIVED},
    )
    if awaits.rowcount == 0:  # changed since it was read above
        raise MediaNotAwaited(recording.name, RecordingState.RECEIVED)
    created = find_upload(connection, broadcaster_id, upload_id)
    assert created is not None
    return created


def find_upload(connection: Connection, broadcaster_id: int, upload_id: uuid.UUID) -> Upload | None:
    """One unfinished upload."""
    row = connection.execute(
        text(_UPLOAD_SQL), {"id": upload_id, "broadcaster_id": broadcaster_id}
    ).one_or_none()
    return _upload(row) if row else None


def lock_upload(connection: Connection, broadcaster_id: int, upload_id: uuid.UUID) -> Upload | None:
    """The same, locked until the transaction ends."""
    row = connection.execute(
        text(_UPLOAD_SQL + " FOR UPDATE OF u"), {"id": upload_id, "broadcaster_id": broadcaster_id}
    ).one_or_none()
    return _upload(row) if row else None


def advance_upload(connection: Connection, upload_id: uuid.UUID, *, from_bytes: int, to_bytes: int) -> bool:
    """Move the offset over bytes that are on disk.

    Returns:
        False when the upload is gone, or its offset is not `from_bytes`: somebody else moved it.
    """
    moved = connection.execute(
        text(
            "UPDATE uploads SET offset_bytes = :to_bytes, updated_at = now() "
            "WHERE id = :id AND offset_bytes = :from_bytes AND :to_bytes < length_bytes"
        ),
        {"id": upload_id, "from_bytes": from_bytes, "to_bytes": to_bytes},
    )
    return moved.rowcount == 1


def restart_upload(connection: Connection, upload_id: uuid.UUID) -> None:
    """Put the offset back to 0: the bytes that it counted are no longer on disk."""
    connection.execute(
        text("UPDATE uploads SET offset_bytes = 0, updated_at = now() WHERE id = :id"), {"id": upload_id}
    )


def finish_upload(connection: Connection, upload: Upload, *, sha256: bytes, media_key: str) -> bool:
    """Give a recording its media, which is in the object store: it may be split now. Removes the upload.

    Returns:
        False when the upload is gone or the recording no longer awaits its media; nothing was changed.
    """
    if lock_upload(connection, upload.broadcaster_id, upload.id) is None:
        return False
    rank = connection.scalar(
        text(
            """
            UPDATE recordings
            SET state = 'received', sha256 = :sha256, media_key = :media_key, received_at = now(), updated_at = now()
            WHERE id = :id AND state = 'awaiting_media' RETURNING priority
            """
        ),
        {"id": upload.recording_id, "sha256": sha256, "media_key": media_key},
    )
    if rank is None:
        return False
    turns = take_turns(connection, Flow(WorkQueue.SPLIT, upload.broadcaster_id, rank), [upload.length_bytes])
    connection.execute(
        text("UPDATE recordings SET turn = :turn WHERE id = :id"),
        {"turn": turns[0], "id": upload.recording_id},
    )
    connection.execute(text("DELETE FROM uploads WHERE id = :id"), {"id": upload.id})
    add_events(
        connection,
        [
            (
                upload.broadcaster_id,
                upload.batch_id,
                upload.recording_id,
                "recording.received",
                {"name": upload.recording_name, "size_bytes": upload.length_bytes, "sha256": sha256.hex()},
            )
        ],
    )
    return True


def terminate_upload(connection: Connection, broadcaster_id: int, upload_id: uuid.UUID) -> bool:
    """End an upload; its recording awaits a new one. False when there is none."""
    recording_id = connection.scalar(
        text(
            "DELETE FROM uploads WHERE id = :id AND broadcaster_id = :broadcaster_id RETURNING recording_id"
        ),
        {"id": upload_id, "broadcaster_id": broadcaster_id},
    )
    if recording_id is None:
        return False
    # a sign of life: the time in which its media must arrive begins anew
    connection.execute(
        text("UPDATE recordings SET updated_at = now() WHERE id = :id AND state = 'awaiting_media'"),
        {"id": recording_id},
    )
    return True


def expire_uploads(connection: Connection, older_than_h: float) -> list[uuid.UUID]:
    """End the uploads that got no byte for `older_than_h` hours, and fail what waited for media so long.

    Returns:
        Ids of the uploads ended: names of the staged files that the caller may remove.
    """
    expired = connection.scalars(
        text(
            """
            DELETE FROM uploads WHERE id IN (
                SELECT id FROM uploads WHERE updated_at < now() - make_interval(secs => :older_than_s)
                FOR UPDATE SKIP LOCKED)
            RETURNING id
            """
        ),
        {"older_than_s": older_than_h * 3600},
    ).all()
    overdue = connection.scalars(
        text(
            """
            SELECT r.id FROM recordings r
            WHERE r.state = 'awaiting_media' AND r.updated_at < now() - make_interval(secs => :older_than_s)
              AND NOT EXISTS (SELECT FROM uploads u WHERE u.recording_id = r.id)
            ORDER BY r.id FOR NO KEY UPDATE SKIP LOCKED
            """
        ),
        {"older_than_s": older_than_h * 3600},
    ).all()
    if overdue:
        fail_recordings(
            connection,
            overdue,
            MEDIA_NEVER_ARRIVED,
            f"its media did not arrive within {older_than_h:g} hours of the last sign of it: "
            "upload it now, or submit it again",
        )
    return list(expired)


def find_orphans(connection: Connection, upload_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Those of the given ids that no upload has. A staged file of such a name was left by a crash between the
    last commit and the removal of the file; rows come before files, so it is never one about to be used."""
    return list(
        connection.scalars(
            text(
                "SELECT given.id FROM unnest(CAST(:ids AS uuid[])) AS given(id) "
                "WHERE NOT EXISTS (SELECT FROM uploads u WHERE u.id = given.id)"
            ),
            {"ids": list(upload_ids)},
        )
    )
