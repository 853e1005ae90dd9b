"""Galician text as espeak-ng's phonemes, word by word and across words.

espeak-ng has no Galician. It reads phonemes in `[[...]]` with the sounds of any of its voices, and the names that
`ESPEAK_NAMES` uses are spoken alike by the tables of Spanish, Aragonese, Portuguese, Catalan, Italian and Romanian
(`TABLES`; a test checks each). Spanish of America is left out: it turns the sound of z into s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.synthetic.letters import PHONEMES, VOWELS, Word, pronounce_word, spell

__all__ = ["ESPEAK_NAMES", "SILENCE", "TABLES", "Clause", "clauses_of", "espeak_input", "phoneme_of_event"]

TABLES = ("es", "an", "pt", "pt-br", "ca", "it", "ro")
SILENCE = "sil"
"""The name of a pause among the phonemes of a clip."""

ESPEAK_NAMES = {name: name for name in PHONEMES} | {"J": "n^", "L": "l^", "r": "**", "rr": "R2"}
"""Galician phoneme to espeak-ng's name of the sound."""

_SOFTENED = {"b": "B", "d": "D", "g": "Q"}
_PAUSES = re.compile(r"([,;:.!?]+)")
_WORD = re.compile(r"[^\W\d_]+", re.UNICODE)
_ACRONYM = re.compile(r"[A-ZÑ]{2,5}")
_SPOKEN_ACRONYMS = frozenset(
    ["AVE", "OTAN", "ONU", "BNG", "UNESCO", "SERGAS", "NASA", "FIFA", "UEFA", "AMPA", "DOG"]
)


@dataclass(frozen=True)
class Clause:
    """Words between two pauses, and the mark at the end: one of , ; : . ! ?"""

    words: tuple[Word, ...]
    mark: str


def clauses_of(text: str) -> list[Clause]:
    """The clauses of a text in words. Digits are not read: see `spoken.spoken_text`."""
    parts = _PAUSES.split(text)
    clauses = []
    for index in range(0, len(parts), 2):
        words = tuple(_read(word) for word in _WORD.findall(parts[index]))
        words = tuple(word for word in words if word.phonemes)
        mark = parts[index + 1][-1] if index + 1 < len(parts) else "."
        if words:
            clauses.append(Clause(words, mark))
    return clauses


def _read(word: str) -> Word:
    if _ACRONYM.fullmatch(word) and word not in _SPOKEN_ACRONYMS - {"BNG"}:
        consonants = not re.search("[AEIOU]", word)
        return spell(word) if consonants or len(word) <= 3 else pronounce_word(word)
    return pronounce_word(word)


def espeak_input(text: str, *, linked: bool = True) -> str:
    """What is passed to espeak-ng so that it reads a Galician text, with its pauses.

    Args:
        text: in words, see `spoken.spoken_text`.
        linked: equal unstressed vowels that meet between words are one, as in running speech.
    """
    pieces = []
    for clause in clauses_of(text):
        pieces.append(f"[[{_clause_phonemes(clause, linked=linked)}]]{clause.mark}")
    return " ".join(pieces)


def _clause_phonemes(clause: Clause, *, linked: bool) -> str:
    written: list[str] = []
    before = ""
    for word, following in zip(clause.words, (*clause.words[1:], None), strict=True):
        names = []
        n_spoken = len(word.phonemes) - (linked and _is_one_vowel(word, following))
        for place, phoneme in enumerate(word.phonemes[:n_spoken]):
            if phoneme == "n" and place == len(word.phonemes) - 1:
                phoneme = _final_nasal(following.phonemes[0] if following else "")
            name = ESPEAK_NAMES[phoneme]
            if phoneme in _SOFTENED and not _stays_hard(phoneme, before):
                name = _SOFTENED[phoneme]
            names.append("'" + name if place in word.stressed else name)
            before = phoneme
        written.append("|".join(names))  # names are read greedily otherwise: ea is one sound of Romanian
    return " ".join(written)


def _is_one_vowel(word: Word, following: Word | None) -> bool:
    """Whether a word ends in the vowel that the next one begins with, neither stressed."""
    last = len(word.phonemes) - 1
    return (
        following is not None
        and last > 0
        and word.phonemes[last] in VOWELS
        and last not in word.stressed
        and following.phonemes[0] == word.phonemes[last]
        and 0 not in following.stressed
    )


def _final_nasal(following: str) -> str:
    """A final n is velar before a vowel and at a pause, and takes the place of a consonant that follows."""
    if not following or following in VOWELS or following in ("k", "g", "w", "j"):
        return "N"
    return "m" if following in ("p", "b", "f", "m") else "n"


def _stays_hard(phoneme: str, before: str) -> bool:
    return before in ("", "m", "n", "N", "J") or (phoneme == "d" and before in ("l", "L"))


_EVENTS = {name: phoneme for phoneme, name in ESPEAK_NAMES.items()}
_EVENTS |= {name: phoneme for phoneme, name in _SOFTENED.items()}
_EVENTS |= {"I": "i", "U": "u"}
_EVENTS |= {"R": "rr", "*": "r", "r/": "r", "v#": "b", "v": "b", "z": "s", "x": "k"}
_IGNORED = frozenset([";", "", "||", "_|"])


def phoneme_of_event(name: str) -> str | None:
    """Our name of what espeak-ng says it spoke; None for marks without a sound.

    Raises:
        KeyError: a sound that Galician does not have.
    """
    if name in _IGNORED:
        return None
    if name.startswith("_"):
        return SILENCE
    return _EVENTS[name]
