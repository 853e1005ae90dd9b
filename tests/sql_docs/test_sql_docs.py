"""What docs/sql.md promises, and that its pages are made from the schema as it is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sqlalchemy import Connection, Engine, text

from db.settings import PROJECT_ROOT
from tests.sql_docs import pictures
from tests.sql_docs.cookbook import Answer, read_recipes
from tests.sql_docs.dictionary import read_functions, read_views
from tests.sql_docs.write import GUIDE, answers, cookbook_pages, reading, schema_pages

STALE = "run `make sql-docs`, look at what it changed, and commit it"
RECIPES = read_recipes()


@pytest.fixture(scope="module")
def found(reader: Connection) -> dict[str, Answer]:
    """All answers of the cookbook."""
    return answers(reader, RECIPES)


def test_pages_are_what_the_schema_says(reader: Connection) -> None:
    for path, content in schema_pages(reader).items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name} is out of date: {STALE}"


def test_cookbook_shows_what_the_queries_give(found: dict[str, Answer]) -> None:
    for path, content in cookbook_pages(found, RECIPES).items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name} is out of date: {STALE}"


def test_pictures_show_what_the_queries_give(found: dict[str, Answer]) -> None:
    # not byte by byte: another version of matplotlib may draw the same rows a little differently
    drawn = [recipe for recipe in RECIPES if recipe.picture]
    assert len(drawn) >= 2
    for recipe in drawn:
        kept = ElementTree.parse(pictures.FOLDER / f"{recipe.picture}.svg")
        told = kept.getroot().findtext("{http://www.w3.org/2000/svg}desc")
        assert told == pictures.description(found[recipe.name]), f"{recipe.picture}.svg: {STALE}"


def test_pictures_are_the_same_each_time(found: dict[str, Answer]) -> None:
    recipe = next(recipe for recipe in RECIPES if recipe.picture == "no-speech-by-decade")
    first = pictures.picture(recipe, found[recipe.name])
    assert first == pictures.picture(recipe, found[recipe.name])
    assert "prefers-color-scheme: dark" in first


def test_everything_is_explained(reader: Connection) -> None:
    views, functions = read_views(reader), read_functions(reader)
    assert {view.name for view in views if not view.comment} == set()
    silent = {f"{view.name}.{column.name}" for view in views for column in view.columns if not column.comment}
    assert silent == set()
    assert {function.name for function in functions if not function.comment} == set()


INDEXED = {
    "a recording's segments": "SELECT text FROM archive.segments WHERE recording_id = {recording}",
    "a recording's words": "SELECT word FROM archive.words WHERE recording_id = {recording}",
    "a recording's coverage": "SELECT kind FROM archive.coverage WHERE recording_id = {recording}",
    "a transcript's segments": "SELECT text FROM archive.all_segments WHERE transcript_id = {recording}",
    "since a day": """
        SELECT s.text FROM archive.transcripts t JOIN archive.segments s USING (transcript_id)
        WHERE t.finished_at >= '2024-06-03'""",
    "segments since a day": "SELECT text FROM archive.segments WHERE finished_at >= '2024-06-03'",
    "transcripts since a day": "SELECT model FROM archive.transcripts WHERE finished_at >= '2024-06-03'",
    "one passage": "SELECT text FROM archive.segments WHERE segment_id = 7",
    "page by key": "SELECT text FROM archive.segments WHERE segment_id > 7 ORDER BY segment_id LIMIT 10",
    "corrections of a recording": "SELECT corrected FROM archive.corrections WHERE recording_id = {recording}",
    "corrections of a segment": "SELECT corrected FROM archive.corrections WHERE is_current AND segment_id = 7",
    "corrections since a day": "SELECT corrected FROM archive.corrections WHERE corrected_at >= '2024-06-04'",
    "attempts of a recording": "SELECT outcome FROM archive.attempts WHERE recording_id = {recording}",
    "attempts since a day": "SELECT outcome FROM archive.attempts WHERE started_at >= '2024-06-05'",
    "a broadcaster's recordings": "SELECT recording FROM archive.recordings WHERE broadcaster = 'radio-costa'",
    "attempts with their segments": """
        SELECT s.text FROM archive.attempts a JOIN archive.all_segments s USING (segment_id)
        WHERE a.started_at >= '2024-06-05'""",
    "recordings of a batch": "SELECT recording FROM archive.recordings WHERE batch_id = {recording}",
    "matches": "SELECT s.text FROM archive.mentions('Vigo') JOIN archive.segments s USING (segment_id)",
}
"""What the guide's section "What is fast" promises."""
READ_WHOLE = {
    "words-that-go-together",
    "most-said-words",
    "speech-rate",
    "longest-speech",
    "failures-by-error",
}
"""Questions of the cookbook that may read a large table from one end to the other."""
LARGE = ("segments", "attempts", "gaps", "search_segments")


