"""`fonoteca model promote | list | deployed` on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from db.connect import transaction
from db.deployments import PIN_LOCK_CLASS
from db.models import NewModel, register_model
from db.settings import Settings
from speech.checkpoint import read_card
from tests.cli.conftest import Ended
from tests.evaluation.night_factory import Nights, made_set, steady
from tests.evaluation.test_promotion import evaluate

DEMO = Path(__file__).parents[2] / "models" / "demo"
SET = made_set("radio")
Run = Callable[..., Ended]


@pytest.fixture
def nights(engine: Engine, settings: Settings) -> Nights:
    """One night by another model, and the demo model known as `candidate`."""
    nights = Nights(engine, settings)
    nights.night(SET, steady(0.1))
    with transaction(engine) as tx:
        sha256 = read_card(DEMO).weights_sha256
        nights.models["candidate"] = register_model(tx.connection, NewModel("evaluated", sha256, True, {}))
    return nights


def rows(engine: Engine, query: str) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(text(query)).all())


BASELINES = (
    "SELECT m.weights_sha256 = (SELECT weights_sha256 FROM models WHERE name = 'evaluated') AS is_candidate, "
    "b.retired_reason FROM baselines b JOIN evaluation_runs r ON r.id = b.run_id JOIN models m ON m.id = r.model_id "
    "ORDER BY b.id"
)


def test_a_harmless_candidate_is_deployed_and_its_runs_become_the_baselines(
    fonoteca: Run, nights: Nights, engine: Engine
) -> None:
    evaluate(nights, SET, "candidate", steady(0.1))
    dry = fonoteca("model", "promote", DEMO, "--name", "gl-2", "--dry-run")
    assert dry.code == 0, dry.err
    assert "harmless" in dry.out
    assert rows(engine, "SELECT * FROM deployments") == []

    ended = fonoteca("model", "promote", DEMO, "--name", "gl-2")
    assert ended.code == 0, ended.err
    assert "deployed: workers open it" in ended.out
    found = json.loads(fonoteca("model", "deployed", "--json").out)
    assert (found["model"], found["location"], found["is_forced"]) == ("gl-2", str(DEMO), False)
    assert found["evidence"]["sets"]["radio"]["outcome"] == "harmless"
    assert rows(engine, BASELINES) == [(False, "replaced: model gl-2 deployed"), (True, None)]

    again = fonoteca("model", "promote", DEMO, "--name", "gl-2")
    assert again.code == 0
    assert "is deployed already" in again.out
    assert len(rows(engine, "SELECT * FROM deployments")) == 1
    listed = json.loads(fonoteca("model", "list", "--json").out)
    assert [(each["name"], each["is_deployed"]) for each in listed] == [
        ("gl-2", True),
        ("evaluated", False),
        ("phi4-gl", False),
    ]
    assert "gl-2" in fonoteca("model", "list").out


def test_what_is_missing_is_named_with_its_command(fonoteca: Run, nights: Nights, engine: Engine) -> None:
    ended = fonoteca("model", "promote", DEMO)
    assert ended.code == 1
    assert f"radio: run `fonoteca evaluate radio --model {DEMO}`" in ended.err
    assert "not measured" in ended.out
    assert "is not deployed: no harm is not shown on radio" in ended.err
    assert rows(engine, "SELECT * FROM deployments") == []


def test_a_harmful_candidate_needs_a_reason_which_is_kept_and_the_baselines_stay(
    fonoteca: Run, nights: Nights, engine: Engine
) -> None:
    evaluate(nights, SET, "candidate", steady(0.3))
    refused = fonoteca("model", "promote", DEMO, "--json")
    assert refused.code == 1
    found = json.loads(refused.out)
    assert (found["is_allowed"], found["is_deployed"]) == (False, False)
    assert found["sets"]["radio"]["outcome"] == "harmful"
    assert "needs --reason" in fonoteca("model", "promote", DEMO, "--force").err
    assert "needs --reason" in fonoteca("model", "promote", DEMO, "--force", "--reason", " ").err

    forced = fonoteca("model", "promote", DEMO, "--force", "--reason", "the old one was withdrawn")
    assert forced.code == 0, forced.err
    assert "forced; the baselines stay" in forced.out
    assert rows(engine, BASELINES) == [(False, None)]
    shown = fonoteca("model", "deployed").out
    assert "forced    the old one was withdrawn" in shown
    assert "radio: more errors" in shown


def test_a_wider_margin_is_asked_for_in_so_many_words(fonoteca: Run, nights: Nights) -> None:
    small = made_set("small", n=40, seed=5)
    nights.night(small, steady(0.1))
    for held_out in (SET, small):
        evaluate(nights, held_out, "candidate", steady(0.1), seed=1)
    strict = json.loads(fonoteca("model", "promote", DEMO, "--json", "--dry-run", "--margin", "0").out)
    wide = json.loads(fonoteca("model", "promote", DEMO, "--json", "--dry-run", "--margin", "100").out)
    assert strict["sets"]["small"]["outcome"] == "undecided"
    assert strict["sets"]["small"]["margin"] < wide["sets"]["small"]["margin"]
    assert wide["sets"]["small"]["outcome"] == "harmless"
    ended = fonoteca("model", "promote", DEMO, "--margin", "0")
    assert "small: not shown" in ended.out


def test_a_pinned_environment_is_warned_about(
    fonoteca: Run, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(nights, SET, "candidate", steady(0.1))
    assert "FONOTECA_MODEL" not in fonoteca("model", "promote", DEMO, "--dry-run").err
    monkeypatch.setenv("FONOTECA_MODEL", "/models/other")
    assert "FONOTECA_MODEL is set here (/models/other)" in fonoteca("model", "promote", DEMO).err


def test_running_workers_that_do_not_follow_are_told(fonoteca: Run, nights: Nights, engine: Engine) -> None:
    evaluate(nights, SET, "candidate", steady(0.1))
    with engine.connect() as first, engine.connect() as second:
        model_id, name = first.execute(text("SELECT id, name FROM models ORDER BY id LIMIT 1")).one()
        for worker in (first, second):
            worker.execute(
                text("SELECT pg_advisory_lock_shared(:class, :id)"),
                {"class": PIN_LOCK_CLASS, "id": model_id},
            )
        told = fonoteca("model", "promote", DEMO)
        assert told.code == 0, told.err
        assert (
            f"2 running GPU workers are pinned by FONOTECA_MODEL and will not follow ({name} open)"
            in told.err
        )
        assert "2 running GPU workers" in fonoteca("model", "promote", DEMO).err, "deployed already"
        first.invalidate()
        second.invalidate()
    assert "pinned" not in fonoteca("model", "promote", DEMO).err


def test_without_anything_measured_or_deployed(
    fonoteca: Run, settings: Settings, engine: Engine, tmp_path: Path
) -> None:
    assert "no model was deployed yet" in fonoteca("model", "deployed").out
    assert fonoteca("model", "list").code == 0
    ended = fonoteca("model", "promote", DEMO)
    assert ended.code == 1
    assert "no set has a baseline to compare with" in ended.err
    assert fonoteca("model", "promote", DEMO, "--force", "--reason", "the first one").code == 0
    copy = tmp_path / "moved"
    copy.symlink_to(DEMO)
    moved = fonoteca("model", "promote", copy)
    assert moved.code == 0, moved.err
    assert "the same weights" in moved.out
    assert rows(engine, "SELECT location, is_forced FROM deployments ORDER BY id") == [
        (str(DEMO), True),
        (str(copy), False),
    ]


def test_what_cannot_be_opened_is_not_deployed(fonoteca: Run, settings: Settings, tmp_path: Path) -> None:
    ended = fonoteca("model", "promote", tmp_path, "--force", "--reason", "x")
    assert ended.code == 1
    assert str(tmp_path) in ended.err
