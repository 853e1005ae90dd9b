"""Splitting one recording: claim, read, cut, store. A plain function; `workers/app.py` makes it a task."""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import structlog

from db.code_version import code_version
from db.connect import transaction
from db.disk import find_low_disk, local_store_folder
from db.media_store import MediaMissing, peaks_key, working_copy_key
from db.queue import count_waiting
from db.splitting import claim_recording, fail_split, store_split
from db.states import GapKind
from db.work import Failure, NewGap, NewTranscript, SplitClaim
from speech.errors import MediaError
from speech.split import DecodeLimits, Split, split_media
from speech.track_choice import parse_track_choice
from workers.context import WorkerContext
from workers.queue import wake_next_split, wake_transcribe

log = structlog.get_logger(__name__)


def split_one(context: WorkerContext) -> bool:
    """Split the next received recording.

    Bad media fails its own recording with a reason for the submitter. Anything else that goes wrong (the object
    store, the disk) is retried, up to `max_attempts`, after `retry_after_s` and longer: not at once, since what went
    wrong needs a while to go right.

    Returns:
        False when no recording waits that may be split now: not while a disk is nearly full, nor of who has much
        waiting for a GPU (`split_ahead_h`).
    """
    if _is_disk_low(context):
        return False
    worker_id = context.session.ensure_alive()
    with transaction(context.engine) as tx:
        claim = claim_recording(tx.connection, worker_id, ahead_h=context.settings.split_ahead_h)
        if claim is None:
            return False
        if count_waiting(tx.connection, cap=1).recordings:
            # for a colleague, while this one is busy
            tx.after_commit(lambda: wake_next_split(context.settings))
    bound = log.bind(recording_id=str(claim.recording_id), attempt=claim.attempt)
    with context.work():
        try:
            _split(context, worker_id, claim)
        except MediaError as error:
            bound.info("split_refused_media", code=error.code, reason=str(error))
            _fail(context, worker_id, claim, Failure(error.code, str(error), retryable=False))
        except MediaMissing as error:
            bound.warning("original_missing", reason=str(error))
            reason = (
                f"{claim.name}: its original is not in the object store ({claim.media_key}), so it cannot be read. "
                "Put it back there and have the recording read again, or submit it anew"
            )
            # the folder may just not be mounted
            _fail(context, worker_id, claim, Failure("original_missing", reason, retryable=True))
        except Exception as error:
            bound.exception("split_failed")
            reason = f"{claim.name}: could not be split ({type(error).__name__}: {error})"
            _fail(context, worker_id, claim, Failure("split_error", reason, retryable=True))
    return True


def _is_disk_low(context: WorkerContext) -> bool:
    """Whether nothing should be split now, since its working copy might fill a disk. The next sweep asks again."""
    folders = [context.scratch]
    store = local_store_folder(context.store.url)
    if store is not None:
        folders.append(store)
    low = find_low_disk(folders, context.settings.free_disk_min_bytes)
    if low is not None:
        log.warning(
            "disk_low",
            folder=str(low.folder),
            free_bytes=low.free_bytes,
            least_bytes=context.settings.free_disk_min_bytes,
        )
    return low is not None


def _split(context: WorkerContext, worker_id: int, claim: SplitClaim) -> None:
    key = working_copy_key(claim.broadcaster_id, claim.recording_id, claim.attempt)
    with (
        closing(context.store.open(claim.media_key)) as original,
        tempfile.TemporaryDirectory(dir=context.scratch) as folder,
    ):
        copy, peaks = Path(folder) / "working.flac", Path(folder) / "peaks.dat"
        found = split_media(
            original,
            name=claim.name,
            working_copy=copy,
            audio_track=parse_track_choice(claim.audio_track),
            peaks=peaks,
            limits=DecodeLimits(),
        )
        context.store.put_file(peaks_key(key), peaks)
        context.store.put_file(key, copy)
    with transaction(context.engine) as tx:
        stored = store_split(tx.connection, claim, worker_id, as_transcript(found, key))
        if stored and found.segments:
            tx.after_commit(wake_transcribe)
    if not stored:
        log.warning("split_claim_lost", recording_id=str(claim.recording_id), attempt=claim.attempt)
        _remove_copy(context, key)
        return
    for attempt in range(1, claim.attempt):  # copies of attempts whose worker died
        _remove_copy(context, working_copy_key(claim.broadcaster_id, claim.recording_id, attempt))
    log.info(
        "recording_split",
        recording_id=str(claim.recording_id),
        segments=len(found.segments),
        duration_samples=found.duration_samples,
    )


def _remove_copy(context: WorkerContext, key: str) -> None:
    """Remove a working copy that no row names, with its peaks."""
    context.store.delete(peaks_key(key))
    context.store.delete(key)


def as_transcript(found: Split, key: str) -> NewTranscript:
    """What the splitter found, as the queue stores it."""
    gaps = [NewGap(GapKind.NO_SPEECH, gap.start_sample, gap.end_sample) for gap in found.no_speech]
    gaps += [NewGap(GapKind.FAILED, gap.start_sample, gap.end_sample, gap.reason) for gap in found.failed]
    return NewTranscript(
        splitter_version=found.splitter_version,
        code_version=code_version(),
        duration_samples=found.duration_samples,
        working_copy_key=key,
        media_info=asdict(found.info),
        segments=[(segment.start_sample, segment.end_sample) for segment in found.segments],
        gaps=sorted(gaps, key=lambda gap: gap.start_sample),
    )


def _fail(context: WorkerContext, worker_id: int, claim: SplitClaim, failure: Failure) -> None:
    with transaction(context.engine) as tx:
        fail_split(
            tx.connection,
            claim,
            worker_id,
            failure,
            max_attempts=context.settings.max_attempts,
            retry_after_s=context.settings.retry_after_s,
        )
