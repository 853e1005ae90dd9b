"""Each question of the cookbook, asked of the made-up archive by a reader's login, against an answer made by hand.

Answers come from the declaration in tests/sql_docs/archive.py: with a pencil, or with a few lines of Python where they
are sums. The archive holds what would make a wrong query or view fail: a replaced transcript with other words, a
correction that a newer one replaced, seconds that failed, work that waits, and rows without programme or day.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from sqlalchemy import Connection

from tests.sql_docs.archive import BAD_TAPE, BROKEN_INDEX, ENGINE_ERROR, RECORDINGS, Made, Silence
from tests.sql_docs.cookbook import Recipe, answer, read_recipes

RECIPES = read_recipes()
BULLETIN, NEWS, SEA, TAPES, PARTY = (
    "Boletín das oito",
    "Telexornal",
    "Mar de fóra",
    "Memoria do mar",
    "A festa",
)


def plain(value: Any) -> Any:
    """A value as it is easily written down: numbers as float, days and spans as text."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dt.date | dt.timedelta):
        return str(value)
    return value


def rounded(value: Decimal, places: int) -> float:
    """Halves up, as PostgreSQL rounds numeric."""
    return float(value.quantize(Decimal(10) ** -places, ROUND_HALF_UP))


def percent(part: float, whole: float) -> float:
    return rounded(Decimal(100 * part) / Decimal(whole), 1)


# --- sums, from the declaration ---------------------------------------------------------------------------

FINISHED = [made for made in RECORDINGS if made.done_at and made.spans]
SPOKEN = [made for made in RECORDINGS if made.said]


def speech_s(made: Made) -> float:
    return sum(said.seconds for said in made.said)


def decade(made: Made) -> str:
    return f"{made.broadcast_on.year // 10}0s" if made.broadcast_on else "unknown"


def shares_by_decade() -> list[tuple[Any, ...]]:
    groups: dict[str, list[Made]] = defaultdict(list)
    for made in FINISHED:
        groups[decade(made)].append(made)
    rows = []
    for name, members in sorted(groups.items()):
        whole = sum(made.seconds for made in members)
        speech = sum(map(speech_s, members))
        silence = sum(span.seconds for made in members for span in made.spans if isinstance(span, Silence))
        minutes = rounded(Decimal(whole) / 60, 1)
        rows.append(
            (
                name,
                minutes,
                percent(speech, whole),
                percent(silence, whole),
                percent(whole - speech - silence, whole),
            )
        )
    return rows


def speech_rates() -> list[tuple[Any, ...]]:
    rows = []
    for unit, name_of in (
        ("programme", lambda made: made.programme or "unknown"),
        ("kind", lambda made: made.kind or "unknown"),
        ("decade", decade),
    ):
        groups: dict[str, list[Made]] = defaultdict(list)
        for made in SPOKEN:
            groups[name_of(made)].append(made)
        found = []
        for name, members in groups.items():
            seconds = Decimal(sum(map(speech_s, members)))
            n_words = sum(len((said.text or "").split()) for made in members for said in made.said)
            found.append((unit, name, rounded(seconds / 60, 2), n_words, rounded(60 * n_words / seconds, 1)))
        rows += sorted(found, key=lambda row: (-row[4], row[1]))
    return rows


# --- answers ----------------------------------------------------------------------------------------------

