"""The chart between nights, as JSON: what comes back is what went in, to the last bit.

A chart belongs to its design: sums made with other limits cannot be gone on with, so a chart of another design or
form reads as None, and begins anew.
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import Any

from evaluation.chart import DESIGN, ChartDesign, ChartState, Side

FORMAT = 1
"""Raised when the fields of a state change their meaning."""


def to_json(state: ChartState, design: ChartDesign = DESIGN) -> dict[str, Any]:
    """A state and the design it was made with. Numbers that JSON has no form for are texts."""
    return {
        "format": FORMAT,
        "design": asdict(design),
        "up": _side(state.up),
        "down": _side(state.down),
        "z": _number(state.z),
        "value": _number(state.value),
        "n_nights": state.n_nights,
        "n_missing": state.n_missing,
    }


def from_json(content: dict[str, Any], design: ChartDesign = DESIGN) -> ChartState | None:
    """The state again; None where it was made with another design or form."""
    if content.get("format") != FORMAT or content.get("design") != asdict(design):
        return None
    return ChartState(
        up=_read_side(content["up"]),
        down=_read_side(content["down"]),
        z=_read_number(content["z"]),
        value=_read_number(content["value"]),
        n_nights=content["n_nights"],
        n_missing=content["n_missing"],
    )


def _side(side: Side) -> dict[str, Any]:
    return {each.name: _number(getattr(side, each.name)) for each in fields(side)}


def _read_side(content: dict[str, Any]) -> Side:
    values = {name: _read_number(value) for name, value in content.items()}
    return Side(
        total=values["total"] or 0.0,
        nights=int(content["nights"]),
        weight=values["weight"] or 0.0,
        weighted_value=values["weighted_value"] or 0.0,
    )


def _number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else repr(value)


def _read_number(value: float | str | None) -> float | None:
    return None if value is None else float(value)
