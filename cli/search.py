"""`fonoteca search`: find what was said."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import JsonOption, ServerOption
from cli.output import Output, count_text, duration_text, note, printable

if TYPE_CHECKING:
    from cli.client import ApiClient

MARK = re.compile(r"<mark>(.*?)</mark>", re.DOTALL)
PAGE_HITS = 100
"""Most that the server gives at a time."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("search")(search)


def search(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY", help="""Words in any form; '"as it was said"'; 'this -without'; 'beginn*'."""
        ),
    ],
    programme: Annotated[
        str | None, typer.Option("--programme", help="Only of this programme.", show_default=False)
    ] = None,
    from_day: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            formats=["%Y-%m-%d"],
            help="First day of broadcast, or of arrival where that is not known.",
            show_default=False,
        ),
    ] = None,
    to_day: Annotated[
        datetime | None,
        typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.", show_default=False),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Only texts of this model.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Passages shown, the best first.")] = 20,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find passages in which something was said, in any inflected form, accents and capitals aside.

    A phrase needs its own quotes inside the shell's: fonoteca search '"boas noites" -telexornal'
    """
    from cli.client import ApiClient

    asked = {
        "q": " ".join(words),
        "programme": programme,
        "from": from_day.date().isoformat() if from_day else None,
        "to": to_day.date().isoformat() if to_day else None,
        "model": model,
    }
    output = Output(as_json)
    with ApiClient.connect(server) as client:
        found = read_hits(client, {name: value for name, value in asked.items() if value is not None}, limit)
        if as_json:
            output.document(found)
        else:
            print_hits(output, client.server, found)


def read_hits(client: ApiClient, asked: dict[str, str], limit: int) -> dict[str, Any]:
    """Up to `limit` hits, from as many pages as that takes, in the form of one page."""
    found: dict[str, Any] = {"items": [], "matches": None, "next": None}
    while True:
        query: dict[str, str | int] = {**asked, "limit": min(PAGE_HITS, limit - len(found["items"]))}
        if found["next"]:
            query["after"] = found["next"]
        page = client.search(query)
        found["items"] += page["items"]
        found["matches"] = found["matches"] or page["matches"]
        found["next"] = page["next"]
        if found["next"] is None or len(found["items"]) >= limit:
            return found


def highlighted(snippet: str) -> str:
    """A snippet with its hits in bold on a terminal; typer leaves the styles out where it is none."""
    parts = MARK.split(printable(snippet))
    return "".join(
        typer.style(part, bold=True, underline=True) if number % 2 else part
        for number, part in enumerate(parts)
    )


def print_hits(output: Output, server: str, found: dict[str, Any]) -> None:
    """Hits for people, a heading for each recording; how many there are goes to stderr."""
    recording_id = None
    for hit in found["items"]:
        if hit["recording_id"] != recording_id:
            if recording_id is not None:
                output.line("")
            recording_id = hit["recording_id"]
            facts = [hit["recording"], hit["programme"], hit["broadcast_on"]]
            output.line(" · ".join(fact for fact in facts if fact))
        typer.echo(f"  {duration_text(hit['start_s']):>8}  {highlighted(hit['snippet'])}")
        output.line(f"            {server}{hit['page_url']}")
    n = found["matches"]["n"]
    if not found["items"]:
        note(
            "nothing was found: try fewer words, a beginning with *, or without --programme, --from and --to"
        )
        return
    said = count_text(n, "passage") if found["matches"]["is_exact"] else f"more than {n:,} passages"
    more = f", {len(found['items'])} shown: --limit shows more" if found["next"] else ""
    note(said + more)
    for notice in sorted({hit["notice"] for hit in found["items"] if hit["notice"]}):
        note(notice)
