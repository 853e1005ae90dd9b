"""Galician words as phonemes: one word at a time, by the rules of its spelling.

Phonemes are written as a list of short names (`PHONEMES`). What a rule cannot know (an open vowel, the two readings
of x) is in the lists at the top. What happens between words is in `pronunciation`.

Sources: Real Academia Galega and Instituto da Lingua Galega, Normas ortográficas e morfolóxicas do idioma galego
(stress, digraphs); Regueira, Os sons da lingua (x, open and closed vowels, velar n).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["PHONEMES", "VOWELS", "Word", "pronounce_word"]

VOWELS = ("a", "e", "E", "i", "o", "O", "u")
PHONEMES = (
    *VOWELS,
    *(
        "j",
        "w",
        "p",
        "b",
        "t",
        "d",
        "k",
        "g",
        "f",
        "T",
        "s",
        "S",
        "tS",
        "m",
        "n",
        "J",
        "N",
        "l",
        "L",
        "r",
        "rr",
    ),
)
"""E and O are the open vowels, T the sound of z, S of x, J of ñ, N of nh, L of ll, r the tap and rr the trill."""


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


UNSTRESSED = _words(
    "a o as os e ou que se me te lle lles lla llo nos vos de do da dos das en no na nas con co coa cos "
    "coas por polo pola polos polas para pra pró prá ao á aos ás un unha uns sen dun dunha nun nunha lo "
    "la los las"
)
"""Words that lean on the next one."""

KS_STEMS = _words(
    "taxi máxim maxim sexo sexu éxit exitos exam exac exalum exalt exhaus exhal exhib exhum éxod exót "
    "exub exen exon exil próxim proxim aproxim flexi flexo flexib refléx reflex conex anex complex fluxo "
    "flux paradox saxo oxíx oxix óxido oxid tóxic toxic intoxic léxic lexic asfix auxil boxe axil galaxia "
    "ortodox heterodox laxante axiom hexá máxime éxtas maxil plexo perplex índex síntax sintax asfíx "
    "convex crucifix prefix sufix afix ortox unisex telex relax clímax tórax dúplex látex fénix ónix nexo "
    "nexos félix rolex óxid xerox exogam exosf exarc exult exabrup exasper exúber bisex homosex heterosex "
    "transex asexu bixéner maxwell luxemburg luxac luxar oxford exultant inexac inexo toxin toxicid vexil "
    "xenoflux influx reflux aflux inflex conexi deflex genuflex circunflex anorex dislex apoplex pirex "
    "bauxita praxe praxis taxonom taxím sintaxe profilax anafilax auxin auxín hexa"
)
"""Beginnings of words, or parts after a prefix, in which x is k and s."""
S_STEMS = ("exempl", "exerc", "exérc", "execut", "existi", "enxam")
"""Where it is the sound of xente in spite of the list above."""

OPEN_ENDINGS = re.compile(
    r"(?:el|éis|ela|elas|erra|erras|erro|erros|erto|erta|ertos|ertas|ol|ola|olas|óis|osa|osas|orta|"
    r"ortas|orto|ortos|orte|ortes|ova|ovas|ota|otas|é|és|ó|ós|esta|estas|ella|ellas|"
    r"edra|edras|ebra|ebras|obra|obras|oca|ocas|órdia|orda|ordas|orna|ornas|erna|ernas|érica|erva|ervas)$"
)
CLOSED_ENDINGS = re.compile(
    r"(?:lés|nés|gués|rés|dés|cés|tés|sés|xés|bés|vés|ués|qués|iés|mellés|este|estes|aquel)$"
)
OPEN_WORDS = _words(
    "cen sete dez é pé fe mel ferro festa pedra nove corpo nova novo novas novos porta porto obra obras "
    "terra guerra serra ben el ela elas bela belo vella vello vellos forte sorte morte norte deporte "
    "escola sol fol col só pó nó avó mercé café cela capela panel papel hotel roda rodas foto fotos roca "
    "ovo besta sesta neve leve breve levan perto certo aberto concerto deserto acordo bosque moto solo"
)

_FOREIGN = {
    "washington": "guáxinton", "new": "niu", "york": "iork", "google": "gúguel", "facebook": "féisbuk",
    "twitter": "tuíter", "youtube": "iutúb", "internet": "internét", "online": "onláin", "software": "sófguer",
    "hardware": "járdguer", "web": "ueb", "rock": "rok", "jazz": "yas", "show": "xou", "johnson": "yónson",
    "john": "yon", "trump": "tramp", "biden": "báiden", "obama": "obama", "smith": "esmiz", "messi": "mesi",
    "covid": "cóvid", "whatsapp": "guasáp", "wifi": "güifi", "pablo": "pablo", "juan": "hhuán", "jorge": "hhorhhe",
    "josé": "hhosé", "rajoy": "rahhoi", "feijóo": "feixó", "beijing": "beixín", "bruxelas": "bruselas",
    "schengen": "xenguen", "streaming": "estrímin", "marketing": "márketin", "email": "imeil", "pizza": "pitsa",
    "hockey": "hhókei", "joaquín": "hhoakín", "jose": "hhosé", "jesús": "hhesús", "jaime": "hhaime",
    "julio": "hhulio", "juana": "hhuana", "blog": "blog", "shakespeare": "xéspir", "hollywood": "hhóliud",
}  # fmt: skip
"""Names of other languages, respelled. hh is Spanish j, here k."""

_ACCENTS = {
    "á": "a",
    "é": "e",
    "í": "i",
    "ó": "o",
    "ú": "u",
    "â": "a",
    "ê": "e",
    "ô": "o",
    "à": "a",
    "è": "e",
}
_ACCENTS |= {
    "ò": "o",
    "ì": "i",
    "ù": "u",
    "ã": "a",
    "õ": "o",
    "ä": "a",
    "ö": "o",
    "å": "a",
    "ø": "o",
    "æ": "e",
}
_MARKS_STRESS = frozenset("áéíóúâêô")
_VOWEL_LETTERS = frozenset("aeiouáéíóúïüâêôàèòìùãõäöåøæ")
_SOFT = frozenset("eiéíêïèì")


@dataclass(frozen=True)
class Word:
    """Phonemes of one word, and which of them are stressed vowels (none: it leans on the next word)."""

    phonemes: tuple[str, ...]
    stressed: tuple[int, ...]


@lru_cache(maxsize=400_000)
def pronounce_word(word: str) -> Word:
    """A word of letters, in any case; signs that are no letters are not spoken.

    An adverb in -mente has two stresses. A word without a vowel is spelled out.
    """
    spelled = _FOREIGN.get(word.lower(), word.lower())
    if not any(letter in _VOWEL_LETTERS or letter == "y" for letter in spelled):
        return _spelled_out(spelled)
    if spelled.endswith("mente") and len(spelled) > 7:
        stem, ending = _one_stress(spelled[:-5], lowered=True), _one_stress("mente", lowered=True)
        moved = tuple(len(stem.phonemes) + place for place in ending.stressed)
        return Word(stem.phonemes + ending.phonemes, stem.stressed + moved)
    result = _one_stress(spelled, lowered=True)
    return Word(result.phonemes, ()) if spelled in UNSTRESSED else result


_LETTER_NAMES = {
    "a": "a", "b": "be", "c": "ce", "d": "de", "e": "e", "f": "efe", "g": "gue", "h": "hache", "i": "i", "j": "iota",
    "k": "ka", "l": "ele", "m": "eme", "n": "ene", "ñ": "eñe", "o": "o", "p": "pe", "q": "cu", "r": "erre",
    "s": "ese", "t": "te", "u": "u", "v": "uve", "w": "uvedobre", "x": "xe", "y": "igrego", "z": "zeta",
}  # fmt: skip


def _spelled_out(letters: str) -> Word:
    phonemes: list[str] = []
    stressed: list[int] = []
    for letter in letters:
        if letter in _LETTER_NAMES:
            name = _one_stress(_LETTER_NAMES[letter], lowered=True)
            stressed += [len(phonemes) + place for place in name.stressed]
            phonemes += name.phonemes
    return Word(tuple(phonemes), tuple(stressed))


def spell(acronym: str) -> Word:
    """The names of its letters: TVG is te, uve, gue."""
    return _spelled_out(acronym.lower())


@dataclass
class _Nucleus:
    place: int  # among the phonemes
    letter: int  # in the word
    marked: bool


def _one_stress(word: str, *, lowered: bool) -> Word:
    phonemes, nuclei, falling_end = _segments(word)
    if not nuclei:
        return Word(tuple(phonemes), ())
    stressed = _stress(word, nuclei, falling_end=falling_end)
    nucleus = nuclei[stressed]
    phonemes[nucleus.place] = _quality(word, phonemes, nuclei, stressed)
    return Word(tuple(phonemes), (nucleus.place,))


def _stress(word: str, nuclei: list[_Nucleus], *, falling_end: bool) -> int:
    for index, nucleus in enumerate(nuclei):
        if nucleus.marked:
            return index
    if len(nuclei) == 1 or falling_end:
        return len(nuclei) - 1
    end = word.rstrip("s") if word.endswith("s") else word
    end = end[:-1] if end.endswith("n") else end
    return len(nuclei) - 2 if end and end[-1] in _VOWEL_LETTERS else len(nuclei) - 1


def _quality(word: str, phonemes: list[str], nuclei: list[_Nucleus], stressed: int) -> str:
    """Open e and o, where a rule tells; closed otherwise."""
    nucleus = nuclei[stressed]
    vowel = phonemes[nucleus.place]
    if vowel not in ("e", "o"):
        return vowel
    opened = {"e": "E", "o": "O"}[vowel]
    if word in OPEN_WORDS:
        return opened
    after = phonemes[nucleus.place + 1 : nucleus.place + 2]
    if after and after[0] in ("m", "n", "J", "N", "j", "w"):
        return vowel
    if len(nuclei) - stressed >= 3:  # médico, época, número has u
        return opened
    if CLOSED_ENDINGS.search(word):
        return vowel
    return opened if OPEN_ENDINGS.search(word) else vowel


def _x(word: str, place: int) -> list[str]:
    following = word[place + 1 : place + 2]
    if following and following not in _VOWEL_LETTERS and following != "h":
        return ["k", "s"]
    if not following:
        return ["k", "s"]
    if place == 0:
        return ["S"]
    around = word[max(0, place - 8) :]
    if any(stem in word and word.find(stem) <= place < word.find(stem) + len(stem) + 1 for stem in S_STEMS):
        return ["S"]
    if any(stem in around and word.find(stem) <= place < word.find(stem) + len(stem) for stem in KS_STEMS):
        return ["k", "s"]
    return ["S"]


_DIGRAPHS = {
    "ch": "tS",
    "ll": "L",
    "rr": "rr",
    "nh": "N",
    "sh": "S",
    "ph": "f",
    "th": "t",
    "gh": "g",
    "hh": "k",
}
_SINGLE = {
    "b": "b", "v": "b", "d": "d", "f": "f", "k": "k", "l": "l", "m": "m", "n": "n", "ñ": "J", "p": "p", "q": "k",
    "s": "s", "t": "t", "w": "w", "z": "T", "j": "S", "ç": "s", "ł": "l", "š": "S", "č": "tS", "ć": "tS", "ž": "S",
}  # fmt: skip


def _segments(word: str) -> tuple[list[str], list[_Nucleus], bool]:
    """Phonemes, nuclei, and whether it ends in a falling diphthong, with or without s."""
    phonemes: list[str] = []
    nuclei: list[_Nucleus] = []
    falling_end = False
    place = 0
    while place < len(word):
        letter, pair = word[place], word[place : place + 2]
        following = word[place + 1 : place + 2]
        if letter in _VOWEL_LETTERS or (letter == "y"):
            end = place
            while end < len(word) and (word[end] in _VOWEL_LETTERS or word[end] == "y"):
                end += 1
            falling = _vowels(word, place, end, phonemes, nuclei)
            falling_end = falling and word[end:] in ("", "s")
            place = end
            continue
        if pair in _DIGRAPHS and not (pair == "nh" and place == 0):
            phonemes.append(_DIGRAPHS[pair])
            place += 2
        elif pair in ("qu", "gu") and word[place + 2 : place + 3] in _SOFT and len(word) > place + 2:
            phonemes.append("k" if letter == "q" else "g")
            place += 2
        elif pair in ("gü", "qü"):
            phonemes += ["k" if letter == "q" else "g", "w"]
            place += 2
        elif letter == "c":
            phonemes.append("T" if following in _SOFT and following else "k")
            place += 1
        elif letter == "g":
            phonemes.append("S" if following in _SOFT and following else "g")
            place += 1
        elif letter == "x":
            phonemes += _x(word, place)
            place += 1
        elif letter == "r":
            trilled = place == 0 or word[place - 1] in "lns-"
            phonemes.append("rr" if trilled else "r")
            place += 1
        elif letter in _SINGLE:
            sound = _SINGLE[letter]
            if not (phonemes and phonemes[-1] == sound and word[place - 1] == letter):  # nn, ss, tt: once
                phonemes.append(sound)
            place += 1
        else:  # h, and what is no letter of Galician
            place += 1
    return _assimilated(phonemes, nuclei), nuclei, falling_end


def _assimilated(phonemes: list[str], nuclei: list[_Nucleus]) -> list[str]:
    for place, phoneme in enumerate(phonemes[:-1]):
        if phoneme == "n" and phonemes[place + 1] in ("k", "g"):
            phonemes[place] = "N"
        elif phoneme == "n" and phonemes[place + 1] in ("p", "b", "f"):
            phonemes[place] = "m"
    return phonemes


def _vowels(word: str, start: int, end: int, phonemes: list[str], nuclei: list[_Nucleus]) -> bool:
    """Read a run of vowel letters; returns whether it ends in a falling diphthong."""
    letters = word[start:end].replace("y", "i")
    glide = [False] * len(letters)
    for at, letter in enumerate(letters):
        if letter not in "iu" or len(letters) == 1:
            continue
        before, after = letters[:at][-1:], letters[at + 1 : at + 2]
        if after in ("í", "ú", "ï", "ü") and after:
            continue  # construír, viúva
        if before and not glide[at - 1] and before not in "ïü":
            if before in "iu" and before == letter:
                continue
            glide[at] = True  # auga, falou, viu, moi, saíu
        elif before and glide[at - 1]:
            continue  # the i of a second diphthong
        elif after and after != letter and not (after in "iu" and not before):
            glide[at] = not _after_cluster(word, start + at)  # historia, but triángulo and cliente
    for at, letter in enumerate(letters):
        bare = {"ï": "i", "ü": "u"}.get(letter, _ACCENTS.get(letter, letter))
        if glide[at]:
            phonemes.append("j" if bare == "i" else "w")
        else:
            nuclei.append(_Nucleus(len(phonemes), start + at, letter in _MARKS_STRESS))
            phonemes.append(bare)
    return glide[-1] and len(letters) > 1


def _after_cluster(word: str, place: int) -> bool:
    return place >= 2 and word[place - 1] in "rl" and word[place - 2] in "bcdfgpt"
