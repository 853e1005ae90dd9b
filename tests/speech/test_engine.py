"""The engine writes for each clip what it writes for it alone, and recognises the demo speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.score import score
from speech.checkpoint import open_checkpoint
from speech.engine import ClipError, DecodeSettings, Hypothesis, Phi4Engine
from speech.guards import LOOP, RESPLIT, TOKEN_LIMIT, flags_for, token_limit
from tests.demo_speech import sentences

DEMO = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def engine() -> Phi4Engine:
    return Phi4Engine(*open_checkpoint(DEMO, device="cpu"))


@pytest.fixture(scope="module")
def alone(engine: Phi4Engine) -> list[Hypothesis]:
    """Each of the first sentences transcribed by itself."""
    return [engine.transcribe([sentence.clip])[0] for sentence in sentences()[:48]]


@settings(max_examples=15, deadline=None)
@given(chosen=st.lists(st.integers(0, 47), min_size=2, max_size=12), most=st.integers(2, 12))
def test_text_does_not_depend_on_batch_or_order(
    engine: Phi4Engine, alone: list[Hypothesis], chosen: list[int], most: int
) -> None:
    batched = Phi4Engine(
        engine.model, engine._tokenizer, settings=DecodeSettings(max_batch_clips=most)
    ).transcribe([sentences()[k].clip for k in chosen])
    for k, hypothesis in zip(chosen, batched, strict=True):
        assert hypothesis.token_ids == alone[k].token_ids
        assert hypothesis.text == alone[k].text
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


@pytest.mark.parametrize("level", [0.0, 1e-4, 0.05])
def test_nothing_is_invented_on_silence_and_noise(engine: Phi4Engine, level: float) -> None:
    noise = np.random.default_rng(3).normal(0, 1, 5 * 16_000).astype(np.float32) * np.float32(level)
    assert engine.transcribe([noise])[0].text == ""


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


def test_loops_are_flagged_and_real_repeats_are_not() -> None:
    def flags(text: str) -> tuple[str, ...]:
        return flags_for(text, duration_s=20, n_tokens=20, ended=True, mean_logprob=-0.1)

    assert LOOP in flags("o vento do norte e e e e e")
    assert LOOP in flags("moitas grazas " * 4)
    stumbling = (
        "na praza do Toural. men na praza do Toural. meb na praza do Toural. na praza do Toural. meleo"
    )
    assert LOOP in flags(stumbling)
    assert flags("non, non e non, dixo; moi moi ben") == ()


def test_a_looping_clip_is_tried_again_in_two_halves(
    engine: Phi4Engine, alone: list[Hypothesis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulates a model that loops on clips over 6 s: each half then gives what it gives alone."""
    long = np.concatenate([sentences()[0].clip, sentences()[1].clip])
    decode = Phi4Engine._decode

    def loop_on_long_clips(self: Phi4Engine, clips: list[np.ndarray]) -> list[Hypothesis]:
        looped = Hypothesis("e " * 40, (1,) * 40, (-0.1,) * 40, -0.1, (LOOP,))
        return [
            looped if len(clip) > 6 * 16_000 else hypothesis
            for clip, hypothesis in zip(clips, decode(self, clips), strict=True)
        ]

    monkeypatch.setattr(Phi4Engine, "_decode", loop_on_long_clips)
    hypothesis = engine.transcribe([sentences()[2].clip, long])[1]
    assert hypothesis.text == f"{alone[0].text} {alone[1].text}"
    assert hypothesis.flags == (RESPLIT,)
    assert len(hypothesis.token_ids) == len(hypothesis.token_logprobs)
    longer = np.concatenate([long, long])
    kept = engine.transcribe([longer])[0]
    assert kept.flags == (LOOP,), "halves that loop too: kept as it was, flags and all"
