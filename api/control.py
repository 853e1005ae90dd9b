"""What a submitter tells the queue: pause and go on, cancel, try again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection

from api.auth import Caller
from api.parts import Parts, UsesParts
from api.problems import BatchNotFound, Problem, RecordingNotFound
from api.schemas import Batch, IsoDate, Label, Recording
from db import batches, control, retranscribe
from db.connect import transaction
from db.control import Target
from db.retranscribe import Selection
from workers.queue import wake_split, wake_transcribe

router = APIRouter(prefix="/v1", tags=["control"])

AGAIN_STEPS = 5
"""Steps of 100 recordings that one request begins."""

MOVES = 5
"""Steps of moving segments that a request takes itself, of 200 recordings each; the sweep takes the others."""


class ModelUnknown(Problem):
    status, code, title = 422, "model_unknown", "No such model has been run"


class Again(BaseModel):
    """Which finished recordings are to be transcribed again; what is left out does not narrow."""

    model_config = ConfigDict(extra="forbid")

    batch_id: uuid.UUID | None = None
    recording_id: uuid.UUID | None = None
    programme: Label | None = None
    from_: Annotated[IsoDate | None, Field(alias="from")] = None
    """First day of broadcast."""
    to: IsoDate | None = None
    transcribed_by: Label | None = None
    """Name of the model of the current transcript."""
    model: Label | None = None
    """Name of the model that is to do it; the deployed one where it is left out."""
    after: uuid.UUID | None = None
    """`next` of the answer before."""


class AgainAnswer(BaseModel):
    n_recordings: int
    """Put into the queue by this request."""
    next: uuid.UUID | None
    """Send it as `after`, with the same selection, for the others."""


class Cancelled(BaseModel):
    """What was stopped."""

    n_recordings: int


class Retried(BaseModel):
    """What is tried again, in recordings."""

    awaiting_media: int
    """They have no media: upload it again."""
    split_again: int
    """Read anew from the beginning."""
    transcribed_again: int
    """Only what is missing of them."""


Told = TypeVar("Told")


def _tell(parts: Parts, target: Target, what: Callable[[Connection, Target], Told]) -> Told:
    """Tell the queue; move segments at once as far as that is quick; wake the workers that may have work now."""
    with transaction(parts.engine) as tx:
        told = what(tx.connection, target)
        tx.after_commit(wake_split)
    for _ in range(MOVES):
        with transaction(parts.engine) as tx:
            if not control.move_held(tx.connection):
                break
    wake_transcribe()
    return told


def _batch(parts: Parts, broadcaster_id: int, batch_id: uuid.UUID) -> Batch:
    with parts.engine.connect() as connection:
        found = batches.find_batch(connection, broadcaster_id, batch_id)
    if found is None:
        raise BatchNotFound(batch_id)
    return Batch.model_validate(found)


def _recording(parts: Parts, broadcaster_id: int, recording_id: uuid.UUID) -> Recording:
    with parts.engine.connect() as connection:
        found = batches.find_recording(connection, broadcaster_id, recording_id)
    if found is None:
        raise RecordingNotFound(recording_id)
    return Recording.of(found)


@router.post("/batches/{batch_id}/pause")
def pause_batch(batch_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Batch:
    """Begin no more work of a batch. What is under way is finished; uploads go on. Twice is once."""
    if not _tell(parts, Target(caller.id, batch_id), control.pause):
        raise BatchNotFound(batch_id)
    return _batch(parts, caller.id, batch_id)


@router.post("/batches/{batch_id}/resume")
def resume_batch(batch_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Batch:
    """Begin a paused batch's work again."""
    if not _tell(parts, Target(caller.id, batch_id), control.resume):
        raise BatchNotFound(batch_id)
    return _batch(parts, caller.id, batch_id)


@router.post("/batches/{batch_id}/cancel")
def cancel_batch(batch_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Cancelled:
    """Stop all recordings of a batch that are not finished. What is under way is finished and kept for a retry."""
    _batch(parts, caller.id, batch_id)
    return Cancelled(n_recordings=len(_tell(parts, Target(caller.id, batch_id), control.cancel)))


@router.post("/batches/{batch_id}/retry")
def retry_batch(batch_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Retried:
    """Try again what failed or was cancelled, and only that: what was transcribed stays."""
    _batch(parts, caller.id, batch_id)
    return Retried(**vars(_tell(parts, Target(caller.id, batch_id), control.retry)))


@router.post("/recordings/{recording_id}/cancel")
def cancel_recording(recording_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Recording:
    """Stop a recording. One that is finished stays as it is."""
    _tell(parts, Target(caller.id, recording_id=recording_id), control.cancel)
    return _recording(parts, caller.id, recording_id)


@router.post("/recordings/{recording_id}/retry")
def retry_recording(recording_id: uuid.UUID, caller: Caller, parts: UsesParts) -> Recording:
    """Try again what failed of a recording, or what was missing when it was cancelled."""
    _tell(parts, Target(caller.id, recording_id=recording_id), control.retry)
    return _recording(parts, caller.id, recording_id)


@router.post("/transcriptions", status_code=202)
def transcribe_again(body: Again, caller: Caller, parts: UsesParts) -> AgainAnswer:
    """Transcribe finished recordings again, up to 500 a request. The current transcript of each stays readable until
    the new one is finished, and is then replaced at once. Recordings that are under way are left alone, so that a
    request may be sent again."""
    selection = Selection(
        caller.id, body.batch_id, body.recording_id, body.programme, body.from_, body.to, body.transcribed_by
    )
    n_recordings, after = 0, body.after
    for _ in range(AGAIN_STEPS):
        try:
            with transaction(parts.engine) as tx:
                begun = retranscribe.transcribe_again(tx.connection, selection, model=body.model, after=after)
        except retranscribe.ModelUnknown as error:
            raise ModelUnknown(str(error)) from error
        n_recordings += begun.n_recordings
        after = begun.last
        if after is None:
            break
    wake_split()
    wake_transcribe()
    return AgainAnswer(n_recordings=n_recordings, next=after)
