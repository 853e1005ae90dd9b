"""Connections to PostgreSQL, and transactions that send their messages only after the commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, create_engine

KEEPALIVE = {
    # a server that vanished is noticed within about a minute, instead of when the kernel gives up (15 minutes);
    # that a *worker's* host vanished is what its lease tells
    "tcp_user_timeout": 50_000,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


def make_engine(database_url: str, *, application_name: str, pool_size: int = 5) -> Engine:
    """An engine on `database_url` (driver psycopg 3). Connects on first use.

    Server-side prepared statements stay off (`prepare_threshold=None`): a generic plan for the queue and
    search queries can be far slower than one made for the values at hand.
    """
    return create_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        connect_args={
            "application_name": application_name,
            "prepare_threshold": None,
            "connect_timeout": 10,
            **KEEPALIVE,
        },
    )


@dataclass(frozen=True)
class Transaction:
    """An open transaction and what to do once it has committed."""

    connection: Connection
    _actions: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` after the commit; never when the transaction rolls back.

        Wake-ups are sent this way: a message that overtakes its commit finds nothing to do, and one whose
        transaction rolled back should not exist.
        """
        self._actions.append(action)

    def committed(self) -> None:
        """Called once by `transaction`."""
        for action in self._actions:
            action()


@contextmanager
def transaction(engine: Engine) -> Iterator[Transaction]:
    """One transaction: committed at the end of the block, rolled back when the block raises."""
    with engine.connect() as connection:
        current = Transaction(connection)
        with connection.begin():
            yield current
    current.committed()
