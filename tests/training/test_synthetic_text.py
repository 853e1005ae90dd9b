"""Galician by rule: how words sound, how numbers are read, what the templates say. Needs no espeak-ng."""

import random
import re

import pytest

from evaluation.normalizer import galician_normalizer
from training.synthetic.grammar import contracted, draw_sentence
from training.synthetic.letters import PHONEMES, pronounce_word
from training.synthetic.pronunciation import clauses_of, espeak_input
from training.synthetic.spoken import spoken_hour, spoken_text
from training.synthetic.test_sets import SETS, handwritten_news, texts_of
from training.synthetic.texts import N_OWN, draw_text, lexicon_words, prose, split_of


def said(word: str) -> str:
    """Phonemes with a ' before each stressed one."""
    spoken = pronounce_word(word)
    marked = ("'" + name if place in spoken.stressed else name for place, name in enumerate(spoken.phonemes))
    return " ".join(marked)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("xente", "S 'e n t e"),
        ("cidade", "T i d 'a d e"),
        ("unha", "u N a"),
        ("viño", "b 'i J o"),
        ("chuvia", "tS 'u b j a"),
        ("guerra", "g 'E rr a"),
        ("auga", "'a w g a"),
        ("lingüística", "l i N g w 'i s t i k a"),
        ("honra", "'o n rr a"),
        ("branco", "b r 'a N k o"),
        ("enviar", "e m b j 'a r"),
        # where the stress is
        ("falou", "f a l 'o w"),
        ("partiu", "p a r t 'i w"),
        ("animais", "a n i m 'a j s"),
        ("historia", "i s t 'o r j a"),
        ("María", "m a r 'i a"),
        ("construír", "k o n s t r u 'i r"),
        ("viúva", "b i 'u b a"),
        ("saíu", "s a 'i w"),
        ("praia", "p r 'a j a"),
        ("falaron", "f a l 'a r o n"),
        ("cancións", "k a n T j 'o n s"),
        ("rapidamente", "rr a p 'i d a m 'e n t e"),
        # x is two sounds in learned words
        ("taxi", "t 'a k s i"),
        ("próximo", "p r 'O k s i m o"),
        ("texto", "t 'e k s t o"),
        ("exemplo", "e S 'e m p l o"),
        ("luxo", "l 'u S o"),
        # open and closed vowels
        ("escola", "e s k 'O l a"),
        ("médico", "m 'E d i k o"),
        ("galego", "g a l 'e g o"),
        ("tempo", "t 'e m p o"),
        # letters by name
        ("TVG", "t 'e 'u b e g 'e"),
    ],
)
def test_a_word_sounds_as_a_galician_says_it(word: str, expected: str) -> None:
    assert said(word) == expected


def test_words_that_lean_on_the_next_have_no_stress() -> None:
    assert not any(pronounce_word(word).stressed for word in ("o", "da", "nunha", "que", "polos"))


def test_every_word_of_the_prose_and_of_the_lexicon_has_sounds() -> None:
    words = {word for text in prose() for word in re.findall(r"[^\W\d_]+", text)} | set(lexicon_words()[::50])
    for word in words:
        phonemes = pronounce_word(word).phonemes
        assert set(phonemes) <= set(PHONEMES)
        assert phonemes or set(word.lower()) <= {"h", "ª", "º"}, word


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("un home", "[[u|N 'o|m|e]]."),  # a final n is velar before a vowel
        ("un barco", "[[u|m b|'a|**|k|o]]."),
        ("da auga", "[[d|a 'a|w|Q|a]]."),
        ("a aldea alta", "[[a a|l|d|'e|a 'a|l|t|a]]."),
        ("casa amarela", "[[k|'a|s a|m|a|**|'E|l|a]]."),  # two unstressed a are one
        ("semana azul", "[[s|e|m|'a|n a|T|'u|l]]."),  # and the n before them is none at the end of a word
        ("o boi, o can", "[[o B|'o|j]], [[o k|'a|N]]."),
    ],
)
def test_words_meet_as_in_running_speech(text: str, expected: str) -> None:
    assert espeak_input(text) == expected


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("Ás 20:30 h", "Ás oito e media"),
        ("O 12/05/2024", "O doce de maio de dous mil vinte e catro"),
        ("222 persoas", "duascentas vinte e dúas persoas"),
        ("222 barcos", "douscentos vinte e dous barcos"),
        ("o 3,5 %", "o tres coma cinco por cento"),
        ("120 km/h", "cento vinte quilómetros por hora"),
        ("1.250 millóns de €", "mil douscentos cincuenta millóns de euros"),
        ("o Dr. Rei e a Sra. Castro", "o doutor Rei e a señora Castro"),
        ("a 3ª vez", "a terceira vez"),
        ("no século XIX", "no século dezanove"),
        ("-3 ºC", "menos tres graos"),
        ("«Bo día» – dixo", "Bo día, dixo"),
    ],
)
def test_what_is_written_is_read_aloud(written: str, spoken: str) -> None:
    assert spoken_text(written) == spoken


def test_hours_are_read_as_in_news() -> None:
    assert [spoken_hour(13, 45), spoken_hour(0, 0), spoken_hour(1, 15), spoken_hour(22, 50)] == [
        "dúas menos cuarto",
        "doce",
        "unha e cuarto",
        "once menos dez",
    ]
    with pytest.raises(ValueError, match="25:00 is no time"):
        spoken_hour(25, 0)


def test_prepositions_and_articles_are_contracted() -> None:
    assert contracted("en a Coruña e de o Grove, con as redes por un camiño") == (
        "na Coruña e do Grove, coas redes por un camiño"
    )


def test_sentences_are_whole_words_that_scoring_leaves_alone() -> None:
    rng = random.Random(5)
    for _ in range(400):
        sentence = draw_sentence(rng)
        assert re.fullmatch(r"[\w ,.?:'-]+", sentence), sentence
        assert not re.search(r"[{}\d_|]", sentence), sentence
        assert not re.search(r"\b(de|en|con) (o|a|os|as)\b(?! seis| oito| cincuenta)", sentence), sentence
        assert clauses_of(sentence)
        spelled = re.sub(r"[^\w ]", "", sentence.lower()).split()
        assert len(galician_normalizer(sentence).split()) >= len(spelled) * 0.6


def test_a_seed_gives_the_same_texts() -> None:
    drawn = [
        [draw_text(part, random.Random(7)) for part in ("news", "prose", "words", "interface")]
        for _ in (1, 2)
    ]
    assert drawn[0] == drawn[1]


def test_no_text_of_the_test_sets_can_be_in_a_corpus() -> None:
    for name in set(SETS) - {"news", "nothing"}:
        assert {split_of(text) for text in texts_of(name)} == {"test"}
    rng = random.Random(3)
    drawn = {draw_sentence(rng).lower() for _ in range(3000)} | {text.lower() for text in prose()}
    assert not drawn & {text.lower() for text in handwritten_news()}


def test_the_sentences_of_our_own_come_first_in_the_prose() -> None:
    assert prose()[N_OWN - 1].startswith("O acordo de paz fracasou")
    assert "" not in prose()


def test_the_texts_have_breadth() -> None:
    rng = random.Random(1)
    by_templates = {word for _ in range(6000) for word in re.findall(r"\w+", draw_sentence(rng).lower())}
    assert len(by_templates) > 1500
    assert len({word for text in prose() for word in re.findall(r"\w+", text.lower())}) > 8000
    assert len(handwritten_news()) >= 40
