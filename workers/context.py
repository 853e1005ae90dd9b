"""What a worker process holds while it lives: settings, connections, its registration, its model.

Made on first use inside the process that uses it, never before a fork: connections and CUDA contexts do not
survive one.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from db.code_version import code_version
from db.connect import make_engine, transaction
from db.liveness import DEAD_WORKERS_SQL, WorkerSession
from db.losses import lose_claims
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
        clear_scratch(settings, engine)
        session = WorkerSession(
            engine,
            role=role,
            code_version=code_version(),
            lease_s=settings.lease_s,
            claim_limit_s=settings.claim_limit_s,
        ).start()
        return cls(role, settings, engine, MediaStore(settings.require_storage_url()), session, os.getpid())

    @property
    def scratch(self) -> Path:
        """Folder for this process's temporary files; swept away after its death."""
        folder = scratch_root(self.settings) / f"{socket.gethostname()}-{self.pid}-{self.session.worker_id}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def work(self) -> Iterator[None]:
        """Around the work on what was claimed. When it breaks off, the claims go back at once, counted as lost:
        this process lives on, and nobody else would take them back."""
        self.session.begin_work()
        try:
            yield
        except BaseException:
            log.exception("work_broke_off", worker_id=self.session.worker_id)
            try:
                with transaction(self.engine) as tx:
                    lose_claims(tx.connection, self.session.worker_id)
            except SQLAlchemyError:
                self.session.abandon()
            raise
        finally:
            self.session.end_work()

    def close(self) -> None:
        """Give back what is still claimed, end the registration, and disconnect."""
        returned = 0
        try:
            with transaction(self.engine) as tx:
                returned = return_claims(tx.connection, self.session.worker_id)
        except SQLAlchemyError as error:
            log.warning("claims_not_returned", worker_id=self.session.worker_id, error=str(error))
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.session.stop()
        self.engine.dispose()
        log.info("worker_closed", worker_id=self.session.worker_id, returned=returned)


def scratch_root(settings: Settings) -> Path:
    """Parent of the workers' scratch folders."""
    return settings.home / "scratch"


def clear_scratch(settings: Settings, engine: Engine) -> None:
    """Remove the scratch folders of this host's dead workers: a worker that is killed cannot clean up.

    Done by each worker that starts and by each sweep, on the host that runs it.
    """
    mine = re.compile(rf"{re.escape(socket.gethostname())}-\d+-(\d+)")
    folders = {
        int(match[1]): folder
        for folder in scratch_root(settings).glob("*")
        if (match := mine.fullmatch(folder.name))
    }
    if not folders:
        return
    with engine.connect() as connection:
        alive = connection.scalars(
            text(f"SELECT id FROM workers WHERE id = ANY(:ids) AND id NOT IN ({DEAD_WORKERS_SQL})"),  # noqa: S608
            {"ids": list(folders)},
        ).all()
    for worker_id in folders.keys() - set(alive):
        shutil.rmtree(folders[worker_id], ignore_errors=True)


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
