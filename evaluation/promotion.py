"""May a candidate take the place of the deployed model? Only where it is shown to do no harm, on every fixed set.

That a test finds no difference shows nothing: a small set never finds one. So the candidate's errors are paired with
the deployed model's, and the upper end of the one-sided 95 % interval of the difference must stay below a margin (a
test of non-inferiority: Wellek, Testing Statistical Hypotheses of Equivalence and Noninferiority, 2nd edition 2010).
Every set must pass by itself, and for that no correction is needed: the chance that a harmful candidate passes all is
at most the chance that it passes the one it harms (the intersection-union test: Berger, "Multiparameter hypothesis
testing and acceptance sampling", Technometrics 24(4), 1982).

An utterance for which the candidate has no text counts as if it had written nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from scipy.special import stdtrit
from sqlalchemy import Connection

from db.baselines import MAX_FAILED_SHARE, BaselineRow, list_baselines
from db.evaluation_runs import Run, find_newest_run, read_predictions
from evaluation.bootstrap import (
    CONFIDENCE,
    cluster_sums,
    effective_clusters,
    jackknife_standard_error,
    known_error,
    two_sided_t,
)
from evaluation.compare import SIGNIFICANCE
from evaluation.counts import EditCounts, group_indices
from evaluation.paired_runs import pair_runs
from evaluation.run_scores import set_clusters
from evaluation.verdict import Margin

PROMOTION_MARGIN = Margin(relative=0.05, absolute=0.001)
"""The most harm that may remain possible: the larger of 5 % of the deployed model's rate and 0.1 points."""


class Outcome(StrEnum):
    """What is shown of a candidate on one set."""

    HARMLESS = "harmless"
    HARMFUL = "harmful"
    """It makes more errors, and that is no chance."""
    UNDECIDED = "undecided"
    """It may be as good, but that is not shown."""
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True)
class NonInferiority:
    """The candidate's word error rate less the deployed model's, and what may be concluded."""

    outcome: Outcome
    difference: float
    low: float
    high: float
    """The 95 % interval, two-sided, by Student's t over clusters."""
    upper: float
    """Upper end of the one-sided 95 % interval: what must stay below the margin. nan: one cluster tells nothing."""
    margin: float
    p_value: float
    """Two-sided, that they are equally good."""
    deployed_wer: float
    candidate_wer: float
    n_utterances: int
    n_words: int
    n_clusters: int
    more_utterances: int | None
    """About how many more would settle it, if the difference stays what it is; None where no number would."""


def judge_harm(
    deployed: EditCounts,
    candidate: EditCounts,
    clusters: Sequence[Hashable],
    margin: Margin = PROMOTION_MARGIN,
) -> NonInferiority:
    """Compare a candidate with the deployed model on the same utterances, in the same order."""
    sums = cluster_sums(
        group_indices(clusters, len(deployed)), candidate.errors - deployed.errors, deployed.reference_lengths
    )
    n_words = float(sums[:, 1].sum())
    value = float(sums[:, 0].sum()) / n_words if n_words else math.nan
    error = known_error(
        jackknife_standard_error(sums[:, 0], sums[:, 1]),
        deployed.total.errors + candidate.total.errors,
        n_words,
    )
    rate = deployed.total.rate
    allowed = margin.of(rate)
    changed = int((sums[:, 0] != 0).sum())
    if not changed and len(sums) > 1 and n_words:
        low = high = upper = value
        p_value = 1.0
    else:
        # clusters in which nothing changed tell little of the spread: they must not lend degrees of freedom
        degrees = max(1.0, min(effective_clusters(sums[:, 1]), changed) - 1)
        two, one = (-float(stdtrit(degrees, tail)) for tail in ((1 - CONFIDENCE) / 2, 1 - CONFIDENCE))
        low, high, upper = value - two * error, value + two * error, value + one * error
        p_value = two_sided_t(value / error, degrees) if error > 0 else math.nan
    if p_value < SIGNIFICANCE and value > 0:
        outcome = Outcome.HARMFUL
    elif upper < allowed:
        outcome = Outcome.HARMLESS
    else:
        outcome = Outcome.UNDECIDED
    return NonInferiority(
        outcome=outcome,
        difference=value,
        low=low,
        high=high,
        upper=upper,
        margin=allowed,
        p_value=p_value,
        deployed_wer=rate,
        candidate_wer=candidate.total.rate,
        n_utterances=len(deployed),
        n_words=int(n_words),
        n_clusters=len(sums),
        more_utterances=_more(len(deployed), value, upper, allowed) if outcome is Outcome.UNDECIDED else None,
    )


def _more(n_utterances: int, value: float, upper: float, allowed: float) -> int | None:
    """The width of an interval goes with the root of the number of utterances."""
    room, width = allowed - value, upper - value
    if not room > 0 or not math.isfinite(width):
        return None
    return math.ceil(n_utterances * ((width / room) ** 2 - 1)) + 1


@dataclass(frozen=True)
class SetDecision:
    """What is shown on one fixed set, or what is missing for it."""

    set_name: str
    set_id: int
    outcome: Outcome
    sentence: str
    """For a person, in English."""
    test: NonInferiority | None = None
    candidate_run: Run | None = None
    deployed_run: Run | None = None
    missing: tuple[str, ...] = ()
    """Who has no run that can be compared: `candidate`, `deployed`."""


