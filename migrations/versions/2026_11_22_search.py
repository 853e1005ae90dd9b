"""Search, and what the SQL contract stands on.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from db.lexicon import copy_lexicon
from migrations.locks import lock_tables

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FOLDER = Path(__file__).parent

DROP = """
DROP FUNCTION archive.search, archive.mentions, archive.search_count, archive.timecode;
DROP TYPE archive.search_hit, archive.mention;
DROP FUNCTION public.search_snippet, public.search_newest, public.search_facets, public.search_parse,
    public.visible_broadcasters;
DROP TRIGGER search_follow_programme ON public.recordings;
DROP TRIGGER search_follow_current ON public.transcripts;
DROP TRIGGER search_follow_text ON public.segments;
DROP TRIGGER search_follow_new ON public.segments;
DROP TRIGGER segments_text_nfc ON public.segments;
DROP FUNCTION public.segments_text_to_nfc;
DROP FUNCTION public.search_follow_recording, public.search_follow_transcript, public.search_follow_segment,
    public.search_index, public.search_document, public.search_programme_facet, public.search_day;
DROP TABLE public.search_backfill, public.search_new_words, public.search_words, public.search_segments;
DROP FUNCTION public.search_pair, public.search_stems, public.search_unknown_stems, public.search_verb_stems;
DROP TABLE public.search_lexicon;
DROP FUNCTION public.search_tokens, public.search_fold;
DROP TEXT SEARCH DICTIONARY public.fonoteca_stemmer;
"""


def run_file(name: str) -> None:
    """Run a file of SQL beside this one."""
    op.execute(sa.text((FOLDER / name).read_text(encoding="utf-8").replace(":", r"\:")))


def upgrade() -> None:
    # what takes time comes first, while nobody waits for it
    for name in ("search.sql", "search_functions.sql"):
        run_file(name)
    copy_lexicon(op.get_bind())
    lock_tables("segments", "transcripts", "recordings", "broadcasters")
    op.add_column("recordings", sa.Column("timecode_offset_ms", sa.BigInteger(), nullable=True))
    op.create_check_constraint(
        op.f("ck_recordings_timecode_offset_known"), "recordings", "timecode_offset_ms >= 0"
    )
    op.add_column("transcripts", sa.Column("done_segments", sa.Integer(), nullable=True))
    op.add_column("transcripts", sa.Column("failed_segments", sa.Integer(), nullable=True))
    op.add_column("transcripts", sa.Column("no_speech_gap_samples", sa.BigInteger(), nullable=True))
    op.add_column("transcripts", sa.Column("failed_gap_samples", sa.BigInteger(), nullable=True))
    # one entry for each recording finished so far: made in the time that it takes to read transcripts once
    op.create_index(
        "ix_transcripts_uncounted",
        "transcripts",
        ["id"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND done_segments IS NULL"),
    )
    op.create_table(
        "sql_users",
        sa.Column("role_name", sa.Text(), nullable=False),
        sa.Column("broadcaster_id", sa.Integer(), nullable=True),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["broadcaster_id"], ["broadcasters.id"], name=op.f("fk_sql_users_broadcaster_id")
        ),
        sa.PrimaryKeyConstraint("role_name", name=op.f("pk_sql_users")),
    )
    run_file("search_triggers.sql")


def downgrade() -> None:
    lock_tables("segments", "transcripts", "recordings", "broadcasters")
    op.execute(DROP)
    op.drop_table("sql_users")
    op.drop_index("ix_transcripts_uncounted", table_name="transcripts")
    op.drop_column("transcripts", "failed_gap_samples")
    op.drop_column("transcripts", "no_speech_gap_samples")
    op.drop_column("transcripts", "failed_segments")
    op.drop_column("transcripts", "done_segments")
    op.drop_column("recordings", "timecode_offset_ms")
