"""Galician number words, as the Real Academia Galega and the ILG's norms have them.

num2words 0.5.14 knows no Galician (docs/decisions/0010).
"""

from __future__ import annotations

UNITS = [
    "cero",
    "un",
    "dous",
    "tres",
    "catro",
    "cinco",
    "seis",
    "sete",
    "oito",
    "nove",
    "dez",
    "once",
    "doce",
    "trece",
    "catorce",
    "quince",
    "dezaseis",
    "dezasete",
    "dezaoito",
    "dezanove",
]
TENS = ["", "", *["vinte", "trinta", "corenta", "cincuenta", "sesenta", "setenta", "oitenta", "noventa"]]
HUNDREDS = [
    "",
    "cento",
    *[
        "douscentos",
        "trescentos",
        "catrocentos",
        "cincocentos",
        "seiscentos",
        "setecentos",
        "oitocentos",
        "novecentos",
    ],
]
MAX_CARDINAL = 10**12 - 1

ORDINALS = [
    "cero",
    "primeiro",
    "segundo",
    "terceiro",
    "cuarto",
    "quinto",
    "sexto",
    "sétimo",
    "oitavo",
    "noveno",
    "décimo",
    "undécimo",
    "duodécimo",
]
ORDINAL_TENS = [
    "",
    "décimo",
    *[
        "vixésimo",
        "trixésimo",
        "cuadraxésimo",
        "quincuaxésimo",
        "sesaxésimo",
        "septuaxésimo",
        "octoxésimo",
        "nonaxésimo",
    ],
]
MAX_ORDINAL = 99

NUMERALS = frozenset([*UNITS, *TENS[2:], *HUNDREDS[1:], "cen", "mil", "millón", "millóns"])
"""Every word that `cardinal` writes, without the "e" between tens and units."""


def cardinal(number: int) -> str:
    """The masculine words of 0 to 999,999,999,999: 1985 is "mil novecentos oitenta e cinco".

    Raises:
        ValueError: the number is negative or too large.
    """
    if not 0 <= number <= MAX_CARDINAL:
        raise ValueError(f"{number} is outside 0 to {MAX_CARDINAL}")
    if number == 0:
        return UNITS[0]
    words = []
    millions, rest = divmod(number, 1_000_000)
    if millions:
        words += ["un", "millón"] if millions == 1 else [*_below_million(millions), "millóns"]
    return " ".join(words + _below_million(rest))


def _below_million(number: int) -> list[str]:
    thousands, rest = divmod(number, 1_000)
    words = []
    if thousands:
        words = [*(_below_thousand(thousands) if thousands > 1 else []), "mil"]
    return words + _below_thousand(rest)


def _below_thousand(number: int) -> list[str]:
    if number == 100:
        return ["cen"]
    hundreds, rest = divmod(number, 100)
    words = [HUNDREDS[hundreds]] if hundreds else []
    if rest < 20:
        return words + ([UNITS[rest]] if rest else [])
    tens, unit = divmod(rest, 10)
    return words + [TENS[tens]] + (["e", UNITS[unit]] if unit else [])


def ordinal(number: int, *, feminine: bool = False) -> str:
    """The words of 1st to 99th: 22 is "vixésimo segundo", feminine "vixésima segunda".

    Raises:
        ValueError: the number is outside 1 to 99.
    """
    if not 1 <= number <= MAX_ORDINAL:
        raise ValueError(f"{number} is outside 1 to {MAX_ORDINAL}")
    if number < len(ORDINALS):
        words = [ORDINALS[number]]
    else:
        tens, unit = divmod(number, 10)
        words = [ORDINAL_TENS[tens]] + ([ORDINALS[unit]] if unit else [])
    return " ".join(word[:-1] + "a" if feminine else word for word in words)


def digit_by_digit(digits: str) -> str:
    """ "007" is "cero cero sete"."""
    return " ".join(UNITS[int(digit)] for digit in digits)
