"""Everything in docs that is made from the live schema and the made-up archive, as path -> text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from db.connect import make_engine
from db.settings import PROJECT_ROOT
from db.sql_users import create_sql_user, revoke_sql_user
from tests.sql_docs import cookbook, dictionary, pictures, relations
from tests.sql_docs.cookbook import Answer, Recipe

GUIDE = PROJECT_ROOT / "docs" / "sql.md"
BEGIN, END = "<!-- relations: written by `make sql-docs` -->", "<!-- end of relations -->"


@contextmanager
def reading(engine: Engine, broadcaster: str | None = None) -> Iterator[Connection]:
    """A connection as analysts have one: of a login that reads one broadcaster, or all; times are in UTC."""
    with engine.begin() as connection:
        role_name, password = create_sql_user(connection, broadcaster, label="cookbook")
    url = engine.url.set(username=role_name, password=password)
    reader = make_engine(url.render_as_string(hide_password=False), application_name="cookbook")
    try:
        with reader.connect() as connection:
            connection.execute(text("SET TIME ZONE 'UTC'"))
            yield connection
    finally:
        reader.dispose()
        revoke_sql_user(engine, role_name)


def answers(connection: Connection, recipes: list[Recipe]) -> dict[str, Answer]:
    """Each recipe's answer, by its name."""
    return {recipe.name: cookbook.answer(connection, recipe) for recipe in recipes}


def schema_pages(connection: Connection) -> dict[Path, str]:
    """The dictionary, the picture of relations, and the guide with its table of relations."""
    views, functions = dictionary.read_views(connection), dictionary.read_functions(connection)
    return {
        dictionary.PAGE: dictionary.page(connection),
        relations.PICTURE: relations.picture(views, functions),
        GUIDE: with_relations(GUIDE.read_text(encoding="utf-8")),
    }


def with_relations(guide: str) -> str:
    """The guide with the table of relations between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    before, begin, rest = guide.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/sql.md: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{relations.table()}\n{END}{after}"


def cookbook_pages(found: dict[str, Answer], recipes: list[Recipe]) -> dict[Path, str]:
    """The cookbook's page."""
    return {cookbook.PAGE: cookbook.page(recipes, found)}


def picture_files(found: dict[str, Answer], recipes: list[Recipe]) -> dict[Path, str]:
    """The cookbook's pictures."""
    return {
        pictures.FOLDER / f"{recipe.picture}.svg": pictures.picture(recipe, found[recipe.name])
        for recipe in recipes
        if recipe.picture
    }
