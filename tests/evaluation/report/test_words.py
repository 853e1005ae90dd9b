"""Texts in three languages: complete, alike in their fields, and with each language's numbers and forms."""

from __future__ import annotations

import ast
import datetime as dt
import re
import string
from pathlib import Path

import pytest

from evaluation.chart import ChartState
from evaluation.report.document import Standout, VerdictEntry
from evaluation.report.sentences import TEXTS, Language
from evaluation.report.words import Words
from evaluation.verdict import Cause, Verdict

REPORT = Path(__file__).parents[3] / "evaluation" / "report"
GL, ES, EN = (Words(language) for language in Language)


def fields_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("key", TEXTS)
def test_each_text_is_there_in_all_languages_with_the_same_fields(key: str) -> None:
    text = TEXTS[key]
    assert all(each.strip() for each in text)
    allowed = fields_of(text.en) | ({"n"} if key.endswith((".one", ".other")) else set())
    for each in text:
        assert fields_of(each) <= allowed
        assert fields_of(each) | {"n"} == fields_of(text.en) | {"n"}


def test_forms_by_number_come_in_pairs() -> None:
    for key in TEXTS:
        if key.endswith(".one"):
            assert key.removesuffix("one") + "other" in TEXTS
            assert "{n}" in TEXTS[key.removesuffix("one") + "other"].en
        if key.endswith(".other"):
            assert key.removesuffix("other") + "one" in TEXTS


def test_every_key_that_pages_and_mails_name_is_there_and_none_is_left_over() -> None:
    template = (REPORT / "templates" / "report.html").read_text()
    code = "".join(path.read_text() for path in REPORT.glob("*.py") if path.name != "sentences.py")
    named = set(re.findall(r"""\bt\("([\w.]+)"[,)]""", template))
    named |= set(re.findall(r"""words\("([\w.]+)"[,)]""", code)) | set(
        re.findall(r"""self\("([\w.]+)"[,)]""", code)
    )
    assert named <= set(TEXTS)
    counted = set(re.findall(r"""\.count\("([\w.]+)\"""", template + code))
    assert {f"{key}.one" for key in counted} <= set(TEXTS)
    prefixes = {key.rsplit(".", 1)[0] for key in counted}
    prefixes |= set(re.findall(r"""[("f]([\w.]+)\.["{]""", template + code))
    prefixes |= set(re.findall(r"""known\("(\w+)\"""", template + code))
    unused = {
        key
        for key in TEXTS
        if key not in named
        and f'"{key}"' not in template + code
        and f"'{key}'" not in code
        and not any(key.startswith(f"{prefix}.") for prefix in prefixes | counted)
    }
    assert unused == set()


def test_numbers_as_each_language_writes_them() -> None:
    assert EN.number(1234.5) == "1,234.50"
    assert GL.number(1234.5) == "1234,50"
    assert ES.number(64527.125) == "64.527,12"
    assert GL.points(0.0120) == "+1,20"
    assert EN.points(-0.00004) == "0.00"
    assert EN.points(-0.012) == "\u22121.20"
    assert EN.percent(None) == "–"
    assert EN.number(float("nan")) == "–"
    assert GL.percent(0.1168) == "11,68\u00a0%"
    assert EN.span(None, 0.2) == ""


def test_dates_lists_and_counts() -> None:
    night = dt.date(2026, 11, 22)
    assert GL.date(night) == "22 de novembro de 2026"
    assert ES.date(night) == "22 de noviembre de 2026"
    assert EN.date(night) == "22 November 2026"
    assert GL.listed(["A", "B", "C"]) == "A, B e C"
    assert ES.listed(["A", "Informativo"]) == "A e Informativo"
    assert ES.listed(["A", "B"]) == "A y B"
    assert GL.count("n_errors", 1) == "un erro"
    assert GL.count("n_errors", 2) == "2 erros"
    assert [words.open_alerts(0) for words in (GL, ES, EN)] == [
        "Non hai ningunha alerta aberta.",
        "No hay ninguna alerta abierta.",
        "No alert is open.",
    ]


def entry(verdict: Verdict, cause: Cause, **changed: object) -> VerdictEntry:
    values: dict[str, object] = {
        "question": "regression", "subject": "Transcrispeech", "verdict": verdict.value, "cause": cause.value,
        "wer": 0.1288, "wer_low": 0.12, "wer_high": 0.14, "baseline_wer": 0.1168, "difference": 0.012,
        "difference_low": 0.008, "difference_high": 0.016, "p_value": 0.0001, "effect": 0.012, "nights": 2,
        "since": dt.date(2026, 11, 21), "margin": 0.0023, "n_missing": 0, "n_utterances": 1710, "n_words": 42000,
        "standouts": (Standout("programme", "A debate", None, 0.4, 0.1, 0.3, 0.001),), "changes": (), "reason": None,
    }  # fmt: skip
    return VerdictEntry(**(values | changed))  # type: ignore[arg-type]


def test_a_verdict_says_what_how_much_since_when_where_and_how_surely() -> None:
    regressed = entry(Verdict.REGRESSED, Cause.ONE_NIGHT)
    assert EN.verdict_sentence(regressed) == (
        "Regression on Transcrispeech: the word error rate is 1.20 points above the baseline since the night of "
        "21 November 2026, most of all in A debate; tonight alone shows it. It has lasted 2 measured nights. "
        "Tonight +1.20 points (95\u00a0% interval +0.80 to +1.60)."
    )
    assert GL.verdict_sentence(regressed) == (
        "Regresión en Transcrispeech: a taxa de erro de palabras está 1,20 puntos por riba da liña "
        "base desde a noite "
        "do 21 de novembro de 2026, sobre todo en A debate; demóstrao esta noite por si soa. Dura 2 noites medidas. "
        "Esta noite, +1,20 puntos (intervalo do 95\u00a0%: de +0,80 a +1,60)."
    )
    drift = entry(Verdict.REGRESSED, Cause.CHART, question="drift", subject="production")
    assert ES.verdict_sentence(drift).startswith(
        "Deriva en la producción: la tasa de error de palabras de los "
    )
    assert "lo demuestran las noches en conjunto" in ES.verdict_sentence(drift)


@pytest.mark.parametrize("question", ["regression", "drift", "unreferenced"])
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("cause", Cause)
def test_every_verdict_has_a_sentence_in_every_language(
    question: str, verdict: Verdict, cause: Cause
) -> None:
    if (verdict in (Verdict.OK, Verdict.IMPROVED)) and cause is Cause.BELOW_MARGIN:
        return
    subject = "Transcrispeech" if question == "regression" else "production"
    found = entry(verdict, cause, question=question, subject=subject, n_missing=3)
    texts = [words.verdict_sentence(found, 2) for words in (GL, ES, EN)]
    assert all(text.endswith(".") and "{" not in text for text in texts)
    assert len(set(texts)) == 3


def test_a_night_without_a_measurement_says_for_how_long() -> None:
    missing = entry(Verdict.WATCH, Cause.NOT_MEASURED, wer=None, n_missing=3)
    assert (
        EN.verdict_sentence(missing) == "Transcrispeech was not measured. Not measured for 3 nights in a row."
    )
    unknown = entry(Verdict.WATCH, Cause.NOT_MEASURED, wer=0.1)
    assert "cannot be judged" in EN.verdict_sentence(unknown)


def test_the_english_of_the_database_is_not_translated_but_built_anew() -> None:
    """Sentences come from fields: nothing here parses English."""
    tree = ast.parse((REPORT / "collect.py").read_text())
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node.value == "sentence"
    ]
    assert ChartState().n_missing == 0
