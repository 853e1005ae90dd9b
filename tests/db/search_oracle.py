"""What a search must find, said a second time: a plain scan in Python that shares nothing with the database's search.

Inflection is not computed but known: `LEMMAS` lists by hand which forms belong together.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass

LEMMAS: tuple[tuple[str, ...], ...] = (
    ("choiva", "choivas"),
    ("concello", "concellos"),
    ("canción", "cancións"),
    ("animal", "animais"),
    ("galego", "galega", "galegos", "galegas"),
    ("mariñeiro", "mariñeira", "mariñeiros", "mariñeiras"),
    ("cantar", "cantou", "cantaron", "cantaba", "cantando"),
    ("falar", "falou", "falaron", "falan"),
    ("chover", "choveu", "chovendo"),
    ("dicir", "dixo", "dixeron", "dicindo"),
    ("praia", "praias"),
    ("barco", "barcos"),
    ("xornal", "xornais"),
    ("Ourense",),
    ("Santiago",),
    ("Grove",),
    ("1975",),
    ("25",),
    ("e",),
    ("non",),
    ("á",),
    ("pingüín", "pingüíns"),
)
"""Forms that are found by each other. No two lemmas have a form in common, with or without accents."""


class NothingToFind(Exception):
    """A query without a word to look for."""


def fold(word: str) -> str:
    """Without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word.lower()) if not "\u0300" <= c <= "\u036f")


def words(content: str) -> list[str]:
    """The words of a text, folded; one of more than 64 letters is known by its first 64."""
    return [fold(word)[:64] for word in re.findall(r"[^\W_]+", unicodedata.normalize("NFC", content))]


_LEMMA_OF = {fold(form): number for number, forms in enumerate(LEMMAS) for form in forms}


def same(one: str, other: str) -> bool:
    """Whether two folded words are forms of the same lemma, or equal."""
    return one == other or (one in _LEMMA_OF and _LEMMA_OF[one] == _LEMMA_OF.get(other))


@dataclass(frozen=True)
class Term:
    """One part of a query."""

    negated: bool
    kind: str
    """`word`, `prefix` or `phrase`."""
    words: tuple[str, ...]

    def said_in(self, text_words: list[str]) -> bool:
        """Whether a text says it."""
        if self.kind == "phrase":
            n = len(self.words)
            return any(tuple(text_words[i : i + n]) == self.words for i in range(len(text_words) - n + 1))
        *whole, last = self.words
        if self.kind == "prefix":
            begun = any(word.startswith(last) for word in text_words)
        else:
            begun = any(same(last, word) for word in text_words)
        return begun and all(any(same(one, word) for word in text_words) for one in whole)


def parse(query: str) -> list[Term]:
    """A query's parts.

    Raises:
        NothingToFind: it has none that is not negated.
    """
    terms = []
    rest = unicodedata.normalize("NFC", query)
    for sign in "“”«»":
        rest = rest.replace(sign, '"')
    while rest := rest.lstrip():
        negated = False
        if rest.startswith("-") and len(rest) > 1 and not rest[1].isspace():
            negated, rest = True, rest[1:]
        if rest.startswith('"'):
            body, _, rest = rest[1:].partition('"')
            kind = "phrase"
        else:
            body = re.match(r'[^\s"]*', rest)[0]  # type: ignore[index]
            rest = rest[len(body) :]
            kind = "prefix" if body.endswith("*") else "word"
        if found := words(body):
            terms.append(Term(negated, kind, tuple(found)))
    if all(term.negated for term in terms):
        raise NothingToFind
    return terms


@dataclass(frozen=True)
class Passage:
    """A segment as the oracle knows it."""

    id: int
    text: str | None
    broadcaster: str
    programme: str | None
    said_on: dt.date
    model: str
    is_current: bool


def search(
    passages: list[Passage],
    query: str,
    *,
    broadcaster: str | None = None,
    programme: str | None = None,
    from_on: dt.date | None = None,
    to_on: dt.date | None = None,
    model: str | None = None,
) -> set[int]:
    """Ids of the passages that a search must find.

    Raises:
        NothingToFind: the query has no word to look for.
    """
    terms = parse(query)
    return {
        passage.id
        for passage in passages
        if passage.is_current
        and passage.text
        and (broadcaster is None or passage.broadcaster == broadcaster)
        and (programme is None or (passage.programme and fold(passage.programme) == fold(programme)))
        and (model is None or passage.model == model)
        and (from_on is None or passage.said_on >= from_on)
        and (to_on is None or passage.said_on <= to_on)
        and all(term.said_in(words(passage.text)) is not term.negated for term in terms)
    }
