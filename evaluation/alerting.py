"""From verdicts to alerts and messages.

`regressed` opens an alert, or finds it open. `watch` keeps it open; `ok` or `improved` two nights in a row close it.
What its figures were compared with being replaced closes it too: the question is a new one then. A question that was
answered before and is not for some nights is an alert of its own, since silence would pass for good news.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Connection

from db.alerts import AlertRow, find_open, follow_alert, open_alert
from db.quality_schema import AlertKind, MessageKind, Question
from db.settings import Settings
from db.verdicts import VerdictRow, nights_not_measured
from evaluation.alert_messages import close_and_tell, tell
from evaluation.verdict import Cause, Verdict

SYSTEM = "system"
QUIET_NIGHTS = 2
"""Nights in a row with `ok` or `improved` that close an alert."""
MISSING_NIGHTS = {Question.REGRESSION: 2, Question.DRIFT: 7}
"""Nights in a row without a measurement that open an alert. People correct segments, and not at weekends."""

KINDS = {Question.REGRESSION: AlertKind.REGRESSION, Question.DRIFT: AlertKind.DRIFT}


def update_alerts(
    connection: Connection, row: VerdictRow, settings: Settings, *, is_expected: bool = True
) -> None:
    """Open, follow or close the alerts that a verdict speaks to. Call once for each verdict of a night.

    Args:
        is_expected: False where nobody can expect a measurement yet: then its lack opens nothing.
    """
    question = Question(row.question)
    if question not in KINDS:
        return  # without references nobody knows whether there are more errors: shown, never alarmed
    _update_change(connection, row, KINDS[question], settings)
    _update_missing(connection, row, question, settings, is_expected=is_expected)


def _update_change(connection: Connection, row: VerdictRow, kind: AlertKind, settings: Settings) -> None:
    alert = find_open(connection, kind, row.subject)
    if alert is not None and (replaced := _replaced(alert, row)):
        close_and_tell(connection, alert, SYSTEM, replaced, settings)
        alert = None
    if row.verdict == Verdict.REGRESSED:
        if alert is None:
            _open(connection, row, kind, row.sentence, settings)
        else:
            _follow(connection, alert, row, n_quiet_nights=0)
    elif alert is not None:
        is_quiet = row.verdict in (Verdict.OK, Verdict.IMPROVED) and row.cause != Cause.NOT_MEASURED
        n_quiet = alert.n_quiet_nights + 1 if is_quiet else 0
        alert = _follow(connection, alert, row, n_quiet_nights=n_quiet)
        if n_quiet >= QUIET_NIGHTS:
            close_and_tell(connection, alert, SYSTEM, f"{n_quiet} nights in a row {row.verdict}", settings)


def _update_missing(
    connection: Connection, row: VerdictRow, question: Question, settings: Settings, *, is_expected: bool
) -> None:
    alert = find_open(connection, AlertKind.NOT_MEASURED, row.subject)
    if row.cause != Cause.NOT_MEASURED:
        if alert is not None:
            alert = _follow(connection, alert, row, n_quiet_nights=1)
            close_and_tell(connection, alert, SYSTEM, "measured again", settings)
    elif alert is not None:
        _follow(connection, alert, row, n_quiet_nights=0)
    elif (
        is_expected
        and nights_not_measured(connection, question, row.subject, row.night) >= MISSING_NIGHTS[question]
    ):
        _open(connection, row, AlertKind.NOT_MEASURED, row.sentence, settings)


def _replaced(alert: AlertRow, row: VerdictRow) -> str | None:
    """Why an alert's question is no longer the one that is asked; None where it is."""
    for key, name in (("baseline_id", "baseline"), ("reference_id", "reference window")):
        now = getattr(row, key)
        if now is not None and alert.evidence.get(key) not in (None, now):
            return f"the {name} was replaced"
    return None


def _open(
    connection: Connection, row: VerdictRow, kind: AlertKind, sentence: str, settings: Settings
) -> AlertRow:
    alert = open_alert(
        connection,
        kind=kind,
        subject=row.subject,
        night=row.night,
        sentence=sentence,
        evidence=evidence_of(row),
    )
    tell(connection, MessageKind.ALERT_OPENED, alert, settings)
    return alert


def _follow(connection: Connection, alert: AlertRow, row: VerdictRow, *, n_quiet_nights: int) -> AlertRow:
    evidence = evidence_of(row)
    if row.baseline_id is None and row.reference_id is None:
        # a night that was compared with nothing must not hide that the comparison was replaced later
        evidence |= {key: alert.evidence.get(key) for key in ("baseline_id", "reference_id")}
    return follow_alert(
        connection,
        alert.id,
        night=row.night,
        sentence=row.sentence,
        evidence=evidence,
        n_quiet_nights=n_quiet_nights,
    )


def evidence_of(row: VerdictRow) -> dict[str, Any]:
    """A verdict as JSON, without its chart and what the alert says anyway."""
    left_out = {"chart", "sentence", "subject"}
    found: dict[str, Any] = {
        each.name: getattr(row, each.name) for each in fields(VerdictRow) if each.name not in left_out
    }
    return found | {"night": row.night.isoformat(), "run_id": str(row.run_id) if row.run_id else None}
