"""Corrections: draw segments for people to correct, take what they say is said, give it out again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.auth import Caller, CallerOrPage
from api.parts import UsesParts
from api.problems import Problem
from api.schemas import (
    MAX_BIGINT,
    CorrectedText,
    Correction,
    CorrectionIn,
    CorrectionPage,
    DrawIn,
    ManyCorrections,
    ManyCorrectionsIn,
    SegmentPage,
    SegmentToCorrect,
)
from db import correction_draws, corrections
from db.connect import transaction

router = APIRouter(prefix="/v1", tags=["corrections"])

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int | None, Query(ge=0, le=MAX_BIGINT, description="`next` of the page before.")]
SegmentId = Annotated[int, Path(ge=1, le=MAX_BIGINT)]


class SegmentNotFound(Problem):
    status, code, title = 404, "segment_not_found", "Segment not found"

    def __init__(self, segment_id: int) -> None:
        super().__init__(
            f"there is no segment {segment_id}: a recording's transcript lists its segments' ids"
        )


class CorrectionNotFound(Problem):
    status, code, title = 404, "correction_not_found", "The segment has no correction"

    def __init__(self, segment_id: int) -> None:
        super().__init__(f"segment {segment_id} has no correction yet: send one with PUT")


class SegmentNotTranscribed(Problem):
    status, code, title = 409, "segment_not_transcribed", "The segment has no text to correct"


class BadCorrection(Problem):
    status, code, title = 422, "bad_correction", "The correction cannot be stored"


class CorrectionsRefused(Problem):
    status, code, title = 422, "corrections_refused", "Some corrections cannot be stored, so none was"


@router.post("/correction-draws", status_code=201)
def draw_segments(body: DrawIn, caller: CallerOrPage, parts: UsesParts) -> SegmentPage:
    """Draw segments at random for correction, so that each kind of programme is seen. Fewer come where fewer are
    left: only segments of the model in service that were neither drawn nor corrected."""
    with transaction(parts.engine) as tx:
        drawn = correction_draws.draw_segments(
            tx.connection, caller.id, body.n, window_days=parts.settings.drift_window_days
        )
        found = correction_draws.find_segments(tx.connection, caller.id, drawn)
    return SegmentPage(items=[SegmentToCorrect.of(row) for row in found], next=None)


@router.get("/correction-draws")
def list_draws(caller: Caller, parts: UsesParts, limit: Limit = 100, after: After = None) -> SegmentPage:
    """Drawn segments that nobody has corrected yet, in the order of drawing."""
    with parts.engine.connect() as connection:
        found = correction_draws.list_open_draws(connection, caller.id, limit=limit + 1, after=after)
    return SegmentPage(
        items=[SegmentToCorrect.of(row) for row in found[:limit]],
        next=found[limit - 1].segment_id if len(found) > limit else None,
    )


@router.get("/segments/{segment_id}")
def get_segment(segment_id: SegmentId, caller: Caller, parts: UsesParts) -> SegmentToCorrect:
    """One segment, with its current correction."""
    with parts.engine.connect() as connection:
        found = corrections.find_segment(connection, caller.id, segment_id)
    if found is None:
        raise SegmentNotFound(segment_id)
    return SegmentToCorrect.of(found)


@router.put(
    "/segments/{segment_id}/correction",
    responses={201: {"description": "Stored"}, 409: {"description": "The segment has no text"}},
)
def correct_segment(
    segment_id: SegmentId, body: CorrectionIn, response: Response, caller: CallerOrPage, parts: UsesParts
) -> Correction:
    """Say what is said in a segment: equal to its text where that is right, empty where nothing is said.

    The newest correction is current; older ones are kept. The same text again changes nothing.
    """
    new = corrections.NewCorrection(segment_id, body.text, body.corrected_by)
    try:
        with transaction(parts.engine) as tx:
            stored, is_new = corrections.store_correction(tx.connection, caller.id, new)
    except corrections.SegmentUnknown as error:
        raise SegmentNotFound(segment_id) from error
    except corrections.SegmentNotTranscribed as error:
        raise SegmentNotTranscribed(str(error), state=error.state.value) from error
    except corrections.BadCorrection as error:
        raise BadCorrection(str(error)) from error
    response.status_code = 201 if is_new else 200
    return Correction.model_validate(stored)


@router.get("/segments/{segment_id}/correction")
def get_correction(segment_id: SegmentId, caller: Caller, parts: UsesParts) -> Correction:
    """A segment's current correction."""
    with parts.engine.connect() as connection:
        if corrections.find_segment(connection, caller.id, segment_id) is None:
            raise SegmentNotFound(segment_id)
        found = corrections.find_correction(connection, caller.id, segment_id)
    if found is None:
        raise CorrectionNotFound(segment_id)
    return Correction.model_validate(found)


@router.post("/corrections", responses={422: {"description": "Some cannot be stored, so none was"}})
def send_corrections(body: ManyCorrectionsIn, caller: Caller, parts: UsesParts) -> ManyCorrections:
    """Store many corrections, all or none. Sending them again changes nothing."""
    new = [corrections.NewCorrection(item.segment_id, item.text, item.corrected_by) for item in body.items]
    try:
        with transaction(parts.engine) as tx:
            n_stored = corrections.store_corrections(tx.connection, caller.id, new)
    except corrections.CorrectionsRefused as error:
        first = next(iter(error.reasons.values()))
        more = f" ({len(error.reasons) - 1} more in `errors`)" if len(error.reasons) > 1 else ""
        raise CorrectionsRefused(
            f"{first}{more}; mend or leave out what `errors` names and send the rest again",
            errors=[
                {"pointer": f"/items/{position}", "detail": reason}
                for position, reason in error.reasons.items()
            ],
        ) from error
    return ManyCorrections(n_stored=n_stored, n_unchanged=len(new) - n_stored)


@router.get("/corrections")
def list_corrections(
    caller: Caller,
    parts: UsesParts,
    limit: Limit = 100,
    after: After = None,
    with_older: Annotated[bool, Query(description="Those too that a newer one replaced.")] = False,
) -> CorrectionPage:
    """Corrections beside what the model wrote, in the order in which they were made."""
    with parts.engine.connect() as connection:
        found = corrections.list_corrections(
            connection, caller.id, limit=limit + 1, after=after, with_older=with_older
        )
    return CorrectionPage(
        items=[CorrectedText.model_validate(row) for row in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )
