"""Fixtures of tests of the database alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from db.liveness import WorkerSession
from tests.db.queue_work import NewWorker


@pytest.fixture
def new_worker(engine: Engine) -> Iterator[NewWorker]:
    """Registers live workers; ends those that are still there."""
    workers = []

    def make(lease_s: float = 60) -> WorkerSession:
        worker = WorkerSession(engine, role="gpu", code_version="test", lease_s=lease_s, claim_limit_s=60)
        workers.append(worker.start())
        return worker

    yield make
    for worker in workers:
        worker.stop()
