"""The report of one night as data: everything that its pages, its mail and its JSON show.

The dataclasses are the JSON: a field is a key, a tuple an array, a date or time an ISO 8601 text, None null. Rates are
fractions (0.0213 is 2.13 %), never NaN; what is not known is null. Texts for people are made from it, in three
languages, by `evaluation.report.sentences`; the few texts in it are quoted as they were stored.
"""

from __future__ import annotations

import datetime as dt
import types
import typing
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

FORMAT = 1
"""Raised when a key changes its meaning or goes; new keys do not raise it."""

PRODUCTION = "production"
"""Subject of drift and of what is measured without references."""

T = TypeVar("T")


@dataclass(frozen=True)
class Standout:
    """A part of the material that a verdict rests on."""

    kind: str
    """`programme`, `programme_kind` or `speaker`."""
    name: str
    broadcaster: str | None
    wer: float | None
    expected: float | None
    """What the baseline or the reference window lets expect."""
    difference: float | None
    adjusted_p: float | None


@dataclass(frozen=True)
class SystemChange:
    """Something of the system that is not what it was when the baseline was measured."""

    name: str
    """`model`, `code_version`, `decode_settings`, `prompt` or `device`."""
    before: str
    now: str


@dataclass(frozen=True)
class VerdictEntry:
    """One answer with its evidence: a row of `quality_verdicts`, and since when."""

    question: str
    """`regression`, `drift` or `unreferenced`."""
    subject: str
    verdict: str
    cause: str
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    baseline_wer: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p_value: float | None
    effect: float | None
    nights: int
    since: dt.date | None
    """Night in which the change is supposed to have begun."""
    margin: float | None
    n_missing: int
    """Nights in a row without a measurement, tonight included."""
    n_utterances: int
    n_words: int
    standouts: tuple[Standout, ...]
    """Programmes before kinds and speakers; those that changed in the verdict's direction."""
    changes: tuple[SystemChange, ...]
    reason: str | None
    """Why it was not measured, in English."""


@dataclass(frozen=True)
class NightPoint:
    """One night in the history of a set or of production."""

    night: dt.date
    state: str
    """`measured`, `not_measured` or `missed`."""
    wer: float | None
    low: float | None
    """Of the 95 % interval of the change from the baseline, put around this night's rate."""
    high: float | None
    baseline_wer: float | None
    n_words: int
    verdict: str | None
    up: float | None
    """Sum of the chart for more errors, in standard errors."""
    down: float | None
    model: str | None
    is_new_model: bool
    is_new_baseline: bool


@dataclass(frozen=True)
class ScoreRow:
    """Error counts and rates of one run, as stored."""

    night: dt.date | None
    n_utterances: int
    n_failed: int
    n_words: int
    substitutions: int
    deletions: int
    insertions: int
    insertions_on_empty: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    cer: float | None
    cer_low: float | None
    cer_high: float | None


@dataclass(frozen=True)
class CardFigures:
    """What the model card says of a set of this name."""

    n_utterances: int
    wer: float
    cer: float


@dataclass(frozen=True)
class BaselineFacts:
    """The accepted run behind the comparison."""

    night: dt.date | None
    model: str | None
    accepted_at: dt.datetime
    accepted_by: str
    reason: str


@dataclass(frozen=True)
class SetReport:
    """One fixed set."""

    name: str
    verdict: VerdictEntry
    tonight: ScoreRow | None
    before: ScoreRow | None
    """The measured night before."""
    baseline: ScoreRow | None
    second: ScoreRow | None
    """Tonight under the Galician normaliser."""
    card: CardFigures | None
    baseline_facts: BaselineFacts | None
    history: tuple[NightPoint, ...]


@dataclass(frozen=True)
class WindowPart:
    """A part of the rolling window: all of it, the drawn segments, a broadcaster, kind of programme or programme."""

    kind: str
    """`all`, `drawn`, `broadcaster`, `programme_kind` or `programme`."""
    broadcaster: str | None
    name: str
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    n_segments: int
    n_words: int
    n_errors: int


