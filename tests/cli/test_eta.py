"""When a batch will be done, from the workers' rows to what people read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from cli.client import ApiClient
from cli.follow import eta_text, progress_text
from db.connect import transaction
from db.liveness import WorkerSession
from tests.db.queue_work import claim, model, rows, split, store, transcript


@pytest.fixture(autouse=True)
def measured_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.app.THROUGHPUT_KEEP_S", -1.0)


def test_a_batch_says_when_it_will_be_done_or_why_nobody_can_say(
    client: httpx.Client, engine: Engine, make_recording: Callable[..., Any]
) -> None:
    with WorkerSession(engine, role="gpu", code_version="t", lease_s=60, claim_limit_s=60) as worker:
        made = make_recording()
        with ApiClient(str(client.base_url), made.owner.key) as api:
            shown = eta_text(api.batch(str(made.batch_id)))
            assert shown is not None
            assert "still to be read" in shown
            split(engine, worker, transcript(90))
            store(engine, worker, claim(engine, worker, model(engine), 60))
            with transaction(engine) as tx:
                # as if it had taken two minutes: half a second of audio per second
                tx.connection.execute(
                    text("UPDATE segments SET finished_at = now() - interval '120 s' WHERE state = 'done'")
                )
            batch = api.batch(str(made.batch_id))
            shown = eta_text(batch)
            assert shown is not None
            assert shown.startswith("done in about 0:01:")
            assert "0:00:30 of audio are left and 0:00:00 come before" in shown
            assert "done in about 0:01:" in progress_text(batch, with_eta=True)
            while claims := claim(engine, worker, model(engine), 30):
                store(engine, worker, claims)
            assert rows(engine, "SELECT state FROM recordings") == [("completed",)]
            assert eta_text(api.batch(str(made.batch_id))) is None
