"""`fonoteca report`: a night's quality report, in the terminal, as a page, or for a program."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import CliError
from cli.options import JsonOption
from cli.output import Output, note

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.media_store import MediaStore
    from db.reports import StoredReport
    from evaluation.report.document import Document


class ReportLanguage(StrEnum):
    """Languages of the report."""

    GL = "gl"
    ES = "es"
    EN = "en"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    date: Annotated[
        str | None,
        typer.Option(
            "--date", metavar="YYYY-MM-DD", help="Its night. Unset: the newest.", show_default=False
        ),
    ] = None,
    language: Annotated[
        ReportLanguage | None,
        typer.Option("--language", help="Unset: FONOTECA_REPORT_LANGUAGE.", show_default=False),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: JsonOption = False,
    as_text: Annotated[
        bool, typer.Option("--text", help="The plain text of the mail (what is printed anyway).")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="Write the page to FILE, with --json or --text that instead. It needs no other file.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show a night's report: has quality moved, where, and since when."""
    if as_json and as_text:
        raise CliError("choose one of --json and --text")
    night = _date(date)
    from cli.database import database
    from db.media_store import MediaStore
    from db.settings import Settings
    from evaluation.report.document import from_json
    from evaluation.report.mail import plain_text
    from evaluation.report.sentences import Language
    from evaluation.report.write import page_address

    settings = Settings()
    with database() as engine, engine.connect() as connection:
        stored = _find(connection, night)
    try:
        document = from_json(stored.document)
    except ValueError as error:
        raise CliError(f"the report of {stored.night} cannot be read: {error}") from error
    chosen = Language(language.value if language else settings.report_language)
    store = MediaStore(settings.require_storage_url())
    if as_json and out is None:
        Output(as_json).document(stored.document)
    elif out is None and (as_text or not open_page):
        typer.echo(plain_text(document, chosen, page_address(store, stored.storage_prefix, chosen)), nl=False)
    if out is not None:
        _write(out, _content(store, stored, document, chosen, as_json=as_json, as_text=as_text))
        note(f"wrote {out}")
    if open_page:
        _open(store, stored, document, chosen)


def _date(given: str | None) -> dt.date | None:
    if given is None:
        return None
    try:
        return dt.date.fromisoformat(given)
    except ValueError:
        raise CliError(f"--date {given}: write the night as YYYY-MM-DD, for example 2026-11-22") from None


def _find(connection: Connection, night: dt.date | None) -> StoredReport:
    from db.reports import read_report, read_report_nights

    found = read_report(connection, night)
    if found is not None:
        return found
    near = read_report_nights(connection, night or dt.date.today())  # noqa: DTZ011 - only to sort by nearness
    if near:
        listed = ", ".join(str(each) for each in sorted(near))
        raise CliError(f"there is no report of {night}; the nearest: {listed}")
    raise CliError(
        "there is no report yet: the first one is written when the first night is over. Nights begin at "
        "FONOTECA_NIGHT_TIME while `fonoteca up` or beat runs, or with `fonoteca night run`"
    )


def _content(
    store: MediaStore,
    stored: StoredReport,
    document: Document,
    language: ReportLanguage | str,
    *,
    as_json: bool,
    as_text: bool,
) -> bytes:
    import json

    from evaluation.report.mail import plain_text
    from evaluation.report.sentences import Language
    from evaluation.report.write import page_address, read_page

    chosen = Language(str(language))
    if as_json:
        return (json.dumps(stored.document, ensure_ascii=False, indent=2) + "\n").encode()
    if as_text:
        return plain_text(document, chosen, page_address(store, stored.storage_prefix, chosen)).encode()
    return read_page(store, document, chosen)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror or error}") from error


def _open(
    store: MediaStore, stored: StoredReport, document: Document, language: ReportLanguage | str
) -> None:
    """Open the page where it lies, or a copy with its other languages beside it."""
    import tempfile
    import webbrowser

    from evaluation.report.sentences import Language
    from evaluation.report.write import page_address, page_name, read_page

    chosen = Language(str(language))
    page = Path(page_address(store, stored.storage_prefix, chosen))
    if not store.url.startswith("file://") or not page.is_file():
        folder = Path(tempfile.mkdtemp(prefix=f"fonoteca-report-{stored.night}-"))
        for each in Language:
            _write(folder / page_name(each), read_page(store, document, each))
        page = folder / page_name(chosen)
    if webbrowser.open(page.resolve().as_uri()):
        note(f"opened {page}")
    else:
        raise CliError(f"no browser could be started here; the page is {page}")
