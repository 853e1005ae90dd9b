"""Sound in which nobody speaks, for `tests.benchmarks.split_quality`: music, noise and silence of many kinds.

All is made by a seeded generator at 16 kHz, float32 of shape (n,), at any level: whoever uses it sets that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

from training.synthetic.acoustics import music as chords

RATE_HZ = 16_000
Samples = npt.NDArray[np.float32]
Maker = Callable[[int, np.random.Generator], Samples]

_MAJOR = np.array([0, 2, 4, 5, 7, 9, 11])
_MINOR = np.array([0, 2, 3, 5, 7, 8, 10])


def _band(samples: Samples, low_hz: float, high_hz: float) -> Samples:
    sections = butter(2, [low_hz, high_hz], btype="band", fs=RATE_HZ, output="sos")
    return np.asarray(sosfilt(sections, samples), np.float32)


def _note_hz(degree: int, scale: npt.NDArray[np.int_], root_hz: float) -> float:
    octave, place = divmod(degree, 7)
    return float(root_hz * 2 ** (octave + scale[place] / 12))


def _scale(rng: np.random.Generator) -> npt.NDArray[np.int_]:
    return _MAJOR if rng.random() < 0.6 else _MINOR


def percussion(n_samples: int, rng: np.random.Generator) -> Samples:
    """A drum kit alone: kick, snare and hi-hat by a pattern of sixteen steps that changes now and then."""
    step = int(RATE_HZ * 60 / rng.uniform(80, 160) / 4)
    time_s = np.arange(int(0.3 * RATE_HZ)) / RATE_HZ
    hiss = rng.standard_normal((2, len(time_s)))
    swept_hz = 50 + 90 * np.exp(-time_s / 0.03)
    kick = np.sin(2 * np.pi * np.cumsum(swept_hz) / RATE_HZ) * np.exp(-time_s / 0.09)
    snare = (0.6 * hiss[0] + 0.5 * np.sin(2 * np.pi * 190 * time_s)) * np.exp(-time_s / 0.06)
    hat = lfilter([1, -1], [1], hiss[1]) * np.exp(-time_s / rng.uniform(0.01, 0.05)) * 0.25
    result = np.zeros(n_samples + len(time_s), np.float32)
    patterns = (rng.random((3, 16)) < np.array([[0.3], [0.2], [0.7]])) | np.eye(3, 16, dtype=bool)
    for index, start in enumerate(range(0, n_samples, step)):
        if index % 64 == 0:
            patterns = patterns ^ (rng.random((3, 16)) < 0.08)
        for drum, pattern in zip((kick, snare, hat), patterns, strict=True):
            if pattern[index % 16]:
                result[start : start + len(time_s)] += (drum * rng.uniform(0.6, 1.0)).astype(np.float32)
    return result[:n_samples]


def melody(n_samples: int, rng: np.random.Generator) -> Samples:
    """One instrument that sustains its notes, with vibrato and slides, and breathes between phrases."""
    scale, root_hz = _scale(rng), rng.uniform(150, 330)
    hz = np.empty(n_samples + 2 * RATE_HZ)
    loudness = np.zeros(len(hz))
    at, degree = 0, 3
    while at < n_samples:
        n_note = int(rng.choice([0.15, 0.2, 0.3, 0.4, 0.6, 1.0]) * RATE_HZ)
        degree = int(np.clip(degree + rng.integers(-3, 4), -3, 12))
        hz[at : at + n_note] = _note_hz(degree, scale, root_hz)
        is_rest = rng.random() < 0.12
        time = np.arange(n_note) / RATE_HZ
        shape = np.minimum(1, time / rng.uniform(0.01, 0.06)) * np.minimum(1, (time[-1] - time) / 0.05)
        loudness[at : at + n_note] = 0 if is_rest else shape * rng.uniform(0.6, 1)
        at += n_note
    hz, loudness = hz[:n_samples], loudness[:n_samples]
    glide = lfilter([1 - 0.998], [1, -0.998], hz, zi=[0.998 * hz[0]])[0]
    vibrato_hz, depth = rng.uniform(4.5, 6.5), rng.uniform(0, 0.012)
    time = np.arange(n_samples) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(glide * (1 + depth * np.sin(2 * np.pi * vibrato_hz * time))) / RATE_HZ
    fall = rng.uniform(0.6, 1.8)
    wave = np.zeros(n_samples)
    for harmonic in range(1, 9):
        heard = glide * harmonic < RATE_HZ / 2.2
        wave += np.sin(harmonic * phase) * heard / harmonic**fall
    return np.asarray(wave * loudness, np.float32)


def pad(n_samples: int, rng: np.random.Generator) -> Samples:
    """Slow chords of strings or an organ, each swelling into the next."""
    scale, root_hz = _scale(rng), rng.uniform(80, 180)
    result = np.zeros(n_samples + 8 * RATE_HZ)
    at = 0
    while at < n_samples:
        n_chord = int(rng.uniform(1.5, 5) * RATE_HZ)
        length = n_chord + RATE_HZ
        time = np.arange(length) / RATE_HZ
        shape = np.minimum(1, time / 0.6) * np.minimum(1, (time[-1] - time) / 0.9)
        degree = int(rng.integers(0, 7))
        for voice in (degree, degree + 2, degree + 4, degree + 7):
            for detuned in (0.997, 1.004):
                hz = _note_hz(voice, scale, root_hz) * detuned
                phase = 2 * np.pi * hz * time + rng.uniform(0, 6)
                result[at : at + length] += shape * sum(np.sin(k * phase) / k for k in range(1, 7))
        at += n_chord
    return np.asarray(result[:n_samples], np.float32)


def plucked(n_samples: int, rng: np.random.Generator) -> Samples:
    """A guitar or harp: strings by Karplus and Strong, in broken chords."""
    scale, root_hz = _scale(rng), rng.uniform(80, 160)
    step = int(RATE_HZ * rng.uniform(0.11, 0.35))
    result = np.zeros(n_samples + 2 * RATE_HZ, np.float32)
    chord = 0
    for index, start in enumerate(range(0, n_samples, step)):
        if index % 8 == 0:
            chord = int(rng.integers(0, 7))
        degree = chord + int(rng.choice([0, 2, 4, 7, 9]))
        period = int(RATE_HZ / _note_hz(degree, scale, root_hz))
        burst = np.zeros(int(1.5 * RATE_HZ))
        burst[:period] = rng.uniform(-1, 1, period)
        loop = np.zeros(period + 2)
        loop[0], loop[period], loop[period + 1] = 1, -0.498, -0.498
        result[start : start + len(burst)] += lfilter([1.0], loop, burst).astype(np.float32)
    return result[:n_samples]


def band(n_samples: int, rng: np.random.Generator) -> Samples:
    """Drums, chords and a lead together, as in a pop song without its singer."""
    parts = ((percussion, 0.6), (chords, 0.7), (melody, 0.8), (plucked, 0.4))
    return _mixed(parts, n_samples, rng)


def jingle(n_samples: int, rng: np.random.Generator) -> Samples:
    """A station's signature: fast bright notes over a pad, with gaps."""
    made = _mixed(((plucked, 0.5), (pad, 0.6), (percussion, 0.3)), n_samples, rng)
    gate = np.repeat(rng.random(n_samples // 4000 + 1) < 0.85, 4000)[:n_samples].astype(np.float32)
    return np.asarray(made * np.convolve(gate, np.ones(160, np.float32) / 160, "same"), np.float32)


def _mixed(parts: tuple[tuple[Maker, float], ...], n_samples: int, rng: np.random.Generator) -> Samples:
    result = np.zeros(n_samples, np.float32)
    for maker, share in parts:
        made = maker(n_samples, rng)
        result += made * np.float32(share / (np.sqrt(np.mean(made**2)) + 1e-9))
    return result


def tones(n_samples: int, rng: np.random.Generator) -> Samples:
    """Line-up tone, time pips or dialling: what stations send between programmes."""
    time = np.arange(n_samples) / RATE_HZ
    kind = rng.integers(0, 3)
    if kind == 0:
        return np.asarray(np.sin(2 * np.pi * rng.choice([400, 440, 1000]) * time), np.float32)
    if kind == 1:
        return np.asarray(np.sin(2 * np.pi * 1000 * time) * (time % 1 < 0.1), np.float32)
    rows, columns = np.array([697, 770, 852, 941]), np.array([1209, 1336, 1477])
    keys = rng.integers(0, 12, n_samples // 3200 + 1)
    low, high = (np.repeat(hz, 3200)[:n_samples] for hz in (rows[keys // 3], columns[keys % 3]))
    both = np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)
    return np.asarray(both * (time % 0.2 < 0.1), np.float32)


def sung(n_samples: int, rng: np.random.Generator) -> Samples:
    """Vowels sung without words: a voice, but no speech. Counted apart."""
    source = melody(n_samples, rng)
    result = np.zeros(n_samples, np.float32)
    formants = ((700, 1200, 2600), (400, 2000, 2600), (300, 870, 2250), (450, 800, 2830))
    for low, middle, high in (formants[int(rng.integers(4))], formants[int(rng.integers(4))]):
        for centre, share in ((low, 1.0), (middle, 0.6), (high, 0.3)):
            result += np.float32(share) * _band(source, centre * 0.88, centre * 1.12)
    return result


def white(n_samples: int, rng: np.random.Generator) -> Samples:
    return rng.standard_normal(n_samples, np.float32)


def pink(n_samples: int, rng: np.random.Generator) -> Samples:
    return _falling(n_samples, rng, 0.5)


def brown(n_samples: int, rng: np.random.Generator) -> Samples:
    return _falling(n_samples, rng, 1.0)


def _falling(n_samples: int, rng: np.random.Generator, power: float) -> Samples:
    """Noise whose amplitude falls with frequency to this power, above 20 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    hz = np.fft.rfftfreq(n_samples, 1 / RATE_HZ)
    spectrum *= np.where(hz < 20, 0, np.maximum(hz, 20) ** -power)
    return np.fft.irfft(spectrum, n_samples).astype(np.float32)


def hum(n_samples: int, rng: np.random.Generator) -> Samples:
    """The mains in a badly wired line: 50 Hz with its multiples, and a little hiss."""
    time = np.arange(n_samples) / RATE_HZ
    wave = sum(
        np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3, 4, 5, 6, 7, 9, 11)
    )
    return np.asarray(wave + 0.05 * rng.standard_normal(n_samples), np.float32)


def _harmonics(hz: float, n: int, time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A tone with its multiples, each softer than the one before."""
    result = np.zeros(len(time_s))
    for k in range(1, n + 1):
        result += np.sin(2 * np.pi * hz * k * time_s) / k
    return result


def street(n_samples: int, rng: np.random.Generator) -> Samples:
    """Rumble, vehicles that pass, and a horn now and then."""
    result = brown(n_samples, rng)
    result /= np.std(result) + 1e-9
    time = np.arange(n_samples) / RATE_HZ
    for _ in range(max(1, int(time[-1] / 5))):
        passing = np.exp(-0.5 * ((time - rng.uniform(0, time[-1])) / rng.uniform(0.6, 2.5)) ** 2)
        tyres = _band(
            rng.standard_normal(n_samples, np.float32), rng.uniform(100, 400), rng.uniform(900, 2500)
        )
        engine_hz = rng.uniform(60, 140)
        engine = _harmonics(engine_hz, 5, time)
        loud = passing * (tyres / (np.std(tyres) + 1e-9) + 0.3 * engine) * rng.uniform(0.5, 2)
        result += loud.astype(np.float32)
    for _ in range(rng.poisson(time[-1] / 12)):
        at, n_horn = int(rng.integers(0, n_samples)), int(rng.uniform(0.2, 0.9) * RATE_HZ)
        heard = time[: len(result[at : at + n_horn])]
        horn = _harmonics(410, 5, heard) + _harmonics(515, 5, heard)
        result[at : at + n_horn] += (horn * rng.uniform(0.5, 1.5)).astype(np.float32)
    return result


def applause(n_samples: int, rng: np.random.Generator) -> Samples:
    """Many hands, denser and thinner by turns."""
    density = np.interp(np.arange(n_samples), np.linspace(0, n_samples, 6), rng.uniform(20, 300, 6) / RATE_HZ)
    hands = (rng.random(n_samples) < density) * rng.uniform(0.3, 1, n_samples)
    n_clap = int(0.02 * RATE_HZ)
    clap = rng.standard_normal(n_clap).astype(np.float32) * np.exp(-np.arange(n_clap) / (0.004 * RATE_HZ))
    return _band(np.asarray(fftconvolve(hands, clap)[:n_samples], np.float32), 600, 5000)


def digital_silence(n_samples: int, rng: np.random.Generator) -> Samples:
    return np.zeros(n_samples, np.float32)


def room_tone(n_samples: int, rng: np.random.Generator) -> Samples:
    """An empty studio: faint noise, more of it below."""
    return pink(n_samples, rng) if rng.random() < 0.7 else white(n_samples, rng)


MUSIC: Mapping[str, Maker] = {
    "chords": chords, "percussion": percussion, "melody": melody, "pad": pad, "plucked": plucked, "band": band,
    "jingle": jingle, "tones": tones,
}  # fmt: skip
NOISE: Mapping[str, Maker] = {
    "white": white, "pink": pink, "brown": brown, "hum": hum, "street": street, "applause": applause,
}  # fmt: skip
SILENCE: Mapping[str, Maker] = {"digital": digital_silence, "room tone": room_tone}
APART: Mapping[str, Maker] = {"sung": sung}
"""Like speech without being it: told in a row of their own, and in no aim."""


def with_rms(samples: Samples, dbfs: float) -> Samples:
    """Scaled to a root mean square of `dbfs`; what passes full scale is cut off there, as in a hot recording."""
    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if rms < 1e-9:
        return samples
    scaled: Samples = samples * np.float32(10 ** (dbfs / 20) / rms)
    return np.clip(scaled, np.float32(-0.99), np.float32(0.99))
