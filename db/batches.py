"""Batches and their recordings: submitted in one transaction, read with what became of them.

Every function takes the broadcaster whose rows it may see; rows of others are as if they did not exist.
Pages go by key: ids are UUID version 7, which sort by time, so a page costs the same wherever it lies.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import unicodedata
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.segment_counts import COUNTS_SQL
from db.states import RECORDING_FINISHED, Priority, RecordingState, SegmentState

MAX_NAME_CHARS = 1024

FORBIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories refused in names: control characters, lone surrogates, line and paragraph separators."""


class BadRecordingName(Exception):
    """A recording's name cannot be a path inside its batch."""

    def __init__(self, name: str, reason: str, index: int | None = None) -> None:
        super().__init__(f"recording name {name!r} {reason}")
        self.name = name
        self.index = index
        """Position in the batch."""


class IdempotencyKeyReused(Exception):
    """The same idempotency key came with another request."""


class RecordingUnknown(Exception):
    """The broadcaster has no such recording."""


@dataclass(frozen=True)
class NewRecording:
    """A recording as it is announced."""

    name: str
    size_bytes: int
    sha256: str | None = None
    """Announced digest, in lower-case hexadecimal."""
    programme: str | None = None
    programme_kind: str | None = None
    """Radio, television, interview ...: what kind of programme it is."""
    broadcast_on: dt.date | None = None
    """Day of the first broadcast."""
    timecode_offset_ms: int | None = None
    """What the clock showed at the recording's first sample: 36,000,000 for 10:00:00."""
    audio_track: str = "auto"
    """The sound track to transcribe: `auto` (the most speech), `mix`, or its number counted from 0."""


@dataclass(frozen=True)
class Seconds:
    """Audio of a batch, by what became of it. While work goes on the parts sum to less than the total."""

    total: float
    transcribed: float
    no_speech: float
    failed: float


@dataclass(frozen=True)
class Coverage:
    """A finished transcript's seconds; they sum to its duration."""

    transcribed_s: float
    no_speech_s: float
    failed_s: float


@dataclass(frozen=True)
class Batch:
    """A batch and the counts of what became of it."""

    id: uuid.UUID
    name: str
    priority: Priority
    created_at: dt.datetime
    recording_counts: dict[str, int]
    """Every state with its number of recordings, zeros included."""
    segment_counts: dict[str, int]
    audio_s: Seconds
    paused: bool = False
    """By itself or with its broadcaster: none of its work is begun."""

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return not any(
            count
            for state, count in self.recording_counts.items()
            if RecordingState(state) not in RECORDING_FINISHED
        )


@dataclass(frozen=True)
class Recording:
    """A recording and what became of it."""

    id: uuid.UUID
    batch_id: uuid.UUID
    batch_name: str
    name: str
    programme: str | None
    programme_kind: str | None
    broadcast_on: dt.date | None
    timecode_offset_ms: int | None
    """What the clock showed at the first sample; None where nobody said it."""
    state: RecordingState
    size_bytes: int
    sha256: str | None
    duration_s: float | None
    failure_code: str | None
    failure_reason: str | None
    upload_id: uuid.UUID | None
    upload_offset_bytes: int | None
    segment_counts: dict[str, int]
    coverage: Coverage | None
    created_at: dt.datetime
    received_at: dt.datetime | None
    finished_at: dt.datetime | None
    audio_track: str = "auto"
    """The sound track asked for."""
    media_info: dict[str, Any] | None = None
    """What the file says of itself and which track was taken; None before it is split."""


@dataclass(frozen=True)
class Created:
    """What `create_batch` did."""

    batch_id: uuid.UUID
    replayed: bool
    """True when the same request had made this batch before."""


# --- submitting ------------------------------------------------------------------------------------------


def check_recording_name(name: str) -> None:
    """Raise BadRecordingName unless `name` is a relative path that every file system and archive can hold."""
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise BadRecordingName(name[:80], f"has {len(name)} characters: use 1 to {MAX_NAME_CHARS}")
    if any(unicodedata.category(character) in FORBIDDEN_CATEGORIES for character in name):
        raise BadRecordingName(name, "holds a control character or a line break: rename the file")
    if not unicodedata.is_normalized("NFC", name):
        raise BadRecordingName(
            name, "is not in Unicode form NFC: send it normalised, so that it is found again"
        )
    if "\\" in name:
        raise BadRecordingName(name, "holds a backslash: separate folders by /")
    if name.startswith("/"):
        raise BadRecordingName(name, "begins with /: send the path relative to the batch's folder")
    if any(part in {"", ".", ".."} for part in name.split("/")):
        raise BadRecordingName(name, "holds an empty part, . or ..: send a plain relative path")


