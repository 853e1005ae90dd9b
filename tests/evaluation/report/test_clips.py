"""Clips of the worst utterances: bounded, levelled, without clicks, and readable by a decoder."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from evaluation.report.clips import LEVEL_DBFS, MAX_CLIP_S, encode, prepare
from speech.audio import SAMPLE_RATE_HZ


def tone(seconds: float, level: float) -> np.ndarray:
    at = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * 440 * at)).astype(np.float32)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.9])
def test_quiet_and_loud_clips_end_up_alike(level: float) -> None:
    assert prepare(tone(3, level)).dBFS == pytest.approx(LEVEL_DBFS, abs=0.5)


def test_a_click_does_not_push_the_rest_into_clipping() -> None:
    samples = tone(3, 0.001)
    samples[1000] = 0.9
    assert prepare(samples).max_dBFS <= -0.9


def test_silence_stays_silence() -> None:
    assert prepare(np.zeros(SAMPLE_RATE_HZ, np.float32)).max == 0


def test_a_long_clip_is_cut_and_fades_out() -> None:
    sound = prepare(tone(MAX_CLIP_S + 5, 0.3))
    assert len(sound) == MAX_CLIP_S * 1000
    assert sound[-5:].dBFS < sound[-1000:-500].dBFS - 20
    assert sound[:2].dBFS < sound[100:200].dBFS - 10


def test_an_empty_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        prepare(np.zeros(0, np.float32))


def test_the_encoded_clip_is_a_small_mp3_of_the_same_length() -> None:
    content = encode(prepare(tone(10, 0.3)))
    assert encode(prepare(tone(10, 0.3))) == content
    assert len(content) < 45_000
    with av.open(io.BytesIO(content)) as container:
        n_samples = sum(frame.samples for frame in container.decode(audio=0))
        assert container.streams.audio[0].codec_context.name.startswith("mp3")
    assert n_samples / SAMPLE_RATE_HZ == pytest.approx(10, abs=0.2)
