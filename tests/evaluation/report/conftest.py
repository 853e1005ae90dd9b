"""One made-up history and its report, for all tests of a module: they only read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from db.connect import make_engine, transaction
from db.media_store import MediaStore
from db.settings import Settings
from evaluation.report.document import Document, from_json
from evaluation.report.write import Written, write_report
from tests.conftest import Databases
from tests.evaluation.report.made_report import LAST, make_history


@dataclass(frozen=True)
class MadeReport:
    """The newest night of the made-up history, reported."""

    engine: Engine
    database_url: str
    store: MediaStore
    folder: Path
    """Of its files."""
    settings: Settings
    written: Written

    @property
    def document(self) -> Document:
        return from_json(self.written.document)

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()


@pytest.fixture(scope="package")
def made(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MadeReport]:
    """A history of 30 nights; two clips of the newest night's sets cannot be heard."""
    url = databases.make()
    engine = make_engine(url, application_name="tests")
    folder = tmp_path_factory.mktemp("report")
    datasets = folder / "datasets"
    make_history(engine, datasets)
    store = MediaStore(f"file://{folder / 'store'}")
    settings = Settings(datasets=datasets, storage_url=store.url, database_url=url)
    with transaction(engine) as tx:
        written = write_report(tx.connection, store, night=LAST, settings=settings)
    yield MadeReport(engine, url, store, folder / "store" / "quality" / LAST.isoformat(), settings, written)
    engine.dispose()
    databases.drop(url)
