"""The triggers in PostgreSQL and the tables in db/states.py allow the same transitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from db.states import RECORDING_TRANSITIONS, SEGMENT_TRANSITIONS, RecordingState, SegmentState

# columns that the check constraints tie to a state, so that only the transition itself is judged
RECORDING_COLUMNS = {"splitting": "worker_id = :worker_id"}
SEGMENT_COLUMNS = {"running": "worker_id = :worker_id, text = NULL", "done": "worker_id = NULL, text = 'si'"}


def allows(connection: Connection, statement: str, worker_id: int) -> bool:
    """Whether the database takes the statement; the transaction goes on either way."""
    try:
        with connection.begin_nested() as savepoint:
            connection.execute(text(statement), {"worker_id": worker_id})
            savepoint.rollback()
    except IntegrityError as error:
        if "illegal transition" not in str(error):
            raise
        return False
    return True


def force(connection: Connection, table: str, statement: str, worker_id: int) -> None:
    """Bring a row into a state from which the transition is tried."""
    connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
    connection.execute(text(statement), {"worker_id": worker_id})
    connection.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))


@pytest.fixture
def worker_id(engine: Engine) -> int:
    """A row that worker_id columns can point at."""
    with engine.begin() as connection:
        created: int = connection.execute(
            text(
                "INSERT INTO workers (role, host, pid, code_version, lease_until) "
                "VALUES ('gpu', 'h', 1, 'v', now()) RETURNING id"
            )
        ).scalar_one()
    return created


def test_recordings(engine: Engine, worker_id: int, make_recording: Callable[..., Any]) -> None:
    make_recording(received=False)
    with engine.begin() as connection:
        for old, new in itertools.product(RecordingState, repeat=2):
            into = {
                state: f"UPDATE recordings SET state = '{state}', failure_reason = 'a reason', "
                + RECORDING_COLUMNS.get(state, "worker_id = NULL")
                for state in (old, new)
            }
            force(connection, "recordings", into[old], worker_id)
            expected = old == new or new in RECORDING_TRANSITIONS[old]
            assert allows(connection, into[new], worker_id) == expected, f"{old} -> {new}"


def test_segments(engine: Engine, worker_id: int, make_transcript: Callable[..., Any]) -> None:
    make_transcript()
    with engine.begin() as connection:
        for old, new in itertools.product(SegmentState, repeat=2):
            into = {
                state: f"UPDATE segments SET state = '{state}', failure_reason = 'a reason', "
                + SEGMENT_COLUMNS.get(state, "worker_id = NULL, text = NULL")
                for state in (old, new)
            }
            force(connection, "segments", into[old], worker_id)
            expected = old == new or new in SEGMENT_TRANSITIONS[old]
            assert allows(connection, into[new], worker_id) == expected, f"{old} -> {new}"


def test_every_state_has_its_transitions() -> None:
    assert set(RECORDING_TRANSITIONS) == set(RecordingState)
    assert set(SEGMENT_TRANSITIONS) == set(SegmentState)
