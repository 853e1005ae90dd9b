"""The alert rules and the dashboard ask for nothing that `/metrics` does not give."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import Engine

from db.connect import transaction
from db.liveness import WorkerSession
from db.queue import store_results
from db.settings import Settings
from db.work import Failure
from tests.db.queue_work import claim, model, split, transcript
from tests.evaluation.night_factory import MADRID, Nights, made_set, steady

MONITORING = Path(__file__).parents[2] / "compose" / "monitoring"
SELECTOR = re.compile(r"\b(fonoteca_\w+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def expressions() -> list[str]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return [
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
    ]


@pytest.fixture
def at_work(engine: Engine, settings: Settings, make_recording: Callable[..., Any]) -> Iterator[None]:
    """A system in which something of every kind has happened: work done, failed and waiting, a night with an alert."""
    worker = WorkerSession(engine, role="gpu", code_version="t", lease_s=60, claim_limit_s=60).start()
    make_recording()
    split(engine, worker, transcript(2))
    (claimed,) = claim(engine, worker, model(engine), 1)
    with transaction(engine) as tx:
        failed = Failure("engine_error", "no", retryable=False)
        store_results(tx.connection, worker.worker_id, [], [(claimed, failed)], max_attempts=3)
    make_recording()
    nights = Nights(engine, settings.model_copy(update={"alert_mail_to": "noa@example.org"}))
    nights.next_night = MADRID.newest_due(dt.datetime.now(dt.UTC)) - dt.timedelta(days=1)
    held_out = made_set()
    nights.night(held_out, steady())
    nights.night(held_out, steady(0.4))
    yield
    worker.stop()


@pytest.mark.usefixtures("at_work")
def test_every_metric_and_label_of_rules_and_dashboard_exists(client: httpx.Client) -> None:
    client.get("/v1/batches")  # a request to be counted
    samples = [
        (found[1], dict(LABEL.findall(found[2] or "")))
        for line in client.get("/metrics").text.splitlines()
        if (found := SELECTOR.match(line))
    ]
    asked = [
        (expression, name, dict(LABEL.findall(labels)))
        for expression in expressions()
        for name, labels in SELECTOR.findall(expression)
    ]
    assert len(asked) >= 20
    for expression, name, labels in asked:
        assert any(name == given and labels.items() <= has.items() for given, has in samples), expression


def test_panels_do_not_overlap() -> None:
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_prometheus_is_given_the_rules_that_are_there() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
    assert config["rule_files"] == ["alerts.yaml"]
    assert (MONITORING / "alerts.yaml").is_file()
    (job,) = config["scrape_configs"]
    rules = (MONITORING / "alerts.yaml").read_text()
    assert set(re.findall(r'up\{job="(\w+)"\}', rules)) == {job["job_name"]}
