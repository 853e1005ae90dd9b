"""`fonoteca search`: passages for people and programs."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from cli.search import highlighted
from tests.cli.conftest import Ended
from tests.conftest import Said

SAID = [Said(n * 10, n * 10 + 5, f"O lobo \x1b[31m número {n}.") for n in range(5)]


def test_search(
    fonoteca: Callable[..., Ended],
    api: str,
    make_transcript: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = make_transcript(SAID, name="día 1.wav", programme="Rural", broadcast_on=dt.date(1987, 11, 21))
    make_transcript([Said(3605, 3608, "Dous lobos.")], name="2.wav")
    found = fonoteca("search", "lobos", "número")
    assert found.code == 0, found.err
    # nothing steers the terminal, and what is piped is plain
    assert "  0:00:10  O lobo \ufffd[31m número 1.\n" in found.out
    assert "\x1b" not in found.out
    assert found.out.count("día 1.wav · Rural · 1987-11-21") == 1
    assert f"{api}/recordings/{made.id}#segment-id-" in found.out
    assert "5 passages\n" in found.err
    assert "demo model" in found.err
    some = fonoteca("search", "lobo", "--limit", 2)
    assert "6 passages, 2 shown: --limit shows more" in some.err
    # more than the server gives at a time
    monkeypatch.setattr("cli.search.PAGE_HITS", 2)
    document = json.loads(fonoteca("search", "lobo", "--json", "--limit", 5).out)
    assert len({item["segment_id"] for item in document["items"]}) == 5
    assert document["matches"] == {"n": 6, "is_exact": True}
    assert document["next"]
    narrowed = fonoteca(
        "search", "lobo", "--programme", "rural", "--from", "1987-11-21", "--to", "1987-11-21"
    )
    assert "2.wav" not in narrowed.out
    assert "1:00:05" in fonoteca("search", '"dous lobos"', "--model", "demo").out
    nothing = fonoteca("search", "nada", "--to", "1980-01-01")
    assert (nothing.code, nothing.out) == (0, "")
    assert "nothing was found" in nothing.err
    refused = fonoteca("search", "--", "-lobo")
    assert (refused.code, refused.out) == (1, "")
    assert "without -" in refused.err
    assert "onte" in fonoteca("search", "lobo", "--from", "onte").err


def test_hits_stand_out_on_a_terminal() -> None:
    assert highlighted("O <mark>lobo</mark>.") == "O \x1b[1m\x1b[4mlobo\x1b[0m."
