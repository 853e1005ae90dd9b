"""What was tried with a recording, over HTTP and on the command line: each try, its end and its reason."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from db import splitting
from db.connect import transaction
from db.liveness import WorkerSession
from db.losses import lose_claims
from db.queue import claim_segments, store_results
from db.work import Failure
from tests.db.queue_work import model, result, transcript


@pytest.fixture
def troubled(engine: Engine, make_recording: Any) -> Any:
    """A recording of which a split failed once, one segment lost its worker, and one raised an error."""
    made = make_recording()
    worker = WorkerSession(engine, role="gpu", code_version="test", lease_s=60, claim_limit_s=60).start()
    binding = model(engine)
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        hiccup = Failure("disk_full", "no room for the working copy", retryable=True)
        splitting.fail_split(tx.connection, claimed, worker.worker_id, hiccup, max_attempts=3)
    with transaction(engine) as tx:
        claimed = splitting.claim_recording(tx.connection, worker.worker_id)
        assert claimed is not None
        assert splitting.store_split(tx.connection, claimed, worker.worker_id, transcript(3))
    with transaction(engine) as tx:
        claim_segments(tx.connection, worker.worker_id, binding, limit=1)
        lose_claims(tx.connection, worker.worker_id)
        claims = claim_segments(tx.connection, worker.worker_id, binding, limit=3)
        broken = Failure("engine_error", "ValueError: odd", retryable=False)
        store_results(
            tx.connection,
            worker.worker_id,
            [result(one) for one in claims[:2]],
            [(claims[2], broken)],
            max_attempts=3,
        )
    worker.stop()
    return made


def test_each_try_is_told_with_its_end(client: httpx.Client, owner: Any, troubled: Any) -> None:
    path = f"/v1/recordings/{troubled.id}/attempts"
    page = client.get(path, headers=owner.headers).json()
    told = [(one["segment_index"], one["number"], one["outcome"], one["error_code"]) for one in page["items"]]
    assert told[:3] == [(None, 1, "failed", "disk_full"), (None, 2, "done", None), (0, 1, "lost", None)]
    assert sorted(told[3:]) == [(0, 2, "done", None), (1, 1, "done", None), (2, 1, "failed", "engine_error")]
    problems = client.get(f"{path}?outcome=failed&outcome=lost", headers=owner.headers).json()["items"]
    assert [one["error_message"] for one in problems] == [
        "no room for the working copy",
        None,
        "ValueError: odd",
    ]
    assert problems[2]["start_s"] == 2.0
    assert all(one["host"] and one["finished_at"] for one in problems)


def test_attempts_are_read_page_by_page(client: httpx.Client, owner: Any, troubled: Any) -> None:
    path, after, found = f"/v1/recordings/{troubled.id}/attempts?limit=2", "", []
    while True:
        page = client.get(path + after, headers=owner.headers).json()
        found += page["items"]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert len({one["id"] for one in found}) == len(found) == 6


def test_anothers_attempts_do_not_exist(client: httpx.Client, make_broadcaster: Any, troubled: Any) -> None:
    answer = client.get(f"/v1/recordings/{troubled.id}/attempts", headers=make_broadcaster().headers)
    assert (answer.status_code, answer.json()["code"]) == (404, "recording_not_found")
