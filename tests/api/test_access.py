"""A broadcaster sees only its own rows: tried on every route of the application, those to come included."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from api.app import create_app
from db.broadcasters import revoke_api_key
from db.connect import transaction
from db.settings import Settings
from tests.api.conftest import BODY_TYPE, Tus

OPEN = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/", "/session", "/session/end"}
"""Routes that need no key: none of them shows a row."""

UNKNOWN_ID = "00000000-0000-7000-8000-000000000000"
UNKNOWN_SEGMENT_ID = "800000000001"
SEGMENT_ID = 700_000_000_001
"""Long enough not to stand in an answer by chance."""

CORRECTION = {"text": "Boas noites.", "corrected_by": "ana"}

TUS_HEADERS = {
    "Tus-Resumable": "1.0.0",
    "Upload-Offset": "0",
    "Upload-Length": "5",
    "Content-Type": BODY_TYPE,
}


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, to look at its routes."""
    return create_app(settings)


def routes(router: Any) -> Iterator[tuple[str, str]]:
    """(method, path) of every route, those of included routers too."""
    for route in router.routes:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router)
        else:
            yield from ((method, route.path) for method in sorted(getattr(route, "methods", None) or ()))


def test_the_walk_finds_the_routes(app: FastAPI) -> None:
    found = set(routes(app))
    assert ("PATCH", "/v1/uploads/{upload_id}") in found
    assert ("GET", "/recordings/{recording_id}") in found
    described = {
        (method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods
    }
    assert described <= found


def test_another_broadcasters_rows_answer_like_rows_that_do_not_exist(
    app: FastAPI,
    tus: Tus,
    engine: Engine,
    make_transcript: Callable[..., Any],
    make_broadcaster: Callable[..., Any],
) -> None:
    with transaction(engine) as tx:
        tx.connection.execute(text(f"ALTER TABLE segments ALTER COLUMN id RESTART WITH {SEGMENT_ID}"))
    made = make_transcript()
    _, url = tus.begin(b"audio")
    ids = {
        "batch_id": str(made.batch_id),
        "recording_id": str(made.id),
        "upload_id": url.rsplit("/", 1)[1],
        "segment_id": str(SEGMENT_ID),
        # every broadcaster has the views; what a recording's filter opens is asked here
        "view": f"segments?recording_id={made.id}",
    }
    unknown = dict.fromkeys(ids, UNKNOWN_ID) | {
        "segment_id": UNKNOWN_SEGMENT_ID,
        "view": f"segments?recording_id={UNKNOWN_ID}",
    }
    stranger = make_broadcaster()
    tried = 0
    for method, path in routes(app):
        if "{" not in path or method == "OPTIONS":
            continue
        answers = []
        for values in (ids, unknown):
            sent: dict[str, Any] = {"headers": stranger.headers | TUS_HEADERS, "content": b"audio"}
            if method == "PUT":
                sent = {"headers": stranger.headers, "json": CORRECTION}
            if path.endswith("/clip"):
                sent["params"] = {"from": "0", "to": "1"}
            answer = tus.client.request(method, path.format(**values), **sent)
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code} {answer.text}"
            answers.append((comparable(answer, values), sorted(answer.headers)))
        assert answers[0] == answers[1], f"{method} {path} tells another's row from none"
        tried += 1
    assert tried >= 11
    assert tus.offset(url) == 0
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM corrections")) == 0


def comparable(answer: httpx.Response, values: dict[str, str]) -> str:
    """A problem without what must differ: the ids asked for and the request's own."""
    if not answer.content:
        return ""
    content = json.dumps(answer.json() | {"request_id": ""})
    for value in set(values.values()):
        content = content.replace(value, "ID")
    return content


def test_lists_hold_only_ones_own(
    client: httpx.Client, owner: Any, make_recording: Any, make_broadcaster: Any
) -> None:
    stranger = make_broadcaster()
    mine, theirs = make_recording(received=False), make_recording(received=False, owner=stranger)
    for who, batch in ((owner, mine), (stranger, theirs)):
        found = client.get("/v1/batches", headers=who.headers).json()["items"]
        assert [item["id"] for item in found] == [str(batch.batch_id)]
        # a cursor of another's opens nothing either
        query = {"after": "ffffffff-ffff-7fff-bfff-ffffffffffff"}
        found = client.get("/v1/batches", params=query, headers=who.headers).json()["items"]
        assert [item["id"] for item in found] == [str(batch.batch_id)]


def test_every_route_that_shows_rows_needs_a_key(app: FastAPI, client: httpx.Client) -> None:
    wrong = "fono_0000000000000000_" + "0" * 64
    for method, path in routes(app):
        if path in OPEN or method == "OPTIONS":
            continue
        url = path.format(
            batch_id=UNKNOWN_ID,
            recording_id=UNKNOWN_ID,
            upload_id=UNKNOWN_ID,
            segment_id=UNKNOWN_SEGMENT_ID,
            view="segments",
        )
        for headers in (
            {},
            {"Authorization": f"Bearer {wrong}"},
            {"Authorization": f"Basic {wrong}"},
            {"Cookie": f"fonoteca_key={wrong}"},
        ):
            body = {"name": "b", "recordings": [{"name": "a", "size_bytes": 1}]}
            answer = client.request(
                method, url, headers=TUS_HEADERS | {"Content-Type": "application/json"} | headers, json=body
            )
            assert answer.status_code == 401, f"{method} {path}"
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_revoked_key_opens_nothing(client: httpx.Client, owner: Any, engine: Engine) -> None:
    assert client.get("/v1/batches", headers=owner.headers).status_code == 200
    with transaction(engine) as tx:
        revoke_api_key(tx.connection, owner.key.split("_")[1])
    assert client.get("/v1/batches", headers=owner.headers).status_code == 401


def test_the_cookie_reads_and_never_writes(client: httpx.Client, owner: Any, engine: Engine) -> None:
    cookie = {"Cookie": f"fonoteca_key={owner.key}"}
    assert client.get("/v1/batches", headers=cookie).status_code == 200
    body = {"name": "b", "recordings": [{"name": "a", "size_bytes": 1}]}
    assert client.post("/v1/batches", json=body, headers=cookie).status_code == 401
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM batches")) == 0
