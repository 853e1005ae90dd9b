"""Login roles for SQL: each reads the rows of one broadcaster, or of all, through schema `archive` and nothing else.

What a role may read is its row in `sql_users`, by name; the row is nothing the role could change, nor are the
inner tables, whose policies ask for it (migration 0004). The settings that a role starts with (read-only, time
limits) are conveniences that its user can change: what holds is that there is nothing to write, that the server
counts connections, and that `end_overlong` ends what runs too long.

A role's name can be read by every other role of the server, so names that are made here say nothing of anybody.
"""

from __future__ import annotations

import datetime as dt
import re
import secrets
import time
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db.broadcasters import BroadcasterUnknown, find_broadcaster

READER_ROLE = "archive_reader"
"""Carries the grants; by itself sees no rows."""

STATEMENT_TIMEOUT_S = 30
CONNECTIONS = 5

IDLE_IN_TRANSACTION_S = 300
"""A transaction that nothing happens in is ended after so long: it keeps vacuum from removing old rows."""
TRANSACTION_S = 900
"""Longest transaction; twice the longest statement where that is more."""
GRACE_S = 5
"""The server's own timeout comes first; what is still running so much later has switched it off."""

STUBBORN_S = 30
"""A query that goes on so long after it was first cancelled (code may catch that) has its session ended."""

JOIN_LIMIT = 32
"""Tables that the planner puts into the best order: two views joined are more than its usual 8, and with those it
reads whole tables where an index would do."""

TEMP_FILE_LIMIT = "4GB"
"""Room on disk for one session's sorts and joins."""

ENDING_TIMEOUT_S = 5.0

LONGEST_STATEMENT_S = 24 * 3600
LONGEST_LABEL = 300

NAME_FORM = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
"""Nothing here needs escaping between double quotes, which every statement puts around it: `user` is a fine name."""
NO_NAMES = ("public", "none")
"""PostgreSQL has no roles of these names."""


class SqlUserRefused(Exception):
    """A SQL user cannot be made, changed or removed."""


class SqlUserUnknown(SqlUserRefused):
    """No SQL user has this name."""


@dataclass(frozen=True)
class SqlUser:
    """What is shown of a SQL user."""

    role_name: str
    broadcaster: str | None
    """None: reads all broadcasters."""
    label: str
    statement_timeout_s: int
    connections: int | None
    """None: the server has no such role, e.g. after a restore without roles."""
    n_sessions: int
    created_at: dt.datetime


@dataclass(frozen=True)
class Overlong:
    """What `end_overlong` did."""

    cancelled: tuple[str, ...]
    """Roles whose query was cancelled, a name for each."""
    ended: tuple[str, ...]
    """Roles whose session was ended."""
    out_of_reach: tuple[str, ...]
    """Roles with sessions that this connection may not see or end."""


