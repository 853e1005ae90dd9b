"""`fonoteca corrections`: draw segments for people to correct, and take many corrections in or out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CliError
from cli.options import JsonOption, ServerOption
from cli.output import Output, count_text, duration_text, note

if TYPE_CHECKING:
    from cli.client import ApiProblem, NewCorrection

ITEMS_A_REQUEST = 1_000
"""Most corrections that the API takes at once."""

corrections = typer.Typer(
    no_args_is_help=True,
    help="What people say is said in segments: drawn at random, corrected, read again. Drift is measured against it.",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(corrections, name="corrections")


@corrections.command("draw")
def draw(
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=500, help="Most segments drawn.")] = 20,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw segments at random for correction, so that each kind of programme is seen.

    The page /corrections of the server plays them one by one.
    """
    from cli.client import ApiClient

    with ApiClient.connect(server) as client:
        drawn = client.draw_segments(n)
        print_segments(drawn, Output(as_json))
    if len(drawn) < n:
        note(f"{count_text(len(drawn), 'segment')} drawn: no more is left that was not drawn or corrected")
    elif not as_json:
        note(f"hear and correct them at {client.server}/corrections")


@corrections.command("list")
def list_open(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Segments listed.")] = 100,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the drawn segments that wait for a person."""
    from cli.client import ApiClient

    with ApiClient.connect(server) as client:
        waiting = list(islice(client.open_draws(), limit))
    print_segments(waiting, Output(as_json))
    if not waiting:
        note("no segment waits to be corrected: `fonoteca corrections draw` draws some")


def print_segments(segments: list[dict[str, Any]], output: Output) -> None:
    """Segments for people or programs."""
    if output.as_json:
        output.document(segments)
        return
    for each in segments:
        span = f"{duration_text(each['start_s'])}-{duration_text(each['end_s'])}"
        output.line(f"{each['segment_id']:>10}  {span:>15}  {each['recording']}: {each['text'] or '-'}")


@corrections.command("export")
def export(
    destination: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE|-", help="File to write; `-`: stdout.")
    ] = "-",
    with_older: Annotated[
        bool, typer.Option("--with-older", help="Those too that a newer one replaced.")
    ] = False,
    server: ServerOption = None,
) -> None:
    """Write all corrections as JSON lines, beside what the model wrote."""
    from cli.client import ApiClient

    n_written = 0
    with ApiClient.connect(server) as client:
        stream = sys.stdout if destination == "-" else Path(destination).open("w", encoding="utf-8")  # noqa: SIM115
        try:
            for each in client.corrections(with_older=with_older):
                stream.write(json.dumps(each, ensure_ascii=False) + "\n")
                n_written += 1
        finally:
            if stream is not sys.stdout:
                stream.close()
    note(f"{count_text(n_written, 'correction')} written")


@corrections.command("import")
def import_corrections(
    source: Annotated[
        str,
        typer.Argument(metavar="FILE|-", help="JSON lines with `segment_id` and `text`; `-`: stdin."),
    ],
    corrected_by: Annotated[
        str | None,
        typer.Option(
            "--by",
            metavar="NAME",
            help="Who corrected, where a line has no `corrected_by`.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send corrections, a thousand at a time, each thousand all or none. Sending them again changes nothing."""
    from cli.client import ApiClient, ApiProblem

    output = Output(as_json)
    n_stored = n_unchanged = 0
    with ApiClient.connect(server) as client:
        items = list(read_lines(source, corrected_by))
        for start in range(0, len(items), ITEMS_A_REQUEST):
            part = items[start : start + ITEMS_A_REQUEST]
            try:
                answer = client.send_corrections([item for _, item in part])
            except ApiProblem as problem:
                if problem.code not in ("corrections_refused", "validation_failed"):
                    raise
                raise refused(
                    source, problem, [line for line, _ in part], n_stored + n_unchanged
                ) from problem
            n_stored += answer["n_stored"]
            n_unchanged += answer["n_unchanged"]
    if as_json:
        output.document({"n_stored": n_stored, "n_unchanged": n_unchanged})
    else:
        output.line(f"{count_text(n_stored, 'correction')} stored, {n_unchanged} there already")


def read_lines(source: str, corrected_by: str | None) -> Iterator[tuple[int, NewCorrection]]:
    """(line, correction) of each line that is not empty.

    Raises:
        CliError: the file cannot be read, or a line is not a correction.
    """
    try:
        lines: Iterable[str] = (
            sys.stdin.readlines()
            if source == "-"
            else Path(source).read_text(encoding="utf-8-sig").splitlines(keepends=True)
        )
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{source} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError as error:
            raise CliError(f"{source}, line {number} is not JSON: {error}. Nothing was sent") from error
        author = content.get("corrected_by", corrected_by) if isinstance(content, dict) else None
        if not isinstance(content, dict) or "segment_id" not in content or "text" not in content:
            raise CliError(
                f"{source}, line {number} needs `segment_id` and `text`, as an object. Nothing was sent"
            )
        if author is None:
            raise CliError(
                f"{source}, line {number} does not say who corrected: add --by NAME. Nothing was sent"
            )
        yield number, {"segment_id": content["segment_id"], "text": content["text"], "corrected_by": author}


def refused(source: str, problem: ApiProblem, lines: list[int], n_before: int) -> CliError:
    """The error of a request that the server refused, by line of the file."""
    listed = []
    for fault in problem.content.get("errors") or ():
        position = str(fault.get("pointer", "")).split("/")[2:3]
        line = f"line {lines[int(position[0])]}" if position and position[0].isdecimal() else source
        listed.append(f"  {line}: {fault.get('detail', '')}")
    before = (
        f"{count_text(n_before, 'correction')} before them are stored" if n_before else "nothing was stored"
    )
    return CliError(
        f"{source}: {count_text(len(listed), 'line')} cannot be stored, so none of lines {lines[0]} to {lines[-1]} "
        f"was; {before}. Mend them and run the command again:\n" + "\n".join(listed)
    )
