"""Texts, numbers and dates as a language writes them (Unicode CLDR), and the sentences made of them."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.report.document import PRODUCTION, Document, Headline, VerdictEntry, named
from evaluation.report.sentences import NO_BREAK, TEXTS, Language, look_up

MINUS = "\u2212"
MAX_NAMES = 3
"""Programmes or subjects that a sentence names."""

MONTHS = {
    Language.GL: "xaneiro,febreiro,marzo,abril,maio,xuño,xullo,agosto,setembro,outubro,novembro,decembro",
    Language.ES: "enero,febrero,marzo,abril,mayo,junio,julio,agosto,septiembre,octubre,noviembre,diciembre",
    Language.EN: ("January,February,March,April,May,June,July,August,September,October,November,December"),
}


@dataclass(frozen=True)
class Words:
    """One language."""

    language: Language

    # --- texts

    def __call__(self, key: str, /, **values: object) -> str:
        """The text of a key, its fields filled in."""
        return look_up(self.language, key).format(**values)

    def count(self, key: str, n: int, /, **values: object) -> str:
        """`<key>.one` or `<key>.other`, by the number, which they may write as `{n}`."""
        return self(f"{key}.{'one' if n == 1 else 'other'}", n=self.whole(n), **values)

    def known(self, prefix: str, name: str) -> str:
        """The text of `<prefix>.<name>`, or the name itself where there is none: names come from stored rows."""
        return self(f"{prefix}.{name}") if f"{prefix}.{name}" in TEXTS else name.replace("_", " ")

    def listed(self, names: Sequence[str]) -> str:
        """`a`, `a and b`, `a, b and c`."""
        if len(names) < 2:
            return "".join(names)
        joint = self("and")
        if self.language is Language.ES and names[-1].lower().startswith(("i", "hi")):
            joint = " e "  # "y" before the same vowel
        return ", ".join(names[:-1]) + joint + names[-1]

    # --- numbers and dates

    def number(self, value: float | None, digits: int = 2, *, sign: bool = False) -> str:
        """A number with decimals; a dash where it is not known."""
        if value is None or not math.isfinite(value):
            return "–"
        rounded = round(value, digits) + 0.0  # no negative zero
        text = f"{abs(rounded):,.{digits}f}"
        if self.language is not Language.EN:
            text = text.translate(str.maketrans(",.", ".,"))
            if abs(rounded) < 10_000:
                text = text.replace(".", "")
        return (MINUS if rounded < 0 else "+" if sign and rounded > 0 else "") + text

    def whole(self, value: float | None) -> str:
        return self.number(value, 0)

    def rate(self, value: float | None, digits: int = 2) -> str:
        """A fraction in percent, without the sign: 0.0213 is 2.13."""
        return self.number(None if value is None else 100 * value, digits)

    def percent(self, value: float | None, digits: int = 2) -> str:
        """A fraction in percent: 2.13 %."""
        return "–" if value is None else f"{self.rate(value, digits)}{NO_BREAK}%"

    def points(self, value: float | None) -> str:
        """A difference of rates in points, with its sign."""
        return self.number(None if value is None else 100 * value, 2, sign=True)

    def span(self, low: float | None, high: float | None, *, signed: bool = False) -> str:
        """An interval of rates in percent, or empty where none is known."""
        if low is None or high is None:
            return ""
        write = self.points if signed else self.rate
        return self("from_to", low=write(low), high=write(high))

    def date(self, day: dt.date) -> str:
        """A date in words."""
        month = self.month(day)
        joint = " " if self.language is Language.EN else " de "
        return f"{day.day}{joint}{month}{joint}{day.year}"

    def month(self, day: dt.date) -> str:
        """The month's name."""
        return MONTHS[self.language].split(",")[day.month - 1]

    def time(self, moment: dt.datetime) -> str:
        """A date and time, to the minute."""
        return f"{self.date(moment.date())}, {moment:%H:%M}"

    def hours(self, value: float | None) -> str:
        """Hours of audio: 12.3 h."""
        return self("hours", n=self.number(value, 2 if value is not None and value < 10 else 1))

    def p_value(self, value: float | None) -> str:
        if value is None:
            return "–"
        return f"<{NO_BREAK}{self.number(0.0001, 4)}" if value < 0.0001 else self.number(value, 4)

    # --- sentences

    def subject(self, question: str, subject: str) -> str:
        """How a page calls what a verdict is about."""
        if question == "unreferenced":
            return self("subject.unreferenced")
        return self("subject.production") if subject == PRODUCTION else subject

    def verdict_name(self, entry: VerdictEntry | Headline) -> str:
        """The verdict as a badge shows it."""
        return self(f"verdict.{'not_measured' if entry.cause == 'not_measured' else entry.verdict}")

    def what(self, entry: VerdictEntry | Headline, n_findings: int = 0) -> str:
        """What happened, without how much."""
        question = entry.question or "regression"
        if question == "unreferenced":
            if entry.cause == "not_measured":
                return self("what.unreferenced.not_measured")
            if entry.verdict == "watch":
                return self.count("what.unreferenced.watch", max(1, n_findings))
            return self("what.unreferenced.ok")
        state = entry.cause if entry.cause in ("not_measured", "below_margin") else entry.verdict
        return self(f"what.{question}.{state}", subject=self.subject(question, entry.subject or ""))

    def change(self, question: str, effect: float | None, since: dt.date | None) -> str:
        """By how much, and since when."""
        if effect is None:
            return ""
        side = "above" if effect > 0 else "below"
        text = self(f"change.{question}.{side}", effect=self.number(100 * abs(effect)))
        return text + (self("since", date=self.date(since)) if since else "")

    def verdict_sentence(self, entry: VerdictEntry, n_findings: int = 0) -> str:
        """One set's or production's verdict with its evidence, from its fields."""
        what = self.what(entry, n_findings)
        if entry.question == "unreferenced":
            return f"{what}."
        parts: list[str] = []
        if entry.cause == "not_measured":
            parts = [f"{what}."]
            if entry.wer is not None:
                parts.append(self("no_spread"))
            elif entry.n_missing > 1:
                parts.append(self.count("missing", entry.n_missing))
            return " ".join(parts)
        if entry.verdict == "ok":
            none = self(f"change.{entry.question}.none", rate=self.percent(entry.baseline_wer))
            parts.append(f"{what}: {none}.")
        else:
            where = self._where(named(entry))
            how = self._how(entry)
            change = self.change(entry.question, entry.effect, entry.since)
            parts.append(f"{what}: {change}{where}{f'; {how}' if how else ''}.")
            if entry.nights > 1:
                parts.append(self.count("lasting", entry.nights))
        if entry.difference is not None and entry.difference_low is not None:
            ends = {"low": self.points(entry.difference_low), "high": self.points(entry.difference_high)}
            parts.append(self("tonight", difference=self.points(entry.difference), **ends))
        if entry.verdict != "ok" and entry.changes:
            names = [self.known("change_of", one.name) for one in entry.changes]
            parts.append(self("changed", names=self.listed(names)))
        return " ".join(parts)

    def headline(self, document: Document) -> str:
        """The report in one sentence."""
        head = document.headline
        if head.question is None:
            if head.n_subjects == 0:
                return self("headline.nothing") + "."
            names = self._names(document)
            subjects = (
                self.listed(names) if len(names) <= MAX_NAMES + 1 else self.count("subjects", head.n_subjects)
            )
            return self("headline.ok", subjects=subjects) + "."
        what = self.what(head, len(document.unreferenced.findings))
        others = self._others(head)
        if head.cause == "not_measured" or head.question == "unreferenced":
            return f"{what}{others}."
        where = self._where(head.standouts)
        return f"{what}: {self.change(head.question, head.effect, head.since)}{where}{others}."

    def open_alerts(self, n: int) -> str:
        """How many alerts are open."""
        return self("open_alerts.none") if n == 0 else self.count("open_alerts", n)

    def _names(self, document: Document) -> list[str]:
        names = [one.name for one in document.sets]
        if document.drift is not None:
            names.append(self.subject("drift", PRODUCTION))
        return names

    def _others(self, head: Headline) -> str:
        names = [self.subject(one.question, one.subject) for one in head.others]
        if len(names) > MAX_NAMES:
            names = [*names[: MAX_NAMES - 1], self.count("more", len(names) - MAX_NAMES + 1)]
        return self("others", names=self.listed(names)) if names else ""

    def _where(self, names: Sequence[str]) -> str:
        return self("where", names=self.listed(list(names[:MAX_NAMES]))) if names else ""

    def _how(self, entry: VerdictEntry) -> str:
        if entry.cause == "below_margin":
            return self("how.below_margin", margin=self.number(100 * (entry.margin or 0)))
        return self(f"how.{entry.cause}") if entry.cause in ("one_night", "chart") else ""