def check_recording_names(recordings: Sequence[NewRecording]) -> None:
    """Raise BadRecordingName at the first name that is bad or comes twice."""
    seen: set[str] = set()
    for index, recording in enumerate(recordings):
        try:
            check_recording_name(recording.name)
            if recording.name in seen:
                raise BadRecordingName(
                    recording.name, "comes twice in this batch: names are unique in a batch"
                )
        except BadRecordingName as error:
            error.index = index
            raise
        seen.add(recording.name)


def request_sha256(name: str, priority: Priority, recordings: Sequence[NewRecording]) -> bytes:
    """Digest by which a repeated request is told from a different one.

    Fields that came later count only where they are used: a request of before them keeps its digest.
    """
    content = {
        "name": name,
        "priority": priority.value,
        "recordings": [_digested(item) for item in recordings],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).digest()


def _digested(recording: NewRecording) -> dict[str, Any]:
    content = asdict(recording)
    if recording.programme_kind is None:
        del content["programme_kind"]
    if recording.broadcast_on is None:
        del content["broadcast_on"]
    else:
        content["broadcast_on"] = recording.broadcast_on.isoformat()
    if recording.timecode_offset_ms is None:
        del content["timecode_offset_ms"]
    if recording.audio_track == "auto":
        del content["audio_track"]
    return content


def create_batch(
    connection: Connection,
    broadcaster_id: int,
    *,
    name: str,
    priority: Priority,
    recordings: Sequence[NewRecording],
    idempotency_key: str | None = None,
) -> Created:
    """Store a batch with its recordings, which then await their media.

    With an idempotency key the same request makes one batch however often it comes, at the same moment too:
    the second insert waits for the first one's commit, then finds its row.

    Raises:
        BadRecordingName: see `check_recording_name`; also for a name that comes twice.
        IdempotencyKeyReused: the key came before, with another request.
    """
    check_recording_names(recordings)
    digest = request_sha256(name, priority, recordings)
    batch_id = connection.scalar(
        text(
            """
            INSERT INTO batches (broadcaster_id, name, priority, idempotency_key, request_sha256)
            VALUES (:broadcaster_id, :name, :priority, :idempotency_key, :digest)
            ON CONFLICT (broadcaster_id, idempotency_key) DO NOTHING
            RETURNING id
            """
        ),
        {
            "broadcaster_id": broadcaster_id,
            "name": name,
            "priority": priority.value,
            "idempotency_key": idempotency_key,
            "digest": digest,
        },
    )
    if batch_id is None:
        return _replay(connection, broadcaster_id, idempotency_key, digest)
    # in the order given: uuidv7() counts upwards within a session
    connection.execute(
        text(
            """
            INSERT INTO recordings (broadcaster_id, batch_id, name, programme, programme_kind, broadcast_on,
                                    timecode_offset_ms, audio_track, priority, size_bytes, sha256, hold)
            SELECT :broadcaster_id, :batch_id, r.name, r.programme, r.programme_kind, r.broadcast_on,
                   r.timecode_offset_ms, r.audio_track, :priority, r.size_bytes, decode(r.sha256, 'hex'),
                   (SELECT CASE WHEN o.paused_at IS NOT NULL THEN 'held' END FROM broadcasters o
                    WHERE o.id = :broadcaster_id)
            FROM unnest(CAST(:names AS text[]), CAST(:programmes AS text[]), CAST(:kinds AS text[]),
                        CAST(:broadcast_on AS date[]), CAST(:timecode_offsets_ms AS bigint[]),
                        CAST(:audio_tracks AS text[]), CAST(:sizes AS bigint[]), CAST(:sha256s AS text[]))
                 WITH ORDINALITY
                 AS r(name, programme, programme_kind, broadcast_on, timecode_offset_ms, audio_track, size_bytes,
                      sha256, ordinal)
            ORDER BY r.ordinal
            """
        ),
        {
            "broadcaster_id": broadcaster_id,
            "batch_id": batch_id,
            "priority": priority.rank,
            "names": [recording.name for recording in recordings],
            "programmes": [recording.programme for recording in recordings],
            "kinds": [recording.programme_kind for recording in recordings],
            "broadcast_on": [recording.broadcast_on for recording in recordings],
            "timecode_offsets_ms": [recording.timecode_offset_ms for recording in recordings],
            "audio_tracks": [recording.audio_track for recording in recordings],
            "sizes": [recording.size_bytes for recording in recordings],
            "sha256s": [recording.sha256 for recording in recordings],
        },
    )
    return Created(batch_id, replayed=False)


