"""Numbers, dates, hours, units and abbreviations as they are read aloud.

The texts of the synthetic corpus are written as they are spoken, so that a model learns one spelling; this module is
what makes real prose, and whatever else has digits, so.
"""

from __future__ import annotations

import re
import unicodedata

from evaluation.galician_numbers import MAX_CARDINAL, cardinal, digit_by_digit, ordinal

__all__ = ["MONTHS", "feminine", "spoken_hour", "spoken_text"]

MONTHS = (
    *("xaneiro", "febreiro", "marzo", "abril", "maio", "xuño"),
    *("xullo", "agosto", "setembro", "outubro", "novembro", "decembro"),
)
_ABBREVIATIONS = {
    "sr.": "señor", "sra.": "señora", "srta.": "señorita", "dr.": "doutor", "dra.": "doutora", "d.": "don",
    "dna.": "dona", "prof.": "profesor", "etc.": "etcétera", "p. ex.": "por exemplo", "p.ex.": "por exemplo",
    "núm.": "número", "nº": "número", "n.º": "número", "páx.": "páxina", "páxs.": "páxinas", "av.": "avenida",
    "avda.": "avenida", "r/": "rúa", "tfno.": "teléfono", "tel.": "teléfono", "aprox.": "aproximadamente",
    "máx.": "máximo", "mín.": "mínimo", "c.c.": "código civil", "a.c.": "antes de Cristo",
    "d.c.": "despois de Cristo", "ee.uu.": "Estados Unidos", "s.a.": "sociedade anónima",
}  # fmt: skip
_UNITS = {
    "km/h": "quilómetros por hora", "km": "quilómetros", "m": "metros", "cm": "centímetros", "mm": "milímetros",
    "kg": "quilos", "g": "gramos", "l": "litros", "ha": "hectáreas", "%": "por cento", "€": "euros",
    "$": "dólares", "ºc": "graos", "°c": "graos", "º": "graos", "°": "graos", "h": "horas", "min": "minutos",
    "kw": "quilovatios", "mw": "megavatios", "mb": "megabytes", "gb": "xigabytes", "kb": "kilobytes",
    "hz": "hercios", "khz": "quilohercios", "mhz": "megahercios", "px": "píxeles",
}  # fmt: skip
_FEMININE_UNITS = ("ha", "h")
_ONES = {"un": "unha", "dous": "dúas"}
_FEMININE_NOUNS = re.compile(
    r"^(?:persoas|mulleres|nenas|veces|horas|semanas|toneladas|hectáreas|prazas|vivendas|familias|empresas|"
    r"bolsas|obras|medidas|páxinas|casas|noites|entradas|mesas|letras|filas|columnas|liñas|cores)$"
)
_SIGNS = {
    "€": " euros ",
    "%": " por cento ",
    "&": " e ",
    "+": " máis ",
    "=": " igual a ",
    "/": " barra ",
    "@": " arroba ",
    "#": " ",
    "*": " ",
    "_": " ",
}


def feminine(words: str) -> str:
    """Number words with a feminine noun: "douscentos vinte e dous" becomes "duascentas vinte e dúas".

    What stands before "mil" agrees too; what stands before "millóns" does not.
    """
    head, separator, tail = words.rpartition(" millóns")
    changed = []
    for word in tail.split():
        if word in _ONES:
            changed.append(_ONES[word])
        elif word == "douscentos":
            changed.append("duascentas")
        else:
            changed.append(word[:-2] + "as" if word.endswith("centos") else word)
    return (head + separator + " " + " ".join(changed)).strip()


def spoken_hour(hour: int, minute: int) -> str:
    """As the clock is read in news: (20, 30) is "oito e media", (13, 45) "dúas menos cuarto".

    Raises:
        ValueError: no such time of the day.
    """
    if not (0 <= hour < 24 and 0 <= minute < 60):
        raise ValueError(f"{hour}:{minute:02d} is no time of the day")
    shown = hour + 1 if minute > 30 else hour
    words = feminine(cardinal(shown % 12 or 12))
    if minute == 0:
        return words
    if minute <= 30:
        return f"{words} e {({15: 'cuarto', 30: 'media'}).get(minute, cardinal(minute))}"
    return f"{words} menos {({15: 'cuarto'}).get(60 - minute, cardinal(60 - minute))}"


