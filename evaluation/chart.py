"""A sequential chart across nights: slow drift is found, noise is not.

Two-sided tabular CUSUM (Page, "Continuous inspection schemes", Biometrika 41, 1954) of standardised residuals from
the baseline, beside a limit for a single night (Lucas, "Combined Shewhart-CUSUM quality control schemes", Journal of
Quality Technology 14, 1982). A residual is divided by that night's own standard error, so nights of different size
share one chart (docs/decisions/0011 has the run lengths).

Part of a residual's error lasts: the baseline was measured with error, and a fixed set's utterances are the same every
night. It does not average out over nights, and a chart that took it for evidence would alarm by waiting. So before
residuals are summed, `guard` times the lasting error is taken off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date

from scipy.special import ndtri, stdtr


@dataclass(frozen=True)
class ChartDesign:
    """The chart's limits, in standard errors."""

    allowance: float = 0.5
    """Taken off every night: half the smallest lasting shift worth finding (Page's k)."""
    limit: float = 3.8
    """Sum at which the chart alarms (Page's h)."""
    guard: float = 1.65
    """How much of the lasting error is taken off. With the allowance: 2.15, the normal's upper 1.6 %."""
    night_limit: float = 3.29
    """Residual at which a single night alarms: two-sided p of 0.001."""
    clip: float = 3.5
    """A night adds no more than this to the sum, so that one odd night does not alarm for many."""
    ceiling: float = 7.5
    """The sum grows no further, so that an end of the trouble shows within a few nights."""


DESIGN = ChartDesign()


@dataclass(frozen=True)
class Residual:
    """What one night measured, less the baseline. Positive: more errors."""

    value: float
    """In the rate's own unit: 0.01 is one point of word error rate."""
    standard_error: float
    """Of `value`, everything included."""
    lasting_error: float
    """The part of the standard error that is the same every night."""
    z: float
    """The residual as a standard normal value, if nothing changed; nan if no error is known."""

    @property
    def lasting_share(self) -> float:
        """The lasting part of the standard error, 0 to 1."""
        return min(1.0, self.lasting_error / self.standard_error) if self.standard_error > 0 else 0.0


def student_z(value: float, standard_error: float, degrees_of_freedom: float) -> float:
    """The normal value that is as rare as Student's t of `value` over its error; nan if no error is known."""
    if value == 0:
        return 0.0
    if not standard_error > 0:
        return math.nan
    t = value / standard_error
    if math.isinf(degrees_of_freedom):
        return t
    return math.copysign(-float(ndtri(float(stdtr(degrees_of_freedom, -abs(t))))), t)


@dataclass(frozen=True)
class Side:
    """One direction of the chart."""

    total: float = 0.0
    """The sum, in standard errors; never below 0."""
    nights: int = 0
    """Measured nights since the sum was last 0: since when the change is supposed to last."""
    weight: float = 0.0
    weighted_value: float = 0.0

    @property
    def effect(self) -> float:
        """Mean residual since the sum was last 0, nights weighted by their precision."""
        return self.weighted_value / self.weight if self.weight else 0.0


@dataclass(frozen=True)
class ChartState:
    """Everything the chart keeps from one night to the next."""

    up: Side = Side()
    down: Side = Side()
    z: float | None = None
    """Of the newest night; None when it was not measured."""
    value: float | None = None
    n_nights: int = 0
    """Measured nights since the chart began."""
    n_missing: int = 0
    """Nights without a measurement since the last one."""

    def up_alarm(self, design: ChartDesign = DESIGN) -> bool:
        """More errors than the baseline, by the sum or tonight alone."""
        return self.up.total > design.limit or (self.z is not None and self.z > design.night_limit)

    def down_alarm(self, design: ChartDesign = DESIGN) -> bool:
        """Fewer errors than the baseline, by the sum or tonight alone."""
        return self.down.total > design.limit or (self.z is not None and self.z < -design.night_limit)


@dataclass(frozen=True)
class Night:
    """One night's measurement for one set."""

    night: date
    baseline: str
    """Which baseline the residual is from: a new one restarts the chart."""
    residual: Residual | None
    """None when the night was not measured."""


def step(state: ChartState, residual: Residual | None, design: ChartDesign = DESIGN) -> ChartState:
    """The chart after one more night.

    A night without a measurement, or whose error is not known, changes no sum.
    """
    if residual is None or math.isnan(residual.z):
        return replace(state, z=None, value=None, n_missing=state.n_missing + 1)
    guard = design.guard * residual.lasting_share
    return ChartState(
        up=_add(state.up, residual.z - guard, residual, design),
        down=_add(state.down, -residual.z - guard, residual, design),
        z=residual.z,
        value=residual.value,
        n_nights=state.n_nights + 1,
    )


def run(nights: Iterable[Night], design: ChartDesign = DESIGN) -> list[ChartState]:
    """The chart after each night, in the given order. It restarts where the baseline changes."""
    states: list[ChartState] = []
    baseline: str | None = None
    for night in nights:
        before = states[-1] if states and night.baseline == baseline else ChartState()
        baseline = night.baseline
        states.append(step(before, night.residual, design))
    return states


def _add(side: Side, excess: float, residual: Residual, design: ChartDesign) -> Side:
    total = side.total + min(excess, design.clip) - design.allowance
    if total <= 0:
        return Side()
    weight = 1 / residual.standard_error**2 if residual.standard_error > 0 else 0.0
    return Side(
        total=min(total, design.ceiling),
        nights=side.nights + 1,
        weight=side.weight + weight,
        weighted_value=side.weighted_value + weight * residual.value,
    )
