"""`fonoteca export`: transcripts as files."""

from __future__ import annotations

import os
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.options import JsonOption, ServerOption
from cli.output import Output, count_text, note
from db.states import RecordingState

if TYPE_CHECKING:
    from cli.client import ApiClient, Recording

MAX_PART_BYTES = 200
"""Longest file or folder name written, safely below the 255 bytes that file systems allow."""
WITH_TRANSCRIPT = frozenset({RecordingState.COMPLETED, RecordingState.PARTIAL})


class Form(StrEnum):
    """How a transcript is written."""

    TXT = "txt"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


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
    form: Annotated[
        Form, typer.Option("--format", "-f", help="txt, subtitles (srt, vtt), or json with times.")
    ] = Form.TXT,
    destination: Annotated[
        str,
        typer.Option(
            "--output", "-o", "-o", metavar="DIR|-", help="Folder to write to; `-`: stdout, one recording."
        ),
    ] = "transcripts",
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write transcripts to files named like their recordings, folders kept.

    Recordings of a batch without a transcript are left out and named on stderr; asked for by id they are an
    error. Files that exist are never overwritten without --force.
    """
    from cli.client import ApiClient

    if sum((bool(recordings), batch is not None, everything)) != 1:
        raise typer.BadParameter("give either ids of recordings, or --batch ID, or --all")
    output = Output(as_json)
    with ApiClient.connect(server) as client:
        chosen = choose(client, recordings or [], batch, everything=everything)
        wanted = [item for item in chosen if item.recording["state"] in WITH_TRANSCRIPT]
        left_out = [item.recording for item in chosen if item.recording["state"] not in WITH_TRANSCRIPT]
        if recordings and left_out:
            raise CliError("no transcript to export:\n" + "\n".join(f"  {_why(item)}" for item in left_out))
        for recording in left_out:
            note(f"left out: {_why(recording)}")
        if destination == "-":
            write_to_stdout(client, wanted, form, output)
            return
        if not wanted:
            raise CliError("nothing to export: no recording asked for has a transcript")
        written = write_files(client, wanted, form, Path(destination), force=force)
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


def write_to_stdout(client: ApiClient, wanted: Sequence[Wanted], form: Form, output: Output) -> None:
    """One transcript to stdout, as the server gave it."""
    if output.as_json:
        raise typer.BadParameter("--json and --output - both want stdout: leave one out")
    if len(wanted) != 1:
        raise CliError(
            f"stdout takes one transcript and {len(wanted)} are asked for: give one id, or --output DIR"
        )
    sys.stdout.buffer.write(client.transcript(wanted[0].recording["id"], form.value))
    sys.stdout.flush()


def write_files(
    client: ApiClient, wanted: Sequence[Wanted], form: Form, folder: Path, *, force: bool
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
        content = client.transcript(item.recording["id"], form.value)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
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


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` so that whoever looks sees all of it or what was there before."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".export-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)  # mkstemp's 0600 would hide the file from colleagues
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _why(recording: Recording) -> str:
    """Why a recording has no transcript."""
    failure = recording["failure"]
    reason = f"{recording['state']}: {failure['reason']}" if failure else recording["state"]
    return f"{recording['name']} ({recording['id']}) is {reason}"
