"""Events: what happened to recordings, written in the transaction in which it happened."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

NewEvent = tuple[int, uuid.UUID | None, uuid.UUID | None, str, dict[str, Any]]
"""(broadcaster_id, batch_id, recording_id, kind, payload)"""


def add_events(connection: Connection, events: Sequence[NewEvent]) -> None:
    """Append events, in order."""
    if not events:
        return
    connection.execute(
        text(
            "INSERT INTO events (broadcaster_id, batch_id, recording_id, kind, payload) "
            "VALUES (:broadcaster_id, :batch_id, :recording_id, :kind, CAST(:payload AS jsonb))"
        ),
        [
            {
                "broadcaster_id": broadcaster_id,
                "batch_id": batch_id,
                "recording_id": recording_id,
                "kind": kind,
                "payload": json.dumps(payload),
            }
            for broadcaster_id, batch_id, recording_id, kind, payload in events
        ],
    )
