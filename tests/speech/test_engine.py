"""The engine writes for each clip what it writes for it alone, and recognises the demo speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.score import score
from speech.checkpoint import open_checkpoint
from speech.engine import ClipError, ClipFailed, DecodeSettings, Hypothesis, Phi4Engine
from speech.generation import Generated
from speech.guards import LOOP, LOW_CONFIDENCE, NO_SPEECH, RESPLIT, TOKEN_LIMIT, token_limit
from tests.demo_speech import sentences

DEMO = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def engine() -> Phi4Engine:
    return Phi4Engine(*open_checkpoint(DEMO, device="cpu"))


@pytest.fixture(scope="module")
def alone(engine: Phi4Engine) -> list[Hypothesis]:
    """Each of the first sentences transcribed by itself."""
    return [engine.transcribe([sentence.clip])[0] for sentence in sentences()[:48]]


@settings(max_examples=12, deadline=None)
@given(
    chosen=st.lists(st.integers(0, 47), min_size=2, max_size=14),
    slots=st.integers(1, 9),
    window=st.integers(1, 14),
)
def test_text_does_not_depend_on_batch_order_or_slot(
    engine: Phi4Engine, alone: list[Hypothesis], chosen: list[int], slots: int, window: int
) -> None:
    """Few slots: most clips take one that another has left, beside others that are half-way."""
    crowded = Phi4Engine(engine.model, engine._tokenizer, settings=DecodeSettings(max_slots=slots))
    clips = [(number, sentences()[k].clip) for number, k in enumerate(chosen)]
    found = dict(crowded.stream(clips, window=window))
    for number, k in enumerate(chosen):
        hypothesis = found[number]
        assert isinstance(hypothesis, Hypothesis)
        assert hypothesis.token_ids == alone[k].token_ids
        assert hypothesis.text == alone[k].text
        assert hypothesis.flags == alone[k].flags
        assert hypothesis.mean_logprob == pytest.approx(alone[k].mean_logprob, abs=1e-4)


def test_a_short_clip_beside_a_very_long_one_is_not_changed(
    engine: Phi4Engine, alone: list[Hypothesis]
) -> None:
    long = np.concatenate([sentence.clip for sentence in sentences()[:8]])[: 30 * 16_000]
    both = engine.transcribe([sentences()[9].clip, long])
    assert both[0].token_ids == alone[9].token_ids
    assert both[1].token_ids == engine.transcribe([long])[0].token_ids


def test_the_demo_model_recognises_its_test_sentences(engine: Phi4Engine) -> None:
    spoken = sentences()
    result = score(
        [sentence.text for sentence in spoken],
        [hypothesis.text for hypothesis in engine.transcribe([sentence.clip for sentence in spoken])],
    )
    assert result.wer.value < 0.10, f"WER {result.wer.value:.3f}; 0.070 when the model was taken in"


def test_every_token_has_a_log_probability(alone: list[Hypothesis]) -> None:
    for hypothesis in alone:
        assert len(hypothesis.token_ids) == len(hypothesis.token_logprobs) > 0
        assert all(logprob <= 1e-6 for logprob in hypothesis.token_logprobs)
        assert hypothesis.mean_logprob < 0


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        (np.zeros((2, 16_000), np.float32), "one row of float32"),
        (np.zeros(16_000), "one row of float32"),
        (np.zeros(399, np.float32), "at least 25 ms"),
        (np.zeros(41 * 16_000, np.float32), "split it at pauses"),
        (np.full(16_000, np.nan, np.float32), "NaN or infinite"),
    ],
)
def test_clips_that_cannot_be_transcribed_are_named(
    engine: Phi4Engine, clip: np.ndarray, reason: str
) -> None:
    with pytest.raises(ClipError, match=f"clip 1: .*{reason}"):
        engine.transcribe([sentences()[0].clip, clip])


def test_no_clips_no_hypotheses(engine: Phi4Engine) -> None:
    assert engine.transcribe([]) == []


def test_generation_stops_at_the_limit_of_the_clips_length(
    engine: Phi4Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speech.guards.MAX_TOKENS_PER_SECOND", 1.0)
    monkeypatch.setattr("speech.guards.EXTRA_TOKENS", 2)
    clip = sentences()[1].clip
    hypothesis = engine.transcribe([clip])[0]
    assert len(hypothesis.token_ids) == token_limit(len(clip) / 16_000)
    assert TOKEN_LIMIT in hypothesis.flags


def loop_on_long_clips(longest_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulates a model that loops on clips longer than this."""
    outcome = Phi4Engine._outcome

    def looped(self: Phi4Engine, clip: np.ndarray, generated: Generated) -> Hypothesis | ClipFailed:
        if len(clip) > longest_s * 16_000:
            return Hypothesis("e " * 40, (1,) * 40, (-0.1,) * 40, -0.1, (LOOP,))
        return outcome(self, clip, generated)

    monkeypatch.setattr(Phi4Engine, "_outcome", looped)


