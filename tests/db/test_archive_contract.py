"""Schema `archive` is what the committed snapshot says, every part of it explained, and named by the conventions."""

from __future__ import annotations

import copy
import json

from sqlalchemy import Engine, text

from tests.db.contract_snapshot import SNAPSHOT, as_text, breaking_changes, live_contract, refusal


def test_the_contract_is_the_committed_one(engine: Engine) -> None:
    committed = json.loads(SNAPSHOT.read_text())
    with engine.connect() as connection:
        live = live_contract(connection)
    assert breaking_changes(committed, live) == []
    assert as_text(live) == SNAPSHOT.read_text(), (
        "the contract has grown: write the snapshot anew with `python -m tests.db.contract_snapshot`"
    )


def test_a_broken_contract_needs_a_new_version() -> None:
    old = json.loads(SNAPSHOT.read_text())
    new = copy.deepcopy(old)
    new["views"]["segments"]["said_by"] = "text"
    new["functions"]["search_suggest(query text)"] = "text"
    assert refusal(old, new) is None
    del new["views"]["segments"]["text"]
    new["views"]["recordings"]["duration_s"] = "double precision"
    del new["views"]["words"]
    new["functions"]["version()"] = "integer"
    refused = refusal(old, new)
    assert refused is not None
    for gone in ("archive.segments.text", "archive.recordings.duration_s", "archive.words", "version()"):
        assert gone in refused
    new["version"] = "1.7"
    assert refusal(old, new) is not None
    new["version"] = "2.0"
    assert refusal(old, new) is None


def test_every_part_is_explained(engine: Engine) -> None:
    with engine.connect() as connection:
        unexplained = connection.scalars(
            text(
                """
                SELECT c.relname::text FROM pg_class c
                WHERE c.relnamespace = 'archive'::regnamespace
                  AND obj_description(c.oid) IS NULL AND obj_description(c.reltype, 'pg_type') IS NULL
                UNION ALL
                SELECT c.relname || '.' || a.attname
                FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                WHERE c.relnamespace = 'archive'::regnamespace AND col_description(c.oid, a.attnum) IS NULL
                UNION ALL
                SELECT oid::regprocedure::text FROM pg_proc
                WHERE pronamespace = 'archive'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL
                """
            )
        ).all()
        assert unexplained == []
        assert connection.scalar(text("SELECT obj_description('archive'::regnamespace, 'pg_namespace')"))


def test_names_and_types_keep_the_conventions(engine: Engine) -> None:
    with engine.connect() as connection:
        views = live_contract(connection)["views"]
    types = {"_s": "numeric", "_at": "timestamp with time zone", "_on": "date", "_timecode": "text"}
    wrong = [
        f"{view}.{column}: {kind}"
        for view, columns in views.items()
        for column, kind in columns.items()
        for ending, expected in types.items()
        if column.endswith(ending) and kind != expected
    ]
    wrong += [
        f"{view}.{column}: {kind}"
        for view, columns in views.items()
        for column, kind in columns.items()
        if (column.startswith("is_") and kind != "boolean")
        or (column.startswith("n_") and kind not in ("integer", "bigint"))
    ]
    assert wrong == []


def test_timecodes(engine: Engine) -> None:
    expected = {
        "0": "00:00:00.000",
        "3599.9994": "00:59:59.999",
        "3599.9996": "01:00:00.000",
        "35999.9996": "10:00:00.000",
        "36061.5": "10:01:01.500",
        "360000": "100:00:00.000",
        "-1.25": "-00:00:01.250",
    }
    with engine.connect() as connection:
        for seconds, timecode in expected.items():
            assert connection.scalar(text(f"SELECT archive.timecode({seconds})")) == timecode
