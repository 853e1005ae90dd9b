"""What the recordings say without any system: split and transcribed one after another in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from speech.checkpoint import open_checkpoint
from speech.cut import Span
from speech.engine import Phi4Engine
from speech.errors import MediaError
from speech.split import split_media
from speech.working_copy import read_spans
from tests.chaos.checks import Told
from tests.chaos.media import Material
from tests.chaos.system import DEMO_MODEL
from workers.split import as_transcript


def told_alone(material: Sequence[Material]) -> dict[str, Told]:
    """What a system must say of each recording, by its name."""
    engine = Phi4Engine(*open_checkpoint(DEMO_MODEL, device="cpu"))
    return {part.file.name: _told(engine, part.file.path) for part in material}


def _told(engine: Phi4Engine, path: Path) -> Told:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "working.flac"
        try:
            found = as_transcript(split_media(str(path), name=path.name, working_copy=copy), copy.name)
        except MediaError as error:
            return Told("failed", error.code, None, (), ())
        spans = [Span(start, end) for start, end in found.segments]
        clips = read_spans(copy, spans)
        # one clip at a time: texts must not depend on what stands beside them
        said = [engine.transcribe([clip])[0] for clip in clips]
    segments = tuple(
        (index, span.start_sample, span.end_sample, one.text, tuple(one.token_ids))
        for index, (span, one) in enumerate(zip(spans, said, strict=True))
    )
    gaps = tuple((gap.kind.value, gap.start_sample, gap.end_sample, gap.reason) for gap in found.gaps)
    return Told("completed", None, found.duration_samples, segments, gaps)
