"""The report as one self-contained HTML page per language: no script, nothing from outside."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.report.document import (
    PRODUCTION,
    Document,
    Headline,
    SetReport,
    VerdictEntry,
    WorstUtterance,
)
from evaluation.report.pictures import bars, drift_chart, set_chart
from evaluation.report.sentences import LANGUAGE_NAMES, Language
from evaluation.report.words import Words

FOLDER = "templates"
_STATES = ("regressed", "not_measured", "watch", "improved", "ok")


def page(document: Document, language: Language, clips: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
        clips: MP3 files by their name in the document; one that is missing is left out.
    """
    words = Words(language)
    rendered: str = (
        _environment()
        .get_template("report.html")
        .render(
            d=document,
            t=words,
            languages=LANGUAGE_NAMES,
            style=_style(),
            pictures=_pictures(document, words),
            clips={name: _data_uri(content) for name, content in clips.items()},
            has_card=any(one.card for one in document.sets),
        )
    )
    return rendered


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evaluation.report", FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        {"state": state, "anchor": anchor, "by_rank": by_rank, "less": less, "columns": columns}
    )
    return environment


@cache
def _style() -> Markup:
    return Markup((files("evaluation.report") / FOLDER / "report.css").read_text())  # noqa: S704 - our own file


def _pictures(document: Document, words: Words) -> dict[str, Markup]:
    """SVG by the name of its set, `production`, `by_length` and `by_confidence`; empty where nothing can be drawn."""
    limit = document.chart_limit
    found = {one.name: set_chart(one, words, limit, f"p-{anchor(one)}") for one in document.sets}
    if document.drift is not None:
        found[PRODUCTION] = drift_chart(document.drift, words, limit, "p-production")
    if document.errors is not None:
        found["by_length"] = bars(
            document.errors.by_length,
            words,
            name="p-by-length",
            title=words("by_length"),
            axis=words("length_s"),
            scale=1,
        )
        found["by_confidence"] = bars(
            document.errors.by_confidence,
            words,
            name="p-by-confidence",
            title=words("by_confidence"),
            axis=words("confidence_pct"),
            scale=100,
        )
    return {name: Markup(svg) for name, svg in found.items()}  # noqa: S704 - made by us, texts escaped


def _data_uri(content: bytes) -> str:
    return f"data:audio/mpeg;base64,{base64.b64encode(content).decode()}"


def state(entry: VerdictEntry | Headline) -> str:
    """The verdict, with what was not measured apart from a first sign."""
    return "not_measured" if entry.cause == "not_measured" else entry.verdict


def anchor(report: SetReport) -> str:
    """An id for a set's name, which may hold anything."""
    return "set-" + re.sub(
        r"[^a-z0-9]", lambda found: f"-{ord(found[0]):x}" if found[0] != " " else "-", report.name.lower()
    )


def by_rank(sets: Iterable[SetReport]) -> list[SetReport]:
    """What needs a look first."""
    return sorted(sets, key=lambda one: _STATES.index(state(one.verdict)))


def less(value: float | None, other: float | None) -> float | None:
    """The difference of two rates that may not be known."""
    return None if value is None or other is None else value - other


def columns(utterance: WorstUtterance) -> Iterator[tuple[str, str, str]]:
    """(kind, word said, word written) of each column of an alignment; equal words one by one, so that lines break."""
    for piece in utterance.alignment:
        if piece.kind in ("equal", "substitute"):
            for said, written in zip(piece.reference, piece.hypothesis, strict=True):
                yield piece.kind, said, written
        else:
            for word in piece.reference or piece.hypothesis:
                yield piece.kind, *((word, "") if piece.kind == "delete" else ("", word))
