"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="FONOTECA_SERVER",
        metavar="URL",
        help="Address of the Fonoteca server. Unset: the embedded stack that `fonoteca up` started.",
        show_default=False,
    ),
]

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON document on stdout, and everything else on stderr."),
]


def checked_offset(written: str | None) -> str | None:
    """A timecode offset as it was given, refused at once where it is none."""
    from api.export.timecode import BadTimecodeOffset, parse_offset

    if written is not None:
        try:
            parse_offset(written)
        except BadTimecodeOffset as error:
            raise typer.BadParameter(str(error)) from error
    return written
