"""The document of a night: what it holds, from rows in a real database, and how it is kept."""

from __future__ import annotations

import datetime as dt
import json
import math
from dataclasses import replace

import pytest
from sqlalchemy import text

from db.connect import transaction
from db.reports import NightUnknown, read_report
from evaluation.compare import compare_counts
from evaluation.report import errors
from evaluation.report.collect import collect
from evaluation.report.document import SetReport, as_json, from_json
from tests.evaluation.report.conftest import MadeReport
from tests.evaluation.report.made_report import LAST, MISSED, night_of


def set_of(made: MadeReport, name: str) -> SetReport:
    return next(one for one in made.document.sets if one.name == name)


def test_the_worst_verdict_comes_first_with_where_and_since_when(made: MadeReport) -> None:
    head = made.document.headline
    assert (head.verdict, head.question, head.subject) == ("regressed", "regression", "Transcrispeech")
    assert head.since == night_of(28)
    assert head.standouts == ("A debate",)
    assert [(one.question, one.subject) for one in head.others] == [("drift", "production")]
    assert head.n_open_alerts == 3
    assert not head.is_demo


def test_figures_are_the_stored_ones(made: MadeReport) -> None:
    found = set_of(made, "Transcrispeech")
    with made.engine.connect() as connection:
        row = connection.execute(
            text(
                "SELECT s.* FROM evaluation_scores s JOIN evaluation_runs r ON r.id = s.run_id "
                "JOIN held_out_sets h ON h.id = r.set_id "
                "WHERE r.night = :night AND h.name = 'Transcrispeech' AND normalizer = 'basic'"
            ),
            {"night": LAST},
        ).one()
    assert found.tonight is not None
    assert found.tonight.wer == row.wer
    assert found.tonight.insertions_on_empty == row.insertions_on_empty > 0
    assert found.before is not None
    assert found.before.night == night_of(29)
    assert found.baseline is not None
    assert found.baseline.night == night_of(1)
    assert found.second is not None
    assert found.card is not None
    assert found.card.wer == 0.1168
    assert [change.name for change in found.verdict.changes] == ["model", "decode_settings"]


def test_history_has_gaps_changes_and_the_band_of_the_paired_change(made: MadeReport) -> None:
    points = {point.night: point for point in set_of(made, "Entrevistas").history}
    assert len(points) == 30
    for number in MISSED:
        assert (points[night_of(number)].state, points[night_of(number)].wer) == ("missed", None)
    assert points[LAST].state == "not_measured"
    assert [night for night, point in points.items() if point.is_new_baseline] == [night_of(16)]
    assert [night for night, point in points.items() if point.is_new_model] == [night_of(21)]
    regressed = set_of(made, "Transcrispeech").history[-1]
    verdict = set_of(made, "Transcrispeech").verdict
    assert regressed.low is not None
    assert regressed.wer is not None
    assert verdict.difference is not None
    assert verdict.difference_low is not None
    assert regressed.low == pytest.approx(regressed.wer - verdict.difference + verdict.difference_low)


def test_what_was_not_measured_says_why(made: MadeReport) -> None:
    reasons = {one.subject: one.reason for one in made.document.not_measured}
    assert reasons["Entrevistas"] == "its run was not finished within 18 hours"
    assert "folder roto" in reasons[""]


def test_alerts_as_of_the_night(made: MadeReport) -> None:
    alerts = {(alert.kind, alert.subject): alert for alert in made.document.alerts}
    assert alerts["not_measured", "Entrevistas"].is_new
    assert not alerts["regression", "FLEURS"].is_open
    assert alerts["regression", "FLEURS"].close_reason
    with made.engine.connect() as connection:
        before = collect(connection, night_of(29))
    assert {(alert.kind, alert.subject): alert.is_open for alert in before.alerts} == {
        ("regression", "Transcrispeech"): True,
        ("drift", "production"): True,
        ("regression", "FLEURS"): True,
    }


