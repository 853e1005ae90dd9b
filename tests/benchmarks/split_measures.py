"""What a split did to a recording whose truth is known, for `tests.benchmarks.split_quality`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame

from speech.split import DecodeLimits, Span, split_media
from tests.benchmarks.split_material import Material, Recording, Word, make_recording
from tests.benchmarks.split_sounds import RATE_HZ, Samples

LEAST_PIECE_S = 3.0
"""Shorter pieces without speech are pauses, which a segment may hold."""


@dataclass(frozen=True)
class FoundWord:
    """How much of a word lies outside of all segments."""

    level_dbfs: float
    background: str
    place: str
    voice: str
    n_samples: int
    n_lost: int
    recording: int
    start_s: float


@dataclass(frozen=True)
class Boundary:
    """The start or the end of a segment; where one segment ends and the next begins at once there are two."""

    edge: str
    """start or end."""
    is_shared: bool
    """The next segment begins, or the one before ends, at this very sample: a cut in the midst of a passage."""
    inside_ms: float
    """To the nearer end of the word that it lies in; 0 where it lies in none."""
    level_dbfs: float
    """Of the nearest word, as is the background."""
    background: str
    recording: int
    at_s: float


@dataclass(frozen=True)
class FoundPiece:
    """How much of a piece without speech lies outside of all segments."""

    group: str
    kind: str
    level_dbfs: float
    n_samples: int
    n_dropped: int
    recording: int
    start_s: float


@dataclass(frozen=True)
class Found:
    """Of one recording."""

    n_samples: int
    words: tuple[FoundWord, ...]
    boundaries: tuple[Boundary, ...]
    """Without those in fixture clips, where nothing is known of words."""
    n_boundaries_in_clips: int
    pieces: tuple[FoundPiece, ...]
    """Those of at least `LEAST_PIECE_S`."""
    n_clip_samples: int
    n_clip_lost: int
    segment_ms: tuple[float, ...]
    n_without_speech: int
    """Segments in which no word and no fixture clip sounds."""


class _Coverage:
    """How much of any span the segments hold."""

    def __init__(self, segments: Sequence[Span]) -> None:
        self._edges = np.array(
            [edge for one in segments for edge in (one.start_sample, one.end_sample)], float
        )
        lengths = [one.n_samples for one in segments]
        self._held = np.repeat(np.concatenate([[0.0], np.cumsum(lengths)]), 2)[1:-1]

    def of(self, start_sample: int, end_sample: int) -> int:
        if not len(self._edges):
            return 0
        before, after = np.interp((start_sample, end_sample), self._edges, self._held)
        return round(float(after - before))


def write_wav(path: Path, samples: Samples) -> None:
    """16 kHz mono samples of full scale 1.0 as 16 bits."""
    with av.open(str(path), "w", format="wav") as muxer:
        stream = muxer.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono")
        for at in range(0, len(samples), RATE_HZ):
            whole = np.rint(samples[at : at + RATE_HZ] * 32768).clip(-32768, 32767).astype(np.int16)
            frame = AudioFrame.from_ndarray(whole[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE_HZ, at
            muxer.mux(stream.encode(frame))
        muxer.mux(stream.encode(None))


def make_and_measure(seed: int, index: int, minutes: float, material: Material, keep: Path | None) -> Found:
    """Make recording `index` of a seed, split it as the workers do, and compare."""
    recording = make_recording(seed, index, minutes, material)
    with tempfile.TemporaryDirectory() as folder:
        path = (keep or Path(folder)) / f"recording-{index:03d}.wav"
        write_wav(path, recording.samples)
        split = split_media(path, name=path.name, limits=DecodeLimits())
    if split.duration_samples != len(recording.samples):
        raise RuntimeError(f"{split.duration_samples} samples came back of {len(recording.samples)}")
    return compare(recording, split.segments, index)


def compare(recording: Recording, segments: Sequence[Span], index: int = 0) -> Found:
    """Count what the segments hold of speech, what of the rest, and what their ends cut."""
    coverage = _Coverage(segments)
    words = tuple(
        FoundWord(
            word.level_dbfs,
            word.background,
            word.place,
            word.voice,
            word.end_sample - word.start_sample,
            word.end_sample - word.start_sample - coverage.of(word.start_sample, word.end_sample),
            index,
            word.start_sample / RATE_HZ,
        )
        for word in recording.words
    )
    pieces = tuple(
        FoundPiece(
            piece.group,
            piece.kind,
            piece.level_dbfs,
            piece.end_sample - piece.start_sample,
            piece.end_sample - piece.start_sample - coverage.of(piece.start_sample, piece.end_sample),
            index,
            piece.start_sample / RATE_HZ,
        )
        for piece in recording.pieces
        if piece.end_sample - piece.start_sample >= LEAST_PIECE_S * RATE_HZ
    )
    boundaries, n_in_clips = _boundaries(recording, segments, index)
    n_clip_samples = sum(clip.end_sample - clip.start_sample for clip in recording.clips)
    n_clip_held = sum(coverage.of(clip.start_sample, clip.end_sample) for clip in recording.clips)
    spoken = [(word.start_sample, word.end_sample) for word in recording.words]
    spoken = sorted([*spoken, *((clip.start_sample, clip.end_sample) for clip in recording.clips)])
    return Found(
        n_samples=len(recording.samples),
        words=words,
        boundaries=boundaries,
        n_boundaries_in_clips=n_in_clips,
        pieces=pieces,
        n_clip_samples=n_clip_samples,
        n_clip_lost=n_clip_samples - n_clip_held,
        segment_ms=tuple(segment.n_samples / RATE_HZ * 1000 for segment in segments),
        n_without_speech=sum(not _sounds_in(segment, spoken) for segment in segments),
    )


def _sounds_in(segment: Span, spoken: Sequence[tuple[int, int]]) -> bool:
    """Whether any of `spoken` (in order, not overlapping) lies at least partly in the segment."""
    first = int(np.searchsorted([end for _, end in spoken], segment.start_sample, side="right"))
    return first < len(spoken) and spoken[first][0] < segment.end_sample


def _boundaries(
    recording: Recording, segments: Sequence[Span], index: int
) -> tuple[tuple[Boundary, ...], int]:
    starts = {segment.start_sample for segment in segments}
    ends = {segment.end_sample for segment in segments}
    edges = [
        (at, edge)
        for segment in segments
        for at, edge in ((segment.start_sample, "start"), (segment.end_sample, "end"))
    ]
    in_clips = [
        at for at, _ in edges if any(one.start_sample < at < one.end_sample for one in recording.clips)
    ]
    unknown = set(in_clips)
    middles = np.array([(word.start_sample + word.end_sample) / 2 for word in recording.words])
    found = tuple(
        _boundary(
            at, edge, at in (starts if edge == "end" else ends), _near(recording.words, middles, at), index
        )
        for at, edge in edges
        if at not in unknown and len(middles)
    )
    return found, len(in_clips)


def _near(words: Sequence[Word], middles: npt.NDArray[np.float64], at: int) -> Sequence[Word]:
    """The words to both sides of a sample, one of which it may lie in."""
    after = int(np.searchsorted(middles, at))
    return words[max(0, after - 1) : after + 1]


def _boundary(at: int, edge: str, is_shared: bool, near: Sequence[Word], index: int) -> Boundary:
    closest = min(near, key=lambda word: max(word.start_sample - at, at - word.end_sample))
    n_inside = max(0, min(at - closest.start_sample, closest.end_sample - at))
    return Boundary(
        edge,
        is_shared,
        n_inside / RATE_HZ * 1000,
        closest.level_dbfs,
        closest.background,
        index,
        at / RATE_HZ,
    )
