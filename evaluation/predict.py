"""Generating the predictions of an evaluation run with the production engine.

As the GPU worker does it: audio is read ahead in threads, clips flow through the engine's slots, texts are stored as
they come. Whatever ends the process, only texts of the last seconds are generated again.

A clip of at most 30 s goes in whole, as the model card's did. A longer one is cut by the production splitter with its
own settings (speech only, at most 30 s each), and the texts are joined with a space.
"""

from __future__ import annotations

import hashlib
import io
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import Engine

from db.code_version import code_version
from db.connect import transaction
from db.evaluation_runs import (
    Binding,
    MissingUtterance,
    NewPrediction,
    Provenance,
    bind_run,
    find_missing,
    finish_run,
    store_predictions,
)
from evaluation.held_out_audio import AudioChanged, decode_clip, read_audio
from evaluation.manifests import HeldOutError
from speech.cut import SplitSettings
from speech.engine import Hypothesis, Phi4Engine
from speech.errors import MediaError
from speech.features import SAMPLE_RATE_HZ
from speech.prompting import never
from speech.split import split_media

Clip = npt.NDArray[np.float32]
Key = tuple[int, int]
"""(utterance, which of its parts)"""

log = logging.getLogger(__name__)

MAX_WHOLE_S = SplitSettings().max_ms / 1000
READERS = 2
STORE_UTTERANCES = 64
STORE_INTERVAL_S = 2.0
"""Predictions are stored once there are so many, or with the first one that comes so long after the last ones."""

_SIZES = ("n_slots", "max_encoder_frames", "max_prefill_rows")


class SetUnreachable(Exception):
    """The set's folder is gone: not the utterances' fault, nothing is stored for them."""


@dataclass(frozen=True)
class Progress:
    """How far a slice has come."""

    n_stored: int
    n_failed: int
    """Of those stored: without a text."""
    n_missing: int
    """When the slice began."""
    audio_s: float
    """Audio of the utterances stored."""


@dataclass(frozen=True)
class Slice:
    """What one slice did."""

    binding: Binding
    n_stored: int
    n_failed: int
    is_finished: bool
    """Nothing is missing any more."""


def provenance_of(engine: Phi4Engine, model_id: int) -> Provenance:
    """What makes the text of this engine's runs."""
    settings = engine.describe()
    return Provenance(
        model_id=model_id,
        prompt=engine.prompt,
        decode_settings=settings,
        device=f"{settings['device']} {settings['dtype']}",
        code_version=code_version(),
        # see speech.engine.DecodeSettings
        without_effect=_SIZES if settings["dtype"] == "float32" else (),
    )


