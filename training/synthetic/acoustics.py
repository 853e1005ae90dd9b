"""What a broadcast does to speech: rooms, microphones, lines, music and noise behind it, level.

All on float32 samples at 16 kHz, by a seeded generator; nothing is read from disk. Impulse responses are made: noise
that decays, after a few early echoes (Schroeder's model of a diffuse room).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

__all__ = ["CONDITIONS", "add_at_snr", "babble", "degrade", "music", "noise", "nothing"]

SAMPLE_RATE_HZ = 16_000
QUIET = 1e-4

Samples = npt.NDArray[np.float32]


def _rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def with_level(samples: Samples, dbfs: float) -> Samples:
    """Scaled so that its root mean square is `dbfs`, and peaks stay below full scale."""
    rms = _rms(samples)
    if rms < 1e-7:
        return samples
    scaled = samples * np.float32(10 ** (dbfs / 20) / rms)
    peak = float(np.abs(scaled).max())
    return (scaled * np.float32(0.98 / peak) if peak > 0.98 else scaled).astype(np.float32)


def add_at_snr(speech: Samples, behind: Samples, snr_db: float) -> Samples:
    """Speech with something behind it, `snr_db` softer, of the same length."""
    loudness = _rms(behind)
    if loudness < 1e-7:
        return speech
    gain = _rms(speech) / loudness * 10 ** (-snr_db / 20)
    return (speech + behind * np.float32(gain)).astype(np.float32)


def noise(n_samples: int, rng: np.random.Generator) -> Samples:
    """White to brown noise whose loudness wavers, at times with a hum of the mains."""
    white = rng.standard_normal(n_samples).astype(np.float32)
    pole = float(rng.choice([0.0, 0.5, 0.9, 0.97, 0.99]))
    coloured = lfilter([1.0], [1.0, -pole], white).astype(np.float32)
    time_s = np.arange(n_samples, dtype=np.float32) / SAMPLE_RATE_HZ
    wavering = 1 + rng.uniform(0, 0.6) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * time_s + rng.uniform(0, 6))
    result = coloured / (np.std(coloured) + 1e-9) * wavering
    if rng.random() < 0.25:
        hum = sum(np.sin(2 * np.pi * 50 * k * time_s + rng.uniform(0, 6)) / k for k in (1, 2, 3, 5))
        result = result + rng.uniform(0.1, 1.0) * hum
    return np.asarray(result, np.float32)


def music(n_samples: int, rng: np.random.Generator) -> Samples:
    """A bed of chords with a bass, at times with a beat: no melody anyone knows."""
    beat = int(SAMPLE_RATE_HZ * 60 / rng.uniform(70, 150))
    scale = np.array([0, 2, 4, 5, 7, 9, 11]) if rng.random() < 0.6 else np.array([0, 2, 3, 5, 7, 8, 10])
    root_hz = 110 * 2 ** (rng.integers(0, 12) / 12)
    brightness = rng.uniform(0.3, 0.8)
    drums = rng.random() < 0.6
    result = np.zeros(n_samples + 4 * beat, dtype=np.float32)
    decay_s = rng.uniform(0.15, 1.5)
    for start in range(0, n_samples, beat):
        degree = int(rng.integers(0, 7))
        length = min(int(beat * rng.choice([1, 2, 4])), len(result) - start)
        time_s = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
        envelope = np.exp(-time_s / decay_s) * np.minimum(1, time_s * 100)
        for step in (0, 2, 4):
            place = degree + step
            semitones = scale[place % 7] + 12 * (place // 7)
            hz = root_hz * 2 ** (semitones / 12) * (0.5 if step == 0 else 1)
            tone = sum(
                brightness**k * np.sin(2 * np.pi * hz * k * time_s + rng.uniform(0, 6)) for k in range(1, 6)
            )
            result[start : start + length] += (envelope * tone).astype(np.float32)
        if drums:
            hit = min(int(0.12 * SAMPLE_RATE_HZ), len(result) - start)
            shape = np.exp(-np.arange(hit) / (0.02 * SAMPLE_RATE_HZ))
            result[start : start + hit] += (rng.standard_normal(hit) * shape * rng.uniform(0.5, 2)).astype(
                np.float32
            )
    return result[:n_samples]


def babble(n_samples: int, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Three to six other clips at once, from anywhere in them, over again where they are short."""
    if not others:
        return noise(n_samples, rng)
    result = np.zeros(n_samples, dtype=np.float32)
    for _ in range(int(rng.integers(3, 7))):
        other = others[int(rng.integers(len(others)))]
        if len(other):
            turned = np.roll(other, int(rng.integers(len(other))))
            result += np.resize(turned, n_samples) / np.float32(_rms(other) + 1e-6)
    return result


