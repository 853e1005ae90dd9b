"""Transcribing pending segments: claim, read, generate, store. A plain function; `workers/app.py` makes it a task."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import structlog
import torch
from sqlalchemy import Connection

from db import models
from db.connect import transaction
from db.evaluation_runs import find_open_runs
from db.media_store import MediaStore
from db.queue import Isolation, claim_segments, count_waiting, return_claims, store_results, waiting_rank
from db.states import Priority
from db.work import Failure, ModelBinding, SegmentClaim, SegmentResult
from speech.checkpoint import CheckpointCard, CheckpointError, open_checkpoint, read_card
from speech.cut import Span
from speech.engine import DecodeSettings, Hypothesis, Phi4Engine
from speech.prompting import never
from speech.working_copy import read_spans
from workers.busy import BusyClock
from workers.context import WorkerContext
from workers.queue import wake_evaluate, wake_index, wake_transcribe

log = structlog.get_logger(__name__)

_isolations = itertools.cycle([Isolation.FIRST, Isolation.LAST])
"""Of this process's runs: every second one begins with a segment that its workers died over, if one waits."""

RUN_LIMIT_S = 60.0
"""No segment is claimed later than this after the start: the process looks at its messages now and then."""
READERS = 2
"""Threads that read audio while the engine works."""
STORE_SEGMENTS = 64
STORE_INTERVAL_S = 2.0
"""Texts are stored once there are so many, or with the first one that comes so long after the last ones."""


@dataclass(frozen=True)
class Transcriber:
    """An engine, and the model row that its results refer to."""

    engine: Phi4Engine
    binding: ModelBinding

    @classmethod
    def open(cls, context: WorkerContext) -> Transcriber:
        """Open the configured checkpoint and register it.

        Raises:
            speech.checkpoint.CheckpointError: the folder holds none that can be opened.
        """
        settings = context.settings
        base = str(settings.model_base) if settings.model_base else None
        return cls.open_at(context, settings.model, base=base, name=settings.model_name)

    @classmethod
    def open_at(
        cls,
        context: WorkerContext,
        location: str,
        *,
        base: str | None = None,
        name: str | None = None,
        weights_sha256: str | None = None,
    ) -> Transcriber:
        """Open the checkpoint in a folder and register it.

        Args:
            name: of its row; None takes the checkpoint's own.
            weights_sha256: what its weights must be; None takes any.

        Raises:
            speech.checkpoint.CheckpointError: the folder holds none that can be opened, or other weights.
        """
        settings = context.settings
        card = read_card(location, base=base)
        require_weights(card, location, weights_sha256)
        if name:
            card = replace(card, name=name)
        model, tokenizer = open_checkpoint(location, base=base, device=settings.device, dtype=settings.dtype)
        engine = Phi4Engine(model, tokenizer, settings=DecodeSettings(max_slots=settings.gpu_slots))
        with transaction(context.engine) as tx:
            model_id = register_model(tx.connection, card, location=location, base=base)
        log.info(
            "model_opened",
            model=card.name,
            weights_sha256=card.weights_sha256,
            location=location,
            device=str(model.device),
            dtype=str(model.dtype),
            slots=engine.n_slots,
        )
        return cls(engine, ModelBinding(model_id, engine.prompt, engine.describe()))


def require_weights(card: CheckpointCard, location: str, weights_sha256: str | None) -> None:
    """Refuse a checkpoint whose weights are not those that were deployed.

    Raises:
        CheckpointError: they are others.
    """
    if weights_sha256 is not None and card.weights_sha256 != weights_sha256:
        raise CheckpointError(
            f"{location}: its weights are not those that were deployed ({card.weights_sha256[:12]}, not "
            f"{weights_sha256[:12]}): put the old ones back, or promote these"
        )


