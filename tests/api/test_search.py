"""Search over HTTP and on its page: the rows of psql, nobody else's, safe to show."""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from api.middleware import CONTENT_SECURITY_POLICY
from api.search import Hit, marked
from db.transcripts import DEMO_NOTICE
from tests.conftest import Owner, Said

WOLVES = [
    Said(1, 5, "O lobo baixou da serra do Courel."),
    Said(6, 9, "Contaron os lobos <b>onte</b> & hoxe."),
    Said(10, 14, "A cadea de montaxe de Vigo parou."),
]


@pytest.fixture
def archive(make_transcript: Callable[..., Any], make_broadcaster: Callable[..., Owner]) -> dict[str, Any]:
    """Three recordings of the fixture `owner`, one of another broadcaster."""
    return {
        "old": make_transcript(
            WOLVES, name="cinta/1.wav", programme="Galicia Rural", broadcast_on=dt.date(1987, 11, 21)
        ),
        "new": make_transcript(
            WOLVES[:2],
            name="2.wav",
            programme="Telexornal",
            broadcast_on=dt.date(2024, 3, 1),
            is_demo=False,
        ),
        "undated": make_transcript(WOLVES[:1], name="3.wav"),
        "other": make_transcript(WOLVES, name="allea.wav", owner=make_broadcaster()),
    }


