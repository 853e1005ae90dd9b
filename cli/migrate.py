"""`fonoteca migrate`: bring the database to this code's tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.output import note

if TYPE_CHECKING:
    from sqlalchemy import Engine

RETRY_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate")(migrate)


def migrate(
    revision: Annotated[
        str, typer.Argument(help="`head`: the newest; `base`: nothing left; `-1`: one step back.")
    ] = "head",
    wait_s: Annotated[
        float,
        typer.Option("--wait", min=0, metavar="SECONDS", help="Wait for the database to accept connections."),
    ] = 0.0,
    patience_s: Annotated[
        float,
        typer.Option(
            "--patience",
            min=0,
            metavar="SECONDS",
            help="How long to go on asking for locks that somebody holds, for each step.",
        ),
    ] = 60.0,
) -> None:
    """Bring the database's tables to a revision, while the system works. Running it again changes nothing.

    Each step is a transaction of its own. It waits at most 2 s for a lock, so that nobody waits behind it for
    longer, and is tried again after a pause until the patience ends.
    """
    from alembic.util.exc import CommandError

    from cli.database import database
    from migrations import run

    with database() as engine:
        wait_until_ready(engine, wait_s)
        before = run.current_revision(engine)
        try:
            run.migrate(engine, revision, patience_s=patience_s, note=note)
        except run.MigrationBlocked as error:
            raise CliError(str(error)) from None
        except CommandError as error:
            raise CliError(
                f"cannot migrate to {revision!r}: {error}. The newest revision is {run.head_revision()}"
            ) from None
        after = run.current_revision(engine)
    if before == after:
        typer.echo(f"the database is at {after or 'base'} already")
    else:
        typer.echo(f"{before or 'base'} -> {after or 'base'}")


def wait_until_ready(engine: Engine, wait_s: float) -> None:
    """Return once the database accepts a connection.

    Raises:
        CliError: it does not within `wait_s`.
    """
    import time

    from sqlalchemy.exc import OperationalError

    from cli.database import unreachable

    deadline = time.monotonic() + wait_s
    noted = False
    while True:
        try:
            with engine.connect():
                return
        except OperationalError as error:
            if time.monotonic() >= deadline:
                raise unreachable(engine, error) from error
        if not noted:
            note(f"waiting up to {wait_s:.0f} s for the database")
            noted = True
        time.sleep(RETRY_S)
