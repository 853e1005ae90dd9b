"""What a submitter tells the queue: pause and go on, cancel, try again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Connection

from api.auth import Caller
from api.parts import Parts, UsesParts
from api.problems import BatchNotFound, RecordingNotFound
from api.schemas import Batch, Recording
from db import batches, control
from db.connect import transaction
from db.control import Target
from workers.queue import wake_split, wake_transcribe

router = APIRouter(prefix="/v1", tags=["control"])

MOVES = 5
"""Steps of moving segments that a request takes itself, of 200 recordings each; the sweep takes the others."""


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
