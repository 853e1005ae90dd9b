"""The `fonoteca` command.

Command modules import only the standard library and typer at their top; what a command needs beyond that is
imported inside it, so that `fonoteca --help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Annotated

import typer

from cli.errors import FAILURE, TERMINATED, CliError, is_expected
from cli.output import note

COMMAND_MODULES = (
    "cli.demo",
    "cli.stack",
    "cli.submit",
    "cli.status",
    "cli.control",
    "cli.export",
    "cli.search",
    "cli.clip",
    "cli.corrections",
    "cli.transcribe",
    "cli.score",
    "cli.report",
    "cli.evaluate",
    "cli.night",
    "cli.alerts",
    "cli.baseline",
    "cli.model",
    "cli.train",
    "cli.keys",
    "cli.queue",
    "cli.sql_user",
    "cli.migrate",
    "cli.check",
)
"""Modules with a function `register(app)`; `fonoteca --help` keeps their order."""

app = typer.Typer(
    name="fonoteca",
    help="A broadcaster's media archive into text that people can trust and query.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fonoteca {version('fonoteca')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error (also FONOTECA_DEBUG=1).")
    ] = False,
) -> None:
    """A broadcaster's media archive into text that people can trust and query."""
    if debug:
        os.environ["FONOTECA_DEBUG"] = "1"


for _name in COMMAND_MODULES:
    import_module(_name).register(app)


def report(error: Exception) -> int:
    """Print `error` for a person; the exit code."""
    if os.environ.get("FONOTECA_DEBUG", "") not in ("", "0"):
        note("".join(traceback.format_exception(error)).rstrip())
    if is_expected(error):
        note(f"fonoteca: {error}")
    else:
        note(
            f"fonoteca: unexpected error: {type(error).__name__}: {error}\n"
            "This is a fault of Fonoteca. `fonoteca --debug ...` shows where it happened"
        )
    return error.exit_code if isinstance(error, CliError) else FAILURE


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; ends with SystemExit."""
    # told to end, clean up as for an error: temporary folders go, and so does what was started
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        app(arguments, prog_name="fonoteca")
    except Exception as error:
        sys.exit(report(error))


if __name__ == "__main__":
    main()
