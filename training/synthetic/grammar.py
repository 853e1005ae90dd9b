"""Sentences of broadcasts by templates: lists in `data/`, drawn from by a seeded generator.

A file has sections `[name]` with an alternative on each line. `{name}` draws from a section of the same file, or of
`lists.txt`; `{number|2 99}` is a number in words (`.f`: with a feminine noun), `{ordinal.f}`, `{hour}` likewise.
Prepositions and articles that meet are contracted: "de o Grove" becomes "do Grove".
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from importlib.resources import files

from evaluation.galician_numbers import cardinal, ordinal
from training.synthetic.spoken import feminine, spoken_hour

__all__ = ["NEWS_FILES", "contracted", "draw_sentence", "read_sections"]

NEWS_FILES = ("news", "weather", "traffic", "sport", "culture", "talk", "bulletin")
_WEIGHTS = (6, 2, 2, 2, 2, 3, 6)
_SLOT = re.compile(r"\{([a-z_]+)(\.f)?(?:\|(\d+) (\d+))?\}")

_ARTICLES = ("o", "a", "os", "as")
_CONTRACTED = {
    ("de", word): "d" + word for word in (*_ARTICLES, "un", "unha", "uns", "unhas", "el", "ela", "eles")
}
_CONTRACTED |= {("en", word): "n" + word for word in (*_ARTICLES, "un", "unha", "uns", "unhas", "el", "ela")}
_CONTRACTED |= {("con", word): "c" + word for word in (*_ARTICLES, "un", "unha", "uns", "unhas")} | {
    ("con", "a"): "coa"
}
_CONTRACTED |= {("con", "as"): "coas", ("con", "o"): "co", ("con", "os"): "cos"}
_CONTRACTED |= {("por", "o"): "polo", ("por", "a"): "pola", ("por", "os"): "polos", ("por", "as"): "polas"}
_CONTRACTED |= {("a", "o"): "ao", ("a", "a"): "á", ("a", "os"): "aos", ("a", "as"): "ás"}
_MEETING = re.compile(
    r"\b(de|en|con|por|a) (os|as|o|a|unhas|unha|uns|un|eles|ela|el)\b(?! (?:seis|oito|cincuenta)\b)",
    re.IGNORECASE,
)


@functools.cache
def read_sections(name: str) -> Mapping[str, tuple[str, ...]]:
    """Sections of `data/NAME.txt`, and those of lists.txt that it does not have itself."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in (
        (files("training.synthetic") / "data" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    ):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        else:
            current.append(line)
    own = {section: tuple(lines) for section, lines in sections.items()}
    return own if name == "lists" else {**read_sections("lists"), **own}


def draw_sentence(rng: random.Random, name: str | None = None) -> str:
    """A sentence of a file, or of one of `NEWS_FILES`, as it is spoken, beginning with a capital letter."""
    chosen = name or rng.choices(NEWS_FILES, _WEIGHTS)[0]
    sections = read_sections(chosen)
    text = contracted(_expanded("{sentence}", sections, rng))
    return re.sub(r"(?:^|(?<=[.?!] ))[a-zñáéíóú]", lambda found: found.group().upper(), text)


def draw_phrase(rng: random.Random) -> str:
    """A piece of a sentence: one alternative of any section, in small letters unless it is a name."""
    sections = read_sections(rng.choice(NEWS_FILES))
    names = sorted(section for section in sections if section != "sentence")
    return contracted(_expanded("{" + rng.choice(names) + "}", sections, rng))


def _expanded(text: str, sections: Mapping[str, tuple[str, ...]], rng: random.Random) -> str:
    def drawn(found: re.Match[str]) -> str:
        name, is_feminine, least, most = found.groups()
        if name == "number":
            words = cardinal(_number(rng, int(least), int(most)))
            return feminine(words) if is_feminine else words
        if name == "ordinal":
            return ordinal(rng.randint(1, 40), feminine=bool(is_feminine))
        if name == "hour":
            return spoken_hour(
                rng.randint(0, 23), rng.choice((0, 0, 0, 5, 10, 15, 20, 25, 30, 30, 35, 40, 45, 50, 55))
            )
        return _expanded(rng.choice(sections[name]), sections, rng)

    return _SLOT.sub(drawn, text)


def _number(rng: random.Random, least: int, most: int) -> int:
    """Any number of small ranges; of large ones half are round, as in news."""
    number = rng.randint(least, most)
    if most - least < 200 or rng.random() < 0.5:
        return number
    step = int(10 ** (len(str(number)) - 1))
    return min(max(least, round(number / step) * step), most)


def contracted(text: str) -> str:
    """With the contractions of Galician: "en a Coruña" is "na Coruña". "A seis", a road, stays as it is."""

    def joined(found: re.Match[str]) -> str:
        first, second = found.groups()
        word = _CONTRACTED.get((first.lower(), second.lower()))
        if word is None:
            return found.group()
        return word.capitalize() if first[0].isupper() else word

    return _MEETING.sub(joined, text)
