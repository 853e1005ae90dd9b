"""`fonoteca alerts`: what a person must look at, and closing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    from db.alerts import AlertRow

alerts = typer.Typer(
    no_args_is_help=True, help="List and close alerts (an operator's command: needs the database)."
)

ReasonOption = Annotated[
    str, typer.Option("--reason", help="Why, for those who look later.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(alerts, name="alerts")


@alerts.command("list")
def list_alerts(
    everything: Annotated[bool, typer.Option("--all", help="The closed ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Alerts listed, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the open alerts."""
    from cli.database import database
    from db import alerts as rows

    with database() as engine, engine.connect() as connection:
        found = rows.list_alerts(connection, with_closed=everything, limit=limit)
    output = Output(as_json)
    if as_json:
        output.document([alert_json(alert) for alert in found])
        return
    for alert in found:
        state = f"closed {alert.closed_at:%Y-%m-%d}" if alert.closed_at else "open"
        output.line(f"{alert.id:>5}  {alert.kind:<12}  since {alert.opened_night}  {state}: {alert.sentence}")
        if alert.close_reason:
            output.line(f"       closed by {alert.closed_by}: {alert.close_reason}")
    if not found:
        note("no alerts" if everything else "no open alerts")


@alerts.command("close")
def close(
    alert_id: Annotated[
        int, typer.Argument(metavar="ID", help="Number, as `fonoteca alerts list` shows it.")
    ],
    reason: ReasonOption,
    as_json: JsonOption = False,
) -> None:
    """Close an alert by hand, and tell those who were told of it. A night that is as bad opens a new one."""
    from cli.database import database
    from db.connect import transaction
    from db.nights import lock_nights
    from db.settings import Settings
    from evaluation.alert_messages import close_by_hand

    with database() as engine, transaction(engine) as tx:
        lock_nights(tx.connection)
        closed = close_by_hand(
            tx.connection, alert_id, closed_by=person(), reason=required(reason), settings=Settings()
        )
    if as_json:
        Output(as_json).document(alert_json(closed))
    else:
        typer.echo(f"closed alert {closed.id}: {closed.kind} of {closed.subject}")


def person() -> str:
    """Who runs the command, as the system names them."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user number without a name, as in containers
        return "operator"


def required(reason: str) -> str:
    """A reason that says something.

    Raises:
        CliError: it is empty.
    """
    if not reason.strip():
        raise CliError("--reason is empty: say why, for those who look later")
    return reason.strip()


def alert_json(alert: AlertRow) -> dict[str, Any]:
    """An alert for programs."""
    return {
        "id": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "sentence": alert.sentence,
        "opened_night": alert.opened_night.isoformat(),
        "opened_at": alert.opened_at.isoformat(),
        "last_night": alert.last_night.isoformat(),
        "n_quiet_nights": alert.n_quiet_nights,
        "closed_at": alert.closed_at.isoformat() if alert.closed_at else None,
        "closed_by": alert.closed_by,
        "close_reason": alert.close_reason,
        "evidence": alert.evidence,
    }
