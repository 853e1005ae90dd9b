"""Recordings whose every word is known to the millisecond, for `tests.benchmarks.split_quality`.

A recording is a script of passages of speech and of pieces in which nobody speaks, drawn by a seed:

- Speech is spoken by espeak-ng, which tells when each sound begins. Sounds are counted off against the words that were
  sent; a sentence where they do not agree is not used. Words of running speech touch: most have no pause between them.
- A passage has one or two speakers, each with a level of their own, and a background from before its first word to
  after its last. Its sentences follow each other at pauses of 0.08 to 2.5 s; in bulletins, up to 30 of them at most
  0.4 s apart.
- The fixture clips of tests/data/demo-speech are in between, their truth being where each clip is loud.
- Under everything lies faint noise, but for pieces of digital silence.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from tests.benchmarks.split_sounds import APART, MUSIC, NOISE, RATE_HZ, SILENCE, Maker, Samples, with_rms
from tests.speech.media_files import demo_sentence, demo_voices
from training.synthetic.acoustics import babble, by_telephone, in_room
from training.synthetic.espeak import Delivery, Voice, speak
from training.synthetic.pronunciation import SILENCE as PAUSE
from training.synthetic.pronunciation import clauses_of, espeak_input
from training.synthetic.texts import draw_text
from training.synthetic.voices import draw_delivery, draw_voice

LEVELS_DBFS = (-12.0, -18.0, -24.0, -30.0, -36.0, -40.0)
"""Root mean square of a speaker's words."""
BACKGROUNDS = ("none", "noise 20 dB", "noise 10 dB", "music 20 dB", "music 10 dB")
"""What is behind speech, and how far below the softest speaker of the passage."""
PLACES = ("studio", "room", "telephone")
FLOOR_DBFS = -74.0
BED = "bed"
"""The group of pieces that are a passage's background before and after its words."""


@dataclass(frozen=True)
class Material:
    """What is drawn of."""

    levels_dbfs: tuple[float, ...] = LEVELS_DBFS
    backgrounds: tuple[str, ...] = BACKGROUNDS


@dataclass(frozen=True)
class Word:
    """Samples [start_sample, end_sample) in which a word sounds."""

    start_sample: int
    end_sample: int
    level_dbfs: float
    background: str
    place: str
    voice: str
    """espeak-ng's variant."""


@dataclass(frozen=True)
class Clip:
    """Samples in which a fixture clip is loud: speech, with the pauses in it."""

    start_sample: int
    end_sample: int


@dataclass(frozen=True)
class Piece:
    """Samples in which nobody speaks."""

    start_sample: int
    end_sample: int
    group: str
    """music, noise, silence, `BED` or apart."""
    kind: str
    level_dbfs: float


@dataclass(frozen=True)
class Recording:
    """16 kHz mono samples with their truth, all in order. What is in none of the three is pauses of speech."""

    samples: Samples
    words: tuple[Word, ...]
    clips: tuple[Clip, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Sentence:
    """A spoken sentence as espeak-ng made it, and where its words are."""

    samples: Samples
    words: tuple[tuple[int, int], ...]
    """Start and end of each, in samples."""


@dataclass(frozen=True)
class Speaker:
    """Who speaks in a passage, how, and how loud."""

    voice: Voice
    delivery: Delivery
    level_dbfs: float
    place: str


@dataclass
class _Tape:
    """A recording as it grows."""

    parts: list[Samples] = field(default_factory=list)
    n_samples: int = 0
    words: list[Word] = field(default_factory=list)
    clips: list[Clip] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)

    def append(self, samples: Samples) -> int:
        """Add samples; returns where they begin."""
        at = self.n_samples
        self.parts.append(samples)
        self.n_samples += len(samples)
        return at


