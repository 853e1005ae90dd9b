"""The views of schema `archive`, read whole for one broadcaster: their columns, and their rows as a stream.

Which rows a broadcaster sees is decided by the database: the views' policies narrow them to the broadcaster that the
transaction names. Names of views and columns come from the database's catalogue, never from a caller.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

READER_ROLE = "archive_reader"

FETCH_ROWS = 2_000
"""Rows in memory at a time; those of `segments` hold a few hundred bytes each, and 10 kB at most."""

STATEMENT_TIMEOUT_S = 300
"""For each fetch, of which the first may have to gather and sort."""
IDLE_TIMEOUT_S = 90
"""Between two fetches: whoever reads slower than that loses the transaction."""
TRANSACTION_TIMEOUT_S = 3600
"""For the whole stream, however it is read."""


@dataclass(frozen=True)
class Column:
    """A column of a view."""

    name: str
    type: str
    """PostgreSQL's name for it: `text`, `timestamp with time zone`, `text[]` ..."""
    comment: str | None


@dataclass(frozen=True)
class View:
    """A view that broadcasters may read."""

    name: str
    comment: str | None
    columns: tuple[Column, ...]

    def has(self, column: str) -> bool:
        """Whether it has a column of this name."""
        return any(found.name == column for found in self.columns)


@dataclass(frozen=True)
class Filters:
    """Which rows of a view are wanted. None or empty: all."""

    recording_ids: Sequence[uuid.UUID] = ()
    batch_id: uuid.UUID | None = None
    from_on: dt.date | None = None
    to_on: dt.date | None = None
    """Days of broadcast (of arrival, where that is not known), both included."""


class RowForm(StrEnum):
    """How values come."""

    VALUES = "values"
    """A tuple per row: Python's own types; uuid and JSON as text, numeric as float."""
    TEXTS = "texts"
    """A tuple per row: text or None; times in ISO 8601, lists and JSON as JSON."""
    JSON = "json"
    """One JSON object per row, as text."""


class FilterNotForView(Exception):
    """A filter asks for a column that the view does not have."""

    def __init__(self, view: View, name: str) -> None:
        super().__init__(f"view {view.name} has no recordings to choose by {name}: leave it out")


def list_views(connection: Connection) -> list[View]:
    """All views that broadcasters may read, by name."""
    rows = connection.execute(
        text(
            """
            SELECT c.relname, obj_description(c.oid, 'pg_class') AS comment, a.attname,
                   format_type(a.atttypid, NULL) AS type, col_description(c.oid, a.attnum) AS column_comment
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'archive'
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relkind IN ('v', 'm') AND has_table_privilege(:reader, c.oid, 'SELECT')
            ORDER BY c.relname, a.attnum
            """
        ),
        {"reader": READER_ROLE},
    )
    found: dict[str, tuple[str | None, list[Column]]] = {}
    for row in rows:
        columns = found.setdefault(row.relname, (row.comment, []))[1]
        columns.append(Column(row.attname, row.type, row.column_comment))
    return [View(name, comment, tuple(columns)) for name, (comment, columns) in found.items()]


def open_rows(
    engine: Engine,
    broadcaster_id: int,
    broadcaster: str,
    view: View,
    columns: Sequence[Column],
    filters: Filters,
    form: RowForm,
) -> ViewRows:
    """A view's rows for one broadcaster. The caller closes them.

    Raises:
        FilterNotForView: a filter does not fit the view.
    """
    sql, values = rows_sql(view, columns, filters, form)
    return ViewRows(
        engine, broadcaster, sql, values | {"broadcaster_id": broadcaster_id, "broadcaster": broadcaster}
    )


