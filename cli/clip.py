"""`fonoteca clip`: a passage of a recording as a sound file."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

import typer

from cli.errors import CliError
from cli.options import ServerOption
from cli.output import note, size_text

CLOCK = re.compile(r"(?:(?:(\d{1,4}):)?(\d{1,2}):)?(\d{1,6}(?:\.\d{1,6})?)", re.ASCII)


class Form(StrEnum):
    """What a clip is encoded as."""

    MP3 = "mp3"
    OPUS = "opus"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("clip")(clip)


def seconds(written: str) -> float:
    """`90`, `1:30` or `0:01:30.5` in seconds.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = CLOCK.fullmatch(written)
    if match is None or any(float(part) >= 60 for part in match.groups()[1:] if match[2] and part):
        raise typer.BadParameter(f"{written!r} is no place in a recording: write seconds, M:SS or H:MM:SS")
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest


def clip(
    recording: Annotated[str, typer.Argument(metavar="RECORDING", help="Id of a recording.")],
    start: Annotated[
        str, typer.Argument(metavar="FROM", help="From its start: seconds, M:SS or H:MM:SS, with decimals.")
    ],
    end: Annotated[str, typer.Argument(metavar="TO", help="Where it ends, in the same way.")],
    form: Annotated[Form, typer.Option("--format", "-f", help="mp3, or opus in Ogg.")] = Form.MP3,
    destination: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|-",
            help="File to write (unset: the recording's name and the times, here); `-`: stdout.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
) -> None:
    """Write a passage of a recording as a sound file: levelled, and faded at its ends.

    Times count from the recording's start, as search and subtitles without an offset show them.
    """
    from cli.client import ApiClient
    from cli.status import require_id

    recording = require_id(recording)
    span = {"from": seconds(start), "to": seconds(end), "format": form.value}
    with ApiClient.connect(server) as client:
        answer = client.send("GET", f"/v1/recordings/{recording}/clip", params=span)
    if destination == "-":
        sys.stdout.buffer.write(answer.content)
        return
    path = Path(destination or _name_of(answer.headers.get("Content-Disposition", ""), form))
    try:
        path.write_bytes(answer.content)
    except OSError as error:
        raise CliError(
            f"{path} cannot be written ({error.strerror}): choose another with --output"
        ) from error
    note(f"{path}: {size_text(len(answer.content))}")


def _name_of(disposition: str, form: Form) -> str:
    """The file name that the server gives, never with a folder."""
    given = unquote(disposition.partition("filename*=UTF-8''")[2])
    kept = "".join(character if character.isprintable() else "_" for character in given)
    return kept.replace("/", "_").replace("\\", "_").lstrip(".") or f"clip.{form.value}"
