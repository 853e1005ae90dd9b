"""Search in what was said: the rows of `archive.search`, for the caller's own recordings."""

from __future__ import annotations

import datetime as dt
import re
import uuid
from dataclasses import asdict, dataclass
from typing import Annotated, Self

from fastapi import APIRouter, Query
from markupsafe import Markup, escape
from psycopg.errors import QueryCanceled
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from api.auth import Caller
from api.parts import Parts, UsesParts
from api.problems import Problem
from api.schemas import IsoDate, printable
from db import search
from db.search import MAX_HITS
from db.transcripts import DEMO_NOTICE

router = APIRouter(prefix="/v1/search", tags=["search"])

MAX_QUERY_CHARS = 1000
SEARCH_TIMEOUT_S = 10
"""Longest that finding a page may take in the database."""

ESCAPED_MARK = re.compile(r"&lt;mark&gt;(.*?)&lt;/mark&gt;", re.DOTALL)


class BadQuery(Problem):
    status, code, title = 422, "bad_query", "The query cannot be searched for"


class SearchTimeout(Problem):
    status, code, title = 503, "search_timeout", "The search took too long"


@dataclass(frozen=True)
class Asked:
    """A query and its filters."""

    query: str
    programme: str | None = None
    from_on: dt.date | None = None
    """First day of broadcast, or of arrival where that is not known."""
    to_on: dt.date | None = None
    """Last day, included."""
    model: str | None = None


def marked(snippet: str) -> Markup:
    """A snippet as HTML: everything escaped but the marks around words that matched."""
    return Markup(ESCAPED_MARK.sub(r"<mark>\1</mark>", str(escape(snippet))))  # noqa: S704 - escaped just here


def run_search(
    parts: Parts, broadcaster: str, asked: Asked, *, limit: int, after: str | None = None
) -> search.SearchPage:
    """A page of hits; with the first page (no `after`), how many matches there are.

    Raises:
        BadQuery: there is nothing to look for, or it cannot be read.
        SearchTimeout: the database gave up.
    """
    if asked.from_on and asked.to_on and asked.from_on > asked.to_on:
        raise BadQuery(
            f"the days run backwards: from {asked.from_on} to {asked.to_on}. Send the earlier one as `from`"
        )
    try:
        with parts.engine.connect() as connection:
            connection.execute(
                text("SELECT set_config('statement_timeout', :limit, true)"),
                {"limit": f"{SEARCH_TIMEOUT_S}s"},
            )
            # one more than asked tells whether there is a next page
            page = search.search(
                connection, broadcaster, **asdict(asked), limit=min(limit + 1, MAX_HITS), after=after
            )
    except search.BadQuery as error:
        raise BadQuery(str(error)) from error
    except OperationalError as error:
        if not isinstance(error.orig, QueryCanceled):
            raise
        raise SearchTimeout(
            f"the search took longer than {SEARCH_TIMEOUT_S} s and was stopped: narrow it by a programme or by days, "
            "or try again when the server has less to do",
            headers={"Retry-After": "30"},
        ) from error
    if limit < MAX_HITS:
        hits = page.hits[:limit]
        page = search.SearchPage(hits, hits[-1].cursor if len(page.hits) > limit else None, page.count)
    return page


class Hit(BaseModel):
    """A segment in which the query was found."""

    segment_id: int
    recording_id: uuid.UUID
    recording: str
    """Its name."""
    programme: str | None
    broadcast_on: dt.date | None
    start_s: float
    end_s: float
    start_timecode: str
    """The time the clock of the recording shows there, HH:MM:SS.mmm."""
    rank: float
    snippet: str
    """Plain text, words that matched between `<mark>` and `</mark>`, as `archive.search` gives it: not HTML."""
    snippet_html: str
    """The same as HTML, everything escaped but the marks."""
    model: str | None
    is_demo_model: bool
    notice: str | None
    """What a reader must know before trusting the text."""
    audio_url: str
    """The recording's audio, at this segment: a browser plays just that."""
    page_url: str
    """The recording's page, at this segment."""

    @classmethod
    def of(cls, row: search.Hit) -> Self:
        """From what `db.search` reads."""
        return cls(
            segment_id=row.segment_id,
            recording_id=row.recording_id,
            recording=row.recording,
            programme=row.programme,
            broadcast_on=row.broadcast_on,
            start_s=row.start_s,
            end_s=row.end_s,
            start_timecode=row.start_timecode,
            rank=row.rank,
            snippet=row.snippet,
            snippet_html=str(marked(row.snippet)),
            model=row.model,
            is_demo_model=bool(row.is_demo_model),
            notice=DEMO_NOTICE if row.is_demo_model else None,
            audio_url=f"/v1/recordings/{row.recording_id}/audio#t={row.start_s:.3f},{row.end_s:.3f}",
            page_url=f"/recordings/{row.recording_id}#segment-id-{row.segment_id}",
        )


class Matches(BaseModel):
    n: int
    is_exact: bool
    """False: there are more than so many."""


class SearchAnswer(BaseModel):
    items: list[Hit]
    matches: Matches | None
    """With the first page only; counted up to 250."""
    next: str | None
    """Sent as `after` it reads on."""


Words = Annotated[str, Query(max_length=MAX_QUERY_CHARS), AfterValidator(printable)]
FilterName = Annotated[str, Query(max_length=300), AfterValidator(printable)]


@router.get("")
def search_archive(
    caller: Caller,
    parts: UsesParts,
    q: Annotated[Words, Field(description='Words in any form, "a phrase", -without, beginn*.')],
    programme: Annotated[FilterName | None, Query(description="Name of the programme.")] = None,
    from_: Annotated[
        IsoDate | None,
        Query(alias="from", description="First day of broadcast, or of arrival where unknown."),
    ] = None,
    to: Annotated[IsoDate | None, Query(description="Last day, included.")] = None,
    model: Annotated[FilterName | None, Query(description="Name of the model.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_HITS)] = 20,
    after: Annotated[
        str | None, Query(max_length=500, description="`next` of the page before."), AfterValidator(printable)
    ] = None,
) -> SearchAnswer:
    """Segments in which something was said, each with its place and a snippet: the rows of `archive.search` in SQL. The
    newest 250 matches come first, the best of them at the top; then the next older 250."""
    asked = Asked(q, programme, from_, to, model)
    page = run_search(parts, caller.name, asked, limit=limit, after=after)
    return SearchAnswer(
        items=[Hit.of(row) for row in page.hits],
        matches=None if page.count is None else Matches(n=page.count.n, is_exact=page.count.is_exact),
        next=page.next,
    )
