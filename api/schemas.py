"""What goes in and out as JSON. The words are those of `docs/glossary.md`; units stand in the names."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
import uuid
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from api.export.timecode import clock, parse_offset
from db import batches as rows
from db import corrections, transcripts
from db.correction_draws import MAX_DRAWN
from db.schema import AUDIO_TRACK_FORM
from db.states import AttemptOutcome, GapKind, NoEta, Priority, RecordingState, SegmentState

MAX_RECORDINGS = 10_000
MAX_CORRECTIONS = 1_000
MAX_BIGINT = 2**63 - 1
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def printable(value: str) -> str:
    """Refuse control characters: no name needs them, and PostgreSQL cannot store NUL."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise ValueError("holds a control character")
    return value


Label = Annotated[str, StringConstraints(min_length=1, max_length=300), AfterValidator(printable)]


def iso_date(value: object) -> object:
    """Refuse what pydantic would read besides YYYY-MM-DD: numbers as seconds since 1970, times."""
    if not isinstance(value, dt.date) and not (isinstance(value, str) and ISO_DATE.fullmatch(value)):
        raise ValueError("is not a date of the form YYYY-MM-DD")
    return value


IsoDate = Annotated[dt.date, BeforeValidator(iso_date)]


def timecode(value: str | None) -> str | None:
    """Refuse what is not a timecode offset."""
    if value is not None:
        parse_offset(value)
    return value


class Out(BaseModel):
    """Read from the dataclasses of `db`."""

    model_config = ConfigDict(from_attributes=True)


class RecordingIn(BaseModel):
    """A recording as it is announced."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(description="Relative path with `/`, Unicode NFC, unique in the batch.")]
    size_bytes: Annotated[int, Field(ge=0, strict=True)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)] | None = None
    programme: Label | None = None
    programme_kind: Annotated[
        Label | None, Field(description="Radio, television, interview ...: quality is watched by it.")
    ] = None
    broadcast_on: Annotated[IsoDate | None, Field(description="Day of the first broadcast.")] = None
    timecode_offset: Annotated[
        str | None,
        AfterValidator(timecode),
        Field(description="What the clock showed at the first moment: `10:00:00` or `10:00:00.040`."),
    ] = None
    audio_track: Annotated[
        str,
        StringConstraints(pattern=AUDIO_TRACK_FORM),
        Field(
            description="Sound track to transcribe: `auto` (the one with the most speech), `mix` (all of them), or its "
            "number, counted from 0."
        ),
    ] = "auto"


class BatchIn(BaseModel):
    """Recordings submitted together."""

    model_config = ConfigDict(extra="forbid")

    name: Label
    priority: Priority = Priority.NORMAL
    recordings: Annotated[list[RecordingIn], Field(min_length=1, max_length=MAX_RECORDINGS)]


class SegmentCounts(Out):
    pending: int
    running: int
    done: int
    failed: int


class AudioSeconds(Out):
    total: float
    transcribed: float
    no_speech: float
    failed: float


class Batch(Out):
    """A batch and the counts of what became of it."""

    id: uuid.UUID
    name: str
    priority: Priority
    created_at: dt.datetime
    recording_counts: dict[RecordingState, int]
    segment_counts: SegmentCounts
    audio_s: AudioSeconds
    finished: bool
    paused: bool
    """None of its work is begun until it goes on."""


class Eta(Out):
    """When a batch will be done, if all goes on as in the last minutes and nothing more urgent comes."""

    eta_s: float | None
    """Seconds from now; null where `reason` says why."""
    reason: NoEta | None
    """`paused`; `awaiting_media`, `not_split`: how long its recordings are is not known; `no_throughput`: nothing
    was transcribed in the last 10 minutes."""
    audio_left_s: float
    """Of the batch, as far as it is split."""
    audio_before_s: float
    """Of other work that is served before the batch's last segment."""
    rtfx: float
    """Seconds of audio transcribed per second, in the last 10 minutes."""


class BatchWithEta(Batch):
    """One batch, and when it will be done."""

    eta: Eta | None
    """Null once it is finished."""


class Failure(Out):
    code: str
    reason: str


class UploadState(Out):
    url: str
    offset_bytes: int


class Coverage(Out):
    transcribed_s: float
    no_speech_s: float
    failed_s: float


class Attempt(Out):
    """One try at splitting a recording, or at transcribing one of its segments."""

    id: int
    segment_index: int | None
    """Empty: the recording was split."""
    start_s: float | None
    end_s: float | None
    number: int
    """Counted from 1 for each recording and each segment."""
    worker_id: int
    host: str
    outcome: AttemptOutcome
    error_code: str | None
    error_message: str | None
    started_at: dt.datetime
    finished_at: dt.datetime | None


class AttemptPage(BaseModel):
    items: list[Attempt]
    next: int | None


class Media(BaseModel):
    """What a media file says of itself. Fields came with time: null where the recording was split before."""

    container: str | None = None
    codec: str | None = None
    channels: int | None = None
    sample_rate_hz: int | None = None
    n_audio_tracks: int | None = None
    audio_track: int | None = None
    """The track that was transcribed, counted from 0; null where several were mixed."""
    tracks_mixed: list[int] = []
    """Those, if so."""
    title: str | None = None
    programme: str | None = None
    date: str | None = None
    """As written in the file."""
    timecode: str | None = None
    """As written in the file."""


