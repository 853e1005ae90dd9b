"""One recording's current transcript, read whole."""

from __future__ import annotations

import datetime as dt
import math
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.schema import SAMPLE_RATE_HZ
from db.states import GapKind, SegmentState

DEMO_NOTICE = "Made by Fonoteca's demo model, trained on synthetic speech: not for real use."
"""Stands wherever text of the demo model is shown."""


@dataclass(frozen=True)
class Segment:
    """A span of speech and its text."""

    index: int
    start_s: float
    end_s: float
    state: SegmentState
    text: str | None
    """None unless the segment is done."""
    mean_logprob: float | None
    flags: tuple[str, ...]
    failure_reason: str | None
    id: int | None = None
    """By which it is corrected."""

    @property
    def confidence(self) -> float | None:
        """Geometric mean of the token probabilities, 0 to 1."""
        return None if self.mean_logprob is None else round(math.exp(self.mean_logprob), 3)


@dataclass(frozen=True)
class Gap:
    """A span without a segment."""

    kind: GapKind
    start_s: float
    end_s: float
    reason: str | None


@dataclass(frozen=True)
class Model:
    """The checkpoint that made the text."""

    name: str
    is_demo: bool
    weights_sha256: str


@dataclass(frozen=True)
class Transcript:
    """A recording's current transcript. While it is unfinished the three sums are None."""

    recording_id: uuid.UUID
    recording: str
    transcript_id: uuid.UUID
    model: Model | None
    prompt: str | None
    decode_settings: dict[str, Any] | None
    splitter_version: str
    code_version: str
    duration_s: float
    transcribed_s: float | None
    no_speech_s: float | None
    failed_s: float | None
    finished_at: dt.datetime | None
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    timecode_offset_ms: int | None = None
    """What the clock showed at the recording's first sample."""

    @property
    def notice(self) -> str | None:
        """What a reader must know before trusting the text."""
        return DEMO_NOTICE if self.model is not None and self.model.is_demo else None


def _seconds(samples: int) -> float:
    return round(int(samples) / SAMPLE_RATE_HZ, 3)


def find_transcript(
    connection: Connection, broadcaster_id: int, recording_id: uuid.UUID
) -> Transcript | None:
    """A recording's current transcript with its segments and gaps in order; None where there is none yet."""
    head = connection.execute(
        text(
            """
            SELECT t.id, r.name AS recording, m.name AS model, m.is_demo, m.weights_sha256, t.prompt,
                   t.decode_settings, t.splitter_version, t.code_version, t.duration_samples,
                   t.transcribed_samples, t.no_speech_samples, t.failed_samples, t.finished_at,
                   r.timecode_offset_ms
            FROM transcripts t
            JOIN recordings r ON r.id = t.recording_id
            LEFT JOIN models m ON m.id = t.model_id
            WHERE t.recording_id = :recording_id AND t.broadcaster_id = :broadcaster_id AND t.is_current
            """
        ),
        {"recording_id": recording_id, "broadcaster_id": broadcaster_id},
    ).one_or_none()
    if head is None:
        return None
    segments = connection.execute(
        text(
            "SELECT id, index AS position, start_sample, end_sample, state, text, mean_logprob, flags, failure_reason "
            "FROM segments WHERE transcript_id = :id ORDER BY start_sample"
        ),
        {"id": head.id},
    )
    gaps = connection.execute(
        text(
            "SELECT kind, start_sample, end_sample, reason FROM gaps "
            "WHERE transcript_id = :id ORDER BY start_sample"
        ),
        {"id": head.id},
    )
    finished = head.finished_at is not None
    return Transcript(
        recording_id=recording_id,
        recording=head.recording,
        transcript_id=head.id,
        model=None if head.model is None else Model(head.model, head.is_demo, head.weights_sha256),
        prompt=head.prompt,
        decode_settings=head.decode_settings,
        splitter_version=head.splitter_version,
        code_version=head.code_version,
        duration_s=_seconds(head.duration_samples),
        transcribed_s=_seconds(head.transcribed_samples) if finished else None,
        no_speech_s=_seconds(head.no_speech_samples) if finished else None,
        failed_s=_seconds(head.failed_samples) if finished else None,
        finished_at=head.finished_at,
        timecode_offset_ms=head.timecode_offset_ms,
        segments=tuple(
            Segment(
                index=row.position,
                start_s=_seconds(row.start_sample),
                end_s=_seconds(row.end_sample),
                state=SegmentState(row.state),
                text=row.text,
                mean_logprob=row.mean_logprob,
                flags=tuple(row.flags),
                failure_reason=row.failure_reason if row.state == "failed" else None,
                id=row.id,
            )
            for row in segments
        ),
        gaps=tuple(
            Gap(GapKind(row.kind), _seconds(row.start_sample), _seconds(row.end_sample), row.reason)
            for row in gaps
        ),
    )
