"""Nights with a known truth, settled on a real database: what is said, when, and only once."""

from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, text

import evaluation.night
import evaluation.night_regression
from db.baselines import accept_by_name, list_baselines, retire_baseline
from db.connect import transaction
from db.evaluation_runs import NewUtterance, Provenance, abandon_run, find_runs, open_manual_run
from db.nights import is_ready, lock_nights, read_night
from db.settings import Settings
from evaluation.chart import ChartDesign, ChartState, Residual, Side, step
from evaluation.chart_json import from_json, to_json
from evaluation.night import settle
from tests.evaluation.night_factory import FIRST, Nights, made_set, steady

Query = Callable[..., list[Any]]
WEBHOOK = "https://alerts.example/hook"


@pytest.fixture
def query(engine: Engine) -> Query:
    def run(statement: str, **values: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(text(statement), values).all())

    return run


@pytest.fixture
def nights(engine: Engine, settings: Settings) -> Nights:
    told = {"alert_webhook_url": WEBHOOK, "alert_mail_to": "a@example.org, b@example.org"}
    return Nights(engine, settings.model_copy(update=told))


def alerts(query: Query) -> list[tuple[Any, ...]]:
    return [
        tuple(row)
        for row in query(
            "SELECT kind, subject, opened_night, last_night, n_quiet_nights, close_reason FROM alerts ORDER BY id"
        )
    ]


def day(n: int) -> dt.date:
    """The n-th night, from 1."""
    return FIRST + dt.timedelta(days=n - 1)


def worse_in(kind: str) -> Callable[[NewUtterance], float]:
    """Some more errors everywhere, and many in one kind of programme."""
    return lambda utterance: 0.6 if utterance.kind == kind else 0.25


# --- ten nights ------------------------------------------------------------------------------------------


def test_ten_nights_with_a_regression_that_is_found_followed_and_closed(nights: Nights, query: Query) -> None:
    held_out = made_set()
    verdicts = [nights.night(held_out, steady()) for _ in range(3)]
    assert [row.verdict for row in verdicts] == ["ok", "ok", "ok"]
    assert verdicts[0].evidence["accepted"] == "first run of this set"
    assert "accepted as the baseline: first run of this set" in verdicts[0].sentence
    assert verdicts[1].difference == 0
    assert alerts(query) == []

    nights.code_version = "1.1"
    bad = nights.night(held_out, worse_in("Tempo"), model="worse")
    assert (bad.verdict, bad.cause) == ("regressed", "one_night")
    assert bad.wer is not None
    assert bad.baseline_wer == pytest.approx(verdicts[0].wer)
    assert bad.difference == pytest.approx(bad.wer - (verdicts[0].wer or 0))
    assert bad.wer_low is not None
    assert bad.wer_high is not None
    assert bad.wer_low < bad.wer < bad.wer_high
    # where, and what else changed
    named = [(each["kind"], each["name"].split()[0]) for each in bad.evidence["standouts"]]
    assert named[:5] == [("programme", "Tempo")] * 5, "all five of this kind come first"
    assert ("programme_kind", "Tempo") in named
    assert all(each["adjusted_p"] <= 0.05 < each["difference"] for each in bad.evidence["standouts"])
    assert bad.evidence["changes"] == {
        "model": {"before": f"phi4-gl ({'a' * 12})", "now": f"worse ({'b' * 12})"},
        "code_version": {"before": "1.0", "now": "1.1"},
    }
    assert "the model changed: phi4-gl" in bad.sentence
    assert "it stands out in the programme Tempo" in bad.sentence
    assert bad.evidence["matched_pairs"]["errors_b"] > bad.evidence["matched_pairs"]["errors_a"]

    nights.night(held_out, worse_in("Tempo"), model="worse")
    assert alerts(query) == [("regression", "fixed", day(4), day(5), 0, None)]
    nights.code_version = "1.0"
    after = [nights.night(held_out, steady()).verdict for _ in range(5)]
    assert after[0] == "watch", "the nights together still say so"
    assert after[-3:] == ["ok", "ok", "ok"]
    (alert,) = alerts(query)
    assert alert[:3] == ("regression", "fixed", day(4))
    assert alert[4:] == (2, "2 nights in a row ok")
    assert nights.next_night == day(11)
    told = query("SELECT kind, channel, recipient FROM messages ORDER BY id")
    assert told == [
        ("alert_opened", "webhook", WEBHOOK),
        ("alert_opened", "email", "a@example.org"),
        ("alert_opened", "email", "b@example.org"),
        ("alert_closed", "webhook", WEBHOOK),
        ("alert_closed", "email", "a@example.org"),
        ("alert_closed", "email", "b@example.org"),
    ]
    (opened,) = query(
        "SELECT subject, body FROM messages WHERE recipient = 'a@example.org' ORDER BY id LIMIT 1"
    )
    assert opened.subject == "Fonoteca: Alerta: máis erros en fixed ca na liña base"
    assert "o modelo: phi4-gl (aaaaaaaaaaaa) -> worse (bbbbbbbbbbbb)" in opened.body["text"]
    assert "Onde destaca: Tempo" in opened.body["text"]


