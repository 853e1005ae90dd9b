"""Write a night's report: its row in Postgres and its files in the object store."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from sqlalchemy import Connection

from db.media_store import MediaMissing, MediaStore
from db.reports import save_report, storage_prefix
from db.settings import Settings
from evaluation.report.clips import make_clips
from evaluation.report.collect import collect
from evaluation.report.document import Document, as_json, from_json
from evaluation.report.mail import plain_text, subject_line
from evaluation.report.pages import page
from evaluation.report.sentences import Language

log = structlog.get_logger()


@dataclass(frozen=True)
class Written:
    """What was written, and what is mailed."""

    document: dict[str, Any]
    keys: tuple[str, ...]
    """In the object store."""
    mail_subject: str
    mail_text: str


def page_name(language: Language) -> str:
    """File of a language's page beside the others."""
    return f"report.{language.value}.html"


def text_name(language: Language) -> str:
    """File of a language's plain text."""
    return f"report.{language.value}.txt"


def write_report(connection: Connection, store: MediaStore, *, night: dt.date, settings: Settings) -> Written:
    """Collect the night, store its document, its pages, texts and clips. Written again, it replaces what was there.

    Files go to the object store before the caller commits: without the commit they wait for the next try, which
    writes them again.

    Raises:
        NightUnknown: the night was never begun.
    """
    document = collect(connection, night, zone=settings.night_zone, window_days=settings.drift_window_days)
    worst, clips = make_clips(document.worst, settings.datasets)
    content = as_json(replace(document, worst=worst))
    # what is shown is what is stored: pages are made of the JSON
    found = from_json(json.loads(json.dumps(content, ensure_ascii=False, allow_nan=False)))
    prefix = storage_prefix(night)
    language = Language(settings.report_language)
    addresses = {each: page_address(store, prefix, each) for each in Language}
    contents = render(found, clips, addresses)
    for name, data in contents.items():
        _put(store, f"{prefix}/{name}", data)
    save_report(connection, night, content)
    log.info("report_written", night=night.isoformat(), n_files=len(contents), n_clips=len(clips))
    return Written(
        document=content,
        keys=tuple(f"{prefix}/{name}" for name in contents),
        mail_subject=subject_line(found, language),
        mail_text=plain_text(found, language, addresses[language]),
    )


def render(
    document: Document, clips: Mapping[str, bytes], addresses: Mapping[Language, str]
) -> dict[str, bytes]:
    """All files of a report by name: clips first, so that a page never names what is not there yet."""
    found = {f"clips/{name}": content for name, content in clips.items()}
    for language in Language:
        found[text_name(language)] = plain_text(document, language, addresses.get(language)).encode()
        found[page_name(language)] = page(document, language, clips).encode()
    found["report.json"] = (json.dumps(as_json(document), ensure_ascii=False, indent=1) + "\n").encode()
    return found


def read_clips(store: MediaStore, document: Document) -> dict[str, bytes]:
    """The clips of a stored report, by name; what is gone is left out."""
    found = {}
    for utterance in document.worst:
        if utterance.clip is not None and utterance.clip.failure is None:
            try:
                found[utterance.clip.name] = _get(
                    store, f"{storage_prefix(document.night)}/clips/{utterance.clip.name}"
                )
            except MediaMissing:
                log.warning("report_clip_missing", night=document.night.isoformat(), clip=utterance.clip.name)
    return found


def read_page(store: MediaStore, document: Document, language: Language) -> bytes:
    """A night's page as it was stored; made again from the document where it is gone."""
    try:
        return _get(store, f"{storage_prefix(document.night)}/{page_name(language)}")
    except MediaMissing:
        return page(document, language, read_clips(store, document)).encode()


def page_address(store: MediaStore, prefix: str, language: Language) -> str:
    """Where a page lies, for people: a file's path, or the object store's address."""
    base = store.url.rstrip("/")
    if base.startswith("file://"):
        base = unquote(urlsplit(base).path).rstrip("/")
    return f"{base}/{prefix}/{page_name(language)}"


def _get(store: MediaStore, key: str) -> bytes:
    with closing(store.open(key)) as reader:
        return bytes(reader.read())


def _put(store: MediaStore, key: str, content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        store.put_file(key, Path(file.name))