def make_recording(seed: int, index: int, minutes: float, material: Material = Material()) -> Recording:
    """Recording `index` of a seed, of at least `minutes`. The same arguments give the same recording, in a process that
    has not used espeak-ng before: it carries state from clip to clip.

    Raises:
        EspeakMissing: espeak-ng is not installed.
    """
    rng = np.random.default_rng([seed, index])
    texts = random.Random(f"{seed}/{index}")
    tape = _Tape()
    spoken: list[Samples] = []
    while tape.n_samples < minutes * 60 * RATE_HZ:
        if rng.random() < 0.12:
            _add_clips(tape, rng)
        else:
            spoken.append(_add_passage(tape, rng, texts, material))
            del spoken[:-6]
        if rng.random() < 0.2:  # the next speaker at once
            tape.append(_floor(int(rng.uniform(0.3, 2.5) * RATE_HZ), rng))
            continue
        for _ in range(int(rng.integers(1, 3))):
            _add_piece(tape, rng, spoken)
    samples = np.concatenate(tape.parts)
    return Recording(samples, tuple(tape.words), tuple(tape.clips), tuple(tape.pieces))


def _floor(n_samples: int, rng: np.random.Generator) -> Samples:
    return rng.standard_normal(n_samples, np.float32) * np.float32(10 ** (FLOOR_DBFS / 20))


def speak_sentence(texts: random.Random, speaker: Speaker) -> Sentence:
    """A sentence whose sounds agree with its words."""
    while True:
        text = draw_text(texts.choices(("news", "prose", "fragments"), (5, 3, 2))[0], texts)
        seed = texts.randrange(2**31)
        speech = speak(espeak_input(text, linked=False), speaker.voice, speaker.delivery, seed=seed)
        begins_ms = (0, *speech.phoneme_ends_ms[:-1])
        sounds = [
            (begin, end)
            for name, begin, end in zip(speech.phonemes, begins_ms, speech.phoneme_ends_ms, strict=True)
            if name != PAUSE
        ]
        lengths = [len(word.phonemes) for clause in clauses_of(text) for word in clause.words]
        if sum(lengths) != len(sounds) or not lengths:
            continue
        ends = np.cumsum(lengths)
        per_ms = RATE_HZ // 1000
        words = tuple(
            (sounds[end - length][0] * per_ms, min(sounds[end - 1][1] * per_ms, len(speech.samples)))
            for end, length in zip(ends.tolist(), lengths, strict=True)
        )
        return Sentence(speech.samples, words)


def _draw_speaker(rng: np.random.Generator, texts: random.Random, material: Material) -> Speaker:
    return Speaker(
        draw_voice(texts, unseen=rng.random() < 0.3),
        draw_delivery(texts),
        float(rng.choice(material.levels_dbfs)),
        str(rng.choice(PLACES, p=(0.7, 0.15, 0.15))),
    )


def _add_passage(tape: _Tape, rng: np.random.Generator, texts: random.Random, material: Material) -> Samples:
    """Returns its first sentence, for babble."""
    speakers = [_draw_speaker(rng, texts, material) for _ in range(1 + (rng.random() < 0.35))]
    background = str(rng.choice(material.backgrounds))
    is_bulletin = rng.random() < 0.25
    n_sentences = int(rng.integers(15, 31) if is_bulletin else rng.integers(1, 10))
    lead, tail = (int(rng.uniform(0.4, 5.0) * RATE_HZ) for _ in range(2))
    parts: list[Samples] = [np.zeros(lead, np.float32)]
    at, first = lead, np.empty(0, np.float32)
    words: list[Word] = []
    for number in range(n_sentences):
        speaker = speakers[number % len(speakers)]
        sentence = speak_sentence(texts, speaker)
        pause_s = rng.uniform(0.08, 0.4) if is_bulletin else _pause_s(rng)
        heard = _as_heard(sentence, speaker, int(pause_s * RATE_HZ), rng)
        first = first if len(first) else heard
        words += [
            Word(at + start, at + end, speaker.level_dbfs, background, speaker.place, speaker.voice.variant)
            for start, end in sentence.words
        ]
        parts.append(heard)
        at += len(heard)
    parts.append(np.zeros(tail, np.float32))
    speech = np.concatenate(parts)
    behind, kind, level_dbfs = _background(len(speech), background, speakers, rng)
    begin = tape.append(np.clip(speech + behind + _floor(len(speech), rng), -1, 1))
    tape.words += [
        replace(word, start_sample=begin + word.start_sample, end_sample=begin + word.end_sample)
        for word in words
    ]
    if background != "none":
        edges = ((0, words[0].start_sample), (words[-1].end_sample, len(speech)))
        tape.pieces += [Piece(begin + start, begin + end, BED, kind, level_dbfs) for start, end in edges]
    return first