def spoken_text(text: str) -> str:
    """A text as it is read aloud, NFC, in words alone; marks at which a voice pauses stay.

    Roman numerals after "século" are read as numbers up to ten, and beyond.
    """
    text = unicodedata.normalize("NFC", text).replace("’", "'").replace("\u00ad", "")
    text = re.sub(r"[«»“”\"„‹›]|(?<!\w)'|'(?!\w)", "", text)
    text = re.sub(r"\s[–—-]\s|[–—]", ", ", text)
    for short, whole in _ABBREVIATIONS.items():
        text = re.sub(rf"(?<!\w){re.escape(short)}(?!\w)", whole, text, flags=re.IGNORECASE)
    text = re.sub(r"(?<=século )[IVX]+\b|(?<=séculos )[IVX]+\b", lambda found: _roman(found.group()), text)
    text = re.sub(
        r"\b(\d{1,2})[/.](\d{1,2})[/.](\d{4})\b", lambda m: _date(m.group(1), m.group(2), m.group(3)), text
    )
    text = re.sub(
        r"\b([01]?\d|2[0-3])[:.h]([0-5]\d)\b(?!\d)( ?h(?:oras)?\b)?",
        lambda m: spoken_hour(int(m.group(1)), int(m.group(2))),
        text,
    )
    text = re.sub(r"\b(\d{1,3})(\.\d{3})+\b", lambda m: m.group().replace(".", ""), text)
    text = re.sub(r"\b(\d{1,2})([ºª])(?! ?[CcFf]\b)", _ordinal, text)
    text = re.sub(r"-(?=\d)(?<!\d-)", "menos ", text)
    text = re.sub(r"(\d+)(?:,(\d+))? ?([A-Za-zº°%€$]+(?:/h)?)?(?= ?(\w*))", _number, text)
    for sign, words in _SIGNS.items():
        text = text.replace(sign, words)
    text = re.sub(r"[()\[\]{}<>|]+", ", ", text)
    text = re.sub(r"\.{2,}|…", ".", text)
    text = re.sub(r"\s+([,;:.!?])", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"([,;:.!?])(?:\s*[,;:])+", r"\1", text)
    return text.strip(" ,;:")


def _date(day: str, month: str, year: str) -> str:
    if not 1 <= int(month) <= len(MONTHS):
        return f"{day} {month} {year}"
    return f"{day} de {MONTHS[int(month) - 1]} de {year}"


def _ordinal(found: re.Match[str]) -> str:
    number = int(found.group(1))
    return ordinal(number, feminine=found.group(2) == "ª") if 1 <= number <= 99 else found.group()


def _number(found: re.Match[str]) -> str:
    digits, fraction, unit, noun = found.groups()
    if int(digits) > MAX_CARDINAL or (len(digits) > 1 and digits[0] == "0"):
        words = digit_by_digit(digits)
    else:
        words = cardinal(int(digits))
    if fraction:
        small = digit_by_digit(fraction) if fraction[0] == "0" else cardinal(int(fraction))
        words += f" coma {small}"
    key = (unit or "").lower()
    if key in _UNITS:
        words = feminine(words) if key in _FEMININE_UNITS else words
        return f"{words} {_UNITS[key]}"
    if _FEMININE_NOUNS.match(key or noun):
        words = feminine(words)
    return f"{words} {unit}" if unit else words


def _roman(numeral: str) -> str:
    values = {"I": 1, "V": 5, "X": 10}
    total = 0
    for letter, following in zip(numeral, [*numeral[1:], ""], strict=True):
        value = values[letter]
        total += -value if following and value < values[following] else value
    return ordinal(total) if total <= 10 else cardinal(total)