def predict(
    database: Engine,
    run_id: uuid.UUID,
    engine: Phi4Engine,
    provenance: Provenance,
    datasets: Path,
    *,
    is_stopping: Callable[[], bool] = never,
    limit_s: float | None = None,
    first: int | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Slice:
    """Generate what a run is missing. Call while the run is held (`db.evaluation_runs.hold_run`).

    An utterance whose audio cannot be read, or that the engine refuses, is stored with the reason; the rest go on.

    Args:
        datasets: folder of the held-out sets.
        is_stopping: once true, what stands in the engine's slots is finished and stored.
        limit_s: no utterance is begun later than this after the start.
        first: only the set's first so many utterances.
        on_progress: called after each storing.

    Raises:
        SetUnreachable: the set's folder is gone.
        torch.AcceleratorError, torch.OutOfMemoryError: nothing more can be run on the device.
    """
    with transaction(database) as tx:
        binding = bind_run(tx.connection, run_id, provenance)
        missing = find_missing(tx.connection, run_id, first=first) if binding is Binding.OURS else []
    if binding is not Binding.OURS:
        return Slice(binding, 0, 0, is_finished=False)
    slice_ = _Slice(database, run_id, provenance, missing, on_progress)
    if missing:
        with ThreadPoolExecutor(READERS, thread_name_prefix="read-audio") as readers:
            feed = _Feed(missing, datasets, readers, engine.n_slots, _until(limit_s, is_stopping))
            try:
                with closing(_generate(engine, feed, is_stopping)) as outcomes:
                    slice_.store_as_they_come(outcomes)
            finally:
                slice_.store()  # also what was generated before an error
                readers.shutdown(cancel_futures=True)
            feed.raise_error()
    with transaction(database) as tx:
        finish_run(tx.connection, run_id)
        is_finished = not find_missing(tx.connection, run_id, limit=1)
    return Slice(binding, slice_.n_stored, slice_.n_failed, is_finished)


def _until(limit_s: float | None, is_stopping: Callable[[], bool]) -> Callable[[], bool]:
    if limit_s is None:
        return is_stopping
    end = time.monotonic() + limit_s
    return lambda: is_stopping() or time.monotonic() > end


@dataclass
class _Slice:
    """What is stored, and told."""

    database: Engine
    run_id: uuid.UUID
    provenance: Provenance
    missing: Sequence[MissingUtterance]
    on_progress: Callable[[Progress], None]
    n_stored: int = 0
    n_failed: int = 0
    _n_samples: int = 0
    _unstored: list[NewPrediction] = field(default_factory=list)

    def store_as_they_come(self, outcomes: Iterator[NewPrediction]) -> None:
        stored_at = time.monotonic()
        for outcome in outcomes:
            self._unstored.append(outcome)
            is_due = time.monotonic() - stored_at > STORE_INTERVAL_S
            if len(self._unstored) >= STORE_UTTERANCES or is_due:
                self.store()
                stored_at = time.monotonic()

    def store(self) -> None:
        predictions, self._unstored = self._unstored, []
        if not predictions:
            return
        with transaction(self.database) as tx:
            stored = store_predictions(tx.connection, self.run_id, self.provenance, predictions)
        durations = {utterance.utterance_id: utterance.duration_samples for utterance in self.missing}
        failed = [found for found in predictions if found.text is None]
        self.n_stored += stored
        self.n_failed += len(failed)
        self._n_samples += sum(durations[found.utterance_id] for found in predictions)
        self.on_progress(
            Progress(self.n_stored, self.n_failed, len(self.missing), self._n_samples / SAMPLE_RATE_HZ)
        )


# --- reading ---------------------------------------------------------------------------------------------


def read_parts(datasets: Path, utterance: MissingUtterance) -> list[Clip]:
    """The clips that an utterance is generated from: one, or those that the splitter cuts a long one into.

    Raises:
        OSError, HeldOutError, speech.errors.MediaError: as `evaluation.held_out.load_clip`.
    """
    content = read_audio(datasets, utterance.audio)
    if hashlib.sha256(content).hexdigest() != utterance.audio_sha256:
        raise AudioChanged(f"{utterance.audio}: its audio changed after the set was registered")
    clip = decode_clip(content, utterance.audio)
    if len(clip) <= MAX_WHOLE_S * SAMPLE_RATE_HZ:
        return [clip]
    found = split_media(io.BytesIO(content), name=utterance.audio)
    return [clip[span.start_sample : span.end_sample] for span in found.segments]


class _Feed:
    """Utterances with their audio, for the engine to take as it has room.

    Iterated by the engine, in whose eyes an error here would be an error of the model: it ends the iteration and
    is raised by `raise_error` afterwards.
    """

    def __init__(
        self,
        missing: Sequence[MissingUtterance],
        datasets: Path,
        readers: ThreadPoolExecutor,
        n_ahead: int,
        is_over: Callable[[], bool],
    ) -> None:
        self.window = n_ahead
        self.ended: list[NewPrediction] = []
        """Utterances that need no engine: unreadable, or without speech."""
        self.open: dict[int, _Open] = {}
        """Given to the engine, not yet back."""
        self._waiting = deque(missing)
        self._reading: deque[tuple[MissingUtterance, Future[list[Clip]]]] = deque()
        self._datasets = datasets
        self._readers = readers
        self._is_over = is_over
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[tuple[Key, Clip]]:
        try:
            while utterance := self._next():
                for number, clip in enumerate(utterance.parts):
                    # the stream may have broken off between two parts, and the whole been done alone
                    if utterance.utterance_id in self.open:
                        yield (utterance.utterance_id, number), clip
        except Exception as error:
            self._error = error

    def _next(self) -> _Open | None:
        while True:
            while self._waiting and len(self._reading) < 2 * self.window and not self._is_over():
                utterance = self._waiting.popleft()
                self._reading.append((utterance, self._readers.submit(read_parts, self._datasets, utterance)))
            if not self._reading or self._is_over():
                return None
            utterance, future = self._reading.popleft()
            try:
                parts = future.result()
            except (OSError, HeldOutError, MediaError) as error:
                self._check_reachable(utterance, error)
                self.ended.append(NewPrediction(utterance.utterance_id, None, failure_reason=_reason(error)))
                continue
            if not parts:
                self.ended.append(NewPrediction(utterance.utterance_id, ""))
                continue
            opened = _Open(utterance.utterance_id, parts)
            self.open[utterance.utterance_id] = opened
            return opened

    def _check_reachable(self, utterance: MissingUtterance, error: Exception) -> None:
        folder = self._datasets / utterance.audio.split("/")[0]
        if isinstance(error, OSError) and not folder.is_dir():
            raise SetUnreachable(f"{folder}: the set's folder is gone ({error})") from error

    def take_ended(self) -> list[NewPrediction]:
        """Those that need no engine, since the last call."""
        ended, self.ended = self.ended, []
        return ended

    def raise_error(self) -> None:
        """The error that ended the iteration, if one did."""
        if self._error is not None:
            raise self._error


@dataclass
class _Open:
    """An utterance in the engine."""

    utterance_id: int
    parts: list[Clip]
    found: dict[int, Hypothesis | Exception] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return len(self.found) == len(self.parts)

    def prediction(self) -> NewPrediction:
        """All parts as one. A part without a text fails the whole: a score of the rest would be another's."""
        hypotheses: list[Hypothesis] = []
        for number in range(len(self.parts)):
            part = self.found[number]
            if not isinstance(part, Hypothesis):
                return NewPrediction(self.utterance_id, None, failure_reason=_reason(part))
            hypotheses.append(part)
        # each mean is over the tokens and the end token
        weights = [len(part.token_ids) + 1 for part in hypotheses]
        total = sum(part.mean_logprob * weight for part, weight in zip(hypotheses, weights, strict=True))
        return NewPrediction(
            utterance_id=self.utterance_id,
            text=" ".join(part.text for part in hypotheses if part.text),
            token_ids=[token for part in hypotheses for token in part.token_ids],
            token_logprobs=[logprob for part in hypotheses for logprob in part.token_logprobs],
            mean_logprob=total / sum(weights),
            flags=sorted({flag for part in hypotheses for flag in part.flags}),
        )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".replace("\0", "").encode(errors="replace").decode()


# --- generating ------------------------------------------------------------------------------------------


def _generate(engine: Phi4Engine, feed: _Feed, is_stopping: Callable[[], bool]) -> Generator[NewPrediction]:
    """Predictions as they are finished."""
    clips = iter(feed)
    has_failed = True
    while has_failed:
        has_failed = False
        with closing(engine.stream(clips, window=feed.window, is_stopping=is_stopping)) as stream:
            while True:
                try:
                    found = next(stream, None)
                except (torch.AcceleratorError, torch.OutOfMemoryError):
                    raise
                except Exception as error:
                    log.warning("the engine broke off with %d utterances: %s", len(feed.open), error)
                    has_failed = True
                    break
                if found is None:
                    break
                (utterance_id, part), outcome = found
                utterance = feed.open[utterance_id]
                utterance.found[part] = outcome
                if utterance.is_complete:
                    del feed.open[utterance_id]
                    yield utterance.prediction()
                yield from feed.take_ended()
        # after an error of the whole stream: each utterance shows apart whether it is the one at fault
        while has_failed and feed.open and not is_stopping():
            utterance = feed.open.pop(next(iter(feed.open)))
            _transcribe_alone(engine, utterance)
            yield utterance.prediction()
        yield from feed.take_ended()


def _transcribe_alone(engine: Phi4Engine, utterance: _Open) -> None:
    for number, clip in enumerate(utterance.parts):
        if number not in utterance.found:
            try:
                utterance.found[number] = engine.transcribe([clip])[0]
            except (torch.AcceleratorError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                utterance.found[number] = error
