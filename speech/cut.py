"""Speech probabilities and energies to spans: which samples become segments. Plain arithmetic, no audio.

    probabilities -> runs of speech -> padded -> joined across short pauses and doubts (passages)
                  -> passages over 25 s cut where the sound is weakest inside a window of lengths
                  -> short segments joined with a near neighbour

A cut is a minimum inside a window, so it never depends on there being true silence. Failed spans are walls: no
segment holds a sample that could not be decoded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

SAMPLES_PER_MS = 16
FRAME_SAMPLES = 160
"""Energies are per 10 ms frame."""
WINDOW_SAMPLES = 512
"""Probabilities are per 32 ms window."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, order=True)
class Span:
    """Samples [start_sample, end_sample) at 16 kHz."""

    start_sample: int
    end_sample: int

    @property
    def n_samples(self) -> int:
        return self.end_sample - self.start_sample


@dataclass(frozen=True)
class SplitSettings:
    """How recordings are cut. The defaults keep speech before they drop music: lost speech never comes back."""

    speech_on: float = 0.3
    """Speech probability (0-1) that one window of a run must reach for the run to be speech."""
    speech_off: float = 0.1
    """A run goes on, both ways, while the probability stays at or above this (0-1, at most `speech_on`)."""
    bridge_ms: int = 160
    """Runs nearer than this are one: stops and glottal closures are not pauses."""
    min_speech_ms: int = 96
    """A bridged run shorter than this is a click. Three windows; the shortest words are longer."""
    pad_before_ms: int = 400
    """Kept before each run. The detector hears a beginning late, most of all a faint one behind noise or music."""
    pad_after_ms: int = 160
    """Kept after each run: endings fade. More than is needed invites models to write something there."""
    join_gap_ms: int = 700
    """Padded runs with at most this between them are one passage."""
    doubt_gap_ms: int = 5_000
    """Runs with up to this between them are one passage where the detector doubts: it takes some voices in noise for
    none, for seconds, but is sure of music."""
    doubt: float = 0.03
    """What the mean speech probability (0-1) of a doubt is at least."""
    short_ms: int = 10_000
    """Segments under this look for a neighbour to join."""
    short_join_gap_ms: int = 2500
    """A short segment joins a neighbour across at most this."""
    target_ms: int = 25_000
    """Passages above this are cut, and short segments joined up to it. The reserve up to `max_ms` is for tiny
    pieces beside a hole. Models get worse towards the longest clip they were trained on."""
    max_ms: int = 30_000
    """No segment is longer, ever."""
    min_cut_ms: int = 10_000
    """A cut leaves at least this on both sides."""
    min_ms: int = 300
    """No segment is shorter, unless the recording is; decodable pieces below it between two holes are failed."""
    cut_smooth_ms: int = 200
    """Energy and probability are averaged over this around a possible cut: longer than the closure of a stop within a
    word, and not longer than a pause between two."""
    cut_speech_db: float = 30.0
    """What probability 1 adds to the energy at a possible cut, in dB: under music the pause between words wins."""

    cut_lag_ms: int = 60
    """How much later than the sound the detector's probability moves: a pause's own is looked up there."""

    def __post_init__(self) -> None:
        if not 0 <= self.speech_off <= self.speech_on <= 1:
            raise ValueError("speech_off and speech_on must be in order within 0 and 1")
        if not 0 < self.min_ms <= self.target_ms <= self.max_ms:
            raise ValueError("min_ms, target_ms and max_ms must be positive and in order")
        if not self.min_ms <= self.min_cut_ms <= self.target_ms // 2:
            raise ValueError("min_cut_ms must be at least min_ms and at most half of target_ms")
        if any(getattr(self, field.name) < 0 for field in fields(self)):
            raise ValueError("no setting may be negative")


@dataclass(frozen=True)
class CutPlan:
    """`segments`, `no_speech` and `failed` are each in order; together they tile [0, duration) exactly."""

    segments: tuple[Span, ...]
    no_speech: tuple[Span, ...]
    failed: tuple[Span, ...]
    """The given holes, those with less than `min_ms` of audio between them made one."""


