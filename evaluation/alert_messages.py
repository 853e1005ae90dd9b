"""What leaves the house about alerts and reports: written as `messages` in the transaction in which it happens.

Free of numpy and scipy: operators' commands close alerts where neither is installed.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import Connection

from db.alerts import AlertRow, close_alert, find_open
from db.messages import NewMessage, add_message
from db.quality_schema import AlertKind, Channel, MessageKind
from db.settings import Settings
from evaluation.alert_texts import mail_subject, mail_text


def close_for_replacement(
    connection: Connection, kind: AlertKind, subject: str, *, closed_by: str, reason: str, settings: Settings
) -> AlertRow | None:
    """Close the alert, if one is open, whose baseline or reference window a person has just replaced."""
    alert = find_open(connection, kind, subject)
    if alert is None:
        return None
    return close_and_tell(connection, alert, closed_by, reason, settings)


def close_by_hand(
    connection: Connection, alert_id: int, *, closed_by: str, reason: str, settings: Settings
) -> AlertRow:
    """Close an alert by its number. The next night that is as bad opens a new one.

    Raises:
        db.alerts.AlertUnknown: none of this number is open.
    """
    closed = close_alert(connection, alert_id, closed_by=closed_by, reason=reason)
    tell(connection, MessageKind.ALERT_CLOSED, closed, settings)
    return closed


def close_and_tell(
    connection: Connection, alert: AlertRow, closed_by: str, reason: str, settings: Settings
) -> AlertRow:
    """Close an alert and put the news on its way."""
    return close_by_hand(connection, alert.id, closed_by=closed_by, reason=reason, settings=settings)


def addresses(listed: str | None) -> list[str]:
    """E-mail addresses separated by commas, each once."""
    return list(dict.fromkeys(part.strip() for part in (listed or "").split(",") if part.strip()))


def tell(connection: Connection, kind: MessageKind, alert: AlertRow, settings: Settings) -> None:
    """Put an alert's news on its way to the webhook and to each address."""
    subject = mail_subject(kind, alert, settings.report_language)
    if settings.alert_webhook_url:
        message = NewMessage(
            kind, Channel.WEBHOOK, settings.alert_webhook_url, subject, webhook_body(alert), alert_id=alert.id
        )
        add_message(connection, message)
    text = mail_text(kind, alert, settings.report_language)
    for recipient in addresses(settings.alert_mail_to):
        mail = NewMessage(kind, Channel.EMAIL, recipient, subject, {"text": text}, alert_id=alert.id)
        add_message(connection, mail)


def tell_of_report(
    connection: Connection, night: dt.date, subject: str, text: str, settings: Settings
) -> None:
    """Mail a night's report to those who asked for it."""
    for recipient in addresses(settings.report_mail_to):
        add_message(
            connection,
            NewMessage(MessageKind.REPORT, Channel.EMAIL, recipient, subject, {"text": text}, night=night),
        )


def webhook_body(alert: AlertRow) -> dict[str, Any]:
    """What a webhook is told of an alert; docs/alerts.md describes it."""
    return {
        "alert": {
            "id": alert.id,
            "kind": alert.kind,
            "subject": alert.subject,
            "sentence": alert.sentence,
            "opened_night": alert.opened_night.isoformat(),
            "opened_at": alert.opened_at.isoformat(),
            "last_night": alert.last_night.isoformat(),
            "closed_at": alert.closed_at.isoformat() if alert.closed_at else None,
            "closed_by": alert.closed_by,
            "close_reason": alert.close_reason,
        },
        "evidence": alert.evidence,
    }
