"""Cuts planned from numbers alone: whatever they are, the spans tile, fit, and keep the speech."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech.cut import (
    FRAME_SAMPLES,
    WINDOW_SAMPLES,
    CutPlan,
    Span,
    SplitSettings,
    plan_cuts,
    speech_runs,
    weakest_sample,
)

SECOND = 16000


@st.composite
def recordings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int, list[Span]]:
    """Stretches of speech, of none and of doubt, up to four minutes, with holes."""
    duration = draw(st.integers(1, 240 * SECOND))
    n_windows = -(-duration // WINDOW_SAMPLES)
    stretches = draw(
        st.lists(st.tuples(st.integers(1, 1500), st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0])), min_size=1)
    )
    probabilities = np.concatenate([np.full(n, value) for n, value in stretches])
    probabilities = np.resize(probabilities, n_windows).astype(np.float32)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    energies = (rng.random(-(-duration // FRAME_SAMPLES)) ** 4).astype(np.float32)
    edges = sorted(draw(st.sets(st.integers(0, duration), max_size=8)))
    holes = [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]
    return probabilities, energies, duration, holes


SETTINGS = st.sampled_from(
    [
        SplitSettings(),
        SplitSettings(
            pad_before_ms=0, pad_after_ms=0, join_gap_ms=0, short_join_gap_ms=0, bridge_ms=0, min_speech_ms=0
        ),
        SplitSettings(target_ms=9_000, max_ms=10_000, min_cut_ms=3_000, min_ms=1_000, pad_before_ms=500),
    ]
)


def assert_tiles(plan: CutPlan, duration: int) -> None:
    at = 0
    for span in sorted([*plan.segments, *plan.no_speech, *plan.failed]):
        assert span.start_sample == at
        assert span.end_sample > at
        at = span.end_sample
    assert at == duration


@settings(max_examples=150, deadline=None)
@given(recordings(), SETTINGS)
def test_spans_tile_fit_and_keep_speech(
    recording: tuple[np.ndarray, np.ndarray, int, list[Span]], chosen: SplitSettings
) -> None:
    probabilities, energies, duration, holes = recording
    plan = plan_cuts(probabilities, energies, duration, holes, chosen)
    assert_tiles(plan, duration)
    shortest = min(chosen.min_ms * 16, duration)
    assert all(shortest <= span.n_samples <= chosen.max_ms * 16 for span in plan.segments)
    accounted = np.zeros(duration, bool)
    for span in (*plan.segments, *plan.failed):
        accounted[span.start_sample : span.end_sample] = True
    for run in speech_runs(probabilities, duration, chosen):
        assert accounted[run.start_sample : run.end_sample].all()
    given_holes = np.zeros(duration, bool)
    for hole in holes:
        given_holes[hole.start_sample : hole.end_sample] = True
    for span in plan.segments:
        assert not given_holes[span.start_sample : span.end_sample].any()


def flat(duration_s: int, probability: float) -> tuple[np.ndarray, np.ndarray, int]:
    duration = duration_s * SECOND
    probabilities = np.full(-(-duration // WINDOW_SAMPLES), probability, np.float32)
    return probabilities, np.full(duration // FRAME_SAMPLES, 0.01, np.float32), duration


def test_silence_is_all_no_speech() -> None:
    plan = plan_cuts(*flat(100, 0.0), [], SplitSettings())
    assert plan == CutPlan((), (Span(0, 100 * SECOND),), ())


def test_unbroken_speech_is_cut_into_even_lengths() -> None:
    plan = plan_cuts(*flat(3600, 1.0), [], SplitSettings())
    lengths_s = [span.n_samples / SECOND for span in plan.segments]
    assert min(lengths_s) >= 10
    assert max(lengths_s) <= 25
    assert plan.no_speech == ()


def test_the_cut_falls_into_the_pause() -> None:
    probabilities, energies, duration = flat(40, 1.0)
    energies[1790:1830] = 1e-6
    plan = plan_cuts(probabilities, energies, duration, [], SplitSettings())
    assert plan.segments[0].end_sample == pytest.approx(18.1 * SECOND, abs=0.1 * SECOND)


def test_under_even_music_the_least_speech_is_cut() -> None:
    probabilities, energies, _ = flat(40, 1.0)
    probabilities[500:510] = 0.2
    settings = SplitSettings()
    cut = weakest_sample(Span(10 * SECOND, 25 * SECOND), probabilities, energies, settings)
    lag_samples = settings.cut_lag_ms * SECOND // 1000  # the probability falls so much after the sound
    assert cut == pytest.approx(505 * WINDOW_SAMPLES - lag_samples, abs=0.05 * SECOND)


def test_short_neighbours_join_and_far_ones_do_not() -> None:
    probabilities, energies, duration = flat(60, 0.0)
    for at_s in (5, 9, 40):
        probabilities[at_s * SECOND // WINDOW_SAMPLES :][:60] = 1.0
    plan = plan_cuts(probabilities, energies, duration, [], SplitSettings())
    assert len(plan.segments) == 2


@pytest.mark.parametrize(("between", "gap_s", "n_segments"), [(0.05, 4, 1), (0.01, 4, 2), (0.05, 8, 2)])
def test_what_the_detector_doubts_is_kept_for_seconds(between: float, gap_s: int, n_segments: int) -> None:
    """Some voices in noise are like none to it in the midst of a sentence. Music is not."""
    probabilities, energies, duration = flat(60, 0.0)
    first, after = 15 * SECOND // WINDOW_SAMPLES, (15 + gap_s) * SECOND // WINDOW_SAMPLES
    probabilities[:first] = probabilities[after : 2 * after] = 1.0
    probabilities[first:after] = between
    settings = SplitSettings(target_ms=60_000, max_ms=60_000)
    assert len(plan_cuts(probabilities, energies, duration, [], settings).segments) == n_segments


def test_a_sliver_between_holes_is_failed() -> None:
    holes = [Span(5 * SECOND, 6 * SECOND), Span(6 * SECOND + 1000, 7 * SECOND)]
    plan = plan_cuts(*flat(20, 1.0), holes, SplitSettings())
    assert plan.failed == (Span(5 * SECOND, 7 * SECOND),)


def test_wrong_shapes_and_settings_are_refused() -> None:
    probabilities, energies, duration = flat(10, 0.0)
    with pytest.raises(ValueError, match="probabilities"):
        plan_cuts(probabilities[1:], energies, duration, [], SplitSettings())
    with pytest.raises(ValueError, match="energies"):
        plan_cuts(probabilities, energies[1:], duration, [], SplitSettings())
    with pytest.raises(ValueError, match="speech_off"):
        SplitSettings(speech_off=0.9)
    with pytest.raises(ValueError, match="half of target_ms"):
        SplitSettings(min_cut_ms=20_000)
