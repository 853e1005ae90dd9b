"""The second, Galician normaliser: the same words written differently count as the same.

Reported beside `BasicTextNormalizer`, never instead of it. It runs before and after that one: numbers, signs and
abbreviations become words; contractions take one form. What it treats as equal is listed in docs/evaluation.md,
and tests hold it to that list; everything else that differs after `BasicTextNormalizer` still differs.

Forms follow the Real Academia Galega and the Instituto da Lingua Galega, "Normas ortográficas e morfolóxicas do
idioma galego" (2003): contractions in the chapters on article, pronouns and prepositions; numerals in that of theirs.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable

from evaluation.galician_numbers import (
    HUNDREDS,
    MAX_CARDINAL,
    MAX_ORDINAL,
    NUMERALS,
    TENS,
    cardinal,
    digit_by_digit,
    ordinal,
)
from evaluation.score import basic_normalizer

VERSION = "galician-1"
"""Stored with every figure: figures of different versions do not compare."""

MAX_ROUNDS = 8
"""Rounds until nothing changes; a second round is needed only where NFKC makes digits of other signs."""

ABBREVIATIONS = {
    "sr": "señor",
    "sra": "señora",
    "srta": "señorita",
    "sres": "señores",
    "dr": "doutor",
    "dra": "doutora",
    "profa": "profesora",
    "prof": "profesor",
    "núm": "número",
    "núms": "números",
    "etc": "etcétera",
    "avda": "avenida",
    "tfno": "teléfono",
    "aprox": "aproximadamente",
    "dna": "dona",
    "ptas": "pesetas",
}
"""Written with a point or without it; none is another Galician word."""
POINTED_ABBREVIATIONS = {
    "d": "don",
    "av": "avenida",
    "tel": "teléfono",
    "páx": "páxina",
    "páxs": "páxinas",
    "pax": "páxina",
    "sto": "santo",
    "sta": "santa",
    "máx": "máximo",
    "mín": "mínimo",
}
"""Only with their point: without it they may be something else. "d." needs a name behind it."""

UNITS_OF_MEASURE = {
    "km/h": ("quilómetro por hora", "quilómetros por hora"),
    "km²": ("quilómetro cadrado", "quilómetros cadrados"),
    "km2": ("quilómetro cadrado", "quilómetros cadrados"),
    "m²": ("metro cadrado", "metros cadrados"),
    "m2": ("metro cadrado", "metros cadrados"),
    "m³": ("metro cúbico", "metros cúbicos"),
    "m3": ("metro cúbico", "metros cúbicos"),
    "km": ("quilómetro", "quilómetros"),
    "m": ("metro", "metros"),
    "cm": ("centímetro", "centímetros"),
    "mm": ("milímetro", "milímetros"),
    "kg": ("quilogramo", "quilogramos"),
    "g": ("gramo", "gramos"),
    "l": ("litro", "litros"),
    "ha": ("hectárea", "hectáreas"),
    "h": ("hora", "horas"),
    "min": ("minuto", "minutos"),
    "%": ("por cento", "por cento"),
    "‰": ("por mil", "por mil"),
    "€": ("euro", "euros"),
    "$": ("dólar", "dólares"),
    "£": ("libra", "libras"),
    "°c": ("grao", "graos"),
    "ºc": ("grao", "graos"),
    "° c": ("grao", "graos"),
    "º c": ("grao", "graos"),
    "°": ("grao", "graos"),
}
"""Singular and plural of what may follow a number."""

_FEMININE_UNITS = frozenset({"ha", "h", "£"})
_CURRENCIES = frozenset("€$£")

_UNIT = "|".join(sorted((re.escape(unit) for unit in UNITS_OF_MEASURE if unit != "g"), key=len, reverse=True))
_NUMBER = re.compile(
    r"(?P<before>\b(?:á|da|na|pola)\s+)?"  # not "a": "tres a un" is a result
    r"(?P<minus>(?<![\w.,])[-−–](?=[0-9]))?"
    r"(?<![\w])(?<![0-9][.,])(?P<whole>[0-9]{1,3}(?:[.\u00a0\u202f\u2009][0-9]{3})+|[0-9]+)"
    r"(?P<decimals>[,.][0-9]+)?"
    r"(?P<unit>(?:\s?(?:" + _UNIT + r")|\sg)(?!\w))?"  # 5g is a network
    r"(?![\w]|[.,][0-9])",
    flags=re.IGNORECASE,
)
_CLOCK = re.compile(
    r"(?P<before>\b(?:ás|as|das|polas|á|da|pola)\s+)?(?<![\w.:,])(?P<hour>[01]?[0-9]|2[0-4])(?P<sign>[:.])(?P<minute>[0-5][0-9])"
    r"(?P<unit>\s?h\b\.?)?(?![\w:]|[.,][0-9])",
    flags=re.IGNORECASE,
)
_ORDINAL = re.compile(
    r"(?<![\w.,])(?P<number>[0-9]{1,2})\.?(?P<ending>[ºª°])(?![\w]|\s?c\b)", flags=re.IGNORECASE
)
_CURRENCY_FIRST = re.compile(r"(?P<sign>[€$£])\s?(?P<number>[0-9][0-9.,]*[0-9]|[0-9])")
_PHRASES = (
    (re.compile(r"\bEE\.?\s?UU\b\.?"), "Estados Unidos"),
    (re.compile(r"\b[Pp]\.\s?ex\."), "por exemplo"),
)
_ONE = re.compile(r"(?P<one>\bun\s+)(?P<unit>km|kg)\b", flags=re.IGNORECASE)
_MILLIONS_OF = re.compile(r"\b(millóns?)\s?([€$£])")
_CENTURY = re.compile(
    r"(?P<word>\bséculos?\s+)(?P<roman>X{1,2}(?:IX|IV|V?I{0,3}))\b(?=\W|$)", flags=re.IGNORECASE
)
_SECOND_ARTICLE = re.compile(r"(?<=[^\W\d_])-(?=l[oa]s?\b)", flags=re.IGNORECASE)
_POINTED = re.compile(
    r"(?<![\w.])(?P<word>" + "|".join([*POINTED_ABBREVIATIONS]) + r")\.(?P<rest>\s*)(?=(?P<next>\w)|\W|$)",
    flags=re.IGNORECASE,
)
_NUMERO = re.compile(r"(?<!\w)n\.?[º°](?!\w)", flags=re.IGNORECASE)

_SIGN = re.compile(r"[-–.0-9ºª°€$£]|EE|k[mg]|século", flags=re.IGNORECASE)
"""Each pattern above needs one of these."""


def _contractions() -> dict[tuple[str, str], str]:
    articles = ("o", "a", "os", "as")
    indefinite = {"un": "un", "unha": "unha", "uns": "uns", "unhas": "unhas"}
    pairs: dict[tuple[str, str], str] = {
        ("a", "o"): "ao",
        ("a", "os"): "aos",
    }
    for preposition, stem in (("con", "c"), ("de", "d"), ("en", "n"), ("por", "pol")):
        for article in articles:
            pairs[preposition, article] = stem + article
    for preposition, stem in (("con", "c"), ("de", "d"), ("en", "n")):
        for article in indefinite:
            pairs[preposition, article] = stem + article
    others = [
        "el",
        "ela",
        "eles",
        "elas",
        "este",
        "esta",
        "estes",
        "estas",
        "isto",
        "ese",
        "esa",
        "eses",
        "esas",
        "iso",
        "aquel",
        "aquela",
        "aqueles",
        "aquelas",
        "aquilo",
        "outro",
        "outra",
        "outros",
        "outras",
        "algún",
        "algunha",
        "algúns",
        "algunhas",
    ]
    for preposition, stem in (("de", "d"), ("en", "n")):
        for word in others:
            pairs[preposition, word] = stem + word
    return pairs


CONTRACTIONS = _contractions()
"""Two words that may be written as one: ("con", "o") is "co". The contracted form is the canonical one, since
taking it apart would need to know whether "nos" is "en os" or a pronoun."""

WORD_FORMS = {
    "ó": "ao",
    "ós": "aos",
    "tódolos": "todos os",
    "tódalas": "todas as",
    "ámbolos": "ambos os",
    "ámbalas": "ambas as",
    "dúas": "dous",
    "duascentas": "douscentos",
    "douscentas": "douscentos",
    "quiñentos": "cincocentos",
    "quiñentas": "cincocentos",
    **{word[:-2] + "as": word for word in HUNDREDS[3:]},
    **{short: long for short, long in ABBREVIATIONS.items() if short.isalpha()},
    "km": "quilómetros",
    "kg": "quilogramos",
    "quilo": "quilogramo",
    "quilos": "quilogramos",
}
"""One word for another, after `BasicTextNormalizer`. Figures have no gender, so numerals lose theirs."""

_HUNDREDS_OR_MIL = frozenset({*HUNDREDS[1:], "mil"})
_LARGE = _HUNDREDS_OR_MIL | {"cen", "millón", "millóns"}


def galician_normalizer(text: str) -> str:
    """`text` in its canonical form: lower-case words with single spaces. Idempotent."""
    for _ in range(MAX_ROUNDS):
        before, text = text, _one_round(text)
        if text == before:
            break
    return text


def _one_round(text: str) -> str:
    text = _write_out(text)
    if not _is_plain(text):
        text = basic_normalizer(text).lower()
    return " ".join(_canonical_words(text.split()))


def _is_plain(text: str) -> bool:
    """Whether `basic` would leave it as it is: lower-case letters and spaces."""
    return text.islower() and text.replace(" ", "").isalpha() and unicodedata.is_normalized("NFKC", text)


def _write_out(text: str) -> str:
    """Signs, figures and pointed abbreviations as words; everything else as it was."""
    if not _SIGN.search(text):
        return text  # nothing below can match; most texts are such
    text = _SECOND_ARTICLE.sub("", text)
    text = _POINTED.sub(_pointed, text)
    text = _NUMERO.sub("número", text)
    text = _ONE.sub(lambda found: found["one"] + UNITS_OF_MEASURE[found["unit"].lower()][0], text)
    for pattern, words in _PHRASES:
        text = pattern.sub(words, text)
    text = _CENTURY.sub(lambda found: found["word"] + cardinal(_roman(found["roman"])), text)
    text = _ORDINAL.sub(_ordinal, text)
    text = _CURRENCY_FIRST.sub(r"\g<number> \g<sign>", text)
    text = _CLOCK.sub(_clock, text)
    text = _NUMBER.sub(_number, text)
    return _MILLIONS_OF.sub(lambda found: f"{found[1]} de {UNITS_OF_MEASURE[found[2]][1]}", text)


def _pointed(found: re.Match[str]) -> str:
    word = found["word"].lower()
    if word == "d" and not (found["next"] and found["next"].isupper()):
        return found[0]
    return POINTED_ABBREVIATIONS[word] + " "


def _roman(text: str) -> int:
    values = {"i": 1, "v": 5, "x": 10}
    digits = [values[letter] for letter in text.lower()]
    following = [*digits[1:], 0]
    return sum(-value if value < after else value for value, after in zip(digits, following, strict=True))


def _ordinal(found: re.Match[str]) -> str:
    number = int(found["number"])
    if not 1 <= number <= MAX_ORDINAL:
        return found[0]
    if found["ending"] == "°":
        return f"{cardinal(number)} {UNITS_OF_MEASURE['°'][number != 1]}"
    return ordinal(number, feminine=found["ending"] == "ª")


def _clock(found: re.Match[str]) -> str:
    if found["sign"] == "." and not (found["unit"] or found["before"]):
        return found[0]  # 10.30 is a time only with its h, or as "ás 10.30"
    hour, minute = int(found["hour"]), int(found["minute"])
    words = ("unha" if hour == 1 else cardinal(hour)) + (f" e {cardinal(minute)}" if minute else "")
    return (found["before"] or "") + words + (" horas" if found["unit"] else "")


def _number(found: re.Match[str]) -> str:
    whole = re.sub(r"\D", "", found["whole"])
    decimals, unit = found["decimals"] or "", (found["unit"] or "").strip().lower()
    if len(whole) > 1 and whole.startswith("0"):
        words = digit_by_digit(whole)
    elif int(whole) > MAX_CARDINAL:
        return found[0]
    else:
        words = cardinal(int(whole))
    is_one = whole == "1" and not decimals
    if is_one and (found["before"] or unit in _FEMININE_UNITS):
        words = "unha"
    if decimals:
        digits = decimals[1:]
        fraction = (
            digit_by_digit(digits) if digits.startswith("0") or len(digits) > 3 else cardinal(int(digits))
        )
        words += f" coma {fraction}"
    if unit:
        of = " de" if unit in _CURRENCIES and words.endswith(("millón", "millóns")) else ""
        words += of + " " + UNITS_OF_MEASURE[unit][not is_one]
    return (found["before"] or "") + ("menos " if found["minus"] else "") + words


def _canonical_words(words: list[str]) -> list[str]:
    words = [form for word in words for form in WORD_FORMS.get(word, word).split()]
    words = _join(words)
    return _numerals(words)


def _join(words: list[str]) -> list[str]:
    """Contract: `con o` becomes `co`."""
    joined: list[str] = []
    for word in words:
        if joined and (joined[-1], word) in CONTRACTIONS:
            joined[-1] = CONTRACTIONS[joined[-1], word]
        else:
            joined.append(word)
    return joined


def _numerals(words: list[str]) -> list[str]:
    """Within numbers: "vinte e unha" is "vinte e un", "cento e dous" is "cento dous"."""
    kept: list[str] = []
    for index, word in enumerate(words):
        last, last_but_one = (["", "", *kept][-1]), (["", "", *kept][-2])
        if word == "e" and last in _HUNDREDS_OR_MIL and _is_below_hundred(words[index + 1 :]):
            continue
        in_number = last in _HUNDREDS_OR_MIL or (last == "e" and last_but_one in TENS[2:])
        kept.append("un" if word == "unha" and in_number else word)
    return kept


def _is_below_hundred(words: list[str]) -> bool:
    """True when `words` start with a number of 1 to 99: "mil e dous mil" are two numbers, and keep their "e"."""
    run = list(itertools.takewhile(lambda word: word in NUMERALS or word in ("e", "unha"), words))
    return bool(run) and run[0] != "e" and not any(word in _LARGE for word in run)


NORMALIZERS: dict[str, Callable[[str], str]] = {"basic": basic_normalizer, "galician": galician_normalizer}
"""By the name that reports and stored figures use."""
