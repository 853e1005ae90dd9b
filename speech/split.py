"""A recording to segments of at most 30 s, every sample accounted for, in one pass at bounded memory.

decode -> energies, speech probabilities of the levelled sound, working copy -> cuts. Audio is held a block at a time;
what is kept of the whole recording is 4 bytes per 10 ms and per 32 ms (12 hours: 23 MB).
"""

import hashlib
import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speech.audio import FailedSpan, MediaSource
from speech.containers import MediaInfo
from speech.cut import FRAME_SAMPLES, CutPlan, Span, SplitSettings, plan_cuts
from speech.isolated import DecodeLimits, IsolatedReader
from speech.levelling import Leveller
from speech.mono import from_int16, to_int16
from speech.peaks import PeaksWriter
from speech.track_choice import TrackChoice, most_speech
from speech.tracks import DecodedMedia, open_reader, probe_tracks
from speech.vad import RecordingDetector
from speech.working_copy import WorkingCopyWriter

__all__ = ["DecodeLimits", "FailedSpan", "Span", "Split", "SplitSettings", "split_media", "splitter_version"]

ALGORITHM = "silero6.2-minimum-5"
"""Change it with anything that moves a boundary for the same settings."""


@dataclass(frozen=True)
class Split:
    """Where a recording's speech is. Spans are at 16 kHz; together they tile [0, duration_samples) exactly."""

    segments: tuple[Span, ...]
    """Speech, each at most 30 s: the units of recognition. Empty for a recording without speech."""
    no_speech: tuple[Span, ...]
    failed: tuple[FailedSpan, ...]
    duration_samples: int
    info: MediaInfo
    splitter_version: str


def splitter_version(settings: SplitSettings) -> str:
    """Names the algorithm and a short hash of the settings: equal versions cut equal audio equally."""
    text = json.dumps(asdict(settings), sort_keys=True)
    return f"{ALGORITHM}+{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def split_media(
    source: MediaSource,
    *,
    name: str,
    settings: SplitSettings = SplitSettings(),
    working_copy: Path | None = None,
    peaks: Path | None = None,
    audio_track: TrackChoice = "auto",
    limits: DecodeLimits | None = None,
) -> Split:
    """Split a media file, from a path or a seekable binary reader (which stays open).

    `name` is what errors call the file. With `working_copy`, the 16 kHz FLAC of the recording is written there on
    the way, zeros where decoding failed, and with `peaks` what a player draws of it (`speech/peaks.py`); nothing is
    left there on an error. `audio_track` says which sound track is read; `Split.info` says which was. With `limits`,
    decoding runs in a process of its own that keeps them and may die: for files of strangers. Raises a `MediaError`
    subclass for a file that gives no audio; damage within a file is in `failed`.
    """
    leveller = Leveller()
    detector = RecordingDetector()
    energies = _Energies()
    probabilities: list[npt.NDArray[np.float32]] = []
    with ExitStack() as closing:
        media = closing.enter_context(_open(source, name, audio_track, limits))
        copy = closing.enter_context(WorkingCopyWriter(working_copy)) if working_copy is not None else None
        drawn = closing.enter_context(PeaksWriter(peaks)) if peaks is not None else None
        for block in media.blocks():
            # in 16 bits, as from a process of its own: cuts are a function of what the working copy holds
            pcm, samples = block.pcm, block.samples
            if pcm is None:
                pcm = to_int16(samples)
                samples = from_int16(pcm)
            energies.feed(samples)
            probabilities.append(detector.feed(leveller.feed(samples)))
            if copy is not None:
                copy.write(pcm)
            if drawn is not None:
                drawn.write(pcm)
        probabilities.append(detector.feed(leveller.finish()))
        probabilities.append(detector.finish())
        n_samples, failed, info = media.n_samples, media.failed, media.info
    holes = [Span(span.start_sample, span.end_sample) for span in failed]
    plan = plan_cuts(np.concatenate(probabilities), energies.finish(), n_samples, holes, settings)
    split = Split(
        segments=plan.segments,
        no_speech=plan.no_speech,
        failed=_with_reasons(plan, failed),
        duration_samples=n_samples,
        info=info,
        splitter_version=splitter_version(settings),
    )
    check_tiling(split)
    return split


def _open(source: MediaSource, name: str, wanted: TrackChoice, limits: DecodeLimits | None) -> DecodedMedia:
    """A reader of the track that is wanted. Tracks are compared only where there are several."""
    audio_track = None if wanted == "auto" else wanted
    if limits is not None:
        choose = most_speech if wanted == "auto" else None
        return IsolatedReader(source, name=name, audio_track=audio_track, choose=choose, limits=limits)
    first = open_reader(source, name=name, audio_track=audio_track)
    if wanted != "auto" or first.info.n_audio_tracks < 2:
        return first
    with first:
        best = first.info.audio_track
    chosen = most_speech(probe_tracks(source, name=name))
    return open_reader(source, name=name, audio_track=best if chosen is None else chosen)


def check_tiling(split: Split) -> None:
    """Raise RuntimeError unless segments, no speech and failed spans cover every sample exactly once."""
    at = 0
    failed = (Span(hole.start_sample, hole.end_sample) for hole in split.failed)
    for span in sorted([*split.segments, *split.no_speech, *failed]):
        if span.start_sample != at or span.end_sample <= span.start_sample:
            raise RuntimeError(f"the split is wrong at sample {at}: the next span is {span}")
        at = span.end_sample
    if at != split.duration_samples:
        raise RuntimeError(f"the split ends at sample {at}, the recording at {split.duration_samples}")


def _with_reasons(plan: CutPlan, failed: tuple[FailedSpan, ...]) -> tuple[FailedSpan, ...]:
    """The plan's holes with the reason of the longest of the holes that each was made of."""
    given: list[FailedSpan] = []
    for hole in plan.failed:
        inside = [span for span in failed if hole.start_sample <= span.start_sample < hole.end_sample]
        longest = max(inside, key=lambda span: span.end_sample - span.start_sample)
        given.append(FailedSpan(hole.start_sample, hole.end_sample, longest.reason))
    return tuple(given)


class _Energies:
    """Mean square per 10 ms frame of a stream of blocks; the last frame may be shorter."""

    def __init__(self) -> None:
        self._frames: list[npt.NDArray[np.float32]] = []
        self._rest = np.empty(0, np.float32)

    def feed(self, samples: npt.NDArray[np.float32]) -> None:
        joined = np.concatenate([self._rest, samples]) if len(self._rest) else samples
        n_whole = len(joined) - len(joined) % FRAME_SAMPLES
        frames = joined[:n_whole].reshape(-1, FRAME_SAMPLES)
        self._frames.append(np.einsum("ij,ij->i", frames, frames) / np.float32(FRAME_SAMPLES))
        self._rest = joined[n_whole:].copy()

    def finish(self) -> npt.NDArray[np.float32]:
        if len(self._rest):
            self._frames.append(np.array([np.mean(self._rest**2)], np.float32))
        return np.concatenate(self._frames)
