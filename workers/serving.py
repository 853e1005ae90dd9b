"""Which model a GPU worker has open: the newest deployment, unless FONOTECA_MODEL names one.

A worker looks for a newer deployment between two pieces of work. It first finishes the transcripts that its model
began (a transcript is one model's from beginning to end) and begins no new ones; then it closes the model and opens the
new one in the same process. Workers do so one by one, each when it gets there.

What a model began and nobody who has it open is left to finish (its last worker died or was given another model, a
segment came back late) is finished by a worker, pinned or not, that opens the old model once more for it. It begins
nothing with it.

A worker that starts opens the newest deployment or does not start: the one before it may have been replaced because it
did harm.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import structlog
import torch
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from db.deployments import PIN_LOCK_CLASS, Deployment, deployed
from db.models import ModelPlace, find_left_behind, has_begun_segments
from evaluation.predict import Slice
from speech.checkpoint import CheckpointError, read_card
from speech.prompting import never
from workers.context import WorkerContext
from workers.evaluate import evaluate_pending
from workers.queue import wake_transcribe
from workers.transcribe import DeviceLost, Transcriber, require_weights, transcribe_pending

log = structlog.get_logger(__name__)

RETRY_S = 300.0
"""A deployment that could not be opened is tried again after so long; a newer one at once."""
LOOK_LEFT_BEHIND_S = 60.0
"""How often a worker looks for what models began that nobody has open."""
MODEL_LOCK_CLASS = 0x464F4D4F
"""First key ("FOMO") of the advisory locks on models; the second is the model's id. Shared: somebody has it open."""

CANNOT_OPEN = (CheckpointError, OSError, torch.OutOfMemoryError)


@dataclass(frozen=True)
class _Target:
    """A model to open, and where it lies."""

    model_id: int | None
    """None: not known before it is opened."""
    name: str | None
    weights_sha256: str | None
    location: str
    base: str | None

    @classmethod
    def of(cls, place: Deployment | ModelPlace) -> Self | None:
        if place.location is None:
            return None
        name = place.model if isinstance(place, Deployment) else place.name
        return cls(place.model_id, name, place.weights_sha256, place.location, place.base)


