"""Start child processes that never outlive us, wait on conditions, read logs.

The one place where the embedded stack starts a process: servers, jobs and services all go through `spawn`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from compose.local.errors import BinariesMissingError, StopError
from compose.local.folders import Account, make_passage

LAUNCHER = Path(__file__).with_name("launch.py")
POLL_INTERVAL_S = 0.02
LOG_ROTATE_BYTES = 32 * 2**20
"""A log larger than this is kept once as `<name>.1` when its process starts anew."""


class _SpawnThread:
    """A thread that lives as long as the process, and makes every child.

    Linux ties the parent-death signal to the *thread* that forked (prctl(2), PR_SET_PDEATHSIG). A child made
    from a short-lived thread would be signalled as soon as that thread returned.
    """

    def __init__(self) -> None:
        self.owner_pid = os.getpid()
        self._jobs: SimpleQueue[
            tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]
        ] = SimpleQueue()
        threading.Thread(target=self._serve, name="spawn", daemon=True).start()

    def _serve(self) -> None:
        while True:
            make, future = self._jobs.get()
            try:
                future.set_result(make())
            except BaseException as error:  # handed to the caller of `run`
                future.set_exception(error)
            del make, future  # else the last child's handle would live until the next one

    def run(self, make: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        future: Future[subprocess.Popen[bytes]] = Future()
        self._jobs.put((make, future))
        return future.result()


_spawn_thread: _SpawnThread | None = None
_spawn_thread_guard = threading.Lock()


def _spawner() -> _SpawnThread:
    global _spawn_thread
    with _spawn_thread_guard:
        if _spawn_thread is None or _spawn_thread.owner_pid != os.getpid():  # threads do not survive fork
            _spawn_thread = _SpawnThread()
        return _spawn_thread


def spawn(
    command: Sequence[str],
    *,
    log: int | IO[bytes],
    death_signal: signal.Signals,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, output to `log`.

    A session of its own keeps a terminal's Ctrl-C from reaching the child before the stack decides the order,
    and makes a process group that can be ended as one.

    Args:
        command: program and arguments; the program is looked up in PATH where it holds no slash.
        log: where standard output and error go.
        death_signal: what the kernel sends the child when this process ends, however it ends (Linux only).
        account: user to run as; needs root. None keeps the current one.
        environment: whole environment of the child. None inherits.
        folder: working folder. None inherits.

    Raises:
        BinariesMissingError: no such program.
    """
    program = shutil.which(command[0])
    if program is None:
        raise BinariesMissingError(f"{command[0]} is not an executable file: check the installation")
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    head = [sys.executable, "-I", "-S", str(LAUNCHER)]
    identity = [str(os.getpid()), str(int(death_signal)), str(uid), str(gid)]
    return _spawner().run(
        lambda: subprocess.Popen(
            [*head, *identity, program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=folder,
            start_new_session=True,
        )
    )


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Ask `condition` every 20 ms until it holds. False when it did not within `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def is_running(pid: int) -> bool:
    """Whether `pid` runs. A zombie (ended, not yet collected by its parent) does not, though it takes signals."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def find_processes(program: str, marker: str) -> Iterator[int]:
    """Pids of running processes named `program` whose command line holds `marker` (Linux only).

    Names and command lines are readable whoever owns the process, also in a container without CAP_SYS_PTRACE
    (unlike /proc/<pid>/exe and cwd).
    """
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text(errors="replace").rstrip("\n") != program[:15]:
                continue
            command_line = (entry / "cmdline").read_bytes()
        except OSError:  # ended in the meantime
            continue
        if os.fsencode(marker) in command_line and is_running(int(entry.name)):
            yield int(entry.name)


def end_strays(program: str, marker: str, *, signals: Sequence[signal.Signals], patience_s: float) -> None:
    """End processes that a dead manager left behind, see `find_processes`.

    They usually end by themselves (their parent-death signal is on its way), so they get `patience_s` seconds
    first, and again after each of `signals`. Call it only while holding the lock of the folder that `marker`
    stands for.

    Raises:
        StopError: some still run after the last signal; names their pids.
    """

    def none_left() -> bool:
        return next(find_processes(program, marker), None) is None

    for number in (None, *signals):
        if number is not None:
            for pid in find_processes(program, marker):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        if wait_until(none_left, patience_s):
            return
    pids = ", ".join(str(pid) for pid in find_processes(program, marker))
    raise StopError(
        f"{program} left over by a killed manager does not end (pids {pids}): end it by hand, then retry"
    )


def end_leftover(pid: int, environment: Mapping[str, str], *, patience_s: float) -> bool:
    """End a service that a killed manager left, with its process group, after waiting for it to end by itself.

    Touches `pid` only when it leads its own session and was started with all of `environment`, so never a
    process that got the number since (Linux only; elsewhere nothing is touched).

    Returns:
        Whether it had to be killed.
    """
    try:
        given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if os.getsid(pid) != pid:
            return False
    except OSError:  # ended, or another user's
        return False
    if not all(os.fsencode(f"{key}={value}") in given for key, value in environment.items()):
        return False
    if wait_until(lambda: not is_running(pid), patience_s):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), patience_s)
    return True


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending, set aside as `<name>.1` where it grew past LOG_ROTATE_BYTES."""
    make_passage(path.parent)
    if path.exists() and path.stat().st_size > LOG_ROTATE_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


def log_tail(path: Path, *, since: int = 0, lines: int = 20) -> str:
    """The last `lines` lines of a log, indented for an error message, without what came before byte `since`."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(0, min(since, size), size - 65536))
            text = log.read().decode(errors="replace")
    except OSError as error:
        return f"  (no log: {error})"
    tail = text.splitlines()[-lines:] or ["(empty)"]
    return "\n".join([f"  last lines of {path}:", *(f"  | {line}" for line in tail)])