def equalised(samples: Samples, rng: np.random.Generator) -> Samples:
    """The colour of a microphone: two broad peaks or dips, at most 8 dB, and a tilt."""
    result = samples
    for _ in range(2):
        centre_hz, gain_db, width = 10 ** rng.uniform(2.1, 3.75), rng.uniform(-8, 8), rng.uniform(0.4, 1.2)
        result = lfilter(*_peak(centre_hz, gain_db, width), result)
    tilt = rng.uniform(-0.35, 0.35)
    return np.asarray(lfilter([1.0, -tilt], [1.0], result), np.float32)


def _peak(centre_hz: float, gain_db: float, width: float) -> tuple[list[float], list[float]]:
    # The peaking filter of Bristow-Johnson's Audio EQ Cookbook.
    amplitude = 10 ** (gain_db / 40)
    omega = 2 * np.pi * centre_hz / SAMPLE_RATE_HZ
    alpha = np.sin(omega) * width / 2
    cosine = -2 * np.cos(omega)
    numerator = [1 + alpha * amplitude, cosine, 1 - alpha * amplitude]
    denominator = [1 + alpha / amplitude, cosine, 1 - alpha / amplitude]
    return [float(value / denominator[0]) for value in numerator], [
        float(v / denominator[0]) for v in denominator
    ]


def in_room(samples: Samples, rng: np.random.Generator) -> Samples:
    """In a room with a reverberation time of 0.15 to 0.6 s; not moved in time."""
    reverberation_s = rng.uniform(0.15, 0.6)
    n_tail = int(reverberation_s * SAMPLE_RATE_HZ)
    time_s = np.arange(n_tail) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(n_tail) * np.exp(-6.9 * time_s / reverberation_s)
    tail[: int(0.004 * SAMPLE_RATE_HZ)] = 0
    tail *= rng.uniform(0.15, 0.7) / np.sqrt(np.sum(tail**2))
    for _ in range(int(rng.integers(2, 6))):
        tail[int(rng.integers(60, min(600, n_tail)))] += rng.uniform(-0.4, 0.4)
    tail[0] = 1.0
    return np.asarray(fftconvolve(samples, tail.astype(np.float32))[: len(samples)], np.float32)