class Serving:
    """The model that this process has open, and what it works on with it."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._transcriber: Transcriber | None = None
        self._target: _Target | None = None
        """What is open."""
        self._refused: tuple[int, float] | None = None
        """The deployment that could not be opened, and when it is tried again."""
        self._checked: int | None = None
        """The deployment whose files were looked at and found good."""
        self._is_visiting = False
        """Whether what is open was opened for what it had left behind: nothing is begun with it."""
        self._looked_at = time.monotonic()
        self._lock: Connection | None = None

    # --- work ------------------------------------------------------------------------------------------------

    def transcribe(self, *, is_stopping: Callable[[], bool] = never) -> int:
        """Transcribe for a while, with a newer deployment if there is one and what was begun is finished.

        Returns, raises:
            As `workers.transcribe.transcribe_pending`.
        """
        # no name is kept for the transcriber here: it would keep the old model in memory while the new one is opened
        self.open()
        if newer := self._own():
            n_claimed = transcribe_pending(
                self._context, self.open(), is_stopping=is_stopping, may_bind=False
            )
            if n_claimed or is_stopping():
                return n_claimed
            self._switch(newer)
        elif left := self._take_left_behind():
            self._switch(left, is_visit=True)
            return transcribe_pending(self._context, self.open(), is_stopping=is_stopping, may_bind=False)
        transcriber = self.open()
        return transcribe_pending(
            self._context, transcriber, is_stopping=is_stopping, may_bind=not self._is_visiting
        )

    def evaluate(self, *, is_stopping: Callable[[], bool] = never) -> Slice | None:
        """Go on with an evaluation run, with the newest deployment.

        Returns, raises:
            As `workers.evaluate.evaluate_pending`.
        """
        model_id = self.open().binding.model_id
        if newer := self._own():
            with self._context.engine.connect() as connection:
                has_begun = has_begun_segments(connection, model_id)
            if has_begun:
                wake_transcribe()  # these first; evaluation runs wait for the new model
                return None
            self._switch(newer)
        if self._is_visiting:
            return None  # its own model could not be opened again: no run is another model's
        return evaluate_pending(self._context, self.open(), is_stopping=is_stopping)

    # --- opening ---------------------------------------------------------------------------------------------

    @property
    def transcriber(self) -> Transcriber | None:
        """What is open; None before `open`."""
        return self._transcriber

    def open(self) -> Transcriber:
        """What is open; on first call the newest deployment, or the configured model.

        Never an older deployment in its place: it may have been replaced because it did harm.

        Raises:
            CheckpointError: it cannot be opened.
        """
        if self._transcriber is not None:
            return self._transcriber
        with self._context.engine.connect() as connection:
            newest = None if self._context.settings.is_model_pinned else deployed(connection)
        if newest is None:
            return self._open(self._home())
        target = _Target.of(newest)
        assert target is not None
        try:
            return self._open(target)
        except CANNOT_OPEN as error:
            self._log_not_opened(newest, error)
            raise CheckpointError(
                f"the deployed model {newest.model} cannot be opened: {error}. Make {newest.location} reachable, or "
                "deploy another (`fonoteca model promote`); an older deployment is not opened in its place"
            ) from error

    def close(self) -> None:
        """Let go of the model."""
        self._transcriber = self._target = None
        self._is_visiting = False
        if self._lock is not None:
            # invalidate, not close: returned to the pool it would keep the lock
            self._lock.invalidate()
            self._lock.close()
            self._lock = None
        # the engine's parts refer to each other: without this the next model would need room beside it
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _own(self) -> _Target | None:
        """What this worker should have open, if it is not and may be tried: the newest deployment, or the configured
        model after a visit to one that had left something behind."""
        with self._context.engine.connect() as connection:
            newest = None if self._context.settings.is_model_pinned else deployed(connection)
        if newest is None:
            return self._home() if self._is_visiting else None
        assert self._transcriber is not None
        if newest.model_id == self._transcriber.binding.model_id:
            self._is_visiting = False  # deployed again meanwhile
            return None
        if self._refused and self._refused[0] == newest.deployment_id and time.monotonic() < self._refused[1]:
            return None
        target = _Target.of(newest)
        assert target is not None
        if self._checked != newest.deployment_id:  # gigabytes are read for it: once
            try:
                _check(target)
            except CANNOT_OPEN as error:
                self._refuse(newest, error)
                return None
            self._checked = newest.deployment_id
        return target

    def _home(self) -> _Target:
        """The model that is set; without FONOTECA_MODEL the fallback."""
        settings = self._context.settings
        base = str(settings.model_base) if settings.model_base else None
        return _Target(None, settings.model_name, None, settings.model, base)

    def _refuse(self, deployment: Deployment, error: BaseException) -> None:
        self._log_not_opened(deployment, error, again_in_s=RETRY_S)
        if self._refused is None or deployment.deployment_id >= self._refused[0]:
            self._refused = deployment.deployment_id, time.monotonic() + RETRY_S

    @staticmethod
    def _log_not_opened(deployment: Deployment, error: BaseException, **more: float) -> None:
        log.error(
            "deployment_not_opened",
            deployment_id=deployment.deployment_id,
            model=deployment.model,
            location=deployment.location,
            reason=str(error),
            **more,
        )

    def _switch(self, target: _Target, *, is_visit: bool = False) -> None:
        """Close what is open and open another; where that fails, what was open again.

        Raises:
            CheckpointError: neither can be opened.
        """
        before, was_visiting = self._target, self._is_visiting
        assert before is not None
        self.close()
        try:
            self._open(target)
            self._is_visiting = is_visit
            return
        except CANNOT_OPEN as error:
            log.error("model_not_opened", model=target.name, location=target.location, reason=str(error))
            with self._context.engine.connect() as connection:
                newest = deployed(connection)
            if newest is not None and newest.model_id == target.model_id:
                self._refuse(newest, error)
        self._open(before)
        self._is_visiting = was_visiting

    def _open(self, target: _Target) -> Transcriber:
        try:
            transcriber = Transcriber.open_at(
                self._context,
                target.location,
                base=target.base,
                name=target.name,
                weights_sha256=target.weights_sha256,
            )
        except torch.AcceleratorError as error:
            raise DeviceLost(str(error)) from error
        self._transcriber, self._target = transcriber, target
        self._note_open(transcriber.binding.model_id)
        return transcriber

    # --- what models left behind -----------------------------------------------------------------------------

    def _note_open(self, model_id: int) -> None:
        """Let others see that this model is open somewhere, and whether by a pinned worker, as long as this process
        and its connection live."""
        try:
            self._lock = self._context.engine.connect()
            classes = [MODEL_LOCK_CLASS]
            if self._context.settings.is_model_pinned:
                classes.append(PIN_LOCK_CLASS)
            for lock_class in classes:
                self._lock.execute(
                    text("SELECT pg_try_advisory_lock_shared(:class, :id)"),
                    {"class": lock_class, "id": model_id},
                )
            self._lock.commit()
        except SQLAlchemyError as error:  # the worst that follows: another worker opens it, too
            log.warning("model_not_noted", model_id=model_id, error=str(error))

    def _take_left_behind(self) -> _Target | None:
        """A model to open once more, because segments wait that only it may finish and nobody has it open."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_LEFT_BEHIND_S:
            return None
        self._looked_at = now
        assert self._transcriber is not None
        with self._context.engine.connect() as connection:
            left = find_left_behind(connection, self._transcriber.binding.model_id)
        for place in left:
            with self._is_open_nowhere(place.model_id) as is_left:
                if not is_left:
                    continue
                target = _Target.of(place)
                try:
                    if target is None:
                        raise CheckpointError("the folder of its checkpoint is not known")
                    _check(target)
                except CANNOT_OPEN as error:
                    log.error(
                        "segments_left_behind", model=place.name, model_id=place.model_id, reason=str(error)
                    )
                    continue
                log.info("model_opened_once_more", model=place.name, model_id=place.model_id)
                return target
        return None

    @contextmanager
    def _is_open_nowhere(self, model_id: int) -> Iterator[bool]:
        connection = self._context.engine.connect()
        try:
            yield bool(
                connection.execute(
                    text("SELECT pg_try_advisory_xact_lock(:class, :id)"),
                    {"class": MODEL_LOCK_CLASS, "id": model_id},
                ).scalar_one()
            )
        finally:
            connection.close()


def _check(target: _Target) -> None:
    """Look at a checkpoint before anything is closed for it.

    Raises:
        CheckpointError: it cannot be opened, or is not what was deployed.
    """
    require_weights(read_card(target.location, base=target.base), target.location, target.weights_sha256)
