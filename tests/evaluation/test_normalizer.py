"""The Galician normaliser makes equal what docs/evaluation.md lists, and nothing else."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import normalizer
from evaluation.galician_numbers import MAX_CARDINAL, NUMERALS, cardinal, ordinal
from evaluation.normalizer import CONTRACTIONS, WORD_FORMS, galician_normalizer
from evaluation.score import basic_normalizer, score

steady = settings(deadline=None, derandomize=True)
"""A busy machine fails no example, and every run tries the same ones."""

TEXTS = Path(__file__).parents[1] / "data" / "demo-speech" / "texts.jsonl"
SENTENCES = [json.loads(line)["text"] for line in TEXTS.read_text(encoding="utf-8").splitlines()]
VOCABULARY = sorted({word for text in SENTENCES for word in basic_normalizer(text).split()})

EQUAL = [
    ("O 51 % dos 1.234 homes", "o cincuenta e un por cento dos mil douscentos trinta e catro homes"),
    ("en 1985", "en mil novecentos oitenta e cinco"),
    ("21 casas", "vinte e unha casas"),
    ("2 mulleres", "dúas mulleres"),
    ("500 vacas e 500 bois", "cincocentas vacas e quiñentos bois"),
    ("101 días", "cento e un días"),
    ("1.001 noites", "mil e unha noites"),
    ("3,5 km", "tres coma cinco quilómetros"),
    ("3,05 %", "tres coma cero cinco por cento"),
    ("-5 ºC", "menos cinco graos"),
    ("ás 10:30 h", "ás dez e trinta horas"),
    ("ás 22.30", "ás vinte e dúas e trinta"),
    ("á 1:15", "á unha e quince"),
    ("á 1 da tarde", "á unha da tarde"),
    ("1 h", "unha hora"),
    ("1 €", "un euro"),
    ("2.000.000 €", "dous millóns de euros"),
    ("2 millóns €", "dous millóns de euros"),
    ("$5", "cinco dólares"),
    ("100 km/h", "cen quilómetros por hora"),
    ("o 3º e a 2.ª", "o terceiro e a segunda"),
    ("século XX", "século vinte"),
    ("n.º 5", "número cinco"),
    ("007", "cero cero sete"),
    ("o Sr. Souto e a Dra. Paz, etc.", "o señor souto e a doutora paz etcétera"),
    ("D. Xosé", "don Xosé"),
    ("os EE.UU.", "os Estados Unidos"),
    ("100 ptas.", "cen pesetas"),
    ("un kg", "un quilo"),
    ("con o can de o home en a casa por a rúa", "co can do home na casa pola rúa"),
    ("de unha en un con uns", "dunha nun cuns"),
    ("de el en aquela de outros en algún", "del naquela doutros nalgún"),
    ("ó pé, ós pés", "ao pé, a os pés"),
    ("tódolos días e ámbalas mans", "todos os días e ambas as mans"),
    ("come-lo caldo", "comelo caldo"),
]

DIFFERENT = [
    ("un", "unha"),
    ("a un", "á unha"),
    ("nos", "en vós"),
    ("que che o dixo", "que cho dixo"),
    ("comer o caldo", "comelo caldo"),
    ("a a casa", "á casa"),
    ("ás dez e media", "ás 10:30"),
    ("mil e dous mil", "mil dous mil"),
    ("3 a 1", "tres a unha"),
    ("desde", "dende"),
    ("ata", "até"),
    ("pé", "pe"),
    ("ano", "año"),
    ("5G", "5 g"),
    ("grande e vello", "grande vello"),
    ("primeiro", "primeira"),
    ("o primeiro", "o un"),
]


@pytest.mark.parametrize(("written", "said"), EQUAL)
def test_the_same_words_written_differently_are_equal(written: str, said: str) -> None:
    assert galician_normalizer(written) == galician_normalizer(said)
    assert basic_normalizer(written).strip() != basic_normalizer(said).strip()


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_other_words_stay_different(first: str, second: str) -> None:
    assert galician_normalizer(first) != galician_normalizer(second)


@steady
@given(
    text=st.text(max_size=40)
    | st.lists(st.sampled_from(VOCABULARY + list("0123459.,:ºª%€- hgm")), max_size=12).map("".join)
)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = galician_normalizer(text)
    assert galician_normalizer(once) == once


@steady
@given(
    text=st.lists(
        st.sampled_from(
            [*VOCABULARY, "Sr", "p. ex.", "EEUU", "n.º", "un Km", "Século XX", "come-lo", "5 h", " ", "€"]
        ),
        max_size=8,
    ).map(" ".join)
    | st.text(max_size=20)
)
def test_what_is_passed_over_quickly_holds_nothing_to_write_out(text: str) -> None:
    """The short cut for texts without signs is taken only where no pattern could match."""
    patterns = [value for value in vars(normalizer).values() if isinstance(value, re.Pattern)]
    patterns += [pattern for pattern, _ in normalizer._PHRASES]
    if not normalizer._SIGN.search(text):
        assert not [pattern for pattern in patterns if pattern.search(text)]


@steady
@given(text=st.text(st.characters(categories=["Ll", "Lo", "Lm", "Lt"]) | st.just(" "), max_size=30))
def test_plain_text_is_what_the_basic_normaliser_leaves_as_it_is(text: str) -> None:
    if normalizer._is_plain(text):
        assert basic_normalizer(text).lower().split() == text.split()


@steady
@given(words=st.lists(st.sampled_from(VOCABULARY), max_size=12))
def test_texts_without_a_listed_form_stay_as_the_basic_normaliser_leaves_them(words: list[str]) -> None:
    listed = set(WORD_FORMS) | NUMERALS
    pairs = set(itertools.pairwise(words))
    if listed & set(words) or set(CONTRACTIONS) & pairs:
        return
    assert galician_normalizer(" ".join(words)) == " ".join(words)


def test_single_words_meet_only_where_listed() -> None:
    forms: dict[str, str] = {}
    for word in sorted({*VOCABULARY, *NUMERALS, *WORD_FORMS, *CONTRACTIONS.values()}):
        other = forms.setdefault(galician_normalizer(word), word)
        assert other == word or word in WORD_FORMS or other in WORD_FORMS, (word, other)


def test_contractions_do_not_meet_each_other() -> None:
    assert len(set(CONTRACTIONS.values())) == len(CONTRACTIONS)
    assert not set(CONTRACTIONS.values()) & {word for pair in CONTRACTIONS for word in pair}


@steady
@given(number=st.integers(0, MAX_CARDINAL))
def test_each_number_has_words_of_its_own(number: int) -> None:
    assert _value(cardinal(number).split()) == number


def test_figures_are_read_with_and_without_thousands_points() -> None:
    for number in (0, 7, 16, 100, 999, 1_000, 21_021, 1_000_000, 999_999_999_999):
        assert galician_normalizer(str(number)) == cardinal(number)
        assert galician_normalizer(f"{number:,}".replace(",", ".")) == cardinal(number)


def test_numbers_that_cannot_be_said_are_refused_or_left() -> None:
    with pytest.raises(ValueError, match="outside"):
        cardinal(MAX_CARDINAL + 1)
    with pytest.raises(ValueError, match="outside"):
        ordinal(100)
    assert galician_normalizer(str(MAX_CARDINAL + 1)) == str(MAX_CARDINAL + 1)
    assert galician_normalizer("a G20 e a A-52") == "a g20 e a a cincuenta e dous"


def test_ordinals() -> None:
    assert ordinal(11) == "undécimo"
    assert ordinal(22, feminine=True) == "vixésima segunda"


def test_scores_take_it_as_they_take_the_basic_one() -> None:
    refs, hyps = ["Custou 20 € con o desconto."], ["custou vinte euros co desconto"]
    assert score(refs, hyps).wer.value > 0
    assert score(refs, hyps, normalizer=galician_normalizer).wer.value == 0


def _value(words: list[str]) -> int:
    """The number of the words: a reading of its own, not the writer's backwards."""
    names = {cardinal(number): number for number in (*range(30), *range(30, 100, 10), *range(100, 1000, 100))}
    names["cento"] = 100
    total = part = 0
    for word in words:
        if word == "mil":
            part = max(part % 1_000, 1) * 1_000
        elif word in ("millón", "millóns"):
            total, part = part * 1_000_000, 0
        elif word != "e":
            part += names[word]
    return total + part