def by_telephone(samples: Samples, rng: np.random.Generator) -> Samples:
    """300 to 3,400 Hz and 8 bits by the mu-law (ITU-T G.711), as callers sound."""
    low, high = rng.uniform(200, 350), rng.uniform(3000, 3700)
    band = sosfilt(butter(4, [low, high], btype="band", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    peak = float(np.abs(band).max()) + 1e-9
    companded = np.sign(band) * np.log1p(255 * np.abs(band) / peak) / np.log1p(255)
    coarse = np.round(companded * 127) / 127
    expanded = np.sign(coarse) * np.expm1(np.abs(coarse) * np.log1p(255)) / 255
    return np.asarray(expanded * peak, np.float32)


def coded(samples: Samples, rng: np.random.Generator) -> Samples:
    """As after a coder of few bits: weak parts of the spectrum gone, frame by frame, and the top cut off."""
    frame, hop = 512, 256
    padded = np.concatenate([np.zeros(hop, np.float32), samples, np.zeros(frame + hop, np.float32)])
    window = np.sin(np.pi * (np.arange(frame) + 0.5) / frame).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop] * window
    spectrum = np.fft.rfft(frames, axis=1)
    strength = np.abs(spectrum)
    masked = strength < strength.max(axis=1, keepdims=True) * 10 ** (-rng.uniform(28, 42) / 20)
    spectrum[masked] = 0
    spectrum[:, int(rng.uniform(3800, 7000) / SAMPLE_RATE_HZ * frame) :] = 0
    back = np.fft.irfft(spectrum, frame, axis=1) * window
    result = np.zeros(len(padded), np.float64)
    for offset in range(2):  # frames that do not overlap each other are laid side by side
        part = back[offset::2].reshape(-1)
        start = offset * hop
        length = min(len(part), len(result) - start)
        result[start : start + length] += part[:length]
    return result[hop : hop + len(samples)].astype(np.float32)


def clipped(samples: Samples, rng: np.random.Generator) -> Samples:
    """Recorded too loud: its highest 1 to 25 % of level cut off."""
    ceiling = float(np.quantile(np.abs(samples), rng.uniform(0.985, 0.999)))
    return np.clip(samples, -ceiling, ceiling).astype(np.float32) if ceiling > 0 else samples


def _clean(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return equalised(samples, rng) if rng.random() < 0.3 else samples


def _noisy(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return add_at_snr(samples, noise(len(samples), rng), rng.uniform(8, 25))


def _over_music(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return add_at_snr(samples, music(len(samples), rng), rng.uniform(8, 22))


def _in_babble(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return add_at_snr(samples, babble(len(samples), others, rng), rng.uniform(10, 22))


def _far(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return add_at_snr(in_room(equalised(samples, rng), rng), noise(len(samples), rng), rng.uniform(15, 35))


def _called(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return by_telephone(add_at_snr(samples, noise(len(samples), rng), rng.uniform(15, 35)), rng)


def _compressed(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    return coded(samples, rng)


def _mixed(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Two or three of the above, at 8 to 20 dB."""
    result = equalised(samples, rng)
    if rng.random() < 0.5:
        result = in_room(result, rng)
    behind = [noise(len(samples), rng), music(len(samples), rng), babble(len(samples), others, rng)]
    result = add_at_snr(result, behind[int(rng.integers(3))], rng.uniform(8, 20))
    if rng.random() < 0.25:
        result = by_telephone(result, rng)
    elif rng.random() < 0.25:
        result = coded(result, rng)
    return clipped(result, rng) if rng.random() < 0.15 else result


def _by_shortwave(samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """Fading in and out in a narrow band, under hiss: no part of the training corpus."""
    low, high = rng.uniform(350, 450), rng.uniform(2300, 2700)
    band = sosfilt(butter(4, [low, high], btype="band", fs=SAMPLE_RATE_HZ, output="sos"), samples)
    time_s = np.arange(len(samples)) / SAMPLE_RATE_HZ
    fading = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * time_s + rng.uniform(0, 6))
    return add_at_snr((band * fading).astype(np.float32), noise(len(samples), rng), rng.uniform(4, 10))


_Change = Callable[[Samples, Sequence[Samples], np.random.Generator], Samples]
CONDITIONS: dict[str, _Change] = {
    "clean": _clean,
    "noise": _noisy,
    "music": _over_music,
    "babble": _in_babble,
    "room": _far,
    "telephone": _called,
    "coded": _compressed,
    "mixed": _mixed,
    "shortwave": _by_shortwave,
}
"""What may be done to a clip: samples, clips of other speakers for babble, and a seeded generator."""


def degrade(condition: str, samples: Samples, others: Sequence[Samples], rng: np.random.Generator) -> Samples:
    """A clip in one of `CONDITIONS`, at a level of -32 to -14 dBFS, with a whisper of noise so that nothing is zero.

    Raises:
        ValueError: there is no such condition.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"there is no condition {condition!r}: choose of {', '.join(CONDITIONS)}")
    changed = with_level(CONDITIONS[condition](samples, others, rng), rng.uniform(-32, -14))
    return (changed + rng.standard_normal(len(changed)).astype(np.float32) * np.float32(QUIET)).astype(
        np.float32
    )


def nothing(n_samples: int, rng: np.random.Generator) -> tuple[Samples, str]:
    """Audio in which nobody speaks, and what it is: silence, noise, tone or music."""
    kind = str(rng.choice(["silence", "noise", "music", "tone"], p=[0.25, 0.3, 0.35, 0.1]))
    time_s = np.arange(n_samples) / SAMPLE_RATE_HZ
    makers: dict[str, Callable[[], Samples]] = {
        "silence": lambda: rng.standard_normal(n_samples).astype(np.float32),
        "noise": lambda: noise(n_samples, rng),
        "music": lambda: music(n_samples, rng),
        "tone": lambda: np.sin(2 * np.pi * rng.uniform(200, 2000) * time_s).astype(np.float32),
    }
    made = makers[kind]()
    dbfs = rng.uniform(-90, -60) if kind == "silence" else rng.uniform(-55, -14)
    return with_level(made, dbfs), kind
