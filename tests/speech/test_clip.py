"""Clips that people hear: bounded, levelled, without clicks, and readable by a decoder."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from speech.audio import SAMPLE_RATE_HZ
from speech.clip import LEVEL_DBFS, ClipFormat, encode, prepare


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
    sound = prepare(tone(35, 0.3), max_s=30)
    assert len(sound) == 30_000
    assert sound[-5:].dBFS < sound[-1000:-500].dBFS - 20
    assert sound[:2].dBFS < sound[100:200].dBFS - 10


def test_an_empty_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        prepare(np.zeros(0, np.float32))


@pytest.mark.parametrize("n_samples", [1, 7, 159])
@pytest.mark.parametrize("form", ClipFormat)
def test_a_clip_of_next_to_nothing_is_a_file(n_samples: int, form: ClipFormat) -> None:
    assert encode(prepare(tone(1, 0.3)[:n_samples]), form)


@pytest.mark.parametrize(
    ("form", "codec", "bit_rate"),
    [(ClipFormat.MP3, "mp3", None), (ClipFormat.MP3, "mp3", 32_000), (ClipFormat.OPUS, "opus", None)],
)
def test_the_encoded_clip_is_small_sounds_the_same_and_comes_out_the_same_again(
    form: ClipFormat, codec: str, bit_rate: int | None
) -> None:
    sound = prepare(tone(10, 0.3))
    content = encode(sound, form, bit_rate=bit_rate)
    assert encode(prepare(tone(10, 0.3)), form, bit_rate=bit_rate) == content
    assert len(content) < 90_000 * (bit_rate or 64_000) / 64_000
    with av.open(io.BytesIO(content)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE_HZ)
        frames = [out for frame in container.decode(audio=0) for out in resampler.resample(frame)]
        heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        assert codec in container.streams.audio[0].codec_context.name
        assert not container.metadata
    assert len(heard) / SAMPLE_RATE_HZ == pytest.approx(10, abs=0.2)
    middle = heard[SAMPLE_RATE_HZ : 9 * SAMPLE_RATE_HZ]
    assert 20 * np.log10(np.sqrt(np.mean(middle**2))) == pytest.approx(LEVEL_DBFS, abs=1)
    assert np.abs(np.fft.rfft(middle)).argmax() * SAMPLE_RATE_HZ / len(middle) == pytest.approx(440, abs=1)
