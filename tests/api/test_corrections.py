"""Corrections over HTTP: drawn, heard, stored once, given out again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.audio import RangeNotSatisfiable, parse_range
from db.media_store import MediaStore
from db.transcripts import DEMO_NOTICE
from tests.conftest import Said

THREE = [Said(0, 4, "Boas noites."), Said(5, 8, "Isto é o telexornal."), Said(9, 11, None)]


@pytest.fixture
def segment_ids(make_transcript: Callable[..., Any], engine: Engine) -> list[int]:
    """Two transcribed segments and a failed one."""
    make_transcript(THREE, programme="Telexornal", programme_kind="television", name="día 1.wav")
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM segments ORDER BY start_sample")))


def put(client: httpx.Client, owner: Any, segment_id: int, content: str, **sent: Any) -> httpx.Response:
    body = {"text": content, "corrected_by": "ana"}
    return client.put(
        f"/v1/segments/{segment_id}/correction", json=body, headers=owner.headers | sent.pop("headers", {})
    )


def test_drawn_corrected_and_read_again(client: httpx.Client, owner: Any, segment_ids: list[int]) -> None:
    drawn = client.post("/v1/correction-draws", json={"n": 20}, headers=owner.headers)
    assert drawn.status_code == 201, drawn.text
    items = drawn.json()["items"]
    assert {item["segment_id"] for item in items} == set(segment_ids[:2])
    (item,) = (item for item in items if item["segment_id"] == segment_ids[1])
    assert item["audio_url"] == f"/v1/recordings/{item['recording_id']}/audio#t=5.000,8.000"
    assert (item["recording"], item["programme"], item["stratum"]) == (
        "día 1.wav",
        "Telexornal",
        "television",
    )
    assert (item["text"], item["corrected"], item["notice"]) == ("Isto é o telexornal.", None, DEMO_NOTICE)
    again = client.post("/v1/correction-draws", json={"n": 20}, headers=owner.headers)
    assert again.json()["items"] == []

    open_draws = client.get("/v1/correction-draws", params={"limit": 1}, headers=owner.headers).json()
    assert [item["segment_id"] for item in open_draws["items"]] == segment_ids[:1]
    rest = client.get("/v1/correction-draws", params={"after": open_draws["next"]}, headers=owner.headers)
    assert [item["segment_id"] for item in rest.json()["items"]] == segment_ids[1:2]
    assert rest.json()["next"] is None

    stored = put(client, owner, segment_ids[0], " Boas tardes.\n")
    assert stored.status_code == 201, stored.text
    assert (stored.json()["text"], stored.json()["is_drawn"]) == ("Boas tardes.", True)
    left = client.get("/v1/correction-draws", headers=owner.headers).json()["items"]
    assert [item["segment_id"] for item in left] == segment_ids[1:2]
    read = client.get(f"/v1/segments/{segment_ids[0]}/correction", headers=owner.headers)
    assert read.json() == stored.json()
    assert (
        client.get(f"/v1/segments/{segment_ids[0]}", headers=owner.headers).json()["corrected"]
        == "Boas tardes."
    )


def test_the_same_text_again_changes_nothing(
    client: httpx.Client, owner: Any, segment_ids: list[int]
) -> None:
    decomposed = "Boas noites, nin\u0303a."
    first = put(client, owner, segment_ids[0], decomposed)
    again = put(client, owner, segment_ids[0], "Boas noites, niña.")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.json()["text"] == "Boas noites, niña."
    newer = put(client, owner, segment_ids[0], "")
    assert (newer.status_code, newer.json()["text"], newer.json()["is_drawn"]) == (201, "", False)
    listed = client.get("/v1/corrections", headers=owner.headers).json()
    assert [(item["text"], item["transcribed"]) for item in listed["items"]] == [("", "Boas noites.")]
    everything = client.get("/v1/corrections", params={"with_older": True}, headers=owner.headers).json()
    assert [(item["text"], item["is_current"]) for item in everything["items"]] == [
        ("Boas noites, niña.", False),
        ("", True),
    ]


def test_what_cannot_be_corrected(client: httpx.Client, owner: Any, segment_ids: list[int]) -> None:
    failed = put(client, owner, segment_ids[2], "a")
    assert (failed.status_code, failed.json()["code"]) == (409, "segment_not_transcribed")
    for content in ("a\nb", "a\x00b", "a\x1bb", "a\u2028b", "a" * 5_001):
        answer = put(client, owner, segment_ids[0], content)
        assert (answer.status_code, answer.json()["code"]) == (422, "bad_correction"), repr(content)
    assert put(client, owner, segment_ids[0], "a" * 5_000).status_code == 201
    absent = client.get(f"/v1/segments/{segment_ids[1]}/correction", headers=owner.headers)
    assert (absent.status_code, absent.json()["code"]) == (404, "correction_not_found")
    assert put(client, owner, 10**12, "a").json()["code"] == "segment_not_found"
    assert put(client, owner, 2**63, "a").status_code == 422


def test_many_corrections_are_stored_all_or_none(
    client: httpx.Client, owner: Any, segment_ids: list[int], make_broadcaster: Callable[..., Any]
) -> None:
    def send(who: Any, *items: tuple[int, str]) -> httpx.Response:
        listed = [{"segment_id": i, "text": said, "corrected_by": "ana"} for i, said in items]
        return client.post("/v1/corrections", json={"items": listed}, headers=who.headers)

    refused = send(
        owner, (segment_ids[2], "a"), (segment_ids[0], "Boas noites."), (10**12, "b"), (segment_ids[0], "c")
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "corrections_refused")
    assert [fault["pointer"] for fault in refused.json()["errors"]] == ["/items/0", "/items/2", "/items/3"]
    assert client.get("/v1/corrections", headers=owner.headers).json()["items"] == []
    stored = send(owner, (segment_ids[1], "b"), (segment_ids[0], "Boas noites."))
    assert stored.json() == {"n_stored": 2, "n_unchanged": 0}
    assert send(owner, (segment_ids[1], "b"), (segment_ids[0], "A")).json() == {
        "n_stored": 1,
        "n_unchanged": 1,
    }
    stranger = make_broadcaster()
    foreign = send(stranger, (segment_ids[0], "x")).json()
    assert foreign["errors"] == [{"pointer": "/items/0", "detail": f"there is no segment {segment_ids[0]}"}]
    assert client.get("/v1/corrections", headers=stranger.headers).json()["items"] == []
    assert client.get("/v1/correction-draws", headers=stranger.headers).json()["items"] == []
    assert client.post("/v1/correction-draws", json={}, headers=stranger.headers).json()["items"] == []


def test_corrections_are_read_page_by_page(client: httpx.Client, owner: Any, segment_ids: list[int]) -> None:
    for segment_id in segment_ids[:2]:
        put(client, owner, segment_id, "a")
    first = client.get("/v1/corrections", params={"limit": 1}, headers=owner.headers).json()
    second = client.get("/v1/corrections", params={"after": first["next"]}, headers=owner.headers).json()
    found = [item["segment_id"] for item in first["items"] + second["items"]]
    assert (found, second["next"]) == (segment_ids[:2], None)


def test_the_cookie_corrects_from_this_sites_pages_only(
    client: httpx.Client, owner: Any, segment_ids: list[int]
) -> None:
    url, body = f"/v1/segments/{segment_ids[0]}/correction", {"text": "a", "corrected_by": "ana"}
    cookie = {"Cookie": f"fonoteca_key={owner.key}"}
    here = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
    for foreign in (
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": here},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
    ):
        assert client.put(url, json=body, headers=cookie | foreign).status_code == 401, foreign
    for own in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": here}):
        assert client.put(url, json=body, headers=cookie | own).status_code in {200, 201}, own
        # what is not for the page stays closed to it
        many = {"items": [{"segment_id": segment_ids[0], "text": "b", "corrected_by": "ana"}]}
        assert client.post("/v1/corrections", json=many, headers=cookie | own).status_code == 401


# --- hearing -------------------------------------------------------------------------------------------------


@pytest.fixture
def heard(make_transcript: Callable[..., Any], media_store: MediaStore, tmp_path: Path) -> tuple[str, bytes]:
    """URL of a recording's audio, and what is there."""
    made = make_transcript()
    content = bytes(range(256)) * 1_000
    (tmp_path / "copy.flac").write_bytes(content)
    media_store.put_file(f"{made.owner.id}/{made.id}/working-1.flac", tmp_path / "copy.flac")
    return f"/v1/recordings/{made.id}/audio", content