def test_a_better_model_is_improved_and_opens_nothing(nights: Nights, query: Query) -> None:
    held_out = made_set()
    nights.night(held_out, steady(0.2))
    better = nights.night(held_out, steady(0.05), model="better")
    assert (better.verdict, better.cause) == ("improved", "one_night")
    assert "the model changed" in better.sentence
    assert alerts(query) == []
    assert query("SELECT count(*) FROM messages") == [(0,)]


def test_two_sets_do_not_touch_each_other(nights: Nights, query: Query) -> None:
    one, other = made_set("one", seed=1), made_set("other", seed=2)
    for night in range(3):
        runs = nights.begin(one, other)
        nights.generate(runs["one"], one, worse_in("Tempo") if night == 2 else steady())
        nights.generate(runs["other"], other, steady())
        found = nights.settle()
    assert found["regression", "one"].verdict == "regressed"
    assert found["regression", "other"].verdict == "ok"
    assert [alert[:2] for alert in alerts(query)] == [("regression", "one")]


def test_speakers_are_the_clusters_where_no_programme_is_known(nights: Nights) -> None:
    held_out = made_set("speakers")
    nights.night(held_out, steady())
    bad = nights.night(held_out, worse_in("Tempo"))
    assert bad.evidence["n_clusters"] == 80
    assert bad.evidence["n_clusters_changed"] == 80
    assert {each["kind"] for each in bad.evidence["standouts"]} == {"programme_kind", "speaker"}
    assert "neither model, code, settings nor device changed" in bad.sentence


# --- baselines -------------------------------------------------------------------------------------------


def test_other_references_are_another_baseline(nights: Nights, query: Query) -> None:
    nights.night(made_set(), steady())
    row = nights.night(made_set(word=" fin"), steady())
    assert (row.verdict, row.evidence["accepted"]) == ("ok", "its references or audio changed")
    with nights.engine.connect() as connection:
        in_force, retired = list_baselines(connection, with_retired=True)
    assert in_force.night == day(2)
    assert (in_force.retired_at, retired.retired_reason) == (
        None,
        "replaced: its references or audio changed",
    )
    assert alerts(query) == []


def test_other_references_make_no_regression_the_standard(nights: Nights, query: Query) -> None:
    """While an alert is open, a set with nothing in common with before waits for a person."""
    nights.night(made_set(), steady())
    assert nights.night(made_set(), worse_in("Tempo")).verdict == "regressed"
    row = nights.night(made_set(word=" fin"), worse_in("Tempo"))
    assert (row.verdict, row.cause) == ("watch", "not_measured")
    assert "fonoteca baseline accept fixed" in row.sentence
    assert [alert[5] for alert in alerts(query)] == [None]


def test_one_corrected_reference_does_not_hide_a_regression(nights: Nights, query: Query) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    assert nights.night(held_out, worse_in("Tempo")).verdict == "regressed"
    first, *others = held_out.utterances
    mended = replace(
        held_out,
        content_sha256="mended",
        utterances=(replace(first, reference=first.reference + " fin"), *others),
    )
    row = nights.night(mended, worse_in("Tempo"))
    assert (row.verdict, row.evidence["n_unchanged"]) == ("regressed", 479)
    assert [alert[5] for alert in alerts(query)] == [None]
    assert nights.night(mended, steady()).verdict in ("ok", "watch")


def test_a_total_collapse_is_a_regression(nights: Nights, query: Query) -> None:
    """Clusters that all change alike show no spread: that must not make the change unknown."""
    held_out = made_set()
    nights.night(held_out, steady(0.0))
    collapsed = nights.night(held_out, steady(1.0))
    assert (collapsed.verdict, collapsed.wer) == ("regressed", 1.0)
    assert len(alerts(query)) == 1