def register_model(
    connection: Connection, card: CheckpointCard, *, location: str | None = None, base: str | None = None
) -> int:
    """The id of this checkpoint's row in `models`, made on first sight.

    Args:
        location: its folder, noted so that what the model began can be finished after another was deployed.
    """
    config: dict[str, str | int | None] = {
        "layout": card.layout,
        "n_tensors": card.n_tensors,
        "n_bytes": card.n_bytes,
    }
    if location is not None:
        config |= {
            "location": str(Path(location).absolute()),
            "base": str(Path(base).absolute()) if base else None,
        }
    return models.register_model(
        connection, models.NewModel(card.name, card.weights_sha256, card.is_demo, config)
    )


def transcribe_pending(
    context: WorkerContext,
    transcriber: Transcriber,
    *,
    is_stopping: Callable[[], bool] = never,
    may_bind: bool = True,
) -> int:
    """Transcribe pending segments until none waits for this model, or RUN_LIMIT_S is over.

    Segments flow through the engine: the next ones are claimed and their audio is read while others are decoded,
    and texts are stored as they come. A segment whose audio cannot be read, or that the engine refuses, fails
    alone.

    Args:
        is_stopping: once true, what stands in the engine's slots is finished, and the rest of what is claimed
            goes back.
        may_bind: begin new transcripts; else only those are finished that this model began.

    Returns:
        How many segments were claimed; 0 when none waits for this model.

    Raises:
        DeviceLost: nothing more can be run on the device. Not the segments' fault: they go back.
    """
    readers = ThreadPoolExecutor(READERS, thread_name_prefix="read-audio")
    try:
        with context.work():
            feed = _Feed(context, transcriber, readers, is_stopping, may_bind=may_bind)
            # closed also when storing fails: the next run must find the engine's slots empty
            with closing(_generate(transcriber.engine, feed, is_stopping)) as outcomes:
                _store_as_they_come(context, outcomes)
            feed.raise_error()
            feed.end()
    finally:
        readers.shutdown(cancel_futures=True)
    return feed.n_claimed


def _store_as_they_come(context: WorkerContext, outcomes: Iterable[Outcome]) -> None:
    unstored: list[Outcome] = []
    stored_at = time.monotonic()
    for outcome in outcomes:
        unstored.append(outcome)
        if len(unstored) >= STORE_SEGMENTS or time.monotonic() - stored_at > STORE_INTERVAL_S:
            _store(context, unstored)
            unstored, stored_at = [], time.monotonic()
    if unstored:
        _store(context, unstored)


Outcome = tuple[SegmentClaim, Hypothesis | Failure]
Audio = list[tuple[SegmentClaim, npt.NDArray[np.float32] | Failure]]


