"""Taking from PUBLIC what PostgreSQL gives to every role, and SQL users have no use for.

What they could otherwise do: fill the disk with temporary tables, large objects or log records, hold the advisory
locks by which workers show that they live, run code that catches its own cancellation, and read who else is
connected. Most of it only a superuser can take away, or the database's owner; what could not be is told.

It holds for one database, and is done anew with every SQL user. A restore from `pg_dump --create` keeps it; without
`--create` the part that lies on the database itself (temporary tables) is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

WHO_IS_CONNECTED = "who is connected"
OTHER_DATABASES = "connections to other databases"
"""Told and never taken: other programs' databases are not ours to close."""
NAMED = 5
"""Databases that are told by name."""

FUNCTIONS = {
    "advisory locks": (r"pg\_advisory\_%", r"pg\_try\_advisory\_%"),
    "large objects": (r"lo\_%", "loread", "lowrite"),
    "records in the write-ahead log": ("pg_logical_emit_message",),
    WHO_IS_CONNECTED: ("pg_stat_get_activity", "pg_stat_get_backend_%"),
}
"""Purpose -> patterns of the names of functions in pg_catalog."""

VIEWS = ("pg_stat_activity", "pg_stat_replication", "pg_stat_ssl", "pg_stat_gssapi")


@dataclass(frozen=True)
class Hardening:
    """What PUBLIC still has, since this connection's role may not take it or it is not ours to take: a line each."""

    left: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """One thing to take from PUBLIC."""

    purpose: str
    statements: list[str]
    still_public: str
    """Expression that tells whether PUBLIC has it; PostgreSQL only warns of a REVOKE that did nothing."""


def harden(connection: Connection) -> Hardening:
    """Take it all from PUBLIC, and give it to the tables' owner; what monitoring needs, to `pg_monitor`.

    Every part is tried by itself. Run again, it changes nothing.
    """
    left = []
    for part in _parts(connection):
        try:
            with connection.begin_nested():
                for statement in part.statements:
                    connection.execute(text(statement))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "42501":  # insufficient_privilege
                raise
        if connection.scalar(text(f"SELECT {part.still_public}")):
            left.append(part.purpose)
    others = connection.scalars(
        text(
            "SELECT datname::text FROM pg_database WHERE datallowconn AND datname <> current_database() "
            "AND has_database_privilege('public', oid, 'CONNECT') ORDER BY 1"
        )
    ).all()
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        left.append(f"{OTHER_DATABASES} ({', '.join(others[:NAMED])}{more})")
    return Hardening(tuple(left))


def _parts(connection: Connection) -> list[_Part]:
    services = connection.scalar(
        text(
            "SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class WHERE oid = 'public.broadcasters'::regclass"
        )
    )
    database = connection.scalar(text("SELECT quote_ident(current_database())"))
    parts = [
        _Part(
            "temporary tables",
            [
                f"GRANT TEMPORARY ON DATABASE {database} TO {services}",
                f"REVOKE TEMPORARY, CREATE ON DATABASE {database} FROM PUBLIC",
            ],
            "has_database_privilege('public', current_database(), 'TEMPORARY, CREATE')",
        ),
        _Part(
            "objects in schema public",
            ["REVOKE CREATE ON SCHEMA public FROM PUBLIC"],
            "has_schema_privilege('public', 'public', 'CREATE')",
        ),
        _Part(
            "code in plpgsql",
            [
                f"GRANT USAGE ON LANGUAGE plpgsql TO {services}",
                "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC",
            ],
            "has_language_privilege('public', 'plpgsql', 'USAGE')",
        ),
    ]
    for purpose, patterns in FUNCTIONS.items():
        is_monitoring = purpose == WHO_IS_CONNECTED
        grantees = f"{services}, pg_monitor, pg_read_all_stats" if is_monitoring else services
        named = " OR ".join(f"proname LIKE '{pattern}'" for pattern in patterns)
        ours = f"FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND ({named})"
        # what only superusers may call stays so
        routines = connection.scalars(
            text(
                f"SELECT oid::regprocedure::text {ours} AND has_function_privilege('public', oid, 'EXECUTE')"
            )
        ).all()
        statements = []
        if routines:
            listed = ", ".join(f"pg_catalog.{routine}" for routine in routines)
            statements = [
                f"GRANT EXECUTE ON FUNCTION {listed} TO {grantees}",
                f"REVOKE EXECUTE ON FUNCTION {listed} FROM PUBLIC",
            ]
        if is_monitoring:
            views = ", ".join(f"pg_catalog.{view}" for view in VIEWS)
            statements += [f"GRANT SELECT ON {views} TO {grantees}", f"REVOKE SELECT ON {views} FROM PUBLIC"]
        parts.append(
            _Part(
                purpose,
                statements,
                f"EXISTS (SELECT {ours} AND has_function_privilege('public', oid, 'EXECUTE'))",
            )
        )
    return parts
