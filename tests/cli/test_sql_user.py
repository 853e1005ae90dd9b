"""`fonoteca sql-user`, on a real database."""

from __future__ import annotations

import json
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from tests.cli.conftest import Ended
from tests.conftest import Owner


def test_a_user_is_made_listed_and_revoked(
    fonoteca: Callable[..., Ended],
    owner: Owner,
    engine: Engine,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", database_url)
    made = fonoteca(
        "sql-user",
        "create",
        owner.name,
        "--label",
        "newsroom",
        "--statement-timeout",
        "2min",
        "--connections",
        "3",
    )
    assert made.code == 0
    url = made.out.strip()
    role = make_url(url).username
    password = make_url(url).password
    assert role is not None
    assert password is not None
    assert owner.name not in role
    assert len(password) >= 40
    with psycopg.connect(url) as session:
        assert session.execute("SELECT broadcaster FROM broadcasters").fetchall() == [(owner.name,)]
        assert session.execute("SHOW statement_timeout").fetchone() == ("2min",)

    listed = fonoteca("sql-user", "list", "--json")
    assert password not in listed.out
    entry = json.loads(listed.out)[0]
    assert (entry["role"], entry["broadcaster"], entry["label"]) == (role, owner.name, "newsroom")
    assert (entry["statement_timeout_s"], entry["connections"]) == (120, 3)
    assert "newsroom" in fonoteca("sql-user", "list").out

    changed = json.loads(fonoteca("sql-user", "password", role, "--json").out)
    assert make_url(changed["url"]).password not in (None, password)

    assert fonoteca("sql-user", "revoke", role).out == f"revoked {role}\n"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert json.loads(fonoteca("sql-user", "list", "--json").out) == []


def test_a_reader_of_all_and_what_is_refused(
    fonoteca: Callable[..., Ended], owner: Owner, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", database_url)
    made = json.loads(fonoteca("sql-user", "create", "--all", "--json").out)
    assert made["broadcaster"] is None
    (left,) = made["left_to_public"]  # of the server's databases, some are always open
    assert left.startswith("connections to other databases (")
    try:
        for arguments, told in (
            ((), "--all"),
            ((owner.name, "--all"), "--all"),
            (("nobody",), "there is no broadcaster named 'nobody'"),
            (("--all", "--name", made["role"]), "choose another name"),
            (("--all", "--name", "Robert'); --"), "cannot name a SQL user"),
            (("--all", "--name", "public"), "cannot name a SQL user"),
            (("--all", "--name", "none"), "cannot name a SQL user"),
            (("--all", "--name", "pg_monitor2"), "cannot name a SQL user"),
            (("--all", "--statement-timeout", "soon"), "not a time"),
            (("--all", "--statement-timeout", "25h"), "at most 24 h"),
            (("--all", "--label", "a\x1b[2Jb"), "cannot be shown in a list"),
        ):
            refused = fonoteca("sql-user", "create", *arguments)
            assert refused.code != 0
            assert told in refused.err
            assert "fault of Fonoteca" not in refused.err
            assert "SCRAM" not in refused.err
        assert fonoteca("sql-user", "revoke", "postgres").code == 1
    finally:
        assert fonoteca("sql-user", "revoke", made["role"]).code == 0