class _Feed:
    """Claimed segments with their audio, for the engine to take as it has room.

    Iterated by the engine, in whose eyes an error here would be an error of the model: it ends the iteration and
    is raised by `raise_error` afterwards.
    """

    def __init__(
        self,
        context: WorkerContext,
        transcriber: Transcriber,
        readers: ThreadPoolExecutor,
        is_stopping: Callable[[], bool],
        *,
        may_bind: bool,
    ) -> None:
        self.n_claimed = 0
        self.refused: list[Outcome] = []
        self.open: dict[int, tuple[SegmentClaim, npt.NDArray[np.float32]]] = {}
        """Given to the engine, not yet back."""
        self._context = context
        self._binding = transcriber.binding
        self.limit = context.settings.gpu_batch_segments or transcriber.engine.n_slots
        self.clock = BusyClock(context.session)
        self._readers = readers
        self._is_stopping = is_stopping
        self._may_bind = may_bind
        self._started_at = time.monotonic()
        self._error: Exception | None = None
        self._is_last = False  # nothing is claimed after what is held
        self._has_read = False
        self._is_blind = False  # of a whole claim nothing could be read

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        try:
            with self.clock.waiting():
                coming = self._claim()
            while coming:
                # the audio of the claim after this one is read while this one is decoded
                audio, coming = coming, []
                ahead: list[Future[Audio]] | None = None
                n_readable = 0
                for future in audio:
                    with self.clock.waiting():
                        read = future.result()
                        if ahead is None:
                            ahead = self._claim()
                    for claim, clip in read:
                        if isinstance(clip, Failure):
                            self.refused.append((claim, clip))
                        else:
                            if not self._has_read:
                                self._has_read = True
                                self._wake_for_the_rest()  # a colleague, while this worker is busy
                            n_readable += 1
                            self.open[claim.segment_id] = claim, clip
                            yield claim.segment_id, clip
                coming = ahead or []
                if not n_readable:
                    # the store may be away: no claim more, and no wake-up but the sweep's, or the backlog would fail
                    self._is_last = self._is_blind = True
        except Exception as error:
            self._error = error

    def take_refused(self) -> list[Outcome]:
        """The segments whose audio could not be read, since the last call."""
        refused, self.refused = self.refused, []
        return refused

    def raise_error(self) -> None:
        """The error that ended the iteration, if one did."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Give back what was claimed and not begun, and where segments still wait, wake whichever worker is free."""
        with transaction(self._context.engine) as tx:
            if self._is_stopping():
                return_claims(tx.connection, self._context.session.worker_id)
            if self.n_claimed and self._evaluation_waits(tx.connection):
                tx.after_commit(wake_evaluate)
        if self.n_claimed and not self._is_blind:
            self._wake_for_the_rest()

    def _wake_for_the_rest(self) -> None:
        with transaction(self._context.engine) as tx:
            if count_waiting(tx.connection, cap=1).segments:
                tx.after_commit(wake_transcribe)

    def _evaluation_waits(self, connection: Connection) -> bool:
        """Whether this worker could go on with an evaluation run."""
        has_sets = self._context.settings.datasets is not None
        return has_sets and bool(find_open_runs(connection, self._binding.model_id))

    def _gives_way(self, connection: Connection) -> bool:
        """Whether only archive work is left to claim while evaluation waits: one claim of it, then its turn."""
        if not self._evaluation_waits(connection):
            return False
        rank = waiting_rank(connection, self._binding.model_id)
        return rank is not None and rank >= Priority.ARCHIVE.rank

    def _claim(self) -> list[Future[Audio]]:
        """Claim some segments and have their audio read: one piece of work per working copy."""
        if self._is_last or self._is_stopping() or time.monotonic() - self._started_at > RUN_LIMIT_S:
            return []
        worker_id = self._context.session.ensure_alive()
        with self.clock.claiming(), transaction(self._context.engine) as tx:
            if self.n_claimed and self._gives_way(tx.connection):
                self._is_last = True
                return []
            claims = claim_segments(
                tx.connection,
                worker_id,
                self._binding,
                limit=self.limit,
                isolation=Isolation.NOT_NOW if self.n_claimed else next(_isolations),
                may_bind=self._may_bind,
            )
        if claims:
            self._context.session.begin_work()  # the claim's limit counts from the last sign of progress
            # taken alone so that, if it kills again, it kills only itself
            self._is_last = claims[0].is_isolated
        self.n_claimed += len(claims)
        by_key: dict[str, list[SegmentClaim]] = {}
        for claim in claims:
            by_key.setdefault(claim.working_copy_key, []).append(claim)
        return [
            self._readers.submit(_read_audio, self._context.store, key, group)
            for key, group in by_key.items()
        ]


def _read_audio(store: MediaStore, key: str, claims: list[SegmentClaim]) -> Audio:
    """The claimed segments of one working copy, in the order of time."""
    claims = sorted(claims, key=lambda claim: claim.start_sample)
    try:
        spans = [Span(claim.start_sample, claim.end_sample) for claim in claims]
        with closing(store.open(key)) as copy:
            return list(zip(claims, read_spans(copy, spans), strict=True))
    except Exception as error:
        log.exception(
            "working_copy_unreadable",
            key=key,
            recording_id=str(claims[0].recording_id),
            segment_ids=[claim.segment_id for claim in claims],
        )
        reason = f"{claims[0].recording_name}: its working copy cannot be read ({error})"
        failure = Failure("working_copy_unreadable", reason, retryable=True)
        return [(claim, failure) for claim in claims]


