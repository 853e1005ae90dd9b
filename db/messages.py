"""Messages on their way out: written with what they tell, taken by one deliverer at a time, tried until delivered.

A message is claimed by moving its next attempt past the time that any delivery takes, and raising `attempts`. Who
claims second finds nothing due; who was killed in the middle leaves a message that comes due again. So a message is
sent at least once, and twice only where somebody died between sending it and saying so.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db.quality_schema import Channel, MessageKind

CLAIM = dt.timedelta(minutes=10)
"""Longer than any delivery: a claimed message is tried again after this if its deliverer died."""
FIRST_RETRY = dt.timedelta(minutes=1)
LAST_RETRY = dt.timedelta(hours=1)
GIVE_UP_AFTER = dt.timedelta(days=3)


@dataclass(frozen=True)
class NewMessage:
    """A message to one recipient."""

    kind: MessageKind
    channel: Channel
    recipient: str
    subject: str
    body: dict[str, Any]
    """`{"text": ...}` for e-mail; for a webhook the JSON that is posted, to which `id`, `event` and `created_at` are
    added."""
    alert_id: int | None = None
    night: dt.date | None = None


@dataclass(frozen=True)
class ClaimedMessage:
    """A message to deliver now."""

    id: int
    kind: str
    channel: str
    recipient: str
    subject: str
    body: dict[str, Any]
    created_at: dt.datetime
    attempts: int
    """This one included; fences what is written about it."""


def add_message(connection: Connection, message: NewMessage) -> None:
    """Put a message on its way; one of the same kind about the same to the same recipient is there once."""
    connection.execute(
        text(
            """
            INSERT INTO messages (kind, alert_id, night, channel, recipient, subject, body)
            VALUES (:kind, :alert_id, :night, :channel, :recipient, :subject, CAST(:body AS jsonb))
            ON CONFLICT (kind, alert_id, night, channel, recipient) DO NOTHING
            """
        ),
        {
            "kind": message.kind,
            "alert_id": message.alert_id,
            "night": message.night,
            "channel": message.channel,
            "recipient": message.recipient,
            "subject": message.subject,
            "body": json.dumps(message.body, ensure_ascii=False, allow_nan=False),
        },
    )


def claim_message(
    connection: Connection, channel: Channel, *, now: dt.datetime, without: Collection[str] = ()
) -> ClaimedMessage | None:
    """Take the message of a channel that has been due longest; none to the recipients in `without`."""
    row = connection.execute(
        text(
            """
            UPDATE messages SET attempts = attempts + 1, next_attempt_at = :claimed_until
            WHERE id = (
                SELECT id FROM messages
                WHERE delivered_at IS NULL AND gave_up_at IS NULL AND next_attempt_at <= :now
                  AND channel = :channel AND NOT recipient = ANY(CAST(:without AS text[]))
                ORDER BY next_attempt_at, id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING id, kind, channel, recipient, subject, body, created_at, attempts
            """
        ),
        {"now": now, "claimed_until": now + CLAIM, "channel": channel, "without": list(without)},
    ).one_or_none()
    return ClaimedMessage(*row) if row is not None else None


def mark_delivered(connection: Connection, message: ClaimedMessage, *, now: dt.datetime) -> None:
    """Note that the receiving side took the message."""
    connection.execute(
        text(
            "UPDATE messages SET delivered_at = :now, last_error = NULL WHERE id = :id AND delivered_at IS NULL"
        ),
        {"id": message.id, "now": now},
    )


def retry_delay(attempts: int) -> dt.timedelta:
    """How long to wait after so many attempts in vain."""
    return min(LAST_RETRY, FIRST_RETRY * (1 << min(attempts - 1, 10)))


def mark_failed(connection: Connection, message: ClaimedMessage, error: str, *, now: dt.datetime) -> bool:
    """Note why an attempt failed, and when the next one is due. True where it was the last one."""
    gives_up = now >= message.created_at + GIVE_UP_AFTER
    connection.execute(
        text(
            """
            UPDATE messages
            SET last_error = :error, next_attempt_at = :next, gave_up_at = CAST(:gave_up_at AS timestamptz)
            WHERE id = :id AND attempts = :attempts AND delivered_at IS NULL
            """
        ),
        {
            "id": message.id,
            "attempts": message.attempts,
            "error": error,
            "next": now + retry_delay(message.attempts),
            "gave_up_at": now if gives_up else None,
        },
    )
    return gives_up