@dataclass(frozen=True)
class RollingPoint:
    """The rolling window as it stood after one night."""

    night: dt.date
    wer: float
    expected: float


@dataclass(frozen=True)
class DriftReport:
    """Corrected production segments against the reference window."""

    verdict: VerdictEntry
    window_days: int
    rolling: tuple[RollingPoint, ...]
    parts: tuple[WindowPart, ...]
    """Of the last `window_days` days."""
    reference_from: dt.datetime | None
    reference_until: dt.datetime | None
    history: tuple[NightPoint, ...]


@dataclass(frozen=True)
class FindingRow:
    """A measure without references that stands out from its own history."""

    unit_kind: str
    broadcaster: str | None
    unit: str
    measure: str
    value: float
    centre: float | None
    adjusted_p: float
    n_segments: int
    n_nights: int


@dataclass(frozen=True)
class UnreferencedReport:
    """What was measured without references."""

    verdict: VerdictEntry | None
    n_measures: int
    n_compared: int
    findings: tuple[FindingRow, ...]


@dataclass(frozen=True)
class AlertRow:
    """An alert that is open, or was closed this night."""

    kind: str
    subject: str
    opened_night: dt.date
    last_night: dt.date
    n_quiet_nights: int
    is_open: bool
    is_new: bool
    closed_by: str | None
    close_reason: str | None


@dataclass(frozen=True)
class ConfusionRow:
    """One word error. An empty text is a word that is not there."""

    reference: str
    hypothesis: str
    count: int
    baseline_count: int | None
    """How often the baseline runs made it."""


@dataclass(frozen=True)
class BinRow:
    """Utterances of one span of length or of confidence."""

    low: float
    high: float | None
    """None: no upper end."""
    n_utterances: int
    n_words: int
    n_errors: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None


@dataclass(frozen=True)
class GroupRow:
    """Utterances of one programme of one set, or of one kind of programme, beside the baseline."""

    set_name: str | None
    """None: of all sets."""
    kind: str | None
    programme: str | None
    n_utterances: int
    n_words: int
    n_errors: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    baseline_wer: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    stands_out: bool
    """The night's verdict names it for having more errors than the baseline."""


@dataclass(frozen=True)
class ErrorReport:
    """Where the errors of all sets are."""

    n_utterances: int
    n_words: int
    n_errors: int
    confusions: tuple[ConfusionRow, ...]
    by_programme: tuple[GroupRow, ...]
    by_kind: tuple[GroupRow, ...]
    by_length: tuple[BinRow, ...]
    """Seconds of audio."""
    by_confidence: tuple[BinRow, ...]
    """Geometric mean of the token probabilities, 0 to 1."""


@dataclass(frozen=True)
class AlignedPiece:
    """Consecutive words with the same fate: `equal`, `substitute`, `delete` or `insert`."""

    kind: str
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    """The sound of an utterance in the report."""

    name: str
    """File under `clips/` beside the pages."""
    duration_s: float
    is_cut: bool
    """Only its beginning."""
    failure: str | None
    """Why it cannot be heard, in English; then there is no file."""


@dataclass(frozen=True)
class WorstUtterance:
    """One of the utterances with the most errors."""

    set_name: str
    key: str
    programme: str | None
    speaker: str | None
    audio: str
    duration_s: float
    n_words: int
    n_errors: int
    baseline_errors: int | None
    confidence: float | None
    flags: tuple[str, ...]
    reference: str
    hypothesis: str
    alignment: tuple[AlignedPiece, ...]
    """Of the normalised words."""
    clip: Clip | None


@dataclass(frozen=True)
class ProductionRow:
    """What was done since the night before, of one broadcaster or of all. Hours of audio."""

    broadcaster: str | None
    n_recordings: int
    """Finished."""
    audio_h: float
    transcribed_h: float
    no_speech_h: float
    failed_h: float
    n_failed_recordings: int
    n_waiting: int
    """Recordings."""
    waiting_h: float
    """Of those the ones being transcribed; the others' length is not known yet."""
    coverage: float | None
    """Share of the finished recordings' audio that is transcribed or without speech."""


