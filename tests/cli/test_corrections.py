"""`fonoteca corrections`: draws, lists, and corrections that go in and come out again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.cli.conftest import Ended
from tests.conftest import Said

TWO = [Said(0, 4, "Boas noites."), Said(3605, 3608, "Isto é o telexornal.")]


@pytest.fixture
def segment_ids(api: str, make_transcript: Callable[..., Any], engine: Engine) -> list[int]:
    """Two transcribed segments."""
    make_transcript(TWO, name="día 1.wav")
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT id FROM segments ORDER BY start_sample")))


def test_draw_and_list(fonoteca: Callable[..., Ended], segment_ids: list[int], api: str) -> None:
    drawn = fonoteca("corrections", "draw", "--n", 2)
    assert drawn.code == 0, drawn.err
    assert "1:00:05-1:00:08  día 1.wav: Isto é o telexornal." in drawn.out
    assert f"{api}/corrections" in drawn.err
    listed = json.loads(fonoteca("corrections", "list", "--json").out)
    assert [each["segment_id"] for each in listed] == segment_ids
    more = fonoteca("corrections", "draw")
    assert (more.code, more.out) == (0, "")
    assert "0 segments drawn: no more is left" in more.err


def test_in_and_out_again(fonoteca: Callable[..., Ended], segment_ids: list[int], tmp_path: Path) -> None:
    lines = tmp_path / "corrections.jsonl"
    items = [
        {"segment_id": segment_ids[0], "text": "Boas tardes."},
        {"segment_id": segment_ids[1], "text": ""},
    ]
    lines.write_text("\n\n".join(json.dumps(item) for item in items))
    unsigned = fonoteca("corrections", "import", lines)
    assert (unsigned.code, "line 1 does not say who corrected" in unsigned.err) == (1, True)
    stored = fonoteca("corrections", "import", lines, "--by", "ana")
    assert (stored.code, stored.out) == (0, "2 corrections stored, 0 there already\n")
    out = tmp_path / "out.jsonl"
    assert fonoteca("corrections", "export", "-o", out).code == 0
    exported = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(each["segment_id"], each["text"], each["corrected_by"]) for each in exported] == [
        (segment_ids[0], "Boas tardes.", "ana"),
        (segment_ids[1], "", "ana"),
    ]
    again = fonoteca("corrections", "import", out, "--json")
    assert json.loads(again.out) == {"n_stored": 0, "n_unchanged": 2}


def test_lines_that_cannot_be_stored_are_named(
    fonoteca: Callable[..., Ended], segment_ids: list[int], tmp_path: Path
) -> None:
    lines = tmp_path / "corrections.jsonl"
    lines.write_text(
        f'{{"segment_id": {segment_ids[0]}, "text": "a"}}\n\n{{"segment_id": 999, "text": "b"}}\n'
    )
    refused = fonoteca("corrections", "import", lines, "--by", "ana")
    assert refused.code == 1
    assert "line 3: there is no segment 999" in refused.err
    assert "nothing was stored" in refused.err
    lines.write_text(f'{{"segment_id": "{segment_ids[0]}", "text": 5}}\n')
    assert "line 1: " in fonoteca("corrections", "import", lines, "--by", "ana").err
    for content, reason in (("{", "line 1 is not JSON"), ("[]", "needs `segment_id`")):
        lines.write_text(content)
        ended = fonoteca("corrections", "import", lines, "--by", "ana")
        assert (ended.code, reason in ended.err) == (1, True), ended.err
    assert "cannot be read" in fonoteca("corrections", "import", tmp_path / "none.jsonl").err
    assert fonoteca("corrections", "export").out == ""
