"""Verdicts: one night's answer to one question about one subject, with the evidence it rests on.

A night's verdicts are written once, in the transaction that settles it. The chart goes on from the row of the last
night that had the same subject and the same baseline or reference window.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, text

from db.quality_schema import Question


@dataclass(frozen=True)
class VerdictRow:
    """One row of `quality_verdicts`; see `db.quality_schema.QualityVerdict`.

    Keys of `evidence`, each only where it applies:

    * `reason`: why it was not measured.
    * `accepted`: why tonight's run became the baseline.
    * `standouts`: what the change stands out in, a list of objects with `kind` (programme, programme_kind, speaker),
      `broadcaster`, `name`, `wer`, `expected`, `difference`, `n_utterances`, `n_words`, `p_value`, `adjusted_p`.
    * `n_tested`: how many of those were tested.
    * `changes`: what is not as it was for the baseline: `model`, `code_version`, `decode_settings`, `prompt`,
      `device`, each with `before` and `now`.
    * `matched_pairs`: NIST's test. `strata`: the mix that drift compares. `findings`: measures without references.
    * `chart_restarted`: why the chart began anew.
    """

    night: dt.date
    question: str
    subject: str
    verdict: str
    cause: str
    sentence: str
    model_id: int | None = None
    run_id: uuid.UUID | None = None
    baseline_id: int | None = None
    reference_id: int | None = None
    wer: float | None = None
    wer_low: float | None = None
    wer_high: float | None = None
    baseline_wer: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    effect: float | None = None
    nights: int = 0
    margin: float | None = None
    n_utterances: int = 0
    n_words: int = 0
    chart: dict[str, Any] | None = None
    evidence: dict[str, Any] = field(default_factory=dict)


_NAMES = tuple(each.name for each in fields(VerdictRow))
_COLUMNS = ", ".join(_NAMES)
_JSON = frozenset({"chart", "evidence"})


def store_verdict(connection: Connection, row: VerdictRow) -> None:
    """Store a verdict. A rate that is nan or infinite is a mistake of the caller's: the database has NULL for it."""
    values = {
        name: json.dumps(value, ensure_ascii=False, allow_nan=False)
        if name in _JSON and (value := getattr(row, name)) is not None
        else getattr(row, name)
        for name in _NAMES
    }
    placed = ", ".join(f"CAST(:{name} AS jsonb)" if name in _JSON else f":{name}" for name in _NAMES)
    connection.execute(text(f"INSERT INTO quality_verdicts ({_COLUMNS}) VALUES ({placed})"), values)


def read_verdicts(connection: Connection, night: dt.date) -> list[VerdictRow]:
    """All verdicts of a night, by question and subject."""
    rows = connection.execute(
        text(f"SELECT {_COLUMNS} FROM quality_verdicts WHERE night = :night ORDER BY question, subject"),
        {"night": night},
    )
    return [VerdictRow(**row) for row in rows.mappings()]


def read_chart(
    connection: Connection,
    question: Question,
    subject: str,
    *,
    before: dt.date,
    baseline_id: int | None = None,
    reference_id: int | None = None,
) -> dict[str, Any] | None:
    """The chart of the newest earlier night with the same baseline or reference; None where there is none."""
    chart: dict[str, Any] | None = connection.scalar(
        text(
            """
            SELECT chart FROM quality_verdicts
            WHERE question = :question AND subject = :subject AND night < :before
              AND baseline_id IS NOT DISTINCT FROM CAST(:baseline_id AS integer)
              AND reference_id IS NOT DISTINCT FROM CAST(:reference_id AS integer) AND chart IS NOT NULL
            ORDER BY night DESC LIMIT 1
            """
        ),
        {
            "question": question,
            "subject": subject,
            "before": before,
            "baseline_id": baseline_id,
            "reference_id": reference_id,
        },
    )
    return chart


def nights_not_measured(connection: Connection, question: Question, subject: str, until: dt.date) -> int:
    """How many of the newest verdicts, up to `until`, say not measured in a row.

    0 for what was never measured: nobody misses it.
    """
    n: int = connection.execute(
        text(
            """
            SELECT coalesce((
                SELECT count(*) FROM quality_verdicts v
                WHERE v.question = :question AND v.subject = :subject AND v.night <= :until AND v.night > m.night), 0)
            FROM (SELECT max(night) AS night FROM quality_verdicts
                  WHERE question = :question AND subject = :subject AND night <= :until
                    AND cause <> 'not_measured') m
            """
        ),
        {"question": question, "subject": subject, "until": until},
    ).scalar_one()
    return n


def measured_night_ago(
    connection: Connection, question: Question, subject: str, *, before: dt.date, nights: int
) -> dt.datetime | None:
    """Beginning of the window of the `nights`-th measured night before `before`; None where there are fewer."""
    if nights < 1:
        return None
    from_at: dt.datetime | None = connection.scalar(
        text(
            """
            SELECT n.from_at FROM quality_verdicts v JOIN quality_nights n ON n.night = v.night
            WHERE v.question = :question AND v.subject = :subject AND v.night < :before
              AND v.cause <> 'not_measured'
            ORDER BY v.night DESC OFFSET :skipped LIMIT 1
            """
        ),
        {"question": question, "subject": subject, "before": before, "skipped": nights - 1},
    )
    return from_at


# --- for metrics -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VerdictFigures:
    """What is shown of a verdict as metrics."""

    question: str
    subject: str
    verdict: str
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    baseline_wer: float | None


@dataclass(frozen=True)
class QualityFigures:
    """Where quality stands now."""

    settled_at: dt.datetime | None
    """When the newest night was settled; None before the first one."""
    night: dt.date | None
    """The newest settled night."""
    verdicts: list[VerdictFigures]
    """Of the newest settled night."""
    alerts: list[tuple[str, str]]
    """(kind, subject) of the open ones."""
    messages: dict[str, int]
    """How many wait to be delivered, by channel."""


def quality_figures(connection: Connection) -> QualityFigures:
    """The newest settled night's verdicts, open alerts and waiting messages: four short index scans."""
    night = connection.execute(
        text("SELECT night, finished_at FROM quality_nights WHERE state = 'done' ORDER BY night DESC LIMIT 1")
    ).one_or_none()
    verdicts = connection.execute(
        text(
            "SELECT question, subject, verdict, wer, wer_low, wer_high, baseline_wer FROM quality_verdicts "
            "WHERE night = :night ORDER BY question, subject"
        ),
        {"night": night.night if night else None},
    )
    alerts = connection.execute(
        text("SELECT kind, subject FROM alerts WHERE closed_at IS NULL ORDER BY kind, subject")
    )
    messages = connection.execute(
        text(
            "SELECT channel, count(*) FROM messages WHERE delivered_at IS NULL AND gave_up_at IS NULL "
            "GROUP BY channel"
        )
    )
    return QualityFigures(
        settled_at=night.finished_at if night else None,
        night=night.night if night else None,
        verdicts=[VerdictFigures(*row) for row in verdicts],
        alerts=[(row.kind, row.subject) for row in alerts],
        messages={row[0]: row[1] for row in messages},
    )