def _replay(
    connection: Connection, broadcaster_id: int, idempotency_key: str | None, digest: bytes
) -> Created:
    earlier = connection.execute(
        text(
            "SELECT id, request_sha256 FROM batches "
            "WHERE broadcaster_id = :broadcaster_id AND idempotency_key = :idempotency_key"
        ),
        {"broadcaster_id": broadcaster_id, "idempotency_key": idempotency_key},
    ).one()
    if bytes(earlier.request_sha256) != digest:
        raise IdempotencyKeyReused(
            f"Idempotency-Key {idempotency_key!r} made batch {earlier.id} from another request: "
            "send the same request again, or choose a new key"
        )
    return Created(earlier.id, replayed=True)


# --- reading ---------------------------------------------------------------------------------------------

_BATCHES_SQL = f"""
    SELECT b.id, b.name, b.priority, b.created_at,
           b.paused_at IS NOT NULL OR EXISTS (
               SELECT FROM broadcasters o WHERE o.id = b.broadcaster_id AND o.paused_at IS NOT NULL) AS paused,
           r.counts AS recording_counts, r.total, s.pending, s.running, s.done, s.failed,
           s.transcribed_samples, s.failed_samples, s.no_speech_samples
    FROM (SELECT * FROM batches
          WHERE broadcaster_id = :broadcaster_id AND {{condition}}
          ORDER BY id DESC LIMIT :limit) b
    CROSS JOIN LATERAL (
        SELECT coalesce(jsonb_object_agg(n.state, n.n), '{{{{}}}}') AS counts, coalesce(sum(n.total), 0) AS total
        FROM (SELECT state, count(*) AS n, sum(duration_samples) AS total
              FROM recordings WHERE batch_id = b.id GROUP BY state) n) r
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(n.pending), 0) AS pending, coalesce(sum(n.running), 0) AS running,
               coalesce(sum(n.done), 0) AS done, coalesce(sum(n.failed), 0) AS failed,
               coalesce(sum(n.transcribed_samples), 0) AS transcribed_samples,
               coalesce(sum(n.no_speech_samples), 0) AS no_speech_samples,
               coalesce(sum(n.failed_samples), 0) AS failed_samples
        FROM recordings c JOIN transcripts t ON t.recording_id = c.id AND t.is_current
        CROSS JOIN LATERAL ({COUNTS_SQL}) n
        WHERE c.batch_id = b.id) s
    ORDER BY b.id DESC
"""


def _seconds(samples: int) -> float:
    return round(int(samples) / SAMPLE_RATE_HZ, 3)


def _batch(row: Any) -> Batch:
    return Batch(
        id=row.id,
        name=row.name,
        priority=Priority(row.priority),
        created_at=row.created_at,
        recording_counts={state.value: row.recording_counts.get(state.value, 0) for state in RecordingState},
        segment_counts={state.value: int(getattr(row, state.value) or 0) for state in SegmentState},
        audio_s=Seconds(
            total=_seconds(row.total),
            transcribed=_seconds(row.transcribed_samples),
            no_speech=_seconds(row.no_speech_samples),
            failed=_seconds(row.failed_samples),
        ),
        paused=row.paused,
    )


def list_batches(
    connection: Connection, broadcaster_id: int, *, limit: int, after: uuid.UUID | None = None
) -> list[Batch]:
    """Batches, newest first; those older than `after` where it is given."""
    condition = "(CAST(:after AS uuid) IS NULL OR id < :after)"
    rows = connection.execute(
        text(_BATCHES_SQL.format(condition=condition)),
        {"broadcaster_id": broadcaster_id, "after": after, "limit": limit},
    )
    return [_batch(row) for row in rows]


def find_batch(connection: Connection, broadcaster_id: int, batch_id: uuid.UUID) -> Batch | None:
    """One batch with its counts."""
    row = connection.execute(
        text(_BATCHES_SQL.format(condition="id = :batch_id")),
        {"broadcaster_id": broadcaster_id, "batch_id": batch_id, "limit": 1},
    ).one_or_none()
    return _batch(row) if row else None


