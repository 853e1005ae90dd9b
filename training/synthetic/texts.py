"""Texts of each part of the corpus, and which of them are never trained on."""

from __future__ import annotations

import functools
import hashlib
import lzma
import random
import re
import unicodedata
from collections.abc import Callable, Iterable
from importlib.resources import files

from evaluation.galician_numbers import cardinal, ordinal
from training.synthetic.grammar import draw_phrase, draw_sentence
from training.synthetic.spoken import MONTHS, feminine, spoken_hour

__all__ = ["PARTS", "draw_text", "lexicon_words", "prose", "read_lexicon", "split_of", "take_lexicon"]

PARTS = ("news", "prose", "words", "interface", "fragments", "nothing")
PROSE, OWN_PROSE = "prose_gl.txt.xz", "prose_own.txt"
N_OWN = 90
"""Sentences of `OWN_PROSE`, which come first in `prose`."""


def split_of(text: str) -> str:
    """Which split a text is in, whoever speaks it: a fiftieth each is `test` and `validation`, by its SHA-256."""
    remainder = int(hashlib.sha256(text.lower().encode()).hexdigest()[:12], 16) % 50
    return {0: "test", 1: "validation"}.get(remainder, "train")


def draw_text(part: str, rng: random.Random) -> str:
    """A text of a part of the corpus other than nothing, in words."""
    drawers: dict[str, Callable[[random.Random], str]] = {
        "news": draw_sentence,
        "prose": _prose,
        "words": _words,
        "interface": lambda chosen: draw_sentence(chosen, "interface"),
        "fragments": _fragment,
    }
    return drawers[part](rng)


@functools.cache
def prose() -> tuple[str, ...]:
    """Sentences of real Galician prose, in words (data/prose_gl.LICENSES.md says whose), and some of our own."""
    folder = files("training.synthetic") / "data"
    own = [line for line in (folder / OWN_PROSE).read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    packed = folder / PROSE
    others = lzma.decompress(packed.read_bytes()).decode("utf-8").splitlines() if packed.is_file() else []
    return (*own, *others)


def _prose(rng: random.Random) -> str:
    """One sentence in eight is of our own: manuals are many and alike."""
    sentences = prose()
    of_our_own = len(sentences) <= N_OWN or rng.random() < 0.125
    return sentences[rng.randrange(N_OWN) if of_our_own else rng.randrange(N_OWN, len(sentences))]


@functools.cache
def prose_words() -> tuple[str, ...]:
    """Each word of the prose once, in small letters, in order."""
    return tuple(sorted({word for text in prose() for word in re.findall(r"[^\W\d_]{2,}", text.lower())}))


@functools.cache
def lexicon_words() -> tuple[str, ...]:
    """Forms and lemmas of simplemma's Galician dictionary of 3 to 15 letters, in small letters, in order.

    Raises:
        ImportError: simplemma, of the extra `dev`, is not installed.
    """
    return tuple(sorted({*_lexicon()[0], *_lexicon()[1]}))


def take_lexicon(lexicon: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """Use what `read_lexicon` returned in another process: reading it takes seconds."""
    _given.append(lexicon)


_given: list[tuple[tuple[str, ...], tuple[str, ...]]] = []


def _lexicon() -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _given[0] if _given else read_lexicon()


@functools.cache
def read_lexicon() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forms, and the lemmas alone: most forms are of verbs."""
    try:
        from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory
    except ImportError as error:
        raise ImportError("the words of the corpus come from simplemma: pip install fonoteca[dev]") from error
    dictionary = DefaultDictionaryFactory().get_dictionary("gl")
    return _plain(dictionary.keys()), _plain(dictionary.values())


def _plain(words: Iterable[str | bytes]) -> tuple[str, ...]:
    written = (
        unicodedata.normalize("NFC", word if isinstance(word, str) else word.decode()) for word in words
    )
    return tuple(sorted({word for word in written if re.fullmatch(r"[a-záéíóúïüñ]{3,15}", word)}))


def _words(rng: random.Random) -> str:
    """A string of words without a sense: what prose uses, lemmas, and any form."""
    used = prose_words()
    forms, lemmas = _lexicon()
    words = [
        rng.choice(rng.choices((used or forms, lemmas, forms), (4, 4, 2))[0])
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
