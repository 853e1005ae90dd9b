"""A span of a recording as a file to hear or keep: cut, levelled, faded, encoded.

Making one decodes seconds of sound and holds them, so their length and their number at a time are bounded, and what it
takes (numpy, PyAV, pydub) is loaded by the first clip.
"""

from __future__ import annotations

import threading
import uuid
from contextlib import closing
from typing import Annotated, Literal
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Query, Request, Response

from api.audio import AudioMissing, find_copy
from api.auth import Caller
from api.parts import UsesParts
from api.problems import Problem
from db.media_store import MediaMissing
from db.schema import SAMPLE_RATE_HZ

router = APIRouter(prefix="/v1/recordings", tags=["recordings"])

MEDIA_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg"}
CLIPS_AT_ONCE = 4
"""Made at the same time by one process: one of 300 s takes some 65 MiB while it is made."""
PATIENCE_S = 20.0
"""How long a request waits for its turn."""
MAKING = 1
"""Changes with whatever makes another file of the same sound, so that nobody keeps the old one."""

_turns = threading.BoundedSemaphore(CLIPS_AT_ONCE)

log = structlog.get_logger(__name__)


class ClipOutside(Problem):
    status, code, title = 422, "clip_outside", "The recording has no such span"


class ClipTooLong(Problem):
    status, code, title = 422, "clip_too_long", "The clip would be too long"


class ClipsBusy(Problem):
    status, code, title = 503, "clips_busy", "Too many clips are being made"


class AudioDamaged(Problem):
    status, code, title = 500, "audio_damaged", "The recording's audio cannot be read"


def clip_name(recording: str, start_s: float, end_s: float, form: str) -> str:
    """File name of a clip: the recording's, and from where to where. `noticias_00-12-03_00-12-33.mp3`."""

    def clock(seconds: float) -> str:
        whole = int(seconds)
        return f"{whole // 3600:02}-{whole // 60 % 60:02}-{whole % 60:02}"

    stem = recording.rsplit("/", 1)[-1].rsplit(".", 1)[0] or "clip"
    return f"{stem}_{clock(start_s)}_{clock(end_s)}.{form}"


@router.get(
    "/{recording_id}/clip",
    response_class=Response,
    responses={
        200: {"content": {media_type: {} for media_type in MEDIA_TYPES.values()}},
        409: {"description": "Not split yet"},
        410: {"description": "Expired; the detail says how it comes back"},
        503: {"description": "Too many clips are being made: ask again"},
    },
)
def get_clip(
    recording_id: uuid.UUID,
    request: Request,
    caller: Caller,
    parts: UsesParts,
    from_s: Annotated[
        float,
        Query(alias="from", ge=0, allow_inf_nan=False, description="Seconds from the recording's start."),
    ],
    to_s: Annotated[
        float,
        Query(alias="to", gt=0, allow_inf_nan=False, description="Where it ends; behind the end: there."),
    ],
    form: Annotated[Literal["mp3", "opus"], Query(alias="format", description="Opus comes in Ogg.")] = "mp3",
) -> Response:
    """A span of a recording as MP3 or Opus, mono: brought to a mean level of -20 dBFS, faded in and out within 20 ms,
    at most `FONOTECA_CLIP_MAX_S` (300 s) long."""
    copy, key = find_copy(parts, caller.id, recording_id)
    assert copy.duration_samples is not None
    duration_s = copy.duration_samples / SAMPLE_RATE_HZ
    start_sample = round(from_s * SAMPLE_RATE_HZ)
    end_sample = min(round(to_s * SAMPLE_RATE_HZ), copy.duration_samples)
    if start_sample >= end_sample:
        raise ClipOutside(
            f"{copy.name} has nothing from {from_s:g} to {to_s:g} s: ask for a span within its {duration_s:.3f} s, its "
            "end behind its start"
        )
    max_s = parts.settings.clip_max_s
    if end_sample - start_sample > max_s * SAMPLE_RATE_HZ:
        raise ClipTooLong(
            f"from {from_s:g} to {to_s:g} s is more than the {max_s:g} s that a clip may have: ask for less, or take "
            f"the sound as it is, with Range, from /v1/recordings/{recording_id}/audio",
            max_s=max_s,
        )
    # the working copy's name changes with its bytes
    etag = f'"{key.rsplit("/", 1)[-1]}-{start_sample}-{end_sample}-{MAKING}.{form}"'
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"ETag": etag})

    from speech.clip import ClipFormat, make_clip
    from speech.errors import MediaError

    if not _turns.acquire(timeout=PATIENCE_S):
        raise ClipsBusy(
            "the server makes as many clips as it may: ask again in a few seconds",
            headers={"Retry-After": "5"},
        )
    try:
        with closing(parts.media_store.open(key)) as reader:
            content = make_clip(reader, start_sample, end_sample, ClipFormat(form))
    except MediaMissing as error:
        raise AudioMissing(
            f"the audio of recording {recording_id} is not in the object store: whoever runs this server can restore it"
        ) from error
    except (MediaError, ValueError) as error:
        log.warning("working_copy_unreadable", recording_id=str(recording_id), error=str(error))
        raise AudioDamaged(
            f"the audio of {copy.name} cannot be read from {from_s:g} to {to_s:g} s: have it transcribed again after "
            "whoever runs this server has restored the working copy from a backup"
        ) from error
    finally:
        _turns.release()
    name = clip_name(copy.name, start_sample / SAMPLE_RATE_HZ, end_sample / SAMPLE_RATE_HZ, form)
    headers = {
        "ETag": etag,
        # both forms of RFC 6266: plain for old clients, UTF-8 for names such as "Día a día"
        "Content-Disposition": f"attachment; filename=\"clip.{form}\"; filename*=UTF-8''{quote(name, safe='')}",
    }
    return Response(content, media_type=MEDIA_TYPES[form], headers=headers)
