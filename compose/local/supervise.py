"""Restart what dies, at a growing distance."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backoff:
    """How long to wait before each restart of the same part."""

    first_s: float = 1.0
    """Before the second restart; the first one is immediate. Doubles from there."""

    longest_s: float = 60.0
    """Never wait longer."""

    stable_s: float = 60.0
    """A part that ran so long starts again at the beginning."""

    def delay_s(self, restarts: int) -> float:
        """Seconds to wait before the next restart, after `restarts` earlier ones."""
        if restarts == 0:
            return 0.0
        return float(min(self.longest_s, self.first_s * 2 ** min(restarts - 1, 30)))


class Watched:
    """One part under supervision: a server or a service."""

    def __init__(
        self,
        name: str,
        is_alive: Callable[[], bool],
        start: Callable[[], object],
        last_words: Callable[[], str],
        backoff: Backoff,
    ) -> None:
        """Nothing is called until `check`.

        Args:
            name: for the log.
            is_alive: whether the part runs.
            start: starts it again; may raise.
            last_words: how it ended and the tail of its log.
            backoff: waiting times.
        """
        self.name = name
        self._is_alive = is_alive
        self._start = start
        self._last_words = last_words
        self._backoff = backoff
        self._restarts = 0
        self._running_since = time.monotonic()
        self._retry_at: float | None = None

    def check(self) -> bool:
        """Look once, restart when it is due. True when it was restarted just now."""
        now = time.monotonic()
        if self._retry_at is None:
            if self._is_alive():
                if now - self._running_since >= self._backoff.stable_s:
                    self._restarts = 0
                return False
            self._schedule(now, f"died: {self._last_words()}")
        assert self._retry_at is not None
        if now < self._retry_at:
            return False
        try:
            self._start()
        except Exception as error:  # whatever it is, the others go on and this one is tried again
            self._schedule(time.monotonic(), f"could not be restarted: {error}")
            return False
        self._retry_at = None
        self._running_since = time.monotonic()
        logger.warning("%s restarted", self.name)
        return True

    def _schedule(self, now: float, reason: str) -> None:
        delay_s = self._backoff.delay_s(self._restarts)
        self._restarts += 1
        self._retry_at = now + delay_s
        logger.error("%s %s; restart in %.0f s", self.name, reason, delay_s)
