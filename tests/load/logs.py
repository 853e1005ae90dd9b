"""What the parts' logs say above INFO."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PYTHON_WARNING = re.compile(r"^\S+\.py:\d+: (?P<event>\w*Warning: .*)")
TRACEBACK = "Traceback (most recent call last):"

INFO_LEVELS = frozenset({"debug", "info", "notset"})
POSTGRES_LINE = re.compile(
    r"^\d{4}-\d\d-\d\d .*?(?P<level>DEBUG\d|INFO|NOTICE|LOG|WARNING|ERROR|FATAL|PANIC):\s+(?P<event>.*)"
)
POSTGRES_CALM = frozenset({"INFO", "NOTICE", "LOG"})
VALKEY_LINE = re.compile(r"^\d+:[A-Z] .*?\d\d:\d\d:\d\d\.\d+ (?P<mark>[.\-*#]) (?P<event>.*)")

EXPECTED = (
    ("valkey", "Valkey is now ready to exit", "its last words at every stop"),
    ("valkey", "WARNING Memory overcommit must be enabled!", "a setting of the machine"),
    ("", "SecurityWarning: You're running the worker with superuser privileges", "started by root"),
)
"""(part, beginning of the event, reason) of lines that say nothing of the system's doings."""


@dataclass(frozen=True)
class Line:
    """One log line above INFO."""

    part: str
    level: str
    event: str
    text: str

    @property
    def reason(self) -> str | None:
        """Why it is expected; None where it is not."""
        return next(
            (
                reason
                for part, beginning, reason in EXPECTED
                if part in ("", self.part) and self.event.startswith(beginning)
            ),
            None,
        )


def above_info(logs: Iterable[Path]) -> list[Line]:
    """The lines above INFO of all parts, and those that nobody meant to be there."""
    return [line for log in logs for line in _lines(log)]


def _lines(log: Path) -> Iterator[Line]:
    part = log.name.partition(".log")[0]
    for text in log.read_text(encoding="utf-8", errors="replace").splitlines():
        found = _read(part, text)
        if found is not None:
            yield found


def _read(part: str, text: str) -> Line | None:
    if part == "postgres":
        match = POSTGRES_LINE.match(text)
        if match and match["level"] not in POSTGRES_CALM:
            return Line(part, match["level"].lower(), match["event"], text)
        return None
    if part == "valkey":
        match = VALKEY_LINE.match(text)
        return Line(part, "warning", match["event"], text) if match and match["mark"] == "#" else None
    try:
        entry = json.loads(text)
        level = entry["level"]
    except (ValueError, KeyError, TypeError):
        # Celery's banner, or what no logger wrote
        if match := PYTHON_WARNING.match(text):
            return Line(part, "warning", match["event"], text)
        return Line(part, "error", "traceback", text) if text.startswith(TRACEBACK) else None
    return None if level in INFO_LEVELS else Line(part, level, entry["event"], text)
