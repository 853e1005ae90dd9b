"""What a worker process holds while it lives: settings, connections, its registration, its model.

Made on first use inside the process that uses it, never before a fork: connections and CUDA contexts do not
survive one.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import structlog
from sqlalchemy import Engine

from db.code_version import code_version
from db.connect import make_engine, transaction
from db.liveness import WorkerSession
from db.media_store import MediaStore
from db.queue import return_claims
from db.settings import Settings

log = structlog.get_logger(__name__)


@dataclass
class WorkerContext:
    """Resources of one worker process.

    Attributes:
        role: `media` or `gpu`; shown in the `workers` table.
    """

    role: str
    settings: Settings
    engine: Engine
    store: MediaStore
    session: WorkerSession
    pid: int

    @classmethod
    def open(cls, role: str, settings: Settings | None = None) -> WorkerContext:
        """Connect, and register this process as a worker."""
        settings = settings or Settings()
        engine = make_engine(settings.require_database_url(), application_name=f"fonoteca-{role}")
        session = WorkerSession(
            engine,
            role=role,
            code_version=code_version(),
            lease_s=settings.lease_s,
            claim_limit_s=settings.claim_limit_s,
        ).start()
        return cls(role, settings, engine, MediaStore(settings.require_storage_url()), session, os.getpid())

    def close(self) -> None:
        """Give back what is still claimed, end the registration, and disconnect."""
        with transaction(self.engine) as tx:
            returned = return_claims(tx.connection, self.session.worker_id)
        self.session.stop()
        self.engine.dispose()
        log.info("worker_closed", worker_id=self.session.worker_id, returned=returned)


_lock = threading.Lock()
_current: WorkerContext | None = None


def current(role: str) -> WorkerContext:
    """This process's context, opened on first use."""
    global _current
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = WorkerContext.open(role)
        return _current


def close_current() -> None:
    """Close this process's context, if it has one. Safe to call twice."""
    global _current
    with _lock:
        if _current is not None and _current.pid == os.getpid():
            context, _current = _current, None
            context.close()
