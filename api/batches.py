"""Batches: submit, list, follow."""

from __future__ import annotations

import uuid
from typing import Annotated

import structlog
from fastapi import APIRouter, Header, Query, Response
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.auth import Caller
from api.export.timecode import parse_offset
from api.parts import Parts, UsesParts
from api.problems import BatchNotFound, Problem
from api.schemas import (
    MAX_RECORDINGS,
    Batch,
    BatchIn,
    BatchPage,
    BatchWithEta,
    BatchWithRecordings,
    Eta,
    Recording,
    RecordingPage,
)
from db import batches
from db.connect import transaction
from db.throughput import WINDOW_S, Throughput, estimate_eta

router = APIRouter(prefix="/v1/batches", tags=["batches"])

log = structlog.get_logger(__name__)

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[uuid.UUID | None, Query(description="`next` of the page before.")]


class BadRecordingName(Problem):
    status, code, title = 422, "bad_recording_name", "A recording's name cannot be used"


class EmptyFile(Problem):
    status, code, title = 422, "empty_file", "A file is empty"


class FileTooLarge(Problem):
    status, code, title = 422, "file_too_large", "A file is too large"


class IdempotencyKeyReused(Problem):
    status, code, title = 422, "idempotency_key_reused", "The idempotency key came with another request"


def check_sizes(body: BatchIn, max_upload_bytes: int) -> None:
    """Raise EmptyFile or FileTooLarge for the first file that cannot be taken."""
    for index, item in enumerate(body.recordings):
        where = [{"pointer": f"/recordings/{index}/size_bytes", "detail": f"{item.size_bytes} bytes"}]
        if item.size_bytes == 0:
            raise EmptyFile(
                f"{item.name!r} has 0 bytes: leave it out, or export it again where it came from",
                errors=where,
            )
        if item.size_bytes > max_upload_bytes:
            raise FileTooLarge(
                f"{item.name!r} has {item.size_bytes} bytes, the most is {max_upload_bytes}: "
                "cut it into parts, or have FONOTECA_MAX_UPLOAD_BYTES raised",
                errors=where,
            )


@router.post("", status_code=201, responses={200: {"description": "This request made the batch before"}})
def create_batch(
    body: BatchIn,
    response: Response,
    caller: Caller,
    parts: UsesParts,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> BatchWithRecordings:
    """Submit a batch: announces its recordings, whose media then go to `/v1/uploads`."""
    check_sizes(body, parts.settings.max_upload_bytes)
    announced = [
        batches.NewRecording(
            item.name,
            item.size_bytes,
            item.sha256,
            item.programme,
            item.programme_kind,
            item.broadcast_on,
            None if item.timecode_offset is None else parse_offset(item.timecode_offset),
            item.audio_track,
        )
        for item in body.recordings
    ]
    try:
        with transaction(parts.engine) as tx:
            created = batches.create_batch(
                tx.connection,
                caller.id,
                name=body.name,
                priority=body.priority,
                recordings=announced,
                idempotency_key=idempotency_key,
            )
            answer = read_submitted(tx.connection, caller.id, created.batch_id)
    except batches.BadRecordingName as error:
        where = [{"pointer": f"/recordings/{error.index}/name", "detail": str(error)}]
        raise BadRecordingName(str(error), errors=where) from error
    except batches.IdempotencyKeyReused as error:
        raise IdempotencyKeyReused(str(error)) from error
    if created.replayed:
        response.status_code = 200
        response.headers["Idempotency-Replayed"] = "true"
    response.headers["Location"] = f"/v1/batches/{created.batch_id}"
    return answer


def read_submitted(connection: Connection, broadcaster_id: int, batch_id: uuid.UUID) -> BatchWithRecordings:
    """A batch with all its recordings."""
    batch = batches.find_batch(connection, broadcaster_id, batch_id)
    recordings = batches.list_recordings(connection, broadcaster_id, batch_id, limit=MAX_RECORDINGS)
    return BatchWithRecordings(
        **Batch.model_validate(batch).model_dump(), recordings=[Recording.of(row) for row in recordings]
    )


@router.get("")
def list_batches(caller: Caller, parts: UsesParts, limit: Limit = 50, after: After = None) -> BatchPage:
    """Batches, newest first."""
    with parts.engine.connect() as connection:
        # one more than asked tells whether there is a next page
        found = batches.list_batches(connection, caller.id, limit=limit + 1, after=after)
    return BatchPage(
        items=[Batch.model_validate(row) for row in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )


@router.get("/{batch_id}")
def get_batch(batch_id: uuid.UUID, caller: Caller, parts: UsesParts) -> BatchWithEta:
    """One batch with the counts of what became of it, and when it will be done."""
    with parts.engine.connect() as connection:
        batch = batches.find_batch(connection, caller.id, batch_id)
    if batch is None:
        raise BatchNotFound(batch_id)
    eta = None
    if not batch.finished:
        throughput = recent_throughput(parts)  # on a connection of its own: this request holds none meanwhile
        with parts.engine.connect() as connection:
            eta = estimate_eta(connection, batch, throughput)
    return BatchWithEta(
        **Batch.model_validate(batch).model_dump(), eta=None if eta is None else Eta.model_validate(eta)
    )


def recent_throughput(parts: Parts) -> Throughput:
    """As it was measured a moment ago; none where that took the database too long. A batch is told of all the same."""
    try:
        return parts.throughput.get()
    except SQLAlchemyError as error:
        log.warning("throughput_not_measured", error=str(error))
        return Throughput(0.0, WINDOW_S)


@router.get("/{batch_id}/recordings")
def list_recordings(
    batch_id: uuid.UUID, caller: Caller, parts: UsesParts, limit: Limit = 100, after: After = None
) -> RecordingPage:
    """A batch's recordings, in the order in which they were submitted."""
    with parts.engine.connect() as connection:
        if not batches.batch_exists(connection, caller.id, batch_id):
            raise BatchNotFound(batch_id)
        found = batches.list_recordings(connection, caller.id, batch_id, limit=limit + 1, after=after)
    return RecordingPage(
        items=[Recording.of(row) for row in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
    )
