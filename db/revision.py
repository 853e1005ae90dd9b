"""The revision of the schema that this code reads and writes.

Services compare it with what the database says before they take work; `tests/db/test_migrations.py` proves
that it is the newest migration. A constant, because services do not carry the migrations.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

SCHEMA_REVISION = "0016"
"""Name of the newest migration."""


def database_revision(connection: Connection) -> str | None:
    """The revision the database stands at; None when it has no tables of ours."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    revision: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return revision
