"""What Prometheus is told of quality."""

from __future__ import annotations

import datetime as dt
from typing import Any

import httpx
from sqlalchemy import Engine, text

from db.settings import Settings
from tests.evaluation.night_factory import MADRID, Nights, made_set, steady


def quality(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    named = [
        line for line in lines if line.startswith(("fonoteca_quality", "fonoteca_alerts", "fonoteca_mess"))
    ]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in named}


def test_before_any_night(client: httpx.Client) -> None:
    assert quality(client) == {
        "fonoteca_quality_nights_overdue": 0,
        'fonoteca_messages_waiting{channel="email"}': 0,
        'fonoteca_messages_waiting{channel="webhook"}': 0,
    }


def test_the_newest_night_and_its_alert(client: httpx.Client, engine: Engine, settings: Settings) -> None:
    nights = Nights(engine, settings.model_copy(update={"alert_mail_to": "noa@example.org"}))
    nights.next_night = MADRID.newest_due(dt.datetime.now(dt.UTC)) - dt.timedelta(days=1)
    held_out = made_set()
    nights.night(held_out, steady())
    row = nights.night(held_out, steady(0.4))
    found = quality(client)
    label = 'set="fixed"'
    assert found[f"fonoteca_quality_wer{{{label}}}"] == row.wer
    assert found[f"fonoteca_quality_wer_low{{{label}}}"] == row.wer_low
    assert found[f"fonoteca_quality_wer_high{{{label}}}"] == row.wer_high
    assert found[f"fonoteca_quality_baseline_wer{{{label}}}"] == row.baseline_wer
    verdicts = {name: value for name, value in found.items() if name.startswith("fonoteca_quality_verdict{")}
    assert len(verdicts) == 4
    assert sum(verdicts.values()) == 1
    assert found['fonoteca_quality_verdict{question="regression",subject="fixed",verdict="regressed"}'] == 1
    assert found['fonoteca_alerts_open{kind="regression",subject="fixed"}'] == 1
    assert found['fonoteca_messages_waiting{channel="email"}'] == 1
    assert found["fonoteca_quality_nights_overdue"] == 0
    age_s = dt.datetime.now(dt.UTC).timestamp() - found["fonoteca_quality_last_night_timestamp_seconds"]
    assert 0 <= age_s < 600


def test_a_dead_scheduler_shows(client: httpx.Client, engine: Engine) -> None:
    night = MADRID.newest_due(dt.datetime.now(dt.UTC)) - dt.timedelta(days=4)
    values: dict[str, Any] = {"night": night, "until": MADRID.due_at(night)}
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, state, from_at, until_at, finished_at) "
                "VALUES (:night, 'done', CAST(:until AS timestamptz) - interval '1 day', :until, :until)"
            ),
            values,
        )
    assert quality(client)["fonoteca_quality_nights_overdue"] == 1


def test_a_night_run_by_hand_before_its_time_is_not_overdue(client: httpx.Client, engine: Engine) -> None:
    # settled some hours before it was due, and by now past its deadline; 18.9: no hour at which another night is
    night = MADRID.newest_due(dt.datetime.now(dt.UTC) - dt.timedelta(hours=18.9))
    values: dict[str, Any] = {"night": night, "until": MADRID.due_at(night) - dt.timedelta(hours=5)}
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO quality_nights (night, state, from_at, until_at, finished_at) "
                "VALUES (:night, 'done', CAST(:until AS timestamptz) - interval '1 day', :until, :until)"
            ),
            values,
        )
    assert quality(client)["fonoteca_quality_nights_overdue"] == 0


def test_an_installation_without_any_night_is_overdue_after_two_days(
    client: httpx.Client, engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO workers (role, host, pid, code_version, started_at, lease_until) "
                "VALUES ('media', 'here', 1, '1', now() - interval '3 days', now())"
            )
        )
    assert quality(client)["fonoteca_quality_nights_overdue"] == 1
