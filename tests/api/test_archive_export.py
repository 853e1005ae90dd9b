"""Views as files: what they hold, for whom, and that a reader who goes away leaves nothing behind."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from api import archive_export, streamed_file
from api.archive_files import csv_line, write_parquet
from db.archive_views import Column
from tests.conftest import Said

HARD = '=cmd|"/c calc"!A1, «Ñandú»\nliña dúas\r\ne tres; \\N \\. 😀'
TEN_HOURS_MS = 36_000_000


@pytest.fixture
def archive(make_transcript: Callable[..., Any], make_broadcaster: Callable[..., Any]) -> dict[str, Any]:
    """Two recordings of the fixture `owner`, one of somebody else."""
    first = make_transcript(
        [Said(0.5, 3.0, HARD), Said(4.0, 5.0, None), Said(6, 7, "")],
        name='a, "b".wav',
        programme="Día a día",
        broadcast_on=dt.date(1987, 11, 21),
        timecode_offset_ms=TEN_HOURS_MS,
        duration_s=8.0,
    )
    second = make_transcript([Said(0, 2, "Boas noites.")], name="b.wav")
    other = make_broadcaster("outra")
    theirs = make_transcript([Said(0, 2, "Segredo.")], name="c.wav", owner=other)
    return {"first": first, "second": second, "theirs": theirs, "other": other}


@pytest.fixture
def get(client: httpx.Client, owner: Any) -> Callable[..., httpx.Response]:
    """`get(view, **query)`: an answer that is a file."""

    def ask(view: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        return client.get(f"/v1/archive/{view}", params=query, headers=headers or owner.headers)

    return ask


def table_of(answer: httpx.Response) -> pa.Table:
    """A Parquet answer, read."""
    assert answer.status_code == 200, answer.text
    return pq.read_table(io.BytesIO(answer.content))


def rows_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """An NDJSON answer, read."""
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_views_open_where_analysts_work(
    get: Callable[..., httpx.Response], archive: dict[str, Any], tmp_path: Path, owner: Any
) -> None:
    """Parquet and CSV in DuckDB and pandas: types, counts, and text to the last character."""
    answer = get("segments", format="parquet")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="segments.parquet"'
    (tmp_path / "s.parquet").write_bytes(answer.content)
    (tmp_path / "s.csv").write_bytes(get("segments").content)
    schema = pq.read_schema(tmp_path / "s.parquet")
    assert schema.metadata[b"fonoteca.view"] == b"segments"
    assert schema.metadata[b"fonoteca.contract"] == b"1.0"
    types = {field.name: field.type for field in schema}
    assert types["recording_id"] == types["text"] == pa.string()
    assert (types["start_s"], types["segment_id"]) == (pa.float64(), pa.int64())
    assert types["flags"] == pa.list_(pa.string())
    assert types["finished_at"] == pa.timestamp("us", tz="UTC")
    assert (types["broadcast_on"], types["is_demo_model"]) == (pa.date32(), pa.bool_())

    with duckdb.connect() as database:
        for name in ("s.parquet", "s.csv"):
            found = database.execute(
                f"SELECT text, start_s, end_timecode FROM '{tmp_path / name}' ORDER BY recording, start_s"
            ).fetchall()
            assert [row[1] for row in found] == [0.5, 4.0, 6.0, 0.0]
            assert found[0][0] == HARD
            assert str(found[0][2])[:8] == "10:00:03"  # DuckDB guesses a time of day from CSV
        assert database.execute(
            f"SELECT typeof(finished_at), typeof(broadcast_on), typeof(flags) FROM '{tmp_path / 's.parquet'}' LIMIT 1"
        ).fetchone() == ("TIMESTAMP WITH TIME ZONE", "DATE", "VARCHAR[]")

    frame = pd.read_parquet(tmp_path / "s.parquet").sort_values(["recording", "start_s"])
    assert list(frame["broadcaster"].unique()) == [owner.name]
    assert str(frame["finished_at"].dtype) == "datetime64[us, UTC]"
    assert frame["start_s"].dtype == "float64"
    from_csv = pd.read_csv(tmp_path / "s.csv", keep_default_na=False).sort_values(["recording", "start_s"])
    assert list(from_csv["text"]) == [HARD, "", "", "Boas noites."]
    assert pd.to_datetime(from_csv["finished_at"], utc=True, format="ISO8601").notna().all()


def test_csv_keeps_nothing_apart_from_empty(
    get: Callable[..., httpx.Response], archive: dict[str, Any]
) -> None:
    """RFC 4180: quotes doubled, line breaks kept; NULL is no text at all and empty text is `""`."""
    answer = get("segments", columns="recording,text,flags", recording_id=str(archive["first"].id))
    name, quoted = '"a, ""b"".wav"', HARD.replace('"', '""')
    assert answer.text == (f'recording,text,flags\r\n{name},"{quoted}",[]\r\n{name},,[]\r\n{name},"",[]\r\n')
    read = list(csv.reader(io.StringIO(answer.text, newline="")))
    assert read[1] == ['a, "b".wav', HARD, "[]"]


def test_ndjson_has_the_types_of_json(get: Callable[..., httpx.Response], archive: dict[str, Any]) -> None:
    found = rows_of(get("segments", format="ndjson", recording_id=str(archive["first"].id)))
    assert [row["text"] for row in found] == [HARD, None, ""]
    assert (found[0]["start_s"], found[0]["is_demo_model"], found[0]["flags"]) == (0.5, True, [])
    assert found[0]["broadcast_on"] == "1987-11-21"
    assert dt.datetime.fromisoformat(found[0]["finished_at"]).utcoffset() == dt.timedelta(0)


def test_filters(get: Callable[..., httpx.Response], archive: dict[str, Any]) -> None:
    """Recording, batch and day, on views that have those columns and on views that only have recordings."""
    first, second = archive["first"], archive["second"]

    def recordings(view: str = "segments", **query: Any) -> set[str]:
        return {row["recording"] for row in rows_of(get(view, format="ndjson", **query))}

    assert recordings(recording_id=[str(first.id), str(second.id)]) == {first.name, second.name}
    assert recordings(batch_id=str(second.batch_id)) == {second.name}
    assert recordings("recordings", batch_id=str(first.batch_id)) == {first.name}
    assert recordings("coverage", **{"from": "1987-11-21", "to": "1987-11-21"}) == {first.name}
    assert recordings("words", **{"from": "1987-11-22"}) == {second.name}  # by its day of arrival
    assert recordings(to="1987-11-20") == set()


def test_what_cannot_be_asked_for_is_named(
    get: Callable[..., httpx.Response], archive: dict[str, Any]
) -> None:
    def problem(view: str, **query: Any) -> tuple[int, str, str]:
        answer = get(view, **query)
        return answer.status_code, answer.json()["code"], answer.json()["detail"]

    status, code, detail = problem("api_keys")
    assert (status, code) == (404, "view_not_found")
    assert "batches, broadcasters" in detail
    status, code, detail = problem("segments", columns="text,secret")
    assert (status, code) == (422, "unknown_column")
    assert "'secret' is none of its columns: view segments has segment_id," in detail
    assert problem("segments", columns="text,text")[1] == "unknown_column"
    assert problem("models", recording_id=str(archive["first"].id))[:2] == (422, "filter_unfit")
    assert problem("segments", recording_id=str(archive["theirs"].id))[:2] == (404, "recording_not_found")
    assert problem("segments", batch_id=str(archive["theirs"].batch_id))[:2] == (404, "batch_not_found")
    assert problem("segments", **{"from": "yesterday"})[:2] == (422, "validation_failed")
    assert problem("segments", **{"from": "2021-01-01", "to": "2020-01-01"})[:2] == (422, "filter_unfit")
    assert problem("segments; DROP TABLE x")[:2] == (404, "view_not_found")


def test_nobody_reads_somebody_elses_rows(
    get: Callable[..., httpx.Response], archive: dict[str, Any], client: httpx.Client, owner: Any
) -> None:
    """Every view, with the key of one broadcaster: nothing that names or quotes the other."""
    views = client.get("/v1/archive", headers=owner.headers).json()
    assert views["version"] == "1.0"
    names = [view["name"] for view in views["views"]]
    assert {"broadcasters", "batches", "recordings", "transcripts", "segments", "words", "coverage"} <= set(
        names
    )
    theirs, ours = archive["other"], owner
    marks = [
        (ours, ["outra", "Segredo", "c.wav", str(archive["theirs"].id), str(archive["theirs"].batch_id)]),
        (theirs, [ours.name, "noites", "b.wav", str(archive["first"].id), str(archive["first"].batch_id)]),
    ]
    for reader, foreign in marks:
        for name in names:
            for form in ("csv", "ndjson", "parquet") if name == "segments" else ("csv",):
                answer = get(name, headers=reader.headers, format=form)
                assert answer.status_code == 200, (name, answer.text)
                content = str(table_of(answer).to_pylist()) if form == "parquet" else answer.text
                assert not [mark for mark in foreign if mark in content], (name, form)
    assert "Segredo" in get("segments", headers=theirs.headers).text
    assert client.get("/v1/archive/segments").status_code == 401


def test_the_database_alone_keeps_rows_apart(engine: Engine, archive: dict[str, Any], owner: Any) -> None:
    """What the export rests on: a transaction that names a broadcaster reads its rows only, through any view."""
    with engine.connect() as connection:
        views = connection.scalars(
            text(
                "SELECT table_name FROM information_schema.columns "
                "WHERE table_schema = 'archive' AND column_name = 'broadcaster'"
            )
        ).all()
        connection.execute(text("SELECT set_config('fonoteca.broadcaster', 'outra', true)"))
        for view in views:
            found = connection.scalars(text(f"SELECT DISTINCT broadcaster FROM archive.{view}")).all()
            assert set(found) <= {"outra", None}, view
        assert connection.scalars(text("SELECT text FROM archive.segments")).all() == ["Segredo."]


def test_an_empty_view_is_a_file_too(get: Callable[..., httpx.Response]) -> None:
    assert get("segments", columns="text").text == "text\r\n"
    assert get("segments", format="ndjson").text == ""
    table = table_of(get("corrections", format="parquet"))
    assert table.num_rows == 0
    assert "corrected_by" in table.column_names


def active_exports(engine: Engine) -> int:
    """Transactions of the API that are open."""
    with engine.connect() as connection:
        return int(
            connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                    "AND application_name = 'fonoteca-api' AND xact_start IS NOT NULL"
                )
            )
            or 0
        )


def wait_until_idle(engine: Engine) -> None:
    """Until no transaction of the API is open any more."""
    deadline = time.monotonic() + 15
    while active_exports(engine):
        assert time.monotonic() < deadline, "an export's transaction is still open"
        time.sleep(0.02)


@pytest.fixture
def endless_view(engine: Engine) -> None:
    """A view `archive.endless` that goes on for as long as somebody reads it."""
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE VIEW archive.endless AS SELECT generate_series(1, 2000000000) n, repeat('x', 1000) AS filling"
            )
        )
        connection.execute(text("GRANT SELECT ON archive.endless TO archive_reader"))


@pytest.mark.parametrize("form", ["csv", "parquet", "ndjson"])
def test_a_client_that_goes_away_ends_the_query(
    client: httpx.Client, owner: Any, engine: Engine, endless_view: None, form: str
) -> None:
    address, query = "/v1/archive/endless", {"format": form}
    with client.stream("GET", address, params=query, headers=owner.headers) as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()  # kept: httpx closes the connection with it
        next(pieces)
        assert active_exports(engine) == 1
    wait_until_idle(engine)


def test_a_client_that_reads_nothing_is_cut_off(
    client: httpx.Client, owner: Any, engine: Engine, endless_view: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives back what it held, long before the transaction's own limit."""
    monkeypatch.setattr(streamed_file, "SEND_TIMEOUT_S", 0.2)
    with client.stream("GET", "/v1/archive/endless", headers=owner.headers):
        wait_until_idle(engine)