class DeviceLost(Exception):
    """The GPU refuses all further work of this process (an illegal access, a failed assertion, or no memory even for
    one clip because others took it): it must end."""


def _generate(engine: Phi4Engine, feed: _Feed, is_stopping: Callable[[], bool]) -> Generator[Outcome]:
    """Hypotheses as they are finished, and the reasons of the segments that have none.

    Raises:
        DeviceLost: nothing more can be run on the device. Not the segments' fault.
    """
    clips = iter(feed)
    has_failed = True
    while has_failed:
        has_failed = False
        with closing(engine.stream(clips, window=feed.limit, is_stopping=is_stopping)) as stream:
            while True:
                try:
                    with feed.clock.working():
                        found = next(stream, None)
                except (torch.AcceleratorError, torch.OutOfMemoryError) as error:
                    raise DeviceLost(str(error)) from error
                except Exception as error:
                    log.warning("stream_broke_off", segment_ids=list(feed.open), error=str(error))
                    has_failed = True
                    break
                if found is None:
                    break
                claim, _ = feed.open.pop(found[0])
                yield claim, _outcome(claim, found[1])
                yield from feed.take_refused()
        # after an error of the whole stream: each segment shows apart whether it is the one at fault
        while feed.open and not is_stopping():
            claim, clip = feed.open.pop(next(iter(feed.open)))
            with feed.clock.working():
                alone = _transcribe_alone(engine, claim, clip)
            yield claim, alone
        yield from feed.take_refused()


def _transcribe_alone(
    engine: Phi4Engine, claim: SegmentClaim, clip: npt.NDArray[np.float32]
) -> Hypothesis | Failure:
    try:
        return engine.transcribe([clip])[0]
    except (torch.AcceleratorError, torch.OutOfMemoryError) as error:
        raise DeviceLost(str(error)) from error
    except Exception as error:
        return _outcome(claim, error)


def _outcome(claim: SegmentClaim, outcome: Hypothesis | Exception) -> Hypothesis | Failure:
    if isinstance(outcome, Hypothesis):
        return outcome
    log.error(
        "segment_not_transcribed",
        recording_id=str(claim.recording_id),
        segment_id=claim.segment_id,
        exc_info=outcome,
    )
    reason = f"{claim.recording_name}: {type(outcome).__name__}: {outcome}"
    return Failure("engine_error", reason, retryable=True)


def _store(context: WorkerContext, outcomes: Sequence[Outcome]) -> None:
    results = [
        SegmentResult(
            segment_id=claim.segment_id,
            attempt=claim.attempt,
            text=outcome.text,
            token_ids=outcome.token_ids,
            token_logprobs=outcome.token_logprobs,
            mean_logprob=outcome.mean_logprob,
            flags=outcome.flags,
        )
        for claim, outcome in outcomes
        if isinstance(outcome, Hypothesis)
    ]
    failures = [(claim, outcome) for claim, outcome in outcomes if isinstance(outcome, Failure)]
    context.session.counters.transcribed_samples += sum(
        claim.end_sample - claim.start_sample
        for claim, outcome in outcomes
        if isinstance(outcome, Hypothesis)
    )
    worker_id = context.session.ensure_alive()
    with transaction(context.engine) as tx:
        stored = store_results(
            tx.connection,
            worker_id,
            results,
            failures,
            max_attempts=context.settings.max_attempts,
            retry_after_s=context.settings.retry_after_s,
            index_later=True,
        )
        tx.after_commit(wake_index)
    context.session.begin_work()  # progress
    log.info(
        "segments_stored",
        recording_ids=sorted({str(claim.recording_id) for claim, _ in outcomes}),
        segment_ids=[result.segment_id for result in results],
        stored=stored,
        late=len(outcomes) - stored,
        failed=len(failures),
        failed_ids=[claim.segment_id for claim, _ in failures],
    )