def test_errors_add_up_in_every_view(made: MadeReport) -> None:
    found = made.document.errors
    assert found is not None
    measured = [one.tonight for one in made.document.sets if one.tonight is not None]
    assert found.n_words == sum(one.n_words for one in measured)
    assert found.n_errors == sum(one.substitutions + one.deletions + one.insertions for one in measured)
    for rows in (found.by_length, found.by_confidence, found.by_programme, found.by_kind):
        assert sum(row.n_errors for row in rows) == found.n_errors
        assert sum(row.n_utterances for row in rows) == found.n_utterances
    assert found.by_programme[0].programme == "A debate"
    assert found.by_programme[0].stands_out
    assert made.document.combined is not None
    assert made.document.combined.n_words == found.n_words
    assert sum(row.count for row in found.confusions) <= found.n_errors
    assert found.confusions[0].count >= found.confusions[-1].count


def test_the_worst_come_by_errors_and_their_alignment_is_the_texts(made: MadeReport) -> None:
    worst = made.document.worst
    assert len(worst) == 20
    assert [one.n_errors for one in worst] == sorted((one.n_errors for one in worst), reverse=True)
    for one in worst:
        n_errors = sum(max(len(p.reference), len(p.hypothesis)) for p in one.alignment if p.kind != "equal")
        assert n_errors == one.n_errors
        assert sum(len(piece.reference) for piece in one.alignment) == one.n_words
    assert worst[0].flags == ("loop", "low_confidence")


def test_drift_and_production(made: MadeReport) -> None:
    drift = made.document.drift
    assert drift is not None
    assert drift.verdict.standouts[0].name == "Magazine"
    points = {point.night: point for point in drift.history}
    assert points[night_of(9)].state == "not_measured"
    rolling = [
        point for point in points.values() if point.wer is not None and point.night > LAST - dt.timedelta(28)
    ]
    words = sum(point.n_words for point in rolling)
    expected = sum((point.wer or 0) * point.n_words for point in rolling) / words
    assert drift.rolling[-1].wer == pytest.approx(expected)
    assert drift.parts[0].kind == "all"
    figures = made.document.production
    assert figures is not None
    assert figures.total.n_waiting == 2
    assert figures.total.coverage is not None
    assert 0.99 < figures.total.coverage < 1
    assert made.document.unreferenced.findings[0].measure == "loop_rate"


def test_the_document_is_json_and_comes_back_the_same(made: MadeReport) -> None:
    content = json.loads(json.dumps(made.written.document, allow_nan=False))
    assert as_json(from_json(content)) == content
    with made.engine.connect() as connection:
        stored = read_report(connection)
    assert stored is not None
    assert stored.document == content
    assert json.loads(made.read("report.json")) == content
    # keys of a later version do no harm, another format does
    assert from_json(content | {"unheard_of": 1}).night == LAST
    with pytest.raises(ValueError, match="has format 99"):
        from_json(content | {"format": 99})
    with pytest.raises(ValueError, match="nan"):
        as_json(replace(made.document, chart_limit=math.nan))


def test_an_unknown_night_is_named(made: MadeReport) -> None:
    with made.engine.connect() as connection, pytest.raises(NightUnknown, match="2020-01-01"):
        collect(connection, dt.date(2020, 1, 1))


def test_a_night_before_anything_was_measured_has_a_report(made: MadeReport) -> None:
    night = dt.date(2026, 1, 1)
    with made.engine.connect() as connection:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, from_at, until_at) VALUES (:n, '2025-12-31', '2026-01-01')"
            ),
            {"n": night},
        )
        document = collect(connection, night)
        connection.rollback()
    assert document.sets == ()
    assert document.headline.question is None
    assert document.errors is None
    assert as_json(document)["worst"] == []


def test_difference_of_a_programme_is_the_paired_one(made: MadeReport) -> None:
    from db.evaluation_runs import find_runs, read_predictions

    with transaction(made.engine) as tx:
        tonight = next(run for run in find_runs(tx.connection, LAST) if run.set_name == "Transcrispeech")
        first = next(run for run in find_runs(tx.connection, night_of(1)) if run.set_name == "Transcrispeech")
        scored = errors.score_rows(
            "Transcrispeech",
            read_predictions(tx.connection, tonight.run_id),
            read_predictions(tx.connection, first.run_id),
        )
    chosen = [index for index, row in enumerate(scored.rows) if row.programme == "Libros"]
    import numpy as np

    expected = compare_counts(
        scored.baseline_words.take(np.array(chosen)),
        scored.words.take(np.array(chosen)),
        clusters=[scored.rows[index].speaker for index in chosen],
    )
    assert made.document.errors is not None
    row = next(row for row in made.document.errors.by_programme if row.programme == "Libros")
    assert row.difference == pytest.approx(expected.value)