ANSWERS: dict[str, list[tuple[Any, ...]]] = {
    # "Bigo" is no mention, in the current transcript of January 22 nor in the replaced one of January 8
    "mentions-per-month": [
        ("2024-01", BULLETIN, 2),
        ("2024-02", BULLETIN, 1),
        ("2024-02", NEWS, 1),
        ("2024-03", BULLETIN, 2),
        ("2024-03", NEWS, 1),
        ("2024-04", BULLETIN, 1),
        ("2024-04", SEA, 2),
        ("2024-05", BULLETIN, 4),
        ("2024-05", NEWS, 3),
    ],
    # the first segment of the interview ends 73.75 s before the mention; before the concert there is music only
    "minute-before": [
        ("a-festa-2024-02-24.mp4", "00:00:45.000", "Grazas, Rosalía, por cantar connosco esta noite.", None),
        (
            "mar-de-fora-2024-02-11.wav",
            "00:01:21.250",
            "Rosalía cantaba mellor ca ninguén, e o porto calaba.",
            "Meu pai saía de noite ao mar e volvía coas redes cheas de peixe. As redes cosíanas as mulleres no porto, "
            "cantando todas xuntas. E cando o mar estaba bravo, ninguén falaba na casa ata a noite.",
        ),
    ],
    # 17 mentions of 2024 and one of 1985
    "first-and-last-mention": [
        (
            1,
            "1985-03-10",
            TAPES,
            "cinta-02.wav",
            "00:00:07.500",
            "No peirao de Vigo traballaban os meus irmáns.",
        ),
        (
            18,
            "2024-05-20",
            NEWS,
            "telexornal-2024-05-20.mp4",
            "00:00:12.500",
            "A festa chega a Vigo o sábado.",
        ),
    ],
    # bulletins: 4 in 40 s of speech (7.5 + 5 + 5 + 7.5 + 5 + 10); news: 3 ("folgas" too) in 40 s (10 + 10 + 5 + 15)
    "mentions-per-hour": [
        ("radio-costa", BULLETIN, 4, 0.011, 360.0),
        ("tele-val", NEWS, 3, 0.011, 270.0),
        ("arquivo-oral", TAPES, 0, 0.006, 0.0),
        ("arquivo-oral", None, 0, 0.001, 0.0),
        ("radio-costa", SEA, 0, 0.014, 0.0),
        ("tele-val", PARTY, 0, 0.003, 0.0),
    ],
    # 7 of 34 segments of 2024 (one is empty) speak of strikes: (3/7)/(3/34), (2/7)/(3/34), (5/7)/(17/34)
    "words-that-go-together": [("metal", 3, 3, 4.86), ("buses", 2, 3, 3.24), ("vigo", 5, 17, 1.43)],
    # twice "acordo", before others in the alphabet; with the replaced transcript there would be three of "metal"
    "most-said-words": [("folga", 4, 4), ("costa", 3, 3), ("acordo", 2, 2)],
    # the third one says "folgas"; bulletins begin at eight o'clock
    "two-topics": [
        ("2024-01-22", BULLETIN, "boletin-2024-01-22.wav", "08:00:00.500", "08:00:00.500"),
        ("2024-05-06", BULLETIN, "boletin-2024-05-06.wav", "08:00:01.250", "08:00:08.750"),
        ("2024-05-20", NEWS, "telexornal-2024-05-20.mp4", "00:00:02.500", "00:00:07.500"),
    ],
    # "a nova lonxa" and "lonxa de Bigo" are not the phrase
    "quote": [
        (
            "«Levamos o peixe á lonxa de Vigo antes do amencer.» (Mar de fóra, radio-costa, 2024-04-14, 00:00:02.500)",
            "mar-de-fora-2024-04-14.wav",
            2.5,
            "phi4-galician-2",
            False,
        )
    ],
    "recording-as-text": [
        ("[00:00:00.000] (no speech, 2.5 s)",),
        (f"[00:00:02.500] (failed, 5.0 s: {BAD_TAPE})",),
        ("[00:00:07.500] No peirao de Vigo traballaban entón os meus irmáns.",),
        (f"[00:00:15.000] (failed, 2.5 s: {ENGINE_ERROR})",),
        ("[00:00:17.500] (no speech, 7.5 s)",),
    ],
    "no-speech-by-decade": shares_by_decade(),
    "speech-rate": speech_rates(),
    # three segments of 7.5 s; the one before them ends 50 s earlier
    "longest-speech": [
        ("mar-de-fora-2024-02-11.wav", SEA, "00:00:57.500", 22.5, 3),
        ("cinta-01.wav", TAPES, "00:00:05.000", 15.0, 2),
        ("mar-de-fora-2024-04-14.wav", SEA, "00:00:02.500", 15.0, 2),
        ("telexornal-2024-05-20.mp4", NEWS, "00:00:02.500", 15.0, 3),
    ],
    # in 5 s of it the model heard nothing
    "without-speech": [("tele-val", PARTY, "a-festa-2024-03-02.mp4", 25.0, 20.0)],
    "new-programmes": [("radio-costa", SEA, "2024-02-11", 2), ("tele-val", PARTY, "2024-02-24", 2)],
    # SHA-256 of "1"
    "duplicates": [
        (
            "radio-costa",
            "6b86b273ff34…",
            2,
            ["boletins-2024/boletin-2024-01-08.wav", "reenvio/copia/boletin-2024-01-08.wav"],
            ["completed", "received"],
        )
    ],
    # 25 + 25 + 12.5 s in three recordings; the fourth could not be opened
    "coverage-of-a-batch": [
        ("no_speech", None, 3, 30.0, 48.0),
        ("transcribed", None, 3, 25.0, 40.0),
        ("failed", BAD_TAPE, 1, 5.0, 8.0),
        ("failed", ENGINE_ERROR, 1, 2.5, 4.0),
        ("not opened", BROKEN_INDEX, 1, None, None),
    ],
    # 7.5 s at 0.7, 2.5 s at 0.45, 7.5 s at 0.95; more doubtful ones are corrected, or were finished before June 2
    "segments-to-check": [
        ("cinta-01.wav", "00:00:05.000", 7.5, 0.7, 2.25, [], "Daquela iamos ao mar con remos e velas."),
        (
            "cinta-03.wav",
            "00:00:10.000",
            2.5,
            0.45,
            1.38,
            ["low_confidence", "too_fast"],
            "Proba de son, un dous tres.",
        ),
        (
            "mar-de-fora-2024-04-14.wav",
            "00:00:02.500",
            7.5,
            0.95,
            0.38,
            [],
            "Levamos o peixe á lonxa de Vigo antes do amencer.",
        ),
    ],
    # of the news' two corrections the newer one counts; "entón" was put in, so that segment is not looked at
    "correction-pairs": [("bigo", "vigo", 2, 2), ("lugo", "monforte", 1, 1)],
    # a comma more and a full stop less are no errors; the news' segment that a person chose is not counted
    "right-as-it-stands": [("interview", 2, 1, 50.0), ("news", 2, 0, 0.0)],
    # 120 of 1,000, 118, 150; 100 of 2,000, 104, 80
    "wer-over-time": [
        ("2024-06-01", "memoria-oral", "phi4-galician", 12.0, 10.0, 14.0, 1000),
        ("2024-06-02", "memoria-oral", "phi4-galician", 11.8, 9.8, 13.8, 1000),
        ("2024-06-03", "memoria-oral", "phi4-galician-2", 15.0, 13.0, 17.0, 1000),
        ("2024-06-01", "telexornal-2023", "phi4-galician", 5.0, 4.0, 6.0, 2000),
        ("2024-06-02", "telexornal-2023", "phi4-galician", 5.2, 4.2, 6.2, 2000),
        ("2024-06-03", "telexornal-2023", "phi4-galician-2", 4.0, 3.0, 5.0, 2000),
    ],
    "last-night": [
        ("2024-06-03", "regression", "memoria-oral", "regressed", 15.0, "3.0 points more errors."),
        ("2024-06-03", "drift", "production", "watch", None, "Too few corrections to tell."),
        ("2024-06-03", "regression", "telexornal-2023", "improved", 4.0, "1.0 points fewer errors."),
    ],
    "compare-models": [
        (
            "08:00:00.500",
            "Bos días, abren os portos de Bigo e da Coruña.",
            "Bos días, abren os portos de Vigo e da Coruña.",
        ),
        (
            "08:00:06.000",
            "Os sindicatos piden unha unión coa patronal.",
            "Os sindicatos piden unha reunión coa patronal.",
        ),
    ],
    "still-waiting": [
        ("radio-costa", "urgent", "received", 1, "3 days, 2:00:00"),
        ("radio-costa", "urgent", "transcribing", 1, "1 day, 2:00:00"),
        ("radio-costa", "urgent", "awaiting_media", 1, "5:00:00"),
    ],
    # work of replaced transcripts counts too: 7.5 and 10 s of June 1
    "throughput": [
        ("2024-06-01", 17, 87.5, 3, 29.2),
        ("2024-06-02", 9, 37.5, 3, 12.5),
        ("2024-06-03", 15, 57.5, 2, 28.8),
        ("2024-06-04", 1, 5.0, 1, 5.0),
    ],
    # three tries at one segment, one file that cannot be opened, one worker that died
    "failures-by-error": [
        ("transcribe", "failed", "engine_error", 3, 1, ENGINE_ERROR),
        ("split", "failed", "truncated_media", 1, 1, BROKEN_INDEX),
        ("transcribe", "lost", None, 1, 1, "the worker died"),
    ],
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_answers(recipe: Recipe, reader: Connection) -> None:
    found = answer(reader, recipe)
    assert [tuple(map(plain, row)) for row in found.rows] == ANSWERS[recipe.name]


def test_every_answer_has_a_question() -> None:
    assert {recipe.name for recipe in RECIPES} == set(ANSWERS)
    assert len(RECIPES) >= 18
