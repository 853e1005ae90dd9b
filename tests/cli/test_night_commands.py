"""`fonoteca night`, `alerts` and `baseline`, on a real database."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable

import pytest
import redis
from sqlalchemy import Engine, text

from db.settings import Settings
from tests.cli.conftest import Ended
from tests.evaluation.night_factory import MADRID, Nights, made_set, steady
from workers.queue import QUALITY_QUEUE

Run = Callable[..., Ended]


@pytest.fixture
def regressed(engine: Engine, settings: Settings) -> Nights:
    """Two nights of one set, the second regressed."""
    nights = Nights(engine, settings.model_copy(update={"alert_webhook_url": "http://127.0.0.1:9/"}))
    nights.next_night = MADRID.newest_due(dt.datetime.now(dt.UTC)) - dt.timedelta(days=5)
    held_out = made_set()
    nights.night(held_out, steady())
    nights.night(held_out, steady(0.4), model="worse")
    return nights


def test_a_night_is_begun_by_hand_once(fonoteca: Run, settings: Settings) -> None:
    due = MADRID.newest_due(dt.datetime.now(dt.UTC))
    begun = fonoteca("night", "run", "--json")
    assert begun.code == 0, begun.err
    assert json.loads(begun.out)["night"] == due.isoformat()
    assert json.loads(begun.out)["state"] == "measuring"
    with redis.Redis.from_url(settings.require_redis_url()) as client:
        assert client.llen(QUALITY_QUEUE) == 1
    again = fonoteca("night", "run", "--date", due.isoformat())
    assert again.code == 1
    assert f"{due} is measuring already, and nights go in order" in again.err
    assert "is not a date" in fonoteca("night", "run", "--date", "tonight").err
    coming = fonoteca("night", "run")
    assert f"the night of {due + dt.timedelta(days=1)} has begun" in coming.err


def test_nights_are_listed_and_shown(fonoteca: Run, regressed: Nights) -> None:
    first, second = (regressed.next_night - dt.timedelta(days=n) for n in (2, 1))
    assert fonoteca("night", "list").out.splitlines() == [
        f"{second}  done       1 regressed",
        f"{first}  done       1 ok",
    ]
    assert [each["verdicts"] for each in json.loads(fonoteca("night", "list", "--json").out)] == [
        {"regressed": 1},
        {"ok": 1},
    ]
    shown = fonoteca("night", "show")
    assert f"night of {second}: done" in shown.out
    assert "the model changed: phi4-gl" in shown.out
    verdicts = json.loads(fonoteca("night", "show", first, "--json").out)["verdicts"]
    assert verdicts[0]["evidence"]["accepted"] == "first run of this set"
    missing = fonoteca("night", "show", "2020-01-01")
    assert missing.code == 1
    assert "no night of 2020-01-01" in missing.err


@pytest.mark.usefixtures("settings")
def test_without_nights(fonoteca: Run) -> None:
    assert "no night yet" in fonoteca("night", "list").err
    assert fonoteca("night", "show").code == 1
    assert "no open alerts" in fonoteca("alerts", "list").err
    assert "no baseline yet" in fonoteca("baseline", "list").err


def test_an_alert_is_closed_by_hand_with_a_reason_and_told(
    fonoteca: Run, regressed: Nights, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FONOTECA_ALERT_WEBHOOK_URL", "http://127.0.0.1:9/")
    (alert,) = json.loads(fonoteca("alerts", "list", "--json").out)
    assert (alert["kind"], alert["subject"]) == ("regression", "fixed")
    assert "since" in fonoteca("alerts", "list").out
    assert fonoteca("alerts", "close", alert["id"]).code == 2, "a reason is needed"
    assert "--reason is empty" in fonoteca("alerts", "close", alert["id"], "--reason", " ").err
    closed = fonoteca("alerts", "close", alert["id"], "--reason", "a test model", "--json")
    assert json.loads(closed.out)["close_reason"] == "a test model"
    assert json.loads(closed.out)["closed_by"]
    assert "no open alert" in fonoteca("alerts", "close", alert["id"], "--reason", "again").err
    assert json.loads(fonoteca("alerts", "list", "--json").out) == []
    assert "closed by" in fonoteca("alerts", "list", "--all").out
    with engine.connect() as connection:
        told = connection.scalars(text("SELECT kind FROM messages ORDER BY id")).all()
    assert told == ["alert_opened", "alert_closed"]


def test_a_baseline_is_accepted_and_closes_the_alert(fonoteca: Run, regressed: Nights) -> None:
    (before,) = json.loads(fonoteca("baseline", "list", "--json").out)
    assert (before["set"], before["accepted_by"], before["model"]) == ("fixed", "system", "phi4-gl")
    unknown = fonoteca("baseline", "accept", "other", "--reason", "x")
    assert unknown.code == 1
    assert "no held-out set 'other': known are fixed" in unknown.err
    accepted = fonoteca("baseline", "accept", "fixed", "--reason", "the new model is meant", "--json")
    assert accepted.code == 0, accepted.err
    assert json.loads(accepted.out)["model"] == "worse"
    assert "closed alert" in accepted.err
    (alert,) = json.loads(fonoteca("alerts", "list", "--all", "--json").out)
    assert alert["close_reason"] == "the baseline was replaced: the new model is meant"
    back = fonoteca("baseline", "accept", "fixed", "--run", before["run_id"], "--reason", "back again")
    assert back.code == 0, back.err
    assert "is not the id" in fonoteca("baseline", "accept", "fixed", "--run", "7", "--reason", "x").err
    assert len(json.loads(fonoteca("baseline", "list", "--all", "--json").out)) == 3
    assert "[in force]" in fonoteca("baseline", "list").out
    assert fonoteca("baseline", "retire", "fixed", "--reason", "gone").code == 0
    assert "no baseline of a set 'fixed'" in fonoteca("baseline", "retire", "fixed", "--reason", "gone").err
    assert "no reference window" in fonoteca("baseline", "restart-drift", "--reason", "x").err


def test_a_run_of_other_content_is_no_baseline(fonoteca: Run, regressed: Nights) -> None:
    (before,) = json.loads(fonoteca("baseline", "list", "--json").out)
    regressed.night(made_set(word=" fin"), steady())
    refused = fonoteca("baseline", "accept", "fixed", "--run", before["run_id"], "--reason", "x")
    assert refused.code == 1
    assert "is not of the set fixed as it is now" in refused.err
