"""Write docs/sql-dictionary.md, docs/cookbook/README.md and their pictures anew.

    python -m tests.sql_docs

Starts a PostgreSQL of its own, migrates it, and fills it with the made-up archive. `make test` fails where what is
committed differs from what this would write.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from sqlalchemy import make_url

from compose.local.postgres import EmbeddedPostgres
from db.connect import make_engine
from db.settings import PROJECT_ROOT
from migrations.run import migrate
from tests.sql_docs.cookbook import read_recipes
from tests.sql_docs.fill import fill
from tests.sql_docs.write import answers, cookbook_pages, picture_files, reading, schema_pages


def main() -> None:
    """Start a server, ask, write, stop."""
    with tempfile.TemporaryDirectory(prefix="fonoteca-sql-docs-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server runs as another user when started by root
        server = EmbeddedPostgres(folder / "data", folder / "run", folder / "postgres.log", durable=False)
        server.start()
        try:
            write(server.url)
        finally:
            server.stop()


def write(server_url: str) -> None:
    """Write every page and picture that differs, and name it."""
    url = make_url(server_url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    engine = make_engine(url, application_name="sql-docs")
    migrate(engine)
    with engine.begin() as connection:
        fill(connection)
    recipes = read_recipes()
    with reading(engine) as connection:
        found = answers(connection, recipes)
        made = schema_pages(connection) | cookbook_pages(found, recipes) | picture_files(found, recipes)
    engine.dispose()
    for path, content in made.items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.write_text(content, encoding="utf-8")
            print("written:", path.relative_to(PROJECT_ROOT))


if __name__ == "__main__":
    main()
