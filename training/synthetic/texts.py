"""Texts of each part of the corpus, and which of them are never trained on."""

from __future__ import annotations

import functools
import hashlib
import lzma
import random
import re
from importlib.resources import files
from pathlib import Path

from evaluation.galician_numbers import cardinal, ordinal
from training.synthetic.grammar import draw_phrase, draw_sentence
from training.synthetic.spoken import MONTHS, feminine, spoken_hour

__all__ = ["LEXICON", "PARTS", "draw_text", "prose", "split_of"]

PARTS = ("news", "prose", "words", "interface", "fragments", "nothing")
LEXICON = Path(__file__).resolve().parents[2] / "db" / "lexicon_gl.tsv.xz"
"""Galician word forms; a line each, the form before a tab. Its licence stands beside it."""
PROSE = "prose_gl.txt.xz"


def split_of(text: str) -> str:
    """Which split a text is in, whoever speaks it: a fiftieth each is `test` and `validation`, by its SHA-256."""
    remainder = int(hashlib.sha256(text.lower().encode()).hexdigest()[:12], 16) % 50
    return {0: "test", 1: "validation"}.get(remainder, "train")


def draw_text(part: str, rng: random.Random) -> str:
    """A text of a part of the corpus other than nothing, in words."""
    return {
        "news": draw_sentence,
        "prose": lambda chosen: chosen.choice(prose()),
        "words": _words,
        "interface": lambda chosen: draw_sentence(chosen, "interface"),
        "fragments": _fragment,
    }[part](rng)


@functools.cache
def prose() -> tuple[str, ...]:
    """Sentences of real Galician prose, in words (data/prose_gl.LICENSES.md says whose)."""
    packed = files("training.synthetic") / "data" / PROSE
    if not packed.is_file():
        return ()
    return tuple(lzma.decompress(packed.read_bytes()).decode("utf-8").splitlines())


@functools.cache
def prose_words() -> tuple[str, ...]:
    """Each word of the prose once, in small letters, in order."""
    return tuple(sorted({word for text in prose() for word in re.findall(r"[^\W\d_]{2,}", text.lower())}))


@functools.cache
def lexicon_words(path: Path = LEXICON) -> tuple[str, ...]:
    """Forms of the lexicon of 3 to 14 letters, in small letters."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        forms = (line.partition("\t")[0].lower() for line in lines)
        return tuple(sorted({form for form in forms if re.fullmatch(r"[a-záéíóúïüñ]{3,14}", form)}))


def _words(rng: random.Random) -> str:
    """A string of words without a sense: half of the lexicon, half of what prose uses."""
    used = prose_words()
    words = [
        rng.choice(used) if used and rng.random() < 0.5 else rng.choice(lexicon_words())
        for _ in range(rng.randint(2, 9))
    ]
    return " ".join(words).capitalize() + "."


def _fragment(rng: random.Random) -> str:
    """A number, a time, a name, a phrase, alone: as speech that is cut at pauses has them."""
    kind = rng.randrange(6)
    if kind == 0:
        return cardinal(
            rng.choice((rng.randint(0, 100), rng.randint(0, 9999), rng.randint(0, 999_999)))
        ).capitalize()
    if kind == 1:
        hour = feminine(spoken_hour(rng.randint(0, 23), rng.randrange(60)))
        return f"{rng.choice(('Ás', 'Son as', 'Ata as', 'Dende as'))} {hour}."
    if kind == 2:
        return f"O {cardinal(rng.randint(1, 31))} de {rng.choice(MONTHS)} de {cardinal(rng.randint(1850, 2040))}."
    if kind == 3:
        return ordinal(rng.randint(1, 99), feminine=rng.random() < 0.5).capitalize()
    phrase = draw_phrase(rng)
    return phrase[:1].upper() + phrase[1:] + ("." if kind == 4 else "")