def plan_cuts(
    probabilities: Floats,
    energies: Floats,
    duration_samples: int,
    holes: Sequence[Span],
    settings: SplitSettings,
) -> CutPlan:
    """Plan the segments of a recording.

    `probabilities`: (ceil(duration / 512),) speech probability; `energies`: (ceil(duration / 160),) mean square;
    `holes`: spans that could not be decoded, in order, not overlapping. Raises ValueError where the shapes differ
    from the duration.
    """
    if len(probabilities) != -(-duration_samples // WINDOW_SAMPLES):
        raise ValueError(f"{len(probabilities)} probabilities do not cover {duration_samples} samples")
    if len(energies) != -(-duration_samples // FRAME_SAMPLES):
        raise ValueError(f"{len(energies)} energies do not cover {duration_samples} samples")
    failed = _joined_holes(holes, duration_samples, settings.min_ms * SAMPLES_PER_MS)
    runs = speech_runs(probabilities, duration_samples, settings)
    segments: list[Span] = []
    for region in complement(failed, duration_samples):
        passages = _passages(runs, region, probabilities, settings)
        pieces = [
            piece for passage in passages for piece in _cut_long(passage, probabilities, energies, settings)
        ]
        segments += _widened(_join_short(pieces, settings), region, settings)
    no_speech = complement(sorted([*segments, *failed]), duration_samples)
    return CutPlan(tuple(segments), tuple(no_speech), tuple(failed))


def speech_runs(probabilities: Floats, duration_samples: int, settings: SplitSettings) -> list[Span]:
    """Unpadded runs of speech by hysteresis: stretches at or above `speech_off` that reach `speech_on`."""
    maybe = probabilities >= max(settings.speech_off, 1e-6)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], maybe, [False])).astype(np.int8)))
    bridge = settings.bridge_ms * SAMPLES_PER_MS
    bridged: list[Span] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if probabilities[first:last].max() < settings.speech_on:
            continue
        start, end = first * WINDOW_SAMPLES, min(last * WINDOW_SAMPLES, duration_samples)
        if bridged and start - bridged[-1].end_sample <= bridge:
            bridged[-1] = Span(bridged[-1].start_sample, end)
        else:
            bridged.append(Span(start, end))
    shortest = min(settings.min_speech_ms * SAMPLES_PER_MS, duration_samples)
    return [run for run in bridged if run.n_samples >= shortest]


def complement(spans: Sequence[Span], duration_samples: int) -> list[Span]:
    """What `spans` (in order, not overlapping) leave of [0, duration_samples)."""
    rest: list[Span] = []
    at = 0
    for span in spans:
        if span.start_sample > at:
            rest.append(Span(at, span.start_sample))
        at = span.end_sample
    if at < duration_samples:
        rest.append(Span(at, duration_samples))
    return rest


def _joined_holes(holes: Sequence[Span], duration_samples: int, min_samples: int) -> list[Span]:
    """Holes grown over what lies between them, or between one and an end, that is too short for a segment."""
    joined: list[Span] = []
    for hole in holes:
        before = joined[-1].end_sample if joined else 0
        start = before if 0 < hole.start_sample - before < min_samples else hole.start_sample
        if joined and start == before:
            joined[-1] = Span(joined[-1].start_sample, hole.end_sample)
        else:
            joined.append(Span(start, hole.end_sample))
    if joined and duration_samples - joined[-1].end_sample < min_samples:
        joined[-1] = Span(joined[-1].start_sample, duration_samples)
    return joined


def _passages(
    runs: Sequence[Span], region: Span, probabilities: Floats, settings: SplitSettings
) -> list[Span]:
    """Runs within `region`, padded and joined across short pauses and doubts; of any length."""
    before = settings.pad_before_ms * SAMPLES_PER_MS
    after = settings.pad_after_ms * SAMPLES_PER_MS
    gap = settings.join_gap_ms * SAMPLES_PER_MS
    passages: list[Span] = []
    last = region
    for run in _within(runs, region):
        start = max(region.start_sample, run.start_sample - before)
        end = min(region.end_sample, run.end_sample + after)
        if passages and (
            start - passages[-1].end_sample <= gap or _is_doubtful(last, run, probabilities, settings)
        ):
            passages[-1] = Span(passages[-1].start_sample, end)
        else:
            passages.append(Span(start, end))
        last = run
    return passages


