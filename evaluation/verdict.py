"""One word for a set each night, with the evidence behind it: `ok`, `watch`, `regressed`, `improved`.

`regressed` and `improved` need two things: the chart alarms (by one night or by many), and the effect is large enough
to matter. What is sure but small, what is a first sign, and what was not measured is `watch`. False alarms and power
are in docs/evaluation.md, from `python -m tests.benchmarks.nights`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from evaluation.chart import DESIGN, ChartDesign, ChartState, Side
from evaluation.compare import Difference
from evaluation.drift import WindowDifference

WATCH_Z = 2.33
"""A residual of one night that is worth a look: the normal's upper 1 %."""
WATCH_SHARE = 0.67
"""Share of the chart's limit that is worth a look."""


class Verdict(StrEnum):
    """What is said of a set."""

    OK = "ok"
    WATCH = "watch"
    REGRESSED = "regressed"
    IMPROVED = "improved"


class Cause(StrEnum):
    """What the verdict rests on."""

    NOTHING = "nothing"
    ONE_NIGHT = "one_night"
    """Tonight's residual alone."""
    CHART = "chart"
    """The sum over nights."""
    NOT_MEASURED = "not_measured"
    BELOW_MARGIN = "below_margin"
    """The chart alarms, but the effect is too small to matter."""


@dataclass(frozen=True)
class Margin:
    """The smallest change that is called regressed or improved: the larger of the two."""

    relative: float = 0.02
    """Share of the baseline's word error rate."""
    absolute: float = 0.0005
    """In the rate's own unit: 0.0005 is 0.05 points."""

    def of(self, baseline_rate: float) -> float:
        return max(self.absolute, self.relative * baseline_rate)


MARGIN = Margin()


@dataclass(frozen=True)
class Measured:
    """What a night measured against its baseline, paired or not."""

    difference: float
    low: float
    high: float
    p_value: float
    baseline_rate: float
    is_paired: bool


@dataclass(frozen=True)
class Judgement:
    """A verdict and its evidence."""

    set_name: str
    verdict: Verdict
    cause: Cause
    effect: float
    """The change that the verdict speaks of: tonight's, or the chart's mean since the change began."""
    nights: int
    """Measured nights that the change has lasted, 0 without one."""
    margin: float
    tonight: Measured | None
    state: ChartState
    sentence: str
    """For a person, in English."""


def measured(difference: Difference | WindowDifference) -> Measured:
    """The evidence of one night, from a paired or an unpaired comparison."""
    is_paired = isinstance(difference, Difference)
    return Measured(
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=difference.p_value,
        baseline_rate=difference.a.rate if isinstance(difference, Difference) else difference.reference_rate,
        is_paired=is_paired,
    )


def judge(
    set_name: str,
    state: ChartState,
    tonight: Measured | None,
    *,
    baseline_rate: float | None = None,
    design: ChartDesign = DESIGN,
    margin: Margin = MARGIN,
) -> Judgement:
    """The verdict after `chart.step` took in tonight's residual.

    Args:
        set_name: how sentences call the set.
        state: the chart with tonight in it.
        tonight: None when the night was not measured.
        baseline_rate: for a night without a measurement; otherwise tonight's is used.
        design: the chart's, as it was stepped with.
        margin: the smallest change that matters.
    """
    rate = tonight.baseline_rate if tonight else (baseline_rate or 0.0)
    threshold = margin.of(rate)
    verdict, cause, side = _decide(state, tonight, threshold, design)
    one_night = cause is Cause.ONE_NIGHT or (
        cause is Cause.BELOW_MARGIN and side is not None and side.total <= design.limit
    )
    effect = state.value if one_night or side is None else side.effect
    effect = effect if effect is not None else 0.0
    nights = max(side.nights, 1) if side else 0
    return Judgement(
        set_name=set_name,
        verdict=verdict,
        cause=cause,
        effect=effect,
        nights=nights,
        margin=threshold,
        tonight=tonight,
        state=state,
        sentence=f"{set_name}: {_sentence(verdict, cause, effect, nights, rate, tonight, state, threshold)}",
    )


def _decide(
    state: ChartState, tonight: Measured | None, threshold: float, design: ChartDesign
) -> tuple[Verdict, Cause, Side | None]:
    up, down = state.up_alarm(design), state.down_alarm(design)
    if up and down:
        up = (state.z or 0) > 0  # the sum has not come down yet from before: tonight speaks
    if up or down:
        side = state.up if up else state.down
        changed = Verdict.REGRESSED if up else Verdict.IMPROVED
        by_night = state.z is not None and abs(state.z) > design.night_limit and (state.z > 0) == up
        if by_night and state.value is not None and abs(state.value) >= threshold:
            return changed, Cause.ONE_NIGHT, side
        if side.total > design.limit and abs(side.effect) >= threshold:
            return changed, Cause.CHART, side
        return Verdict.WATCH, Cause.BELOW_MARGIN, side
    if tonight is None or state.z is None:
        return Verdict.WATCH, Cause.NOT_MEASURED, None
    if state.z > WATCH_Z:
        return Verdict.WATCH, Cause.ONE_NIGHT, state.up
    if state.up.total > WATCH_SHARE * design.limit:
        return Verdict.WATCH, Cause.CHART, state.up
    return Verdict.OK, Cause.NOTHING, None


def _sentence(
    verdict: Verdict,
    cause: Cause,
    effect: float,
    nights: int,
    rate: float,
    tonight: Measured | None,
    state: ChartState,
    threshold: float,
) -> str:
    baseline = f"the baseline's {100 * rate:.2f} % word error rate"
    lasting = f" over {nights} nights" if nights > 1 else ""
    change = f"{100 * abs(effect):.2f} points {'above' if effect > 0 else 'below'} {baseline}"
    if cause is Cause.NOT_MEASURED:
        missing = state.n_missing
        return (
            "no spread is known, so tonight's figure cannot be judged"
            if tonight is not None
            else f"not measured for {missing} night{'s' if missing != 1 else ''}; nothing is known"
        )
    if verdict in (Verdict.REGRESSED, Verdict.IMPROVED):
        how = "tonight alone shows it" if cause is Cause.ONE_NIGHT else "the nights together show it"
        return f"{verdict}: {change}{lasting}; {how}{_interval(tonight)}"
    if cause is Cause.BELOW_MARGIN:
        return f"a sure but small change{lasting}: {change}, less than the {100 * threshold:.2f} that matter"
    if verdict is Verdict.WATCH:
        return f"a first sign that errors rise{lasting}: {change}{_interval(tonight)}"
    return f"as good as the baseline ({100 * rate:.2f} % word error rate){_interval(tonight)}"


def _interval(tonight: Measured | None) -> str:
    if tonight is None or not math.isfinite(tonight.low):
        return ""
    return (
        f"; tonight {100 * tonight.difference:+.2f} points (95 % interval {100 * tonight.low:+.2f} to "
        f"{100 * tonight.high:+.2f})"
    )
