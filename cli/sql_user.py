"""`fonoteca sql-user`: login roles that read the archive over SQL, straight in the database."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, note

sql_user = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke login roles that read schema `archive` (an operator's command: needs the database).",
)

SECONDS = {"": 1, "s": 1, "min": 60, "h": 3600}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(sql_user, name="sql-user")


def seconds(written: str) -> int:
    """`30`, `30s`, `5min`, `1h` as seconds."""
    match = re.fullmatch(r"(\d{1,6})(s|min|h|)", written.strip())
    if match is None or int(match[1]) == 0:
        raise typer.BadParameter(f"{written!r} is not a time: write it as 30s, 5min or 1h")
    return int(match[1]) * SECONDS[match[2]]


@sql_user.command("create")
def create(
    broadcaster: Annotated[
        str | None, typer.Argument(help="The broadcaster whose rows it reads.", show_default=False)
    ] = None,
    all_broadcasters: Annotated[
        bool, typer.Option("--all", help="Read all broadcasters: for the operator's own analysts.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the role. Every role of the server can read it: unset, one that tells nothing is made.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[str, typer.Option("--label", help="What it is for, shown in the list.")] = "",
    statement_timeout: Annotated[
        str,
        typer.Option(
            "--statement-timeout", metavar="TIME", help="Longest query: 30s, 5min, 1h; at most 24h."
        ),
    ] = "30s",
    connections: Annotated[
        int, typer.Option("--connections", min=1, max=1000, help="Connections that it may have at once.")
    ] = 5,
    as_json: JsonOption = False,
) -> None:
    """Make a login role and print its address with the password: the only time that it can be read."""
    from cli.database import database
    from db.sql_hardening import harden
    from db.sql_users import create_sql_user

    if (broadcaster is None) != all_broadcasters:
        raise CliError("name a broadcaster, or give --all to read all of them")
    timeout_s = seconds(statement_timeout)
    with database() as engine:
        with engine.begin() as connection:
            left = harden(connection).left
        with engine.begin() as connection:
            role_name, password = create_sql_user(
                connection,
                broadcaster,
                role_name=name,
                label=label,
                statement_timeout_s=timeout_s,
                connections=connections,
            )
        url = address(engine.url.render_as_string(hide_password=False), role_name, password)
    note("keep this address: its password is not shown again")
    if left:
        note(
            f"every role still has: {', '.join(left)}. A superuser can take it: "
            "docs/sql-access.md says what it means"
        )
    if as_json:
        Output(as_json).document(
            {
                "role": role_name,
                "broadcaster": broadcaster,
                "label": label,
                "statement_timeout_s": timeout_s,
                "connections": connections,
                "url": url,
                "left_to_public": list(left),
            }
        )
    else:
        typer.echo(url)


@sql_user.command("list")
def list_users(as_json: JsonOption = False) -> None:
    """List SQL users. Passwords are not kept."""
    from cli.database import database
    from db.sql_users import list_sql_users

    with database() as engine, engine.connect() as connection:
        found = list_sql_users(connection)
    output = Output(as_json)
    if as_json:
        output.document(
            [
                {
                    "role": user.role_name,
                    "broadcaster": user.broadcaster,
                    "label": user.label,
                    "statement_timeout_s": user.statement_timeout_s,
                    "connections": user.connections,
                    "n_sessions": user.n_sessions,
                    "created_at": user.created_at.isoformat(),
                }
                for user in found
            ]
        )
        return
    for user in found:
        limits = (
            "not on this server"
            if user.connections is None
            else (f"{user.n_sessions}/{user.connections} connections, {user.statement_timeout_s} s a query")
        )
        output.line(
            f"{user.role_name:<20}  {user.broadcaster or '(all)':<20}  {user.created_at:%Y-%m-%d}  "
            f"{limits:<32}  {user.label}".rstrip()
        )
    if not found:
        note("no SQL users: make one with `fonoteca sql-user create BROADCASTER`")


@sql_user.command("password")
def password(
    role_name: Annotated[str, typer.Argument(metavar="ROLE", help="As `fonoteca sql-user list` shows it.")],
    as_json: JsonOption = False,
) -> None:
    """Give a SQL user a new password and print its address; the old password is void, open sessions go on."""
    from cli.database import database
    from db.sql_users import change_password

    with database() as engine:
        with engine.begin() as connection:
            new = change_password(connection, role_name)
        url = address(engine.url.render_as_string(hide_password=False), role_name, new)
    note("keep this address: its password is not shown again")
    if as_json:
        Output(as_json).document({"role": role_name, "url": url})
    else:
        typer.echo(url)


@sql_user.command("revoke")
def revoke(
    role_name: Annotated[str, typer.Argument(metavar="ROLE", help="As `fonoteca sql-user list` shows it.")],
) -> None:
    """Remove a SQL user for good, and end its sessions."""
    from cli.database import database
    from cli.output import count_text
    from db.sql_users import revoke_sql_user

    with database() as engine:
        n_ended = revoke_sql_user(engine, role_name)
    typer.echo(f"revoked {role_name}" + (f", ended {count_text(n_ended, 'session')}" if n_ended else ""))


def address(operators_url: str, role_name: str, password: str) -> str:
    """The operator's address of the database as this role's: what belongs to the operator alone is left out."""
    from sqlalchemy import make_url

    url = make_url(operators_url)
    kept = {key: value for key, value in url.query.items() if key in ("host", "port", "sslmode")}
    changed = url.set(drivername="postgresql", username=role_name, password=password, query=kept)
    return changed.render_as_string(hide_password=False)
