"""One fixed set's verdict tonight: paired with its baseline, and put onto its chart."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection

from db.alerts import find_open
from db.baselines import (
    MAX_FAILED_SHARE,
    BaselineRow,
    accept_baseline,
    find_baseline,
    find_predecessor,
    list_baselines,
    model_names,
)
from db.evaluation_runs import Run, read_predictions
from db.quality_schema import AlertKind, Question
from db.verdicts import VerdictRow, read_chart
from evaluation.chart import ChartState, Residual, step
from evaluation.chart_json import from_json, to_json
from evaluation.compare import Difference
from evaluation.paired_runs import (
    PairedRuns,
    describe_changes,
    describe_standouts,
    find_changes,
    find_standouts,
    pair_runs,
    pair_what_is_left,
)
from evaluation.run_scores import RunScore, finite, score_run
from evaluation.verdict import Cause, Judgement, Margin, Verdict, judge, measured

QUESTION = Question.REGRESSION
MIN_LEFT = 20
"""Unchanged utterances that a changed set needs to be judged by its old baseline."""
CERTAIN_P = 0.001
"""Corrected p of a part of a set that makes a regression by itself: as rare as the chart's limit for one night."""
PART_MARGIN = Margin(relative=0.25, absolute=0.01)
"""The smallest change of a part that matters by itself: a model of equal quality is better here and worse there."""


def judge_run(connection: Connection, run: Run, night: dt.date) -> VerdictRow:
    """Score a nightly run and judge it; a set without a baseline gets this run as its baseline.

    The scores and a baseline are stored, the verdict is the caller's to store.
    """
    scores = score_run(connection, run.run_id) if run.finished_at is not None else None
    why_not = _why_not_measured(run)
    # a baseline accepted while the run was generated (by a promotion) is for the nights after it
    baseline = find_baseline(connection, run.set_id, at=run.created_at) or find_baseline(
        connection, run.set_id
    )
    if scores is None or why_not is not None:
        return _not_measured(connection, run, night, baseline, why_not or "its run has no text", scores)
    accepted = None
    if baseline is None and (judged := _judge_what_is_left(connection, run, night, scores["basic"])):
        return judged
    if baseline is None:
        accepted = _reason_to_accept(connection, run)
        accept_baseline(
            connection, set_id=run.set_id, run_id=run.run_id, accepted_by="system", reason=accepted
        )
        baseline = find_baseline(connection, run.set_id)
        assert baseline is not None
    row = _measured(connection, run, night, baseline, scores["basic"])
    if accepted is not None:
        row = replace(
            row,
            sentence=f"{run.set_name}: measured with {100 * (row.wer or 0):.2f} % word error rate, and accepted as the "
            f"baseline: {accepted}",
            evidence=row.evidence | {"accepted": accepted},
        )
    return row


def _judge_what_is_left(
    connection: Connection, run: Run, night: dt.date, score: RunScore
) -> VerdictRow | None:
    """Of a set that was changed, the utterances that are as they were, against the old baseline; None where they say
    nothing bad, and the run may become the new baseline. A corrected text must not make a regression the standard."""
    before = find_predecessor(connection, run.set_name, run.set_id)
    if before is None:
        return None
    pair = pair_what_is_left(
        read_predictions(connection, before.run_id), read_predictions(connection, run.run_id)
    )
    hint = f"accept it with `fonoteca baseline accept {run.set_name}` if that is meant"
    if len(pair.rows) < MIN_LEFT:
        if find_open(connection, AlertKind.REGRESSION, run.set_name) is None:
            return None
        reason = f"its references or audio changed while its alert is open: {hint}"
        return _not_measured(connection, run, night, before, reason, None)
    row = _measured(connection, run, night, before, score, pair)
    if row.verdict not in (Verdict.REGRESSED, Verdict.WATCH):
        return None
    n_left = len(pair.rows)
    return replace(
        row,
        sentence=f"{row.sentence}; its references or audio changed, so this is of the {n_left:,} utterances that are "
        f"as they were: {hint}",
        evidence=row.evidence | {"n_unchanged": n_left},
    )


def _why_not_measured(run: Run) -> str | None:
    if run.abandoned_reason is not None:
        return run.abandoned_reason
    if run.finished_at is None:
        return "its run is not finished"
    if run.n_failed > MAX_FAILED_SHARE * run.n_utterances:
        return f"{run.n_failed:,} of {run.n_utterances:,} utterances have no text"
    return None


def _reason_to_accept(connection: Connection, run: Run) -> str:
    others = [each for each in list_baselines(connection, with_retired=True) if each.set_name == run.set_name]
    if any(each.retired_at is None for each in others):
        return "its references or audio changed"
    return "first run since its baseline was retired" if others else "first run of this set"


def _chart_before(
    connection: Connection, run: Run, night: dt.date, baseline: BaselineRow | None
) -> tuple[ChartState, str | None]:
    """The chart up to last night, and why it begins anew where it does."""
    content = read_chart(
        connection,
        QUESTION,
        run.set_name,
        before=night,
        baseline_id=baseline.id if baseline else None,
    )
    if content is None:
        return ChartState(), None
    state = from_json(content)
    return (state, None) if state is not None else (ChartState(), "the chart's limits were changed")


