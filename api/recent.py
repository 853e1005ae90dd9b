"""Answers kept for some seconds, so that asking often costs the database no more than asking now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection, Engine, text

STATEMENT_TIMEOUT_S = 3.0
"""No figure is worth more of the database's time."""

T = TypeVar("T")


class Recent(Generic[T]):
    """What `read` said at most `keep_s` ago. Whoever asks while it is being read waits for that answer.

    Args:
        read: is given a connection whose statements end after STATEMENT_TIMEOUT_S.
    """

    def __init__(self, engine: Engine, read: Callable[[Connection], T], *, keep_s: float) -> None:
        self._engine = engine
        self._read = read
        self._keep_s = keep_s
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._answer: T | Exception

    def get(self) -> T:
        """The answer. What `read` raised is raised again meanwhile: a database in need is not asked more often."""
        with self._lock:
            if self._read_at is None or time.monotonic() - self._read_at > self._keep_s:
                try:
                    self._answer = self._ask()
                except Exception as error:
                    self._answer = error
                self._read_at = time.monotonic()
            answer = self._answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _ask(self) -> T:
        with self._engine.connect() as connection:
            connection.execute(text(f"SET LOCAL statement_timeout = {round(STATEMENT_TIMEOUT_S * 1000)}"))
            # the cores are the workers'
            connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
            return self._read(connection)
