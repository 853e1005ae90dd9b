"""The whole stack, with stand-ins for the services (their code is tested elsewhere); all processes are real."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from compose.local.errors import (
    AlreadyRunningError,
    FolderError,
    StartError,
    StartInterruptedError,
    StopError,
)
from compose.local.services import ServiceSpec
from compose.local.spawn import is_running, wait_until
from compose.local.stack import Stack
from compose.local.supervise import Backoff
from db.settings import Settings

API_CODE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
address = (os.environ["FONOTECA_API_HOST"], int(os.environ["FONOTECA_API_PORT"]))
http.server.HTTPServer(address, Handler).serve_forever()
"""
WORKER_CODE = """
import os, threading
assert all(os.environ["FONOTECA_" + name] for name in ("HOME", "DATABASE_URL", "REDIS_URL", "STORAGE_URL"))
print("work@here ready.", flush=True)
threading.Event().wait()
"""
MIGRATE_CODE = """
import os, psycopg
with psycopg.connect(os.environ["FONOTECA_DATABASE_URL"]) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS migrated (n int)")
    connection.execute("INSERT INTO migrated VALUES (1)")
"""
API = ServiceSpec("api", ("-c", API_CODE), drain_s=5, ready_path="/readyz", ready_timeout_s=20)
WORKER = ServiceSpec(
    "worker", ("-c", WORKER_CODE), drain_s=5, ready_line=r"work@\S+ ready", ready_timeout_s=20
)
MIGRATE = ServiceSpec("migrate", ("-c", MIGRATE_CODE), drain_s=5, ready_timeout_s=20)