def test_a_set_of_one_programme_can_regress(nights: Nights) -> None:
    held_out = made_set()
    single = replace(
        held_out, utterances=tuple(replace(each, programme="Diario") for each in held_out.utterances)
    )
    nights.night(single, steady())
    assert nights.night(single, steady(0.5)).verdict == "regressed"


def test_a_baseline_accepted_in_mid_night_is_for_the_next(nights: Nights, query: Query) -> None:
    """A promotion while the night is generated by the old model: what it wrote is compared with the old baseline."""
    held_out = made_set()
    nights.night(held_out, steady(0.4))
    runs = nights.begin(held_out)
    nights.generate(runs["fixed"], held_out, steady(0.4))
    with transaction(nights.engine) as tx:
        lock_nights(tx.connection)
        better = open_manual_run(
            tx.connection,
            find_runs(tx.connection, day(2))[0].set_id,
            Provenance(nights.model("better"), "Transcribe.", {"beams": 1}, "cpu float32", "1.0"),
        )
    nights.generate(better, held_out, steady(0.05), model="better")
    with transaction(nights.engine) as tx:
        lock_nights(tx.connection)
        accept_by_name(tx.connection, "fixed", run_id=better, accepted_by="noa", reason="better deployed")
    assert nights.settle()["regression", "fixed"].verdict == "ok"
    assert nights.night(held_out, steady(0.05), model="better").verdict == "ok"
    assert alerts(query) == []


def test_an_accepted_baseline_restarts_the_chart(nights: Nights) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    row = nights.night(held_out, worse_in("Tempo"))
    assert row.chart is not None
    assert row.chart["up"]["total"] > 0
    with transaction(nights.engine) as tx:
        lock_nights(tx.connection)
        accepted = accept_by_name(
            tx.connection, "fixed", run_id=None, accepted_by="noa", reason="the new model is meant"
        )
    assert accepted.night == day(2)
    row = nights.night(held_out, worse_in("Tempo"))
    assert (row.verdict, row.baseline_id) == ("ok", accepted.id)
    assert row.chart is not None
    assert row.chart["n_nights"] == 1


def test_a_slow_rise_is_found_by_a_chart_that_goes_on(nights: Nights) -> None:
    held_out = made_set()
    rows = [nights.night(held_out, steady(0.1 + 0.003 * night)) for night in range(5)]
    assert [row.verdict for row in rows][:2] in (["ok", "ok"], ["ok", "watch"])
    assert rows[-1].verdict == "regressed"
    charts = [row.chart["up"]["total"] for row in rows if row.chart]
    assert charts == sorted(charts), "each night goes on from the one before"
    assert rows[-1].nights == 4


# --- not measured ----------------------------------------------------------------------------------------


def test_not_measured_twice_is_an_alert_until_it_is_measured_again(nights: Nights, query: Query) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    for night in (2, 3, 4):
        runs = nights.begin(held_out)
        with transaction(nights.engine) as tx:
            abandon_run(tx.connection, runs["fixed"], "its folder is gone")
        row = nights.settle()["regression", "fixed"]
        assert (row.verdict, row.cause) == ("watch", "not_measured")
        assert row.sentence == (
            f"fixed: not measured for {night - 1} night{'s' if night > 2 else ''}: its folder is gone"
        )
        assert len(alerts(query)) == (1 if night > 2 else 0)
    assert alerts(query) == [("not_measured", "fixed", day(3), day(4), 0, None)]
    assert nights.night(held_out, steady()).verdict == "ok"
    assert alerts(query) == [("not_measured", "fixed", day(3), day(5), 1, "measured again")]


def test_a_night_without_measurement_keeps_a_regression_open_and_its_chart(
    nights: Nights, query: Query
) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    before = nights.night(held_out, worse_in("Tempo"))
    runs = nights.begin(held_out)
    row = nights.settle()["regression", "fixed"]
    assert row.evidence["reason"] == "not finished within 18 h: 0 of 480 utterances"
    assert query("SELECT abandoned_reason FROM evaluation_runs WHERE id = :id", id=runs["fixed"]) == [
        (row.evidence["reason"],)
    ]
    assert row.chart is not None
    assert before.chart is not None
    assert row.chart["up"] == before.chart["up"]
    assert alerts(query) == [("regression", "fixed", day(2), day(3), 0, None)]


def test_too_many_failures_are_no_measurement(nights: Nights) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    few = nights.night(held_out, steady(), failed=4)
    assert (few.verdict, few.n_utterances, few.evidence["n_failed"]) == ("ok", 476, 4)
    many = nights.night(held_out, steady(), failed=5)
    assert many.cause == "not_measured"
    assert many.evidence["reason"] == "5 of 480 utterances have no text"


