"""The whole system on one machine: servers and services as child processes of one manager."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from compose.local.errors import FolderError, StartError, StartInterruptedError, StopError
from compose.local.folders import FolderLock, make_passage, make_private_folder
from compose.local.postgres import EmbeddedPostgres
from compose.local.process import Service
from compose.local.services import MIGRATE, SERVICES, ServiceSpec
from compose.local.spawn import end_leftover
from compose.local.supervise import Backoff, Watched
from compose.local.valkey import EmbeddedValkey
from db.settings import STACK_FILE_NAME, Settings

logger = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.1
SUPERVISE_INTERVAL_S = 0.5
FAILED_START_DRAIN_S = 5.0
LEFTOVER_PATIENCE_S = 10.0
"""How long services of a killed manager may take to end before a new stack ends them: they hold the port and
the GPU's memory."""

Progress = Callable[[str, str], None]
"""Called with a part's name and its state: starting, ready, restarted, stopping or stopped."""


def _silent(name: str, state: str) -> None:
    """The default progress: none."""


def stack_lock(home: Path) -> FolderLock:
    """The lock that the stack of `home` holds while it runs; its holder is the process to signal."""
    return FolderLock(home / "stack.lock", f"home {home}")


class Stack:
    """PostgreSQL, Valkey, the schema, the API, the workers and beat, on the folder `home`.

    Servers given by FONOTECA_DATABASE_URL, FONOTECA_REDIS_URL or FONOTECA_STORAGE_URL are used as they are,
    and not embedded. Signals are the caller's: turn them into a `threading.Event` for `start` and `run_until`.
    """

    def __init__(
        self,
        home: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        durable: bool = True,
        services: Sequence[ServiceSpec] = SERVICES,
        migrate: ServiceSpec | None = MIGRATE,
        drain_limit_s: float = 30.0,
        backoff: Backoff | None = None,
        on_progress: Progress = _silent,
    ) -> None:
        """Nothing happens until `start`.

        Args:
            home: folder of everything the stack keeps. None: FONOTECA_HOME, or its default.
            host: address that the API listens on.
            port: port of the API; 0 takes a free one.
            durable: False lets the embedded servers skip the disk, for tests.
            services: what to run, in the order of starting.
            migrate: job that brings the schema up to date before any service starts; None skips it.
            drain_limit_s: most seconds that a service may take to finish its work at `stop`.
            backoff: waiting times between restarts of a part that dies.
            on_progress: told of each part's state.
        """
        settings = Settings() if home is None else Settings(home=home)
        self.home = settings.home.absolute()
        self.host = host
        self.port = port
        self.drain_limit_s = drain_limit_s
        self._specs = tuple(services)
        self._migrate = migrate
        self._backoff = backoff or Backoff()
        self._progress = on_progress
        self._settings = settings
        self._lock = stack_lock(self.home)
        self._stop_event = threading.Event()
        self._postgres: EmbeddedPostgres | None = None
        self._valkey: EmbeddedValkey | None = None
        if settings.database_url is None:
            self._postgres = EmbeddedPostgres(
                self.home / "postgres",
                self.home / "run" / "postgres",
                self.log_file("postgres"),
                durable=durable,
            )
        if settings.redis_url is None:
            self._valkey = EmbeddedValkey(
                self.home / "valkey", self.home / "run" / "valkey", self.log_file("valkey"), durable=durable
            )
        self._services: dict[str, Service] = {}
        self._watched: list[Watched] = []
        self._published: dict[str, str] = {}

    def log_file(self, name: str) -> Path:
        """Where the output of a part goes."""
        return self.home / "logs" / f"{name}.log"

    @property
    def database_url(self) -> str:
        """Address of PostgreSQL; of an embedded one only while it runs."""
        return self._postgres.url if self._postgres else str(self._settings.database_url)

    @property
    def redis_url(self) -> str:
        """Address of Valkey or Redis; of an embedded one only while it runs."""
        return self._valkey.url if self._valkey else str(self._settings.redis_url)

    @property
    def storage_url(self) -> str:
        """Address of the object store."""
        return self._settings.storage_url or (self.home / "media").as_uri()

    @property
    def upload_dir(self) -> Path:
        """Folder of unfinished uploads."""
        return (self._settings.upload_dir or self.home / "uploads").absolute()

    @property
    def api_url(self) -> str:
        """Address of the API as this machine reaches it. Its port is known once the stack is started."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def pids(self) -> dict[str, int]:
        """Pid of each part that runs."""
        found = {
            "postgres": self._postgres and self._postgres.pid,
            "valkey": self._valkey and self._valkey.pid,
        }
        found |= {name: service.pid for name, service in self._services.items()}
        return {name: pid for name, pid in found.items() if pid}

    def environment(self) -> dict[str, str]:
        """Environment of every service: ours, and where everything is."""
        environment = dict(os.environ)
        for name in ("FONOTECA_MODEL", "FONOTECA_FALLBACK_MODEL", "FONOTECA_MODEL_BASE", "FONOTECA_DATASETS"):
            folder = environment.get(name)
            # services run in `home`, where a relative path means another place
            if folder and Path(folder).exists():
                environment[name] = str(Path(folder).absolute())
        return environment | {
            "FONOTECA_HOME": str(self.home),
            "FONOTECA_DATABASE_URL": self.database_url,
            "FONOTECA_REDIS_URL": self.redis_url,
            "FONOTECA_STORAGE_URL": self.storage_url,
            "FONOTECA_UPLOAD_DIR": str(self.upload_dir),
            "FONOTECA_API_HOST": self.host,
            "FONOTECA_API_PORT": str(self.port),
            "FONOTECA_STACK_PID": str(os.getpid()),  # see _end_leftovers
            "PYTHONUNBUFFERED": "1",
        }

    def start(self, stop_event: threading.Event | None = None) -> Self:
        """Start everything and return when all of it is ready; on any error everything is ended again.

        Does nothing when this object's stack is started already.

        Args:
            stop_event: set it from a signal handler to give up waiting.

        Raises:
            AlreadyRunningError: another stack runs on this home.
            FolderError: the home cannot be used.
            StartError: a part did not come up; the message holds its log's tail.
            StartInterruptedError: `stop_event` was set.
        """
        if self._lock.held:
            return self
        self._stop_event = stop_event or threading.Event()
        try:
            self._lock.acquire()
        except OSError as error:
            raise FolderError(
                f"home {self.home} cannot be used: {error.strerror} ({error.filename}). "
                f"Choose another with FONOTECA_HOME"
            ) from error
        try:
            self._start()
        except BaseException as error:
            try:
                self.stop(FAILED_START_DRAIN_S)
            except StopError as stop_error:
                error.add_note(str(stop_error))
            raise
        return self

    def stop(self, drain_limit_s: float | None = None) -> None:
        """End everything: services first, all at once, then the servers they use. Does nothing when not started.

        Args:
            drain_limit_s: most seconds that a service may take to finish its work; None: as constructed.

        Raises:
            StopError: lists what could not be ended; everything else was ended all the same.
        """
        if not self._lock.held:
            return
        limit_s = self.drain_limit_s if drain_limit_s is None else drain_limit_s
        problems: list[str] = []

        def attempt(name: str, action: Callable[[], object]) -> None:
            try:
                action()
            except Exception as error:  # one part's trouble must not keep the others running
                problems.append(f"{name}: {error}")

        self._watched.clear()
        attempt(STACK_FILE_NAME, lambda: (self.home / STACK_FILE_NAME).unlink(missing_ok=True))
        started = [
            (spec, self._services[spec.name]) for spec in self._all_specs() if spec.name in self._services
        ]
        for spec, service in reversed(started):
            self._progress(spec.name, "stopping")
            attempt(spec.name, service.request_stop)
        begun = time.monotonic()
        for spec, service in reversed(started):
            left_s = max(0.0, min(spec.drain_s, limit_s) - (time.monotonic() - begun))
            attempt(spec.name, lambda service=service, left_s=left_s: service.stop(left_s))  # type: ignore[misc]
            self._progress(spec.name, "stopped")
        self._services.clear()
        for name, server in (("valkey", self._valkey), ("postgres", self._postgres)):
            if server is not None:
                attempt(name, server.stop)
                self._progress(name, "stopped")
        attempt("lock", self._lock.release)
        if problems:
            raise StopError("the stack stopped, but not cleanly:\n" + "\n".join(problems))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def publish(self, **entries: str) -> None:
        """Add entries to the stack file, where commands with the same home read them (the CLI: `api_key`)."""
        self._published |= entries
        self._write_stack_file()

    def supervise(self) -> None:
        """Look at every part once and restart those that died and are due."""
        for part in list(self._watched):
            if part.check():
                self._write_stack_file()
                self._progress(part.name, "restarted")

    def run_until(self, stop_event: threading.Event) -> None:
        """Supervise until `stop_event` is set. Does not stop the stack."""
        while not stop_event.wait(SUPERVISE_INTERVAL_S):
            self.supervise()

    def _all_specs(self) -> tuple[ServiceSpec, ...]:
        return ((self._migrate,) if self._migrate else ()) + self._specs

    def _start(self) -> None:
        self._end_leftovers()
        self.port = self._choose_port()
        make_passage(self.upload_dir)
        if self._settings.storage_url is None:
            make_private_folder(self.home / "media", None)
        for name, server in (("postgres", self._postgres), ("valkey", self._valkey)):
            if server is not None:
                self._check_interrupted()
                self._progress(name, "starting")
                server.start()
                self._watch(name, server.is_alive, server.start, lambda: "see its log", self.log_file(name))
                self._progress(name, "ready")
        if self._migrate is not None:
            self._run_job(self._migrate)
        for spec in self._specs:
            self._check_interrupted()
            self._progress(spec.name, "starting")
            self._make_service(spec).start()
        self._wait_ready()
        for spec in self._specs:
            service = self._services[spec.name]
            self._watch(
                spec.name,
                lambda service=service: service.alive,  # type: ignore[misc]
                service.start,
                lambda service=service: f"code {service.exit_code}\n{service.log_tail()}",  # type: ignore[misc]
                service.log_file,
            )
        self._write_stack_file()

    def _end_leftovers(self) -> None:
        """End what a killed manager of this home left. The servers see to their own in their `start`."""
        file = self.home / STACK_FILE_NAME
        try:
            stale = json.loads(file.read_text())
            marks = {"FONOTECA_HOME": str(self.home), "FONOTECA_STACK_PID": str(stale["pid"])}
            pids = [int(pid) for name, pid in stale["services"].items() if name not in ("postgres", "valkey")]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("%s is damaged and says nothing of an earlier stack: ignored", file)
        else:
            for pid in pids:
                if end_leftover(pid, marks, patience_s=LEFTOVER_PATIENCE_S):
                    logger.warning("killed process %d, which an earlier stack on %s left", pid, self.home)
        file.unlink()

    def _choose_port(self) -> int:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise StartError(
                    f"the API cannot listen on {self.host}:{self.port}: {error.strerror}. "
                    f"Choose another port, or 0 for any free one"
                ) from error
            return int(probe.getsockname()[1])

    def _make_service(self, spec: ServiceSpec) -> Service:
        command = spec.command(sys.executable, self.home)
        service = Service(spec.name, command, self.environment(), self.log_file(spec.name), folder=self.home)
        self._services[spec.name] = service
        return service

    def _run_job(self, spec: ServiceSpec) -> None:
        self._progress(spec.name, "starting")
        job = self._make_service(spec).start()
        deadline = time.monotonic() + spec.ready_timeout_s
        while job.alive:
            self._check_interrupted(CHECK_INTERVAL_S)
            if time.monotonic() >= deadline:
                raise StartError(f"{spec.name} took over {spec.ready_timeout_s:.0f} s\n{job.log_tail()}")
        if job.exit_code != 0:
            raise StartError(f"{spec.name} ended with code {job.exit_code}\n{job.log_tail()}")
        job.stop(0)
        del self._services[spec.name]
        self._progress(spec.name, "ready")

    def _wait_ready(self) -> None:
        begun = time.monotonic()
        pending = list(self._specs)
        while True:
            for spec in self._specs:
                service = self._services[spec.name]
                if not service.alive:
                    raise StartError(
                        f"service {spec.name} ended with code {service.exit_code} while the stack started\n"
                        f"{service.log_tail()}"
                    )
                if spec in pending and self._is_ready(spec, service):
                    pending.remove(spec)
                    self._progress(spec.name, "ready")
                elif spec in pending and time.monotonic() - begun >= spec.ready_timeout_s:
                    raise StartError(
                        f"service {spec.name} is not ready after {spec.ready_timeout_s:.0f} s "
                        f"(waited for {spec.ready_path or spec.ready_line})\n{service.log_tail()}"
                    )
            if not pending:
                return
            self._check_interrupted(CHECK_INTERVAL_S)

    def _is_ready(self, spec: ServiceSpec, service: Service) -> bool:
        if spec.ready_path is not None:
            try:
                # Not through a proxy that the environment may name.
                answer = httpx.get(self.api_url + spec.ready_path, timeout=2, trust_env=False)
            except httpx.HTTPError:
                return False
            return answer.status_code == 200
        if spec.ready_line is not None:
            return re.search(spec.ready_line, service.log_since_start()) is not None
        return True

    def _check_interrupted(self, wait_s: float = 0.0) -> None:
        """Wait up to `wait_s` seconds; raise StartInterruptedError as soon as the caller asks for a stop."""
        if self._stop_event.wait(wait_s):
            raise StartInterruptedError("stopped while starting")

    def _watch(
        self,
        name: str,
        is_alive: Callable[[], bool],
        start: Callable[[], object],
        last_words: Callable[[], str],
        log_file: Path,
    ) -> None:
        self._watched.append(
            Watched(name, is_alive, start, lambda: f"{last_words()} (log {log_file})", self._backoff)
        )

    def _write_stack_file(self) -> None:
        """Tell commands with the same home where everything is. Mode 0600: a given address may hold a password."""
        content = {
            "pid": os.getpid(),
            "api_url": self.api_url,
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "storage_url": self.storage_url,
            "upload_dir": str(self.upload_dir),
            "services": self.pids,
            **self._published,
        }
        path = self.home / STACK_FILE_NAME
        partial = path.with_name(path.name + ".partial")
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
        partial.replace(path)
