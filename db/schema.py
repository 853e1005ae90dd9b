"""The tables. One class per table; `docs/glossary.md` says what each word means.

Times are `timestamptz`; positions in audio are samples at 16 kHz, counted from the start of the recording.
Alembic's migrations make these tables; `tests/db/test_migrations.py` proves that the two are equal.
"""

from __future__ import annotations

import datetime as dt
import uuid
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy import (
    text as sql,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.states import AttemptOutcome, GapKind, Hold, Priority, RecordingState, SegmentState, WorkQueue

SAMPLE_RATE_HZ = 16_000
"""Samples per second of every position stored here."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declarative attribute
        str: Text,
        dt.datetime: DateTime(timezone=True),
        uuid.UUID: UUID(as_uuid=True),
        bytes: LargeBinary,
        dict[str, Any]: JSONB,
    }


def one_of(column: str, values: type[StrEnum]) -> CheckConstraint:
    """A constraint that `column` holds one of the enum's values."""
    listed = ", ".join(f"'{value.value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def now_by_default() -> Mapped[dt.datetime]:
    return mapped_column(server_default=func.now())


def uuid_key() -> Mapped[uuid.UUID]:
    """A primary key that sorts by time of creation (UUID version 7)."""
    return mapped_column(primary_key=True, server_default=sql("uuidv7()"))


class Broadcaster(Base):
    """A tenant: sees only its own rows."""

    __tablename__ = "broadcasters"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9-]{0,62}$'", name="name_form"),
        CheckConstraint("weight BETWEEN 0.001 AND 1000", name="weight_known"),
    )

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[dt.datetime] = now_by_default()
    weight: Mapped[float] = mapped_column(REAL, server_default="1")
    """Share of the queue beside other broadcasters whose work waits: 2 is served twice as much as 1."""
    paused_at: Mapped[dt.datetime | None]
    """None of its work is begun since then."""


