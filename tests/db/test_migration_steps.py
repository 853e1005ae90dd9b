"""Each migration by itself: up, down and up again leaves what was there; rows stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text

from db.connect import make_engine, transaction
from migrations.run import current_revision, migrate, revisions
from tests.db import released_worker
from tests.db.catalogue import catalogue, columns, fingerprint, tables


@pytest.fixture
def empty(make_database: Callable[..., str], small_lexicon: None) -> Iterator[Engine]:
    """An engine on a database that nothing has migrated."""
    engine = make_engine(make_database(migrated=False), application_name="tests")
    yield engine
    engine.dispose()


def transcribe(engine: Engine, said: str, *, recordings: int = 4) -> None:
    """A few recordings, transcribed by a worker of release 0002."""
    with transaction(engine) as tx:
        broadcaster_id = tx.connection.scalar(
            text("INSERT INTO broadcasters (name) VALUES (:name) RETURNING id"), {"name": f"radio-{said}"}
        )
        for number in range(recordings):
            released_worker.submit(tx.connection, broadcaster_id, f"{said}-{number}.wav")
        worker_id = released_worker.register(tx.connection)
        model_id = released_worker.a_model(tx.connection)
    for _ in range(recordings * 3):
        released_worker.work_once(engine, worker_id, model_id, said)


def test_every_step_down_leaves_what_stood_before_it(empty: Engine) -> None:
    nothing = catalogue(empty)
    assert current_revision(empty) is None
    for revision in revisions():
        before = catalogue(empty)
        migrate(empty, "+1")
        after = catalogue(empty)
        assert current_revision(empty) == revision
        assert after != before
        migrate(empty, "-1")
        assert catalogue(empty) == before, (
            f"downgrade of {revision} leaves something else than stood before it"
        )
        migrate(empty, "+1")
        assert catalogue(empty) == after, f"{revision} makes something else the second time"
    migrate(empty)  # again: changes nothing
    assert catalogue(empty) == after
    migrate(empty, "base")
    assert catalogue(empty) == nothing


def test_upgrading_keeps_every_row_where_it_is(empty: Engine) -> None:
    """A table that is rewritten is locked for as long as that takes: at 10 million segments, for minutes."""
    migrate(empty, "0002")
    transcribe(empty, "before")
    with empty.connect() as connection:
        old = {table: columns(connection, table) for table in tables(connection)}
        rows = {table: fingerprint(connection, table, names) for table, names in old.items()}
        files = {
            table: connection.scalar(text("SELECT pg_relation_filenode(CAST(:t AS regclass))"), {"t": table})
            for table in old
        }
    assert rows["segments"][0] == 12
    measured = text("SELECT count(*) FROM pg_stats WHERE tablename = 'segments' AND attname = 'text'")
    with empty.begin() as connection:
        connection.execute(text("ANALYZE"))
        assert connection.scalar(measured) == 1
    migrate(empty)
    with empty.connect() as connection:
        assert connection.scalar(measured) == 0, "the planner still knows texts of all broadcasters"
        assert {table: fingerprint(connection, table, names) for table, names in old.items()} == rows
        for table, file in files.items():
            now = connection.scalar(text("SELECT pg_relation_filenode(CAST(:t AS regclass))"), {"t": table})
            assert now == file, f"the upgrade rewrites {table}"
    transcribe(empty, "after")
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM segments WHERE state = 'done'")) == 24
    migrate(empty, "0002")
    with empty.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM segments WHERE text IS NOT NULL")) == 24
