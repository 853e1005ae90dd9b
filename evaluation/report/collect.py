"""Read one night from the database and put its report together."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, RowMapping

from db import reports
from db.code_version import code_version
from db.evaluation_runs import read_predictions
from db.production import Production, production_figures
from evaluation.bootstrap import ratio_interval
from evaluation.card import CARD, COMBINED, card_figure
from evaluation.chart import DESIGN
from evaluation.counts import group_indices
from evaluation.normalizer import VERSION as GALICIAN_VERSION
from evaluation.production import UnitKind, read_window, rolling_window
from evaluation.report import errors
from evaluation.report.document import (
    FORMAT,
    PRODUCTION,
    AlertRow,
    BaselineFacts,
    CardFigures,
    Document,
    DriftReport,
    FindingRow,
    Headline,
    ModelFacts,
    NightPoint,
    NotMeasured,
    Other,
    ProductionFigures,
    ProductionRow,
    RollingPoint,
    ScoreRow,
    SetReport,
    Standout,
    SystemChange,
    UnreferencedReport,
    VerdictEntry,
    WindowPart,
    named,
)

HISTORY_DAYS = 90
BASIC, GALICIAN = "basic", "galician"
WINDOW_DAYS = 28

Row = RowMapping
Verdicts = dict[tuple[str, str], dict[dt.date, RowMapping]]
"""Verdict rows by question and subject, then by night, in order."""


def collect(
    connection: Connection,
    night: dt.date,
    *,
    zone: str = "UTC",
    window_days: int = WINDOW_DAYS,
    made_at: dt.datetime | None = None,
) -> Document:
    """The report of a settled night, without clips.

    Args:
        connection: only read from.
        night: settled, or at least judged: its verdicts are what the report tells.
        zone: of the times that people read.
        window_days: of the rolling window of corrections.
        made_at: now, unless said otherwise.

    Raises:
        NightUnknown: the night was never begun.
    """
    found = reports.read_night(connection, night)
    nights = reports.read_nights(connection, night, HISTORY_DAYS)
    verdicts = _by_subject(reports.read_verdict_history(connection, night, HISTORY_DAYS))
    tonight = {key: rows[night] for key, rows in verdicts.items() if night in rows}
    runs = reports.read_runs(connection, night)
    baselines = reports.read_baselines(
        connection, {row["baseline_id"] for row in tonight.values() if row["baseline_id"] is not None}
    )
    missing: list[NotMeasured] = []
    if found.failure_reason:
        missing.append(NotMeasured("", found.failure_reason))

    sets: list[SetReport] = []
    parts: list[errors.Scored] = []
    for name in sorted(subject for question, subject in tonight if question == "regression"):
        history = verdicts["regression", name]
        run = next((run for run in runs if run["set_name"] == name), None)
        report, scored = _set(connection, history, nights, run, baselines)
        sets.append(report)
        if scored is not None and len(scored):
            parts.append(scored)
        if report.verdict.cause == "not_measured":
            missing.append(NotMeasured(name, report.verdict.reason or _why(run)))

    drift = _drift(connection, verdicts.get(("drift", PRODUCTION), {}), nights, found, window_days)
    if drift is not None and drift.verdict.cause == "not_measured":
        missing.append(NotMeasured(PRODUCTION, drift.verdict.reason or "no usable corrections tonight"))
    unreferenced = _unreferenced(connection, night, verdicts.get(("unreferenced", PRODUCTION), {}))
    alerts = tuple(
        AlertRow(**dict(row), is_new=row["opened_night"] == night)
        for row in reports.read_alerts(connection, night)
    )
    joined = errors.join(parts) if parts else None
    models = _models(runs, tonight.values())
    return Document(
        format=FORMAT,
        night=night,
        zone=zone,
        from_at=found.from_at.astimezone(ZoneInfo(zone)),
        until_at=found.until_at.astimezone(ZoneInfo(zone)),
        made_at=(made_at or dt.datetime.now(dt.UTC)).astimezone(ZoneInfo(zone)).replace(microsecond=0),
        code_version=code_version(),
        headline=_headline(sets, drift, unreferenced, alerts, models),
        sets=tuple(sets),
        combined=_combined(joined, baseline=False) if len(parts) > 1 else None,
        combined_baseline=_combined(joined, baseline=True) if len(parts) > 1 else None,
        combined_card=_combined_card(sets),
        drift=drift,
        unreferenced=unreferenced,
        alerts=alerts,
        errors=errors.analyse(joined, _standing_out(sets)) if joined is not None else None,
        worst=errors.worst(joined) if joined is not None else (),
        production=_production(connection, found),
        models=models,
        not_measured=tuple(missing),
        normalizers=(BASIC, GALICIAN_VERSION),
        chart_limit=DESIGN.limit,
    )


def _by_subject(rows: Iterable[RowMapping]) -> Verdicts:
    found: Verdicts = defaultdict(dict)
    for row in rows:
        found[row["question"], row["subject"]][row["night"]] = row
    return dict(found)


# --- verdicts and their history --------------------------------------------------------------------------


def _is_measured(row: Row) -> bool:
    return row["wer"] is not None and row["cause"] != "not_measured"


def _entry(history: Mapping[dt.date, RowMapping]) -> VerdictEntry:
    """The newest verdict of a subject, with what its history adds."""
    rows = list(history.values())
    row = rows[-1]
    chart = row["chart"] or {}
    evidence = row["evidence"] or {}
    own = tuple(_standout(found) for found in evidence.get("standouts") or ())
    effect = row["effect"] or 0.0
    return VerdictEntry(
        question=row["question"],
        subject=row["subject"],
        verdict=row["verdict"],
        cause=row["cause"],
        **{name: row[name] for name in _FIGURES},
        effect=row["effect"],
        nights=row["nights"],
        since=_since(rows),
        margin=row["margin"],
        n_missing=int(chart.get("n_missing") or 0) if row["cause"] == "not_measured" else 0,
        n_utterances=row["n_utterances"],
        n_words=row["n_words"],
        standouts=tuple(one for one in own if (one.difference or 0.0) * effect >= 0),
        changes=tuple(_change(name, found) for name, found in (evidence.get("changes") or {}).items()),
        reason=evidence.get("reason"),
    )


_FIGURES = (
    "wer",
    "wer_low",
    "wer_high",
    "baseline_wer",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
)


def _since(rows: Sequence[Row]) -> dt.date | None:
    """The night in which the newest row's change began: so many measured nights back."""
    if rows[-1]["nights"] < 1:
        return None
    measured = [row["night"] for row in rows if _is_measured(row)]
    return measured[-min(rows[-1]["nights"], len(measured))] if measured else None


