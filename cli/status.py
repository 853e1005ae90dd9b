"""`fonoteca status`: batches, one batch, or one recording."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import INTERRUPTED, CliError
from cli.options import JsonOption, ServerOption
from cli.output import Output, duration_text, note, size_text

if TYPE_CHECKING:
    from cli.client import ApiClient, Batch, Recording


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status")(status)


def status(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[BATCH|RECORDING]", help="Id of a batch or recording.", show_default=False),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show progress until the work is finished.")] = False,
    attempts: Annotated[
        bool, typer.Option("--attempts", help="Of a recording: what was tried, and what went wrong.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Batches listed, newest first.")] = 20,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest batches, or where one batch or recording stands, failures with their reasons."""
    from cli.client import ApiClient

    output = Output(as_json)
    try:
        with ApiClient.connect(server) as client:
            if attempts:
                if target is None:
                    raise CliError("name the recording whose attempts are to be shown")
                show_attempts(client, output, require_id(target))
            elif target is None:
                show_batches(client, output, limit=limit, watch=watch)
            else:
                show_target(client, output, require_id(target), watch=watch)
    except KeyboardInterrupt:
        raise CliError("stopped watching: the work goes on", exit_code=INTERRUPTED) from None


def require_id(text: str) -> str:
    """`text` as an id of the API.

    Raises:
        CliError: it is none.
    """
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise CliError(
            f"{text!r} is not the id of a batch or recording: `fonoteca status` lists them"
        ) from None


def show_batches(client: ApiClient, output: Output, *, limit: int, watch: bool) -> None:
    """The newest batches, one line each; with `watch`, once all of them are finished."""
    from itertools import islice

    from cli.follow import follow_batch, states_text

    batches = list(islice(client.batches(), limit))
    if watch:
        for batch in reversed(batches):
            if not batch["finished"]:
                note(f"batch {batch['id']} ({batch['name']})")
                follow_batch(client, batch["id"], output)
        batches = list(islice(client.batches(), limit))
    if output.as_json:
        output.document(batches)
        return
    for batch in batches:
        audio = duration_text(batch["audio_s"]["total"])
        created = batch["created_at"][:16].replace("T", " ")
        output.line(f"{batch['id']}  {created}  {audio:>9}  {batch['name']}: {states_text(batch)}")
    if not batches:
        note("no batches yet: `fonoteca submit PATH` makes one")


def show_target(client: ApiClient, output: Output, target: str, *, watch: bool) -> None:
    """A batch with its recordings, or a recording."""
    from cli.client import ApiProblem
    from cli.follow import follow_batch

    try:
        batch = client.batch(target)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        show_recording(client, output, target, watch=watch)
        return
    if watch:
        batch = follow_batch(client, target, output)
    recordings = list(client.recordings(target))
    if output.as_json:
        output.document({"batch": batch, "recordings": recordings})
    else:
        print_batch(output, batch, recordings)


def print_batch(output: Output, batch: Batch, recordings: list[Recording]) -> None:
    """A batch for people."""
    from cli.follow import eta_text, progress_text, recording_line

    output.line(f"batch {batch['id']}: {batch['name']} ({batch['priority']} priority)")
    output.line(progress_text(batch))
    if eta := eta_text(batch):
        output.line(eta)
    for recording in recordings:
        output.line(f"{recording['id']}  {recording_line(recording)}")


def show_recording(client: ApiClient, output: Output, recording_id: str, *, watch: bool) -> None:
    """One recording."""
    from cli.client import ApiProblem
    from cli.follow import POLL_S, trouble_of
    from db.states import RECORDING_FINISHED

    try:
        recording = client.recording(recording_id)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        raise CliError(
            f"there is no batch or recording {recording_id} among yours: `fonoteca status` lists the batches"
        ) from problem
    shown = recording["state"]
    while watch and recording["state"] not in RECORDING_FINISHED:
        if recording["state"] != shown:
            shown = recording["state"]
            note(shown)
        time.sleep(POLL_S)
        recording = client.recording(recording_id)
    if output.as_json:
        output.document(recording)
        return
    output.line(f"recording {recording['id']}: {recording['name']}")
    output.line(f"state: {recording['state']}")
    trouble = trouble_of(recording)
    if trouble:
        output.line(f"reason: {trouble}")
    output.line(f"batch: {recording['batch_id']}")
    if recording["programme"]:
        kind = f" ({recording['programme_kind']})" if recording["programme_kind"] else ""
        output.line(f"programme: {recording['programme']}{kind}")
    elif recording["programme_kind"]:
        output.line(f"kind of programme: {recording['programme_kind']}")
    if recording["broadcast_on"]:
        output.line(f"broadcast: {recording['broadcast_on']}")
    output.line(f"size: {size_text(recording['size_bytes'])}")
    if recording["upload"]:
        output.line(f"uploaded: {size_text(recording['upload']['offset_bytes'])}")
    output.line(f"duration: {duration_text(recording['duration_s'])}")
    coverage = recording["coverage"]
    if coverage:
        output.line(
            f"transcribed: {coverage['transcribed_s']:.1f} s; no speech: {coverage['no_speech_s']:.1f} s; "
            f"failed: {coverage['failed_s']:.1f} s"
        )


def show_attempts(client: ApiClient, output: Output, recording_id: str) -> None:
    """What was tried with a recording: what went wrong in full, the rest as a count."""
    from collections import Counter

    found = list(client.attempts(recording_id))
    if output.as_json:
        output.document(found)
        return
    for attempt in found:
        if attempt["outcome"] in ("failed", "lost"):
            what = (
                "splitting"
                if attempt["segment_index"] is None
                else f"segment {attempt['segment_index']} ({attempt['start_s']:.1f} to {attempt['end_s']:.1f} s)"
            )
            reason = attempt["error_message"] or "its worker died, or took too long"
            output.line(
                f"{attempt['started_at'][:19].replace('T', ' ')}  {attempt['outcome']:<6}  {what}, attempt "
                f"{attempt['number']} on {attempt['host']}: {reason}"
            )
    counts = Counter(attempt["outcome"] for attempt in found)
    output.line(
        ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(counts.items())) or "nothing was tried yet"
    )
