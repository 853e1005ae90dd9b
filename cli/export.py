"""`fonoteca export`: transcripts and views of the archive as files."""

from __future__ import annotations

import os
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.options import JsonOption, ServerOption, checked_offset
from cli.output import Output, count_text, note, size_text
from db.states import RecordingState

if TYPE_CHECKING:
    from cli.client import ApiClient, Recording

MAX_PART_BYTES = 200
"""Longest file or folder name written, safely below the 255 bytes that file systems allow."""
WITH_TRANSCRIPT = frozenset({RecordingState.COMPLETED, RecordingState.PARTIAL})


class Form(StrEnum):
    """How a transcript or view is written."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    TTML = "ttml"
    CTM = "ctm"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"
    NDJSON = "ndjson"


VIEW_FORMS = frozenset({Form.CSV, Form.PARQUET, Form.NDJSON})
"""Those that a view is written in; the others are for transcripts."""


@dataclass(frozen=True)
class Wanted:
    """A transcript to write."""

    recording: Recording
    folder: str = ""
    """Folder below the output folder that the recording's own folders go into."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    recordings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECORDING...]", help="Ids of recordings.", show_default=False),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option("--batch", metavar="ID", help="Every recording of a batch.", show_default=False),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every recording, a folder for each batch.")
    ] = False,
    view: Annotated[
        str | None,
        typer.Option(
            "--view",
            metavar="NAME",
            help="A view of the archive (segments, words, recordings ...) instead of transcripts.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            "-f",
            help="txt (unset), subtitles (srt, vtt, ttml), ctm for scoring, json with times; "
            "of views csv (unset), parquet, ndjson.",
            show_default=False,
        ),
    ] = None,
    destination: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH|-",
            help="Folder for transcripts (unset: transcripts), file for a view (unset: its name here); `-`: stdout.",
            show_default=False,
        ),
    ] = None,
    timecode_offset: Annotated[
        str | None,
        typer.Option(
            "--timecode-offset",
            metavar="HH:MM:SS[.mmm]",
            help="Count subtitles' times from here instead of the recording's own offset; 0: from its start.",
            show_default=False,
            callback=checked_offset,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="A,B,C", help="Columns of a view. Unset: all.", show_default=False),
    ] = None,
    from_on: Annotated[
        datetime | None,
        typer.Option(
            "--from", formats=["%Y-%m-%d"], help="Views: first day of broadcast.", show_default=False
        ),
    ] = None,
    to_on: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Views: last day of broadcast.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write transcripts to files named like their recordings, folders kept; or one view of the archive to a file.

    Recordings of a batch without a transcript are left out and named on stderr; asked for by id they are an
    error. Files that exist are never overwritten without --force.
    """
    from cli.client import ApiClient

    output = Output(as_json)
    if view is not None:
        if everything or timecode_offset is not None:
            raise typer.BadParameter(
                "--all and --timecode-offset are for transcripts: leave them out with --view"
            )
        if (form or Form.CSV) not in VIEW_FORMS:
            raise typer.BadParameter(f"--format {form} is for transcripts: a view is csv, parquet or ndjson")
        days = {"from": from_on, "to": to_on}
        query: dict[str, str | Sequence[str]] = {
            name: day.date().isoformat() for name, day in days.items() if day is not None
        }
        if columns is not None:
            query["columns"] = columns
        with ApiClient.connect(server) as client:
            export_view(
                client,
                view,
                form or Form.CSV,
                destination,
                query,
                recordings or [],
                batch,
                output,
                force=force,
            )
        return
    if form in VIEW_FORMS:
        raise typer.BadParameter(f"--format {form} is for views: name one with --view")
    if columns is not None or from_on is not None or to_on is not None:
        raise typer.BadParameter("--columns, --from and --to are for views: name one with --view")
    form = form or Form.TXT
    destination = destination or "transcripts"
    if sum((bool(recordings), batch is not None, everything)) != 1:
        raise typer.BadParameter("give either ids of recordings, or --batch ID, or --all, or --view NAME")
    with ApiClient.connect(server) as client:
        chosen = choose(client, recordings or [], batch, everything=everything)
        wanted = [item for item in chosen if item.recording["state"] in WITH_TRANSCRIPT]
        left_out = [item.recording for item in chosen if item.recording["state"] not in WITH_TRANSCRIPT]
        if recordings and left_out:
            raise CliError("no transcript to export:\n" + "\n".join(f"  {_why(item)}" for item in left_out))
        for recording in left_out:
            note(f"left out: {_why(recording)}")
        if destination == "-":
            write_to_stdout(client, wanted, form, output, timecode_offset)
            return
        if not wanted:
            raise CliError("nothing to export: no recording asked for has a transcript")
        written = write_files(
            client, wanted, form, Path(destination), timecode_offset=timecode_offset, force=force
        )
    if as_json:
        output.document(
            {
                "written": [
                    {"recording_id": item.recording["id"], "name": item.recording["name"], "path": str(path)}
                    for item, path in written
                ],
                "left_out": [{"recording_id": item["id"], "name": item["name"]} for item in left_out],
            }
        )
    for _, path in written:
        output.line(str(path))
    summary = f"{count_text(len(written), 'transcript')} written"
    note(f"{summary}, {count_text(len(left_out), 'recording')} left out" if left_out else summary)


def choose(client: ApiClient, ids: Sequence[str], batch_id: str | None, *, everything: bool) -> list[Wanted]:
    """The recordings that the command means."""
    from cli.status import require_id

    if ids:
        return [
            Wanted(client.recording(recording_id)) for recording_id in dict.fromkeys(map(require_id, ids))
        ]
    if batch_id is not None:
        return [Wanted(recording) for recording in client.recordings(require_id(batch_id))]
    assert everything
    return [
        Wanted(recording, folder=f"{batch['name'].replace('/', '_')} {batch['id']}")
        for batch in client.batches()
        for recording in client.recordings(batch["id"])
    ]


def export_view(
    client: ApiClient,
    view: str,
    form: Form,
    destination: str | None,
    query: dict[str, str | Sequence[str]],
    recordings: Sequence[str],
    batch_id: str | None,
    output: Output,
    *,
    force: bool,
) -> None:
    """One view to a file, which is whole or not there, or to stdout."""
    from cli.status import require_id

    query |= {"format": form.value}
    if recordings:
        query["recording_id"] = [require_id(recording_id) for recording_id in recordings]
    if batch_id is not None:
        query["batch_id"] = require_id(batch_id)
    if destination == "-":
        if output.as_json:
            raise typer.BadParameter("--json and --output - both want stdout: leave one out")
        if form is Form.PARQUET and sys.stdout.isatty():
            raise CliError("parquet is not for a terminal: give --output FILE, or send stdout on")
        with client.view(view, query) as pieces:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    path = Path(destination or safe_name(f"{view}.{form.value}"))
    if path.is_dir():
        raise CliError(
            f"{path} is a folder: give a view the path of a file, such as {path / view}.{form.value}"
        )
    if (path.exists() or path.is_symlink()) and not force:
        raise CliError(f"{path} exists: --force overwrites it")
    with client.view(view, query) as pieces:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            n_bytes = write_atomically(path, pieces)
        except OSError as error:
            raise CliError(f"{path} cannot be written: {error.strerror or error}") from error
    if output.as_json:
        output.document({"view": view, "path": str(path), "size_bytes": n_bytes})
    output.line(str(path))
    note(f"view {view} written, {size_text(n_bytes)}")


def write_to_stdout(
    client: ApiClient, wanted: Sequence[Wanted], form: Form, output: Output, timecode_offset: str | None
) -> None:
    """One transcript to stdout, as the server gave it."""
    if output.as_json:
        raise typer.BadParameter("--json and --output - both want stdout: leave one out")
    if len(wanted) != 1:
        raise CliError(
            f"stdout takes one transcript and {len(wanted)} are asked for: give one id, or --output DIR"
        )
    content = client.transcript(wanted[0].recording["id"], form.value, timecode_offset=timecode_offset)
    sys.stdout.buffer.write(content)
    sys.stdout.flush()


def write_files(
    client: ApiClient,
    wanted: Sequence[Wanted],
    form: Form,
    folder: Path,
    *,
    timecode_offset: str | None = None,
    force: bool,
) -> list[tuple[Wanted, Path]]:
    """Write every transcript below `folder`, each file whole or not at all.

    Raises:
        CliError: a file exists and `force` is off (nothing was written), or cannot be written.
    """
    targets = list(zip(wanted, target_paths(wanted, form, folder), strict=True))
    existing = [path for _, path in targets if path.exists() or path.is_symlink()]
    if existing and not force:
        listed = "\n".join(f"  {path}" for path in existing)
        raise CliError(f"nothing was written, these files exist (--force overwrites them):\n{listed}")
    for item, path in targets:
        content = client.transcript(item.recording["id"], form.value, timecode_offset=timecode_offset)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, [content])
        except OSError as error:
            raise CliError(f"{path} cannot be written: {error.strerror or error}") from error
    return targets


def target_paths(wanted: Iterable[Wanted], form: Form, folder: Path) -> list[Path]:
    """Where each transcript goes: the recording's name with the transcript's extension, inside `folder`.

    Where that would give two recordings one file (news.mp4 and news.wav), both keep their own extension in
    front (news.mp4.srt); two that still clash have their ids added.

    Raises:
        CliError: a link below `folder` leads out of it.
    """
    items = list(wanted)
    names = [safe_name(f"{item.folder}/{item.recording['name']}") for item in items]
    short = [name.with_suffix("") if name.suffix and name.stem else name for name in names]
    clashes = Counter(str(name).casefold() for name in short)
    names = [
        name if clashes[str(brief).casefold()] > 1 else brief
        for name, brief in zip(names, short, strict=True)
    ]
    clashes = Counter(str(name).casefold() for name in names)
    paths = []
    real_folder = folder.resolve()
    for item, name in zip(items, names, strict=True):
        own_id = f" {item.recording['id']}" if clashes[str(name).casefold()] > 1 else ""
        path = folder / name.with_name(f"{name.name}{own_id}.{form.value}")
        if not path.parent.resolve().is_relative_to(real_folder):
            raise CliError(
                f"{path} would be written outside of {folder}: a link leads out of it. Remove the link"
            )
        paths.append(path)
    return paths


def safe_name(name: str) -> PurePosixPath:
    """A recording's name as a relative path that stays where it is put, whatever a server says it is called."""
    parts = []
    for part in name.split("/"):
        clean = "".join("_" if _is_unsafe(char) else char for char in part)
        while len(clean.encode()) > MAX_PART_BYTES:
            # from the middle: the extension stays
            middle = len(clean) // 2
            clean = clean[: middle - 1] + clean[middle:]
        if clean not in ("", ".", ".."):
            parts.append(clean)
    return PurePosixPath(*parts) if parts else PurePosixPath("recording")


def _is_unsafe(char: str) -> bool:
    return char in "\\:" or unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")


def write_atomically(path: Path, pieces: Iterable[bytes]) -> int:
    """Write `path` so that whoever looks sees all of it or what was there before. Returns its bytes."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".export-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            n_bytes = sum(file.write(piece) for piece in pieces)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the file from colleagues
        Path(temporary).replace(path)
        return n_bytes
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _why(recording: Recording) -> str:
    """Why a recording has no transcript."""
    failure = recording["failure"]
    reason = f"{recording['state']}: {failure['reason']}" if failure else recording["state"]
    return f"{recording['name']} ({recording['id']}) is {reason}"