class ApiKey(Base):
    """A secret that stands for a broadcaster. Only the SHA-256 of the secret is stored."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"), index=True)
    key_id: Mapped[str] = mapped_column(unique=True)
    """Public part of the key, by which it is looked up and shown."""
    secret_sha256: Mapped[bytes]
    label: Mapped[str]
    created_at: Mapped[dt.datetime] = now_by_default()
    revoked_at: Mapped[dt.datetime | None]


class Batch(Base):
    """Recordings submitted together."""

    __tablename__ = "batches"
    __table_args__ = (
        one_of("priority", Priority),
        UniqueConstraint("broadcaster_id", "idempotency_key"),
        Index("ix_batches_broadcaster_id_id", "broadcaster_id", "id"),
    )

    id: Mapped[uuid.UUID] = uuid_key()
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    name: Mapped[str]
    priority: Mapped[str] = mapped_column(server_default=Priority.NORMAL.value)
    idempotency_key: Mapped[str | None]
    request_sha256: Mapped[bytes]
    """Hash of the request that made the batch: the same idempotency key with another request is refused."""
    created_at: Mapped[dt.datetime] = now_by_default()
    paused_at: Mapped[dt.datetime | None]
    """None of its work is begun since then."""


AUDIO_TRACK_FORM = "^(auto|mix|[0-9]{1,3})$"
"""How a sound track is asked for: the one with the most speech, all of them mixed, or by number, counted from 0."""


class Recording(Base):
    """One media file."""

    __tablename__ = "recordings"
    __table_args__ = (
        one_of("state", RecordingState),
        UniqueConstraint("batch_id", "name"),
        CheckConstraint("size_bytes > 0", name="size_positive"),
        CheckConstraint("timecode_offset_ms >= 0", name="timecode_offset_known"),
        CheckConstraint(f"audio_track ~ '{AUDIO_TRACK_FORM}'", name="audio_track_known"),
        CheckConstraint("state NOT IN ('failed') OR failure_reason IS NOT NULL", name="failure_has_reason"),
        CheckConstraint("(state = 'splitting') = (worker_id IS NOT NULL)", name="splitting_has_worker"),
        Index(
            "ix_recordings_received_turn",
            "priority",
            "turn",
            "id",
            postgresql_where=sql("state = 'received' AND hold IS NULL"),
        ),
        one_of("hold", Hold),
        Index("ix_recordings_moving", "id", postgresql_where=sql("hold IN ('asked', 'releasing')")),
        Index("ix_recordings_splitting", "worker_id", postgresql_where=sql("state = 'splitting'")),
        Index("ix_recordings_awaiting_media", "updated_at", postgresql_where=sql("state = 'awaiting_media'")),
        Index("ix_recordings_broadcaster_id_id", "broadcaster_id", "id"),
        Index("ix_recordings_broadcaster_id_state_id", "broadcaster_id", "state", "id"),
        Index("ix_recordings_batch_id_id", "batch_id", "id"),
        Index(
            "ix_recordings_copies",
            "finished_at",
            postgresql_where=sql("working_copy_key IS NOT NULL AND finished_at IS NOT NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = uuid_key()
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    batch_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("batches.id"))
    name: Mapped[str]
    """File name with its folders inside the batch, separated by `/`."""
    programme: Mapped[str | None]
    programme_kind: Mapped[str | None]
    """Radio, television, interview ...: what kind of programme it is."""
    broadcast_on: Mapped[dt.date | None]
    priority: Mapped[int] = mapped_column(SmallInteger)
    """Rank of the batch's priority (`db.states.Priority.rank`), kept here so that an index serves the claim."""
    turn: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Where it stands among the recordings of its class that wait to be split (`db/turns.py`)."""
    hold: Mapped[str | None]
    """How far its work is held back (`db/control.py`); empty where it is not."""
    state: Mapped[str] = mapped_column(server_default=RecordingState.AWAITING_MEDIA.value)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes | None]
    """Announced by the submitter, or computed on arrival."""
    media_key: Mapped[str | None]
    """Key of the original file in the object store."""
    audio_track: Mapped[str] = mapped_column(server_default="auto")
    """The sound track asked for: `auto` (the most speech), `mix`, or its number counted from 0. `media_info` says which
    was taken."""
    working_copy_key: Mapped[str | None]
    """Key of the 16 kHz mono FLAC that segments are read from; empty before the split, and after it expired."""
    working_copy_expired_at: Mapped[dt.datetime | None]
    """When its last working copy was given up (`db/copies.py`); empty again once another one is made."""
    duration_samples: Mapped[int | None] = mapped_column(BigInteger)
    media_info: Mapped[dict[str, Any] | None]
    """Container, codec, channels, tracks, tags and timecode of the original."""
    timecode_offset_ms: Mapped[int | None] = mapped_column(BigInteger)
    """What the clock showed at the first sample, e.g. 36,000,000 for a tape that begins at 10:00:00."""
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    """Number of the last split attempt; a writer that holds an older one is refused."""
    failures: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Split attempts that raised an error."""
    losses: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Split attempts that ended with the death of their worker."""
    retry_at: Mapped[dt.datetime | None]
    """Not split before, after an attempt that raised an error."""
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))
    failure_code: Mapped[str | None]
    failure_reason: Mapped[str | None]
    created_at: Mapped[dt.datetime] = now_by_default()
    updated_at: Mapped[dt.datetime] = now_by_default()
    received_at: Mapped[dt.datetime | None]
    finished_at: Mapped[dt.datetime | None]


class Upload(Base):
    """An unfinished upload (tus 1.0). Its row is gone once the recording has its media."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("offset_bytes BETWEEN 0 AND length_bytes", name="offset_in_range"),
        Index("ix_uploads_updated_at", "updated_at"),
    )

    id: Mapped[uuid.UUID] = uuid_key()
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    recording_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recordings.id"), unique=True)
    length_bytes: Mapped[int] = mapped_column(BigInteger)
    offset_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Bytes known to be on disk and, where the client sent a checksum, verified."""
    created_at: Mapped[dt.datetime] = now_by_default()
    updated_at: Mapped[dt.datetime] = now_by_default()


class Model(Base):
    """A checkpoint that has been run."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("name", "weights_sha256"),)

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    name: Mapped[str]
    weights_sha256: Mapped[str]
    is_demo: Mapped[bool]
    """True for the small model trained on synthetic speech: its text must be marked wherever it is shown."""
    config: Mapped[dict[str, Any]]
    """Layout, parameter count, dtype and device it was opened with."""
    created_at: Mapped[dt.datetime] = now_by_default()


