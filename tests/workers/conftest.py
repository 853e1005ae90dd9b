"""Workers as functions in this process, and as the real Celery processes that services start."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from compose.local.process import Service
from compose.local.services import BEAT, GPU_WORKER, MEDIA_WORKER, QUALITY_WORKER, ServiceSpec
from compose.local.spawn import wait_until
from db.settings import Settings
from workers.context import WorkerContext
from workers.transcribe import Transcriber

SPECS = {spec.name: spec for spec in (BEAT, GPU_WORKER, MEDIA_WORKER, QUALITY_WORKER)}


@pytest.fixture
def context(settings: Settings) -> Iterator[WorkerContext]:
    """A registered worker in this process."""
    context = WorkerContext.open("gpu", settings)
    yield context
    context.close()


@pytest.fixture
def transcriber(context: WorkerContext) -> Transcriber:
    """The demo model, opened and registered."""
    return Transcriber.open(context)


@pytest.fixture
def start_service(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """`start_service("gpu-worker", FONOTECA_LEASE_S="5")`: the real process, ready. All are ended afterwards."""
    started: list[Service] = []

    def start(name: str, **environment: str) -> Service:
        spec: ServiceSpec = SPECS[name]
        home = settings.home
        home.mkdir(exist_ok=True)
        command = spec.command(os.sys.executable, home)
        # several of a kind on one host need names of their own
        command = [
            re.sub(r"^(media|gpu|quality)@", rf"\g<1>{len(started)}@", argument) for argument in command
        ]
        service = Service(
            f"{name}-{len(started)}",
            command,
            {**os.environ, "OMP_NUM_THREADS": "1", **environment},
            tmp_path / f"{name}-{len(started)}.log",
        )
        started.append(service)
        service.start()

        def is_ready() -> bool:
            assert service.alive, service.log_tail()
            line = spec.ready_line or ""
            return re.search(line.replace("@", r"\d*@"), service.log_since_start()) is not None

        assert wait_until(is_ready, 120), f"{name} is not ready:\n{service.log_tail()}"
        return service

    yield start
    for service in reversed(started):
        service.stop(5)


@pytest.fixture
def query(engine: Engine) -> Callable[..., list[Any]]:
    """`query("SELECT ...")`: its rows."""

    def run(statement: str, **values: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(text(statement), values).all())

    return run
