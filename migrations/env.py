"""Alembic's entry: runs the migrations on one connection, each in a transaction of its own.

A migration that cannot get a lock within `LOCK_TIMEOUT_S` fails, instead of blocking every query behind it;
`migrations.run.migrate` tries it again.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

import db.quality_schema
import db.search_schema  # noqa: F401 - registers its tables
from db.schema import Base
from migrations.locks import LOCK_TIMEOUT_S, migration_turn


def run(connection: Connection) -> None:
    """Run the migrations that alembic's command asked for."""
    connection.execute(text(f"SET lock_timeout = {round(LOCK_TIMEOUT_S * 1000)}"))
    connection.execute(text("SET statement_timeout = 0"))  # a role's limit is meant for queries
    connection.commit()
    try:
        with migration_turn(connection, patience_s=context.config.attributes["patience_s"]):
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
        connection.execute(text("RESET lock_timeout"))
        connection.execute(text("RESET statement_timeout"))
        connection.commit()


run(context.config.attributes["connection"])