def test_more_exports_than_allowed_are_told_to_wait(
    get: Callable[..., httpx.Response], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    places = threading.BoundedSemaphore(1)
    monkeypatch.setattr(archive_export, "_free_exports", places)
    for _ in range(
        3
    ):  # each gives its place back, refused ones too; after its last byte, which may be read before
        assert get("segments").status_code == 200
        assert places.acquire(timeout=30)
        places.release()
        assert get("models", batch_id="00000000-0000-0000-0000-000000000000").status_code in {404, 422}
    assert places.acquire(timeout=30)
    answer = get("segments")
    assert (answer.status_code, answer.json()["code"]) == (503, "too_many_exports")
    assert answer.headers["Retry-After"] == "60"


def test_a_query_that_takes_too_long_is_a_proper_answer(
    get: Callable[..., httpx.Response], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW archive.slow AS SELECT pg_sleep(60)::text AS nothing"))
        connection.execute(text("GRANT SELECT ON archive.slow TO archive_reader"))
    monkeypatch.setattr("db.archive_views.STATEMENT_TIMEOUT_S", 1)
    answer = get("slow")
    assert (answer.status_code, answer.json()["code"]) == (503, "export_timeout")
    wait_until_idle(engine)


# --- without a server -------------------------------------------------------------------------------------


def test_parquet_is_written_by_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory holds a row group, however many rows there are."""
    monkeypatch.setattr("api.archive_files.PARQUET_ROWS", 100)
    columns = [Column("n", "integer", None), Column("flags", "text[]", None)]
    chunks = ([(n, ["loop", None]) for n in range(at, at + 60)] for at in range(0, 300, 60))
    pieces = list(write_parquet(columns, chunks, {}))
    assert sum(map(bool, pieces)) > 2
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [120, 120, 60]
    assert file.read().column("n").to_pylist() == list(range(300))


def test_csv_values() -> None:
    assert csv_line(["a", None, "", " a", "a ", 'a"', "a,b", "a\nb", "=1+1"]) == (
        'a,,""," a","a ","a""","a,b","a\nb",=1+1\r\n'
    )