def test_any_part_of_the_audio_is_sent(client: httpx.Client, owner: Any, heard: tuple[str, bytes]) -> None:
    url, content = heard
    whole = client.get(url, headers=owner.headers)
    assert (whole.status_code, whole.headers["Content-Type"]) == (200, "audio/flac")
    assert (whole.content, whole.headers["Accept-Ranges"]) == (content, "bytes")
    n = len(content)
    for asked, (start, stop) in {
        "bytes=0-": (0, n),
        "bytes=100-199": (100, 200),
        "bytes=255990-999999999": (255_990, n),
        "bytes=-10": (n - 10, n),
    }.items():
        part = client.get(url, headers=owner.headers | {"Range": asked})
        assert (part.status_code, part.content) == (206, content[start:stop]), asked
        assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{n}"
    behind = client.get(url, headers=owner.headers | {"Range": f"bytes={n}-"})
    assert (behind.status_code, behind.headers["Content-Range"]) == (416, f"bytes */{n}")
    tag = whole.headers["ETag"]
    same = client.get(url, headers=owner.headers | {"Range": "bytes=0-9", "If-Range": tag})
    other = client.get(url, headers=owner.headers | {"Range": "bytes=0-9", "If-Range": '"other"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_ranges_that_are_not_understood_send_the_whole() -> None:
    for asked in (
        "",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,4-5",
        "seconds=0-1",
        "bytes=x-",
        f"bytes={'9' * 30}-",
    ):
        assert parse_range(asked, 10) is None, asked
    for asked in ("bytes=10-", "bytes=-0"):
        with pytest.raises(RangeNotSatisfiable):
            parse_range(asked, 10)


def test_audio_that_is_not_there(
    client: httpx.Client, owner: Any, make_recording: Callable[..., Any], make_transcript: Callable[..., Any]
) -> None:
    gone = client.get(f"/v1/recordings/{make_transcript().id}/audio", headers=owner.headers)
    assert (gone.status_code, gone.json()["code"]) == (404, "audio_missing")
    early = client.get(f"/v1/recordings/{make_recording().id}/audio", headers=owner.headers)
    assert (early.status_code, early.json()["code"]) == (409, "audio_not_ready")