def _is_doubtful(before: Span, after: Span, probabilities: Floats, settings: SplitSettings) -> bool:
    """Whether there may be speech between two runs that is like none to the detector."""
    if after.start_sample - before.end_sample > settings.doubt_gap_ms * SAMPLES_PER_MS:
        return False
    between = probabilities[before.end_sample // WINDOW_SAMPLES : after.start_sample // WINDOW_SAMPLES]
    return len(between) > 0 and float(between.mean()) >= settings.doubt


def _within(runs: Sequence[Span], region: Span) -> list[Span]:
    ends = [run.end_sample for run in runs]
    first = int(np.searchsorted(ends, region.start_sample, side="right"))
    inside: list[Span] = []
    for run in runs[first:]:
        if run.start_sample >= region.end_sample:
            break
        inside.append(
            Span(max(run.start_sample, region.start_sample), min(run.end_sample, region.end_sample))
        )
    return inside


def _cut_long(passage: Span, probabilities: Floats, energies: Floats, settings: SplitSettings) -> list[Span]:
    target = settings.target_ms * SAMPLES_PER_MS
    least = settings.min_cut_ms * SAMPLES_PER_MS
    pieces: list[Span] = []
    start = passage.start_sample
    while passage.end_sample - start > target:
        window = Span(start + least, min(start + target, passage.end_sample - least))
        cut = weakest_sample(window, probabilities, energies, settings)
        pieces.append(Span(start, cut))
        start = cut
    return [*pieces, Span(start, passage.end_sample)]


def weakest_sample(window: Span, probabilities: Floats, energies: Floats, settings: SplitSettings) -> int:
    """The sample within `window` at the middle of its weakest `cut_smooth_ms`: low energy, little speech.

    Of equally weak places (digital silence) the middle one of the longest such stretch.
    """
    half = max(1, settings.cut_smooth_ms * SAMPLES_PER_MS // FRAME_SAMPLES // 2)
    first = -(-window.start_sample // FRAME_SAMPLES)
    last = max(first, window.end_sample // FRAME_SAMPLES)
    around = np.arange(first - half, last + half + 1).clip(0, len(energies) - 1)
    level_db = 10 * np.log10(energies[around].astype(np.float64) + 1e-10)
    heard = around * FRAME_SAMPLES + settings.cut_lag_ms * SAMPLES_PER_MS
    windows = (heard // WINDOW_SAMPLES).clip(0, len(probabilities) - 1)
    cost = level_db + settings.cut_speech_db * probabilities[windows]
    sums = np.concatenate(([0.0], np.cumsum(cost)))
    smooth = (sums[2 * half + 1 :] - sums[: -2 * half - 1]) / (2 * half + 1)
    low = smooth <= smooth.min() + 1e-6
    edges = np.flatnonzero(np.diff(np.concatenate(([False], low, [False])).astype(np.int8)))
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    frame = first + int(edges[2 * longest] + edges[2 * longest + 1] - 1) // 2
    return min(max(frame * FRAME_SAMPLES, window.start_sample), window.end_sample)


def _join_short(pieces: Sequence[Span], settings: SplitSettings) -> list[Span]:
    """Left to right: a piece joins the one before it if either is short, they are near, and they fit together."""
    short = settings.short_ms * SAMPLES_PER_MS
    gap = settings.short_join_gap_ms * SAMPLES_PER_MS
    target = settings.target_ms * SAMPLES_PER_MS
    joined: list[Span] = []
    for piece in pieces:
        if joined:
            before = joined[-1]
            near = piece.start_sample - before.end_sample <= gap
            fits = piece.end_sample - before.start_sample <= target
            if near and fits and (before.n_samples < short or piece.n_samples < short):
                joined[-1] = Span(before.start_sample, piece.end_sample)
                continue
        joined.append(piece)
    return joined


def _widened(segments: Sequence[Span], region: Span, settings: SplitSettings) -> list[Span]:
    """Segments with those under `min_ms` grown to it, into the space around them within `region`.

    Where there is no space, one takes in its neighbour; if that makes it too long, it takes only what it needs.
    """
    least = settings.min_ms * SAMPLES_PER_MS
    longest = settings.max_ms * SAMPLES_PER_MS
    wide: list[Span] = []
    rest = list(segments)
    while rest:
        segment = rest.pop(0)
        floor = wide[-1].end_sample if wide else region.start_sample
        ceiling = rest[0].start_sample if rest else region.end_sample
        end = min(ceiling, max(segment.end_sample, segment.start_sample + least))
        start = max(floor, min(segment.start_sample, end - least))
        if end - start >= least or not (wide or rest):
            wide.append(Span(start, end))
        elif wide:
            before = wide.pop()
            if end - before.start_sample <= longest:
                wide.append(Span(before.start_sample, end))
            else:
                wide += [Span(before.start_sample, end - least), Span(end - least, end)]
        else:
            after = rest.pop(0)
            if after.end_sample - start <= longest:
                rest.insert(0, Span(start, after.end_sample))
            else:
                wide.append(Span(start, start + least))
                rest.insert(0, Span(start + least, after.end_sample))
    return wide
