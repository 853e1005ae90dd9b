"""The whole system as it runs in earnest, with several workers of each kind, two beats and short times."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from compose.local.folders import temporary_home
from compose.local.services import API, BEAT, GPU_WORKER, MEDIA_WORKER, QUALITY_WORKER, ServiceSpec
from compose.local.stack import Stack
from compose.local.supervise import Backoff
from db.connect import make_engine
from db.settings import PROJECT_ROOT

DEMO_MODEL = PROJECT_ROOT / "models" / "demo"
LEASE_S = 6.0
POLL_S = 0.1
QUOTA_BYTES = 6_000_000
"""Of each broadcaster's media on their way: a dozen recordings."""
QUICK = {
    "FONOTECA_INCOMING_QUOTA_BYTES": str(QUOTA_BYTES),
    "FONOTECA_LEASE_S": str(LEASE_S),
    "FONOTECA_SWEEP_INTERVAL_S": "1",
    "FONOTECA_RETRY_AFTER_S": "0.5",
    "FONOTECA_GPU_BATCH_SEGMENTS": "3",
    # an object store that is away for as long as a fault lasts is no reason to give a recording up
    "FONOTECA_MAX_ATTEMPTS": "8",
    "OMP_NUM_THREADS": "1",
}
"""Times of a day in seconds. What they measure is not changed by them."""

RESTARTS = Backoff(first_s=0.2, longest_s=0.5, stable_s=5)


def numbered(spec: ServiceSpec, number: int) -> ServiceSpec:
    """One more of a kind of service, with a name of its own."""
    if spec is BEAT:
        arguments = tuple(part.replace("beat-schedule", f"beat-schedule-{number}") for part in spec.arguments)
        return replace(spec, name=f"{spec.name}-{number}", arguments=arguments)
    node = re.compile(r"^(\w+)@%h$")
    arguments = tuple(node.sub(rf"\g<1>{number}@%h", part) for part in spec.arguments)
    ready_line = spec.ready_line and spec.ready_line.replace("@", f"{number}@", 1)
    return replace(spec, name=f"{spec.name}-{number}", arguments=arguments, ready_line=ready_line)


@dataclass
class System:
    """A running stack, and what a fault or a check needs of it."""

    stack: Stack
    engine: Engine
    n_restarts: int = 0
    thaws: list[Callable[[], bool]] = field(default_factory=list)
    """What is to be looked after meanwhile; each returns whether it is over."""

    @property
    def home(self) -> Path:
        """Folder of everything that it keeps."""
        return self.stack.home

    def pid(self, name: str) -> int | None:
        """Pid of a part; None while it does not run."""
        return self.stack.pids.get(name)

    def names(self, prefix: str) -> list[str]:
        """Names of the parts of a kind that run."""
        return [name for name in self.stack.pids if name.startswith(prefix)]

    def query(self, statement: str, **values: Any) -> list[Any]:
        """Rows; none while the database is away."""
        try:
            with self.engine.connect() as connection:
                return list(connection.execute(text(statement), values).all())
        except SQLAlchemyError:
            return []

    def look_after(self) -> None:
        """Restart what died, and go on with what was begun."""
        self.stack.supervise()
        self.thaws = [thaw for thaw in self.thaws if not thaw()]

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Look after everything until `condition` holds; False when it did not in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self.look_after()
            time.sleep(POLL_S)
        return True


@contextmanager
def running_system(
    n_media: int, n_gpu: int, *, model: Path = DEMO_MODEL, logs_to: Path | None = None
) -> Iterator[System]:
    """A system with an empty home of its own; ended and removed afterwards."""
    services: Sequence[ServiceSpec] = (
        API,
        *(numbered(MEDIA_WORKER, number) for number in range(1, n_media + 1)),
        *(numbered(GPU_WORKER, number) for number in range(1, n_gpu + 1)),
        QUALITY_WORKER,
        numbered(BEAT, 1),
        numbered(BEAT, 2),  # there should be one; two must do no harm
    )
    with temporary_home("fonoteca-chaos-") as home:
        values = QUICK | {"FONOTECA_HOME": str(home), "FONOTECA_MODEL": str(model)}
        # clients told to come back in half a minute come back in half a second
        with mock.patch.dict(os.environ, values), mock.patch("cli.upload.LONGEST_ROOM_WAIT_S", 0.5):
            stack = Stack(home, services=services, backoff=RESTARTS)
            try:
                with stack:
                    engine = make_engine(stack.database_url, application_name="chaos")
                    try:
                        yield System(stack, engine)
                    finally:
                        engine.dispose()
            finally:
                if logs_to is not None:
                    _keep_logs(home / "logs", logs_to)


def _keep_logs(logs: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for log in logs.glob("*"):
        (to / log.name).write_bytes(log.read_bytes())
