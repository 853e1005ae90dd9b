"""`fonoteca queue`: what waits, and who is served how much, straight in the database."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cli.options import JsonOption
from cli.output import Output, duration_text, note

queue = typer.Typer(
    no_args_is_help=True,
    help="See what waits, pause queues and broadcasters, share them out (an operator's command: needs the database).",
)


class QueueName(StrEnum):
    """As `db.states.WorkQueue`, which is not imported for --help."""

    SPLIT = "split"
    TRANSCRIBE = "transcribe"


BroadcasterOption = Annotated[
    str | None, typer.Option("--broadcaster", help="All work of this broadcaster.", show_default=False)
]
QueueArgument = Annotated[
    QueueName | None, typer.Argument(help="All work of this kind, of everybody.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(queue, name="queue")


@queue.command("status")
def status(as_json: JsonOption = False) -> None:
    """What waits, by class and broadcaster."""
    from dataclasses import asdict

    from cli.database import database
    from db.control import paused_queues
    from db.queue_status import list_waiting

    with database() as engine, engine.connect() as connection:
        paused = paused_queues(connection)
        found = list_waiting(connection)
    output = Output(as_json)
    if as_json:
        output.document({"paused_queues": paused, "waiting": [asdict(work) for work in found]})
        return
    for name in paused:
        note(f"the queue {name} is paused: `fonoteca queue resume {name}` lets it go on")
    for work in found:
        held = f"  {work.held_segments:,} held back" if work.held_segments else ""
        mark = "  paused" if work.is_paused else ""
        output.line(
            f"{work.priority:<8}  {work.broadcaster:<20}  weight {work.weight:<6g} {work.recordings:>8,} recordings "
            f"{work.segments:>11,} segments  {duration_text(work.audio_s):>12}{held}{mark}"
        )
    if not found:
        note("nothing waits")


@queue.command("pause")
def pause(which: QueueArgument = None, broadcaster: BroadcasterOption = None) -> None:
    """Begin no more work of a queue or of a broadcaster. What is under way is finished."""
    _set(which, broadcaster, is_paused=True)


@queue.command("resume")
def resume(which: QueueArgument = None, broadcaster: BroadcasterOption = None) -> None:
    """Let a paused queue or broadcaster go on."""
    _set(which, broadcaster, is_paused=False)


@queue.command("weight")
def weight(
    broadcaster: Annotated[str, typer.Argument(help="Name of the broadcaster.")],
    share: Annotated[float, typer.Argument(help="0.001 to 1,000; 2 is served twice as much as 1.")],
) -> None:
    """How much a broadcaster is served while others' work waits too. Holds for work that comes."""
    from cli.database import database
    from db.broadcasters import set_weight

    with database() as engine, engine.begin() as connection:
        set_weight(connection, broadcaster, share)
    typer.echo(f"{broadcaster} has weight {share:g}")


def _set(which: QueueName | None, broadcaster: str | None, *, is_paused: bool) -> None:
    from cli.database import database
    from cli.errors import CliError
    from db import control
    from db.broadcasters import find_broadcaster
    from db.states import WorkQueue

    if (which is None) == (broadcaster is None):
        raise CliError("name one: a queue (split or transcribe), or --broadcaster NAME")
    with database() as engine, engine.begin() as connection:
        if which is not None:
            told = WorkQueue(which.value)
            (control.pause_queue if is_paused else control.resume_queue)(connection, told)
        else:
            assert broadcaster is not None
            owner = find_broadcaster(connection, broadcaster)
            if owner is None:
                raise CliError(
                    f"there is no broadcaster named {broadcaster!r}: `fonoteca keys list` shows them"
                )
            (control.pause if is_paused else control.resume)(connection, control.Target(owner.id))
    subject = f"the queue {which}" if which is not None else str(broadcaster)
    typer.echo(f"{subject} is paused" if is_paused else f"{subject} goes on")