@dataclass(frozen=True)
class Promotion:
    """Whether a candidate may be deployed."""

    sets: tuple[SetDecision, ...]

    @property
    def is_allowed(self) -> bool:
        """Shown to be harmless on every fixed set, of which there must be one."""
        return bool(self.sets) and all(each.outcome is Outcome.HARMLESS for each in self.sets)

    @property
    def evidence(self) -> dict[str, Any]:
        """For the deployment's row: numbers only, nan as None."""
        return {"sets": {each.set_name: _evidence(each) for each in self.sets}}


def _evidence(decision: SetDecision) -> dict[str, Any]:
    test = asdict(decision.test) if decision.test else {}
    return {
        "outcome": decision.outcome.value,
        "sentence": decision.sentence,
        "candidate_run": str(decision.candidate_run.run_id) if decision.candidate_run else None,
        "deployed_run": str(decision.deployed_run.run_id) if decision.deployed_run else None,
        **{
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in test.items()
            if name != "outcome"
        },
    }


def decide(
    connection: Connection,
    *,
    candidate_sha256: str,
    deployed_sha256: str | None,
    margin: Margin = PROMOTION_MARGIN,
) -> Promotion:
    """Compare a candidate with the deployed model on every set that has a baseline in force.

    Args:
        candidate_sha256: of its weights: whatever it was called when it was evaluated.
        deployed_sha256: of the deployed model's; None compares with the model of each set's baseline.
    """
    return Promotion(
        tuple(
            _decide(
                connection, baseline, candidate_sha256, deployed_sha256 or baseline.weights_sha256, margin
            )
            for baseline in list_baselines(connection)
        )
    )


def _decide(
    connection: Connection, baseline: BaselineRow, candidate_sha256: str, deployed_sha256: str, margin: Margin
) -> SetDecision:
    candidate = find_newest_run(connection, baseline.set_id, candidate_sha256)
    deployed = find_newest_run(connection, baseline.set_id, deployed_sha256)
    missing = tuple(name for name, run in (("candidate", candidate), ("deployed", deployed)) if run is None)
    if candidate is None or deployed is None:
        return SetDecision(
            baseline.set_name,
            baseline.set_id,
            Outcome.NOT_MEASURED,
            f"no finished run of the {' nor of the '.join(missing)} model on the set as it is now",
            candidate_run=candidate,
            deployed_run=deployed,
            missing=missing,
        )
    if failed := _failures(candidate, deployed):
        return SetDecision(
            baseline.set_name,
            baseline.set_id,
            Outcome.NOT_MEASURED,
            failed,
            candidate_run=candidate,
            deployed_run=deployed,
            missing=("candidate",)
            if candidate.n_failed > MAX_FAILED_SHARE * candidate.n_utterances
            else ("deployed",),
        )
    written = [replace(row, text=row.text or "") for row in read_predictions(connection, candidate.run_id)]
    pair = pair_runs(read_predictions(connection, deployed.run_id), written)
    test = judge_harm(pair.before, pair.now, set_clusters(pair.rows), margin)
    return SetDecision(
        baseline.set_name,
        baseline.set_id,
        test.outcome,
        _sentence(test) + _conditions(candidate, deployed),
        test=test,
        candidate_run=candidate,
        deployed_run=deployed,
    )


def _failures(candidate: Run, deployed: Run) -> str | None:
    for name, run in (("candidate", candidate), ("deployed", deployed)):
        if run.n_failed > MAX_FAILED_SHARE * run.n_utterances:
            return (
                f"the {name} model's run has no text for {run.n_failed:,} of {run.n_utterances:,} utterances: "
                "evaluate it again with --again"
            )
    return None


def _sentence(test: NonInferiority) -> str:
    points = f"{100 * test.difference:+.2f} points"
    if test.outcome is Outcome.HARMFUL:
        return (
            f"more errors: {points} (95 % interval {100 * test.low:+.2f} to {100 * test.high:+.2f}); "
            "that is no chance"
        )
    if math.isnan(test.upper):
        return "one cluster (programme, speaker) says nothing about others"
    at_most = f"{100 * test.upper:+.2f} points at most (95 %)"
    allowed = f"{100 * test.margin:.2f} are allowed"
    if test.outcome is Outcome.HARMLESS:
        return f"no harm: {points}, {at_most}; {allowed}"
    if test.more_utterances is None:
        return f"not shown: {points} itself is not below the {100 * test.margin:.2f} that are allowed"
    return (
        f"not shown: {points}, {at_most}; {allowed}. About {test.more_utterances:,} more utterances, by others, "
        "would settle it if the difference stays"
    )


def _conditions(candidate: Run, deployed: Run) -> str:
    """What was not the same beside the model: a difference may come from it."""
    other = [
        f"{name} {before} -> {now}"
        for name, before, now in (
            ("device", deployed.device, candidate.device),
            ("code", deployed.code_version, candidate.code_version),
        )
        if before != now
    ]
    return f" (the runs differ in {', '.join(other)})" if other else ""
