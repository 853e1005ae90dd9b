"""A database with the made-up archive, and a reader of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine

from db.connect import make_engine, transaction
from tests.conftest import Databases
from tests.sql_docs.fill import fill
from tests.sql_docs.write import reading


@pytest.fixture(scope="module")
def archive(databases: Databases) -> Iterator[Engine]:
    """The services' engine, on a database with the made-up archive."""
    url = databases.make()
    engine = make_engine(url, application_name="tests")
    with transaction(engine) as tx:
        fill(tx.connection)
    yield engine
    engine.dispose()
    databases.drop(url)


@pytest.fixture(scope="module")
def reader(archive: Engine) -> Iterator[Connection]:
    """A reader of all broadcasters."""
    with reading(archive) as connection:
        yield connection
