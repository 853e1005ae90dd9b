"""Texts that are to be indexed for search a moment after they are stored, by somebody else than who stores them.

Revision: 0010, after 0009.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

FOLDER = Path(__file__).resolve().parent

TABLE = """
-- no key: two workers that store at once must not wait for each other
CREATE TABLE public.search_pending (segment_id bigint NOT NULL);
ALTER TABLE public.search_pending ENABLE ROW LEVEL SECURITY;
-- it is written and emptied all the time: what is dead must not be read through
ALTER TABLE public.search_pending SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
"""
LATER = """
    ELSIF current_setting('fonoteca.index_later', true) = 'on' THEN
        INSERT INTO public.search_pending (segment_id) VALUES (NEW.id);
    ELSE"""


def follow_segment() -> str:
    """The statement that makes the trigger's function, as revision 0003 had it."""
    script = (FOLDER / "search.sql").read_text(encoding="utf-8")
    begin = script.index("CREATE FUNCTION public.search_follow_segment(")
    end = script.index("END $$;\n", begin)
    return script[begin:end].replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1) + "END $$;\n"


def execute(script: str) -> None:
    op.execute(sa.text(script.replace(":", r"\:")))


def upgrade() -> None:
    execute(TABLE)
    before, after = follow_segment().split("\n    ELSE", 1)
    execute(before + LATER + after)


def downgrade() -> None:
    execute(follow_segment())
    execute("SELECT public.search_index(ARRAY(SELECT segment_id FROM public.search_pending))")
    execute("DROP TABLE public.search_pending")
