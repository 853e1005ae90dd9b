"""The report as plain text of 72 columns: for mail, and for `fonoteca report` in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from evaluation.report.document import PRODUCTION, Document, SetReport
from evaluation.report.sentences import NO_BREAK, Language
from evaluation.report.words import Words

COLUMNS = 72
MAX_SUBJECT = 120


def subject_line(document: Document, language: Language) -> str:
    """`Fonoteca 2026-11-22: regressed Transcrispeech (+1.20 points)`."""
    words, head = Words(language), document.headline
    text = f"Fonoteca {document.night.isoformat()}: {words.verdict_name(head)}"
    if head.question is not None and head.subject is not None:
        text += f" {words.subject(head.question, head.subject)}"
        if head.effect and head.cause != "not_measured":
            text += f" ({words.points(head.effect)} {words('points')})"
    if head.is_demo:
        text += f" [{words('demo_short')}]"
    return " ".join(text.replace(NO_BREAK, " ").split())[:MAX_SUBJECT]


def plain_text(document: Document, language: Language, address: str | None = None) -> str:
    """The whole mail.

    Args:
        address: where the page lies; without it only the command that opens it is named.
    """
    lines = "\n".join(_lines(document, Words(language), address)).replace(NO_BREAK, " ")
    return "\n".join(line.rstrip() for line in lines.split("\n")) + "\n"


def _lines(document: Document, words: Words, address: str | None) -> Iterator[str]:
    yield from _wrapped(words.headline(document))
    yield from _wrapped(words.open_alerts(document.headline.n_open_alerts))
    if document.headline.is_demo:
        yield from _wrapped(words("demo"))
    yield ""
    yield f"{words('title')} · {words('night_of', date=words.date(document.night))}"
    if document.sets:
        yield from _heading(words("mail.sets"))
        yield from _table(document, words)
        yield ""
        for one in document.sets:
            if one.verdict.verdict != "ok":
                yield from _wrapped(words.verdict_sentence(one.verdict), first="- ")
    if document.drift is not None:
        yield from _heading(words("drift"))
        yield from _wrapped(words.verdict_sentence(document.drift.verdict))
        for stand in document.drift.verdict.standouts[:5]:
            yield from _wrapped(
                f"{stand.name}: {words.percent(stand.wer)} "
                f"({words('expected').lower()} {words.percent(stand.expected)})",
                first="- ",
            )
    if document.unreferenced.verdict is not None:
        yield from _heading(words("unreferenced"))
        n_findings = len(document.unreferenced.findings)
        yield from _wrapped(words.verdict_sentence(document.unreferenced.verdict, n_findings))
        for row in document.unreferenced.findings[:5]:
            yield from _wrapped(
                f"{row.unit}, {words.known('measure', row.measure)}: {words.number(row.value, 3)} "
                f"({words('usual').lower()}: {words.number(row.centre, 3)})",
                first="- ",
            )
    if document.alerts:
        yield from _heading(words("alerts"))
        for alert in document.alerts:
            name = f"{words.known('question', alert.kind)}, {words.subject('drift', alert.subject)}"
            ending = (
                f"; {words('alert.closed')}: {alert.close_reason}"
                if not alert.is_open
                else f" ({words('alert.new')})"
                if alert.is_new
                else ""
            )
            opened = words("alert.opened", date=words.date(alert.opened_night))
            yield from _wrapped(f"{name}. {opened}{ending}", first="- ")
    if document.production is not None:
        yield from _heading(words("production"))
        total = document.production.total
        for label, value in (
            ("production.transcribed", words.hours(total.transcribed_h)),
            ("production.no_speech", words.hours(total.no_speech_h)),
            ("production.failed", words.hours(total.failed_h)),
            ("production.waiting", words.count("n_recordings", total.n_waiting)),
            ("production.coverage", words.percent(total.coverage)),
            ("production.rtfx", words.number(document.production.rtfx, 1)),
        ):
            yield f"{words(label):<24}{value:>20}"
    if document.not_measured:
        yield from _heading(words("not_measured"))
        for missing in document.not_measured:
            name = words.subject("drift", missing.subject) + ": " if missing.subject else ""
            yield from _wrapped(f"{name}{missing.reason}", first="- ")
    yield ""
    if address is not None:
        yield words("mail.page")
        yield f"  {address}"
        yield words("mail.command")
    yield f"  fonoteca report --date {document.night.isoformat()} --open"


def _heading(text: str) -> Iterator[str]:
    yield ""
    yield text
    yield "-" * len(text)


def _wrapped(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(document: Document, words: Words) -> Iterator[str]:
    """Name 18, five figures of 8, the verdict: 72 columns."""
    heads = [words(f"mail.{name}") for name in ("tonight", "before", "baseline", "change", "card")]
    yield f"{'':<18}" + "".join(f"{head:>9}" for head in heads)
    for one in document.sets:
        yield from _row(one, words)
    if document.drift is not None:
        entry = document.drift.verdict
        figures = [
            words.rate(entry.wer),
            "–",
            words.rate(entry.baseline_wer),
            words.points(entry.difference),
            "–",
        ]
        yield from _written(
            words.subject("drift", PRODUCTION), figures, words.verdict_name(entry), entry.verdict
        )


def _row(one: SetReport, words: Words) -> Iterator[str]:
    figures = [
        words.rate(one.tonight.wer if one.tonight else None),
        words.rate(one.before.wer if one.before else None),
        words.rate(one.baseline.wer if one.baseline else None),
        words.points(one.verdict.difference),
        words.rate(one.card.wer if one.card else None),
    ]
    yield from _written(one.name, figures, words.verdict_name(one.verdict), one.verdict.verdict)


def _written(name: str, figures: list[str], label: str, verdict: str) -> Iterator[str]:
    mark = "" if verdict == "ok" else f"  <- {label}"
    if len(name) > 18:
        yield name
        name = ""
    line = f"{name:<18}" + "".join(f"{figure:>9}" for figure in figures)
    if mark and len(line + mark) > COLUMNS:
        yield line
        yield f"{mark.strip():>{COLUMNS - 9}}"
    else:
        yield line + mark