def test_what_was_never_measured_is_missed_by_nobody(nights: Nights, query: Query) -> None:
    for _ in range(3):
        nights.begin(made_set())
        row = nights.settle()["regression", "fixed"]
    assert (row.cause, row.baseline_id) == ("not_measured", None)
    assert alerts(query) == []


def test_a_night_without_sets_and_without_production_is_done(nights: Nights) -> None:
    nights.begin()
    assert nights.settle() == {}
    with nights.engine.connect() as connection:
        found = read_night(connection)
    assert found is not None
    assert found.state == "done"


# --- once ------------------------------------------------------------------------------------------------

TABLES = ("quality_verdicts", "alerts", "messages", "evaluation_scores", "baselines")
COLUMNS_THAT_DIFFER = frozenset(
    {"created_at", "accepted_at", "opened_at", "next_attempt_at", "id", "alert_id", "closed_at", "body"}
)


def everything(query: Query) -> str:
    """All that settling writes, but for times and numbers of rows."""
    found = {
        table: [
            {key: value for key, value in row[0].items() if key not in COLUMNS_THAT_DIFFER}
            for row in query(f"SELECT to_jsonb(t) FROM {table} t ORDER BY t.ctid")
        ]
        for table in TABLES
    }
    # numbers that sequences gave are not given twice, whatever was rolled back
    return re.sub(r'"baseline_id": \d+', '"baseline_id": 0', json.dumps(found, sort_keys=True))


def half_way(nights: Nights) -> None:
    """Two sets: one about to regress, one that gets its baseline tonight."""
    one, new = made_set("one"), made_set("new", seed=5)
    nights.night(one, steady())
    runs = nights.begin(one, new)
    nights.generate(runs["one"], one, worse_in("Tempo"))
    nights.generate(runs["new"], new, steady())


