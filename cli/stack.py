"""`fonoteca up` and `fonoteca down`: the embedded stack, left running on a persistent folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.output import note

if TYPE_CHECKING:
    from sqlalchemy import Engine

LOCAL_BROADCASTER = "local"
KEY_FILE_NAME = "api-key"
DEFAULT_PORT = 8000
DETACH_TIMEOUT_S = 900.0
DOWN_TIMEOUT_S = 120.0

HostOption = Annotated[str, typer.Option(help="Address that the API listens on.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("up")(up)
    app.command("down")(down)


def up(
    host: HostOption = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the API; 0 takes a free one.")
    ] = DEFAULT_PORT,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once it is up; end it with `fonoteca down`.")
    ] = False,
) -> None:
    """Run the whole system on this machine until Ctrl-C: databases, API, workers.

    Everything is kept in FONOTECA_HOME. Work that is under way when it stops goes on at the next `up`.
    """
    if detach:
        _detach(host, port)
        return
    from compose.local.errors import StartInterruptedError
    from compose.local.stack import Stack

    with stop_signals() as stop_event:
        stack = Stack(host=host, port=port, on_progress=PartLines())
        os.environ["FONOTECA_HOME"] = str(stack.home)
        note(f"starting the stack in {stack.home}")
        try:
            stack.start(stop_event)
            key = local_key(stack.home)
            _welcome(stack, key)
            sys.stdout.flush()
            # last: who waits for the key in the stack file shows what stands above
            stack.publish(api_key=key)
            stack.run_until(stop_event)
            note("stopping: what is unfinished goes on at the next `fonoteca up`")
        except StartInterruptedError:
            note("stopped while starting")
        finally:
            # a second Ctrl-C must not cut the ending short: the handlers are still ours
            stack.stop()


def _welcome(stack: Any, key: str) -> None:
    typer.echo(
        f"""
Fonoteca is up.
  Pages      {stack.api_url}/#key={key}
  API        {stack.api_url}/v1  (described at {stack.api_url}/docs)
  API key    {key}  (broadcaster "{LOCAL_BROADCASTER}", kept in {stack.home / KEY_FILE_NAME})
  SQL        {stack.database_url}
  Logs       {stack.home / "logs"}

Submit recordings from another terminal:
  {_with_home(stack.home)}fonoteca submit FOLDER
Ctrl-C stops it.
"""
    )


def _with_home(home: Path) -> str:
    from db.settings import default_home

    return "" if home == default_home() else f"FONOTECA_HOME={home} "


class PartLines:
    """One line per part of the stack on stderr, once it is ready or restarted, with the seconds it took."""

    def __init__(self) -> None:
        self._begun: dict[str, float] = {}

    def __call__(self, name: str, state: str) -> None:
        if state == "starting":
            self._begun[name] = time.monotonic()
        elif state == "ready":
            note(
                f"  {name:<14} ready after {time.monotonic() - self._begun.get(name, time.monotonic()):.1f} s"
            )
        elif state == "restarted":
            note(f"  {name:<14} had died and was restarted; its log says why")


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, in place of what they did before."""
    event = threading.Event()

    def stop(_number: int, _frame: object) -> None:
        event.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def local_key(home: Path) -> str:
    """The API key of the embedded stack's own broadcaster, made on the first `up` and kept in `home`."""
    from cli.database import database
    from db.broadcasters import find_broadcaster_by_key
    from db.connect import transaction

    path = home / KEY_FILE_NAME
    with database() as engine:
        if path.exists():
            key = path.read_text().strip()
            with transaction(engine) as tx:
                if find_broadcaster_by_key(tx.connection, key) is not None:
                    return key
        key = make_key(engine, LOCAL_BROADCASTER, "made by fonoteca up")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    return key


def make_key(engine: Engine, broadcaster: str, label: str) -> str:
    """A new API key of `broadcaster`, which is made where it does not exist yet."""
    from db.broadcasters import create_api_key, create_broadcaster, find_broadcaster
    from db.connect import transaction

    with transaction(engine) as tx:
        if find_broadcaster(tx.connection, broadcaster) is None:
            create_broadcaster(tx.connection, broadcaster)
        return create_api_key(tx.connection, broadcaster, label)


def _detach(host: str, port: int) -> None:
    """Start `fonoteca up` in a session of its own, and return once its stack is ready."""
    from compose.local.spawn import wait_until
    from compose.local.stack import stack_lock
    from db.settings import Settings

    settings = Settings()
    if stack_lock(settings.home).holder() is not None:
        raise CliError(f"a stack runs already in {settings.home}: end it with `fonoteca down`")
    log_file = settings.home / "logs" / "up.log"
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CliError(
            f"{settings.home} cannot be used ({error.strerror}): choose another FONOTECA_HOME"
        ) from error
    command = [sys.executable, "-m", "cli.main", "up", "--host", host, "--port", str(port)]
    # the key is in it: nobody else's to read
    log_file.unlink(missing_ok=True)
    with os.fdopen(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )

    def answered() -> bool:
        if process.poll() is not None:
            raise CliError(f"the stack did not start:\n{log_file.read_text(errors='replace').strip()}")
        stack = Settings().stack
        # a stack that was killed has left a file of its own
        return stack.get("pid") == process.pid and "api_key" in stack

    if not wait_until(answered, DETACH_TIMEOUT_S):
        raise CliError(f"the stack is not up after {DETACH_TIMEOUT_S:.0f} s; see {log_file}")
    typer.echo(log_file.read_text(errors="replace").replace("Ctrl-C stops it.", "`fonoteca down` stops it."))


def down() -> None:
    """Stop the stack that `fonoteca up` runs in FONOTECA_HOME."""
    from compose.local.spawn import is_running, wait_until
    from compose.local.stack import stack_lock
    from db.settings import Settings

    settings = Settings()
    # not the stack file's pid: after a kill -9 or a power cut that may be anybody's
    pid = stack_lock(settings.home).holder()
    if pid is None:
        note(f"no stack runs in {settings.home}")
        return
    os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: not is_running(pid), DOWN_TIMEOUT_S):
        raise CliError(
            f"the stack in {settings.home} (process {pid}) has not ended after {DOWN_TIMEOUT_S:.0f} s: "
            f"it still finishes work; see its logs in {settings.home / 'logs'}"
        )
    note(f"the stack in {settings.home} has stopped")