class ViewRows:
    """Rows from a cursor in a transaction that only reads, by thousands. For one thread at a time; only `cancel` may
    come from another."""

    def __init__(self, engine: Engine, broadcaster: str, sql: str, values: dict[str, Any]) -> None:
        self._connection = engine.connect()
        self._driver: Any = None
        try:
            self._begin(broadcaster)
            self._driver = self._connection.connection.driver_connection
            # the size is said to `partitions` too: without it, it would fetch everything
            streaming = self._connection.execution_options(stream_results=True, max_row_buffer=FETCH_ROWS)
            self._result = streaming.execute(text(sql), values)
        except BaseException:
            self._connection.close()
            raise

    def _begin(self, broadcaster: str) -> None:
        self._connection.execute(text("SET TRANSACTION READ ONLY"))
        settings = {
            "fonoteca.broadcaster": broadcaster,
            "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
            "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
            "transaction_timeout": f"{TRANSACTION_TIMEOUT_S}s",
            "TimeZone": "UTC",
            "DateStyle": "ISO",
            "cursor_tuple_fraction": "1.0",  # all rows will be fetched: plan for the last, not for the first
        }
        for name, value in settings.items():
            self._connection.execute(
                text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value}
            )

    def __enter__(self) -> ViewRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def chunks(self) -> Iterator[Sequence[Any]]:
        """Lists of up to FETCH_ROWS rows."""
        yield from self._result.partitions(FETCH_ROWS)

    def cancel(self) -> None:
        """End the fetch that another thread waits for; it raises there."""
        self._driver.cancel_safe(timeout=5)

    def close(self) -> None:
        """End the transaction and give the connection back."""
        try:
            self._result.close()
        except DBAPIError:  # the server ended the transaction
            self._connection.invalidate()
        finally:
            self._connection.close()


def rows_sql(
    view: View, columns: Sequence[Column], filters: Filters, form: RowForm
) -> tuple[str, dict[str, Any]]:
    """The query and its values, `broadcaster_id` and `broadcaster` left to the caller.

    Raises:
        FilterNotForView: a filter does not fit the view.
    """
    conditions, values = _conditions(view, filters)
    # what the policies see to already, said once more: a view without its policy must not open other people's rows
    if view.has("broadcaster"):
        conditions.append("(v.broadcaster = :broadcaster OR v.broadcaster IS NULL)")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    order = ""
    if filters.recording_ids and view.has("start_s"):
        order = " ORDER BY v.recording_id, v.start_s"
    if form is RowForm.JSON:
        listed = ", ".join(f"v.{_quoted(column.name)}" for column in columns)
        inner = f"SELECT {listed} FROM archive.{_quoted(view.name)} v{where}{order}"
        return f"SELECT row_to_json(t)::text FROM ({inner}) t", values
    expressed = _as_text if form is RowForm.TEXTS else _as_value
    listed = ", ".join(f"{expressed(column)} AS {_quoted(column.name)}" for column in columns)
    return f"SELECT {listed} FROM archive.{_quoted(view.name)} v{where}{order}", values


def _conditions(view: View, filters: Filters) -> tuple[list[str], dict[str, Any]]:
    conditions: list[str] = []
    values: dict[str, Any] = {}
    recordings: list[str] = []
    if filters.recording_ids:
        if not view.has("recording_id"):
            raise FilterNotForView(view, "recording_id")
        conditions.append("v.recording_id = ANY (CAST(:recording_ids AS uuid[]))")
        values["recording_ids"] = list(filters.recording_ids)
    if filters.batch_id is not None:
        values["batch_id"] = filters.batch_id
        if view.has("batch_id"):
            conditions.append("v.batch_id = :batch_id")
        elif view.has("recording_id"):
            recordings.append("r.batch_id = :batch_id")
        else:
            raise FilterNotForView(view, "batch_id")
    for name, day, sign in (("from", filters.from_on, ">="), ("to", filters.to_on, "<=")):
        if day is not None:
            if not view.has("recording_id"):
                raise FilterNotForView(view, name)
            # the day that searching goes by: archive.mentions.said_on
            said_on = (
                "coalesce(r.broadcast_on, (coalesce(r.received_at, r.created_at) AT TIME ZONE 'UTC')::date)"
            )
            recordings.append(f"{said_on} {sign} :{name}_on")
            values[f"{name}_on"] = day
    if recordings:
        chosen = " AND ".join(["r.broadcaster_id = :broadcaster_id", *recordings])
        conditions.append(f"v.recording_id IN (SELECT r.id FROM public.recordings r WHERE {chosen})")
    return conditions, values


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _as_value(column: Column) -> str:
    name = f"v.{_quoted(column.name)}"
    if column.type == "numeric":
        return f"{name}::float8"
    return name if column.type in PLAIN_TYPES else f"{name}::text"


def _as_text(column: Column) -> str:
    name = f"v.{_quoted(column.name)}"
    if column.type.startswith("timestamp"):
        return f"to_json({name}) #>> '{{}}'"
    return f"to_json({name})::text" if column.type.endswith("[]") else f"{name}::text"


PLAIN_TYPES = frozenset(
    {
        "smallint", "integer", "bigint", "real", "double precision", "boolean", "date", "timestamp with time zone",
        "text", "text[]", "integer[]", "bigint[]",
    }
)  # fmt: skip
"""Types whose Python values are taken as they come; others come as text."""
