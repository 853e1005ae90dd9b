"""`fonoteca pause`, `resume`, `cancel`, `retry`: what a submitter tells the queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import JsonOption, ServerOption
from cli.output import Output

if TYPE_CHECKING:
    from cli.client import ApiClient

BatchArgument = Annotated[str, typer.Argument(metavar="BATCH", help="Id of a batch.")]
TargetArgument = Annotated[str, typer.Argument(metavar="BATCH|RECORDING", help="Id of a batch or recording.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (pause, resume, cancel, retry):
        app.command(command.__name__)(command)
    app.command("transcribe-again")(transcribe_again)


def pause(batch: BatchArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Begin no more work of a batch. What is under way is finished, and uploads go on."""
    told = _tell(batch, "pause", server, of_recordings=False)
    _show(told, as_json, f"paused {told.get('name')}: `fonoteca resume {batch}` lets it go on")


def resume(batch: BatchArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Let a paused batch go on."""
    told = _tell(batch, "resume", server, of_recordings=False)
    still = " (its broadcaster is paused as a whole)" if told.get("paused") else ""
    _show(told, as_json, f"{told.get('name')} goes on{still}")


def cancel(target: TargetArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Stop what is not finished of a batch or recording. `retry` takes it up again where it stood."""
    told = _tell(target, "cancel", server)
    said = (
        f"{_recordings(told['n_recordings'])} stopped"
        if "n_recordings" in told
        else f"{told['name']} is {told['state']}"
    )
    _show(told, as_json, said)


def retry(target: TargetArgument, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """Try again what failed or was cancelled, and only that."""
    told = _tell(target, "retry", server)
    said = f"{told['name']} is {told['state']}" if "state" in told else _retried_text(told)
    _show(told, as_json, said)


def transcribe_again(
    target: Annotated[
        str | None,
        typer.Argument(metavar="[BATCH|RECORDING]", help="Id of a batch or recording.", show_default=False),
    ] = None,
    programme: Annotated[str | None, typer.Option("--programme", help="Of this programme.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="First day of broadcast, YYYY-MM-DD.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Last day of broadcast.")] = None,
    transcribed_by: Annotated[
        str | None, typer.Option("--transcribed-by", help="Those whose transcript this model made.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="With this model; else the deployed one.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All recordings that are finished.")] = False,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Transcribe finished recordings again. Each keeps its transcript until the new one is finished."""
    from cli.client import ApiClient
    from cli.errors import CliError
    from cli.status import require_id

    chosen = {"programme": programme, "from": from_, "to": to, "transcribed_by": transcribed_by}
    if target is None and not any(chosen.values()) and not everything:
        raise CliError("say which recordings: a batch, a recording, --programme, --from ..., or --all")
    asked: dict[str, Any] = {name: value for name, value in (chosen | {"model": model}).items() if value}
    n_recordings = 0
    with ApiClient.connect(server) as client:
        if target is not None:
            asked |= _which(client, require_id(target))
        while True:
            told = client.send("POST", "/v1/transcriptions", json=asked).json()
            n_recordings += told["n_recordings"]
            if told["next"] is None:
                break
            asked["after"] = told["next"]
    _show({"n_recordings": n_recordings}, as_json, f"{_recordings(n_recordings)} transcribed again")


def _which(client: ApiClient, identity: str) -> dict[str, str]:
    from cli.client import ApiProblem

    try:
        client.batch(identity)
    except ApiProblem as problem:
        if problem.status != 404:
            raise
        client.recording(identity)
        return {"recording_id": identity}
    return {"batch_id": identity}


def _recordings(n: int) -> str:
    return f"{n:,} {'recording' if n == 1 else 'recordings'}"


def _retried_text(told: dict[str, Any]) -> str:
    parts = {
        "transcribed again where something is missing": told["transcribed_again"],
        "read anew": told["split_again"],
        "without media: submit again": told["awaiting_media"],
    }
    said = [f"{_recordings(n)} {what}" for what, n in parts.items() if n]
    return "\n".join(said) or "nothing had failed or was cancelled"


def _tell(target: str, verb: str, server: str | None, *, of_recordings: bool = True) -> dict[str, Any]:
    from cli.client import ApiClient, ApiProblem
    from cli.status import require_id

    identity = require_id(target)
    with ApiClient.connect(server) as client:
        try:
            return _post(client, f"/v1/batches/{identity}/{verb}")
        except ApiProblem as problem:
            if problem.code != "batch_not_found" or not of_recordings:
                raise
        return _post(client, f"/v1/recordings/{identity}/{verb}")


def _post(client: ApiClient, path: str) -> dict[str, Any]:
    told: dict[str, Any] = client.send("POST", path).json()
    return told


def _show(told: dict[str, Any], as_json: bool, said: str) -> None:
    output = Output(as_json)
    if as_json:
        output.document(told)
    else:
        output.line(said)
