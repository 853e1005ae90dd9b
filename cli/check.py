"""`fonoteca check`: whether database and object store hold together, as after a restore."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output

SHOWN = 20
"""Most findings printed; --json has all."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    with_media: Annotated[
        bool, typer.Option("--media/--no-media", help="Look for every recording's files in the object store.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Check that every sample is accounted for and every file is there, and count what there is.

    Reads only. For after a restore, and for an operator who wants to know. Ends with code 1 when something is wrong.
    """
    from dataclasses import asdict

    from sqlalchemy import text

    from cli.database import database
    from db.integrity import check_media, check_rows, count_rows
    from db.media_store import MediaStore
    from db.settings import Settings

    output = Output(as_json)
    settings = Settings()
    with database() as engine:
        with engine.connect() as connection:
            # one snapshot for all questions, so that a system at work does not look broken
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            counts = asdict(count_rows(connection))
            wrong = check_rows(connection)
        if with_media:
            # a file is stored before the row that names it, so no snapshot need be held for hours
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                wrong += check_media(
                    connection,
                    MediaStore(settings.require_storage_url()),
                    copies_expire_after_days=settings.working_copy_expiry_days,
                )
    if as_json:
        output.document({"counts": counts, "wrong": wrong})
    else:
        for name, n in counts.items():
            output.line(f"{name.replace('_', ' '):20} {n:>16,}")
        for sentence in wrong[:SHOWN]:
            output.line(sentence)
        if len(wrong) > SHOWN:
            output.line(f"and {len(wrong) - SHOWN} more: --json lists all")
    if wrong:
        raise CliError(
            f"{len(wrong)} {'thing is' if len(wrong) == 1 else 'things are'} wrong; see docs/backup.md"
        )
    output.line("everything holds together" if with_media else "the database holds together")
