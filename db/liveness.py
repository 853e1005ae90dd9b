"""Signs of life: how the system knows that a worker is dead, within milliseconds where it can.

A worker process inserts a row into `workers` and holds the session advisory lock (WORKER_LOCK_CLASS, its id)
on a connection of its own. Killed, its connection closes and PostgreSQL frees the lock at once. Frozen or cut
off, it keeps the lock but no longer renews `lease_until`. Dead = no lock, or lease over.

Session locks need a direct connection: do not put a transaction-pooling proxy between workers and PostgreSQL.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

WORKER_LOCK_CLASS = 0x464F4E4F  # "FONO"
"""First key of the advisory locks; the second is the worker's id."""

DEAD_WORKERS_SQL = f"""
    SELECT w.id FROM workers w
    WHERE w.stopped_at IS NOT NULL
       OR w.lease_until < now()
       OR NOT EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND l.classid = {WORKER_LOCK_CLASS} AND l.objid = w.id::oid)
"""
"""Subquery: ids of workers whose claims are void."""

log = structlog.get_logger(__name__)


@dataclass
class WorkCounters:
    """What a worker process did since it registered. They only grow, so that rates can be computed from any two
    readings."""

    claims: int = 0
    """Times that it asked the queue for segments, also in vain."""
    claim_s: float = 0.0
    """Seconds that this took."""
    busy_s: float = 0.0
    """Seconds in which its engine worked and waited neither for the queue nor for audio."""
    transcribed_samples: int = 0
    """Of segments that it transcribed and handed in, also those that came too late."""


class WorkerSession:
    """One worker process's registration, kept alive by a background thread.

    Args:
        engine: where to register. The session keeps one connection of it for itself.
        role: what the process does: `media`, `gpu`.
        code_version: stored with the row.
        lease_s: seconds without renewal after which claims go back. Renewed every third of it.
        claim_limit_s: longest that one piece of work may run; past it the lease is left to end, so that
            a hung worker's claims go back although its process lives.
    """

    def __init__(
        self, engine: Engine, *, role: str, code_version: str, lease_s: float, claim_limit_s: float
    ) -> None:
        self._engine = engine
        self._role = role
        self._code_version = code_version
        self._lease_s = lease_s
        self._claim_limit_s = claim_limit_s
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._work_started_at: float | None = None
        self._thread: threading.Thread | None = None
        self.pid = os.getpid()
        self.worker_id = 0
        self.counters = WorkCounters()
        """Counted up by the process's work; written to its row with each renewal of the lease."""

    def start(self) -> Self:
        """Register and begin to renew the lease."""
        self._register()
        self._thread = threading.Thread(target=self._renew_forever, name="lease", daemon=True)
        self._thread.start()
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _register(self) -> None:
        connection = self._engine.connect()
        try:
            # row and lock appear together: a sweep never sees the one without the other
            self.worker_id = connection.scalar(
                text(
                    "INSERT INTO workers (role, host, pid, code_version, lease_until) "
                    "VALUES (:role, :host, :pid, :code_version, now() + make_interval(secs => :lease_s)) "
                    "RETURNING id"
                ),
                {
                    "role": self._role,
                    "host": socket.gethostname(),
                    "pid": self.pid,
                    "code_version": self._code_version,
                    "lease_s": self._lease_s,
                },
            )
            connection.execute(
                text("SELECT pg_advisory_lock(:class, :id)"),
                {"class": WORKER_LOCK_CLASS, "id": self.worker_id},
            )
            connection.commit()
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        self._connection = connection
        self.counters = WorkCounters()  # the row is new
        log.info("worker_registered", worker_id=self.worker_id, role=self._role)

    def ensure_alive(self) -> int:
        """This process's worker id, after registering again if the connection was lost (a restarted server).

        Call before every claim. Raises SQLAlchemyError while the database cannot be reached.
        """
        with self._lock:
            if not self._renew():
                self._drop_connection()
                self._register()
            return self.worker_id

    def abandon(self) -> None:
        """Give up this registration: its lock is freed, the next sweep takes its claims back, and the next
        `ensure_alive` registers anew."""
        with self._lock:
            self._drop_connection()

    def begin_work(self) -> None:
        """Note that a piece of work starts now (see `claim_limit_s`)."""
        self._work_started_at = time.monotonic()

    def end_work(self) -> None:
        """Note that it has ended."""
        self._work_started_at = None

    def _renew(self) -> bool:
        """Extend the lease. False when the registration is no longer good."""
        if self._connection is None:
            return False
        try:
            renewed = self._connection.execute(
                text(
                    "UPDATE workers SET lease_until = now() + make_interval(secs => :lease_s), claims = :claims, "
                    "claim_s = :claim_s, busy_s = :busy_s, transcribed_samples = :transcribed_samples "
                    "WHERE id = :id AND stopped_at IS NULL"
                ),
                {"lease_s": self._lease_s, "id": self.worker_id, **asdict(self.counters)},
            )
            self._connection.commit()
        except SQLAlchemyError as error:
            log.warning("lease_not_renewed", worker_id=self.worker_id, error=str(error))
            return False
        return renewed.rowcount == 1

    def _drop_connection(self) -> None:
        if self._connection is not None:
            # invalidate, not close: returned to the pool it would keep the advisory lock
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def _renew_forever(self) -> None:
        while not self._stop.wait(self._lease_s / 3):
            started_at = self._work_started_at
            if started_at is not None and time.monotonic() - started_at > self._claim_limit_s:
                log.error("work_over_limit", worker_id=self.worker_id, limit_s=self._claim_limit_s)
                continue
            with self._lock:
                if not self._renew():
                    self._drop_connection()

    def stop(self) -> None:
        """End the registration. Claims that are still held go back with the next sweep."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        with self._lock:
            if self._connection is not None:
                try:
                    self._connection.execute(
                        text("UPDATE workers SET stopped_at = now() WHERE id = :id"), {"id": self.worker_id}
                    )
                    self._connection.commit()
                except SQLAlchemyError as error:
                    log.warning("worker_stop_not_recorded", worker_id=self.worker_id, error=str(error))
                self._drop_connection()
