"""The database, for an operator's commands that need no server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cli.errors import CliError

if TYPE_CHECKING:
    from sqlalchemy import Engine


@contextmanager
def database() -> Iterator[Engine]:
    """An engine on FONOTECA_DATABASE_URL or the embedded stack's PostgreSQL; disposed of at the end.

    Raises:
        SettingMissing: neither is there.
        CliError: it cannot be reached, or lacks the tables.
    """
    from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError

    from db.connect import make_engine
    from db.settings import Settings

    url = Settings().require_database_url()
    try:
        engine = make_engine(url, application_name="fonoteca-cli", pool_size=1)
    except (ArgumentError, ImportError):
        raise CliError(
            "FONOTECA_DATABASE_URL is not an address of PostgreSQL: "
            "write it as postgresql://user:password@host/database"
        ) from None
    try:
        yield engine
    except OperationalError as error:
        raise unreachable(engine, error) from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != "42P01":  # undefined_table
            raise
        raise CliError(
            f"the database {shown(engine)} has no tables yet: make them with `fonoteca migrate`"
        ) from error
    finally:
        engine.dispose()


def shown(engine: Engine) -> str:
    """The database's address without its password."""
    return engine.url.set(drivername="postgresql").render_as_string(hide_password=True)


def unreachable(engine: Engine, error: Exception) -> CliError:
    """The error for a database that does not answer."""
    reason = str(getattr(error, "orig", error)).strip().replace("\n", " ")
    return CliError(
        f"the database {shown(engine)} cannot be used: {reason}. Check FONOTECA_DATABASE_URL, or start an "
        "embedded stack with `fonoteca up`"
    )
