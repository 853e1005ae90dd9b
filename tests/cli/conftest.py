"""The command line, run in the test's own process or in a new one, and a network that can be cut."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import structlog

from cli.main import main

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def fonoteca(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`fonoteca(*arguments)`: run the command in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, captured.out, captured.err)

    return run


def start_fonoteca(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command in a new process."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        cwd=REPOSITORY,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@pytest.fixture
def no_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which neither a server nor a database is known."""
    for name in ("SERVER", "API_KEY", "DATABASE_URL", "DEBUG"):
        monkeypatch.delenv(f"FONOTECA_{name}", raising=False)
    monkeypatch.setenv("FONOTECA_HOME", str(tmp_path / "no-stack"))


@pytest.fixture
def api(server_url: str, owner: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the real API; the environment holds it and the key of `owner`."""
    monkeypatch.setenv("FONOTECA_SERVER", server_url)
    monkeypatch.setenv("FONOTECA_API_KEY", owner.key)
    before = structlog.get_config()
    # the API runs in this process: its log must not pass for the command's output
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield server_url
    structlog.configure(**before)


@dataclass
class Wire:
    """A TCP connection to the API that breaks or stalls after a number of bytes towards it."""

    api_url: str
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next connections are cut, one entry each."""
    stall_after: int | None = None
    """Bytes after which a connection neither moves nor ends."""
    n_cut: int = 0
    n_sent: int = 0
    stalled: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        parts = urlsplit(self.api_url)
        self._target = (parts.hostname or "", parts.port or 0)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._start(self._accept)

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._sockets += [near, far]
            self._start(self._to_api, near, far)
            self._start(self._from_api, far, near)

    def _to_api(self, near: socket.socket, far: socket.socket) -> None:
        n_bytes = 0
        try:
            while piece := near.recv(2**16):
                n_bytes += len(piece)
                self.n_sent += len(piece)
                if self.cut_after and n_bytes > self.cut_after[0]:
                    self.cut_after.pop(0)
                    self.n_cut += 1
                    # a reset, as from a router that forgot the connection
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    near.close()
                    break
                if self.stall_after is not None and n_bytes > self.stall_after:
                    self.stalled.set()
                    self.closing.wait()
                    break
                far.sendall(piece)
        except OSError:
            pass
        _end(near, far)

    def _from_api(self, far: socket.socket, near: socket.socket) -> None:
        try:
            while piece := far.recv(2**16):
                near.sendall(piece)
        except OSError:
            pass
        _end(near, far)

    def close(self) -> None:
        self.closing.set()
        _end(self._listener)
        self._listener.close()
        _end(*self._sockets)
        for thread in self._threads:
            thread.join(timeout=10)
        for end in self._sockets:
            end.close()


def _end(*sockets: socket.socket) -> None:
    for end in sockets:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(api: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """The API behind a connection that the test can break; FONOTECA_SERVER is its near end."""
    wire = Wire(api)
    monkeypatch.setenv("FONOTECA_SERVER", wire.url)
    yield wire
    wire.close()
