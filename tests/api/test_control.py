"""Pausing, cancelling and trying again over HTTP: at once, for one's own work alone, and said in the answer."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from db.connect import transaction
from tests.conftest import Said


def states(client: httpx.Client, owner: Any, batch_id: uuid.UUID) -> dict[str, int]:
    counts = client.get(f"/v1/batches/{batch_id}", headers=owner.headers).json()["recording_counts"]
    return {state: n for state, n in counts.items() if n}


def post(client: httpx.Client, owner: Any, path: str) -> httpx.Response:
    return client.post(path, headers=owner.headers)


def test_a_batch_is_paused_and_goes_on(
    client: httpx.Client, engine: Engine, owner: Any, make_recording: Any
) -> None:
    made = make_recording()
    path = f"/v1/batches/{made.batch_id}"
    assert client.get(path, headers=owner.headers).json()["paused"] is False
    for _ in range(2):  # twice is once
        answer = post(client, owner, f"{path}/pause")
        assert (answer.status_code, answer.json()["paused"]) == (200, True)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT hold FROM recordings")) == "held", "moved by the request itself"
    assert client.get(path, headers=owner.headers).json()["paused"] is True
    assert post(client, owner, f"{path}/resume").json()["paused"] is False
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT hold FROM recordings")) is None


def test_a_batch_is_cancelled_and_tried_again(client: httpx.Client, owner: Any, make_recording: Any) -> None:
    made = make_recording()
    path = f"/v1/batches/{made.batch_id}"
    assert post(client, owner, f"{path}/cancel").json() == {"n_recordings": 1}
    assert states(client, owner, made.batch_id) == {"cancelled": 1}
    assert client.get(path, headers=owner.headers).json()["finished"] is True
    assert post(client, owner, f"{path}/cancel").json() == {"n_recordings": 0}
    answer = post(client, owner, f"{path}/retry").json()
    assert answer == {"awaiting_media": 0, "split_again": 1, "transcribed_again": 0}
    assert states(client, owner, made.batch_id) == {"received": 1}


def test_one_recording_is_cancelled_and_sent_again(
    client: httpx.Client, owner: Any, make_recording: Any
) -> None:
    made = make_recording(received=False)
    path = f"/v1/recordings/{made.id}"
    cancelled = post(client, owner, f"{path}/cancel").json()
    assert (cancelled["state"], cancelled["failure"]["code"]) == ("cancelled", "cancelled")
    assert post(client, owner, f"{path}/retry").json()["state"] == "awaiting_media"


def test_a_finished_recording_stays_as_it_is(client: httpx.Client, owner: Any, make_transcript: Any) -> None:
    made = make_transcript([Said(0, 2, "ola")])
    for verb in ("cancel", "retry"):
        assert post(client, owner, f"/v1/recordings/{made.id}/{verb}").json()["state"] == "completed"


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "retry"])
def test_anothers_batch_does_not_exist(
    client: httpx.Client, make_broadcaster: Any, make_recording: Any, verb: str
) -> None:
    made, stranger = make_recording(), make_broadcaster()
    answer = post(client, stranger, f"/v1/batches/{made.batch_id}/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (404, "batch_not_found")
    assert client.post(f"/v1/batches/{made.batch_id}/{verb}").status_code == 401


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_anothers_recording_does_not_exist(
    client: httpx.Client, make_broadcaster: Any, make_recording: Any, verb: str
) -> None:
    made, stranger = make_recording(), make_broadcaster()
    answer = post(client, stranger, f"/v1/recordings/{made.id}/{verb}")
    assert (answer.status_code, answer.json()["code"]) == (404, "recording_not_found")


def test_a_batch_shows_that_its_broadcaster_is_paused(
    client: httpx.Client, engine: Engine, owner: Any, make_recording: Any
) -> None:
    from db.control import Target, pause

    made = make_recording()
    with transaction(engine) as tx:
        assert pause(tx.connection, Target(owner.id))
    assert client.get(f"/v1/batches/{made.batch_id}", headers=owner.headers).json()["paused"] is True
    assert post(client, owner, f"/v1/batches/{made.batch_id}/resume").json()["paused"] is True


def test_finished_recordings_are_transcribed_again(
    client: httpx.Client, owner: Any, make_transcript: Any
) -> None:
    made = make_transcript([Said(0, 2, "ola")], programme="Serán")
    asked = {"programme": "Serán"}
    answer = client.post("/v1/transcriptions", json=asked, headers=owner.headers)
    assert (answer.status_code, answer.json()) == (202, {"n_recordings": 1, "next": None})
    assert client.post("/v1/transcriptions", json=asked, headers=owner.headers).json()["n_recordings"] == 0
    transcript = client.get(f"/v1/recordings/{made.id}/transcript?format=txt", headers=owner.headers)
    assert "ola" in transcript.text, "readable while it is made anew"
    unknown = client.post("/v1/transcriptions", json={"model": "ninguen"}, headers=owner.headers)
    assert (unknown.status_code, unknown.json()["code"]) == (422, "model_unknown")
    for wrong in ({"program": "Serán"}, {"from": "yesterday"}):
        assert client.post("/v1/transcriptions", json=wrong, headers=owner.headers).status_code == 422
    assert client.post("/v1/transcriptions", json={}).status_code == 401
