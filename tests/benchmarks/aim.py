"""What a benchmark is asked to show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """One aim and what came of it."""

    what: str
    wanted: str
    found: str
    met: bool
