"""Transcribing one batch of segments: claim, read, generate, store. A plain function; `workers/app.py` makes it
a task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import structlog
import torch
from sqlalchemy import Connection, text

from db.connect import transaction
from db.queue import claim_segments, count_waiting, store_results
from db.work import Failure, ModelBinding, SegmentClaim, SegmentResult
from speech.checkpoint import CheckpointCard, open_checkpoint, read_card
from speech.cut import Span
from speech.engine import DecodeSettings, Hypothesis, Phi4Engine
from speech.working_copy import read_spans
from workers.context import WorkerContext
from workers.queue import wake_transcribe

log = structlog.get_logger(__name__)


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
        card = read_card(settings.model, base=settings.model_base)
        if settings.model_name:
            card = replace(card, name=settings.model_name)
        model, tokenizer = open_checkpoint(
            settings.model, base=settings.model_base, device=settings.device, dtype=settings.dtype
        )
        engine = Phi4Engine(
            model, tokenizer, settings=DecodeSettings(max_batch_clips=settings.gpu_batch_segments)
        )
        with transaction(context.engine) as tx:
            model_id = register_model(tx.connection, card)
        log.info(
            "model_opened", model=card.name, weights_sha256=card.weights_sha256, device=str(model.device)
        )
        return cls(engine, ModelBinding(model_id, engine.prompt, engine.describe()))


def register_model(connection: Connection, card: CheckpointCard) -> int:
    """The id of this checkpoint's row in `models`, made on first sight."""
    model_id: int | None = connection.scalar(
        text(
            """
            INSERT INTO models (name, weights_sha256, is_demo, config)
            VALUES (:name, :weights_sha256, :is_demo, CAST(:config AS jsonb))
            ON CONFLICT (name, weights_sha256) DO UPDATE SET is_demo = EXCLUDED.is_demo
            RETURNING id
            """
        ),
        {
            "name": card.name,
            "weights_sha256": card.weights_sha256,
            "is_demo": card.is_demo,
            "config": json.dumps(
                {"layout": card.layout, "n_tensors": card.n_tensors, "n_bytes": card.n_bytes}
            ),
        },
    )
    assert model_id is not None
    return model_id


def transcribe_batch(context: WorkerContext, transcriber: Transcriber) -> int:
    """Transcribe one claim of pending segments.

    A segment whose audio cannot be read, or that the engine refuses, fails alone; the rest of the batch goes on.

    Returns:
        How many segments were claimed; 0 when none waits for this model.
    """
    worker_id = context.session.ensure_alive()
    with transaction(context.engine) as tx:
        claims = claim_segments(
            tx.connection, worker_id, transcriber.binding, limit=context.settings.gpu_batch_segments
        )
        if not claims:
            return 0
        if count_waiting(tx.connection, cap=1).segments:
            tx.after_commit(wake_transcribe)  # for a colleague, or for this worker afterwards
    with context.work():
        audio, unreadable = _read_audio(context, claims)
        hypotheses, refused = _generate(transcriber.engine, audio)
        _store(context, worker_id, hypotheses, unreadable + refused)
    return len(claims)


Audio = tuple[SegmentClaim, npt.NDArray[np.float32]]
Failed = tuple[SegmentClaim, Failure]


def _read_audio(context: WorkerContext, claims: Sequence[SegmentClaim]) -> tuple[list[Audio], list[Failed]]:
    by_key: dict[str, list[SegmentClaim]] = {}
    for claim in claims:
        by_key.setdefault(claim.working_copy_key, []).append(claim)
    audio: list[Audio] = []
    failed: list[Failed] = []
    for key, group in by_key.items():
        group.sort(key=lambda claim: claim.start_sample)
        try:
            spans = [Span(claim.start_sample, claim.end_sample) for claim in group]
            clips = list(read_spans(context.store.open(key), spans))
        except Exception as error:
            log.exception("working_copy_unreadable", key=key)
            reason = f"{group[0].recording_name}: its working copy cannot be read ({error})"
            failed += [(claim, Failure("working_copy_unreadable", reason, retryable=True)) for claim in group]
        else:
            audio += zip(group, clips, strict=True)
    return audio, failed


class DeviceLost(Exception):
    """The GPU refuses all further work of this process (an illegal access, a failed assertion): it must end."""


def _generate(
    engine: Phi4Engine, audio: Sequence[Audio]
) -> tuple[list[tuple[SegmentClaim, Hypothesis]], list[Failed]]:
    """Hypotheses, and the segments that have none. When a batch fails its halves are tried apart, down to the
    one segment at fault; out of memory, a half is what fits.

    Raises:
        DeviceLost: nothing more can be run on the device. Not the segments' fault.
    """
    if not audio:
        return [], []
    try:
        hypotheses = engine.transcribe([clip for _, clip in audio])
        return list(zip((claim for claim, _ in audio), hypotheses, strict=True)), []
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error)) from error
    except Exception as error:
        if len(audio) == 1:
            claim = audio[0][0]
            log.exception("segment_not_transcribed", segment_id=claim.segment_id)
            reason = f"{claim.recording_name}: {type(error).__name__}: {error}"
            return [], [(claim, Failure("engine_error", reason, retryable=True))]
        log.warning("batch_not_transcribed", segments=len(audio), error=str(error))
    # outside the handler: the error's traceback would keep the failed batch's tensors alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(audio) // 2
    (done_a, failed_a), (done_b, failed_b) = (
        _generate(engine, audio[:middle]),
        _generate(engine, audio[middle:]),
    )
    return done_a + done_b, failed_a + failed_b


def _store(
    context: WorkerContext,
    worker_id: int,
    hypotheses: Sequence[tuple[SegmentClaim, Hypothesis]],
    failed: Sequence[Failed],
) -> None:
    results = [
        SegmentResult(
            segment_id=claim.segment_id,
            attempt=claim.attempt,
            text=hypothesis.text,
            token_ids=hypothesis.token_ids,
            token_logprobs=hypothesis.token_logprobs,
            mean_logprob=hypothesis.mean_logprob,
            flags=hypothesis.flags,
        )
        for claim, hypothesis in hypotheses
    ]
    with transaction(context.engine) as tx:
        stored = store_results(
            tx.connection, worker_id, results, failed, max_attempts=context.settings.max_attempts
        )
    log.info(
        "segments_stored",
        segment_ids=[claim.segment_id for claim, _ in hypotheses],
        stored=stored,
        late=len(results) + len(failed) - stored,
        failed=len(failed),
    )
