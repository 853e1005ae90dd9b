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


def checked_track(written: str | None) -> str | None:
    """A choice of sound track as it was given, refused at once where it is none."""
    import re

    from db.schema import AUDIO_TRACK_FORM

    if written is not None and (written.endswith("\n") or not re.search(AUDIO_TRACK_FORM, written)):
        raise typer.BadParameter(f"{written[:40]!r} is neither auto nor mix nor a number counted from 0")
    return written


def checked_offset(written: str | None) -> str | None:
    """A timecode offset as it was given, refused at once where it is none."""
    from api.export.timecode import BadTimecodeOffset, parse_offset

    if written is not None:
        try:
            parse_offset(written)
        except BadTimecodeOffset as error:
            raise typer.BadParameter(str(error)) from error
    return written
