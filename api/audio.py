"""A recording's audio for the ear, and its peaks for the eye: whole, or any part that a browser asks for."""

from __future__ import annotations

import re
import uuid

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from api.auth import Caller
from api.parts import Parts, UsesParts
from api.problems import Problem, RecordingNotFound
from db.batches import RecordingUnknown
from db.copies import WorkingCopy, find_working_copy
from db.media_store import MediaMissing, MediaStore, peaks_key
from db.states import RecordingState

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])

MEDIA_TYPE = "audio/flac"
PEAKS_MEDIA_TYPE = "application/octet-stream"
RANGE_FORM = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


class AudioNotReady(Problem):
    status, code, title = 409, "audio_not_ready", "The recording has no audio to hear yet"


class AudioMissing(Problem):
    status, code, title = 404, "audio_missing", "The recording's audio is gone"


class RangeNotSatisfiable(Problem):
    status, code, title = 416, "range_not_satisfiable", "The range lies behind the end"


class AudioExpired(Problem):
    status, code, title = 410, "audio_expired", "The recording's audio was removed after its time"


class PeaksMissing(Problem):
    status, code, title = 404, "peaks_missing", "The recording has no peaks"


def parse_range(value: str, size_bytes: int) -> tuple[int, int] | None:
    """(first byte, byte behind the last) of a Range header; None where the whole is to be sent: no range, several,
    or one of a form not known (RFC 9110, section 14.2).

    Raises:
        RangeNotSatisfiable: nothing of the range exists.
    """
    match = RANGE_FORM.fullmatch(value.replace(" ", ""))
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(
            f"bytes {value.partition('=')[2]} were asked for, and there are {size_bytes}: ask for less",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )
    return start, stop


def find_copy(parts: Parts, broadcaster_id: int, recording_id: uuid.UUID) -> tuple[WorkingCopy, str]:
    """A recording's working copy, and its key.

    Raises:
        RecordingNotFound: the broadcaster has no such recording.
        AudioNotReady: it was not split yet, or is being read anew.
        AudioExpired: it was removed on purpose; says what to do.
    """
    with parts.engine.connect() as connection:
        try:
            copy = find_working_copy(connection, broadcaster_id, recording_id)
        except RecordingUnknown as error:
            raise RecordingNotFound(recording_id) from error
    if copy.key is not None:
        return copy, copy.key
    if copy.expired_at is None:
        raise AudioNotReady(f"recording {recording_id} was not split yet: ask again once it is transcribing")
    if copy.state in (RecordingState.RECEIVED, RecordingState.SPLITTING):
        raise AudioNotReady(
            f"the audio of {copy.name} is being made again: ask again once it is transcribing"
        )
    has_original = copy.media_key is not None and parts.media_store.has(copy.media_key)
    raise AudioExpired(
        f"the audio of {copy.name} was removed on {copy.expired_at:%Y-%m-%d}, as this server does some time after a "
        "recording is finished; its transcript stays. "
        + (
            f"To hear it, have it transcribed again (`fonoteca transcribe-again {recording_id}`): its audio is made "
            "again from the original"
            if has_original
            else "Its original is not in the object store any more either, so it cannot be made again: "
            "submit the recording anew, or have the operator put the original back"
        ),
        expired_at=copy.expired_at.isoformat(),
        has_original=has_original,
    )


def send_object(request: Request, store: MediaStore, key: str, media_type: str) -> Response:
    """An object of the store, whole or the part that `Range` asks for; 304 where the caller has it already.

    Raises:
        MediaMissing: no such object.
        RangeNotSatisfiable: see `parse_range`.
    """
    size_bytes = store.size_bytes(key)
    # each split has a key of its own, and its bytes never change
    etag = f'"{key.rsplit("/", 1)[-1]}-{size_bytes}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range", "")
    wanted = parse_range(asked, size_bytes) if request.headers.get("if-range", etag) == etag else None
    start, stop = wanted or (0, size_bytes)
    content = store.stream(key, start, stop)
    headers["Content-Length"] = str(stop - start)
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    return StreamingResponse(content, 206 if wanted else 200, headers=headers, media_type=media_type)


@router.get(
    "/{recording_id}/audio",
    response_class=StreamingResponse,
    responses={
        200: {"content": {MEDIA_TYPE: {}}},
        206: {"description": "The part that `Range` asked for", "content": {MEDIA_TYPE: {}}},
        409: {"description": "Not split yet"},
        410: {"description": "Expired; the detail says how it comes back"},
    },
)
def get_audio(recording_id: uuid.UUID, request: Request, caller: Caller, parts: UsesParts) -> Response:
    """A recording as 16 kHz mono FLAC, whole or the part that `Range` asks for. With `#t=start,end` (seconds) behind
    the address a browser plays one segment."""
    _, key = find_copy(parts, caller.id, recording_id)
    try:
        return send_object(request, parts.media_store, key, MEDIA_TYPE)
    except MediaMissing as error:
        raise AudioMissing(
            f"the audio of recording {recording_id} is not in the object store: whoever runs this server can restore it"
        ) from error


@router.get(
    "/{recording_id}/peaks",
    response_class=StreamingResponse,
    responses={
        200: {"content": {PEAKS_MEDIA_TYPE: {}}},
        206: {"description": "The part that `Range` asked for", "content": {PEAKS_MEDIA_TYPE: {}}},
        404: {"description": "Split before peaks were made"},
        409: {"description": "Not split yet"},
        410: {"description": "Expired; the detail says how it comes back"},
    },
)
def get_peaks(recording_id: uuid.UUID, request: Request, caller: Caller, parts: UsesParts) -> Response:
    """What a player draws of a recording's audio: BBC audiowaveform's binary form, version 2, 8 bits. A header of 24
    bytes, then the smallest and the greatest sample of every 20 ms, as two signed bytes."""
    _, key = find_copy(parts, caller.id, recording_id)
    try:
        return send_object(request, parts.media_store, peaks_key(key), PEAKS_MEDIA_TYPE)
    except MediaMissing as error:
        raise PeaksMissing(
            f"recording {recording_id} has no peaks: it was split before they were made, or they were removed. Its "
            f"audio is at /v1/recordings/{recording_id}/audio, and a player can draw it from that"
        ) from error
