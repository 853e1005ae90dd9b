"""SQL users: made, held to their limits, taken away; with a superuser's help and without."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import make_url, text

from db import sql_users
from db.connect import make_engine
from db.sql_hardening import harden
from db.sql_users import SqlUserRefused, change_password, create_sql_user, end_overlong, list_sql_users
from migrations.run import migrate
from tests.conftest import Databases
from tests.db.tenants import ALFA, BRAVO, Tenants, drop_tenants, make_tenants


@pytest.fixture(scope="module")
def tenants(databases: Databases) -> Iterator[Tenants]:
    url = databases.make()
    tenants = make_tenants(make_engine(url, application_name="tests"), url)
    yield tenants
    drop_tenants(tenants)
    databases.drop(url)


def wait_for(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_who_switches_the_limits_off_is_ended(tenants: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    with tenants.engine.begin() as connection:
        role, _ = create_sql_user(connection, ALFA, connections=1, statement_timeout_s=1)
    monkeypatch.setattr(sql_users, "GRACE_S", 0)
    try:
        with closing(tenants.connect(role)) as session:
            with pytest.raises(psycopg.OperationalError, match="too many connections"):
                tenants.connect(role)
            limits = session.execute(
                "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only'), "
                "current_setting('idle_in_transaction_session_timeout'), current_setting('transaction_timeout'), "
                "current_setting('search_path')"
            ).fetchone()
            assert limits == ("1s", "on", "5min", "15min", "archive")
            session.execute("SET statement_timeout = 0")
            ended: list[BaseException] = []

            def run() -> None:
                try:
                    session.execute("SELECT pg_sleep(60)")
                except psycopg.Error as error:
                    ended.append(error)

            def watch() -> tuple[tuple[str, ...], tuple[str, ...]]:
                with tenants.engine.begin() as connection:
                    done = end_overlong(connection)
                assert done.out_of_reach == ()
                return done.cancelled, done.ended

            assert watch() == ((), ())
            with tenants.engine.begin() as connection:
                connection.execute(
                    text("UPDATE sql_users SET statement_timeout_s = 0 WHERE role_name = :role"),
                    {"role": role},
                )
            thread = threading.Thread(target=run)
            thread.start()
            wait_for(lambda: watch() == ((role,), ()), "the query was not cancelled")
            thread.join(20)
            assert isinstance(ended[0], errors.QueryCanceled)

            session.execute("SET idle_in_transaction_session_timeout = 0")
            session.execute("BEGIN")
            assert watch() == ((), ())
            monkeypatch.setattr(sql_users, "IDLE_IN_TRANSACTION_S", 0)
            wait_for(lambda: watch() == ((), (role,)), "the idle transaction was not ended")
            with pytest.raises(psycopg.OperationalError):
                session.execute("SELECT 1")
        with tenants.engine.connect() as connection:
            shown = {user.role_name: user for user in list_sql_users(connection)}[role]
        assert (shown.broadcaster, shown.connections) == (ALFA, 1)
    finally:
        assert sql_users.revoke_sql_user(tenants.engine, role) in (0, 1)


def test_a_revoked_user_is_gone_at_once(tenants: Tenants) -> None:
    with tenants.engine.begin() as connection:
        role, first = create_sql_user(connection, BRAVO)
        assert change_password(connection, role) != first
        for name in ("pg_mine", "Mine", "a b", '"x"', "1a", role):
            with pytest.raises(SqlUserRefused):
                create_sql_user(connection, BRAVO, role_name=name)
        with pytest.raises(SqlUserRefused):
            change_password(connection, "archive_owner")
    with closing(tenants.connect(role)) as session:
        assert session.execute("SELECT count(*) FROM segments").fetchone() == (1,)
        assert sql_users.revoke_sql_user(tenants.engine, role) == 1
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT count(*) FROM segments")
    with pytest.raises(psycopg.OperationalError):
        tenants.connect(role)
    with pytest.raises(SqlUserRefused, match="there is no SQL user"):
        sql_users.revoke_sql_user(tenants.engine, role)


RESERVED = ("select", "all", "user", "table", "current_user", "session_user")


def test_a_reserved_word_is_a_name_like_any_other(tenants: Tenants) -> None:
    for name in RESERVED:
        with tenants.engine.begin() as connection:
            assert create_sql_user(connection, ALFA, role_name=name)[0] == name
            change_password(connection, name)
    try:
        with closing(tenants.connect("select")) as session:
            assert session.execute("SELECT broadcaster FROM broadcasters").fetchall() == [(ALFA,)]
    finally:
        for name in RESERVED:
            sql_users.revoke_sql_user(tenants.engine, name)


def test_what_the_server_refuses_is_told_without_the_verifier(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CREATE ROLE, with the verifier, goes through; what follows it does not
    monkeypatch.setattr(sql_users, "READER_ROLE", "nobody_at_all")
    with tenants.engine.connect() as connection:
        with pytest.raises(SqlUserRefused) as raised:
            create_sql_user(connection, ALFA, role_name="refused")
        assert 'cannot be made: role "nobody_at_all" does not exist' in str(raised.value)
        connection.rollback()
        with pytest.raises(SqlUserRefused) as raised:
            create_sql_user(connection, ALFA, role_name="refused", connections=10**10)
        told = "".join(traceback.format_exception(raised.value))
        assert "cannot be made: " in told
        assert "SCRAM" not in told


def test_hardening_is_whole_and_can_be_repeated(tenants: Tenants) -> None:
    with tenants.engine.begin() as connection:
        for _ in range(2):
            left = harden(connection).left
            assert [line.split(" (")[0] for line in left] == ["connections to other databases"]


def test_without_a_superuser(make_database: Callable[..., str]) -> None:
    """A managed server: the services' role owns the database, and may make roles."""
    url = make_database()
    engine = make_engine(url, application_name="tests")
    services = f"services_{make_url(url).database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {services} LOGIN CREATEROLE"))
        # other databases of the tests' server made these roles
        connection.execute(text(f"GRANT archive_owner TO {services} WITH INHERIT FALSE, SET TRUE"))
        connection.execute(text(f"GRANT archive_reader TO {services} WITH ADMIN OPTION"))
        connection.execute(text(f"ALTER DATABASE {make_url(url).database} OWNER TO {services}"))
        for kind, names in (
            ("TABLE", "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"),
            # but for those that the migrations give to archive_owner themselves
            (
                "VIEW",
                "FROM pg_class WHERE relkind = 'v' AND relnamespace = 'archive'::regnamespace "
                "AND relowner <> 'archive_owner'::regrole",
            ),
            ("TYPE", "FROM pg_class WHERE relkind = 'c' AND relnamespace = 'archive'::regnamespace"),
            (
                "FUNCTION",
                "FROM pg_proc WHERE pronamespace IN ('public'::regnamespace, 'archive'::regnamespace)",
            ),
        ):
            listed = "oid::regprocedure::text" if kind == "FUNCTION" else "oid::regclass::text"
            for name in connection.scalars(text(f"SELECT {listed} {names}")).all():
                connection.execute(text(f"ALTER {kind} {name} OWNER TO {services}"))
        connection.execute(text(f"ALTER SCHEMA archive OWNER TO {services}"))
    engine.dispose()
    engine = make_engine(
        make_url(url).set(username=services).render_as_string(hide_password=False), application_name="tests"
    )
    try:
        for _ in range(2):  # down from what a superuser made, and from its own
            migrate(engine, "0003")
            migrate(engine)
        tenants = make_tenants(engine, url)
        try:
            with closing(tenants.connect(tenants.alfa)) as alfa:
                seen = str(alfa.execute("SELECT * FROM archive.segments").fetchall())
                with engine.begin() as connection:
                    left = harden(connection).left
                    watched = end_overlong(connection)
                    n_sessions = {user.role_name: user.n_sessions for user in list_sql_users(connection)}
                    assert connection.scalar(text("SELECT count(*) FROM archive.segments")) == 2
            assert ALFA in seen
            assert BRAVO not in seen
            with closing(tenants.connect(tenants.bravo)), engine.begin() as connection:
                connection.execute(text(f"REVOKE {tenants.bravo} FROM {services}"))
                assert end_overlong(connection).out_of_reach == (tenants.bravo,)
                connection.rollback()
            # its sessions are in reach; what only a superuser can take away is named
            assert watched.out_of_reach == ()
            assert n_sessions[tenants.alfa] == 1
            assert "temporary tables" not in left
            assert "advisory locks" in left
            for role in (tenants.alfa, tenants.bravo, tenants.operator):
                sql_users.revoke_sql_user(engine, role)
        finally:
            with engine.begin() as connection:
                connection.execute(text(f"DROP ROLE {tenants.bare}"))
    finally:
        engine.dispose()
