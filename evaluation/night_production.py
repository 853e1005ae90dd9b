"""Tonight's verdicts about production: drift in corrected segments, and measures that need no references."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection

from db.nights import QualityNight
from db.production import StoredMeasure, find_reference
from db.quality_schema import Question
from db.settings import Settings
from db.verdicts import VerdictRow, measured_night_ago, read_chart
from evaluation.chart import ChartState, step
from evaluation.chart_json import from_json, to_json
from evaluation.drift import WindowDifference
from evaluation.paired_runs import describe_standouts
from evaluation.production import DriftTonight, Standout, drift_tonight, measure_units
from evaluation.run_scores import finite
from evaluation.verdict import Cause, Judgement, Verdict, judge, measured

PRODUCTION = "production"
"""Subject of both questions."""
MIN_COVERAGE = 0.5
"""Less of the corrected words compared is no measurement of production."""


# --- drift -----------------------------------------------------------------------------------------------


def judge_drift(connection: Connection, night: QualityNight, model_id: int, settings: Settings) -> VerdictRow:
    """Compare tonight's corrected segments with the model's reference window and go on with the chart.

    A reference window may be accepted and stored; the verdict is the caller's to store.
    """
    reference = find_reference(connection, model_id)
    before, restarted = _chart_before(connection, night, reference.id if reference else None)
    tonight = drift_tonight(
        connection,
        model_id=model_id,
        from_at=night.from_at,
        until_at=night.until_at,
        reference_segments=settings.drift_reference_segments,
        # what stands out is looked for since the change began, as the chart has it
        since_at=measured_night_ago(
            connection,
            Question.DRIFT,
            PRODUCTION,
            before=night.night,
            nights=max(before.up.nights, before.down.nights),
        ),
        window_days=settings.drift_window_days,
    )
    difference = tonight.difference
    state = step(before, difference.residual if difference else None)
    judgement = judge(PRODUCTION, state, measured(difference) if difference else None)
    evidence: dict[str, Any] = {"n_segments": tonight.n_segments, "basis": tonight.basis}
    if restarted:
        evidence["chart_restarted"] = restarted
    if difference is None:
        reason = tonight.why_not or "nothing could be compared"
        judgement = replace(
            judgement,
            verdict=Verdict.WATCH,
            cause=Cause.NOT_MEASURED,
            sentence=f"{PRODUCTION}: not measured for {state.n_missing} night{'s' if state.n_missing != 1 else ''}: "
            f"{reason}",
        )
        evidence["reason"] = reason
    else:
        evidence |= {
            "strata": _strata(difference),
            "left_out": [_shown(name) for name in difference.left_out],
            "coverage": finite(difference.coverage),
            "crude_difference": finite(difference.crude_value),
        }
    if difference is not None and difference.coverage < MIN_COVERAGE and judgement.verdict is Verdict.OK:
        unknown = ", ".join(_shown(name) for name in difference.left_out[:3])
        reason = (
            f"only {100 * difference.coverage:.0f} % of the corrected words could be compared: the reference window "
            f"does not know {unknown}. `fonoteca baseline restart-drift` begins one that does"
        )
        evidence["reason"] = reason
        judgement = replace(
            judgement, verdict=Verdict.WATCH, cause=Cause.NOT_MEASURED, sentence=f"{PRODUCTION}: {reason}"
        )
    sentence = judgement.sentence
    if difference is not None and judgement.verdict is not Verdict.OK:
        standouts = [_standout(each) for each in tonight.standouts]
        evidence |= {"standouts": standouts, "n_tested": tonight.n_tested}
        sentence = "; ".join(filter(None, [sentence, describe_standouts(standouts)]))
    return _drift_row(night, model_id, tonight, judgement, sentence, evidence)


def _chart_before(
    connection: Connection, night: QualityNight, reference_id: int | None
) -> tuple[ChartState, str | None]:
    content = read_chart(
        connection, Question.DRIFT, PRODUCTION, before=night.night, reference_id=reference_id
    )
    if content is None:
        return ChartState(), None
    state = from_json(content)
    return (state, None) if state is not None else (ChartState(), "the chart's limits were changed")


def _drift_row(
    night: QualityNight,
    model_id: int,
    tonight: DriftTonight,
    judgement: Judgement,
    sentence: str,
    evidence: dict[str, Any],
) -> VerdictRow:
    difference = tonight.difference
    return VerdictRow(
        night=night.night,
        question=Question.DRIFT.value,
        subject=PRODUCTION,
        verdict=judgement.verdict.value,
        cause=judgement.cause.value,
        sentence=sentence,
        model_id=model_id,
        reference_id=tonight.reference_id,
        wer=tonight.wer,
        wer_low=tonight.low,
        wer_high=tonight.high,
        baseline_wer=finite(difference.reference_rate) if difference else None,
        difference=finite(difference.value) if difference else None,
        difference_low=finite(difference.low) if difference else None,
        difference_high=finite(difference.high) if difference else None,
        p_value=finite(difference.p_value) if difference else None,
        effect=finite(judgement.effect),
        nights=judgement.nights,
        margin=judgement.margin if difference else None,
        n_utterances=tonight.n_segments,
        n_words=tonight.n_words,
        chart=to_json(judgement.state),
        evidence=evidence,
    )


def _standout(found: Standout) -> dict[str, Any]:
    return {
        "kind": found.kind.value,
        "broadcaster": found.broadcaster,
        "name": found.name,
        "wer": finite(found.rate),
        "expected": finite(found.expected_rate),
        "difference": finite(found.rate - found.expected_rate),
        "n_utterances": found.n_segments,
        "n_words": found.n_words,
        "is_own_reference": found.is_own_reference,
        "p_value": found.p_value,
        "adjusted_p": found.adjusted_p,
    }


def _strata(difference: WindowDifference) -> list[dict[str, Any]]:
    return [asdict(stratum) | {"name": _shown(stratum.name)} for stratum in difference.strata]


def _shown(name: Any) -> str:
    return " / ".join(str(part) for part in name if part) if isinstance(name, tuple) else str(name)


# --- without references ----------------------------------------------------------------------------------


def judge_unreferenced(connection: Connection, night: QualityNight, model_id: int) -> VerdictRow | None:
    """Measure units without references and say whether any departs from its history; None without production.

    Never `regressed`: without references nobody knows whether there are more errors.
    """
    measures = measure_units(
        connection, night=night.night, model_id=model_id, from_at=night.from_at, until_at=night.until_at
    )
    if not measures:
        return None
    compared = [each for each in measures if each.p_value is not None]
    found = sorted(
        (each for each in measures if each.adjusted_p is not None), key=lambda each: each.adjusted_p or 0
    )
    if found:
        named = ", ".join(_describe(each) for each in found[:3])
        n = len(found)
        sentence = (
            f"{n} measure{'s' if n != 1 else ''} of {len(compared):,} depart from their own history: {named}"
        )
        verdict, cause = Verdict.WATCH, Cause.ONE_NIGHT
    elif compared:
        sentence = f"none of {len(compared):,} measures departs from its own history"
        verdict, cause = Verdict.OK, Cause.NOTHING
    else:
        sentence = f"{len(measures):,} measures, none with a history long enough to compare with"
        verdict, cause = Verdict.OK, Cause.NOT_MEASURED
    return VerdictRow(
        night=night.night,
        question=Question.UNREFERENCED.value,
        subject=PRODUCTION,
        verdict=verdict.value,
        cause=cause.value,
        sentence=f"{PRODUCTION}, without references: {sentence}",
        model_id=model_id,
        nights=1 if found else 0,
        evidence={
            "n_measures": len(measures),
            "n_compared": len(compared),
            "findings": [_finding(each) for each in found],
        },
    )


def _describe(measure: StoredMeasure) -> str:
    name = measure.measure.replace("_", " ")
    return f"{name} of the {measure.unit_kind} {measure.unit} ({measure.value:.3g}, usually {measure.centre or 0:.3g})"


def _finding(measure: StoredMeasure) -> dict[str, Any]:
    return {
        "unit_kind": measure.unit_kind,
        "broadcaster": measure.broadcaster,
        "unit": measure.unit,
        "measure": measure.measure,
        "value": measure.value,
        "centre": measure.centre,
        "p_value": measure.p_value,
        "adjusted_p": measure.adjusted_p,
        "n_segments": measure.n_segments,
        "n_recordings": measure.n_recordings,
        "n_nights": measure.n_nights,
    }
