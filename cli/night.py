"""`fonoteca night`: what nights there were, what one said, and beginning one by hand."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import INTERRUPTED, CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    import datetime as dt

    from sqlalchemy import Connection

    from db.nights import QualityNight
    from db.verdicts import VerdictRow

POLL_S = 1.0

night = typer.Typer(
    no_args_is_help=True,
    help="Show the nights of measuring, or begin one now (an operator's command: needs the database).",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(night, name="night")


@night.command("list")
def list_nights(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Nights listed, newest first.")] = 14,
    as_json: JsonOption = False,
) -> None:
    """List the newest nights with their verdicts."""
    from cli.database import database
    from db import nights
    from db.verdicts import read_verdicts

    with database() as engine, engine.connect() as connection:
        found = [
            (each, read_verdicts(connection, each.night)) for each in nights.list_nights(connection, limit)
        ]
    output = Output(as_json)
    if as_json:
        output.document([_night_json(each) | {"verdicts": _counted(rows)} for each, rows in found])
        return
    for each, rows in found:
        verdicts = ", ".join(f"{n} {name}" for name, n in _counted(rows).items()) or "-"
        output.line(f"{each.night}  {each.state:<9}  {verdicts}")
    if not found:
        note("no night yet: the first one begins by itself, or now with `fonoteca night run`")


@night.command("show")
def show(
    date: Annotated[
        str | None, typer.Argument(metavar="[DATE]", help="YYYY-MM-DD. None: the newest.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show one night: its verdicts in a sentence each, and what could not be measured."""
    from cli.database import database

    with database() as engine, engine.connect() as connection:
        found, rows = _read(connection, parse_date(date) if date else None)
    _print_night(Output(as_json), found, rows)


@night.command("run")
def run(
    date: Annotated[
        str | None,
        typer.Option(
            "--date",
            metavar="DATE",
            help="Its name, YYYY-MM-DD, after the newest night's. Unset: the one that is due, or the coming one.",
            show_default=False,
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is settled, and show it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Begin a night now, ahead of its time. Its window ends now; the next night's begins there."""
    from datetime import UTC

    from cli.database import database
    from db.connect import transaction
    from db.nights import Schedule, begin_now, lock_nights
    from db.settings import Settings
    from workers.queue import wake_night

    settings = Settings()
    schedule = Schedule.of(settings.night_time, settings.night_zone)
    output = Output(as_json)
    with database() as engine:
        with transaction(engine) as tx:
            lock_nights(tx.connection)
            begun = begin_now(
                tx.connection, schedule, now=datetime.now(UTC), night=parse_date(date) if date else None
            )
            tx.after_commit(wake_night)
        note(f"the night of {begun.night} has begun: the quality worker goes on with it")
        if not wait:
            if as_json:
                output.document(_night_json(begun))
            return
        try:
            while True:
                with engine.connect() as connection:
                    found, rows = _read(connection, begun.night)
                if found.state != "measuring":
                    break
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            raise CliError("stopped waiting: the night goes on", exit_code=INTERRUPTED) from None
    _print_night(output, found, rows)


def parse_date(text: str) -> dt.date:
    """A date of the form YYYY-MM-DD.

    Raises:
        CliError: it is none.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a date has no zone
    except ValueError:
        raise CliError(f"{text!r} is not a date: write it as 2026-11-22") from None


def _read(connection: Connection, date: dt.date | None) -> tuple[QualityNight, list[VerdictRow]]:
    from db.nights import read_night
    from db.verdicts import read_verdicts

    found = read_night(connection, date)
    if found is None:
        which = f"no night of {date}" if date else "no night yet"
        raise CliError(f"there is {which}: `fonoteca night list` shows those that were")
    return found, read_verdicts(connection, found.night)


def _counted(rows: list[VerdictRow]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for row in rows:
        counted[row.verdict] = counted.get(row.verdict, 0) + 1
    return counted


def _print_night(output: Output, found: QualityNight, rows: list[VerdictRow]) -> None:
    if output.as_json:
        output.document(_night_json(found) | {"verdicts": [_verdict_json(row) for row in rows]})
        return
    output.line(f"night of {found.night}: {found.state}")
    output.line(f"window: {found.from_at:%Y-%m-%d %H:%M %Z} to {found.until_at:%Y-%m-%d %H:%M %Z}")
    for row in rows:
        output.line(f"{row.verdict:<9}  {row.question:<12}  {row.sentence}")
    for part, reason in found.failures.items():
        output.line(f"not done   {part}: {reason}")


def _night_json(found: QualityNight) -> dict[str, Any]:
    times = ("from_at", "until_at", "begun_at", "prepared_at", "finished_at")
    moments = {name: getattr(found, name) for name in times}
    return {
        "night": found.night.isoformat(),
        "state": found.state,
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
        "failures": found.failures,
    }


def _verdict_json(row: VerdictRow) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(row) | {"night": row.night.isoformat(), "run_id": str(row.run_id) if row.run_id else None}
