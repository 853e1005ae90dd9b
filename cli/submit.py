"""`fonoteca submit`: recordings to the server, and what became of them.

Find and hash the files, refuse the bad ones before anything is sent, make the batch under an idempotency key
drawn from the content, upload what the server lacks, follow. Each step can be cut: the same command again finds
its batch by the key and goes on.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import INTERRUPTED, CliError
from cli.options import JsonOption, ServerOption, checked_offset, checked_track
from cli.output import Output, count_text, note, printable, size_text
from db.states import Priority, RecordingState

if TYPE_CHECKING:
    from cli.client import ApiClient, Batch, NewRecording, Recording, RecordingFacts
    from cli.gather import MediaFile
    from cli.transfer import UploadFailure

MEDIA_NEVER_ARRIVED = "media_never_arrived"
"""Failure of a recording whose upload expired: it takes its media still."""

MAX_BATCH_NAME_CHARS = 200


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("submit")(submit)


def submit(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Files, and folders searched to the bottom.")
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the batch. Unset: that of the first path.", show_default=False),
    ] = None,
    programme: Annotated[
        str | None,
        typer.Option("--programme", help="Programme that the recordings belong to.", show_default=False),
    ] = None,
    programme_kind: Annotated[
        str | None,
        typer.Option(
            "--programme-kind",
            metavar="KIND",
            help="Radio, television, interview ...: quality is watched by it.",
            show_default=False,
        ),
    ] = None,
    broadcast_on: Annotated[
        datetime | None,
        typer.Option(
            "--broadcast-on", formats=["%Y-%m-%d"], help="Day of the first broadcast.", show_default=False
        ),
    ] = None,
    timecode_offset: Annotated[
        str | None,
        typer.Option(
            "--timecode-offset",
            metavar="HH:MM:SS[.mmm]",
            help="What the clock showed at the first moment of every recording: subtitles count from it.",
            show_default=False,
            callback=checked_offset,
        ),
    ] = None,
    audio_track: Annotated[
        str | None,
        typer.Option(
            "--audio-track",
            metavar="auto|mix|NUMBER",
            help="Sound track to transcribe: the one with the most speech (auto), all mixed, or by number from 0.",
            show_default="auto",
            callback=checked_track,
        ),
    ] = None,
    priority: Annotated[Priority, typer.Option("--priority", help="Class in the queue.")] = Priority.NORMAL,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="End once everything is uploaded; do not follow the work.")
    ] = False,
    checksums: Annotated[
        Path | None,
        typer.Option(
            "--checksums",
            metavar="FILE",
            help="A `sha256sum` file: refuse files that differ from it or that it does not list.",
            show_default=False,
        ),
    ] = None,
    retry_s: Annotated[
        float,
        typer.Option(
            "--retry-for", min=0, metavar="SECONDS", help="Give up after so long without a byte or an answer."
        ),
    ] = 600.0,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Submit recordings for transcription and follow them until they are done.

    The same command again resumes what was cut and submits nothing twice. Ends with 1 when a recording is not
    complete.
    """
    from cli.client import ApiClient
    from cli.follow import ended_well, follow_batch, outcome_text, recording_line
    from cli.gather import read_checksums

    output = Output(as_json)
    stage = "nothing was sent yet"
    try:
        sums = read_checksums(checksums) if checksums else None
        with ApiClient.connect(server) as client:
            files = fit_files(paths, checksums, sums, output)
            stage = "run the same command again: it continues where this one stopped"
            facts: RecordingFacts = {}
            if programme is not None:
                facts["programme"] = programme
            if programme_kind is not None:
                facts["programme_kind"] = programme_kind
            if broadcast_on is not None:
                facts["broadcast_on"] = broadcast_on.date().isoformat()
            if timecode_offset is not None:
                facts["timecode_offset"] = timecode_offset
            if audio_track is not None:
                facts["audio_track"] = audio_track
            batch, is_replay = make_batch(client, files, name or batch_name(paths), facts, priority)
            failures = send_media(client, batch, files, output, is_replay=is_replay, patience_s=retry_s)
            if failures:
                report_upload_failures(client, batch, failures, output)
            if no_wait:
                note(f"all media is uploaded; follow it with `fonoteca status {batch['id']} --watch`")
            else:
                stage = f"the work goes on; follow it with `fonoteca status {batch['id']} --watch`"
                note(f"closing this terminal loses nothing: see `fonoteca status {batch['id']}`")
                follow_batch(client, batch["id"], output, patience_s=retry_s)
            batch = client.batch(batch["id"])
            recordings = list(client.recordings(batch["id"]))
    except KeyboardInterrupt:
        raise CliError(f"stopped: {stage}", exit_code=INTERRUPTED) from None
    if as_json:
        output.document(document(batch, recordings, []))
    for recording in recordings:
        output.line(recording_line(recording))
    if no_wait:
        return
    output.line(outcome_text(recordings))
    if not all(ended_well(recording) for recording in recordings):
        raise typer.Exit(1)