@dataclass(frozen=True)
class ProductionFigures:
    """What was transcribed between this night and the one before; what waits, when the report was made."""

    total: ProductionRow
    by_broadcaster: tuple[ProductionRow, ...]
    rtfx: float | None
    """Seconds of audio transcribed per second of a worker's time."""


@dataclass(frozen=True)
class ModelFacts:
    """What made the texts of some sets."""

    name: str
    weights_sha256: str
    is_demo: bool
    prompt: str | None
    decode_settings: dict[str, Any] | None
    device: str | None
    code_version: str | None
    sets: tuple[str, ...]


@dataclass(frozen=True)
class NotMeasured:
    """Something that should be here and is not."""

    subject: str
    reason: str
    """In English, as it was stored."""


@dataclass(frozen=True)
class Other:
    """A question and what it is about."""

    question: str
    subject: str


@dataclass(frozen=True)
class Headline:
    """What the first sentence is made of."""

    verdict: str
    cause: str
    question: str | None
    subject: str | None
    effect: float | None
    since: dt.date | None
    standouts: tuple[str, ...]
    others: tuple[Other, ...]
    """Further subjects with the same verdict."""
    n_subjects: int
    n_open_alerts: int
    is_demo: bool


@dataclass(frozen=True)
class Document:
    """The report of one night."""

    format: int
    night: dt.date
    zone: str
    from_at: dt.datetime
    until_at: dt.datetime
    made_at: dt.datetime
    code_version: str
    headline: Headline
    sets: tuple[SetReport, ...]
    combined: ScoreRow | None
    """All sets of the night over all words; intervals over programmes or speakers of all."""
    combined_baseline: ScoreRow | None
    combined_card: CardFigures | None
    drift: DriftReport | None
    unreferenced: UnreferencedReport
    alerts: tuple[AlertRow, ...]
    errors: ErrorReport | None
    worst: tuple[WorstUtterance, ...]
    production: ProductionFigures | None
    models: tuple[ModelFacts, ...]
    not_measured: tuple[NotMeasured, ...]
    normalizers: tuple[str, ...]
    chart_limit: float


def named(entry: VerdictEntry) -> tuple[str, ...]:
    """What a sentence names: programmes, or what else stands out where no programme does."""
    programmes = tuple(one.name for one in entry.standouts if one.kind == "programme")
    return programmes or tuple(one.name for one in entry.standouts)


def as_json(value: Any) -> Any:
    """The document as JSON knows it.

    Raises:
        ValueError: a number that is not finite: what is not known must be None.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    if isinstance(value, float) and not -float("inf") < value < float("inf"):
        raise ValueError(f"{value} is no number that JSON knows")
    return value


def from_json(content: Any) -> Document:
    """The document back from its JSON; keys that this version does not know are left out.

    Raises:
        ValueError: its format is another.
    """
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise ValueError(f"the report has format {found!r}, and this version reads {FORMAT}")
    return _build(Document, content)


def _build(kind: type[T], content: dict[str, Any]) -> T:
    hints = typing.get_type_hints(kind)
    return kind(
        **{field.name: _value(hints[field.name], content[field.name]) for field in fields(kind)}  # type: ignore[arg-type]
    )


def _value(hint: Any, content: Any) -> Any:
    if content is None:
        return None
    origin = typing.get_origin(hint)
    if origin is types.UnionType:
        return _value(next(kind for kind in typing.get_args(hint) if kind is not types.NoneType), content)
    if origin is tuple:
        return tuple(_value(typing.get_args(hint)[0], item) for item in content)
    if hint is dt.datetime:
        return dt.datetime.fromisoformat(content)
    if hint is dt.date:
        return dt.date.fromisoformat(content)
    if hint is float:
        return float(content)
    if is_dataclass(hint) and isinstance(hint, type):
        return _build(hint, content)
    return content
