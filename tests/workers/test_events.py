"""What Flower and other monitors of Celery see of real workers."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from compose.local.process import Service
from db.settings import Settings
from workers.queue import SPLIT_TASK, make_celery, wake_split


class Monitor:
    """Takes a broker's events in a thread, as Flower does."""

    def __init__(self, app: Celery) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = app
        self._is_open = threading.Event()
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Monitor:
        self._thread.start()
        assert self._is_open.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._receiver.should_stop = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with self._app.connection() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            self._receiver.on_consume_ready = lambda *_, **__: self._is_open.set()
            self._receiver.capture(limit=None, timeout=None, wakeup=False)

    def wait_for(self, kind: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for event in self.events:
                if event["type"] == kind:
                    return event
            time.sleep(0.02)
        raise AssertionError(f"no {kind} among {[event['type'] for event in self.events]}")


def test_a_monitor_sees_what_workers_do(
    start_service: Callable[..., Service], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Monitor(make_celery(settings)) as monitor:
        start_service("media-worker")
        monkeypatch.setattr("workers.queue._sender", lambda: make_celery(settings))
        wake_split()
        received = monitor.wait_for("task-received")
        succeeded = monitor.wait_for("task-succeeded")
    assert received["name"] == SPLIT_TASK
    assert succeeded["uuid"] == received["uuid"]
    assert succeeded["runtime"] >= 0
    assert socket.gethostname() in received["hostname"]
    assert any(event["type"] == "task-started" for event in monitor.events)