def find(client: httpx.Client, owner: Owner, **query: str | int) -> dict[str, Any]:
    """GET /v1/search."""
    answer = client.get("/v1/search", params=query, headers=owner.headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_rows_are_those_of_psql(
    client: httpx.Client, owner: Owner, archive: dict[str, Any], engine: Engine
) -> None:
    sql = text(
        "SELECT row_to_json(s) FROM archive.search(:q, broadcaster => :owner, programme => :programme, "
        '"from" => :from, "to" => :to, model => :model) s'
    )
    asked: list[dict[str, str]] = [
        {"q": "LÓBOS serra"},
        {"q": '"cadea de montaxe"'},
        {"q": "lobo -serra"},
        {"q": "montax*"},
        {"q": "lobo", "programme": "galicia rural"},
        {"q": "lobo", "from": "1987-11-21", "to": "1987-11-21"},
        {"q": "lobo", "model": "phi4-galician"},
        {"q": "inexistente"},
    ]
    names = sorted(set(Hit.model_fields) - {"snippet_html", "notice", "audio_url", "page_url"})
    n_found = []
    for query in asked:
        page = find(client, owner, **query)
        filters = dict.fromkeys(("programme", "from", "to", "model")) | query
        with engine.connect() as connection:
            rows = connection.scalars(sql, filters | {"owner": owner.name}).all()
        assert [[item[name] for name in names] for item in page["items"]] == [
            [row[name] for name in names] for row in rows
        ]
        assert {row["broadcaster"] for row in rows} <= {owner.name}
        assert page["matches"] == {"n": len(rows), "is_exact": True}
        assert page["next"] is None
        n_found.append(len(rows))
    assert n_found == [3, 1, 2, 1, 2, 2, 2, 0]


def test_what_a_hit_tells(client: httpx.Client, owner: Owner, archive: dict[str, Any]) -> None:
    (hit,) = find(client, owner, q="hoxe", model="demo")["items"]
    recording_id = str(archive["old"].id)
    assert hit["recording_id"] == recording_id
    assert (hit["recording"], hit["programme"], hit["broadcast_on"]) == (
        "cinta/1.wav",
        "Galicia Rural",
        "1987-11-21",
    )
    assert (hit["start_s"], hit["end_s"], hit["start_timecode"]) == (6.0, 9.0, "00:00:06.000")
    assert hit["snippet"] == "Contaron os lobos <b>onte</b> & <mark>hoxe</mark>."
    assert hit["snippet_html"] == "Contaron os lobos &lt;b&gt;onte&lt;/b&gt; &amp; <mark>hoxe</mark>."
    assert hit["notice"] == DEMO_NOTICE
    assert hit["audio_url"] == f"/v1/recordings/{recording_id}/audio#t=6.000,9.000"
    # the address leads to the segment on the recording's page
    path, anchor = hit["page_url"].split("#")
    page = client.get(path, headers=owner.headers | {"Accept": "text/html"}).text
    assert re.search(rf'id="{anchor}".*?data-from="6.0".*?Contaron os lobos', page, re.S)
    (hit,) = find(client, owner, q="hoxe", model="phi4-galician")["items"]
    assert (hit["notice"], hit["is_demo_model"]) == (None, False)


def test_pages_follow_each_other_without_hole_or_repeat(
    client: httpx.Client, owner: Owner, archive: dict[str, Any]
) -> None:
    whole = find(client, owner, q="lobo", limit=100)
    assert len(whole["items"]) == 5
    pages = [find(client, owner, q="lobo", limit=2)]
    while pages[-1]["next"]:
        pages.append(find(client, owner, q="lobo", limit=2, after=pages[-1]["next"]))
    assert [len(page["items"]) for page in pages] == [2, 2, 1]
    assert [item for page in pages for item in page["items"]] == whole["items"]
    assert [page["matches"] for page in pages] == [{"n": 5, "is_exact": True}, None, None]


def test_what_cannot_be_searched_for_is_said(
    client: httpx.Client, owner: Owner, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def problem(**query: str | int) -> tuple[int, str, str]:
        answer = client.get("/v1/search", params=query, headers=owner.headers)
        assert answer.headers["Content-Type"] == "application/problem+json"
        content = answer.json()
        return answer.status_code, content["code"], content["detail"]

    assert problem(q="-lobo")[:2] == (422, "bad_query")
    assert "without -" in problem(q="-lobo")[2]
    assert problem(q=" ")[:2] == (422, "bad_query")
    assert problem(q="lobo", after="nada")[:2] == (422, "bad_query")
    status, code, detail = problem(q="lobo", **{"from": "2024-02-01", "to": "2024-01-01"})
    assert (status, code) == (422, "bad_query")
    assert "backwards" in detail
    for bad in (
        {},
        {"q": "x" * 1001},
        {"q": "a\0b"},
        {"q": "lobo", "from": "onte"},
        {"q": "lobo", "limit": 101},
        {"q": "lobo", "after": "\0"},
    ):
        assert problem(**bad)[:2] == (422, "validation_failed"), bad
    assert client.get("/v1/search", params={"q": "lobo"}).status_code == 401
    # a search that takes too long is stopped, and says what to do
    monkeypatch.setattr("api.search.SEARCH_TIMEOUT_S", 0.1)
    monkeypatch.setattr(
        "db.search.search", lambda connection, *_, **__: connection.execute(text("SELECT pg_sleep(5)"))
    )
    answer = client.get("/v1/search", params={"q": "lobo"}, headers=owner.headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "search_timeout")
    assert answer.headers["Retry-After"] == "30"
    assert "narrow it" in answer.json()["detail"]


def test_marks_are_the_only_markup() -> None:
    assert marked("<mark>a</mark> <script> </mark> <mark> é & b") == (
        "<mark>a</mark> &lt;script&gt; &lt;/mark&gt; &lt;mark&gt; é &amp; b"
    )


@pytest.fixture
def browser(client: httpx.Client, owner: Owner) -> httpx.Client:
    """A client that signed in, and asks for pages as a browser does."""
    client.headers["Accept"] = "text/html"
    client.post("/session", data={"key": owner.key})
    return client


def test_the_page(browser: httpx.Client, archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    empty = browser.get("/search").text
    assert 'name="q"' in empty
    assert "Nothing was found" not in empty
    # programmes to choose from are the broadcaster's own
    assert re.findall(r"<datalist.*?</datalist>", empty, re.S)[0].count("<option") == 2
    page = browser.get("/search", params={"q": "lobo"}).text
    assert "5 passages" in page
    assert page.count("<section") == 3  # a recording's passages stand together
    assert "os <mark>lobos</mark> &lt;b&gt;onte&lt;/b&gt; &amp; hoxe" in page
    assert "allea.wav" not in page
    assert html.escape(DEMO_NOTICE, quote=False).replace("'", "&#39;") in page
    recording = archive["old"].id
    assert f'href="/v1/recordings/{recording}/audio#t=5.0,9.0" data-from="5.0" data-to="9.0"' in page
    assert re.search(rf'href="/recordings/{recording}#segment-id-\d+"', page)
    # without JavaScript: filters by the form, and more by a link
    narrowed = browser.get(
        "/search",
        params={"q": "lobo", "programme": "Telexornal", "from": "2024-01-01", "to": "", "model": ""},
    ).text
    assert "2 passages" in narrowed
    assert 'value="2024-01-01"' in narrowed
    assert "<details open>" in narrowed
    assert DEMO_NOTICE[:20] not in narrowed  # nothing of the demo model is on it
    monkeypatch.setattr("api.pages_search.PAGE_HITS", 3)
    (more,) = re.findall(r'rel="next" href="([^"]+)"', browser.get("/search", params={"q": "lobo"}).text)
    last = browser.get(html.unescape(more)).text
    assert last.count("<mark>") == 2
    assert "Best passages" in last
    assert "More passages" not in last
    # every page has the box
    for url in ("/", f"/recordings/{recording}", "/corrections"):
        assert 'action="/search"' in browser.get(url).text


def test_the_page_says_what_to_try(browser: httpx.Client, archive: dict[str, Any]) -> None:
    nothing = browser.get("/search", params={"q": '"lobo cadea" serra', "programme": "Nada"})
    assert nothing.status_code == 200
    for hint in ("Nothing was found", "without narrowing", "Leave the quotes out", "fewer words"):
        assert hint in nothing.text
    bad = browser.get("/search", params={"q": "-lobo"})
    assert bad.status_code == 422
    assert 'role="alert"' in bad.text
    for query in (
        {"q": "lobo", "from": "onte"},
        {"q": "x" * 1200},
        {"q": "a\0b", "after": "~"},
        {"q": "lobo", "after": "\0"},
    ):
        assert "notice bad" in browser.get("/search", params=query).text
    evil = browser.get(
        "/search", params={"q": '"><script>alert(1)</script>', "programme": "<img src=x>"}
    ).text
    assert "<script>alert" not in evil
    assert "<img src=x>" not in evil
    assert httpx.get(f"{browser.base_url}/search", headers={"Accept": "text/html"}).status_code == 401


def test_the_page_loads_nothing_from_elsewhere_and_its_script_finds_what_it_needs(
    browser: httpx.Client, archive: dict[str, Any]
) -> None:
    answer = browser.get("/search", params={"q": "lobo"})
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert not re.search(r'(?:src|<link[^>]+href)="(?:https?:)?//', answer.text)
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", answer.text)
    script = browser.get("/static/play.js")
    assert script.status_code == 200
    wanted = set(re.findall(r'getElementById\("([^"]+)"\)', script.text))
    for url in ("/search?q=lobo", f"/recordings/{archive['old'].id}"):
        assert wanted <= set(re.findall(r'\bid="([^"]+)"', browser.get(url).text))


GUIDE = {
    "lobo": (["Lobo", "os lobos", "unha loba", "LOBAS"], ["a lobeira"]),
    "dicir": (["dixo", "dixeron", "dicía", "dirán"], []),
    "cancion": (["a canción", "cancións"], []),
    '"cadea de montaxe"': (["a Cadea, de montaxe"], ["cadeas de montaxe", "cadea da montaxe"]),
    "«cadea de montaxe»": (["a cadea de montaxe"], ["cadeas de montaxe"]),
    "lobo -serra": (["un lobo"], ["o lobo das serras"]),
    'festa -"Rías Baixas"': (["festas nas Baixas Rías"], ["festa das rías baixas"]),
    "montax*": (["montaxe", "montaxes"], ["desmontaxe"]),
    "muller-loba": (["loba e mulleres"], ["muller"]),
    "falar": (["falou", "falaron", "falaba", "fálase", "faloulle"], ["falacia"]),
    "face*": (["facelo"], ["fixo"]),
    "ser": (["foi"], []),
    "ir": (["van"], ["foi"]),
    "facer": (["feito"], ["fixo", "facelo"]),
}
"""docs/search.md: a query, what it says is found, and what is not."""


def test_the_guide_says_what_is_true(
    engine: Engine, owner: Owner, make_transcript: Callable[..., Any]
) -> None:
    texts = sorted({each for found, not_found in GUIDE.values() for each in [*found, *not_found]})
    make_transcript([Said(n, n + 1, each) for n, each in enumerate(texts)])
    guide = (Path(__file__).parents[2] / "docs" / "search.md").read_text(encoding="utf-8")
    with engine.connect() as connection:
        for query, (found, not_found) in GUIDE.items():
            assert f"`{query}`" in guide or query.startswith("«")
            hits = connection.scalars(
                text(
                    "SELECT regexp_replace(snippet, '</?mark>', '', 'g') FROM archive.search(:q, \"limit\" => 100)"
                ),
                {"q": query},
            ).all()
            assert set(found) <= set(hits), query
            assert not set(not_found) & set(hits), query
