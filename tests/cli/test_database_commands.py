"""`fonoteca keys` and `fonoteca migrate`, on a real database."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from db.broadcasters import find_broadcaster_by_key
from migrations.run import head_revision
from tests.cli.conftest import Ended


@pytest.fixture
def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", database_url)
    return database_url


@pytest.mark.usefixtures("database")
def test_a_key_is_made_listed_and_revoked(fonoteca: Callable[..., Ended], engine: Engine) -> None:
    made = fonoteca("keys", "create", "radio-galega", "--label", "archive desk")
    assert made.code == 0
    key = made.out.strip()
    with engine.connect() as connection:
        broadcaster = find_broadcaster_by_key(connection, key)
        assert broadcaster is not None
        assert broadcaster.name == "radio-galega"
    key_id = key.split("_")[1]
    assert "added the broadcaster radio-galega" in made.err
    assert "added" not in fonoteca("keys", "create", "radio-galega").err

    listed = fonoteca("keys", "list", "--json")
    entries = json.loads(listed.out)
    assert [entry["label"] for entry in entries] == ["archive desk", ""]
    assert key.split("_")[2] not in listed.out

    assert fonoteca("keys", "revoke", key_id).code == 0
    with engine.connect() as connection:
        assert find_broadcaster_by_key(connection, key) is None
    assert "revoked" in fonoteca("keys", "list", "radio-galega").out


@pytest.mark.usefixtures("database")
def test_keys_refuse_what_is_not_there(fonoteca: Callable[..., Ended]) -> None:
    unknown = fonoteca("keys", "revoke", "0123456789abcdef")
    assert unknown.code == 1
    assert "0123456789abcdef" in unknown.err
    malformed = fonoteca("keys", "create", "Radio Galega")
    assert malformed.code == 1
    assert "Radio Galega" in malformed.err
    assert json.loads(fonoteca("keys", "list", "--json").out) == []


@pytest.mark.usefixtures("small_lexicon")
def test_migrate_says_from_where_to_where(
    fonoteca: Callable[..., Ended], make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", make_database(migrated=False))
    missing = fonoteca("keys", "list")
    assert missing.code == 1
    assert "fonoteca migrate" in missing.err

    head = head_revision()
    assert fonoteca("migrate").out == f"base -> {head}\n"
    again = fonoteca("migrate", "--wait", "1")
    assert (again.code, again.out) == (0, f"the database is at {head} already\n")
    unknown = fonoteca("migrate", "no-such-revision")
    assert unknown.code == 1
    assert "no-such-revision" in unknown.err
    assert head in unknown.err


def test_an_unreachable_database_is_named_without_its_password(
    fonoteca: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FONOTECA_DATABASE_URL", f"postgresql://me:hush@/fonoteca?host={tmp_path}")
    ended = fonoteca("migrate")
    assert ended.code == 1
    assert str(tmp_path) in ended.err
    assert "hush" not in ended.err
    monkeypatch.setenv("FONOTECA_DATABASE_URL", "nonsense")
    assert "FONOTECA_DATABASE_URL is not an address" in fonoteca("migrate").err


@pytest.mark.usefixtures("no_stack")
def test_no_database_known(fonoteca: Callable[..., Ended]) -> None:
    ended = fonoteca("keys", "list")
    assert ended.code == 1
    assert "FONOTECA_DATABASE_URL is not set" in ended.err


def test_waiting_for_a_database_that_comes_up(
    fonoteca: Callable[..., Ended],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    postgres_url: str,
) -> None:
    """The socket's folder appears a moment later, as a container's database does."""
    from sqlalchemy import make_url

    url = make_url(database_url)
    host = url.query.get("host")
    if not isinstance(host, str):
        pytest.skip("the test's PostgreSQL listens on no Unix socket")
    later = tmp_path / "run"
    monkeypatch.setenv(
        "FONOTECA_DATABASE_URL",
        url.update_query_dict({"host": str(later)}).render_as_string(hide_password=False),
    )
    timer = threading.Timer(0.7, lambda: later.symlink_to(host))
    timer.start()
    ended = fonoteca("migrate", "--wait", "20")
    timer.join()
    assert ended.code == 0, ended.err
    assert "waiting up to 20 s" in ended.err


def test_a_migration_held_up_ends_with_who_holds_it(
    fonoteca: Callable[..., Ended], engine: Engine, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setattr("migrations.locks.LOCK_TIMEOUT_S", 0.5)
    monkeypatch.setattr("migrations.run.WATCH_S", 0.02)
    with engine.connect() as holder:
        pid = holder.scalar(text("SELECT pg_backend_pid()"))
        holder.execute(text("LOCK TABLE segments IN ACCESS SHARE MODE"))
        ended = fonoteca("migrate", "0002", "--patience", "0")
    assert ended.code == 1
    assert f"pid {pid} (tests" in ended.err
    assert "--patience" in ended.err
