"""Which code runs: stored with every transcript, so that a change in quality can be traced to it."""

from __future__ import annotations

import os
from functools import cache
from importlib import metadata
from pathlib import Path

_GIT_DIR = Path(__file__).resolve().parent.parent / ".git"


@cache
def code_version() -> str:
    """`FONOTECA_CODE_VERSION` where an image sets it; else the version, with the commit in a checkout."""
    if fixed := os.environ.get("FONOTECA_CODE_VERSION"):
        return fixed
    version = metadata.version("fonoteca")
    commit = _checked_out_commit()
    return f"{version}+{commit[:12]}" if commit else version


def _checked_out_commit() -> str | None:
    try:
        head = (_GIT_DIR / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        reference = head.removeprefix("ref: ")
        loose = _GIT_DIR / reference
        if loose.exists():
            return loose.read_text().strip()
        packed = (line.split() for line in (_GIT_DIR / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [reference]), None)
    except OSError:
        return None
