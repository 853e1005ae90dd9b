"""The pages: signing in, what they show, what they never let through."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.middleware import CONTENT_SECURITY_POLICY
from db.connect import transaction
from db.finishing import fail_recordings
from db.transcripts import DEMO_NOTICE
from tests.conftest import Said


@pytest.fixture
def browser(client: httpx.Client, owner: Any) -> httpx.Client:
    """A client that signed in, and asks for pages as a browser does."""
    client.headers["Accept"] = "text/html"
    answer = client.post("/session", data={"key": f" {owner.key}\n"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    return client


def test_signing_in_and_out(client: httpx.Client, owner: Any) -> None:
    assert 'id="sign-in"' in client.get("/").text
    answer = client.post("/session", data={"key": owner.key})
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Max-Age" not in cookie
    assert owner.name in client.get("/").text
    client.post("/session/end")
    assert 'id="sign-in"' in client.get("/").text


def test_a_wrong_key_is_refused(client: httpx.Client) -> None:
    answer = client.post("/session", data={"key": "fono_no"})
    assert answer.status_code == 401
    assert "This key is not valid" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert "fono_no" not in answer.text


def test_another_site_cannot_sign_people_in(client: httpx.Client, owner: Any) -> None:
    answer = client.post("/session", data={"key": owner.key}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_the_list_shows_states_and_reasons(
    browser: httpx.Client,
    engine: Engine,
    make_recording: Callable[..., Any],
    make_broadcaster: Callable[..., Any],
) -> None:
    made = make_recording(name="novas/día 1.wav", programme="Telexornal <1>", received=False)
    waiting = make_recording(name="agarda.wav")
    make_recording(name="allea.wav", owner=make_broadcaster())
    with transaction(engine) as tx:
        fail_recordings(tx.connection, [made.id], "bad_media", "no sound & no picture")
    page = browser.get("/").text
    for shown in (
        "novas/día 1.wav",
        "Telexornal &lt;1&gt;",
        "no sound &amp; no picture",
        "agarda.wav",
        "received",
    ):
        assert shown in page
    assert "allea.wav" not in page
    failed = browser.get("/", params={"state": "failed"}).text
    assert str(made.id) in failed
    assert str(waiting.id) not in failed
    assert str(waiting.id) in browser.get("/", params={"state": ""}).text


def test_older_recordings_are_a_page_away(
    browser: httpx.Client, make_recording: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.pages.PAGE_ROWS", 2)
    names = [make_recording(name=f"{number}.wav", received=False).name for number in range(3)]
    first = browser.get("/").text
    assert names[2] in first
    assert names[0] not in first
    (older,) = re.findall(r'href="(/\?after=[^"]+)"', first)
    second = browser.get(older).text
    assert names[0] in second
    assert names[2] not in second


def test_a_recordings_page(browser: httpx.Client, make_transcript: Callable[..., Any]) -> None:
    said = [
        Said(1, 3, "Boas noites, <b>Galicia</b>.", -0.02),
        Said(3, 4, "palabra dubidosa", -1.5),
        Said(6, 8, None),
    ]
    made = make_transcript(said, duration_s=10.0, name="día 1.wav")
    page = browser.get(f"/recordings/{made.id}").text
    assert "Boas noites, &lt;b&gt;Galicia&lt;/b&gt;." in page
    assert DEMO_NOTICE.replace("'", "&#39;") in page
    assert re.search(r'class="doubtful">.*?palabra dubidosa.*?doubtful · 22 %', page, re.S)
    assert "Not transcribed: the model raised an error" in page
    assert page.count("<rect ") == 6
    assert 'class="failed" x="600.0" y="0" width="200.0"' in page
    for fact in ("Transcribe the audio clip into text.", "energy-1", "0.1.0+test", "demo", "dddddddddddd"):
        assert fact in page
    for format_name in ("txt", "srt", "vtt", "json"):
        (link,) = re.findall(rf'href="(/v1/recordings/[^"]+format={format_name})"', page)
        assert browser.get(link).status_code == 200  # with the cookie alone


def test_the_page_for_corrections(
    browser: httpx.Client, client: httpx.Client, make_transcript: Callable[..., Any], engine: Engine
) -> None:
    made = make_transcript()
    with engine.connect() as connection:
        segment_id = connection.scalar(text("SELECT id FROM segments"))
    assert f'href="/corrections?segment={segment_id}"' in browser.get(f"/recordings/{made.id}").text
    page = browser.get("/corrections").text
    script = browser.get("/static/corrections.js").text
    # what the script reaches for is on the page
    assert set(re.findall(r'\bat\("([^"]+)"\)', script)) <= set(re.findall(r'\bid="([^"]+)"', page))
    for path in re.findall(r'"(/v1/[a-z-]+)"', script):
        assert path in browser.get("/openapi.json").json()["paths"]
    client.post("/session/end")
    assert client.get("/corrections").status_code == 401


def test_a_recording_on_its_way(browser: httpx.Client, make_recording: Callable[..., Any]) -> None:
    assert "There is no transcript yet" in browser.get(f"/recordings/{make_recording().id}").text


def test_errors_are_pages_for_people(client: httpx.Client, make_recording: Callable[..., Any]) -> None:
    page = {"Accept": "text/html,*/*"}
    answer = client.get(f"/recordings/{make_recording().id}", headers=page)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Sign in" in answer.text
    assert "there is nothing at /nada" in client.get("/nada", headers=page).text


def test_pages_load_nothing_from_elsewhere_and_run_no_inline_code(
    browser: httpx.Client, make_transcript: Callable[..., Any]
) -> None:
    made = make_transcript()
    for url in ("/", f"/recordings/{made.id}", "/corrections", "/docs", "/nada"):
        answer = browser.get(url)
        assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert 'charset="utf-8"' in answer.text
        assert not re.search(r'(?:src|<link[^>]+href)="(?:https?:)?//', answer.text)
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", answer.text)
        for asset in re.findall(r'(?:src|<link[^>]+href)="(/[^"]+)"', answer.text):
            assert browser.get(asset).status_code == 200


def test_nothing_of_a_name_is_markup(
    browser: httpx.Client, engine: Engine, make_recording: Callable[..., Any]
) -> None:
    made = make_recording(name='"><script>alert(1)</script>.wav', received=False)
    with transaction(engine) as tx:
        tx.connection.execute(text("UPDATE batches SET name = '<img src=x>'"))
    for url in ("/", f"/recordings/{made.id}"):
        page = browser.get(url).text
        assert "<script>alert" not in page
        assert "<img src=x>" not in page
