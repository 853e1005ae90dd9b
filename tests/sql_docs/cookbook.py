"""The cookbook: questions as .sql files, their answers from the made-up archive, and the page that shows both."""

from __future__ import annotations

import datetime as dt
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from db.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docs" / "cookbook"
PAGE = FOLDER / "README.md"
MAX_SHOWN_ROWS = 6
PARTS = ("What was said", "What the archive holds", "How good it is", "What is under way")


@dataclass(frozen=True)
class Recipe:
    """One question and the query that answers it."""

    name: str
    """File name without its number and ending."""
    file: str
    title: str
    part: str
    picture: str | None
    """Name of its picture in docs/pictures, without ending."""
    prose: str
    sql: str


@dataclass(frozen=True)
class Answer:
    """What a query gave."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def read_recipes(folder: Path = FOLDER) -> list[Recipe]:
    """All recipes, in order of their files.

    Raises:
        ValueError: a file has no title, or names a part that is not one of `PARTS`.
    """
    return [_read(path) for path in sorted(folder.glob("*.sql"))]


def _read(path: Path) -> Recipe:
    header: dict[str, str] = {}
    prose: list[str] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    n_header = next((number for number, line in enumerate(lines) if not line.startswith("--")), len(lines))
    for line in lines[:n_header]:
        words = line[2:].strip()
        if found := re.fullmatch(r"(title|part|picture): (.+)", words):
            header[found[1]] = found[2]
        elif words:
            prose.append(words)
    if not header.get("title") or header.get("part") not in PARTS:
        raise ValueError(
            f"{path.name}: it needs `-- title: ...`, and `-- part: ...` with one of {', '.join(PARTS)}"
        )
    return Recipe(
        name=path.stem.partition("-")[2],
        file=path.name,
        title=header["title"],
        part=header["part"],
        picture=header.get("picture"),
        prose=" ".join(prose),
        sql="\n".join(lines[n_header:]).strip() + "\n",
    )


def answer(connection: Connection, recipe: Recipe) -> Answer:
    """Run a recipe as psql would: the file as it stands, with nothing bound."""
    raw = connection.connection.driver_connection
    assert raw is not None
    with raw.cursor() as cursor:
        cursor.execute(recipe.sql)  # without parameters, so that a % in the query is a %
        columns = tuple(column.name for column in cursor.description)
        return Answer(columns, cursor.fetchall())


def page(recipes: Sequence[Recipe], answers: dict[str, Answer]) -> str:
    """The page of all recipes with the first rows of their answers."""
    lines = [
        "# Cookbook",
        "",
        "Questions to the archive and the queries that answer them, each a file in this folder to copy, to run with",
        "`psql -f`, and to change. Their answers below come from a made-up archive of twenty-one short recordings",
        "(`tests/sql_docs/archive.py`), and a test compares each with an answer worked out by hand. How to connect,",
        "conventions and costs: [SQL](../sql.md). Every view and column: [data dictionary](../sql-dictionary.md).",
        "",
        "<!-- Written by `make sql-docs` from the .sql files beside it: change those. -->",
    ]
    for part in PARTS:
        chosen = [recipe for recipe in recipes if recipe.part == part]
        lines += ["", f"**{part}**", ""]
        lines += [f"- [{recipe.title}](#{_anchor(recipe.title)})" for recipe in chosen]
    for part in PARTS:
        lines += ["", f"## {part}"]
        for recipe in recipes:
            if recipe.part == part:
                lines += _section(recipe, answers[recipe.name])
    return "\n".join(lines) + "\n"


def _section(recipe: Recipe, found: Answer) -> list[str]:
    lines = ["", f"### {recipe.title}", ""]
    if recipe.prose:
        lines += [*textwrap.wrap(recipe.prose, 120, break_long_words=False, break_on_hyphens=False), ""]
    lines += ["```sql", recipe.sql.rstrip(), "```", "", *_table(found)]
    lines += ["", f"[`{recipe.file}`]({recipe.file})"]
    if recipe.picture:
        lines += ["", f"![{recipe.title} The rows above, drawn.](../pictures/{recipe.picture}.svg)"]
    return lines


def _table(found: Answer) -> list[str]:
    is_number = [
        all(value is None or isinstance(value, int | float | Decimal) for value in values)
        for values in zip(*found.rows, strict=True)
    ]
    shown = found.rows[:MAX_SHOWN_ROWS]
    lines = [
        f"| {' | '.join(found.columns)} |",
        "|" + "|".join("---:" if number else "---" for number in is_number) + "|",
        *(f"| {' | '.join(_cell(value) for value in row)} |" for row in shown),
    ]
    if (more := len(found.rows) - len(shown)) > 0:
        lines += ["", f"… and {more} {'rows' if more > 1 else 'row'} more."]
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "*NULL*"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "{}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.timedelta):
        days = f"{value.days} {'day' if value.days == 1 else 'days'} " if value.days else ""
        return f"{days}{value.seconds // 3600:02d}:{value.seconds % 3600 // 60:02d}"
    return re.sub(r"([|\\<>*_`\[\]])", r"\\\1", str(value)) if isinstance(value, str) else str(value)


def _anchor(title: str) -> str:
    """The address that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