def fit_files(
    paths: Sequence[Path], checksums: Path | None, sums: dict[str, str] | None, output: Output
) -> list[MediaFile]:
    """The files to submit, hashed.

    Raises:
        CliError: there are none, or some cannot be submitted; the message lists every one of them.
    """
    from cli.gather import MAX_FILES, Refusal, against_checksums, find_files, hash_file, reason_of
    from cli.transfer import bytes_shown

    found = find_files(paths, leave_out=checksums)
    for skipped in found.skipped:
        note(f"left out: {skipped}")
    refusals = list(found.refusals)
    files = []
    with bytes_shown(output, "checking", sum(file.size_bytes for file in found.files)) as advance:
        for file in found.files:
            try:
                files.append(replace(file, sha256=hash_file(file, advance)))
            except OSError as error:
                refusals.append(Refusal(str(file.path), f"cannot be read: {reason_of(error)}"))
    if checksums and sums is not None:
        refusals += against_checksums(files, paths, checksums, sums)
    if refusals:
        listed = "\n".join(f"  {refusal}" for refusal in refusals)
        raise CliError(
            f"{count_text(len(refusals), 'file')} cannot be submitted, so nothing was sent:\n{listed}"
        )
    if not files:
        raise CliError(
            f"no files in {', '.join(map(str, paths))} (hidden ones are left out): nothing was sent"
        )
    if len(files) > MAX_FILES:
        raise CliError(f"{len(files)} files: a batch takes {MAX_FILES} at most. Submit folder by folder")
    return files


def batch_name(paths: Sequence[Path]) -> str:
    """A batch's name where none was given: the same for the same paths, so that a second run finds the batch."""
    first = paths[0]
    name = (first.resolve().name if first.name in ("", "..") else first.name) or "batch"
    name = unicodedata.normalize("NFC", printable(name))[:MAX_BATCH_NAME_CHARS]
    return name if len(paths) == 1 else f"{name} and {len(paths) - 1} more"


def idempotency_key(name: str, files: Iterable[MediaFile]) -> str:
    """The same for the same batch name and files (names, sizes, sums), whatever the time and the machine."""
    content = [name, [[file.name, file.size_bytes, file.sha256] for file in files]]
    return "submit-" + hashlib.sha256(json.dumps(content).encode()).hexdigest()


def make_batch(
    client: ApiClient, files: Sequence[MediaFile], name: str, facts: RecordingFacts, priority: Priority
) -> tuple[Batch, bool]:
    """The batch of these files, made now or by an earlier run (True). `facts` are those of every recording."""
    from cli.client import ApiProblem

    announced: list[NewRecording] = []
    for file in files:
        announced.append({"name": file.name, "size_bytes": file.size_bytes, "sha256": file.sha256, **facts})
    try:
        return client.create_batch(
            name=name,
            priority=priority.value,
            recordings=announced,
            idempotency_key=idempotency_key(name, files),
        )
    except ApiProblem as problem:
        if problem.code != "idempotency_key_reused":
            raise
        raise CliError(
            f"a batch {name!r} with these files exists already, with another --programme, --programme-kind, "
            "--broadcast-on, --timecode-offset, --audio-track or --priority: give the same ones to continue it, or "
            "another --name to submit the files again"
        ) from problem


def send_media(
    client: ApiClient,
    batch: Batch,
    files: Sequence[MediaFile],
    output: Output,
    *,
    is_replay: bool,
    patience_s: float,
) -> list[UploadFailure]:
    """Upload what the server lacks; the uploads that failed."""
    from cli.transfer import upload_all

    by_name = {file.name: file for file in files}
    # read anew: the answer to a repeated request may be as old as the first one
    pairs = [(recording, by_name[recording["name"]]) for recording in client.recordings(batch["id"])]
    missing = [(recording, file) for recording, file in pairs if awaits_media(recording)]
    total = f"{count_text(len(files), 'recording')}, {size_text(sum(file.size_bytes for file in files))}"
    if is_replay:
        note(
            f"continuing batch {batch['id']} ({batch['name']}): {total}; {len(files) - len(missing)} there already"
        )
    else:
        note(f"batch {batch['id']} ({batch['name']}): {total}")
    with continuing_hint():
        return upload_all(client, missing, output, patience_s=patience_s)


def awaits_media(recording: Recording) -> bool:
    """True while the recording's file can still be uploaded."""
    failure = recording["failure"]
    never_arrived = failure is not None and failure["code"] == MEDIA_NEVER_ARRIVED
    return recording["state"] == RecordingState.AWAITING_MEDIA or never_arrived


@contextmanager
def continuing_hint() -> Iterator[None]:
    """Say how to go on after an error that ends all uploads."""
    try:
        yield
    except CliError as error:
        error.message += "\nNothing that was uploaded is lost: run the same command again to continue"
        error.args = (error.message,)
        raise


def report_upload_failures(
    client: ApiClient, batch: Batch, failures: list[UploadFailure], output: Output
) -> None:
    """End the command: some files did not arrive."""
    if output.as_json:
        recordings = list(client.recordings(batch["id"]))
        output.document(document(client.batch(batch["id"]), recordings, failures))
    listed = "\n".join(f"  {failure.name}: {failure.reason}" for failure in failures)
    raise CliError(
        f"{count_text(len(failures), 'upload')} of batch {batch['id']} failed:\n{listed}\n"
        "The others are there and go on; run the same command again for these"
    )


def document(batch: Batch, recordings: list[Recording], failures: list[UploadFailure]) -> dict[str, object]:
    """What --json prints."""
    return {
        "batch": {key: value for key, value in batch.items() if key != "recordings"},
        "recordings": recordings,
        "upload_failures": [{"name": failure.name, "reason": failure.reason} for failure in failures],
    }
