"""The embedded Valkey: a real one, started, killed, recovered."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from compose.local.errors import AlreadyRunningError, StartError
from compose.local.spawn import is_running, wait_until
from compose.local.valkey import EmbeddedValkey


def make(home: Path, *, durable: bool = True) -> EmbeddedValkey:
    return EmbeddedValkey(
        home / "valkey", home / "run" / "valkey", home / "logs" / "valkey.log", durable=durable
    )


@contextmanager
def client(server: EmbeddedValkey) -> Iterator[redis.Redis]:
    connection = redis.Redis.from_url(server.url)
    try:
        yield connection
    finally:
        connection.close()


def test_it_answers_on_a_private_socket_only_and_ends(home: Path) -> None:
    with make(home) as server, client(server) as connection:
        assert server.url == f"unix://{home}/run/valkey/valkey.sock"
        settings = connection.config_get("*")
        assert (settings["port"], settings["maxmemory-policy"], settings["appendonly"]) == (
            "0",
            "noeviction",
            "yes",
        )
        socket_file = home / "run" / "valkey" / "valkey.sock"
        assert socket_file.stat().st_mode & 0o777 == 0o700
        assert socket_file.parent.stat().st_mode & 0o777 == 0o700
        pid = server.pid
        assert pid is not None
    assert not is_running(pid)
    assert not server.is_alive()
    server.stop()


def test_data_survive_kill_9(home: Path) -> None:
    with make(home) as server:
        with client(server) as connection:
            for number in range(500):
                connection.rpush("queue", number)
        url, killed = server.url, server.pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: not server.is_alive(), 5)
        server.start()
        assert server.url == url
        with client(server) as connection:
            assert connection.llen("queue") == 500


def test_without_durability_nothing_reaches_the_disk(home: Path) -> None:
    with make(home, durable=False) as server, client(server) as connection:
        connection.set("key", "value")
    assert not list((home / "valkey").iterdir())


def test_a_second_manager_is_refused(home: Path) -> None:
    with make(home), pytest.raises(AlreadyRunningError, match=rf"valkey.*pid {os.getpid()}\b"):
        make(home).start()


def test_a_long_path_gets_a_short_socket_folder(home: Path) -> None:
    with make(home / ("x" * 60) / ("y" * 60)) as server, client(server) as connection:
        assert connection.ping()
        folder = Path(server.url.removeprefix("unix://")).parent
    assert not folder.exists()


MANAGER = """
import sys, threading
from pathlib import Path
from compose.local.valkey import EmbeddedValkey
home = Path(sys.argv[1])
server = EmbeddedValkey(home / "valkey", home / "run" / "valkey", home / "log").start()
print(server.pid, flush=True)
threading.Event().wait()
"""


def test_a_killed_manager_takes_the_server_along(
    home: Path, run_script: Callable[..., subprocess.Popen[str]]
) -> None:
    manager = run_script(MANAGER, home)
    assert manager.stdout is not None
    pid = int(manager.stdout.readline())
    assert is_running(pid)
    manager.kill()
    manager.wait()
    with make(home) as server, client(server) as connection:  # at once: start waits for the old one to go
        assert not is_running(pid)
        assert connection.ping()


def test_a_broken_append_only_file_is_shown(home: Path) -> None:
    with make(home) as server, client(server) as connection:
        connection.set("key", "value")
    (manifest,) = (home / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")
    with pytest.raises(StartError, match=r"(?s)queue .*ended with code 1 while starting.*\| .*manifest"):
        make(home).start()
