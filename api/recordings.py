"""Recordings: follow one, read its transcript."""

from __future__ import annotations

import uuid
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from starlette.responses import JSONResponse

from api.auth import Caller
from api.export.ctm import render_ctm
from api.export.subtitles import render_srt, render_vtt
from api.export.text import render_txt
from api.export.timecode import BadTimecodeOffset, parse_offset
from api.export.ttml import render_ttml
from api.parts import Parts, UsesParts
from api.problems import Problem, RecordingNotFound
from api.schemas import MAX_BIGINT, Attempt, AttemptPage, Recording, Transcript
from db.attempts import list_attempts
from db.batches import find_recording
from db.states import AttemptOutcome, RecordingState
from db.transcripts import Transcript as TranscriptRow
from db.transcripts import find_transcript

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])


class TranscriptNotReady(Problem):
    status, code, title = 409, "transcript_not_ready", "There is no transcript yet"


class TimecodeOffsetUnreadable(Problem):
    status, code, title = 422, "timecode_offset_unreadable", "The timecode offset is not a time"


class TranscriptFormat(StrEnum):
    """How a transcript is written."""

    JSON = "json"
    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TTML = "ttml"
    CTM = "ctm"


RENDERERS = {
    TranscriptFormat.TXT: (render_txt, "text/plain; charset=utf-8"),
    TranscriptFormat.SRT: (render_srt, "application/x-subrip; charset=utf-8"),
    TranscriptFormat.VTT: (render_vtt, "text/vtt; charset=utf-8"),
    TranscriptFormat.TTML: (render_ttml, "application/ttml+xml; charset=utf-8"),
    TranscriptFormat.CTM: (render_ctm, "text/plain; charset=utf-8"),
}


@router.get("/{recording_id}")
def get_recording(recording_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Recording:
    """One recording and what became of it."""
    with parts.engine.connect() as connection:
        recording = find_recording(connection, caller.id, recording_id)
    if recording is None:
        raise RecordingNotFound(recording_id)
    return Recording.of(recording)


@router.get("/{recording_id}/attempts")
def list_recording_attempts(
    recording_id: uuid.UUID,
    caller: Caller,
    parts: UsesParts,
    outcome: Annotated[
        list[AttemptOutcome] | None, Query(description="Only those that ended so; several may be given.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int | None, Query(ge=0, le=MAX_BIGINT, description="`next` of the page before.")] = None,
) -> AttemptPage:
    """What was tried with a recording, and how it ended: `outcome=failed&outcome=lost` are its problems."""
    with parts.engine.connect() as connection:
        if find_recording(connection, caller.id, recording_id) is None:
            raise RecordingNotFound(recording_id)
        found = list_attempts(
            connection,
            caller.id,
            recording_id,
            limit=limit + 1,
            after=after,
            outcomes=frozenset(outcome or AttemptOutcome),
        )
    return AttemptPage(
        items=[Attempt.model_validate(row) for row in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )


def read_finished_transcript(parts: Parts, broadcaster_id: int, recording_id: uuid.UUID) -> TranscriptRow:
    """A recording's current transcript.

    Raises:
        RecordingNotFound: the broadcaster has no such recording.
        TranscriptNotReady: none is finished; says where the recording stands.
    """
    with parts.engine.connect() as connection:
        recording = find_recording(connection, broadcaster_id, recording_id)
        if recording is None:
            raise RecordingNotFound(recording_id)
        transcript = find_transcript(connection, broadcaster_id, recording_id)
    if transcript is not None and transcript.finished_at is not None:
        return transcript
    if recording.state == RecordingState.FAILED:
        detail = f"{recording.name} failed and has no transcript: {recording.failure_reason}"
    elif recording.state == RecordingState.CANCELLED:
        detail = f"{recording.name} was cancelled before it had a transcript: have it tried again, or submit it anew"
    else:
        detail = f"{recording.name} is {recording.state.value} and has no transcript yet: ask again later"
    raise TranscriptNotReady(
        detail, state=recording.state.value, failure_code=recording.failure_code, name=recording.name
    )


def requested_offset(written: str | None) -> int | None:
    """The timecode offset that a request asks for, in milliseconds.

    Raises:
        TimecodeOffsetUnreadable: it is none.
    """
    try:
        return None if written is None else parse_offset(written)
    except BadTimecodeOffset as error:
        raise TimecodeOffsetUnreadable(str(error)) from error


@router.get(
    "/{recording_id}/transcript",
    response_model=Transcript,
    responses={
        200: {
            "content": {
                "text/plain": {},
                "application/x-subrip": {},
                "text/vtt": {},
                "application/ttml+xml": {},
            }
        },
        409: {"description": "No transcript yet, or the recording failed"},
    },
)
def get_transcript(
    recording_id: uuid.UUID,
    caller: Caller,
    parts: UsesParts,
    format: Annotated[TranscriptFormat, Query()] = TranscriptFormat.JSON,  # noqa: A002 - the query's name
    timecode_offset: Annotated[
        str | None,
        Query(description="HH:MM:SS[.mmm] or 0: count times from it instead of the recording's own offset."),
    ] = None,
) -> Response:
    """A recording's current transcript: as JSON with everything known about it, as text, as subtitles (SRT, WebVTT,
    EBU-TT-D), or as CTM for scoring."""
    offset_ms = requested_offset(timecode_offset)
    transcript = read_finished_transcript(parts, caller.id, recording_id)
    if offset_ms is None:
        offset_ms = transcript.timecode_offset_ms or 0
    # the file name in both forms of RFC 6266: plain for old clients, UTF-8 for names such as "Día a día"
    stem = transcript.recording.rsplit("/", 1)[-1].rsplit(".", 1)[0] or "transcript"
    name = f"{stem}.{format.value}"
    disposition = f"inline; filename=\"transcript.{format.value}\"; filename*=UTF-8''{quote(name, safe='')}"
    headers = {"Content-Disposition": disposition}
    if format is TranscriptFormat.JSON:
        return JSONResponse(Transcript.of(transcript).model_dump(mode="json"), headers=headers)
    render, media_type = RENDERERS[format]
    return Response(render(transcript, offset_ms), media_type=media_type, headers=headers)
