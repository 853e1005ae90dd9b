"""One service process: started, watched, ended whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from compose.local.errors import StopError
from compose.local.spawn import log_tail, open_log, spawn, wait_until

KILL_TIMEOUT_S = 10.0


class Service:
    """A command that runs until told to end, with every process that it starts.

    It leads a session and process group of its own, and gets SIGTERM when the process that started it dies.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log_file: Path,
        folder: Path | None = None,
    ) -> None:
        """Nothing happens until `start`.

        Args:
            name: for messages.
            command: program and arguments.
            env: the whole environment of the process.
            log_file: where standard output and error are appended.
            folder: working folder; None inherits.
        """
        self.name = name
        self.command = tuple(command)
        self.env = dict(env)
        self.log_file = Path(log_file)
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        self._asked_to_stop = False

    @property
    def pid(self) -> int | None:
        """Pid of the main process; None when it does not run."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the main process runs."""
        return self._process is not None and not self._ended()

    @property
    def exit_code(self) -> int | None:
        """How the main process ended: its code, or minus the signal's number. None while it runs or never did."""
        if self._process is None:
            return None
        if self._process.returncode is not None:
            return self._process.returncode
        try:
            status = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:  # collected behind our back, as where SIGCHLD is ignored
            return self._process.poll()
        if status is None:
            return None
        return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status

    def start(self) -> Self:
        """Start the command. Does nothing when it runs; clears what is left of it when it died.

        Raises:
            BinariesMissingError: no such program.
            StopError: processes of the previous run do not end.
        """
        if self.alive:
            return self
        self._clear_group()
        self._asked_to_stop = False
        with open_log(self.log_file) as log:
            self._log_start = log.seek(0, os.SEEK_END)
            self._process = spawn(
                self.command, log=log, death_signal=signal.SIGTERM, environment=self.env, folder=self.folder
            )
        return self

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the main process to end; its `exit_code`, or None when it still runs after `timeout_s`."""
        return self.exit_code if wait_until(lambda: not self.alive, timeout_s) else None

    def request_stop(self) -> None:
        """Ask the main process to end (SIGTERM) and do not wait. Asks once: a second SIGTERM means hurry to many."""
        if self._process is not None and self.alive and not self._asked_to_stop:
            self._asked_to_stop = True
            self._process.terminate()

    def stop(self, graceful_timeout_s: float = 10.0) -> None:
        """Ask the main process to end, wait, then end by force what is left of its process group.

        Raises:
            StopError: a process of the group does not end even by force.
        """
        self.request_stop()
        wait_until(lambda: not self.alive, graceful_timeout_s)
        self._clear_group()

    def restart(self, graceful_timeout_s: float = 10.0) -> Self:
        """Stop, then start."""
        self.stop(graceful_timeout_s)
        return self.start()

    def log_since_start(self) -> str:
        """What the current or last run wrote to its log, at most the last MiB."""
        try:
            with self.log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(min(self._log_start, size), size - 2**20))
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def log_tail(self, lines: int = 20) -> str:
        """The end of what the current or last run wrote, laid out for an error message."""
        return log_tail(self.log_file, since=self._log_start, lines=lines)

    def _ended(self) -> bool:
        """Whether the main process ended, without collecting it.

        While it stays a zombie, its pid (which is its group's id) cannot go to another process, so that
        `_clear_group` never hits a stranger.
        """
        return self.exit_code is not None

    def _clear_group(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(
                ProcessLookupError, PermissionError
            ):  # macOS: EPERM for a group of zombies
                os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(KILL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise StopError(
                    f"service {self.name} (pid {process.pid}) does not end even by SIGKILL: "
                    f"it waits for a device or disk; see {self.log_file}"
                ) from None
        self._process = None
