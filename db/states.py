"""States of recordings and segments, and the transitions that are legal.

The same tables are enforced by triggers in PostgreSQL (migrations/versions), so that a statement typed by
hand in psql cannot break them either; `tests/db/test_states.py` proves that the two agree.
"""

from __future__ import annotations

from enum import StrEnum


class RecordingState(StrEnum):
    """Where one recording stands."""

    AWAITING_MEDIA = "awaiting_media"
    """Announced in a batch; its bytes have not all arrived."""
    RECEIVED = "received"
    """In the object store, its checksum verified; waits to be split."""
    SPLITTING = "splitting"
    """A media worker holds it."""
    TRANSCRIBING = "transcribing"
    """Its segments are in the queue."""
    COMPLETED = "completed"
    """Every second is transcribed or known to hold no speech."""
    PARTIAL = "partial"
    """Finished, but some seconds failed; they are listed in its coverage."""
    FAILED = "failed"
    """Nothing could be transcribed; `failure_reason` says why."""
    CANCELLED = "cancelled"
    """Stopped on request."""


class SegmentState(StrEnum):
    """Where one segment stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Priority(StrEnum):
    """Class of a batch; lower `rank` is transcribed first."""

    URGENT = "urgent"
    NORMAL = "normal"
    ARCHIVE = "archive"

    @property
    def rank(self) -> int:
        """Order in the queue: 0 is served first."""
        return list(Priority).index(self)


class WorkQueue(StrEnum):
    """What work waits for."""

    SPLIT = "split"
    """Recordings, for a media worker."""
    TRANSCRIBE = "transcribe"
    """Segments, for a GPU worker."""


class Hold(StrEnum):
    """How far a recording's work is held back: its batch or its broadcaster is paused, or it was cancelled.

    Nothing of it is claimed in any of these. Its waiting segments are moved out of the claimers' way, and back, in
    steps: there may be millions.
    """

    ASKED = "asked"
    """Its segments are still to be moved out of the way."""
    HELD = "held"
    RELEASING = "releasing"
    """No longer held back; its segments are still to be moved back."""


class AttemptOutcome(StrEnum):
    """How one attempt at splitting a recording or transcribing a segment ended."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """It raised an error; `error_code` names it."""
    LOST = "lost"
    """Its worker died, or outlived its lease."""
    RETURNED = "returned"
    """Its worker gave it back unfinished, on shutdown."""


class GapKind(StrEnum):
    """Why a span of a recording has no segment."""

    NO_SPEECH = "no_speech"
    FAILED = "failed"


class NoEta(StrEnum):
    """Why nobody can say when a batch will be done."""

    PAUSED = "paused"
    """The batch, its broadcaster, or a queue."""
    AWAITING_MEDIA = "awaiting_media"
    """Recordings are still to be uploaded: how long they are is not known."""
    NOT_SPLIT = "not_split"
    """Recordings are still to be read: how long they are is not known."""
    NO_THROUGHPUT = "no_throughput"
    """Nothing was transcribed in the last minutes."""


_R = RecordingState
RECORDING_TRANSITIONS: dict[RecordingState, frozenset[RecordingState]] = {
    _R.AWAITING_MEDIA: frozenset({_R.RECEIVED, _R.FAILED, _R.CANCELLED}),
    _R.RECEIVED: frozenset({_R.SPLITTING, _R.FAILED, _R.CANCELLED}),
    # back to received: its claim died
    _R.SPLITTING: frozenset({_R.TRANSCRIBING, _R.COMPLETED, _R.FAILED, _R.RECEIVED, _R.CANCELLED}),
    _R.TRANSCRIBING: frozenset({_R.COMPLETED, _R.PARTIAL, _R.FAILED, _R.CANCELLED}),
    # a finished recording may be split or transcribed again
    _R.COMPLETED: frozenset({_R.RECEIVED, _R.TRANSCRIBING}),
    _R.PARTIAL: frozenset({_R.RECEIVED, _R.TRANSCRIBING}),
    _R.FAILED: frozenset({_R.AWAITING_MEDIA, _R.RECEIVED, _R.TRANSCRIBING}),
    _R.CANCELLED: frozenset({_R.AWAITING_MEDIA, _R.RECEIVED, _R.TRANSCRIBING}),
}

_S = SegmentState
SEGMENT_TRANSITIONS: dict[SegmentState, frozenset[SegmentState]] = {
    _S.PENDING: frozenset({_S.RUNNING, _S.FAILED}),
    # back to pending: its claim died, or its worker gave it back
    _S.RUNNING: frozenset({_S.DONE, _S.FAILED, _S.PENDING}),
    _S.DONE: frozenset(),
    # retried on request
    _S.FAILED: frozenset({_S.PENDING}),
}

RECORDING_FINISHED = frozenset({_R.COMPLETED, _R.PARTIAL, _R.FAILED, _R.CANCELLED})
"""States in which nothing more will happen by itself."""
