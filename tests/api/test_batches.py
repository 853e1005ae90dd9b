"""Batches: submitted once however often they are sent, refused with the reason, read page by page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
from sqlalchemy import Engine, event, text

from api.batches import FileTooLarge
from db.batches import NewRecording, find_batch, list_batches, list_recordings, request_sha256
from db.states import Priority
from tests.conftest import Said

BATCH: dict[str, Any] = {
    "name": "Arquivo de 1987",
    "priority": "archive",
    "recordings": [
        {"name": "novas/día 1.mxf", "size_bytes": 10, "sha256": "AB" * 32, "programme": "Telexornal"},
        {"name": "novas/día 2.mxf", "size_bytes": 20},
    ],
}


def named(name: str, **changed: Any) -> dict[str, Any]:
    """A batch of one recording."""
    return {"name": "batch", "recordings": [{"name": name, "size_bytes": 1} | changed]}


def test_a_batch_is_answered_with_its_recordings(client: httpx.Client, owner: Any) -> None:
    answer = client.post("/v1/batches", json=BATCH, headers=owner.headers)
    assert answer.status_code == 201
    batch = answer.json()
    assert (batch["name"], batch["priority"], batch["finished"]) == ("Arquivo de 1987", "archive", False)
    assert batch["recording_counts"]["awaiting_media"] == 2
    assert [recording["name"] for recording in batch["recordings"]] == ["novas/día 1.mxf", "novas/día 2.mxf"]
    first, second = batch["recordings"]
    assert (first["sha256"], first["programme"], first["state"]) == (
        "ab" * 32,
        "Telexornal",
        "awaiting_media",
    )
    assert (second["sha256"], second["failure"], second["upload"], second["coverage"]) == (None,) * 4
    read = client.get(answer.headers["Location"], headers=owner.headers).json()
    assert read.pop("eta")["reason"] == "awaiting_media"
    assert read == {name: value for name, value in batch.items() if name != "recordings"}
    assert client.get(f"/v1/recordings/{first['id']}", headers=owner.headers).json() == first


def test_kind_of_programme_and_day_of_broadcast(client: httpx.Client, owner: Any) -> None:
    facts = {"programme": "Serán", "programme_kind": "interview", "broadcast_on": "1987-11-21"}
    headers = owner.headers | {"Idempotency-Key": "seran-1"}
    answer = client.post("/v1/batches", json=named("a", **facts), headers=headers)
    assert answer.status_code == 201, answer.text
    (recording,) = answer.json()["recordings"]
    assert {name: recording[name] for name in facts} == facts
    read = client.get(f"/v1/recordings/{recording['id']}", headers=owner.headers).json()
    assert {name: read[name] for name in facts} == facts
    assert client.post("/v1/batches", json=named("a", **facts), headers=headers).status_code == 200
    for changed in ({"programme_kind": "radio"}, {"broadcast_on": "1987-11-22"}, {"programme_kind": None}):
        other = client.post("/v1/batches", json=named("a", **facts | changed), headers=headers)
        assert other.json()["code"] == "idempotency_key_reused"


def test_a_request_without_the_later_fields_keeps_its_digest() -> None:
    announced = [NewRecording("a.wav", 1, "ab" * 32, "Telexornal"), NewRecording("b.wav", 2)]
    digest = request_sha256("monday", Priority.NORMAL, announced)
    # as it was before kind and day could be told: keys of those days still find their batches
    assert digest.hex() == "58cefdbba01552bfa40b3d96460c6028e6c2450129a3570ed884ec706d328205"


def test_the_same_request_makes_one_batch(client: httpx.Client, owner: Any, make_broadcaster: Any) -> None:
    headers = owner.headers | {"Idempotency-Key": "dia-1"}
    first = client.post("/v1/batches", json=BATCH, headers=headers)
    again = client.post("/v1/batches", json=BATCH, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    assert again.json() == first.json()
    other = client.post("/v1/batches", json=BATCH | {"name": "another"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    # another broadcaster may use the same key
    stranger = make_broadcaster().headers | {"Idempotency-Key": headers["Idempotency-Key"]}
    assert client.post("/v1/batches", json=BATCH, headers=stranger).status_code == 201


def test_duplicates_at_the_same_moment_make_one_batch(
    client: httpx.Client, server_url: str, owner: Any, engine: Engine
) -> None:
    answers: list[httpx.Response] = []

    def send() -> None:
        answers.append(
            httpx.post(
                f"{server_url}/v1/batches",
                json=BATCH,
                headers=owner.headers | {"Idempotency-Key": "once"},
                timeout=30,
            )
        )

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM batches")) == 1
        assert connection.scalar(text("SELECT count(*) FROM recordings")) == 2


BAD_NAMES = [
    *("", "/etc/passwd", "../evil", "a/../evil", "a/..", ".", "./a", "a//b", "a/", "a\\b", "C:\\a.wav"),
    *("a\nb", "a\x00b", "a\x7fb", "a\u2028b", "cafe\u0301.wav", "n" * 1025),
]


def test_bad_names_are_refused_and_named(client: httpx.Client, owner: Any) -> None:
    for name in BAD_NAMES:
        answer = client.post("/v1/batches", json=named(name), headers=owner.headers)
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "bad_recording_name"), name
        assert repr(name[:80])[1:-1] in problem["detail"]
        assert problem["errors"][0]["pointer"] == "/recordings/0/name"
    twice = BATCH | {"recordings": [BATCH["recordings"][0]] * 2}
    problem = client.post("/v1/batches", json=twice, headers=owner.headers).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("bad_recording_name", "/recordings/1/name")
    assert "comes twice" in problem["detail"]


def test_good_names_are_taken(client: httpx.Client, owner: Any) -> None:
    for name in ("a.wav", "...", "..a", "a b/ñandú — día 1 (2ª parte).mp3", "日本語.wav", "n" * 1024):
        assert client.post("/v1/batches", json=named(name), headers=owner.headers).status_code == 201, name


def test_sizes_that_cannot_be_taken(client: httpx.Client, owner: Any) -> None:
    empty = client.post("/v1/batches", json=named("silent.wav", size_bytes=0), headers=owner.headers)
    assert (empty.status_code, empty.json()["code"]) == (422, "empty_file")
    assert "silent.wav" in empty.json()["detail"]
    huge = client.post("/v1/batches", json=named("huge.mxf", size_bytes=2**40), headers=owner.headers)
    assert (huge.status_code, huge.json()["code"]) == (FileTooLarge.status, FileTooLarge.code)
    assert "huge.mxf" in huge.json()["detail"]


WRONG_FORMS: list[tuple[dict[str, Any], str]] = [
    ({"recordings": [{"name": "a", "size_bytes": 1}]}, "/name"),
    ({"name": "b", "recordings": []}, "/recordings"),
    ({"name": "b", "recordings": [{"name": "a", "size_bytes": 1}], "prioridade": 1}, "/prioridade"),
    (named("a", sha256="no"), "/recordings/0/sha256"),
    (named("a", size_bytes=-1), "/recordings/0/size_bytes"),
    (named("a", programme="a\x00b"), "/recordings/0/programme"),
    (named("a", programme_kind=""), "/recordings/0/programme_kind"),
    (named("a", broadcast_on="21/11/1987"), "/recordings/0/broadcast_on"),
    (named("a", broadcast_on=564451200), "/recordings/0/broadcast_on"),
    (named("a", broadcast_on="1987-02-29"), "/recordings/0/broadcast_on"),
    ({"name": "b\x00", "recordings": [{"name": "a", "size_bytes": 1}]}, "/name"),
    (named("a") | {"priority": "asap"}, "/priority"),
]


def test_requests_of_the_wrong_form(client: httpx.Client, owner: Any) -> None:
    for body, pointer in WRONG_FORMS:
        answer = client.post("/v1/batches", json=body, headers=owner.headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_too_many_recordings(client: httpx.Client, owner: Any) -> None:
    many = [{"name": f"{number}.wav", "size_bytes": 1} for number in range(10_001)]
    refused = client.post("/v1/batches", json={"name": "b", "recordings": many}, headers=owner.headers)
    assert refused.status_code == 422
    taken = client.post("/v1/batches", json={"name": "b", "recordings": many[:-1]}, headers=owner.headers)
    assert taken.status_code == 201
    names = [recording["name"] for recording in taken.json()["recordings"]]
    assert names == [recording["name"] for recording in many[:-1]]


def test_pages_hold_everything_once(client: httpx.Client, owner: Any) -> None:
    bodies = [{"name": f"batch {n}", "recordings": [{"name": "a", "size_bytes": 1}]} for n in range(5)]
    bodies[0]["recordings"] = [{"name": f"{n}.wav", "size_bytes": 1} for n in range(7)]
    made = [client.post("/v1/batches", json=body, headers=owner.headers).json() for body in bodies]
    for url, size, expected in (
        ("/v1/batches", 2, [batch["id"] for batch in reversed(made)]),
        (f"/v1/batches/{made[0]['id']}/recordings", 3, [item["id"] for item in made[0]["recordings"]]),
        (f"/v1/batches/{made[0]['id']}/recordings", 7, [item["id"] for item in made[0]["recordings"]]),
    ):
        seen: list[str] = []
        after = None
        while True:
            query = {"limit": size} | ({"after": after} if after else {})
            page = client.get(url, params=query, headers=owner.headers).json()
            assert len(page["items"]) <= size
            seen += [item["id"] for item in page["items"]]
            after = page["next"]
            if after is None:
                break
        assert seen == expected


def test_counts_and_seconds(
    client: httpx.Client, owner: Any, make_transcript: Callable[..., Any], make_recording: Callable[..., Any]
) -> None:
    said = [Said(1, 3, "boas noites"), Said(3, 4, None), Said(6, 8, "ata mañá")]
    made = make_transcript(said, duration_s=10.0)
    batch = client.get(f"/v1/batches/{made.batch_id}", headers=owner.headers).json()
    assert batch["recording_counts"]["partial"] == 1
    assert sum(batch["recording_counts"].values()) == 1
    assert batch["segment_counts"] == {"pending": 0, "running": 0, "done": 2, "failed": 1}
    assert batch["audio_s"] == {"total": 10.0, "transcribed": 4.0, "no_speech": 5.0, "failed": 1.0}
    assert batch["finished"] is True
    recording = client.get(f"/v1/recordings/{made.id}", headers=owner.headers).json()
    assert recording["segment_counts"] == batch["segment_counts"]
    assert recording["coverage"] == {"transcribed_s": 4.0, "no_speech_s": 5.0, "failed_s": 1.0}
    assert recording["duration_s"] == 10.0
    assert recording["failure"]["code"] == "seconds_failed"


def test_a_page_costs_one_query_whatever_its_length(
    engine: Engine, owner: Any, make_recording: Callable[..., Any]
) -> None:
    for _ in range(3):
        batch_id = make_recording(received=False).batch_id
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))
    with engine.connect() as connection:
        assert len(list_batches(connection, owner.id, limit=10)) == 3
        assert find_batch(connection, owner.id, batch_id) is not None
        assert len(list_recordings(connection, owner.id, batch_id, limit=10)) == 1
    assert len(statements) == 3


def test_a_sound_track_is_asked_for_by_word_or_number(client: httpx.Client, owner: Any) -> None:
    def submit(**facts: str) -> Any:
        body = {"name": "luns", "recordings": [{"name": "novas.mxf", "size_bytes": 1} | facts]}
        return client.post("/v1/batches", json=body, headers=owner.headers)

    for asked in ("auto", "mix", "0", "15"):
        (recording,) = submit(audio_track=asked).json()["recordings"]
        assert (recording["audio_track"], recording["media"]) == (asked, None)
    assert submit().json()["recordings"][0]["audio_track"] == "auto"
    for refused in ("", "left", "-1", "1,2"):
        assert submit(audio_track=refused).status_code == 422
