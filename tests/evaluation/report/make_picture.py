"""Make the documents' picture of the report's chart, from the made-up history.

    python -m tests.evaluation.report.make_picture [--pages FOLDER]

With `--pages` the whole report is written to FOLDER, too, to look at.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from compose.local.postgres import EmbeddedPostgres
from db.connect import make_engine, transaction
from db.media_store import MediaStore
from db.settings import Settings
from evaluation.report.document import Document, from_json
from evaluation.report.pictures import set_chart
from evaluation.report.sentences import Language
from evaluation.report.words import Words
from evaluation.report.write import write_report
from migrations.run import migrate
from tests.conftest import database_address
from tests.evaluation.report.made_report import LAST, make_history

PICTURE = Path(__file__).parents[3] / "docs" / "pictures" / "report-chart.svg"


def make_document(pages: Path) -> Document:
    """The report of the made-up history, its files under `pages`."""
    with tempfile.TemporaryDirectory(prefix="fonoteca-report-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "postgres").mkdir(mode=0o711)
        server = EmbeddedPostgres(
            folder / "postgres" / "data", folder / "postgres" / "run", folder / "log", durable=False
        )
        server.start()
        try:
            engine = make_engine(database_address(server.url, "postgres"), application_name="picture")
            migrate(engine)
            make_history(engine, folder / "datasets")
            with transaction(engine) as tx:
                written = write_report(
                    tx.connection,
                    MediaStore(pages.resolve().as_uri()),
                    night=LAST,
                    settings=Settings(datasets=folder / "datasets"),
                )
            engine.dispose()
        finally:
            server.stop()
    return from_json(written.document)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pages", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as nowhere:
        document = make_document(chosen.pages or Path(nowhere))
    report = next(one for one in document.sets if one.name == "Transcrispeech")
    svg = set_chart(report, Words(Language.EN), document.chart_limit, "report-chart")
    first = svg.index(">", svg.index("<svg")) + 1
    PICTURE.parent.mkdir(exist_ok=True)
    # alone, the picture stands on no page: it brings its paper along
    PICTURE.write_text(f'{svg[:first]}<rect width="100%" height="100%" fill="#fff"/>{svg[first:]}\n')


if __name__ == "__main__":
    main()