def planned(connection: Connection, sql: str) -> dict[str, Any]:
    """The plan of a query."""
    (plan,) = connection.scalar(text(f"EXPLAIN (FORMAT JSON) {sql}".replace(":", r"\:")))
    root: dict[str, Any] = plan["Plan"]
    return root


def read_whole(connection: Connection, sql: str) -> set[str]:
    """Large tables that a query reads from one end to the other, though it could ask an index."""
    found: set[str] = set()
    nodes = [planned(connection, sql)]
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        is_narrowed = {"Index Cond", "Recheck Cond"} & set(node)
        if node.get("Relation Name") in LARGE and not is_narrowed:
            found.add(node["Relation Name"])
    return found


@pytest.fixture(scope="module")
def large_archive(archive: Engine) -> Engine:
    """The archive, of which the planner believes that it is large: so few rows it would rather read as a whole."""
    with archive.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("ANALYZE"))
        for table, n_rows in {
            "recordings": 50_000,
            "transcripts": 60_000,
            **dict.fromkeys(LARGE, 10_000_000),
        }.items():
            # it takes rows a page from here, and the number of pages from the file
            connection.execute(
                text(
                    "UPDATE pg_class SET relpages = 1, reltuples = CAST(:n AS real) "
                    "/ greatest(1, pg_relation_size(oid) / 8192) WHERE oid = CAST(:table AS regclass)"
                ),
                {"n": n_rows, "table": f"public.{table}"},
            )
    return archive


@pytest.mark.parametrize("broadcaster", [None, "radio-costa"], ids=["all", "one"])
def test_fast_questions_ask_an_index(large_archive: Engine, broadcaster: str | None) -> None:
    with reading(large_archive, broadcaster) as connection:
        # an index of ranges is worth nothing in a file of two pages: it is taken where nothing else may be
        connection.execute(text("SET enable_seqscan = off"))
        for name, sql in INDEXED.items():
            asked = sql.format(recording="'018fd000-0000-7000-8000-000000000001'")
            assert read_whole(connection, asked) == set(), name


def test_logins_join_views_in_the_best_order(large_archive: Engine) -> None:
    with reading(large_archive) as connection:
        asked = INDEXED["attempts with their segments"]
        cost = planned(connection, asked)["Total Cost"]
        connection.execute(text("SET join_collapse_limit = 8"))  # PostgreSQL's own
        assert cost * 5 < planned(connection, asked)["Total Cost"]


def test_cookbook_asks_indexes(large_archive: Engine) -> None:
    with reading(large_archive) as connection:
        found = {recipe.name: read_whole(connection, recipe.sql) for recipe in RECIPES}
    assert {name: tables for name, tables in found.items() if tables and name not in READ_WHOLE} == {}


def test_one_broadcaster_asks_the_cookbook(archive: Engine) -> None:
    with reading(archive, "tele-val") as connection:
        found = answers(connection, RECIPES)
    assert {row[1] for row in found["mentions-per-month"].rows} == {"Telexornal"}
    assert found["still-waiting"].rows == []
    assert found["last-night"].rows == []  # held-out sets are the operator's


def test_the_guides_queries_run(reader: Connection) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    statements = [statement for block in blocks for statement in block.split(";") if statement.strip()]
    assert len(statements) >= 2
    for statement in statements:
        rows = reader.execute(text(statement)).all()
        assert rows != []


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "path",
    [GUIDE, PROJECT_ROOT / "docs" / "sql-dictionary.md", PROJECT_ROOT / "docs" / "cookbook" / "README.md"],
    ids=lambda path: path.name,
)
def test_links_lead_somewhere(path: Path) -> None:
    assert [link for link in links(path) if not (path.parent / link).exists()] == []


def test_anchors_are_headings() -> None:
    for name in ("sql-dictionary.md", "cookbook/README.md"):
        page = (PROJECT_ROOT / "docs" / name).read_text(encoding="utf-8")
        headings = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= slugs
