"""Subtitles as a broadcaster expects them: lines, times and breaks."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.export.breaks import (
    AFTER_PROCLITIC,
    ANYWHERE,
    BEFORE_CONJUNCTION,
    BEFORE_PREPOSITION,
    CLAUSE_END,
    INSIDE_NAME,
    SENTENCE_END,
    break_cost,
)
from api.export.cues import CUE_LINES, LINE_CHARS, MAX_CUE_MS, MIN_CUE_MS, MIN_GAP_MS, Cue
from api.export.spoken import FAILED_TEXT
from api.export.subtitles import cues_of
from db.transcripts import Transcript
from tests.api.made_transcripts import transcript


def shown(made: Transcript) -> list[tuple[float, float, str]]:
    """(start, end, text with `|` at the line break) of every cue."""
    cues = cues_of(made, show_notice=True)
    return [(cue.start_ms / 1000, cue.end_ms / 1000, "|".join(cue.lines)) for cue in cues]


def assert_valid(cues: list[Cue]) -> None:
    """What holds of all subtitles, whatever they were made from."""
    end_ms = 0
    for cue in cues:
        assert 0 < len(cue.lines) <= CUE_LINES
        assert all(0 < len(line) <= LINE_CHARS and line == line.strip() for line in cue.lines)
        assert 0 < cue.end_ms - cue.start_ms <= MAX_CUE_MS
        gap_ms = cue.start_ms - end_ms
        assert gap_ms == 0 or gap_ms >= MIN_GAP_MS or end_ms == 0
        end_ms = cue.end_ms


# --- what a viewer sees -----------------------------------------------------------------------------------


def test_sentences_clauses_and_phrases_stay_together() -> None:
    """Real sentences: a cue ends with its sentence, a line before the preposition or conjunction."""
    text = (
        "O Concello de Sarria investigará o paro xuvenil despois da denuncia. O paro baixa en toda Galicia un "
        "cincuenta e un por cento. As temperaturas máximas chegarán aos vinte e sete graos, con vento do nordés."
    )
    assert [lines for *_, lines in shown(transcript((0, 14, text)))] == [
        "O Concello de Sarria investigará|o paro xuvenil despois da denuncia.",
        "O paro baixa en toda Galicia|un cincuenta e un por cento.",
        "As temperaturas máximas chegarán|aos vinte e sete graos,",
        "con vento do nordés.",
    ]


def test_text_without_punctuation_is_cut_before_small_words() -> None:
    """The demo model writes like this."""
    text = (
        "o barco chegou ao porto da coruña con nove tripulantes a bordo a folga dos médicos de familia comezará "
        "o mes que vén e a banda de verín tocará o próximo inverno na praza do toural"
    )
    for *_, lines in shown(transcript((0, 13, text))):
        for line in lines.split("|"):
            assert line.split()[-1] not in {"o", "a", "da", "do", "de", "con", "na", "e", "que", "ao", "dos"}


def test_a_text_of_one_line_has_one_line() -> None:
    assert shown(transcript((1.5, 4.25, "Boas noites."))) == [(1.5, 4.25, "Boas noites.")]


@pytest.mark.parametrize(
    ("word", "following", "cost"),
    [
        ("noites.", "Isto", SENTENCE_END),
        ("«Vén?»", "Dixo", SENTENCE_END),
        ("si,", "pero", CLAUSE_END),
        ("casa", "(a", CLAUSE_END),
        ("veu", "e", BEFORE_CONJUNCTION),
        ("praza", "do", BEFORE_PREPOSITION),
        ("cinco", "da", BEFORE_PREPOSITION),
        ("vinte", "graos", AFTER_PROCLITIC),
        ("A", "Coruña", AFTER_PROCLITIC),
        ("na", "praza", AFTER_PROCLITIC),
        ("Sr.", "Souto", AFTER_PROCLITIC),
        ("1987", "homes", AFTER_PROCLITIC),
        ("Rosalía", "Castro", INSIDE_NAME),
        ("marcou", "goles", ANYWHERE),
    ],
)
def test_break_costs(word: str, following: str, cost: float) -> None:
    assert break_cost(word, following) == cost


def test_a_short_segment_stays_on_into_the_silence() -> None:
    assert shown(transcript((1.0, 1.3, "Si."), (5, 7, "Grazas."))) == [
        (1.0, 2.0, "Si."),
        (5.0, 7.0, "Grazas."),
    ]


def test_a_short_segment_without_room_is_shown_with_its_neighbour() -> None:
    assert shown(transcript((1.0, 1.3, "Si."), (1.5, 4.0, "Claro que si."))) == [
        (1.0, 4.0, "Si. Claro que si.")
    ]


def test_the_last_cue_takes_what_the_recording_has() -> None:
    made = transcript((1.0, 3.0, "Grazas."), (9.5, 9.8, "Adeus."), duration_s=9.8)
    assert shown(made)[-1] == (8.8, 9.8, "Adeus.")


def test_fast_speech_is_kept_and_stays_on_for_reading() -> None:
    """Nothing is dropped: 23 characters a second stay on in the silence until 15 are reached."""
    text = "A Xunta presentou esta mañá o novo plan para os arquivos sonoros."
    ((start, end, lines),) = shown(transcript((0, 2.8, text), duration_s=20))
    assert lines.replace("|", " ") == text
    assert (start, round(len(text) / (end - start), 1)) == (0, 15.0)


def test_slow_speech_is_not_shown_for_longer_than_seven_seconds() -> None:
    assert shown(transcript((0, 28, "Silencio, por favor."))) == [
        (0.0, 7.0, "Silencio,"),
        (14.0, 21.0, "por favor."),
    ]


def test_a_pause_longer_than_two_seconds_ends_a_cue() -> None:
    assert [lines for *_, lines in shown(transcript((0, 1, "Mira"), (3.1, 4.5, "que ben")))] == [
        "Mira",
        "que ben",
    ]


def test_cues_touch_or_are_two_frames_apart() -> None:
    said = "Boas noites a todas e a todos desde Compostela."
    first, second = shown(transcript((0, 4, said), (4.05, 8, said)))
    assert (first[1], second[0]) == (4.05, 4.05)


def test_a_failed_segment_says_so_for_seven_seconds() -> None:
    made = transcript(
        (0, 3, "Boas noites a todas e a todos."), (3, 30, None), (30, 33, "Ata mañá a todas e todos.")
    )
    assert shown(made)[1] == (3.0, 10.0, FAILED_TEXT)
    made = transcript((0, 3, "Boas noites a todas."), (3, 5, None), (5, 7, "Ata mañá."))
    assert [lines for *_, lines in shown(made)] == ["Boas noites a todas.", FAILED_TEXT, "Ata mañá."]


def test_the_notice_comes_first_and_obeys() -> None:
    late = shown(transcript((8, 10, "Boas noites."), is_demo=True))
    soon = shown(transcript((0, 6, "Boas noites."), is_demo=True))
    assert late[0][:2] == (0.0, 5.266)
    assert late[1] == (8.0, 10.0, "Boas noites.")
    assert soon[0][:2] == (0.0, 1.0)
    assert soon[1] == (1.0, 6.0, "Boas noites.")
    assert late[0][2] == soon[0][2]
    assert_valid(cues_of(transcript(is_demo=True), show_notice=True))


# --- whatever comes ---------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.text(alphabet="abñáé-—ç日<&.,«»", min_size=1, max_size=12),
    st.text(alphabet="abcñ", min_size=40, max_size=140),
    st.sampled_from(["o", "de", "e", "Galicia.", "que"]),
)
TEXTS = st.one_of(
    st.none(),
    st.lists(WORDS, max_size=40).map(" ".join),
    st.integers(100, 400).map(lambda n: "xa " * n),
    st.text(max_size=60).filter(lambda text: "\x00" not in text),
)
SPANS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 30_000), TEXTS), max_size=5)


def spans_of(drawn: list[tuple[int, int, str | None]]) -> list[tuple[float, float, str | None]]:
    """(pause, length, text) as spans one behind the other."""
    spans, position_ms = [], 0
    for pause_ms, length_ms, text in drawn:
        start_ms = position_ms + pause_ms
        position_ms = start_ms + length_ms
        spans.append((start_ms / 1000, position_ms / 1000, text))
    return spans


@settings(deadline=None, max_examples=40)
@given(SPANS, st.booleans())
def test_every_word_once_whatever_a_model_writes(
    drawn: list[tuple[int, int, str | None]], is_demo: bool
) -> None:
    """Empty texts, 400 words in no time, words of 140 letters, no pauses, failed segments."""
    spans = spans_of(drawn)
    made = transcript(*spans, is_demo=is_demo)
    cues = cues_of(made, show_notice=False)
    assert_valid(cues)
    assert_valid(cues_of(made, show_notice=True))
    said = " ".join(FAILED_TEXT if text is None else text for *_, text in spans)
    assert "".join("".join(cue.lines) for cue in cues).replace(" ", "") == re.sub(r"\s", "", said)
    if all(len(word) <= LINE_CHARS for word in said.split()):
        assert " ".join(" ".join(cue.lines) for cue in cues).split() == said.split()


SPEECH = st.lists(
    st.tuples(
        st.integers(0, 3000),
        st.lists(st.text(alphabet="abcdeñ", min_size=1, max_size=14), min_size=1, max_size=40).map(" ".join),
        st.floats(9, 25),
    ),
    min_size=1,
    max_size=10,
)


@settings(deadline=None, max_examples=40)
@given(SPEECH)
def test_speech_of_any_speed_is_shown_for_one_to_seven_seconds(drawn: list[tuple[int, str, float]]) -> None:
    """9 to 25 characters a second, segments of any length, any pauses between them."""
    spans = spans_of([(pause, round(len(text) / speed * 1000), text) for pause, text, speed in drawn])
    made = transcript(*spans)
    cues = cues_of(made, show_notice=False)
    assert_valid(cues)
    assert all(cue.end_ms - cue.start_ms >= MIN_CUE_MS for cue in cues)
