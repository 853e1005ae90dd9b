"""Transcripts made by hand, for what is written from them."""

from __future__ import annotations

import datetime as dt
import uuid

from db.states import SegmentState
from db.transcripts import Model, Segment, Transcript


def segment(index: int, start_s: float, end_s: float, text: str | None) -> Segment:
    """A done segment, or with text None a failed one."""
    state = SegmentState.FAILED if text is None else SegmentState.DONE
    return Segment(
        index, start_s, end_s, state, text, -0.1, (), None if text else "the model raised an error"
    )


def transcript(
    *spans: tuple[float, float, str | None],
    is_demo: bool = False,
    duration_s: float | None = None,
    recording: str = "novas/día 1.mxf",
) -> Transcript:
    """A finished transcript of (start_s, end_s, text)."""
    return Transcript(
        recording_id=uuid.uuid4(),
        recording=recording,
        transcript_id=uuid.uuid4(),
        model=Model("demo" if is_demo else "phi4", is_demo, "d" * 64),
        prompt="Transcribe",
        decode_settings={},
        splitter_version="1",
        code_version="1",
        duration_s=duration_s or (spans[-1][1] + 10 if spans else 10),
        transcribed_s=60.0,
        no_speech_s=0.0,
        failed_s=0.0,
        finished_at=dt.datetime.now(dt.UTC),
        segments=tuple(segment(index, *span) for index, span in enumerate(spans)),
        gaps=(),
    )