def test_settling_twice_changes_nothing(nights: Nights, query: Query) -> None:
    half_way(nights)
    nights.settle()
    before = [query(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES]
    with transaction(nights.engine) as tx:
        assert settle(tx.connection, day(2), nights.settings) is False
    assert [query(f"SELECT * FROM {table} ORDER BY 1") for table in TABLES] == before


def test_killed_at_any_step_and_settled_again_gives_the_same(
    nights: Nights, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    half_way(nights)
    steps = [
        (evaluation.night, "judge_run"),
        (evaluation.night_regression, "score_run"),
        (evaluation.night_regression, "accept_baseline"),
        (evaluation.night_regression, "find_standouts"),
        (evaluation.night, "store_verdict"),
        (evaluation.night, "update_alerts"),
        (evaluation.night, "_settle_production"),
        (evaluation.night, "mark_done"),
    ]
    before = everything(query)
    for module, name in steps:
        real = getattr(module, name)

        def killing(*given: Any, real: Any = real, **named: Any) -> Any:
            real(*given, **named)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(module, name, killing)
            with pytest.raises(Killed):
                nights.settle()
        assert everything(query) == before, name
    nights.settle()
    after_kills = everything(query)
    assert '"regressed"' in after_kills
    take_back(nights)
    assert everything(query) == before
    nights.settle()
    assert everything(query) == after_kills


def take_back(nights: Nights) -> None:
    """Take a settled night back, so that it can be settled again."""
    with nights.engine.begin() as connection:
        for table in ("messages", "alerts"):
            connection.execute(text(f"DELETE FROM {table}"))
        connection.execute(text("DELETE FROM quality_verdicts WHERE night = :night"), {"night": day(2)})
        connection.execute(
            text(
                "DELETE FROM baselines WHERE run_id IN (SELECT id FROM evaluation_runs WHERE night = :night)"
            ),
            {"night": day(2)},
        )
        connection.execute(
            text(
                "DELETE FROM evaluation_scores WHERE run_id IN "
                "(SELECT id FROM evaluation_runs WHERE night = :night)"
            ),
            {"night": day(2)},
        )
        connection.execute(
            text("UPDATE quality_nights SET state = 'measuring', finished_at = NULL WHERE night = :night"),
            {"night": day(2)},
        )


def test_two_settlers_at_once_write_one_night(nights: Nights, query: Query) -> None:
    half_way(nights)
    gate, outcomes = threading.Barrier(2), []

    def at_once() -> None:
        gate.wait()
        with transaction(nights.engine) as tx:
            outcomes.append(settle(tx.connection, day(2), nights.settings))

    threads = [threading.Thread(target=at_once) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [False, True]
    both = everything(query)
    take_back(nights)
    nights.settle()
    assert everything(query) == both
    assert len(alerts(query)) == 1


def test_a_night_is_ready_when_its_runs_are_or_its_time_is_over(nights: Nights) -> None:
    held_out = made_set(n=4)
    runs = nights.begin(held_out)

    def ready(hours: float) -> bool:
        with nights.engine.connect() as connection:
            found = read_night(connection)
            assert found is not None
            now = found.begun_at + dt.timedelta(hours=hours)
            return is_ready(connection, found, now=now, deadline_h=18)

    assert not ready(17.9)
    assert ready(18)
    nights.generate(runs["fixed"], held_out, steady())
    assert ready(0)


def test_nights_after_three_missed_ones_go_on_with_the_chart(nights: Nights, query: Query) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    runs = nights.begin(held_out, day=day(5))
    nights.generate(runs["fixed"], held_out, worse_in("Tempo"))
    row = nights.settle()["regression", "fixed"]
    assert row.verdict == "regressed"
    assert row.chart is not None
    assert row.chart["n_nights"] == 2
    states = [tuple(found) for found in query("SELECT night, state FROM quality_nights ORDER BY night")]
    assert states == [(day(1), "done"), *((day(n), "missed") for n in (2, 3, 4)), (day(5), "done")]
    assert query("SELECT from_at FROM quality_nights WHERE night = :night", night=day(5)) == query(
        "SELECT until_at FROM quality_nights WHERE night = :night", night=day(1)
    )


# --- the chart's form ------------------------------------------------------------------------------------


def test_a_chart_comes_back_to_the_bit(engine: Engine) -> None:
    state = ChartState()
    for value in (0.1, 1 / 3, float("inf"), -2.7, 4e-17):
        state = step(state, Residual(value=value / 7, standard_error=0.01, lasting_error=0.003, z=value))
        with engine.connect() as connection:
            stored = connection.execute(
                text("SELECT CAST(:chart AS jsonb)"), {"chart": json.dumps(to_json(state), allow_nan=False)}
            ).scalar_one()
        assert from_json(stored) == state
    missing = step(state, None)
    assert from_json(to_json(missing)) == missing
    assert missing.up == state.up


def test_a_chart_of_another_design_begins_anew(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    state = replace(ChartState(), up=Side(total=3.0, nights=2, weight=1.0, weighted_value=0.5))
    assert from_json(to_json(state), ChartDesign(limit=5.0)) is None
    assert from_json(to_json(state) | {"format": 0}) is None
    held_out = made_set()
    nights.night(held_out, steady())
    with nights.engine.begin() as connection:
        connection.execute(
            text("UPDATE quality_verdicts SET chart = jsonb_set(chart, '{design,limit}', '5')")
        )
    row = nights.night(held_out, steady())
    assert row.evidence["chart_restarted"] == "the chart's limits were changed"
    assert row.chart is not None
    assert row.chart["n_nights"] == 1


def test_a_retired_baseline_is_not_missed(nights: Nights) -> None:
    held_out = made_set()
    nights.night(held_out, steady())
    with transaction(nights.engine) as tx:
        assert retire_baseline(tx.connection, "fixed", "the set is no longer used") == 1
    nights.begin()
    assert nights.settle() == {}
    row = nights.night(held_out, steady())
    assert row.evidence["accepted"] == "first run since its baseline was retired"


def test_one_programme_that_breaks_is_a_regression_however_well_the_set_does(
    nights: Nights, query: Query
) -> None:
    """Over programmes as clusters, one that breaks is hidden by its own spread: it is tested by itself, too."""
    held_out = made_set()
    nights.night(held_out, steady())
    broken = nights.night(held_out, lambda utterance: 0.7 if utterance.programme == "Tempo 3" else 0.1)
    assert broken.verdict == "regressed"
    assert broken.evidence["n_clusters_changed"] < 5
    assert [each["name"] for each in broken.evidence["standouts"] if each["kind"] == "programme"] == [
        "Tempo 3"
    ]
    assert "regressed in the programme Tempo 3" in broken.sentence
    assert broken.effect is not None
    assert broken.effect > 0.3
    assert "it stands out in the programme Tempo 3" in broken.sentence
    nights.night(held_out, steady())
    again = nights.night(held_out, steady())
    assert again.verdict == "ok"
    assert [row[5] for row in alerts(query)] == ["2 nights in a row ok"]
