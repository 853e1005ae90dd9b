"""A command in a process of its own, and the most memory that it and the processes it starts have had resident.

The kernel's `ru_maxrss` of a child that was started by fork or vfork includes what its parent held at that moment, so
the peaks are read from /proc/PID/status (VmHWM) instead, which begins anew with the program. VmHWM only grows: what a
process reaches in its last `LOOK_EVERY_S` before it ends is all that can be missed.

The sum of two such peaks counts the libraries that both have mapped twice. What processes hold together is the sum of
their Pss (/proc/PID/smaps_rollup): each page that n of them share is an n-th in each. It has no high-water mark, so it
is looked at ten times a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

LOOK_EVERY_S = 0.02
LOOKS_PER_SUM = 5
"""The kernel walks all pages of a process for its Pss: seldom enough that it costs the measured process nothing."""


@dataclass(frozen=True)
class Watched:
    """How a command went."""

    report: dict[str, Any]
    """What it printed as JSON on its last line."""
    peak_bytes: int
    """VmHWM of the process itself."""
    peak_child_bytes: int
    """The greatest VmHWM among the processes that it started; 0 for none."""
    peak_together_bytes: int
    """The most that it and those it started were seen to hold at one time, shared pages once."""

    @property
    def peak_sum_bytes(self) -> int:
        """Of both together: they need not have been at their greatest at one time, so this is no less than the truth
        while children come one after another."""
        return self.peak_bytes + self.peak_child_bytes


class CommandFailed(RuntimeError):
    """A measured command ended with an error: its own words."""


@dataclass
class _Peaks:
    own_bytes: int = 0
    child_bytes: int = 0
    together_bytes: int = 0
    n_looks: int = 0
    command: bytes = field(default=b"", repr=False)

    def look(self, pid: int) -> None:
        self.own_bytes = max(self.own_bytes, peak_bytes_of(pid))
        self.command = self.command or _command_of(pid)
        for child in _children_of(pid):
            # between fork and exec a child still is its parent's image, memory included
            if _command_of(child) not in (b"", self.command):
                self.child_bytes = max(self.child_bytes, peak_bytes_of(child))
        if self.n_looks % LOOKS_PER_SUM == 0:
            together = sum(map(_proportional_bytes_of, (pid, *_children_of(pid))))
            self.together_bytes = max(self.together_bytes, together)
        self.n_looks += 1


def run_watched(command: Sequence[str], *, environment: dict[str, str], errors: IO[bytes]) -> Watched:
    """Run `command` to its end. Its last line of output must be a JSON object.

    Raises:
        CommandFailed: it ended with a status other than 0.
    """
    peaks = _Peaks()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process:
        try:
            while process.poll() is None:
                peaks.look(process.pid)
                time.sleep(LOOK_EVERY_S)
        except BaseException:
            process.kill()
            raise
        assert process.stdout is not None
        told = process.stdout.read().decode()
    if process.returncode:
        errors.flush()
        errors.seek(0)
        raise CommandFailed(f"status {process.returncode}: {errors.read().decode(errors='replace')[-1500:]}")
    report: dict[str, Any] = json.loads(told.splitlines()[-1])
    own_bytes = int(report.pop("peak_bytes", peaks.own_bytes))  # its own word at its end is the last one
    return Watched(report, max(own_bytes, peaks.own_bytes), peaks.child_bytes, peaks.together_bytes)


def peak_bytes_of(pid: int | None = None) -> int:
    """The most memory a process has had resident (VmHWM); without `pid` this one. 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _proportional_bytes_of(pid: int) -> int:
    """Pss: its own pages, and its part of those that it shares. 0 where it has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def _children_of(pid: int) -> list[int]:
    """All that it started, and what those started."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *_children_of(int(child))]
    return found


def _command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


if sys.platform != "linux":  # pragma: no cover
    raise ImportError("peaks of memory are read from /proc: Linux only")
