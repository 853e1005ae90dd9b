"""The page `/search`: what was said, found, heard in place. Works without JavaScript; a script only plays in place."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.auth import identify
from api.pages import templates
from api.parts import UsesParts
from api.problems import UnknownApiKey
from api.schemas import ISO_DATE
from api.search import MAX_QUERY_CHARS, Asked, BadQuery, SearchTimeout, marked, run_search
from db.search import Count, Hit
from db.search_choices import find_choices
from db.transcripts import DEMO_NOTICE

PAGE_HITS = 20

LEAD_S = 1.0
"""A passage plays from a little before it, so that the ear is there when it begins."""

router = APIRouter(include_in_schema=False)
templates.env.filters["marked"] = marked


@dataclass
class Group:
    """The hits of a page that lie in one recording, in order of time."""

    first: Hit
    hits: list[Hit] = field(default_factory=list)


def group_hits(hits: Iterable[Hit]) -> list[Group]:
    """One group for each recording, in order of its best hit."""
    groups: dict[object, Group] = {}
    for hit in hits:
        groups.setdefault(hit.recording_id, Group(hit)).hits.append(hit)
    for group in groups.values():
        group.hits.sort(key=lambda hit: hit.start_s)
    return list(groups.values())


def read_day(value: str, name: str) -> dt.date | None:
    """A day as a form sends it; empty is none.

    Raises:
        BadQuery: it is no day.
    """
    if not value:
        return None
    try:
        if ISO_DATE.fullmatch(value):
            return dt.date.fromisoformat(value)
    except ValueError:
        pass
    raise BadQuery(f"{value!r} in “{name}” is no day: write it as 1987-11-21")


def count_text(count: Count) -> str:
    """How many passages, for a person."""
    if count.n == 1 and count.is_exact:
        return "1 passage"
    return f"{'' if count.is_exact else 'more than '}{count.n:,} passages"


Field = Annotated[str, Query(max_length=5000)]


@router.get("/search")
def search_page(
    request: Request,
    parts: UsesParts,
    q: Field = "",
    programme: Field = "",
    from_: Annotated[str, Query(alias="from", max_length=5000)] = "",
    to: Field = "",
    model: Field = "",
    after: Field = "",
) -> Response:
    """A search box with filters; with a query, what was found."""
    broadcaster = identify(request, parts)
    if broadcaster is None:
        raise UnknownApiKey
    with parts.engine.connect() as connection:
        choices = find_choices(connection, broadcaster.id)
    q, programme, model = (" ".join(value.replace("\0", " ").split()) for value in (q, programme, model))
    page, trouble = None, None
    if q:
        try:
            if len(q) > MAX_QUERY_CHARS:
                raise BadQuery(
                    f"the query has {len(q)} characters, the most is {MAX_QUERY_CHARS}: shorten it"
                )
            asked = Asked(q, programme or None, read_day(from_, "from"), read_day(to, "to"), model or None)
            page = run_search(parts, broadcaster.name, asked, limit=PAGE_HITS, after=after or None)
        except (BadQuery, SearchTimeout) as problem:
            trouble = problem
    filters = {"programme": programme, "from": from_, "to": to, "model": model}
    form = {"q": q} | {name: value for name, value in filters.items() if value}
    hits = page.hits if page else ()
    return templates.TemplateResponse(
        request,
        "search.html",
        {
            "broadcaster": broadcaster,
            "choices": choices,
            "q": q,
            "filters": filters,
            "is_narrowed": len(form) > 1,
            "trouble": trouble,
            "searched": page is not None,
            "groups": group_hits(hits),
            "count": count_text(page.count) if page and page.count else None,
            "notice": DEMO_NOTICE if any(hit.is_demo_model for hit in hits) else None,
            "lead_s": LEAD_S,
            "first_url": f"/search?{urlencode(form)}" if after else None,
            "next_url": f"/search?{urlencode(form | {'after': page.next})}" if page and page.next else None,
            "widened_url": f"/search?{urlencode({'q': q})}",
        },
        status_code=trouble.status if trouble else 200,
    )