def create_sql_user(
    connection: Connection,
    broadcaster: str | None,
    *,
    role_name: str | None = None,
    label: str = "",
    statement_timeout_s: int = STATEMENT_TIMEOUT_S,
    connections: int = CONNECTIONS,
) -> tuple[str, str]:
    """Make a login role that reads one broadcaster's rows (None: all broadcasters'); its name and its password.

    The password can be read here only: the server is sent its SCRAM verifier, which is also all that its log shows.

    Raises:
        BroadcasterUnknown: no broadcaster has this name.
        SqlUserRefused: the name is malformed or taken, the label cannot be shown, a limit is out of bounds, or the
            connection's role may not make roles.
    """
    role_name = role_name or f"reader_{secrets.token_hex(6)}"
    if role_name in NO_NAMES or not NAME_FORM.fullmatch(role_name):
        raise SqlUserRefused(
            f"{role_name!r} cannot name a SQL user: use 1 to 63 of a-z, 0-9 and _, not beginning with a digit or pg_, "
            f"and neither of the words {' and '.join(NO_NAMES)}"
        )
    if not label.isprintable() or len(label) > LONGEST_LABEL:
        raise SqlUserRefused(
            f"the label {label[:LONGEST_LABEL]!a} cannot be shown in a list: use up to {LONGEST_LABEL} signs that "
            f"can be printed, without tabs and line breaks"
        )
    if statement_timeout_s < 1 or connections < 1:
        raise SqlUserRefused("a SQL user needs at least one second a statement and one connection")
    if statement_timeout_s > LONGEST_STATEMENT_S:
        raise SqlUserRefused(
            f"a statement of {statement_timeout_s} s is too long: give a SQL user at most "
            f"{LONGEST_STATEMENT_S // 3600} h. Exports that take longer can be read in parts"
        )
    broadcaster_id = None
    if broadcaster is not None:
        owner = find_broadcaster(connection, broadcaster)
        if owner is None:
            raise BroadcasterUnknown(
                f"there is no broadcaster named {broadcaster!r}: `fonoteca keys list` shows their names"
            )
        broadcaster_id = owner.id
    if connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :name"), {"name": role_name}):
        raise SqlUserRefused(f"the server has a role named {role_name} already: choose another name")
    password = secrets.token_urlsafe(32)
    transaction_s = max(TRANSACTION_S, 2 * statement_timeout_s)
    quoted = f'"{role_name}"'
    statements = [
        f"CREATE ROLE {quoted} LOGIN INHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS "
        f"CONNECTION LIMIT {connections:d} PASSWORD '{_verifier(connection, role_name, password)}'",
        f"GRANT {READER_ROLE} TO {quoted} WITH INHERIT TRUE, SET FALSE",
        f"ALTER ROLE {quoted} SET default_transaction_read_only = on",
        f"ALTER ROLE {quoted} SET statement_timeout = '{statement_timeout_s:d}s'",
        f"ALTER ROLE {quoted} SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S:d}s'",
        f"ALTER ROLE {quoted} SET transaction_timeout = '{transaction_s:d}s'",
        f"ALTER ROLE {quoted} SET client_connection_check_interval = '10s'",
        f"ALTER ROLE {quoted} SET search_path = archive",
        f"ALTER ROLE {quoted} SET join_collapse_limit = {JOIN_LIMIT:d}",
        f"ALTER ROLE {quoted} SET from_collapse_limit = {JOIN_LIMIT:d}",
    ]
    try:
        for statement in statements:
            connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if _sqlstate(error) != "42501":  # insufficient_privilege
            raise SqlUserRefused(f"the role {role_name} cannot be made: {_reason(error)}") from None
        raise SqlUserRefused(
            f"this connection's role may not make SQL users ({_reason(error)}): it needs CREATEROLE, and "
            f"{READER_ROLE} WITH ADMIN OPTION where another role made that"
        ) from None
    # the services' role sees and ends the sessions of roles whose rights it has; a superuser's all
    services = _tables_owner(connection)
    if not services.is_superuser:
        connection.execute(text(f"GRANT {quoted} TO {services.quoted} WITH INHERIT TRUE, SET FALSE"))
    if _is_superuser(connection):
        connection.execute(text(f"ALTER ROLE {quoted} SET temp_file_limit = '{TEMP_FILE_LIMIT}'"))
    connection.execute(
        text(
            "INSERT INTO sql_users (role_name, broadcaster_id, label, statement_timeout_s) "
            "VALUES (:role_name, :broadcaster_id, :label, :statement_timeout_s)"
        ),
        {
            "role_name": role_name,
            "broadcaster_id": broadcaster_id,
            "label": label,
            "statement_timeout_s": statement_timeout_s,
        },
    )
    return role_name, password


def list_sql_users(connection: Connection) -> list[SqlUser]:
    """All SQL users, oldest first."""
    rows = connection.execute(
        text(
            """
            SELECT u.role_name, b.name AS broadcaster, u.label, u.statement_timeout_s, r.rolconnlimit,
                   (SELECT count(*) FROM pg_stat_activity a WHERE a.usename = u.role_name), u.created_at
            FROM sql_users u
            LEFT JOIN broadcasters b ON b.id = u.broadcaster_id
            LEFT JOIN pg_roles r ON r.rolname = u.role_name
            ORDER BY u.created_at, u.role_name
            """
        )
    )
    return [SqlUser(*row) for row in rows]


def change_password(connection: Connection, role_name: str) -> str:
    """Give a SQL user a new password and return it; sessions that are open go on.

    Raises:
        SqlUserUnknown: no SQL user has this name.
        SqlUserRefused: the server has no such role, or this connection's role may not change it.
    """
    _require(connection, role_name)
    password = secrets.token_urlsafe(32)
    _alter(connection, role_name, f"PASSWORD '{_verifier(connection, role_name, password)}'")
    return password


def revoke_sql_user(engine: Engine, role_name: str) -> int:
    """Remove a SQL user for good: no new sessions, the open ones ended, the role dropped. Sessions ended.

    Raises:
        SqlUserUnknown: no SQL user has this name.
        SqlUserRefused: its sessions do not end, it owns something, or this connection's role may not drop it.
    """
    with engine.begin() as connection:
        _require(connection, role_name)
        exists = connection.scalar(
            text("SELECT true FROM pg_roles WHERE rolname = :name"), {"name": role_name}
        )
        if exists:
            _alter(connection, role_name, "NOLOGIN")
    n_ended = _end_sessions(engine, role_name) if exists else 0
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM sql_users WHERE role_name = :name"), {"name": role_name})
        if exists:
            try:
                connection.execute(text(f'DROP OWNED BY "{role_name}"'))
                connection.execute(text(f'DROP ROLE "{role_name}"'))
            except DBAPIError as error:
                raise SqlUserRefused(
                    f"the role {role_name} can no longer log in, but cannot be dropped: {_reason(error)}. "
                    f"Take from it what it has there, then revoke it again"
                ) from error
    return n_ended