def _pause_s(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.8, 2.5) if rng.random() < 0.2 else rng.uniform(0.1, 0.7))


def _as_heard(sentence: Sentence, speaker: Speaker, n_pause: int, rng: np.random.Generator) -> Samples:
    """A sentence and the pause after it, in its place, its words at the speaker's level."""
    samples = np.concatenate([sentence.samples, np.zeros(n_pause, np.float32)])
    if speaker.place == "room":
        samples = in_room(samples, rng)
    elif speaker.place == "telephone":
        samples = by_telephone(samples, rng)
    sounding = np.concatenate([samples[start:end] for start, end in sentence.words])
    rms = float(np.sqrt(np.mean(np.square(sounding, dtype=np.float64)))) + 1e-9
    scaled = samples * np.float32(10 ** (speaker.level_dbfs / 20) / rms)
    return np.clip(scaled, -0.99, 0.99).astype(np.float32)


def _background(
    n_samples: int, background: str, speakers: Sequence[Speaker], rng: np.random.Generator
) -> tuple[Samples, str, float]:
    """Samples, kind of sound and level in dBFS of what is behind a passage."""
    if background == "none":
        return np.zeros(n_samples, np.float32), background, FLOOR_DBFS
    group, below, _ = background.split()
    makers = MUSIC if group == "music" else NOISE
    kind = str(rng.choice(sorted(makers)))
    level_dbfs = min(speaker.level_dbfs for speaker in speakers) - float(below)
    return with_rms(makers[kind](n_samples, rng), level_dbfs), kind, level_dbfs


def _add_clips(tape: _Tape, rng: np.random.Generator) -> None:
    """One to six fixture clips of one voice."""
    voices = demo_voices()
    numbers = voices[sorted(voices)[int(rng.integers(len(voices)))]]
    level_dbfs = float(rng.uniform(-32, -14))
    for number in rng.permutation(numbers)[: rng.integers(1, 7)]:
        samples = with_rms(demo_sentence(int(number)), level_dbfs)
        pause = np.zeros(int(_pause_s(rng) * RATE_HZ), np.float32)
        joined = np.concatenate([samples, pause])
        at = tape.append(joined + _floor(len(joined), rng))
        start, end = loud_span(samples)
        tape.clips.append(Clip(at + start, at + end))


def loud_span(samples: Samples) -> tuple[int, int]:
    """From the first to the last 10 ms within 35 dB of the loudest: where a clip's speech begins and ends."""
    n_frames = len(samples) // 160
    level = np.mean(np.square(samples[: n_frames * 160].reshape(n_frames, 160)), axis=1)
    loud = np.flatnonzero(level > level.max() * 10**-3.5)
    return int(loud[0]) * 160, int(loud[-1] + 1) * 160


def _add_piece(tape: _Tape, rng: np.random.Generator, spoken: Sequence[Samples]) -> None:
    group = str(rng.choice(("music", "noise", "silence", "apart"), p=(0.42, 0.24, 0.26, 0.08)))
    makers: dict[str, Maker] = dict(
        {"music": MUSIC, "noise": NOISE, "silence": SILENCE, "apart": APART}[group]
    )
    if group == "apart" and spoken:
        makers["babble"] = lambda length, generator: babble(length, spoken, generator)
    kind = str(rng.choice(sorted(makers)))
    n_samples = int(np.exp(rng.uniform(np.log(3.0), np.log(60.0))) * RATE_HZ)
    quietest, loudest = {
        "music": (-36, -14),
        "noise": (-50, -18),
        "silence": (-74, -58),
        "apart": (-30, -16),
    }[group]
    level_dbfs = float(rng.uniform(quietest, loudest))
    samples = with_rms(makers[kind](n_samples, rng), level_dbfs)
    ramp: npt.NDArray[np.float32] = np.minimum(1, np.arange(n_samples, dtype=np.float32) / (0.02 * RATE_HZ))
    samples = samples * ramp * ramp[::-1]
    if kind != "digital":
        samples = samples + _floor(n_samples, rng)
    at = tape.append(samples.astype(np.float32))
    tape.pieces.append(Piece(at, at + n_samples, group, kind, level_dbfs))
