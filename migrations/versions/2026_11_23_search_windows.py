"""Beginnings (`word*`) within the time of other searches, and how many match together with the first page.

Revision: 0006, after 0005. Functions alone: no table is touched.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

FOLDER = Path(__file__).resolve().parent

DROP_OLD = """
DROP FUNCTION public.search_newest;
DROP FUNCTION public.search_parse;
"""
DROP_NEW = """
DROP FUNCTION public.search_page, public.search_newest, public.search_newest_wide, public.search_estimate, public.search_newest_of_days,
    public.search_window,
    public.search_prepare, public.search_parse, public.search_snippets;
DROP INDEX public.ix_search_lexicon_stems;
DROP TYPE public.search_query;
"""
REPLACED = (
    "public.search_parse",
    "public.search_newest",
    "archive.search",
    "archive.mentions",
    "archive.search_count",
)


def statement_of(script: str, function: str) -> str:
    """The statement of `search_functions.sql` that makes a function, as one that may replace it."""
    begin = script.index(f"CREATE FUNCTION {function}(")
    end = script.index("END $$;\n", begin)
    return script[begin:end].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) + "END $$;\n"


def execute(script: str) -> None:
    op.execute(sa.text(script.replace(":", r"\:")))


def upgrade() -> None:
    execute(DROP_OLD)
    for name in ("search_windows.sql", "search_page.sql"):
        execute((FOLDER / name).read_text(encoding="utf-8"))


def downgrade() -> None:
    execute(DROP_NEW)
    before = (FOLDER / "search_functions.sql").read_text(encoding="utf-8")
    for function in REPLACED:
        execute(statement_of(before, function))
    comments = (FOLDER / "archive_contract_comments.sql").read_text(encoding="utf-8")
    begin = comments.index("COMMENT ON FUNCTION archive.search IS")
    execute(comments[begin : comments.index("\n", begin)])
    execute(
        "COMMENT ON FUNCTION public.search_parse(text) IS "
        "'A query as what to look up (match, pairs), what to rank by, and what to mark in a text.';"
        "REVOKE ALL ON FUNCTION public.search_parse, public.search_newest FROM PUBLIC;"
    )