class Worker(Base):
    """One worker process. Alive while it holds the advisory lock (WORKER_LOCK_CLASS, id) and its lease."""

    __tablename__ = "workers"

    id: Mapped[int] = mapped_column(Integer, Identity(always=True), primary_key=True)
    role: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    code_version: Mapped[str]
    started_at: Mapped[dt.datetime] = now_by_default()
    lease_until: Mapped[dt.datetime]
    stopped_at: Mapped[dt.datetime | None]
    claims: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """This and the columns below only grow, and are written with each renewal of the lease (`db/liveness.py`)."""
    claim_s: Mapped[float] = mapped_column(Double, server_default="0")
    busy_s: Mapped[float] = mapped_column(Double, server_default="0")
    transcribed_samples: Mapped[int] = mapped_column(BigInteger, server_default="0")


class Transcript(Base):
    """One recording by one model and one splitter. The newest finished one is current."""

    __tablename__ = "transcripts"
    __table_args__ = (
        # what makes "every second is accounted for" a fact: no transcript finishes without it
        CheckConstraint(
            "finished_at IS NULL OR "
            "transcribed_samples + no_speech_samples + failed_samples = duration_samples",
            name="every_sample_accounted",
        ),
        Index("uq_transcripts_current", "recording_id", unique=True, postgresql_where=sql("is_current")),
        Index("ix_transcripts_recording_id", "recording_id"),
        Index("ix_transcripts_begun", "model_id", postgresql_where=sql("finished_at IS NULL")),
        # a night's production is found through it: segments have no index on time, they are too many
        Index("ix_transcripts_finished_at", "finished_at", postgresql_where=sql("finished_at IS NOT NULL")),
        # finished before segment counts were stored: empty once the sweep has counted them
        Index(
            "ix_transcripts_uncounted",
            "id",
            postgresql_where=sql("finished_at IS NOT NULL AND done_segments IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = uuid_key()
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    recording_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recordings.id"))
    is_current: Mapped[bool]
    model_id: Mapped[int | None] = mapped_column(ForeignKey("models.id"))
    """Bound by the first claim: all segments of a transcript come from one model."""
    splitter_version: Mapped[str]
    prompt: Mapped[str | None]
    decode_settings: Mapped[dict[str, Any] | None]
    code_version: Mapped[str]
    duration_samples: Mapped[int] = mapped_column(BigInteger)
    transcribed_samples: Mapped[int | None] = mapped_column(BigInteger)
    no_speech_samples: Mapped[int | None] = mapped_column(BigInteger)
    failed_samples: Mapped[int | None] = mapped_column(BigInteger)
    no_speech_gap_samples: Mapped[int | None] = mapped_column(BigInteger)
    """Of its gaps, known since the split; empty for those that were split before they were summed."""
    failed_gap_samples: Mapped[int | None] = mapped_column(BigInteger)
    done_segments: Mapped[int | None]
    """Of a finished transcript; empty for those that were finished before they were counted."""
    failed_segments: Mapped[int | None]
    created_at: Mapped[dt.datetime] = now_by_default()
    finished_at: Mapped[dt.datetime | None]


class Segment(Base):
    """A span of speech of at most 30 s: the unit of GPU work."""

    __tablename__ = "segments"
    __table_args__ = (
        one_of("state", SegmentState),
        UniqueConstraint("transcript_id", "index"),
        CheckConstraint("end_sample > start_sample AND start_sample >= 0", name="span_positive"),
        CheckConstraint("(state = 'running') = (worker_id IS NOT NULL)", name="running_has_worker"),
        CheckConstraint("(state = 'done') = (text IS NOT NULL)", name="done_has_text"),
        CheckConstraint("state <> 'failed' OR failure_reason IS NOT NULL", name="failure_has_reason"),
        Index("ix_segments_turn", "priority", "turn", "id", postgresql_where=sql("state = 'pending'")),
        Index(
            "ix_segments_suspect",
            "priority",
            "turn",
            "id",
            postgresql_where=sql("state = 'pending' AND losses >= 2"),
        ),
        Index("ix_segments_running", "worker_id", postgresql_where=sql("state = 'running'")),
        Index("ix_segments_recording_id", "recording_id"),
        # results are stored in order of time, nearly: kilobytes tell where a range lies, outliers told apart
        Index(
            "ix_segments_finished_at",
            "finished_at",
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on"},
            postgresql_ops={"finished_at": "timestamptz_minmax_multi_ops"},
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    recording_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recordings.id"))
    transcript_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcripts.id"))
    index: Mapped[int]
    start_sample: Mapped[int] = mapped_column(BigInteger)
    end_sample: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(server_default=SegmentState.PENDING.value)
    priority: Mapped[int] = mapped_column(SmallInteger)
    """Rank of its recording's class; by HELD_BACK more while it must not be claimed (`db/control.py`)."""
    turn: Mapped[int] = mapped_column(BigInteger, server_default="0")
    """Where it stands among the segments of its class that wait (`db/turns.py`)."""
    attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    """Number of the last claim; a writer that holds an older one is refused."""
    failures: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Attempts that raised an error."""
    losses: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    """Attempts that ended with the death of their worker."""
    retry_at: Mapped[dt.datetime | None]
    """Not claimed before, after an attempt that raised an error."""
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("workers.id"))
    text: Mapped[str | None]
    token_ids: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    token_logprobs: Mapped[list[float] | None] = mapped_column(ARRAY(REAL))
    """Natural logarithm of each token's probability, in the order of `token_ids`."""
    mean_logprob: Mapped[float | None] = mapped_column(REAL)
    flags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default=sql("'{}'"))
    """Guards that tripped, e.g. `token_limit`, `loop`."""
    failure_code: Mapped[str | None]
    failure_reason: Mapped[str | None]
    finished_at: Mapped[dt.datetime | None]


class Gap(Base):
    """A span of a recording without a segment: no speech, or failed. Segments and gaps tile the recording."""

    __tablename__ = "gaps"
    __table_args__ = (
        one_of("kind", GapKind),
        CheckConstraint("end_sample > start_sample AND start_sample >= 0", name="span_positive"),
        CheckConstraint("kind <> 'failed' OR reason IS NOT NULL", name="failure_has_reason"),
    )

    transcript_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("transcripts.id"), primary_key=True)
    start_sample: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    end_sample: Mapped[int] = mapped_column(BigInteger)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    kind: Mapped[str]
    reason: Mapped[str | None]


class Turn(Base):
    """Where the next work of a broadcaster enters a queue, in a class (`db/turns.py`)."""

    __tablename__ = "turns"
    __table_args__ = (one_of("queue", WorkQueue),)

    queue: Mapped[str] = mapped_column(primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"), primary_key=True)
    priority: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    next_turn: Mapped[int] = mapped_column(BigInteger, server_default="0")


class PausedQueue(Base):
    """A queue of which nothing is claimed."""

    __tablename__ = "paused_queues"
    __table_args__ = (one_of("queue", WorkQueue),)

    queue: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[dt.datetime] = now_by_default()


class ObjectRemoval(Base):
    """An object that no row names any more, and that is still to be removed from the object store."""

    __tablename__ = "object_removals"

    key: Mapped[str] = mapped_column(primary_key=True)
    asked_at: Mapped[dt.datetime] = now_by_default()


class Attempt(Base):
    """One try at splitting a recording (segment_id empty) or transcribing a segment."""

    __tablename__ = "attempts"
    __table_args__ = (
        one_of("outcome", AttemptOutcome),
        UniqueConstraint("recording_id", "segment_id", "attempt", postgresql_nulls_not_distinct=True),
        Index("ix_attempts_running", "worker_id", postgresql_where=sql("outcome = 'running'")),
        # rows come in order of time: a few kilobytes tell where a night's attempts lie
        Index("ix_attempts_started_at", "started_at", postgresql_using="brin"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    recording_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("recordings.id"))
    segment_id: Mapped[int | None] = mapped_column(ForeignKey("segments.id"))
    attempt: Mapped[int]
    worker_id: Mapped[int] = mapped_column(ForeignKey("workers.id"))
    outcome: Mapped[str] = mapped_column(server_default=AttemptOutcome.RUNNING.value)
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    started_at: Mapped[dt.datetime] = now_by_default()
    finished_at: Mapped[dt.datetime | None]


class Event(Base):
    """Something that happened, written in the transaction in which it happened."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_recording_id", "recording_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    broadcaster_id: Mapped[int] = mapped_column(ForeignKey("broadcasters.id"))
    batch_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("batches.id"))
    recording_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("recordings.id"))
    kind: Mapped[str]
    """Static name, e.g. `recording.completed`."""
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[dt.datetime] = now_by_default()