def _measured(
    connection: Connection,
    run: Run,
    night: dt.date,
    baseline: BaselineRow,
    score: RunScore,
    pair: PairedRuns | None = None,
) -> VerdictRow:
    pair = pair or pair_runs(
        read_predictions(connection, baseline.run_id), read_predictions(connection, run.run_id)
    )
    difference = pair.difference
    before, restarted = _chart_before(connection, run, night, baseline)
    judgement = judge(run.set_name, step(before, _residual(difference)), measured(difference))
    found = _look_closer(pair) if difference.n_clusters_changed else {}
    judgement = _with_one_part_that_got_worse(judgement, found.get("standouts", []))
    assert run.model_id is not None
    model = model_names(connection, {run.model_id})[run.model_id]
    changes = find_changes(baseline, run, model)
    evidence: dict[str, Any] = {
        "baseline_night": baseline.night.isoformat() if baseline.night else None,
        "n_clusters": difference.n_clusters,
        "n_clusters_changed": difference.n_clusters_changed,
        "n_failed": run.n_failed,
    }
    if changes:
        evidence["changes"] = changes
    if restarted:
        evidence["chart_restarted"] = restarted
    sentence = judgement.sentence
    if judgement.verdict is not Verdict.OK:
        evidence |= found
        moved = [each for each in found.get("standouts", []) if each["difference"] * judgement.effect > 0]
        details = [describe_standouts(moved), describe_changes(changes)]
        sentence = "; ".join([sentence, *filter(None, details)])
    rate = score.score.wer if score.score else None
    return replace(
        _row(run, night, judgement, sentence, evidence),
        baseline_id=baseline.id,
        wer=finite(rate.value) if rate else None,
        wer_low=finite(rate.low) if rate else None,
        wer_high=finite(rate.high) if rate else None,
        **_difference(difference),
        n_utterances=len(pair.rows),
        n_words=difference.a.reference_length,
    )


def _with_one_part_that_got_worse(judgement: Judgement, standouts: list[dict[str, Any]]) -> Judgement:
    """A programme or kind that certainly got worse is a regression, and a first sign of it worth a look, however well
    the whole set does: over programmes as clusters, one that breaks is hidden by its own spread."""
    worse = [
        each
        for each in standouts
        if each["kind"] != "speaker" and each["difference"] >= PART_MARGIN.of(each["expected"])
    ]
    if not worse or judgement.verdict is Verdict.REGRESSED:
        return judgement
    certain = [each for each in worse if each["adjusted_p"] <= CERTAIN_P]
    verdict = Verdict.REGRESSED if certain else Verdict.WATCH
    worst = max(certain or worse, key=lambda each: each["n_errors"] - each["n_errors_before"])
    kind = worst["kind"].replace("programme_kind", "kind of programme")
    return replace(
        judgement,
        verdict=verdict,
        cause=Cause.ONE_NIGHT,
        effect=worst["difference"],
        nights=1,
        sentence=f"{judgement.set_name}: {verdict} in the {kind} {worst['name']}: "
        f"{100 * worst['wer']:.2f} % word error rate, where the baseline has {100 * worst['expected']:.2f} %; "
        f"the whole set {100 * (judgement.tonight.difference if judgement.tonight else 0):+.2f} points",
    )


def _residual(difference: Difference) -> Residual:
    """For the chart. A night that wrote what the baseline wrote has no error of its own to be divided by; it counts as
    exactly as the baseline's rate is known, so that after a fault was put right the chart falls as on other nights."""
    if difference.n_clusters_changed:
        return difference.residual
    error = math.sqrt(max(1, difference.a.errors)) / max(1, difference.a.reference_length)
    return Residual(value=0.0, standard_error=error, lasting_error=error, z=0.0)


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "baseline_wer": finite(difference.a.rate),
        "difference": finite(difference.value),
        "difference_low": finite(difference.low),
        "difference_high": finite(difference.high),
        "p_value": finite(difference.p_value),
    }


def _look_closer(pair: PairedRuns) -> dict[str, Any]:
    standouts, n_tested = find_standouts(pair)
    segments = pair.matched_pairs
    return {
        "standouts": [asdict(group) for group in standouts],
        "n_tested": n_tested,
        # positive values: the baseline makes more errors
        "matched_pairs": asdict(segments) if segments else None,
    }


def _not_measured(
    connection: Connection,
    run: Run,
    night: dt.date,
    baseline: BaselineRow | None,
    reason: str,
    scores: dict[str, RunScore] | None,
) -> VerdictRow:
    before, restarted = _chart_before(connection, run, night, baseline)
    judgement = judge(
        run.set_name, step(before, None), None, baseline_rate=baseline.wer if baseline else None
    )
    # an alarm of nights before stays in the chart's sums; tonight nothing is known all the same
    judgement = replace(
        judgement,
        verdict=Verdict.WATCH,
        cause=Cause.NOT_MEASURED,
        sentence=f"{run.set_name}: not measured for {judgement.state.n_missing} "
        f"night{'s' if judgement.state.n_missing != 1 else ''}: {reason}",
    )
    evidence: dict[str, Any] = {"reason": reason, "n_failed": run.n_failed}
    if restarted:
        evidence["chart_restarted"] = restarted
    return replace(
        _row(run, night, judgement, judgement.sentence, evidence),
        baseline_id=baseline.id if baseline else None,
        baseline_wer=baseline.wer if baseline else None,
        n_utterances=len(scores["basic"].keys) if scores else 0,
    )


def _row(
    run: Run, night: dt.date, judgement: Judgement, sentence: str, evidence: dict[str, Any]
) -> VerdictRow:
    return VerdictRow(
        night=night,
        question=QUESTION.value,
        subject=run.set_name,
        verdict=judgement.verdict.value,
        cause=judgement.cause.value,
        sentence=sentence,
        model_id=run.model_id,
        run_id=run.run_id,
        effect=finite(judgement.effect),
        nights=judgement.nights,
        margin=judgement.margin,
        chart=to_json(judgement.state),
        evidence=evidence,
    )
