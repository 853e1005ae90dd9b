"""The web pages: sign in, the list of recordings, one recording, corrections, the documentation.

No build step, no CDN.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request, Response
from markupsafe import Markup, escape
from starlette.responses import RedirectResponse
from starlette.templating import Jinja2Templates

from api.auth import SESSION_COOKIE, identify
from api.export.timecode import clock
from api.parts import UsesParts
from api.problems import Problem, RecordingNotFound, UnknownApiKey, known_problems
from db.batches import find_recording, list_newest_recordings
from db.broadcasters import find_broadcaster_by_key
from db.states import RECORDING_FINISHED, RecordingState, SegmentState
from db.transcripts import Transcript, find_transcript

PAGE_ROWS = 50

LOW_CONFIDENCE = 0.6
"""Below it a segment's text is marked as doubtful."""

FAIR_CONFIDENCE = 0.85

router = APIRouter(include_in_schema=False)
templates = Jinja2Templates(directory=Path(__file__).parent / "templates")


class ForeignForm(Problem):
    status, code, title = 403, "foreign_form", "The form was sent by another site"


def human_clock(seconds: float) -> str:
    """h:mm:ss, or m:ss below an hour."""
    hours, minutes, whole = clock(int(seconds * 1000), ".").split(".")[0].split(":")
    return f"{int(hours)}:{minutes}:{whole}" if int(hours) else f"{int(minutes)}:{whole}"


def human_bytes(count: int) -> str:
    """A size as people read it."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def confidence_class(confidence: float | None) -> str:
    """How a segment's text is marked."""
    if confidence is None or confidence >= FAIR_CONFIDENCE:
        return "sure"
    return "fair" if confidence >= LOW_CONFIDENCE else "doubtful"


def with_code(description: str) -> Markup:
    """A docstring's `words` set as code."""
    parts = description.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


templates.env.filters |= {
    "clock": human_clock,
    "timecode": clock,
    "bytes": human_bytes,
    "confidence_class": confidence_class,
    "with_code": with_code,
}
templates.env.trim_blocks = templates.env.lstrip_blocks = True


def error_page(request: Request, content: dict[str, Any], headers: Mapping[str, str] | None) -> Response:
    """A problem for a person."""
    return templates.TemplateResponse(
        request, "error.html", {"problem": content}, status_code=content["status"], headers=headers
    )


def sign_in_page(request: Request, *, refused: bool = False) -> Response:
    """The page that asks for a key."""
    return templates.TemplateResponse(
        request, "sign_in.html", {"refused": refused}, status_code=401 if refused else 200
    )


@router.post("/session")
def sign_in(request: Request, parts: UsesParts, key: Annotated[str, Form()]) -> Response:
    """Check a key and keep it in a cookie that only this site's pages send and no script reads."""
    # a browser names the origin of a form: another site must not sign people in under its own key
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        raise ForeignForm("the sign-in form came from another site: open this site and sign in there")
    with parts.engine.connect() as connection:
        broadcaster = find_broadcaster_by_key(connection, key.strip())
    if broadcaster is None:
        return sign_in_page(request, refused=True)
    response = RedirectResponse("/", status_code=303)
    response.set_cookie(
        SESSION_COOKIE,
        key.strip(),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return response


@router.post("/session/end")
def sign_out() -> Response:
    """Forget the key."""
    response = RedirectResponse("/", status_code=303)
    response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")
    return response


@router.get("/")
def list_page(
    request: Request,
    parts: UsesParts,
    after: uuid.UUID | None = None,
    state: Annotated[RecordingState | Literal[""] | None, Query()] = None,  # the form's "all" sends ""
) -> Response:
    """The broadcaster's recordings, newest first; the sign-in page for everybody else."""
    broadcaster = identify(request, parts)
    if broadcaster is None:
        return sign_in_page(request)
    with parts.engine.connect() as connection:
        found = list_newest_recordings(
            connection, broadcaster.id, limit=PAGE_ROWS + 1, after=after, state=state or None
        )
    return templates.TemplateResponse(
        request,
        "recordings.html",
        {
            "broadcaster": broadcaster,
            "recordings": found[:PAGE_ROWS],
            "next": found[PAGE_ROWS - 1].id if len(found) > PAGE_ROWS else None,
            "after": after,
            "state": state,
            "states": list(RecordingState),
        },
    )


def coverage_spans(transcript: Transcript) -> list[dict[str, Any]]:
    """Every span of a recording in order: what became of it, and where it lies in thousandths of the whole."""
    kinds = {SegmentState.DONE: "transcribed", SegmentState.FAILED: "failed"}
    spans = [
        (segment.start_s, segment.end_s, kinds.get(segment.state, "waiting"), segment.failure_reason)
        for segment in transcript.segments
    ] + [(gap.start_s, gap.end_s, gap.kind.value, gap.reason) for gap in transcript.gaps]
    scale = 1000 / transcript.duration_s if transcript.duration_s else 0
    return [
        {
            "start_s": start_s,
            "end_s": end_s,
            "kind": kind,
            "reason": reason,
            "x": round(start_s * scale, 3),
            "width": round((end_s - start_s) * scale, 3),
        }
        for start_s, end_s, kind, reason in sorted(spans, key=lambda span: span[0])
    ]


@router.get("/recordings/{recording_id}")
def recording_page(request: Request, recording_id: uuid.UUID, parts: UsesParts) -> Response:
    """One recording: where it stands, and its transcript."""
    broadcaster = identify(request, parts)
    if broadcaster is None:
        raise UnknownApiKey
    with parts.engine.connect() as connection:
        recording = find_recording(connection, broadcaster.id, recording_id)
        transcript = find_transcript(connection, broadcaster.id, recording_id)
    if recording is None:
        raise RecordingNotFound(recording_id)
    spans = coverage_spans(transcript) if transcript else []
    return templates.TemplateResponse(
        request,
        "recording.html",
        {
            "broadcaster": broadcaster,
            "recording": recording,
            "transcript": transcript,
            "spans": spans,
            "failed_spans": [span for span in spans if span["kind"] == "failed"],
            "finished": recording.state in RECORDING_FINISHED,
            "low_confidence": LOW_CONFIDENCE,
        },
    )


@router.get("/corrections")
def corrections_page(request: Request, parts: UsesParts) -> Response:
    """Where a person hears drawn segments and writes what is said; its script talks to the API."""
    broadcaster = identify(request, parts)
    if broadcaster is None:
        raise UnknownApiKey
    return templates.TemplateResponse(request, "corrections.html", {"broadcaster": broadcaster})


@router.get("/docs")
def docs_page(request: Request) -> Response:
    """What the API can do, and every problem it may answer with."""
    operations = [
        {
            "method": method.upper(),
            "path": path,
            "summary": operation.get("summary", ""),
            "description": operation.get("description", ""),
            "tag": next(iter(operation.get("tags", [])), ""),
        }
        for path, methods in request.app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]
    return templates.TemplateResponse(
        request, "docs.html", {"operations": operations, "problems": known_problems()}
    )
