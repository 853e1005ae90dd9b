"""The views of schema `archive` as files, limited to the caller's own rows."""

from __future__ import annotations

import threading
import uuid
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Query, Response
from psycopg.errors import QueryCanceled
from pydantic import BaseModel
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from api.archive_files import MEDIA_TYPES, ROW_FORMS, FileFormat, write_file
from api.auth import Caller
from api.parts import UsesParts
from api.problems import BatchNotFound, Problem, RecordingNotFound
from api.schemas import IsoDate, Out
from api.streamed_file import Pieces, StreamedFile
from db import archive_views
from db.archive_views import Column, FilterNotForView, Filters, View, list_views, open_rows
from db.batches import batch_exists, find_recording

MAX_EXPORTS = 4
"""Files made at a time by one process: each holds a connection for as long as its client reads."""
MAX_RECORDING_IDS = 1000

router = APIRouter(prefix="/v1/archive", tags=["archive"])

_free_exports = threading.BoundedSemaphore(MAX_EXPORTS)


class ViewNotFound(Problem):
    status, code, title = 404, "view_not_found", "There is no such view"


class UnknownColumn(Problem):
    status, code, title = 422, "unknown_column", "The view does not have this column"


class FilterUnfit(Problem):
    status, code, title = 422, "filter_unfit", "The view cannot be filtered so"


class TooManyExports(Problem):
    status, code, title = 503, "too_many_exports", "Too many views are being read"


class ExportTimeout(Problem):
    status, code, title = 503, "export_timeout", "Reading the view took too long"


class ColumnOut(Out):
    name: str
    type: str
    """PostgreSQL's name for it."""
    comment: str | None


class ViewOut(Out):
    """A view and its columns, in order."""

    name: str
    comment: str | None
    columns: list[ColumnOut]


class Archive(BaseModel):
    version: str
    """Of the contract: within one version columns are added, never renamed or taken away."""
    views: list[ViewOut]


@router.get("")
def get_archive(caller: Caller, parts: UsesParts) -> Archive:
    """The views that there are, with their columns."""
    with parts.engine.connect() as connection:
        return Archive(
            version=contract_version(connection),
            views=[ViewOut.model_validate(view) for view in list_views(connection)],
        )


@router.get(
    "/{view}",
    response_class=Response,
    responses={
        200: {"content": {media_type.split(";")[0]: {} for media_type in MEDIA_TYPES.values()}},
        503: {"description": "Too many at once, or the query took too long"},
    },
)
def get_view(
    view: str,
    caller: Caller,
    parts: UsesParts,
    format: Annotated[FileFormat, Query()] = FileFormat.CSV,  # noqa: A002 - the query's name
    columns: Annotated[str | None, Query(description="Names with commas between. Unset: all.")] = None,
    recording_id: Annotated[list[uuid.UUID] | None, Query(max_length=MAX_RECORDING_IDS)] = None,
    batch_id: uuid.UUID | None = None,
    from_on: Annotated[
        IsoDate | None, Query(alias="from", description="First day of broadcast, or of arrival without one.")
    ] = None,
    to_on: Annotated[IsoDate | None, Query(alias="to", description="Last day.")] = None,
) -> Response:
    """A view's rows of the caller's recordings as CSV, Parquet or NDJSON, sent while they are read.

    A file that ends early ends without the last chunk: HTTP clients report it. The rows are those of one moment.
    """
    if from_on and to_on and from_on > to_on:
        raise FilterUnfit(
            f"the days run backwards: from {from_on} to {to_on}. Send the earlier one as `from`"
        )
    recording_ids = tuple(dict.fromkeys(recording_id or ()))
    with parts.engine.connect() as connection:
        found = find_view(connection, view)
        chosen = choose_columns(found, columns)
        for wanted in recording_ids:
            if find_recording(connection, caller.id, wanted) is None:
                raise RecordingNotFound(wanted)
        if batch_id is not None and not batch_exists(connection, caller.id, batch_id):
            raise BatchNotFound(batch_id)
        about = {"fonoteca.view": found.name, "fonoteca.contract": contract_version(connection)}
    filters = Filters(recording_ids, batch_id, from_on, to_on)
    if not _free_exports.acquire(blocking=False):
        raise TooManyExports(
            f"{MAX_EXPORTS} views are being read from this server already: try again in a minute",
            headers={"Retry-After": "60"},
        )
    with ExitStack() as held:  # given back here where anything fails, else by the file when it ends
        held.callback(_free_exports.release)
        try:
            rows = open_rows(parts.engine, caller.id, caller.name, found, chosen, filters, ROW_FORMS[format])
            held.callback(rows.close)
            written = write_file(format, chosen, rows.chunks(), about)
            pieces = Pieces(written, cancel=rows.cancel, close=held.pop_all().close)
            held.callback(pieces.close)
            first = pieces.next()
            if format is FileFormat.CSV:  # the line of names says nothing of the query: have a row too
                first = (first or b"") + (pieces.next() or b"")
        except FilterNotForView as error:
            raise FilterUnfit(str(error)) from error
        except DBAPIError as error:
            if not isinstance(error.orig, QueryCanceled):
                raise
            raise ExportTimeout(
                f"view {found.name} gave no row within {archive_views.STATEMENT_TIMEOUT_S} s: "
                "ask for fewer recordings or days",
                headers={"Retry-After": "60"},
            ) from error
        held.pop_all()
    return StreamedFile(
        first, pieces, media_type=MEDIA_TYPES[format], file_name=f"{found.name}.{format.value}"
    )


def find_view(connection: Connection, name: str) -> View:
    """The view of this name.

    Raises:
        ViewNotFound: there is none that broadcasters may read; lists those that there are.
    """
    views = {view.name: view for view in list_views(connection)}
    if name not in views:
        raise ViewNotFound(f"there is no view {name[:80]!r}: there are {', '.join(views)}")
    return views[name]


def choose_columns(view: View, listed: str | None) -> tuple[Column, ...]:
    """The columns that a list names, in its order; all of them without a list.

    Raises:
        UnknownColumn: the view does not have one, or it comes twice.
    """
    if listed is None:
        return view.columns
    by_name = {column.name: column for column in view.columns}
    names = [name.strip() for name in listed.split(",")]
    for index, name in enumerate(names):
        if name not in by_name or name in names[:index]:
            fault = "comes twice" if name in by_name else "is none of its columns"
            raise UnknownColumn(f"{name[:80]!r} {fault}: view {view.name} has {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def contract_version(connection: Connection) -> str:
    """Version of the SQL contract."""
    return str(connection.scalar(text("SELECT archive.version()")))
