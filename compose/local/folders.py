"""Folders of the embedded stack: who owns them, who reaches them, who manages them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compose.local.errors import AlreadyRunningError, FolderError

SOCKET_PATH_LIMIT_BYTES = 107
"""sun_path of unix(7) holds 108 bytes, the last of them NUL."""
SHORT_FOLDER_PREFIX = "fonoteca-run-"


@dataclass(frozen=True)
class Account:
    """A system user that a server runs as."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """`nobody` when this process is root (PostgreSQL refuses root), None when it is not: run as oneself.

    Raises:
        FolderError: root on a system that has no user `nobody`.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise FolderError(
            "PostgreSQL refuses to run as root and this system has no user `nobody`: "
            "start Fonoteca as an ordinary user, or set FONOTECA_DATABASE_URL to a server that runs"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def out_of_reach(path: Path, account: Account) -> Path | None:
    """The first folder on the way to `path` (the last one included) that `account` may not enter, or None.

    Looks at owner, group and mode; access lists are not read. Folders that do not exist yet are skipped: they
    will be made with a mode of our choice.
    """
    resolved = path.resolve()
    for folder in [*reversed(resolved.parents), resolved]:
        try:
            status = folder.stat()
        except FileNotFoundError:
            return None
        if status.st_uid == account.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == account.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            return folder
    return None


def require_reach(path: Path, account: Account | None) -> None:
    """Raise FolderError when `account` could not get to `path`; the way is never opened by force."""
    if account is None:
        return
    blocked = out_of_reach(path.parent, account)
    if blocked is not None:
        mode = blocked.stat().st_mode & 0o7777
        raise FolderError(
            f"{path} cannot hold a database: started by root, PostgreSQL runs as user `{account.name}`, who may "
            f"not enter {blocked} (mode {mode:04o}). Choose a home that every user may reach, e.g. "
            f"FONOTECA_HOME=/var/lib/fonoteca, or start Fonoteca as an ordinary user"
        )


def make_passage(path: Path) -> Path:
    """Make the folder `path` and its missing parents; those that exist keep their mode.

    Root's new ones get mode 0711 whatever the umask, so that the database's user can pass but not look.
    """
    for folder in [*reversed(path.absolute().parents), path]:
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        if os.geteuid() == 0:
            folder.chmod(0o711)
    return path


def make_private_folder(path: Path, account: Account | None) -> Path:
    """Make `path` a folder of mode 0700 owned by `account` (None: by us), its parents as in `make_passage`."""
    make_passage(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid)
    return path


@dataclass(frozen=True)
class SocketFolder:
    """A private folder for a unix socket, short enough for the socket's address."""

    path: Path
    temporary: bool

    def remove(self) -> None:
        """Remove the folder where it was made for this run only."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def make_socket_folder(run_dir: Path, socket_name: str, account: Account | None) -> SocketFolder:
    """Make `run_dir` private for a socket, or a short folder under /tmp where the address would be too long."""
    resolved = run_dir.absolute()
    if len(os.fsencode(resolved / socket_name)) <= SOCKET_PATH_LIMIT_BYTES:
        return SocketFolder(make_private_folder(resolved, account), temporary=False)
    short = Path(tempfile.mkdtemp(prefix=SHORT_FOLDER_PREFIX, dir="/tmp"))
    return SocketFolder(make_private_folder(short, account), temporary=True)


def remove_stale_socket_folder(path: Path, account: Account | None) -> None:
    """Remove a short socket folder that a killed manager left: only one of our name, owner and place."""
    owner = account.uid if account else os.geteuid()
    if path.parent == Path("/tmp") and path.name.startswith(SHORT_FOLDER_PREFIX):  # noqa: S108
        with contextlib.suppress(OSError):
            if path.lstat().st_uid == owner and not path.is_symlink():
                shutil.rmtree(path)


class FolderLock:
    """A lock file that one process at a time holds. The kernel frees it when its holder ends, however it ends."""

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self.what = what
        self._file: IO[str] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def holder(self) -> int | None:
        """Pid of the process that holds the lock now; None when nobody does."""
        try:
            with self.path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    return int(file.read())
        except (OSError, ValueError):
            pass  # no such file, or its holder is writing its pid this moment
        return None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            AlreadyRunningError: another manager holds it; names its pid.
        """
        if self._file is not None:
            raise AlreadyRunningError(f"{self.what} is already started by this object: stop it first")
        make_passage(self.path.parent)
        file = self.path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise AlreadyRunningError(
                f"{self.what} is in use by the process with pid {holder} (lock {self.path}): "
                f"stop that one first, or choose another home (FONOTECA_HOME)"
            ) from None
        except OSError:
            file.close()
            raise
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None


@contextlib.contextmanager
def temporary_home(prefix: str = "fonoteca-") -> Iterator[Path]:
    """A home for a short-lived stack that the database's user reaches (mode 0711), removed at the end.

    Not under pytest's `tmp_path`: that is 0700, so a PostgreSQL started by root could not enter it.
    """
    home = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))  # short: sockets live below it
    try:
        if os.geteuid() == 0:
            home.chmod(0o711)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
