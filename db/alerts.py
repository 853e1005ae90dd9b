"""Alerts: something a person must look at. Opened once, followed every night, closed with a reason.

One alert of a kind is open for a subject: an index sees to it. What is to be told goes out as `messages`, written in
the same transaction (`db/messages.py`).
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.quality_schema import AlertKind


class AlertUnknown(Exception):
    """No open alert has this number. Written for a person."""


@dataclass(frozen=True)
class AlertRow:
    """One row of `alerts`; see `db.quality_schema.Alert`."""

    id: int
    kind: str
    subject: str
    opened_night: dt.date
    opened_at: dt.datetime
    last_night: dt.date
    n_quiet_nights: int
    sentence: str
    evidence: dict[str, Any]
    """As of the newest night in which the trouble was there."""
    closed_at: dt.datetime | None
    closed_by: str | None
    close_reason: str | None


_COLUMNS = (
    "id, kind, subject, opened_night, opened_at, last_night, n_quiet_nights, sentence, evidence, closed_at, closed_by, "
    "close_reason"
)


def find_open(connection: Connection, kind: AlertKind, subject: str) -> AlertRow | None:
    """The open alert of a kind about a subject."""
    row = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM alerts WHERE kind = :kind AND subject = :subject AND closed_at IS NULL "
            "FOR UPDATE"
        ),
        {"kind": kind, "subject": subject},
    ).one_or_none()
    return AlertRow(*row) if row is not None else None


def open_alert(
    connection: Connection,
    *,
    kind: AlertKind,
    subject: str,
    night: dt.date,
    sentence: str,
    evidence: dict[str, Any],
) -> AlertRow:
    """Open an alert. Only where none of its kind is open for the subject."""
    row = connection.execute(
        text(
            "INSERT INTO alerts (kind, subject, opened_night, last_night, sentence, evidence) "
            "VALUES (:kind, :subject, :night, :night, :sentence, CAST(:evidence AS jsonb)) "
            f"RETURNING {_COLUMNS}"
        ),
        {
            "kind": kind,
            "subject": subject,
            "night": night,
            "sentence": sentence,
            "evidence": json.dumps(evidence, ensure_ascii=False, allow_nan=False),
        },
    ).one()
    return AlertRow(*row)


def follow_alert(
    connection: Connection,
    alert_id: int,
    *,
    night: dt.date,
    sentence: str,
    evidence: dict[str, Any],
    n_quiet_nights: int,
) -> AlertRow:
    """Note what one more night says of an open alert."""
    row = connection.execute(
        text(
            "UPDATE alerts SET last_night = :night, sentence = :sentence, evidence = CAST(:evidence AS jsonb), "
            f"n_quiet_nights = :n_quiet_nights WHERE id = :id RETURNING {_COLUMNS}"
        ),
        {
            "id": alert_id,
            "night": night,
            "sentence": sentence,
            "evidence": json.dumps(evidence, ensure_ascii=False, allow_nan=False),
            "n_quiet_nights": n_quiet_nights,
        },
    ).one()
    return AlertRow(*row)


def close_alert(connection: Connection, alert_id: int, *, closed_by: str, reason: str) -> AlertRow:
    """Close an open alert.

    Raises:
        AlertUnknown: there is none of this number, or it is closed.
    """
    row = connection.execute(
        text(
            "UPDATE alerts SET closed_at = now(), closed_by = :closed_by, close_reason = :reason "
            f"WHERE id = :id AND closed_at IS NULL RETURNING {_COLUMNS}"
        ),
        {"id": alert_id, "closed_by": closed_by, "reason": reason},
    ).one_or_none()
    if row is None:
        raise AlertUnknown(f"there is no open alert {alert_id}: `fonoteca alerts list` shows them")
    return AlertRow(*row)


def list_alerts(connection: Connection, *, with_closed: bool, limit: int) -> list[AlertRow]:
    """Open alerts, then closed ones where asked for; the newest first."""
    rows = connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM alerts WHERE closed_at IS NULL OR :with_closed "
            "ORDER BY closed_at IS NULL DESC, id DESC LIMIT :limit"
        ),
        {"with_closed": with_closed, "limit": limit},
    )
    return [AlertRow(*row) for row in rows]
