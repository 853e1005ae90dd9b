"""Locks of migrations on a system that works meanwhile. Migrations call these; the rules stand here once.

* One migrator at a time: `migration_turn`. It asks again and again instead of waiting inside a query: a waiting
  query holds a snapshot, and an index built concurrently waits for every older snapshot, so the two would wait for
  each other.
* Tables that a migration changes are locked at its beginning, all of them: `lock_tables`.
* Indexes on tables with rows are built concurrently, in a migration that does nothing else: `create_index`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from alembic import op
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

MIGRATION_LOCK = 0x464F4E4F_4D494752  # "FONOMIGR"
"""Key of the advisory lock that a migrator holds."""

LOCK_TIMEOUT_S = 2.0
"""How long a migration waits for a lock. Queries that come after it wait behind it, so never longer than this."""

TURN_POLL_S = 0.2
LOCK_POLL_S = 0.01
LOCK_NOT_AVAILABLE = "55P03"


class TurnNotHad(Exception):
    """Another migrator is at work, and went on for longer than this one has patience."""


@contextmanager
def migration_turn(connection: Connection, *, patience_s: float) -> Iterator[None]:
    """Hold the migrators' lock.

    Raises:
        TurnNotHad: somebody else held it for `patience_s`.
    """
    deadline = time.monotonic() + patience_s
    while True:
        held = connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()
        if held:
            break
        if time.monotonic() >= deadline:
            raise TurnNotHad
        time.sleep(TURN_POLL_S)
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


def lock_tables(first: str, *others: str) -> None:
    """Lock tables against every reader and writer, before a migration changes the first of them.

    Name first the table that most transactions begin with. It is waited for while nothing else is held. The others
    are asked for again and again but never waited for, and given up within `LOCK_TIMEOUT_S`, which fails the migration
    to be tried again: one that waited for a second table with the first in hand could close a circle with a worker's
    transaction, and PostgreSQL may then end the worker's.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    op.execute(f"LOCK TABLE {first} IN ACCESS EXCLUSIVE MODE")
    connection = op.get_bind()
    for table in others:
        while True:
            try:
                with connection.begin_nested():
                    connection.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT"))
                break
            except OperationalError as error:
                is_taken = getattr(error.orig, "sqlstate", None) == LOCK_NOT_AVAILABLE
                if not is_taken or time.monotonic() >= deadline:
                    raise
            time.sleep(LOCK_POLL_S)


def create_index(name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """Build an index while the table is read and written, in any length of time.

    For migrations that do nothing else, since what a migration did before is committed by it. When the build is
    interrupted, the invalid index that it leaves behind is dropped by the next try. An index of this name that is
    valid was finished by an interrupted try and stays. Options are those of `alembic.op.create_index`.
    """
    with op.get_context().autocommit_block():
        valid = op.get_bind().scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(quote_ident(:name))"),
            {"name": name},
        )
        with _long_waits():
            if valid is False:
                op.drop_index(name, table_name=table, postgresql_concurrently=True)
            if not valid:
                op.create_index(name, table, columns, postgresql_concurrently=True, **options)


def drop_index(name: str, table: str) -> None:
    """Drop an index, if it is there, while the table is read and written. For migrations that do nothing else."""
    with op.get_context().autocommit_block(), _long_waits():
        op.drop_index(name, table_name=table, postgresql_concurrently=True, if_exists=True)


@contextmanager
def _long_waits() -> Iterator[None]:
    """What works concurrently waits for transactions under way, and nobody waits behind it: let it."""
    patience_s: float = op.get_context().config.attributes["patience_s"]  # type: ignore[union-attr]
    op.execute(f"SET lock_timeout = {round(max(patience_s, LOCK_TIMEOUT_S) * 1000)}")
    try:
        yield
    finally:
        op.execute(f"SET lock_timeout = {round(LOCK_TIMEOUT_S * 1000)}")