def end_overlong(connection: Connection) -> Overlong:
    """Cancel SQL users' queries that run past their limit, and end sessions that hold a transaction open too long.

    The server does so by itself unless a user switched the limits off. A query that is cancelled and goes on (code
    may catch it) has its session ended. In every database of the server: a role may connect to them all.
    """
    rows = connection.execute(
        text(
            """
            SELECT a.pid, u.role_name, a.state IS NOT NULL AND (
                       pg_has_role(a.usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE')
                   ) AS is_in_reach,
                   a.state = 'active' AND clock_timestamp() - a.query_start
                       > make_interval(secs => u.statement_timeout_s + :grace_s) AS is_late,
                   a.state = 'active' AND clock_timestamp() - a.query_start
                       > make_interval(secs => u.statement_timeout_s + :grace_s + :stubborn_s)
                   OR a.state LIKE 'idle in transaction%' AND clock_timestamp() - a.state_change
                       > make_interval(secs => :idle_s + :grace_s)
                   OR clock_timestamp() - a.xact_start
                       > make_interval(secs => greatest(:transaction_s, 2 * u.statement_timeout_s) + :grace_s)
                   AS is_over
            FROM pg_stat_activity a JOIN sql_users u ON u.role_name = a.usename
            WHERE a.leader_pid IS NULL
            """
        ),
        {
            "grace_s": GRACE_S,
            "stubborn_s": STUBBORN_S,
            "idle_s": IDLE_IN_TRANSACTION_S,
            "transaction_s": TRANSACTION_S,
        },
    ).all()
    cancelled, ended = [], []
    for row in rows:
        if not row.is_in_reach:
            continue
        if row.is_over:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": row.pid})
            ended.append(row.role_name)
        elif row.is_late:
            connection.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": row.pid})
            cancelled.append(row.role_name)
    out_of_reach = sorted({row.role_name for row in rows if not row.is_in_reach})
    return Overlong(tuple(cancelled), tuple(ended), tuple(out_of_reach))


@dataclass(frozen=True)
class _Role:
    quoted: str
    is_superuser: bool


def _tables_owner(connection: Connection) -> _Role:
    """The role that the services connect as."""
    row = connection.execute(
        text(
            "SELECT quote_ident(r.rolname) AS quoted, r.rolsuper FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner "
            "WHERE c.oid = 'public.broadcasters'::regclass"
        )
    ).one()
    return _Role(row.quoted, row.rolsuper)


def _is_superuser(connection: Connection) -> bool:
    return bool(connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")))


def _require(connection: Connection, role_name: str) -> None:
    known = connection.scalar(text("SELECT true FROM sql_users WHERE role_name = :name"), {"name": role_name})
    # a name that did not come from here is not put into a statement, whatever the table says
    if not known or not NAME_FORM.fullmatch(role_name):
        raise SqlUserUnknown(
            f"there is no SQL user named {role_name!r}: `fonoteca sql-user list` shows their names"
        )


def _alter(connection: Connection, role_name: str, change: str) -> None:
    try:
        connection.exec_driver_sql(f'ALTER ROLE "{role_name}" {change}')
    except DBAPIError as error:
        if _sqlstate(error) not in ("42501", "42704"):  # insufficient_privilege, undefined_object
            raise SqlUserRefused(f"the role {role_name} cannot be changed: {_reason(error)}") from None
        raise SqlUserRefused(
            f"the role {role_name} cannot be changed: {_reason(error)}. It is changed by the role that made it, "
            f"or by a superuser; one that the server has lost is revoked and made anew"
        ) from None


def _end_sessions(engine: Engine, role_name: str) -> int:
    """End all sessions of a role and wait until they are gone; how many there were."""
    ended: set[int] = set()
    deadline = time.monotonic() + ENDING_TIMEOUT_S
    while True:
        try:
            with engine.begin() as connection:
                rows = connection.execute(
                    text("SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :name"),
                    {"name": role_name},
                ).all()
        except DBAPIError as error:
            raise SqlUserRefused(
                f"the role {role_name} can no longer log in, but its open sessions cannot be ended: {_reason(error)}"
            ) from error
        if not rows:
            return len(ended)
        ended.update(row.pid for row in rows)
        if time.monotonic() > deadline:
            raise SqlUserRefused(
                f"the role {role_name} can no longer log in, but {len(rows)} of its sessions do not end: "
                f"revoke it again when they have"
            )
        time.sleep(0.02)


def _verifier(connection: Connection, role_name: str, password: str) -> str:
    """What the server stores of a password."""
    session = connection.connection.driver_connection
    assert session is not None
    verifier: bytes = session.pgconn.encrypt_password(password.encode(), role_name.encode(), b"scram-sha-256")
    return verifier.decode()


def _sqlstate(error: DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def _reason(error: DBAPIError) -> str:
    """What the server says, without the statement: that may hold a password's verifier."""
    diag = getattr(error.orig, "diag", None)
    if diag is None or diag.message_primary is None:  # the connection's words: no statement was answered
        return str(error.orig).strip().replace("\n", " ")
    return ": ".join(part.replace("\n", ", ") for part in (diag.message_primary, diag.message_detail) if part)
