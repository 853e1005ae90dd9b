"""How long the engine works: what of a worker's time its GPU is given something to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from db.liveness import WorkerSession


class BusyClock:
    """Adds to the counters of a worker's session. Of one thread: the engine asks for its clips in the thread in which
    it computes, so that the GPU has nothing to do while they are waited for."""

    def __init__(self, session: WorkerSession) -> None:
        self._session = session
        self._waited_s = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around the engine's work: counts as busy, less what is spent in `waiting` meanwhile."""
        started_at, self._waited_s = time.monotonic(), 0.0
        try:
            yield
        finally:
            self._session.counters.busy_s += time.monotonic() - started_at - self._waited_s

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what the engine waits for."""
        started_at = time.monotonic()
        try:
            yield
        finally:
            self._waited_s += time.monotonic() - started_at

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """Around one question to the queue."""
        started_at = time.monotonic()
        try:
            yield
        finally:
            self._session.counters.claims += 1
            self._session.counters.claim_s += time.monotonic() - started_at