def batch_exists(connection: Connection, broadcaster_id: int, batch_id: uuid.UUID) -> bool:
    """Whether the broadcaster has this batch."""
    found: bool = connection.execute(
        text("SELECT EXISTS (SELECT FROM batches WHERE id = :id AND broadcaster_id = :broadcaster_id)"),
        {"id": batch_id, "broadcaster_id": broadcaster_id},
    ).scalar_one()
    return found


_RECORDINGS_SQL = f"""
    SELECT r.id, r.batch_id, b.name AS batch_name, r.name, r.programme, r.programme_kind, r.broadcast_on,
           r.timecode_offset_ms, r.audio_track, r.media_info,
           r.state, r.size_bytes, encode(r.sha256, 'hex') AS sha256, r.duration_samples,
           r.failure_code, r.failure_reason, u.id AS upload_id, u.offset_bytes AS upload_offset_bytes, s.pending,
           s.running, s.done, s.failed, t.finished_at AS transcript_finished_at, t.transcribed_samples,
           t.no_speech_samples, t.failed_samples, r.created_at, r.received_at, r.finished_at
    FROM (SELECT * FROM recordings WHERE broadcaster_id = :broadcaster_id AND {{condition}}
          ORDER BY id {{order}} LIMIT :limit) r
    JOIN batches b ON b.id = r.batch_id
    LEFT JOIN uploads u ON u.recording_id = r.id
    LEFT JOIN transcripts t ON t.recording_id = r.id AND t.is_current
    LEFT JOIN LATERAL ({COUNTS_SQL}) s ON true
    ORDER BY r.id {{order}}
"""


def _recording(row: Any) -> Recording:
    return Recording(
        id=row.id,
        batch_id=row.batch_id,
        batch_name=row.batch_name,
        name=row.name,
        programme=row.programme,
        programme_kind=row.programme_kind,
        broadcast_on=row.broadcast_on,
        timecode_offset_ms=row.timecode_offset_ms,
        audio_track=row.audio_track,
        media_info=row.media_info,
        state=RecordingState(row.state),
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        duration_s=None if row.duration_samples is None else _seconds(row.duration_samples),
        failure_code=row.failure_code,
        failure_reason=row.failure_reason,
        upload_id=row.upload_id,
        upload_offset_bytes=row.upload_offset_bytes,
        segment_counts={state.value: int(getattr(row, state.value) or 0) for state in SegmentState},
        coverage=None
        if row.transcript_finished_at is None
        else Coverage(
            _seconds(row.transcribed_samples), _seconds(row.no_speech_samples), _seconds(row.failed_samples)
        ),
        created_at=row.created_at,
        received_at=row.received_at,
        finished_at=row.finished_at,
    )


def list_recordings(
    connection: Connection,
    broadcaster_id: int,
    batch_id: uuid.UUID,
    *,
    limit: int,
    after: uuid.UUID | None = None,
) -> list[Recording]:
    """A batch's recordings, in the order in which they were submitted; those behind `after` where it is given."""
    condition = "batch_id = :batch_id AND (CAST(:after AS uuid) IS NULL OR id > :after)"
    rows = connection.execute(
        text(_RECORDINGS_SQL.format(condition=condition, order="ASC")),
        {"broadcaster_id": broadcaster_id, "batch_id": batch_id, "after": after, "limit": limit},
    )
    return [_recording(row) for row in rows]


def list_newest_recordings(
    connection: Connection,
    broadcaster_id: int,
    *,
    limit: int,
    after: uuid.UUID | None = None,
    state: RecordingState | None = None,
) -> list[Recording]:
    """Recordings of all batches, newest first; those older than `after`, or in `state`, where given."""
    condition = (
        "(CAST(:after AS uuid) IS NULL OR id < :after) AND (CAST(:state AS text) IS NULL OR state = :state)"
    )
    rows = connection.execute(
        text(_RECORDINGS_SQL.format(condition=condition, order="DESC")),
        {
            "broadcaster_id": broadcaster_id,
            "after": after,
            "limit": limit,
            "state": state.value if state else None,
        },
    )
    return [_recording(row) for row in rows]


def find_recording(connection: Connection, broadcaster_id: int, recording_id: uuid.UUID) -> Recording | None:
    """One recording."""
    row = connection.execute(
        text(_RECORDINGS_SQL.format(condition="id = :recording_id", order="ASC")),
        {"broadcaster_id": broadcaster_id, "recording_id": recording_id, "limit": 1},
    ).one_or_none()
    return _recording(row) if row else None
