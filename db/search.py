"""Search for Python callers: the database's own functions, so that HTTP and psql give the same rows.

What a word is, what is indexed and how matches are found: `migrations/versions/search.sql`, `search_functions.sql`,
`search_windows.sql`, `search_page.sql` and docs/decisions/0017.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, RowMapping, text
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger(__name__)

MAX_HITS = 100
"""Most rows of one page."""

RANKED_TOGETHER = 250
"""So many matches are ranked among themselves, the newest first: round_size of `search_page`."""

OF_THE_TEXT = ("22", "23", "54", "XX")
"""Classes of SQLSTATE by which a text itself cannot be indexed: data, constraints, limits of the server and its faults.
Anything else (a lock, a lost connection, a missing function) concerns all texts, and is tried again."""

MERGE_LOCK = 0x464F4E4F_574F5244  # "FONOWORD"


class BadQuery(Exception):
    """A search that cannot be made: its message says why, and what to write instead."""


@dataclass(frozen=True)
class Hit:
    """One segment that matches."""

    rank: float
    segment_id: int
    recording_id: uuid.UUID
    recording: str
    broadcaster: str
    programme: str | None
    broadcast_on: dt.date | None
    start_s: float
    end_s: float
    start_timecode: str
    """hh:mm:ss.mmm from the recording's start, its timecode offset added."""
    snippet: str
    """The original text, up to 40 words; matches between <mark> and </mark>, nothing else escaped."""
    model: str | None
    is_demo_model: bool | None
    cursor: str
    """By which the search goes on behind this hit."""


@dataclass(frozen=True)
class Count:
    """How many segments match."""

    n: int
    is_exact: bool
    """False: more than `n`."""


@dataclass(frozen=True)
class SearchPage:
    """Hits in order, and how to read on."""

    hits: tuple[Hit, ...]
    next: str | None
    """Pass it as `after`; None behind the last page."""
    count: Count | None
    """With the first page only."""


def search(
    connection: Connection,
    broadcaster: str | None,
    query: str,
    *,
    programme: str | None = None,
    from_on: dt.date | None = None,
    to_on: dt.date | None = None,
    model: str | None = None,
    limit: int = 20,
    after: str | None = None,
) -> SearchPage:
    """One page of `archive.search`. `broadcaster` None: all that the connection's role may see.

    Raises:
        BadQuery: nothing to look for, too long, or a limit or cursor that is none.
    """
    if "\0" in (after or ""):
        raise BadQuery("a cursor cannot hold the sign NUL: pass the last row's, or none to begin anew")
    with _bad_queries():
        rows = (
            connection.execute(
                text(
                    "SELECT (p.hit).*, p.n_found FROM search_page(:query, :broadcaster, :programme, :from_on, :to_on, "
                    ":model, :n, :after) p"
                ),
                _parameters(query, broadcaster, programme, from_on, to_on, model)
                | {"n": limit, "after": after},
            )
            .mappings()
            .all()
        )
    hits = tuple(_hit(row) for row in rows)
    count = None
    if after is None:
        n = rows[0]["n_found"] if rows else 0
        count = Count(min(n, RANKED_TOGETHER), n <= RANKED_TOGETHER)
    return SearchPage(hits, hits[-1].cursor if len(hits) == limit else None, count)


def _hit(row: RowMapping) -> Hit:
    fields = {name: value for name, value in row.items() if name != "n_found"}
    return Hit(**fields | {"start_s": float(row["start_s"]), "end_s": float(row["end_s"])})


def index_older(connection: Connection, limit: int) -> int:
    """Index up to `limit` segments that were stored before there was a search, newest first.

    Safe to run twice at once: the second finds the row locked and does nothing. A segment whose text cannot be indexed
    is logged and left out; `fonoteca check` counts it.

    Returns:
        How many segments were looked at; 0 when all are indexed.
    """
    below = connection.scalar(
        text("SELECT below_segment_id FROM search_backfill WHERE below_segment_id > 0 FOR UPDATE SKIP LOCKED")
    )
    if below is None:
        return 0
    ids = connection.scalars(
        text("SELECT id FROM segments WHERE id < :below ORDER BY id DESC LIMIT :limit"),
        {"below": below, "limit": limit},
    ).all()
    if ids and not _is_indexed(connection, list(ids)):
        for segment_id in ids:
            if not _is_indexed(connection, [segment_id]):
                log.error("segment_not_indexed", segment_id=segment_id)
    connection.execute(
        text("UPDATE search_backfill SET below_segment_id = :below"), {"below": ids[-1] if ids else 0}
    )
    return len(ids)


def index_pending(connection: Connection, limit: int) -> int:
    """Index up to `limit` segments whose texts were stored to be indexed later. Safe run by several at once.

    A segment whose text cannot be indexed is logged and left out; `fonoteca check` counts it.

    Returns:
        How many segments were looked at; 0 when none waits, or others have them all in hand.
    """
    ids = connection.scalars(
        text(
            """
            DELETE FROM search_pending WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM search_pending LIMIT :limit FOR UPDATE SKIP LOCKED))
            RETURNING segment_id
            """
        ),
        {"limit": limit},
    ).all()
    if ids and not _is_indexed(connection, sorted(ids)):
        for segment_id in ids:
            if not _is_indexed(connection, [segment_id]):
                log.error("segment_not_indexed", segment_id=segment_id)
    return len(ids)


def _is_indexed(connection: Connection, segment_ids: list[int]) -> bool:
    """Index these segments. False, and nothing done, where the text of one of them cannot be."""
    try:
        with connection.begin_nested():
            connection.execute(text("SELECT search_index(:ids)"), {"ids": segment_ids})
    except DBAPIError as error:
        if not str(getattr(error.orig, "sqlstate", None)).startswith(OF_THE_TEXT):
            raise
        return False
    return True


def merge_new_words(connection: Connection) -> int:
    """Move new words to where beginnings (`word*`) are looked up fast. One process at a time does it.

    Returns:
        How many words are new.
    """
    if not connection.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": MERGE_LOCK}):
        return 0
    return connection.execute(
        text(
            """
            WITH moved AS (DELETE FROM search_new_words RETURNING word)
            INSERT INTO search_words (word) SELECT DISTINCT word FROM moved ORDER BY word ON CONFLICT DO NOTHING
            """
        )
    ).rowcount


def _parameters(
    query: str,
    broadcaster: str | None,
    programme: str | None,
    from_on: dt.date | None,
    to_on: dt.date | None,
    model: str | None,
) -> dict[str, object]:
    if "\0" in query or "\0" in (programme or "") or "\0" in (model or ""):
        raise BadQuery("a search cannot hold the sign NUL: leave it out")
    return {
        "query": query,
        "broadcaster": broadcaster,
        "programme": programme,
        "from_on": from_on,
        "to_on": to_on,
        "model": model,
    }


@contextmanager
def _bad_queries() -> Iterator[None]:
    """What the database says of a search that cannot be made, as BadQuery."""
    try:
        yield
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", None))
        diag = getattr(error.orig, "diag", None)
        reason = str((diag and diag.message_primary) or error.orig)
        if state == "22023":  # invalid_parameter_value: raised by our functions
            raise BadQuery(reason) from error
        if state.startswith("54"):  # program_limit_exceeded
            raise BadQuery(
                f"the search is more than the database can hold ({reason}): use fewer or shorter words"
            ) from error
        raise