class Recording(Out):
    """A recording and what became of it."""

    id: uuid.UUID
    batch_id: uuid.UUID
    name: str
    programme: str | None
    programme_kind: str | None
    broadcast_on: dt.date | None
    timecode_offset: str | None
    """HH:MM:SS.mmm: what the clock showed at the first moment, as submitted or else as the file says; null where
    neither does."""
    audio_track: str
    """The sound track asked for: `auto`, `mix` or a number."""
    media: Media | None
    """Null until it is split."""
    state: RecordingState
    size_bytes: int
    sha256: str | None
    duration_s: float | None
    failure: Failure | None
    upload: UploadState | None
    segment_counts: SegmentCounts
    coverage: Coverage | None
    created_at: dt.datetime
    received_at: dt.datetime | None
    finished_at: dt.datetime | None

    @classmethod
    def of(cls, row: rows.Recording) -> Self:
        """From what `db.batches` reads."""
        failure = upload = None
        if row.failure_reason is not None:
            failure = Failure(code=row.failure_code or "failed", reason=row.failure_reason)
        if row.upload_id is not None and row.upload_offset_bytes is not None:
            upload = UploadState(url=upload_url(row.upload_id), offset_bytes=row.upload_offset_bytes)
        values = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        values |= {"timecode_offset": offset_text(row.timecode_offset_ms)}
        values |= {"media": None if row.media_info is None else Media.model_validate(row.media_info)}
        return cls.model_validate(values | {"failure": failure, "upload": upload})


class BatchWithRecordings(Batch):
    """The answer to a submission."""

    recordings: list[Recording]


class BatchPage(BaseModel):
    items: list[Batch]
    next: uuid.UUID | None
    """Pass it as `after` to read on; null at the end."""


class RecordingPage(BaseModel):
    items: list[Recording]
    next: uuid.UUID | None


class Model(Out):
    name: str
    is_demo: bool
    weights_sha256: str


class Segment(Out):
    id: int | None
    index: int
    start_s: float
    end_s: float
    state: SegmentState
    text: str | None
    mean_logprob: float | None
    confidence: float | None
    flags: list[str]
    failure_reason: str | None


class Gap(Out):
    kind: GapKind
    start_s: float
    end_s: float
    reason: str | None


class Transcript(Out):
    """A recording's current transcript, and what made it."""

    recording_id: uuid.UUID
    recording: str
    transcript_id: uuid.UUID
    model: Model | None
    notice: str | None
    prompt: str | None
    decode_settings: dict[str, Any] | None
    splitter_version: str
    code_version: str
    duration_s: float
    timecode_offset: str | None
    """HH:MM:SS.mmm: what the clock showed at the first moment. All `_s` count from that moment."""
    transcribed_s: float | None
    no_speech_s: float | None
    failed_s: float | None
    finished_at: dt.datetime | None
    segments: list[Segment]
    gaps: list[Gap]

    @classmethod
    def of(cls, transcript: transcripts.Transcript) -> Self:
        """From what `db.transcripts` reads."""
        values = {name: getattr(transcript, name) for name in cls.model_fields if hasattr(transcript, name)}
        return cls.model_validate(values | {"timecode_offset": offset_text(transcript.timecode_offset_ms)})


class DrawIn(BaseModel):
    """How many segments to draw for correction."""

    model_config = ConfigDict(extra="forbid")

    n: Annotated[int, Field(ge=1, le=MAX_DRAWN, strict=True)] = 20


class CorrectionIn(BaseModel):
    """What a person says is said in a segment; empty where nothing is."""

    model_config = ConfigDict(extra="forbid")

    text: str
    corrected_by: Annotated[str, Field(description="Who says so: a name or an account.")]


class ManyCorrectionsItem(CorrectionIn):
    segment_id: Annotated[int, Field(ge=1, le=MAX_BIGINT, strict=True)]


class ManyCorrectionsIn(BaseModel):
    """Corrections stored all or none."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[list[ManyCorrectionsItem], Field(min_length=1, max_length=MAX_CORRECTIONS)]


class ManyCorrections(BaseModel):
    n_stored: int
    n_unchanged: int
    """Whose text was the current correction already."""


class Correction(Out):
    """A segment's correction."""

    id: int
    segment_id: int
    recording_id: uuid.UUID
    text: str
    is_drawn: bool
    """The segment was drawn for correction; otherwise a person chose it."""
    is_current: bool
    corrected_by: str
    created_at: dt.datetime


class CorrectedText(Correction):
    """A correction beside what the model wrote."""

    recording: str
    start_s: float
    end_s: float
    transcribed: str


class CorrectionPage(BaseModel):
    items: list[CorrectedText]
    next: int | None


class SegmentToCorrect(Out):
    """A segment with what a person needs to correct it."""

    segment_id: int
    recording_id: uuid.UUID
    recording: str
    programme: str | None
    programme_kind: str | None
    broadcast_on: dt.date | None
    index: int
    start_s: float
    end_s: float
    state: SegmentState
    text: str | None
    """What the model wrote."""
    flags: list[str]
    corrected: str | None
    """The current correction; null without one."""
    drawn_at: dt.datetime | None
    stratum: str | None
    audio_url: str
    """The recording's audio, at this segment: a browser plays just that."""
    notice: str | None

    @classmethod
    def of(cls, row: corrections.Segment) -> Self:
        """From what `db.corrections` reads."""
        values = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        audio_url = f"/v1/recordings/{row.recording_id}/audio#t={row.start_s:.3f},{row.end_s:.3f}"
        notice = transcripts.DEMO_NOTICE if row.is_demo else None
        return cls.model_validate(values | {"audio_url": audio_url, "notice": notice})


class SegmentPage(BaseModel):
    items: list[SegmentToCorrect]
    next: int | None


def offset_text(offset_ms: int | None) -> str | None:
    """A timecode offset as it is shown."""
    return None if offset_ms is None else clock(offset_ms)


def upload_url(upload_id: uuid.UUID) -> str:
    """Where an unfinished upload goes on."""
    return f"/v1/uploads/{upload_id}"