def _standout(found: Mapping[str, Any]) -> Standout:
    return Standout(
        kind=str(found.get("kind") or "programme"),
        name=str(found["name"]),
        broadcaster=found.get("broadcaster"),
        wer=found.get("wer"),
        expected=found.get("expected"),
        difference=found.get("difference"),
        adjusted_p=found.get("adjusted_p"),
    )


def _change(name: str, found: Mapping[str, Any]) -> SystemChange:
    def told(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {part}" for key, part in sorted(value.items()))
        return str(value) if value is not None else "–"

    return SystemChange(name, told(found.get("before")), told(found.get("now")))


def _history(
    rows: Mapping[dt.date, Row], nights: Sequence[reports.NightRow], basis: str
) -> tuple[NightPoint, ...]:
    """Every night since the first verdict; `basis` names the column whose change restarts the comparison."""
    if not rows:
        return ()
    points: list[NightPoint] = []
    model: int | None = None
    against: int | None = None
    first = next(iter(rows))
    for night in nights:
        if night.night < first:
            continue
        row = rows.get(night.night)
        if row is None or not _is_measured(row):
            state = "missed" if night.state == "missed" else "not_measured"
            points.append(_unmeasured(night.night, state, row))
            continue
        band = (
            None
            if row["baseline_wer"] is None or row["difference_low"] is None or row["difference_high"] is None
            else (row["wer"] - row["difference"] + row["difference_low"],
                  row["wer"] - row["difference"] + row["difference_high"])
        )  # fmt: skip
        chart = row["chart"] or {}
        points.append(
            NightPoint(
                night=night.night,
                state="measured",
                wer=row["wer"],
                low=max(0.0, band[0]) if band else None,
                high=band[1] if band else None,
                baseline_wer=row["baseline_wer"],
                n_words=row["n_words"],
                verdict=row["verdict"],
                up=(chart.get("up") or {}).get("total"),
                down=(chart.get("down") or {}).get("total"),
                model=row["model_name"],
                is_new_model=model is not None and row["model_id"] is not None and row["model_id"] != model,
                is_new_baseline=against is not None and row[basis] is not None and row[basis] != against,
            )
        )
        model = row["model_id"] if row["model_id"] is not None else model
        against = row[basis] if row[basis] is not None else against
    return tuple(points)


def _unmeasured(night: dt.date, state: str, row: Row | None) -> NightPoint:
    return NightPoint(
        night=night, state=state, wer=None, low=None, high=None, baseline_wer=None, n_words=0,
        verdict=row["verdict"] if row else None, up=None, down=None, model=None,
        is_new_model=False, is_new_baseline=False,
    )  # fmt: skip


# --- fixed sets ------------------------------------------------------------------------------------------


def _set(
    connection: Connection,
    history: Mapping[dt.date, RowMapping],
    nights: Sequence[reports.NightRow],
    run: RowMapping | None,
    baselines: Mapping[int, RowMapping],
) -> tuple[SetReport, errors.Scored | None]:
    row = list(history.values())[-1]
    baseline = baselines.get(row["baseline_id"])
    before = reports.read_run_before(connection, run["set_id"], row["night"]) if run is not None else None
    ids = [one["run_id"] for one in (run, before, baseline) if one is not None]
    scores = reports.read_scores(connection, ids)

    def score(of: RowMapping | None, normalizer: str = BASIC) -> ScoreRow | None:
        return _score(scores.get((of["run_id"], normalizer)), of["night"]) if of is not None else None

    scored = None
    if run is not None and (run["run_id"], BASIC) in scores:
        own = read_predictions(connection, run["run_id"])
        accepted = read_predictions(connection, baseline["run_id"]) if baseline is not None else []
        scored = errors.score_rows(row["subject"], own, accepted)
    report = SetReport(
        name=row["subject"],
        verdict=_entry(history),
        tonight=score(run),
        before=score(before),
        baseline=score(baseline),
        second=score(run, GALICIAN),
        card=_card(row["subject"]),
        baseline_facts=_baseline_facts(baseline),
        history=_history(history, nights, "baseline_id"),
    )
    return report, scored


def _standing_out(sets: Iterable[SetReport]) -> set[tuple[str, str | None]]:
    """(set, programme) of the programmes that verdicts name for having more errors."""
    return {
        (one.name, found.name)
        for one in sets
        for found in one.verdict.standouts
        if found.kind == "programme" and (found.difference or 0.0) > 0
    }


def _score(row: RowMapping | None, night: dt.date | None) -> ScoreRow | None:
    if row is None:
        return None
    return ScoreRow(
        night=night,
        n_utterances=row["n_utterances"],
        n_failed=row["n_failed"],
        n_words=row["word_hits"] + row["word_substitutions"] + row["word_deletions"],
        substitutions=row["word_substitutions"],
        deletions=row["word_deletions"],
        insertions=row["word_insertions"],
        insertions_on_empty=row["insertions_on_empty"],
        **{name: row[name] for name in ("wer", "wer_low", "wer_high", "cer", "cer_low", "cer_high")},
    )


def _baseline_facts(row: RowMapping | None) -> BaselineFacts | None:
    if row is None:
        return None
    return BaselineFacts(
        row["night"], row["model_name"], row["accepted_at"], row["accepted_by"], row["reason"]
    )


def _combined(scored: errors.Scored | None, *, baseline: bool) -> ScoreRow | None:
    """All sets over all words; of the baseline, the utterances that both have."""
    if scored is None:
        return None
    words = scored.baseline_words if baseline else scored.words
    chosen = scored.has_baseline
    clusters = errors.clusters_of(scored)
    if baseline:
        if not chosen.any():
            return None
        words = words.take(chosen)
        clusters = [cluster for cluster, is_in in zip(clusters, chosen, strict=True) if is_in]
    total = words.total
    low, high = ratio_interval(
        words.errors, words.reference_lengths, group_indices(clusters, len(clusters)), 0
    )
    return ScoreRow(
        night=None,
        n_utterances=len(words),
        n_failed=0,
        n_words=total.reference_length,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        insertions_on_empty=int(words.insertions[words.reference_lengths == 0].sum()),
        wer=total.errors / total.reference_length if total.reference_length else None,
        wer_low=errors.finite(low),
        wer_high=errors.finite(high),
        cer=None,
        cer_low=None,
        cer_high=None,
    )


def _card(name: str) -> CardFigures | None:
    found = card_figure(name)
    return CardFigures(found.n_utterances, found.wer, found.cer) if found else None


def _combined_card(sets: Sequence[SetReport]) -> CardFigures | None:
    """The card's figure over all its sets, where exactly those were measured."""
    named = {figure.dataset for figure in CARD} - {COMBINED}
    measured = [found.dataset if (found := card_figure(one.name)) else one.name for one in sets]
    return _card(COMBINED) if sorted(measured) == sorted(named) else None


def _why(run: RowMapping | None) -> str:
    if run is None:
        return "it was not among the sets of this night"
    if run["abandoned_reason"]:
        return str(run["abandoned_reason"])
    return "its run was not finished in time" if run["started_at"] else "no worker began its run in time"


# --- production ------------------------------------------------------------------------------------------


def _drift(
    connection: Connection,
    history: Mapping[dt.date, RowMapping],
    nights: Sequence[reports.NightRow],
    night: reports.NightRow,
    window_days: int,
) -> DriftReport | None:
    if night.night not in history:
        return None
    row = history[night.night]
    references = reports.read_drift_references(
        connection, [row["reference_id"]] if row["reference_id"] is not None else []
    )
    reference = references.get(row["reference_id"])
    parts: tuple[WindowPart, ...] = ()
    if row["model_id"] is not None:
        from_at = night.until_at - dt.timedelta(days=window_days)
        window = rolling_window(
            read_window(connection, row["model_id"], from_at, night.until_at), from_at, night.until_at
        )
        parts = tuple(
            WindowPart(
                kind=figure.kind.value,
                broadcaster=figure.broadcaster,
                name=figure.name,
                wer=figure.wer,
                wer_low=figure.low,
                wer_high=figure.high,
                n_segments=figure.n_segments,
                n_words=figure.n_words,
                n_errors=figure.n_errors,
            )
            for figure in window.figures
            if figure.n_segments or figure.kind is UnitKind.ALL
        )
    return DriftReport(
        verdict=_entry(history),
        window_days=window_days,
        rolling=_rolling(history, window_days),
        parts=parts,
        reference_from=reference["from_at"] if reference else None,
        reference_until=reference["until_at"] if reference else None,
        history=_history(history, nights, "reference_id"),
    )


def _rolling(history: Mapping[dt.date, Row], days: int) -> tuple[RollingPoint, ...]:
    """The nights of the last `days` together, against one reference: what was found and what was to be expected."""
    points = []
    measured = [row for row in history.values() if _is_measured(row) and row["baseline_wer"] is not None]
    for last in measured:
        inside = [
            row
            for row in measured
            if dt.timedelta(0) <= last["night"] - row["night"] < dt.timedelta(days=days)
            and row["reference_id"] == last["reference_id"]
        ]
        words = sum(row["n_words"] for row in inside)
        if words:
            points.append(
                RollingPoint(
                    last["night"],
                    sum(row["wer"] * row["n_words"] for row in inside) / words,
                    sum(row["baseline_wer"] * row["n_words"] for row in inside) / words,
                )
            )
    return tuple(points)


def _unreferenced(
    connection: Connection, night: dt.date, history: Mapping[dt.date, RowMapping]
) -> UnreferencedReport:
    n_compared, n_measures = reports.count_compared_measures(connection, night)
    return UnreferencedReport(
        verdict=_entry(history) if night in history else None,
        n_measures=n_measures,
        n_compared=n_compared,
        findings=tuple(
            FindingRow(**{name: row[name] for name in FindingRow.__dataclass_fields__})
            for row in reports.read_findings(connection, night)
        ),
    )


def _production(connection: Connection, night: reports.NightRow) -> ProductionFigures:
    figures = production_figures(connection, night.from_at, night.until_at)
    return ProductionFigures(
        total=_production_row(None, figures.total),
        by_broadcaster=tuple(_production_row(name, row) for name, row in figures.by_broadcaster.items()),
        rtfx=figures.rtfx,
    )


def _production_row(broadcaster: str | None, row: Production) -> ProductionRow:
    return ProductionRow(
        broadcaster=broadcaster,
        n_recordings=row.n_recordings,
        audio_h=row.audio_h,
        transcribed_h=row.transcribed_h,
        no_speech_h=row.no_speech_h,
        failed_h=row.failed_h,
        n_failed_recordings=row.n_failed_recordings,
        n_waiting=row.n_waiting,
        waiting_h=row.waiting_h,
        coverage=row.share(row.transcribed_h + row.no_speech_h),
    )


# --- the rest --------------------------------------------------------------------------------------------

_RANK = ("regressed", "not_measured", "watch", "improved", "ok")
"""What the headline speaks of first."""


def rank(entry: VerdictEntry) -> int:
    """How urgent a verdict is: 0 is the most."""
    if entry.cause == "not_measured" and entry.question == "regression":
        return _RANK.index("not_measured")
    if entry.cause == "not_measured":
        return _RANK.index("ok")  # drift without corrections, measures without a history: told, and no alarm
    return _RANK.index(entry.verdict)


def _headline(
    sets: Sequence[SetReport],
    drift: DriftReport | None,
    unreferenced: UnreferencedReport,
    alerts: Sequence[AlertRow],
    models: Sequence[ModelFacts],
) -> Headline:
    entries = [report.verdict for report in sets]
    entries += [drift.verdict] if drift else []
    entries += [unreferenced.verdict] if unreferenced.verdict else []
    n_open = sum(alert.is_open for alert in alerts)
    is_demo = any(model.is_demo for model in models)
    first = min(entries, key=lambda one: (rank(one), -abs(one.effect or 0)), default=None)
    if first is None or _RANK[rank(first)] == "ok":
        return Headline("ok", "nothing", None, None, None, None, (), (), len(entries), n_open, is_demo)
    return Headline(
        verdict=first.verdict,
        cause=first.cause,
        question=first.question,
        subject=first.subject,
        effect=first.effect,
        since=first.since,
        standouts=named(first),
        others=tuple(
            Other(one.question, one.subject)
            for one in entries
            if one is not first and rank(one) == rank(first)
        ),
        n_subjects=len(entries),
        n_open_alerts=n_open,
        is_demo=is_demo,
    )


def _models(runs: Iterable[RowMapping], verdicts: Iterable[RowMapping]) -> tuple[ModelFacts, ...]:
    """Each way in which texts were made, and for which sets; then models that only production shows."""
    found: dict[tuple[Any, ...], tuple[RowMapping, list[str]]] = {}
    for run in runs:
        if run["model_id"] is not None:
            key = (
                run["model_id"],
                run["prompt"],
                str(run["decode_settings"]),
                run["device"],
                run["code_version"],
            )
            found.setdefault(key, (run, []))[1].append(run["set_name"])
    facts = [
        ModelFacts(
            name=run["model_name"],
            weights_sha256=run["weights_sha256"],
            is_demo=run["is_demo"],
            prompt=run["prompt"],
            decode_settings=run["decode_settings"],
            device=run["device"],
            code_version=run["code_version"],
            sets=tuple(names),
        )
        for run, names in found.values()
    ]
    known = {(one.name, one.weights_sha256) for one in facts}
    for row in verdicts:
        if row["model_id"] is not None and (row["model_name"], row["weights_sha256"]) not in known:
            known.add((row["model_name"], row["weights_sha256"]))
            facts.append(
                ModelFacts(
                    row["model_name"], row["weights_sha256"], row["is_demo"], None, None, None, None, ()
                )
            )
    return tuple(facts)
