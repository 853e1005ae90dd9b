"""The data dictionary: every view, column and function of schema `archive`, as the live schema's comments say."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "sql-dictionary.md"
ORDER = (
    "broadcasters", "batches", "recordings", "transcripts", "segments", "all_segments", "words", "coverage",
    "corrections", "attempts", "models", "quality_runs", "quality_scores", "quality_daily", "quality_measures",
    "quality_alerts",
)  # fmt: skip
"""Views in the order in which they are told; others follow by name."""
FUNCTION_ORDER = ("search", "mentions", "search_count", "timecode", "version")
TYPES = {
    "timestamp with time zone": "timestamptz",
    "double precision": "double",
    "character varying": "varchar",
}


@dataclass(frozen=True)
class Column:
    """A column of a view."""

    name: str
    type: str
    comment: str | None


@dataclass(frozen=True)
class View:
    """A view with its columns, in their order."""

    name: str
    comment: str | None
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Function:
    """A function: what it takes and gives."""

    name: str
    arguments: tuple[str, ...]
    """Each with its type and default."""
    result: str
    """Type of its value; of a row, where it gives rows."""
    columns: tuple[Column, ...]
    """Of its rows; none where it gives a value."""
    comment: str | None


def read_views(connection: Connection) -> list[View]:
    """All views of schema archive."""
    rows = connection.execute(
        text(
            """
            SELECT c.relname AS view, obj_description(c.oid, 'pg_class') AS view_comment, a.attname AS name,
                   format_type(a.atttypid, a.atttypmod) AS type, col_description(c.oid, a.attnum) AS comment
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.relnamespace = 'archive'::regnamespace AND c.relkind IN ('v', 'm', 'r')
            ORDER BY c.relname, a.attnum
            """
        )
    ).all()
    found: dict[str, View] = {}
    for row in rows:
        view = found.get(row.view) or View(row.view, row.view_comment, ())
        column = Column(row.name, TYPES.get(row.type, row.type), row.comment)
        found[row.view] = View(view.name, view.comment, (*view.columns, column))
    return sorted(found.values(), key=lambda view: _place(view.name, ORDER))


def read_functions(connection: Connection) -> list[Function]:
    """All functions of schema archive."""
    rows = connection.execute(
        text(
            """
            SELECT p.proname AS name, pg_get_function_result(p.oid) AS result,
                   obj_description(p.oid, 'pg_proc') AS comment, taken.arguments, given.names, given.types
            FROM pg_proc p
            JOIN pg_type t ON t.oid = p.prorettype
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(a.argument ORDER BY n), '{}') AS arguments
                FROM generate_series(1, p.pronargs) n
                CROSS JOIN LATERAL (
                    SELECT concat(quote_ident(p.proargnames[n]), ' ', format_type(p.proargtypes[n - 1], NULL),
                                  ' DEFAULT ' || pg_get_function_arg_default(p.oid, n)) AS argument
                ) a
            ) taken
            CROSS JOIN LATERAL (
                SELECT array_agg(c.name ORDER BY c.place) AS names, array_agg(c.type ORDER BY c.place) AS types
                FROM (
                    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnum::int AS place
                    FROM pg_attribute a
                    WHERE a.attrelid = t.typrelid AND t.typtype = 'c' AND a.attnum > 0 AND NOT a.attisdropped
                    UNION ALL
                    SELECT p.proargnames[n], format_type(p.proallargtypes[n], NULL), n
                    FROM generate_subscripts(p.proallargtypes, 1) n WHERE p.proargmodes[n] = 't'
                ) c
            ) given
            WHERE p.pronamespace = 'archive'::regnamespace
            """
        )
    ).all()
    found = [
        Function(
            row.name,
            tuple(re.sub(r"NULL::[a-z]+", "NULL", argument) for argument in row.arguments),
            row.result,
            tuple(
                Column(name, TYPES.get(type_, type_), None)
                for name, type_ in zip(row.names or [], row.types or [], strict=True)
            ),
            row.comment,
        )
        for row in rows
    ]
    return sorted(found, key=lambda function: _place(function.name, FUNCTION_ORDER))


def _place(name: str, order: tuple[str, ...]) -> tuple[int, str]:
    return (order.index(name) if name in order else len(order), name)


def page(connection: Connection) -> str:
    """The page, as it should stand in docs/sql-dictionary.md."""
    version = connection.scalar(text("SELECT archive.version()"))
    views, functions = read_views(connection), read_functions(connection)
    lines = [
        "# Data dictionary",
        "",
        f"Schema `archive`, version {version}: {len(views)} views and {len(functions)} functions.",
        "How they hang together, and what is fast: [SQL](sql.md). Questions to copy: [cookbook](cookbook/README.md).",
        "",
        "<!-- Written by `make sql-docs` from the comments of the live schema: change them in a migration. -->",
        "",
        _index("Views", [view.name for view in views]),
        "",
        _index("Functions", [function.name for function in functions]),
    ]  # fmt: skip
    for view in views:
        lines += ["", f"## archive.{view.name}", "", _told(view.comment), ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{column.name}` | {column.type} | {_told(column.comment)} |" for column in view.columns]
    for function in functions:
        lines += [
            "",
            f"## archive.{function.name}",
            "",
            _told(function.comment),
            "",
            "```sql",
            *_signature(function),
            "```",
        ]
    return "\n".join(lines) + "\n"


def _index(title: str, names: list[str]) -> str:
    return f"**{title}:** " + " · ".join(f"[{name}](#archive{name})" for name in names)


def _told(comment: str | None) -> str:
    return " ".join((comment or "").split()).replace("|", "\\|")


def _signature(function: Function) -> list[str]:
    """`archive.name(arguments) RETURNS ...`: an argument and a column a line where they are many."""
    lines = _listed(f"archive.{function.name}", function.arguments)
    if not function.columns:
        return [*lines[:-1], f"{lines[-1]} RETURNS {function.result}"]
    columns = tuple(f"{column.name} {column.type}" for column in function.columns)
    rows = _listed("TABLE ", columns)
    return [*lines[:-1], f"{lines[-1]} RETURNS {rows[0]}", *rows[1:]]


def _listed(name: str, parts: tuple[str, ...]) -> list[str]:
    if len(parts) < 3:
        return [f"{name}({', '.join(parts)})"]
    return [f"{name}(", *(f"    {part}," for part in parts[:-1]), f"    {parts[-1]}", ")"]