def test_a_looping_clip_is_tried_again_in_two_halves(
    engine: Phi4Engine, alone: list[Hypothesis], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = np.concatenate([sentences()[0].clip, sentences()[1].clip])
    loop_on_long_clips(6, monkeypatch)
    hypothesis = engine.transcribe([sentences()[2].clip, long])[1]
    assert hypothesis.text == f"{alone[0].text} {alone[1].text}"
    assert hypothesis.flags == (RESPLIT,)
    assert len(hypothesis.token_ids) == len(hypothesis.token_logprobs)


def test_a_clip_whose_halves_loop_too_is_kept_as_doubtful(
    engine: Phi4Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = np.concatenate([sentence.clip for sentence in sentences()[:4]])
    loop_on_long_clips(6, monkeypatch)
    assert engine.transcribe([long])[0].flags == (LOOP, LOW_CONFIDENCE)


def test_a_short_clip_that_trips_is_not_cut(engine: Phi4Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    loop_on_long_clips(0, monkeypatch)
    hypothesis = engine.transcribe([sentences()[0].clip[: int(3.9 * 16_000)]])[0]
    assert hypothesis.flags == (LOOP, LOW_CONFIDENCE)


def invented(kind: str, duration_s: float) -> np.ndarray:
    """Sound without speech."""
    rng = np.random.default_rng(3)
    time = np.arange(int(duration_s * 16_000)) / 16_000
    chord = sum(np.sin(2 * np.pi * f * time) for f in (220.0, 277.2, 329.6, 440.0)) / 4
    beat = (np.sin(2 * np.pi * 2 * time) > 0.5).astype(float)
    sound = {
        "silence": np.zeros_like(time),
        "noise": rng.normal(0, 0.2, len(time)),
        "hiss": rng.normal(0, 1e-3, len(time)),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time),
        "music": 0.3 * chord * (0.5 + 0.5 * beat) + 0.05 * beat * rng.normal(0, 1, len(time)),
    }[kind]
    return sound.astype(np.float32)


@pytest.mark.parametrize("kind", ["silence", "noise", "hiss", "tone", "music"])
@pytest.mark.parametrize("duration_s", [1.0, 8.0, 28.0])
def test_text_for_sound_without_speech_never_passes_silently(
    engine: Phi4Engine, kind: str, duration_s: float
) -> None:
    hypothesis = engine.transcribe([invented(kind, duration_s)])[0]
    assert hypothesis.text == "" or LOW_CONFIDENCE in hypothesis.flags


@pytest.mark.parametrize("kind", ["silence", "noise", "hiss", "tone", "music"])
def test_a_model_that_invents_on_sound_without_speech_is_caught(
    engine: Phi4Engine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it hears, this model writes the same confident sentence."""
    monkeypatch.setattr(engine, "_tokenizer", Parrot())
    hypothesis = engine.transcribe([invented(kind, 6.0)])[0]
    assert hypothesis.flags == (LOW_CONFIDENCE, NO_SPEECH)


class Parrot:
    """A tokenizer that says the same of any tokens."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        raise NotImplementedError

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool) -> str:
        return "Grazas por ver este programa, ata a vindeira semana."


def test_speech_under_noise_is_no_silence(engine: Phi4Engine) -> None:
    rng = np.random.default_rng(4)
    for sentence in sentences()[:6]:
        loudness = float(np.sqrt(np.mean(np.square(sentence.clip))))
        noisy = sentence.clip + rng.normal(0, loudness / 3.2, len(sentence.clip)).astype(np.float32)  # 10 dB
        assert NO_SPEECH not in engine.transcribe([noisy])[0].flags
