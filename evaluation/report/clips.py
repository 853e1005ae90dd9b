"""The sound of the worst utterances, to hear in the report: MP3 clips as `speech.clip` makes them.

All clips of a report together stay below 4 MB: 20 clips of 30 s at 32 kbit/s are 2.4 MB, a third more as text inside a
page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import structlog

from evaluation.held_out import HeldOutError, load_clip
from evaluation.report.document import Clip, WorstUtterance
from speech.audio import SAMPLE_RATE_HZ
from speech.clip import encode, prepare
from speech.errors import MediaError

MAX_CLIP_S = 30.0
BIT_RATE = 32_000
"""Half of what other clips have: they all lie inside one page."""
MAX_TOTAL_BYTES = 2_900_000
"""Of all clips, as files: in a page base64 makes 3.9 MB of them."""
log = structlog.get_logger()


def make_clips(
    utterances: Sequence[WorstUtterance], datasets: Path | None
) -> tuple[tuple[WorstUtterance, ...], dict[str, bytes]]:
    """The utterances with their clips, and the MP3 files by name. What cannot be read says so."""
    found: list[WorstUtterance] = []
    files: dict[str, bytes] = {}
    total = 0
    for number, utterance in enumerate(utterances, start=1):
        name = f"{number:02d}.mp3"
        failure: str | None = None
        duration_s = min(utterance.duration_s, MAX_CLIP_S)
        is_cut = utterance.duration_s > MAX_CLIP_S
        try:
            if datasets is None:
                raise FileNotFoundError("FONOTECA_DATASETS is not set")
            samples = load_clip(datasets, utterance.audio)
            content = encode(prepare(samples, max_s=MAX_CLIP_S), bit_rate=BIT_RATE)
            duration_s = min(len(samples) / SAMPLE_RATE_HZ, MAX_CLIP_S)
            is_cut = len(samples) > MAX_CLIP_S * SAMPLE_RATE_HZ
            if total + len(content) > MAX_TOTAL_BYTES:
                failure = "the clips before it fill the room that there is in a report"
            else:
                total += len(content)
                files[name] = content
        except (OSError, HeldOutError, MediaError, av.error.FFmpegError, ValueError) as error:
            failure = _reason(error)
            log.warning("report_clip_unreadable", audio=utterance.audio, error=str(error))
        found.append(replace(utterance, clip=Clip(name, duration_s, is_cut, failure)))
    return tuple(found), files


def _reason(error: Exception) -> str:
    """Without the folders of this machine: a report travels."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)
