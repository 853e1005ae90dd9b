"""What passes between the queue and the workers: claims, results, failures."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from db.states import GapKind


@dataclass(frozen=True)
class SplitClaim:
    """A recording to split."""

    recording_id: uuid.UUID
    broadcaster_id: int
    name: str
    media_key: str
    attempt: int
    audio_track: str = "auto"
    """The sound track asked for: `auto`, `mix`, or its number counted from 0."""


@dataclass(frozen=True)
class SegmentClaim:
    """A segment to transcribe."""

    segment_id: int
    attempt: int
    recording_id: uuid.UUID
    recording_name: str
    working_copy_key: str
    start_sample: int
    end_sample: int
    is_isolated: bool = False
    """Workers died over it before: nothing else may be under way beside it."""


@dataclass(frozen=True)
class ModelBinding:
    """What makes the text: written to a transcript by the first claim of its segments."""

    model_id: int
    prompt: str
    decode_settings: dict[str, Any]


@dataclass(frozen=True)
class NewGap:
    """A span without a segment."""

    kind: GapKind
    start_sample: int
    end_sample: int
    reason: str | None = None


@dataclass(frozen=True)
class NewTranscript:
    """What splitting found: segments and gaps that tile the recording."""

    splitter_version: str
    code_version: str
    duration_samples: int
    working_copy_key: str
    media_info: dict[str, Any]
    segments: Sequence[tuple[int, int]]
    """(start_sample, end_sample) of each, in order."""
    gaps: Sequence[NewGap]

    def gap_samples(self, kind: GapKind) -> int:
        """Sum of the gaps of one kind."""
        return sum(gap.end_sample - gap.start_sample for gap in self.gaps if gap.kind is kind)


@dataclass(frozen=True)
class SegmentResult:
    """The text of one claimed segment."""

    segment_id: int
    attempt: int
    text: str
    token_ids: Sequence[int]
    token_logprobs: Sequence[float]
    mean_logprob: float | None
    flags: Sequence[str]


@dataclass(frozen=True)
class Failure:
    """Why one attempt failed."""

    code: str
    reason: str
    retryable: bool


RETRY_FACTOR = 4
"""What failed waits so many times longer before each further attempt."""


class CoverageError(Exception):
    """Segments and gaps do not tile the recording: a fault in the splitter, refused before it is stored."""


@dataclass(frozen=True)
class Swept:
    """What one sweep took back from dead workers."""

    segments_returned: int
    segments_failed: int
    recordings_returned: int
    recordings_failed: int


@dataclass(frozen=True)
class Waiting:
    """Work that waits for a worker."""

    recordings: int
    segments: int
