"""Alembic's entry: runs the migrations on one connection, under an advisory lock.

Two hosts that migrate at once take turns; a migration that cannot get its table lock within a few seconds
fails instead of blocking every query behind it.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

import db.quality_schema  # noqa: F401 - registers its tables
from db.schema import Base

MIGRATION_LOCK = 0x464F4E4F_4D494752  # "FONOMIGR"
LOCK_TIMEOUT = "5s"


def run(connection: Connection) -> None:
    """Run the migrations that alembic's command asked for."""
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
    connection.commit()
    try:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
        connection.commit()


run(context.config.attributes["connection"])
