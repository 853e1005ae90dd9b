"""A corpus in the synthetic speech's form without a synthesiser: every letter is a tone of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.synthetic.corpus import SAMPLE_RATE_HZ, Clip, Corpus, CorpusWriter, to_int16

WORDS = ("mar", "sol", "ceo", "terra", "choiva", "vento", "noite", "porto")
LETTER_MS, PAUSE_MS = 90, 200


def made_corpus(folder: Path, n_clips: int = 24, seed: int = 0) -> Corpus:
    """Clips of one to five words with a pause after the first, the last four for validation; and one of noise."""
    rng = np.random.default_rng(seed)
    with CorpusWriter(folder, {"made": "of tones"}) as writer:
        for number in range(n_clips):
            words = list(rng.choice(WORDS, size=int(rng.integers(1, 6))))
            clip, samples = spoken(" ".join(words), split="validation" if number >= n_clips - 4 else "train")
            writer.append([clip], to_int16(samples))
        noise = (rng.standard_normal(SAMPLE_RATE_HZ) * 0.01).astype(np.float32)
        nothing = Clip(0, len(noise), "", "nothing", "", "noise", ("sil",), (1000,), "train")
        writer.append([nothing], to_int16(noise))
    return Corpus.open(folder)


def spoken(text: str, *, split: str = "train") -> tuple[Clip, np.ndarray]:
    """A clip that says `text`, and its samples."""
    pieces: list[np.ndarray] = []
    phonemes: list[str] = []
    ends_ms: list[int] = []
    at_ms = 0
    for sign in text:
        n_ms = PAUSE_MS if sign == " " and "sil" not in phonemes else 0 if sign == " " else LETTER_MS
        if not n_ms:
            continue
        at_ms += n_ms
        time_s = np.arange(n_ms * SAMPLE_RATE_HZ // 1000) / SAMPLE_RATE_HZ
        level = 0.0 if sign == " " else 0.2
        pieces.append(level * np.sin(2 * np.pi * (300 + 90 * (ord(sign) % 26)) * time_s))
        phonemes.append("sil" if sign == " " else sign)
        ends_ms.append(at_ms)
    samples = np.concatenate(pieces).astype(np.float32)
    clip = Clip(0, len(samples), text, "words", "tone", "clean", tuple(phonemes), tuple(ends_ms), split)
    return clip, samples
