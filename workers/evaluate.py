"""Generating the night's evaluation runs between transcribing, a slice at a time.

Who goes first: urgent segments always. Normal ones for `night_patience_h` after a run was created; then runs and
segments take turns. Archive segments wait for the runs: there may be thousands of hours of them, and the night would
never be measured. Turns come about by messages: whoever ends wakes the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
import torch

from db.connect import transaction
from db.evaluation_runs import OpenRun, find_open_runs, hold_run
from db.queue import waiting_rank
from db.settings import Settings
from db.states import Priority
from evaluation.predict import SetUnreachable, Slice, predict, provenance_of
from speech.prompting import never
from workers.busy import BusyClock
from workers.context import WorkerContext
from workers.queue import wake_evaluate, wake_night, wake_transcribe
from workers.transcribe import RUN_LIMIT_S, DeviceLost, Transcriber

log = structlog.get_logger(__name__)

LOOK_INTERVAL_S = 1.0
"""While a run is generated, how often it is asked whether segments go first by now."""


def goes_first(rank: int | None, waited_s: float, settings: Settings) -> bool:
    """Whether waiting segments of this rank go before a run that has waited so long."""
    if rank is None:
        return False
    is_patient = waited_s < settings.night_patience_h * 3600
    return rank <= Priority.URGENT.rank or (rank <= Priority.NORMAL.rank and is_patient)


def evaluate_pending(
    context: WorkerContext, transcriber: Transcriber, *, is_stopping: Callable[[], bool] = never
) -> Slice | None:
    """Generate one slice, of at most RUN_LIMIT_S, of the first run that this model may take.

    Returns:
        What the slice did; None where no run waits for this model, segments go first, or the sets are not here.

    Raises:
        DeviceLost: nothing more can be run on the device.
    """
    model_id = transcriber.binding.model_id
    with context.engine.connect() as connection:
        runs = find_open_runs(connection, model_id)
        rank = waiting_rank(connection, model_id) if runs else None
    if not runs or is_stopping():
        return None
    if context.settings.datasets is None:
        log.warning("evaluation_not_possible", reason="FONOTECA_DATASETS is not set for this worker")
        return None
    done = None
    for run in runs:
        if goes_first(rank, run.waited_s, context.settings):
            break
        done = _evaluate(context, transcriber, run, is_stopping)
        if done is not None:
            break
    _wake_for_the_rest(context, model_id, has_moved=done is not None and done.n_stored > 0)
    if done is not None and done.is_finished:
        wake_night()  # it may be the last of its night: settled now, not at the next look
    return done


def _wake_for_the_rest(context: WorkerContext, model_id: int, *, has_moved: bool) -> None:
    with transaction(context.engine) as tx:
        if waiting_rank(tx.connection, model_id) is not None:
            tx.after_commit(wake_transcribe)
        # where nothing moved, the sweep asks again
        if has_moved and find_open_runs(tx.connection, model_id):
            tx.after_commit(wake_evaluate)


def _evaluate(
    context: WorkerContext, transcriber: Transcriber, run: OpenRun, is_stopping: Callable[[], bool]
) -> Slice | None:
    """One slice of one run; None where it is not ours to take."""
    datasets = context.settings.datasets
    assert datasets is not None
    with hold_run(context.engine, run.run_id) as held:
        if not held:
            return None
        try:
            with BusyClock(context.session).working():
                done = predict(
                    context.engine,
                    run.run_id,
                    transcriber.engine,
                    provenance_of(transcriber.engine, transcriber.binding.model_id),
                    datasets,
                    is_stopping=_Look(context, transcriber, run, is_stopping),
                    limit_s=RUN_LIMIT_S,
                )
        except SetUnreachable as error:
            log.error("evaluation_set_unreachable", set=run.set_name, reason=str(error))
            return None
        except (torch.AcceleratorError, torch.OutOfMemoryError) as error:
            raise DeviceLost(str(error)) from error
    if not (done.n_stored or done.is_finished):
        return None
    log.info(
        "evaluation_slice_done",
        run_id=str(run.run_id),
        set=run.set_name,
        stored=done.n_stored,
        failed=done.n_failed,
        finished=done.is_finished,
    )
    return done


class _Look:
    """Whether a slice must end: the process does, or segments go first by now. Looked up once a second."""

    def __init__(
        self, context: WorkerContext, transcriber: Transcriber, run: OpenRun, is_stopping: Callable[[], bool]
    ) -> None:
        self._context = context
        self._model_id = transcriber.binding.model_id
        self._run = run
        self._is_stopping = is_stopping
        self._started_at = self._looked_at = time.monotonic()
        self._gives_way = False

    def __call__(self) -> bool:
        if self._gives_way or self._is_stopping():
            return True
        now = time.monotonic()
        if now - self._looked_at > LOOK_INTERVAL_S:
            self._looked_at = now
            with self._context.engine.connect() as connection:
                rank = waiting_rank(connection, self._model_id)
            waited_s = self._run.waited_s + now - self._started_at
            self._gives_way = goes_first(rank, waited_s, self._context.settings)
        return self._gives_way
