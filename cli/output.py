"""What commands print: results on stdout, everything on the way there on stderr, and the forms of numbers."""

from __future__ import annotations

import json
import sys
import unicodedata
from dataclasses import dataclass
from typing import Any

import typer


def printable(text: str) -> str:
    """`text` without control characters, so that a file's name or a message cannot steer the terminal."""
    return "".join("\ufffd" if _steers(char) else char for char in text)


def _steers(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"


def note(text: str) -> None:
    """One line on stderr: progress, warnings, what to do next."""
    typer.echo(printable(text), err=True)


@dataclass(frozen=True)
class Output:
    """Where one command's results go."""

    as_json: bool = False

    @property
    def live(self) -> bool:
        """Draw bars that move; otherwise plain lines. Needs a terminal on both stdout and stderr."""
        return sys.stdout.isatty() and sys.stderr.isatty()

    def line(self, text: str) -> None:
        """One line of the result. With --json it is only a comment, on stderr."""
        typer.echo(printable(text), err=self.as_json)

    def document(self, content: Any) -> None:
        """The one JSON document of a command run with --json."""
        typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def size_text(n_bytes: float) -> str:
    """Bytes for people: 3.4 GiB."""
    if n_bytes < 1024:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        n_bytes /= 1024
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} TiB"


def duration_text(seconds: float | None) -> str:
    """Seconds for people: 1:02:03; a dash where the duration is not known yet."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def count_text(count: int, singular: str, plural: str = "") -> str:
    """`1 file`, `2 files`."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
