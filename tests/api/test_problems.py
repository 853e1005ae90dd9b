"""Every error is a problem detail: the routes' own, the framework's, and what nobody foresaw."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.problems import known_problems
from db.settings import Settings


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem of this status and code; returns it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"/docs#{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    return problem


def test_problems_of_the_framework(client: httpx.Client, owner: Any) -> None:
    assert "/nothing" in assert_problem(client.get("/nothing"), 404, "not_found")["detail"]
    not_allowed = client.put("/v1/batches", headers=owner.headers)
    assert_problem(not_allowed, 405, "method_not_allowed")
    assert not_allowed.headers["Allow"]
    headers = owner.headers | {"Content-Type": "application/json"}
    broken = client.post("/v1/batches", content=b'{"name": ', headers=headers)
    assert_problem(broken, 422, "validation_failed")
    limit = client.get("/v1/batches", params={"limit": 0}, headers=owner.headers)
    assert assert_problem(limit, 422, "validation_failed")["errors"][0]["pointer"] == "query:limit"
    no_id = client.get("/v1/batches/none", headers=owner.headers)
    assert assert_problem(no_id, 422, "validation_failed")["errors"][0]["pointer"] == "path:batch_id"
    unauthorized = client.get("/v1/batches")
    assert_problem(unauthorized, 401, "unknown_api_key")


def test_a_body_that_is_too_large(client: httpx.Client, owner: Any) -> None:
    mebibyte = b" " * 2**20
    headers = owner.headers | {"Content-Type": "application/json"}
    declared = client.post("/v1/batches", content=mebibyte * 33, headers=headers)
    assert_problem(declared, 413, "body_too_large")
    answer = client.post("/v1/batches", content=(mebibyte for _ in range(33)), headers=headers)
    assert answer.status_code == 413


def test_the_unforeseen_tells_nothing_of_the_inside(
    client: httpx.Client, owner: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("password=secret")

    monkeypatch.setattr("api.batches.batches.list_batches", fail)
    answer = client.get("/v1/batches", headers=owner.headers)
    problem = assert_problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    # the log has both, so that the id leads to the cause
    log = capsys.readouterr().out
    assert problem["request_id"] in log
    assert "password=secret" in log


def test_a_database_that_does_not_answer(
    client: httpx.Client, owner: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OperationalError("SELECT", {}, Exception("host=db.internal refused"))

    monkeypatch.setattr("api.batches.batches.list_batches", fail)
    answer = client.get("/v1/batches", headers=owner.headers)
    assert_problem(answer, 503, "database_unavailable")
    assert answer.headers["Retry-After"]
    assert "db.internal" not in answer.text


def test_codes_are_unique_and_documented(client: httpx.Client) -> None:
    problems = known_problems()
    codes = [problem.code for problem in problems]
    assert len(set(codes)) == len(codes)
    docs = client.get("/docs").text
    for problem in problems:
        assert f'id="{problem.code}"' in docs


def test_readiness_lists_what_is_wrong(
    client: httpx.Client, settings: Settings, make_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    from starlette.datastructures import State

    broken = settings.model_copy(
        update={
            "database_url": make_database(migrated=False),
            "redis_url": "redis://user:secret@127.0.0.1:1/0",
        }
    )
    app = create_app(broken)
    assert isinstance(app.state, State)
    from api.health import readyz

    answer = readyz(app.state.parts)
    app.state.parts.engine.dispose()
    assert answer.status_code == 503
    body = bytes(answer.body).decode()
    assert "fonoteca migrate" in body
    assert "does not answer" in body
    assert "secret" not in body


def test_metrics(client: httpx.Client, owner: Any, make_recording: Any) -> None:
    made = make_recording()
    client.get(f"/v1/recordings/{made.id}", headers=owner.headers)
    client.get("/nothing")
    metrics = client.get("/metrics").text
    assert 'fonoteca_queue_waiting{class="normal",queue="split"} 1.0' in metrics
    assert 'fonoteca_queue_waiting{class="normal",queue="transcribe"} 0.0' in metrics
    route = 'method="GET",route="/v1/recordings/{recording_id}",status="200"'
    assert f"fonoteca_http_requests_total{{{route}}} 1.0" in metrics
    assert 'route="unmatched",status="404"' in metrics
    assert str(made.id) not in metrics