def job(code: str, name: str = "probe") -> ServiceSpec:
    return ServiceSpec(name, ("-c", code), drain_s=5, ready_line="never printed", ready_timeout_s=20)


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses given from outside, so that the stack embeds no server. Nothing connects to them."""
    monkeypatch.setenv("FONOTECA_DATABASE_URL", "postgresql://elsewhere/fonoteca")
    monkeypatch.setenv("FONOTECA_REDIS_URL", "redis://elsewhere")


@pytest.fixture
def free_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_it_starts_heals_and_stops_as_a_whole(home_with_cluster: Path) -> None:
    home = home_with_cluster
    seen: list[tuple[str, str]] = []
    stack = Stack(
        home,
        durable=True,  # the server is killed within a second of the migration, which must be found again
        services=(API, WORKER),
        migrate=MIGRATE,
        on_progress=lambda name, state: seen.append((name, state)),
    )
    with stack.start():
        ready = [name for name, state in seen if state == "ready"]
        assert ready[:3] == ["postgres", "valkey", "migrate"]
        assert set(ready[3:]) == {"api", "worker"}
        assert httpx.get(f"{stack.api_url}/readyz", trust_env=False).status_code == 200

        file = home / "stack.json"
        content = json.loads(file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
        assert content["pid"] == os.getpid()
        assert content["api_url"] == stack.api_url
        pids = content["services"]
        assert set(pids) == {"postgres", "valkey", "api", "worker"}
        assert all(is_running(pid) for pid in pids.values())
        # Commands with the same home find the servers.
        settings = Settings(home=home)
        assert settings.require_redis_url() == stack.redis_url
        assert settings.require_storage_url() == f"file://{home}/media"
        assert settings.require_upload_dir() == home / "uploads"
        with psycopg.connect(stack.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM migrated").fetchone() == (1,)

        with pytest.raises(AlreadyRunningError, match=rf"home {home} is in use by .* pid {os.getpid()}\b"):
            Stack(home, services=(), migrate=None).start()

        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: not any(is_running(pid) for pid in pids.values()), 5)

        def healed() -> bool:
            stack.supervise()
            return set(stack.pids) == set(pids)

        assert wait_until(healed, 20)
        again = json.loads(file.read_text())["services"]
        assert not set(again.values()) & set(pids.values())
        assert {name for name, state in seen if state == "restarted"} == set(pids)
        with psycopg.connect(stack.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM migrated").fetchone() == (1,)
    assert not any(is_running(pid) for pid in again.values())
    assert not file.exists()
    assert [name for name, state in seen if state == "stopped"] == ["worker", "api", "valkey", "postgres"]


@pytest.mark.usefixtures("no_servers")
def test_given_servers_are_used_as_they_are(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_STORAGE_URL", "s3://bucket/prefix")
    monkeypatch.chdir(home)
    (home / "checkpoint").mkdir()
    monkeypatch.setenv("FONOTECA_MODEL", "checkpoint")
    monkeypatch.setenv("FONOTECA_FALLBACK_MODEL", "checkpoint")
    with Stack(home, services=(WORKER,), migrate=None) as stack:
        assert set(stack.pids) == {"worker"}
        environment = stack.environment()
    assert environment["FONOTECA_DATABASE_URL"] == "postgresql://elsewhere/fonoteca"
    assert environment["FONOTECA_REDIS_URL"] == "redis://elsewhere"
    assert environment["FONOTECA_STORAGE_URL"] == "s3://bucket/prefix"
    assert environment["FONOTECA_MODEL"] == str(home / "checkpoint")
    assert environment["FONOTECA_FALLBACK_MODEL"] == str(home / "checkpoint")
    assert not (home / "postgres").exists()
    assert not (home / "valkey").exists()


@pytest.mark.usefixtures("no_servers")
def test_a_service_that_dies_at_start_is_quoted_and_the_others_end(home: Path) -> None:
    dying = job("import sys; print('no model in /nowhere'); sys.exit(2)", "gpu-worker")
    stack = Stack(home, services=(WORKER, dying), migrate=None)
    pids: list[int] = []
    stack._progress = lambda name, state: pids.extend(stack.pids.values())
    with pytest.raises(
        StartError, match=r"(?s)service gpu-worker ended with code 2.*\| no model in /nowhere"
    ):
        stack.start()
    assert pids
    assert not any(is_running(pid) for pid in pids)
    assert not (home / "stack.json").exists()
    stack._specs = (WORKER,)  # and the home is free again
    stack.start().stop()


@pytest.mark.usefixtures("no_servers")
def test_a_failing_migration_stops_the_start(home: Path) -> None:
    with pytest.raises(StartError, match=r"(?s)migrate ended with code 1.*\| .*no such table"):
        Stack(home, services=(WORKER,), migrate=job("raise SystemExit('no such table')", "migrate")).start()
    assert not (home / "logs" / "worker.log").exists()


@pytest.mark.usefixtures("no_servers")
def test_a_service_that_is_never_ready_is_named(home: Path) -> None:
    slow = ServiceSpec("slow", WORKER.arguments, drain_s=5, ready_line="never printed", ready_timeout_s=0.5)
    with pytest.raises(StartError, match=r"service slow is not ready after 0 s \(waited for never printed\)"):
        Stack(home, services=(slow,), migrate=None).start()


@pytest.mark.usefixtures("no_servers")
def test_a_start_can_be_interrupted(home: Path) -> None:
    stop = threading.Event()
    stack = Stack(home, services=(job(WORKER_CODE),), migrate=None)
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(StartInterruptedError):
        stack.start(stop)
    timer.join()
    assert stack.pids == {}


@pytest.mark.usefixtures("no_servers")
def test_a_taken_port_is_named(home: Path, free_port: int) -> None:
    with pytest.raises(StartError, match=rf"cannot listen on 127.0.0.1:{free_port}: .*in use"):
        Stack(home, port=free_port, services=(API,), migrate=None).start()


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=rf"home {tmp_path}/file/home cannot be used: .*FONOTECA_HOME"):
        Stack(tmp_path / "file" / "home").start()


def test_one_failing_stop_does_not_keep_the_rest_running(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", "postgresql://elsewhere/fonoteca")
    stack = Stack(home, services=(WORKER, API), migrate=None).start()
    pids = stack.pids
    worker = stack._services["worker"]
    stop, asked = worker.stop, []

    def failing_stop(timeout_s: float) -> None:
        asked.append(timeout_s)
        raise StopError("it would not")

    monkeypatch.setattr(worker, "stop", failing_stop)
    with pytest.raises(StopError, match="worker: it would not"):
        stack.stop()
    assert asked
    assert wait_until(lambda: not any(is_running(pid) for pid in pids.values()), 5)
    stop(0)


@pytest.mark.usefixtures("no_servers")
def test_a_part_that_keeps_dying_is_restarted_at_a_growing_distance(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = "import os, sys\nif os.path.exists('mark'): print('broken', flush=True); sys.exit(7)\nopen('mark', 'w')\n"
    flaky = ServiceSpec(
        "flaky", ("-c", once + WORKER_CODE), drain_s=5, ready_line="ready", ready_timeout_s=20
    )
    backoff = Backoff(first_s=0.05, longest_s=0.1, stable_s=60)
    stop = threading.Event()
    with (
        caplog.at_level(logging.WARNING),
        Stack(home, services=(flaky,), migrate=None, backoff=backoff) as stack,
    ):
        os.kill(stack.pids["flaky"], signal.SIGKILL)
        runner = threading.Thread(target=stack.run_until, args=(stop,))
        runner.start()
        died = "flaky died: code 7"
        assert wait_until(lambda: sum(died in record.getMessage() for record in caplog.records) >= 2, 20)
        stop.set()
        runner.join()
    assert "flaky died: code -9" in caplog.text
    assert "| broken" in caplog.text
    assert [Backoff().delay_s(restarts) for restarts in (0, 1, 2, 3, 20)] == [0, 1, 2, 4, 60]


@pytest.mark.usefixtures("no_servers")
def test_an_old_stack_file_never_ends_a_stranger(
    home: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    stranger = run_script("import threading; print('up', flush=True); threading.Event().wait()")
    assert stranger.stdout is not None
    stranger.stdout.readline()
    (home / "stack.json").write_text(json.dumps({"pid": 1, "services": {"api": stranger.pid}}))
    Stack(home, services=(), migrate=None).start().stop()
    (home / "stack.json").write_text("{")
    Stack(home, services=(), migrate=None).start().stop()
    assert stranger.poll() is None


MANAGER = """
import sys, threading
from pathlib import Path
from compose.local.services import ServiceSpec
from compose.local.stack import Stack
worker = ServiceSpec("worker", ("-c", sys.argv[2]), drain_s=5, ready_line="ready")
stack = Stack(Path(sys.argv[1]), durable=False, services=(worker,), migrate=None).start()
print("up", flush=True)
threading.Event().wait()
"""


def test_a_killed_stack_leaves_nothing_and_starts_again(
    home_with_cluster: Path, run_script: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compose.local.stack.LEFTOVER_PATIENCE_S", 0.2)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"  # e.g. busy on the GPU
    manager = run_script(MANAGER, home_with_cluster, deaf + WORKER_CODE)
    assert manager.stdout is not None
    assert manager.stdout.readline() == "up\n"
    pids = json.loads((home_with_cluster / "stack.json").read_text())["services"]
    assert set(pids) == {"postgres", "valkey", "worker"}
    manager.kill()
    manager.wait()
    assert is_running(pids["worker"])
    with Stack(home_with_cluster, durable=False, services=(), migrate=None) as stack:
        assert not any(is_running(pid) for pid in pids.values())
        assert set(stack.pids) == {"postgres", "valkey"}
