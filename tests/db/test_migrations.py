"""Migrations make exactly the tables that db/schema.py describes. Each by itself: test_migration_steps.py."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

import db.quality_schema
import db.search_schema  # noqa: F401 - registers its tables
from db.connect import make_engine
from db.revision import SCHEMA_REVISION, database_revision
from db.schema import Base
from migrations import run
from migrations.run import MigrationBlocked, current_revision, head_revision, migrate


@pytest.fixture
def empty(make_database: Callable[..., str]) -> Iterator[Engine]:
    """An engine on a database that nothing has migrated."""
    engine = make_engine(make_database(migrated=False), application_name="tests")
    yield engine
    engine.dispose()


def test_migrations_make_what_the_models_say(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        differences = compare_metadata(context, Base.metadata)
    assert differences == []


def check_constraints(engine: Engine) -> set[tuple[str, str]]:
    """(name, definition) of every check constraint of ours."""
    with engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT conname::text, pg_get_constraintdef(oid) FROM pg_constraint "
                "WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
            )
        )
        return {(row[0], row[1]) for row in rows}


def test_check_constraints_are_those_of_the_models(engine: Engine, empty: Engine) -> None:
    """alembic's comparison leaves check constraints out: compared with what the models themselves make."""
    Base.metadata.create_all(empty)
    assert check_constraints(engine) == check_constraints(empty)


def test_services_expect_the_newest_migration(engine: Engine, empty: Engine) -> None:
    assert head_revision() == SCHEMA_REVISION
    with engine.connect() as connection:
        assert database_revision(connection) == SCHEMA_REVISION
    with empty.connect() as connection:
        assert database_revision(connection) is None


def test_two_threads_of_a_process_migrate_one_after_the_other(empty: Engine) -> None:
    """Alembic keeps its state in a module, which two commands at once take from each other."""
    begun = threading.Barrier(2)

    def bring_up(_: int) -> None:
        begun.wait(20)
        migrate(empty, "0001")

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(bring_up, range(2)))
    assert current_revision(empty) == "0001"
    with run._alembic_turn, pytest.raises(MigrationBlocked, match="in this process"):
        migrate(empty, "base", patience_s=0.1)
