"""`fonoteca keys`: the API keys of broadcasters, straight in the database."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import JsonOption
from cli.output import Output, note

keys = typer.Typer(
    no_args_is_help=True, help="Make, list and revoke API keys (an operator's command: needs the database)."
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")


@keys.command("create")
def create(
    broadcaster: Annotated[str, typer.Argument(help="Name of the broadcaster; added where it is new.")],
    label: Annotated[str, typer.Option("--label", help="What the key is for, shown in the list.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make an API key and print it: the only time that it can be read."""
    from cli.database import database
    from db.broadcasters import BroadcasterExists, create_api_key, create_broadcaster, find_broadcaster

    with database() as engine, engine.begin() as connection:
        is_new = find_broadcaster(connection, broadcaster) is None
        if is_new:
            try:
                create_broadcaster(connection, broadcaster)
            except BroadcasterExists:
                is_new = False  # another operator was quicker
        key = create_api_key(connection, broadcaster, label)
    if is_new:
        note(f"added the broadcaster {broadcaster}")
    note("keep this key: it is not shown again. Commands read it from FONOTECA_API_KEY")
    if as_json:
        Output(as_json).document({"broadcaster": broadcaster, "label": label, "api_key": key})
    else:
        typer.echo(key)


@keys.command("list")
def list_keys(
    broadcaster: Annotated[
        str | None, typer.Argument(help="Only this broadcaster's keys.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the keys, the revoked ones included. Their secrets are not stored."""
    from cli.database import database
    from db.broadcasters import list_api_keys

    with database() as engine, engine.connect() as connection:
        found = list_api_keys(connection, broadcaster)
    output = Output(as_json)
    if as_json:
        output.document(
            [
                {
                    "key_id": key.key_id,
                    "broadcaster": key.broadcaster,
                    "label": key.label,
                    "created_at": key.created_at.isoformat(),
                    "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
                }
                for key in found
            ]
        )
        return
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "valid"
        output.line(
            f"{key.key_id}  {key.broadcaster:<20}  {key.created_at:%Y-%m-%d}  {state:<18}  {key.label}".rstrip()
        )
    if not found:
        note("no keys: make one with `fonoteca keys create BROADCASTER`")


@keys.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `fonoteca keys list` shows it.")],
) -> None:
    """End a key's validity, at once and for good."""
    from cli.database import database
    from db.broadcasters import revoke_api_key

    with database() as engine, engine.begin() as connection:
        revoke_api_key(connection, key_id)
    typer.echo(f"revoked {key_id}")
